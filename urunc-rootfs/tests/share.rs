//! The tree that virtiofsd shares, and virtiofsd itself.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{enter_own_mounts, have, have_root, in_child, in_own_mounts};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use urunc_rootfs::Access;
use urunc_rootfs::root::{Below, Binding, HostBind, Later, Owner, SharedTree, Source, Target, Tmpfs, Use};
use urunc_rootfs::virtiofsd::{DaemonLaunch, SocketNumber, Virtiofsd};

fn main() -> std::process::ExitCode {
    common::run(tests![
        volumes_appear_in_the_shared_tree_and_only_there,
        a_read_only_tree_still_gets_places_for_its_volumes,
        links_of_the_image_that_lead_nowhere_are_places_too,
        what_was_made_to_mount_on_can_be_removed_again,
        a_volume_is_bound_as_its_user_wants,
        a_tmpfs_is_in_memory_and_can_hold_other_volumes,
        virtiofsd_shares_the_tree_as_planned,
    ])
}

fn bind(source: &Path, target: &str, access: Use) -> HostBind {
    HostBind { source: Source::Host(source.to_path_buf()), target: Target::new(target).unwrap(), access }
}

/// A root file system with nothing but `/etc`, and a volume.
fn bundle(dir: &Path) -> (PathBuf, PathBuf) {
    let (root, volume) = (dir.join("rootfs"), dir.join("volume"));
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/os-release"), "image").unwrap();
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("key"), "value").unwrap();
    (root, volume)
}

fn volumes_appear_in_the_shared_tree_and_only_there() {
    // E4 and the design: in the monitor's own namespace they were gone after the change of its root.
    if !have_root() {
        return;
    }
    let (inside, outside) = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = bundle(dir.path());
        let binds = vec![
            bind(&volume.join("key"), "/etc/config/key", Use::Data),
            bind(&volume, "/data", Use::Share(Access::ReadWrite)),
        ];
        let prepared = SharedTree::plan(root.clone(), Access::ReadWrite, binds)
            .unwrap()
            .prepare(&mut Vec::new())
            .unwrap();
        let look = || {
            let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
            ["etc/os-release", "etc/config/key", "data/key"].map(read)
        };
        let inside = in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            fs::write(root.join("data/new"), "").unwrap();
            let refused = fs::write(root.join("etc/config/key"), "").is_err();
            (look(), refused, volume.join("new").exists())
        });
        (inside, look())
    });
    assert_eq!(inside, (["image", "value", "value"].map(String::from), true, true));
    assert_eq!(outside, ["image", "", ""]);
}

fn a_read_only_tree_still_gets_places_for_its_volumes() {
    // R20: the image's root was writable whatever the spec said.
    if !have_root() {
        return;
    }
    let facts = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = bundle(dir.path());
        let binds = vec![bind(&volume, "/data", Use::Share(Access::ReadWrite))];
        let prepared = SharedTree::plan(root.clone(), Access::ReadOnly, binds)
            .unwrap()
            .prepare(&mut Vec::new())
            .unwrap();
        in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            (fs::write(root.join("etc/new"), "").is_err(), fs::write(root.join("data/new"), "").is_ok())
        })
    });
    assert_eq!(facts, (true, true));
}

fn a_tmpfs_is_in_memory_and_can_hold_other_volumes() {
    // R18: it was dropped without a word.
    if !have_root() {
        return;
    }
    let (inside, on_disk) = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = bundle(dir.path());
        let owner = Owner { uid: 5, gid: 6 };
        let tmpfs = Tmpfs { size: Some("64k".to_owned()), mode: 0o1770, owner };
        let memory = HostBind {
            source: Source::Memory(tmpfs),
            target: Target::new("/scratch").unwrap(),
            access: Use::Share(Access::ReadWrite),
        };
        let binds = vec![bind(&volume, "/scratch/data", Use::Data), memory];
        let prepared = SharedTree::plan(root.clone(), Access::ReadOnly, binds)
            .unwrap()
            .prepare(&mut Vec::new())
            .unwrap();
        let inside = in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            let scratch = root.join("scratch");
            let found = fs::metadata(&scratch).unwrap();
            let about = (found.mode() & 0o7777, found.uid(), found.gid());
            let fits = fs::write(scratch.join("little"), "x").is_ok();
            let too_much = fs::write(scratch.join("much"), vec![0; 100 * 1024]).is_err();
            let volume = fs::read_to_string(scratch.join("data/key")).unwrap_or_default();
            (about, fits, too_much, volume)
        });
        (inside, fs::read_dir(root.join("scratch")).unwrap().count())
    });
    assert_eq!(inside, ((0o1770, 5, 6), true, true, "value".to_owned()));
    assert_eq!(on_disk, 0);
}

fn links_of_the_image_that_lead_nowhere_are_places_too() {
    // Images whose /etc/resolv.conf points to what only a running system has.
    if !have_root() {
        return;
    }
    let seen = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = bundle(dir.path());
        fs::create_dir(root.join("var")).unwrap();
        for (link, to) in [
            ("etc/resolv.conf", "../run/systemd/resolv.conf"),
            ("var/run", "/run/../../run"),
            ("etc/out", "../../../../../outside/file"),
            ("etc/round", "round"),
        ] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        let key = volume.join("key");
        let binds =
            ["/etc/resolv.conf", "/var/run/secrets/token", "/etc/out"].map(|to| bind(&key, to, Use::Data));
        let prepared = SharedTree::plan(root.clone(), Access::ReadWrite, binds.into())
            .unwrap()
            .prepare(&mut Vec::new())
            .unwrap();
        let round = vec![bind(&key, "/etc/round", Use::Data)];
        let refused = SharedTree::plan(root.clone(), Access::ReadWrite, round)
            .unwrap()
            .prepare(&mut Vec::new())
            .is_err();
        let seen = in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
            ["run/systemd/resolv.conf", "run/secrets/token", "outside/file"].map(read)
        });
        (seen, refused, dir.path().join("outside").exists())
    });
    assert_eq!(seen, (["value"; 3].map(String::from), true, false));
}

fn what_was_made_to_mount_on_can_be_removed_again() {
    // A create that failed left them in the image.
    if !have_root() {
        return;
    }
    let facts = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = bundle(dir.path());
        std::os::unix::fs::symlink("../run/token", root.join("etc/token")).unwrap();
        let listing = || {
            let mut found = Vec::new();
            let mut left = vec![root.clone()];
            while let Some(directory) = left.pop() {
                for entry in fs::read_dir(directory).unwrap().flatten() {
                    found.push(entry.path());
                    left.extend(Some(entry.path()).filter(|path| path.is_dir() && !path.is_symlink()));
                }
            }
            found.sort();
            found
        };
        let before = listing();
        let mut binds = vec![
            bind(&volume, "/data/deep/x", Use::Data),
            bind(&volume.join("key"), "/etc/config/key", Use::Data),
            bind(&volume.join("key"), "/etc/token", Use::Data),
        ];
        let mut made = Vec::new();
        let whole = SharedTree::plan(root.clone(), Access::ReadOnly, binds.clone()).unwrap();
        drop(whole.prepare(&mut made).unwrap());
        let grown = listing().len() - before.len();
        let removed = made.iter().rev().all(|point| point.remove().is_ok());
        let first = (grown, removed, listing() == before);
        // One that fails half-way, and in which something was written meanwhile.
        binds.push(bind(&dir.path().join("missing"), "/z/z/z/z", Use::Data));
        let mut made = Vec::new();
        let partly = SharedTree::plan(root.clone(), Access::ReadOnly, binds).unwrap();
        let failed = partly.prepare(&mut made).is_err();
        fs::write(root.join("data/deep/x/precious"), "x").unwrap();
        fs::write(root.join("run/token"), "x").unwrap();
        let kept = made.iter().rev().filter(|point| point.remove().is_err()).count();
        let precious = root.join("data/deep/x/precious").exists() && root.join("run/token").exists();
        (first, failed, kept, precious, root.join("etc/config").exists())
    });
    // Of the second, `data`, `deep` and `x`, `run` and `token` stay.
    assert_eq!(facts, ((7, true, true), true, 5, true, false));
}

fn a_volume_is_bound_as_its_user_wants() {
    // `bind` was `rbind`, and what was read-only never saw what the host mounted later, nor let it unmount.
    if !have_root() {
        return;
    }
    let seen = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = bundle(dir.path());
        for name in ["now", "later"] {
            fs::create_dir(volume.join(name)).unwrap();
            fs::write(volume.join(name).join("covered"), "").unwrap();
        }
        // As systemd makes all mounts.
        rustix::mount::mount_bind(&volume, &volume).unwrap();
        rustix::mount::mount_change(&volume, rustix::mount::MountPropagationFlags::SHARED).unwrap();
        let mount = |name: &str| {
            let point = volume.join(name);
            common::run_program(
                "mount",
                &["-t", "tmpfs", "none", point.to_str().unwrap()].map(std::ffi::OsStr::new),
            );
        };
        mount("now");
        let volumes = [
            ("/as-ever", Binding::default()),
            ("/alone", Binding { below: Below::LeftOut, ..Binding::default() }),
            ("/following", Binding { later: Later::Followed, ..Binding::default() }),
        ];
        let binds = volumes.map(|(target, binding)| HostBind {
            source: Source::Volume { path: volume.clone(), binding },
            target: Target::new(target).unwrap(),
            access: Use::Data,
        });
        let shared = SharedTree::plan(root.clone(), Access::ReadOnly, binds.into()).unwrap();
        let prepared = shared.prepare(&mut Vec::new()).unwrap();
        let host = fs::File::open("/proc/self/ns/mnt").unwrap();
        let seen = in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            in_child(|| {
                let kind = rustix::thread::LinkNameSpaceType::Mount;
                rustix::thread::move_into_link_name_space(host.as_fd(), Some(kind)).unwrap();
                mount("later");
            });
            volumes.map(|(target, _)| {
                let covered = |name: &str| root.join(&target[1..]).join(name).join("covered").exists();
                let written = fs::write(root.join(&target[1..]).join("x"), "").is_ok();
                (covered("now"), covered("later"), written)
            })
        });
        for point in ["later", "now", ""] {
            rustix::mount::unmount(volume.join(point), rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        seen
    });
    assert_eq!(seen, [(false, true, false), (true, true, false), (false, false, false)]);
}

fn virtiofsd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = ["/usr/libexec", "/usr/lib"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(others)
        .map(|dir| dir.join("virtiofsd"))
        .find(|program| program.exists())
}

fn virtiofsd_shares_the_tree_as_planned() {
    // E4: the monitor connected before the socket was there, and the daemon ran as the container's user, unconfined.
    let Some(program) = virtiofsd().filter(|_| have_root()) else {
        have("virtiofsd", false);
        return;
    };
    let (features, root, config, capabilities) = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = bundle(dir.path());
        let binds = vec![bind(&volume, "/etc/config", Use::Data)];
        let prepared = SharedTree::plan(root.clone(), Access::ReadWrite, binds)
            .unwrap()
            .prepare(&mut Vec::new())
            .unwrap();
        let options = vec!["--cache".to_owned(), "always".to_owned(), "--sandbox=none".to_owned()];
        let (launch, _) = Virtiofsd { program, options }.plan(root, SocketNumber::FIRST).unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: this process has one thread, so the child is a full copy.
        let daemon = unsafe { libc::fork() };
        if daemon == 0 {
            enter_own_mounts();
            prepared.attach().unwrap();
            let error = exec(&launch, &listener.into());
            eprintln!("{error}");
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(1) }
        }
        // Nobody waits for the daemon: the socket listens.
        let mut monitor = UnixStream::connect(&path).unwrap();
        monitor.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // VHOST_USER_GET_FEATURES, version 1, no payload (QEMU's docs/interop/vhost-user.rst).
        monitor.write_all(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut reply = [0; 20];
        let answered = monitor.read_exact(&mut reply).is_ok();
        let worker = child_of(daemon);
        let seen = |path: &str| fs::read_to_string(format!("/proc/{worker}/root/{path}")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
        let effective =
            status.lines().find_map(|l| l.strip_prefix("CapEff:\t")).unwrap_or_default().to_owned();
        let found = (answered, seen("etc/os-release"), seen("etc/config/key"), effective);
        drop(monitor);
        // SAFETY: kills and waits for the child made above; a null status pointer is allowed.
        unsafe {
            libc::kill(daemon, libc::SIGKILL);
        }
        // SAFETY: as above.
        unsafe { libc::waitpid(daemon, std::ptr::null_mut(), 0) };
        found
    });
    assert!(features, "virtiofsd did not answer");
    assert_eq!((root.as_str(), config.as_str()), ("image", "value"));
    let effective = CapabilitySet::from_bits_retain(u64::from_str_radix(&capabilities, 16).unwrap());
    assert!(
        !effective.contains(CapabilitySet::SYS_ADMIN) && effective.contains(CapabilitySet::CHOWN),
        "{effective:?}"
    );
}

/// What init does with the plan.
fn exec(launch: &DaemonLaunch, socket: &OwnedFd) -> std::io::Error {
    let keep =
        launch.capabilities.iter().map(|name| CapabilitySet::from_name(&name["CAP_".len()..]).unwrap());
    let keep = keep.fold(CapabilitySet::empty(), |all, one| all | one);
    for capability in CapabilitySet::all().iter().filter(|c| !keep.contains(*c)) {
        // Newer capabilities than the kernel's are refused.
        let _ = remove_capability_from_bounding_set(capability);
    }
    // SAFETY: the number is not used by anything that this process still needs.
    let number = unsafe { libc::dup2(socket.as_raw_fd(), launch.socket.get()) };
    assert_eq!(number, launch.socket.get());
    Command::new(&launch.program).args(&launch.args).env_clear().exec()
}

/// The process that serves: virtiofsd forks into its own process namespace.
fn child_of(daemon: i32) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().unwrap();
        }
        assert!(Instant::now() < deadline, "virtiofsd has no child");
        std::thread::yield_now();
    }
}
