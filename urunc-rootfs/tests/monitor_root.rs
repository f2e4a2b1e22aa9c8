//! The monitor's root on the real kernel, each in mount namespaces of its own.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{enter_own_mounts, have_root, in_child, in_own_mounts, in_user_namespace};
use rustix::fs::{CWD, Gid, Mode, OFlags, StatVfsMountFlags, Uid, fstat, openat, statvfs};
use urunc_rootfs::root::{
    AttachError, BootFile, ByteSize, Delivery, Device, DeviceKind, DeviceNode, Handle, HostBind, HostLayout,
    Libraries, MonitorRoot, Needs, Owner, PrepareError, Proc, Scratch, Source, Target, Use, plan,
};
use urunc_rootfs::{Access, Image};

const MONITOR: Owner = Owner { uid: 4321, gid: 8765 };

fn main() -> std::process::ExitCode {
    common::run(tests![
        the_monitor_sees_what_was_planned_and_nothing_else,
        the_monitor_runs_without_privileges_and_can_write_only_where_planned,
        mount_flags_are_as_tight_as_the_use_allows,
        a_kernel_without_mount_setattr_gives_the_same_restrictions,
        mounts_below_a_program_directory_are_read_only_too,
        the_hosts_own_mount_namespace_is_refused_and_left_as_it_was,
        the_callers_mounts_are_the_same_before_and_after,
        boot_files_are_the_ones_that_were_opened_whatever_happens_to_their_names,
        exactly_the_listed_descriptors_stay_open_and_none_survives_exec,
        proc_shows_the_monitor_to_itself_and_cannot_be_written,
        it_works_from_the_host_into_a_user_namespace,
        inside_a_user_namespace_the_hosts_device_nodes_are_bound,
        a_link_in_a_shared_directory_cannot_move_a_mount_out_of_it,
        failures_name_the_path_and_leave_nothing,
        device_numbers_are_those_that_were_planned,
    ])
}

fn place(path: &str) -> Target {
    Target::new(path).unwrap()
}

fn needs() -> Needs {
    Needs {
        binary: fs::canonicalize("/usr/bin/env").unwrap(),
        libraries: Libraries::System,
        binds: Vec::new(),
        boot_files: Vec::new(),
        devices: vec![node("/dev/null", 1, 3), node("/dev/net/tun", 10, 200)],
        scratch: vec![Scratch { target: place("/tmp"), size: ByteSize(64 * 1024) }],
        proc: Proc::Absent,
        owner: MONITOR,
        label: None,
    }
}

fn node(path: &str, major: u32, minor: u32) -> DeviceNode {
    DeviceNode {
        target: place(path),
        device: Device { kind: DeviceKind::Char, major, minor },
        access: Access::ReadWrite,
    }
}

fn planned(needs: &Needs) -> MonitorRoot {
    plan(needs, &HostLayout::probe().unwrap()).unwrap()
}

/// Every path below `dir` on the same file system, with its mode and owner.
fn listing(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let device = fs::metadata(dir).unwrap().dev();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let m = entry.path().symlink_metadata().unwrap();
        found.insert(format!("{} {:o} {}:{}", entry.path().display(), m.mode(), m.uid(), m.gid()));
        if m.is_dir() && m.dev() == device {
            found.extend(listing(&entry.path()));
        }
    }
    found
}

fn errno(result: io::Result<impl Sized>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).unwrap_or(0)
}

fn become_monitor() {
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_gid(Gid::from_raw(MONITOR.gid)).unwrap();
    rustix::thread::set_thread_uid(Uid::from_raw(MONITOR.uid)).unwrap();
}

fn the_monitor_sees_what_was_planned_and_nothing_else() {
    // E1, E3, E9, E14: writable /proc, open device nodes, host directories, a growing console file.
    if !have_root() {
        return;
    }
    let (top, dev, real_usr) = in_own_mounts(|| {
        // Whatever the umask.
        rustix::process::umask(Mode::from_raw_mode(0o777));
        let mut needs = needs();
        needs.devices.push(DeviceNode { access: Access::ReadOnly, ..node("/dev/zero", 1, 5) });
        let prepared = planned(&needs).prepare(&[]).unwrap();
        let usr = fs::metadata("/usr").unwrap().ino();
        in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            let usr = fs::metadata("/usr").unwrap().ino() == usr;
            (listing(Path::new("/")), listing(Path::new("/dev")), usr)
        })
    });
    let layout = HostLayout::probe().unwrap();
    let mut expected: BTreeSet<String> =
        ["/dev 40755 0:0", "/tmp 40700 4321:8765", "/usr 40755 0:0"].map(String::from).into();
    if layout.loader_cache.is_some() {
        expected.extend(["/etc 40755 0:0", "/etc/ld.so.cache 100644 0:0"].map(String::from));
    }
    for top in layout.top {
        match top {
            urunc_rootfs::root::TopLevel::Link { path, .. } => {
                expected.insert(format!("{} 120777 0:0", path.display()))
            }
            urunc_rootfs::root::TopLevel::Directory { path } => {
                expected.insert(format!("{} 40755 0:0", path.display()))
            }
        };
    }
    assert_eq!(top, expected);
    assert_eq!(
        dev,
        [
            "/dev/net 40755 0:0",
            "/dev/net/tun 20600 4321:8765",
            "/dev/null 20600 4321:8765",
            // The node of a read-only disk was writable.
            "/dev/zero 20400 4321:8765",
        ]
        .map(String::from)
        .into()
    );
    assert!(real_usr);
}

fn the_monitor_runs_without_privileges_and_can_write_only_where_planned() {
    if !have_root() {
        return;
    }
    let facts = in_own_mounts(|| {
        let shared = tempfile::tempdir_in("/tmp").unwrap();
        fs::write(shared.path().join("file"), "shared").unwrap();
        fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut needs = needs();
        needs.binds.push(HostBind {
            source: Source::Host(shared.path().to_path_buf()),
            target: place("/data"),
            access: Use::Data,
        });
        let prepared = planned(&needs).prepare(&[]).unwrap();
        in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            let as_root = ["/x", "/usr/x", "/dev/x", "/data/x"].map(|p| errno(fs::write(p, "")));
            become_monitor();
            let ran = Command::new("/usr/bin/env").arg("true").status().unwrap().success();
            let null = fs::write("/dev/null", "x").is_ok();
            let tmp = fs::write("/tmp/a", "x").is_ok();
            let full = errno(fs::write("/tmp/b", vec![1; 128 * 1024]));
            let read = fs::read_to_string("/data/file").ok();
            let cwd = std::env::current_dir().unwrap();
            (as_root, ran, null, tmp, full, read, cwd)
        })
    });
    let (erofs, enospc) = (libc::EROFS, libc::ENOSPC);
    let expected = ([erofs; 4], true, true, true, enospc, None, PathBuf::from("/"));
    // The directory is private to root: binding opens no doors.
    assert_eq!(facts, expected);
}

fn mount_flags_are_as_tight_as_the_use_allows() {
    // E8: nosuid and nodev were lost in remounts, and read-only held for the topmost mount only.
    if !have_root() {
        return;
    }
    let flags = in_own_mounts(|| flags_seen(|| ()));
    assert_flags(flags);
}

fn a_kernel_without_mount_setattr_gives_the_same_restrictions() {
    if !have_root() {
        return;
    }
    assert_flags(in_own_mounts(|| flags_seen(|| deny_system_call(libc::SYS_mount_setattr))));
}

fn flags_seen(before: impl FnOnce()) -> [u64; 7] {
    let dir = tempfile::tempdir().unwrap();
    let mut needs = needs();
    for (name, access) in [
        ("/program", Use::Program),
        ("/data", Use::Data),
        ("/share", Use::Share(Access::ReadWrite)),
        ("/image", Use::Share(Access::ReadOnly)),
    ] {
        let source = dir.path().join(&name[1..]);
        fs::create_dir(&source).unwrap();
        needs.binds.push(HostBind { source: Source::Host(source), target: place(name), access });
    }
    before();
    let prepared = planned(&needs).prepare(&[]).unwrap();
    in_child(|| {
        enter_own_mounts();
        prepared.attach().unwrap();
        ["/", "/dev", "/tmp", "/program", "/data", "/share", "/image"]
            .map(|path| statvfs(path).unwrap().f_flag.bits())
    })
}

fn assert_flags(seen: [u64; 7]) {
    let (ro, suid) = (StatVfsMountFlags::RDONLY, StatVfsMountFlags::NOSUID);
    let (dev, exec) = (StatVfsMountFlags::NODEV, StatVfsMountFlags::NOEXEC);
    let expected = [
        ro | suid | dev | exec,
        ro | suid | exec,
        suid | dev | exec,
        ro | suid | dev,
        ro | suid | dev | exec,
        suid | dev | exec,
        ro | suid | dev | exec,
    ];
    let seen = seen.map(|bits| StatVfsMountFlags::from_bits_retain(bits) & (ro | suid | dev | exec));
    assert_eq!(seen, expected);
}

/// Makes a system call answer ENOSYS from now on, as an older kernel would.
fn deny_system_call(number: libc::c_long) {
    let filter = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let errno = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::ENOSYS).unwrap();
    let mut program = [
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::try_from(number).unwrap()),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, errno),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true).unwrap();
    // SAFETY: `program` points to four initialised instructions that live until the call returns.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0);
}

fn mounts_below_a_program_directory_are_read_only_too() {
    if !have_root() {
        return;
    }
    let facts = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        fs::create_dir(&sub).unwrap();
        tmpfs_at(&sub);
        fs::write(sub.join("lib.so"), "lib").unwrap();
        let mut needs = needs();
        needs.binds.push(HostBind {
            source: Source::Host(dir.path().to_path_buf()),
            target: place("/program"),
            access: Use::Program,
        });
        let prepared = planned(&needs).prepare(&[]).unwrap();
        let facts = in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            (fs::read_to_string("/program/sub/lib.so").unwrap(), errno(fs::write("/program/sub/x", "")))
        });
        rustix::mount::unmount(&sub, rustix::mount::UnmountFlags::DETACH).unwrap();
        facts
    });
    assert_eq!(facts, ("lib".to_owned(), libc::EROFS));
}

fn tmpfs_at(path: &Path) {
    rustix::mount::mount("tmpfs", path, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
}

fn the_hosts_own_mount_namespace_is_refused_and_left_as_it_was() {
    // R1, R2: without a namespace of its own, the host's / became a slave and was mounted over.
    if !have_root() {
        return;
    }
    let (same, process_one, before, after) = in_own_mounts(|| {
        let refused = |r: Result<(), AttachError>| matches!(r, Err(AttachError::NotPrivate));
        let table = || fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let before = table();
        let same = refused(planned(&needs()).prepare(&[]).unwrap().attach());
        let after = table();
        // Prepared elsewhere, attached in the namespace of process 1, as if a spec had joined it.
        let prepared = planned(&needs()).prepare(&[]).unwrap();
        let process_one = fs::File::open("/proc/1/ns/mnt").ok().map(|host| {
            in_child(|| {
                let kind = rustix::thread::LinkNameSpaceType::Mount;
                rustix::thread::move_into_link_name_space(host.as_fd(), Some(kind)).unwrap();
                refused(prepared.attach())
            })
        });
        (same, process_one, before, after)
    });
    assert!(same);
    if common::have("access to process 1", process_one.is_some()) {
        assert_eq!(process_one, Some(true));
    }
    assert_eq!(before, after);
}

fn the_callers_mounts_are_the_same_before_and_after() {
    // R15, E11: leftovers in the bundle and in the image. Here there is nothing on disk and nothing mounted.
    if !have_root() {
        return;
    }
    let (before, after) = in_own_mounts(|| {
        let table = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        rustix::mount::mount_change("/", rustix::mount::MountPropagationFlags::SHARED).unwrap();
        let before = table();
        let prepared = planned(&needs()).prepare(&[]).unwrap();
        in_child(|| {
            // SAFETY: no memory or descriptor table is unshared.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
            prepared.attach().unwrap();
        });
        drop(planned(&needs()).prepare(&[]).unwrap());
        (before, table())
    });
    assert_eq!(before, after);
}

fn boot_files_are_the_ones_that_were_opened_whatever_happens_to_their_names() {
    // R8, R12, E11: paths were checked, written down, and opened again at start.
    if !have_root() {
        return;
    }
    let seen = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kernel"), "the kernel").unwrap();
        fs::write(dir.path().join("initrd,if=x"), "the initrd").unwrap();
        let image = Image::open(dir.path()).unwrap();
        let (kernel, initrd) = (image.open_file("kernel").unwrap(), image.open_file("initrd,if=x").unwrap());
        // What is bound must keep a name, any name (ENOENT otherwise); what is copied need not.
        fs::rename(dir.path().join("kernel"), dir.path().join("moved")).unwrap();
        fs::remove_file(dir.path().join("initrd,if=x")).unwrap();
        for name in ["kernel", "initrd,if=x"] {
            symlink("/etc/passwd", dir.path().join(name)).unwrap();
        }
        let size = ByteSize(initrd.size());
        let mut needs = needs();
        needs.boot_files = vec![
            BootFile { handle: "kernel".into(), target: place("/boot/kernel"), delivery: Delivery::Bind },
            BootFile {
                handle: "initrd".into(),
                target: place("/boot/initrd"),
                delivery: Delivery::Copy { size },
            },
        ];
        let handles =
            [Handle { name: "kernel", fd: kernel.as_fd() }, Handle { name: "initrd", fd: initrd.as_fd() }];
        let prepared = planned(&needs).prepare(&handles).unwrap();
        in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            become_monitor();
            let read = ["/boot/kernel", "/boot/initrd"].map(|p| fs::read_to_string(p).unwrap());
            (read, errno(fs::write("/boot/initrd", "x")))
        })
    });
    assert_eq!(seen, (["the kernel", "the initrd"].map(String::from), libc::EROFS));
}

fn exactly_the_listed_descriptors_stay_open_and_none_survives_exec() {
    if !have_root() {
        return;
    }
    let (opened, listed, cloexec) = in_own_mounts(|| {
        let open = || -> BTreeSet<i32> {
            let names =
                fs::read_dir("/proc/self/fd").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            names.map(|name| name.parse().unwrap()).collect()
        };
        let before = open();
        let prepared = planned(&needs()).prepare(&[]).unwrap();
        let opened: BTreeSet<i32> = open().difference(&before).copied().collect();
        let listed: BTreeSet<i32> = prepared.fds().map(|fd| fd.as_raw_fd()).collect();
        let cloexec = prepared
            .fds()
            .all(|fd| rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        // The descriptor that read the directory itself differs.
        (opened.len(), listed.len(), cloexec)
    });
    assert_eq!(opened, listed);
    assert!(cloexec);
}

fn proc_shows_the_monitor_to_itself_and_cannot_be_written() {
    // E1: sysrq-trigger and core_pattern were there to be written.
    if !have_root() {
        return;
    }
    let (own, hidden, write) = in_own_mounts(|| {
        let mut needs = needs();
        needs.proc = Proc::Masked;
        let prepared = planned(&needs).prepare(&[]).unwrap();
        in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            become_monitor();
            let own = fs::read_to_string("/proc/self/status").is_ok();
            let hidden = ["/proc/sysrq-trigger", "/proc/sys", "/proc/kcore", "/proc/1"]
                .map(|p| !Path::new(p).exists());
            (own, hidden, errno(fs::write("/proc/self/oom_score_adj", "1000")))
        })
    });
    assert!(own);
    assert_eq!(hidden, [true; 4]);
    assert_eq!(write, libc::EROFS);
}

fn it_works_from_the_host_into_a_user_namespace() {
    if !have_root() {
        return;
    }
    let facts = in_own_mounts(|| {
        let mut needs = needs();
        needs.owner = Owner { uid: 100_000 + 7, gid: 100_000 };
        needs.proc = Proc::Masked;
        let prepared = planned(&needs).prepare(&[]).unwrap();
        in_user_namespace(|| {
            // SAFETY: no memory or descriptor table is unshared.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWPID) }.unwrap();
            in_child(|| {
                prepared.attach().unwrap();
                let remount =
                    rustix::mount::mount_remount("/", rustix::mount::MountFlags::empty(), "").is_err();
                rustix::thread::set_thread_uid(Uid::from_raw(7)).unwrap();
                let null = fs::write("/dev/null", "x").is_ok();
                let tmp = fs::write("/tmp/x", "x").is_ok();
                let ran = Command::new("/usr/bin/env").arg("true").status().unwrap().success();
                let m = fs::metadata("/dev/null").unwrap();
                (
                    remount,
                    null,
                    tmp,
                    ran,
                    (m.uid(), m.gid(), m.mode() & 0o777),
                    Path::new("/proc/self").exists(),
                )
            })
        })
    });
    assert_eq!(facts, (true, true, true, true, (7, 0, 0o600), true));
}

fn inside_a_user_namespace_the_hosts_device_nodes_are_bound() {
    if !have_root() {
        return;
    }
    // Rootless: create itself runs in a user namespace, where nodes cannot be made.
    let facts = in_user_namespace(|| {
        let mut needs = needs();
        needs.owner = Owner { uid: 0, gid: 0 };
        needs.devices = vec![node("/dev/null", 1, 3), node("/dev/zero", 1, 5)];
        let prepared = planned(&needs).prepare(&[]).unwrap();
        needs.devices = vec![node("/dev/null", 1, 5)];
        let another = matches!(planned(&needs).prepare(&[]), Err(PrepareError::Node { .. }));
        in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            (another, fs::write("/dev/null", "x").is_ok(), fs::File::open("/dev/zero").is_ok())
        })
    });
    assert_eq!(facts, (true, true, true));
}

fn a_link_in_a_shared_directory_cannot_move_a_mount_out_of_it() {
    // R12, E11: the destination was joined and then mounted on by path.
    if !have_root() {
        return;
    }
    let facts = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let (share, volume) = (dir.path().join("share"), dir.path().join("volume"));
        fs::create_dir_all(share.join("real")).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("config"), "volume").unwrap();
        symlink("/real", share.join("absolute")).unwrap();
        symlink("../../../../../../real", share.join("up")).unwrap();
        let mut needs = needs();
        let bind = |source: &Path, target: &str, access| HostBind {
            source: Source::Host(source.to_path_buf()),
            target: place(target),
            access,
        };
        needs.binds = vec![
            bind(&share, "/share", Use::Share(Access::ReadWrite)),
            bind(&volume, "/share/absolute/a/b", Use::Data),
            bind(&volume, "/share/up/c", Use::Data),
            bind(&volume.join("config"), "/share/etc/config", Use::Data),
        ];
        let prepared = planned(&needs).prepare(&[]).unwrap();
        in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            ["/share/real/a/b/config", "/share/real/c/config", "/share/etc/config"]
                .map(|p| fs::read_to_string(p).ok())
        })
    });
    assert_eq!(facts, [(); 3].map(|()| Some("volume".to_owned())));
}

fn failures_name_the_path_and_leave_nothing() {
    if !have_root() {
        return;
    }
    let errors = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let bind = |source: PathBuf, target: &str| HostBind {
            source: Source::Host(source),
            target: place(target),
            access: Use::Data,
        };
        let error = |change: &dyn Fn(&mut Needs)| {
            let mut needs = needs();
            change(&mut needs);
            planned(&needs).prepare(&[]).unwrap_err().to_string()
        };
        let open = fs::read_dir("/proc/self/fd").unwrap().count();
        let errors = vec![
            error(&|n| n.binary = "/opt/no/such/monitor".into()),
            error(&|n| n.binds = vec![bind(dir.path().join("file"), "/usr/share/none")]),
            error(&|n| n.binds = vec![bind(dir.path().join("file"), "/usr/share")]),
            error(&|n| {
                n.boot_files =
                    vec![BootFile { handle: "kernel".into(), target: place("/k"), delivery: Delivery::Bind }];
            }),
        ];
        assert_eq!(open, fs::read_dir("/proc/self/fd").unwrap().count(), "descriptors leaked");
        errors
    });
    assert_eq!(
        errors,
        [
            "cannot open /opt/no/such/monitor for the monitor: install it, or correct its path in the configuration",
            "cannot put anything at /usr/share/none of the monitor's root: the host's directory there lacks it",
            "cannot put anything at /usr/share of the monitor's root: a directory and a file meet there",
            "cannot find the descriptor `kernel` that the plan refers to",
        ]
    );
}

fn device_numbers_are_those_that_were_planned() {
    // R8: numbers were written down at create and the node was made at start.
    if !have_root() {
        return;
    }
    let rdev = in_own_mounts(|| {
        let prepared = planned(&needs()).prepare(&[]).unwrap();
        in_child(|| {
            enter_own_mounts();
            prepared.attach().unwrap();
            let node = openat(CWD, "/dev/net/tun", OFlags::PATH, Mode::empty()).unwrap();
            fstat(&node).unwrap().st_rdev
        })
    });
    assert_eq!((rustix::fs::major(rdev), rustix::fs::minor(rdev)), (10, 200));
}
