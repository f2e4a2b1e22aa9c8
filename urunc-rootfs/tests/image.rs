//! Hostile images: whatever they contain, only their own regular files are ever opened, and nothing blocks.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tempfile::TempDir;
use urunc_rootfs::{FileKind, Image, ImageError};

const LIMIT: u64 = 1 << 20;

fn main() -> std::process::ExitCode {
    common::run(tests![
        absolute_and_relative_paths_start_at_the_images_root,
        no_link_leads_to_the_hosts_files,
        links_that_only_the_kernel_can_follow_are_refused,
        links_in_circles_are_refused,
        only_regular_files_are_opened_and_nothing_blocks,
        odd_names_are_just_names,
        a_missing_file_is_told_from_one_that_cannot_be_used,
        a_file_may_have_exactly_as_many_bytes_as_allowed,
        a_file_that_grows_after_it_was_opened_is_still_limited,
        errors_name_the_path_as_it_was_given,
        an_image_that_is_swapped_during_the_call_never_shows_the_hosts_files,
    ])
}

/// An image in a directory next to which lies a file that no image may reach.
fn image() -> (TempDir, Image) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "host").unwrap();
    fs::create_dir_all(dir.path().join("image/boot")).unwrap();
    fs::write(dir.path().join("image/boot/kernel"), "kernel").unwrap();
    let image = Image::open(dir.path().join("image")).unwrap();
    (dir, image)
}

fn read(image: &Image, path: &str) -> Result<String, ImageError> {
    image.read_small(path, LIMIT).map(|bytes| String::from_utf8(bytes).unwrap())
}

fn absolute_and_relative_paths_start_at_the_images_root() {
    let (_dir, image) = image();
    for path in ["/boot/kernel", "boot/kernel", "./boot/../boot/kernel", "/../../boot/kernel"] {
        assert_eq!(read(&image, path).unwrap(), "kernel", "{path}");
    }
}

fn no_link_leads_to_the_hosts_files() {
    // R12, R13, R17: joined paths followed the image's links as root on the host.
    let (dir, image) = image();
    let root = dir.path().join("image");
    let secret = dir.path().join("secret");
    symlink(&secret, root.join("absolute")).unwrap();
    symlink("../secret", root.join("relative")).unwrap();
    symlink("../../../../../../../../../../etc/passwd", root.join("far")).unwrap();
    symlink(dir.path(), root.join("directory")).unwrap();
    symlink("..", root.join("boot/up")).unwrap();
    symlink("/proc/self/root", root.join("through")).unwrap();
    for path in ["absolute", "relative", "far", "directory/secret", "boot/up/up/secret", "through/etc/passwd"]
    {
        let error = read(&image, path).unwrap_err();
        assert!(matches!(error, ImageError::Missing { .. }), "{path}: {error:?}");
    }
    // A link at the last component or on the way is fine as long as it means something in the image.
    symlink("/boot", root.join("b")).unwrap();
    symlink("/b/kernel", root.join("k")).unwrap();
    assert_eq!(read(&image, "k").unwrap(), "kernel");
}

fn links_that_only_the_kernel_can_follow_are_refused() {
    // An image that contains a mounted /proc, as a shared pod volume may.
    if !common::have_root() {
        return;
    }
    let error = common::in_own_mounts(|| {
        let (dir, image) = image();
        let proc = dir.path().join("image/proc");
        fs::create_dir(&proc).unwrap();
        rustix::mount::mount("proc", &proc, "proc", rustix::mount::MountFlags::empty(), None).unwrap();
        let through_root = read(&image, "/proc/self/root/etc/passwd").unwrap_err();
        let open = fs::File::open(dir.path().join("secret")).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&open.as_fd());
        let through_fd = read(&image, &format!("/proc/self/fd/{fd}")).unwrap_err();
        let leaves = |e: &ImageError| matches!(e, ImageError::Leaves { .. });
        let result = (leaves(&through_root), leaves(&through_fd));
        rustix::mount::unmount(&proc, rustix::mount::UnmountFlags::DETACH).unwrap();
        result
    });
    assert_eq!(error, (true, true));
}

fn links_in_circles_are_refused() {
    let (dir, image) = image();
    symlink("b", dir.path().join("image/a")).unwrap();
    symlink("a", dir.path().join("image/b")).unwrap();
    assert!(matches!(read(&image, "a"), Err(ImageError::Leaves { .. })));
}

fn only_regular_files_are_opened_and_nothing_blocks() {
    // R11: a fifo blocked for ever, a device filled the disk.
    let (dir, image) = image();
    let root = dir.path().join("image");
    let node = |name: &str, kind, device| mknodat(CWD, root.join(name), kind, Mode::RWXU, device);
    node("fifo", FileType::Fifo, 0).unwrap();
    let _listener = UnixListener::bind(root.join("socket")).unwrap();
    let mut cases =
        vec![("fifo", FileKind::Fifo), ("socket", FileKind::Socket), ("boot", FileKind::Directory)];
    cases.push(("/", FileKind::Directory));
    if common::have_root() {
        node("zero", FileType::CharacterDevice, makedev(1, 5)).unwrap();
        node("loop", FileType::BlockDevice, makedev(7, 0)).unwrap();
        cases.extend([("zero", FileKind::CharDevice), ("loop", FileKind::BlockDevice)]);
    }
    for (path, expected) in cases {
        match image.open_file(path) {
            Err(ImageError::NotRegular { kind, .. }) => assert_eq!(kind, expected, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
}

fn odd_names_are_just_names() {
    let (dir, image) = image();
    for name in ["a,b", "file=x,readonly=on", "two\nlines", " ", "-rf", "ünï", "*"] {
        fs::write(dir.path().join("image").join(name), name).unwrap();
        assert_eq!(read(&image, name).unwrap(), name);
    }
    let bytes = Path::new(OsStr::from_bytes(b"\xff\xfe"));
    fs::write(dir.path().join("image").join(bytes), "raw").unwrap();
    assert_eq!(image.read_small(bytes, LIMIT).unwrap(), b"raw");
}

fn a_missing_file_is_told_from_one_that_cannot_be_used() {
    let (_dir, image) = image();
    for path in ["", "urunc.json", "boot/initrd", "boot/kernel/below"] {
        assert!(matches!(read(&image, path), Err(ImageError::Missing { .. })), "{path:?}");
    }
    assert!(matches!(read(&image, "a\0b"), Err(ImageError::Open { .. })));
    assert!(matches!(read(&image, &"x".repeat(300)), Err(ImageError::Open { .. })));
}

fn a_file_may_have_exactly_as_many_bytes_as_allowed() {
    let (_dir, image) = image();
    let file = image.open_file("boot/kernel").unwrap();
    assert_eq!(file.size(), 6);
    assert_eq!(file.read_small(6).unwrap(), b"kernel");
    assert_eq!(file.read_small(6).unwrap(), b"kernel", "reading twice gives the same");
    assert!(matches!(file.read_small(5), Err(ImageError::TooLarge { size: 6, limit: 5, .. })));
}

fn a_file_that_grows_after_it_was_opened_is_still_limited() {
    let (dir, image) = image();
    let file = image.open_file("boot/kernel").unwrap();
    fs::write(dir.path().join("image/boot/kernel"), vec![0; 100]).unwrap();
    assert!(matches!(file.read_small(10), Err(ImageError::TooLarge { limit: 10, .. })));
}

fn errors_name_the_path_as_it_was_given() {
    let (dir, image) = image();
    symlink("/nowhere", dir.path().join("image/link")).unwrap();
    let error = read(&image, "./link").unwrap_err();
    assert_eq!(error.to_string(), r#"the image has no file "./link""#);
    let root = Image::open(dir.path().join("secret")).unwrap_err();
    assert!(root.to_string().contains("secret"), "{root}");
}

fn an_image_that_is_swapped_during_the_call_never_shows_the_hosts_files() {
    // R12: the path was checked and then opened again.
    let (dir, image) = image();
    let root = dir.path().join("image");
    fs::create_dir_all(root.join("real")).unwrap();
    fs::write(root.join("real/file"), "image").unwrap();
    symlink(dir.path(), root.join("evil")).unwrap();
    fs::write(dir.path().join("file"), "host").unwrap();
    let done = AtomicBool::new(false);
    let mut seen = [0u32; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = |a: &str, b: &str| {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, root.join(a), CWD, root.join(b), flags).unwrap();
            };
            while !done.load(Ordering::Relaxed) {
                exchange("real", "evil");
            }
        });
        let (begun, mut reads) = (Instant::now(), 0);
        // More if the other thread has not been given a processor yet.
        while reads < 5000 || seen.contains(&0) && begun.elapsed() < Duration::from_secs(60) {
            reads += 1;
            match read(&image, "real/../real/file") {
                Ok(text) => {
                    assert_eq!(text, "image");
                    seen[0] += 1;
                }
                Err(ImageError::Missing { .. } | ImageError::Unstable { .. }) => seen[1] += 1,
                Err(e) => panic!("{e:?}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(seen[0] > 0 && seen[1] > 0, "the race was never met: {seen:?}");
}
