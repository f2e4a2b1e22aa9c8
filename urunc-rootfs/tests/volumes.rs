//! Volumes read from the host and copied into a container's root file system, both of them hostile.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{LoopDisk, have_root, in_own_mounts};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use urunc_rootfs::initrd::{Addition, Content};
use urunc_rootfs::root::{Below, ByteSize, Target};
use urunc_rootfs::volumes::{CopyError, Extent, Limits, SourceError, SourceKind, VolumeSource, copy_into};
use urunc_rootfs::{FileKind, Image, MountTable};

fn main() -> std::process::ExitCode {
    common::run(tests![
        a_config_map_is_read_as_kubelet_lays_it_out,
        a_file_is_read_to_its_destination,
        special_files_are_recognised_and_never_opened,
        more_than_the_limits_is_not_read,
        links_in_a_volume_are_copied_and_never_followed,
        a_source_can_be_read_after_the_root_was_changed,
        a_block_backed_source_is_known_as_one,
        what_is_mounted_below_is_copied_only_if_it_is_bound_too,
        files_are_copied_with_owner_mode_and_time,
        a_copy_cannot_leave_the_root_file_system,
        what_was_copied_can_be_undone_to_the_last_byte,
        a_failed_copy_leaves_everything_as_it_was,
        the_same_files_can_be_copied_again,
        whatever_belongs_to_a_replaced_file_comes_back_with_it,
        directories_made_before_a_failure_are_removed,
    ])
}

fn limits() -> Limits {
    Limits { entries: 10, bytes: ByteSize(100) }
}

fn place(path: &str) -> Target {
    Target::new(path).unwrap()
}

fn read(path: &Path, at: &str, limits: Limits) -> Result<BTreeMap<PathBuf, Content>, SourceError> {
    let additions = VolumeSource::open(path)?.read(&place(at), limits)?;
    Ok(additions.into_iter().map(|a| (a.path, a.content)).collect())
}

fn kind(path: &Path) -> SourceKind {
    VolumeSource::open(path)
        .unwrap()
        .facts(&MountTable::read().unwrap(), Below::Included, Some(limits()))
        .unwrap()
        .kind
}

fn bytes(text: &str) -> Content {
    Content::File(text.as_bytes().to_vec())
}

fn a_config_map_is_read_as_kubelet_lays_it_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("..2026_01_01")).unwrap();
    fs::write(dir.path().join("..2026_01_01/key"), "value").unwrap();
    symlink("..2026_01_01", dir.path().join("..data")).unwrap();
    symlink("..data/key", dir.path().join("key")).unwrap();
    assert_eq!(kind(dir.path()), SourceKind::Directory(Extent::Small));
    let expected = BTreeMap::from([
        ("/etc/config".into(), Content::Directory),
        ("/etc/config/..2026_01_01".into(), Content::Directory),
        ("/etc/config/..2026_01_01/key".into(), bytes("value")),
        ("/etc/config/..data".into(), Content::Link("..2026_01_01".into())),
        ("/etc/config/key".into(), Content::Link("..data/key".into())),
    ]);
    assert_eq!(read(dir.path(), "/etc/config", limits()).unwrap(), expected);
}

fn a_file_is_read_to_its_destination() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hosts-17"), "127.0.0.1").unwrap();
    let source = dir.path().join("hosts-17");
    assert_eq!(kind(&source), SourceKind::File(Extent::Small));
    for _ in 0..2 {
        let expected = BTreeMap::from([("/etc/hosts".into(), bytes("127.0.0.1"))]);
        assert_eq!(read(&source, "/etc/hosts", limits()).unwrap(), expected);
    }
}

fn special_files_are_recognised_and_never_opened() {
    // R11: a fifo blocked for ever, /dev/zero filled the disk.
    let dir = tempfile::tempdir().unwrap();
    mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(kind(&dir.path().join("fifo")), SourceKind::Special(FileKind::Fifo));
    assert_eq!(kind(Path::new("/dev/zero")), SourceKind::Special(FileKind::CharDevice));
    // It was said to be too large.
    assert_eq!(kind(dir.path()), SourceKind::Directory(Extent::Holds(FileKind::Fifo)));
    for path in [dir.path(), &dir.path().join("fifo"), Path::new("/dev/zero")] {
        let refused = read(path, "/x", limits());
        assert!(matches!(refused, Err(SourceError::Special { .. })), "{refused:?}");
    }
}

fn more_than_the_limits_is_not_read() {
    // R16: whole files went into memory, whatever their size.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), [b'x'; 60]).unwrap();
    assert_eq!(kind(dir.path()), SourceKind::Directory(Extent::Small));
    fs::write(dir.path().join("b"), [b'x'; 60]).unwrap();
    assert_eq!(kind(dir.path()), SourceKind::Directory(Extent::Large));
    assert!(matches!(read(dir.path(), "/x", limits()), Err(SourceError::TooLarge { .. })));
    // Grown since it was looked at.
    let source = VolumeSource::open(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a"), [b'x'; 200]).unwrap();
    assert!(matches!(source.read(&place("/x"), limits()), Err(SourceError::TooLarge { .. })));
    let many = tempfile::tempdir().unwrap();
    for n in 0..10 {
        fs::write(many.path().join(n.to_string()), "").unwrap();
    }
    assert_eq!(kind(many.path()), SourceKind::Directory(Extent::Large));
    let deep = tempfile::tempdir().unwrap();
    fs::create_dir_all(deep.path().join("d/".repeat(40))).unwrap();
    let room = Limits { entries: 100, ..limits() };
    assert!(matches!(read(deep.path(), "/x", room), Err(SourceError::TooLarge { .. })));
}

fn links_in_a_volume_are_copied_and_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/etc/passwd", dir.path().join("link")).unwrap();
    symlink("/etc", dir.path().join("dir")).unwrap();
    let found = read(dir.path(), "/v", limits()).unwrap();
    assert_eq!(found[Path::new("/v/link")], Content::Link("/etc/passwd".into()));
    assert_eq!(found.len(), 3);
}

fn a_source_can_be_read_after_the_root_was_changed() {
    if !have_root() {
        return;
    }
    let found = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        fs::create_dir(dir.path().join("volume")).unwrap();
        fs::write(dir.path().join("volume/file"), "content").unwrap();
        let directory = VolumeSource::open(dir.path().join("volume")).unwrap();
        let file = VolumeSource::open(dir.path().join("volume/file")).unwrap();
        common::in_child(|| {
            rustix::process::chroot(dir.path().join("empty")).unwrap();
            rustix::process::chdir("/").unwrap();
            let read = |source: &VolumeSource| source.read(&place("/v"), limits()).unwrap().len();
            (read(&directory), read(&file), Path::new("/proc").exists())
        })
    });
    assert_eq!(found, (2, 1, false));
}

fn a_block_backed_source_is_known_as_one() {
    if !LoopDisk::possible() {
        return;
    }
    let (point, node, expected, below) = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let disk = LoopDisk::new(dir.path(), "disk");
        let point = dir.path().join("volume");
        disk.mount(&point, "rw");
        fs::create_dir(point.join("below")).unwrap();
        let table = MountTable::read().unwrap();
        let mounted = |path: &Path| {
            VolumeSource::open(path).unwrap().facts(&table, Below::Included, Some(limits())).unwrap().mounted
        };
        let found = mounted(&point).unwrap();
        let below = mounted(&point.join("below")).is_none();
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).unwrap();
        (found.mount.point == point, found.node, disk.node.clone(), below)
    });
    assert!(point && below);
    assert_eq!(node, Some(expected));
}

fn what_is_mounted_below_is_copied_only_if_it_is_bound_too() {
    // `bind` was taken for `rbind`.
    if !have_root() {
        return;
    }
    let seen = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("volume/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("covered"), "").unwrap();
        common::run_program(
            "mount",
            &["-t", "tmpfs", "none", inner.to_str().unwrap()].map(std::ffi::OsStr::new),
        );
        fs::write(inner.join("mounted"), "").unwrap();
        let names = |below| {
            let source = VolumeSource::open_as(dir.path().join("volume"), below).unwrap();
            let found = source.read(&place("/v"), limits()).unwrap();
            found.iter().map(|a| a.path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let seen = (names(Below::Included), names(Below::LeftOut));
        rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::empty()).unwrap();
        seen
    });
    let expected = |last: &str| vec!["/v".to_owned(), "/v/inner".to_owned(), format!("/v/inner/{last}")];
    assert_eq!(seen, (expected("mounted"), expected("covered")));
}

/// A root file system and, beside it, a directory that no copy may reach.
fn rootfs() -> (TempDir, Image) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/secret"), "host").unwrap();
    let root = dir.path().join("rootfs");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/hosts"), "image").unwrap();
    fs::set_permissions(root.join("etc/hosts"), fs::Permissions::from_mode(0o604)).unwrap();
    symlink("../run/resolv.conf", root.join("etc/resolv.conf")).unwrap();
    symlink(dir.path().join("outside"), root.join("out")).unwrap();
    symlink("../../outside/secret", root.join("etc/secret")).unwrap();
    (dir, Image::open(root).unwrap())
}

fn addition(path: &str, content: Content) -> Addition {
    let (uid, gid) = if rustix::process::geteuid().is_root() {
        (123, 456)
    } else {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    };
    Addition { path: path.into(), content, mode: 0o640, uid, gid, mtime: 1_000_000 }
}

/// Every path with everything that a hash of the image would see.
fn inventory(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let m = path.symlink_metadata().unwrap();
        let content = if m.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else if m.is_dir() {
            found.extend(inventory(&path));
            String::new()
        } else {
            format!("{}.{} {}", m.mtime(), m.mtime_nsec(), fs::read_to_string(&path).unwrap())
        };
        found.insert(path, format!("{:o} {}:{} {} {content}", m.mode(), m.uid(), m.gid(), m.nlink()));
    }
    found
}

fn files_are_copied_with_owner_mode_and_time() {
    let (dir, image) = rootfs();
    let config = addition("/etc/conf.d/app,x=y", bytes("new"));
    copy_into(&image, &[addition("/etc/hosts", bytes("container")), config.clone()]).unwrap();
    let root = dir.path().join("rootfs");
    assert_eq!(fs::read_to_string(root.join("etc/hosts")).unwrap(), "container");
    let m = fs::metadata(root.join("etc/conf.d/app,x=y")).unwrap();
    assert_eq!((m.mode() & 0o7777, m.uid(), m.gid(), m.mtime()), (0o640, config.uid, config.gid, 1_000_000));
    assert_eq!(fs::metadata(root.join("etc/conf.d")).unwrap().mode() & 0o7777, 0o755);
}

fn a_copy_cannot_leave_the_root_file_system() {
    // R12: a link in the image let root write to the host's files.
    let (dir, image) = rootfs();
    let additions = [
        addition("/out/secret", bytes("evil")),
        addition("/etc/secret", bytes("evil")),
        addition("/etc/resolv.conf", bytes("nameserver")),
    ];
    copy_into(&image, &additions).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("outside/secret")).unwrap(), "host");
    // What the links name is made inside.
    let root = dir.path().join("rootfs");
    let inside = root.join(dir.path().join("outside/secret").strip_prefix("/").unwrap());
    for copied in [root.join("etc/secret"), inside] {
        assert_eq!(fs::read_to_string(copied).unwrap(), "evil");
    }
    assert!(!root.join("etc/resolv.conf").symlink_metadata().unwrap().is_symlink());
}

fn what_was_copied_can_be_undone_to_the_last_byte() {
    let (dir, image) = rootfs();
    let before = inventory(dir.path());
    let additions = [
        addition("/etc/hosts", bytes("container")),
        addition("/etc/resolv.conf", bytes("nameserver")),
        addition("/new/deep/dir", Content::Directory),
        addition("/new/deep/dir/file", bytes("x")),
        addition("/new/link", Content::Link("deep".into())),
    ];
    let copied = copy_into(&image, &additions).unwrap();
    assert_ne!(inventory(dir.path()), before);
    copied.undo(&image).unwrap();
    assert_eq!(inventory(dir.path()), before);
}

fn a_failed_copy_leaves_everything_as_it_was() {
    let (dir, image) = rootfs();
    fs::write(dir.path().join("rootfs/large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let before = inventory(dir.path());
    for (path, content) in [("/etc", bytes("")), ("/etc/hosts", Content::Directory), ("/large", bytes(""))] {
        let additions =
            [addition("/etc/resolv.conf", bytes("n")), addition("/a/b", bytes("")), addition(path, content)];
        let error = copy_into(&image, &additions).unwrap_err();
        assert!(matches!(error, CopyError::Blocked { .. } | CopyError::TooLarge { .. }), "{path}: {error:?}");
        assert_eq!(inventory(dir.path()), before, "{path}");
    }
}

fn the_same_files_can_be_copied_again() {
    // R9: the second start of the same container failed.
    let (dir, image) = rootfs();
    let additions = [addition("/etc/hosts", bytes("one")), addition("/new/dir", Content::Directory)];
    copy_into(&image, &additions).unwrap();
    // What a killed create left behind is no obstacle either.
    fs::write(dir.path().join("rootfs/etc/.urunc-unfinished"), "half").unwrap();
    copy_into(&image, &additions).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("rootfs/etc/hosts")).unwrap(), "one");
    assert!(!dir.path().join("rootfs/etc/.urunc-unfinished").exists());
}

fn whatever_belongs_to_a_replaced_file_comes_back_with_it() {
    // Extended attributes, a time's fractions and other names were lost.
    if !have_root() {
        return;
    }
    let (dir, image) = rootfs();
    let root = dir.path().join("rootfs");
    let named = root.join("etc/hosts");
    fs::hard_link(&named, root.join("etc/other")).unwrap();
    let alone = root.join("etc/alone");
    fs::write(&alone, "alone").unwrap();
    let attribute = |path: &Path| {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(path, "trusted.urunc", &mut value).unwrap();
        value[..length].to_vec()
    };
    for path in [&named, &alone] {
        let value = path.file_name().unwrap().as_encoded_bytes();
        let set = rustix::fs::setxattr(path, "trusted.urunc", value, rustix::fs::XattrFlags::empty());
        if !common::have("extended attributes", set.is_ok()) {
            return;
        }
    }
    let (before, inode) = (inventory(dir.path()), fs::metadata(&named).unwrap().ino());
    let additions = ["/etc/hosts", "/etc/alone"].map(|path| addition(path, bytes("container")));
    let copied = copy_into(&image, &additions).unwrap();
    assert_eq!(fs::read_to_string(root.join("etc/other")).unwrap(), "image");
    copied.undo(&image).unwrap();
    assert_eq!((attribute(&named), attribute(&alone)), (b"hosts".to_vec(), b"alone".to_vec()));
    // Where the file system has no handles, it is a file of its own.
    if common::have("file handles", fs::metadata(&named).unwrap().ino() == inode) {
        assert_eq!(inventory(dir.path()), before);
    }
}

fn directories_made_before_a_failure_are_removed() {
    let (dir, image) = rootfs();
    let before = inventory(dir.path());
    let too_long = format!("/a/b/{}/file", "x".repeat(300));
    let error = copy_into(&image, &[addition(&too_long, bytes(""))]).unwrap_err();
    assert!(matches!(error, CopyError::Copy { .. }), "{error:?}");
    assert_eq!(inventory(dir.path()), before);
}
