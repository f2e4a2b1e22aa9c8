//! Real disks on loop devices, taken from the host and given back.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{LoopDisk, in_own_mounts, run_program, wait_until};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use tempfile::TempDir;
use urunc_rootfs::block::{Afterwards, BlockError, GiveBackError, GivenBack, Handover};
use urunc_rootfs::{Access, Mount, MountTable};

const AT_ONCE: Duration = Duration::ZERO;

fn main() -> std::process::ExitCode {
    common::run(tests![
        a_taken_disk_belongs_to_the_guest_alone,
        a_volume_comes_back_with_all_its_options,
        a_disk_that_another_namespace_has_mounted_is_not_taken,
        a_disk_that_a_process_uses_is_not_taken_and_the_process_is_named,
        a_disk_that_is_busy_for_a_moment_is_waited_for,
        a_loop_device_lives_as_long_as_the_guest_has_it,
        the_loop_device_of_a_volume_outlives_the_guest_until_it_is_given_back,
        when_the_second_of_two_volumes_fails_both_come_back,
        giving_back_is_idempotent_and_leaves_alone_what_is_not_ours,
        a_device_number_that_was_used_again_is_not_mounted,
        a_mount_that_was_replaced_is_not_unmounted,
    ])
}

/// A disk mounted below a fresh directory.
fn mounted(options: &str) -> (TempDir, LoopDisk, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let disk = LoopDisk::new(dir.path(), "disk");
    let point = dir.path().join("a volume");
    disk.mount(&point, options);
    fs::write(point.join("file"), "content").unwrap();
    (dir, disk, point)
}

/// Mounted as `mount -o loop` does: the loop device vanishes with its last user.
fn mounted_with_autoclear() -> (TempDir, LoopDisk, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let disk = LoopDisk::new(dir.path(), "disk");
    disk.detach();
    let point = dir.path().join("volume");
    fs::create_dir(&point).unwrap();
    run_program("mount", &["-o".as_ref(), "loop".as_ref(), disk.file.as_os_str(), point.as_os_str()]);
    let node = PathBuf::from(&mount_at(&point).unwrap().source);
    std::mem::forget(disk);
    let file = dir.path().join("disk");
    (dir, LoopDisk { node, file }, point)
}

fn mount_at(point: &Path) -> Option<Mount> {
    MountTable::read().unwrap().at(point).cloned()
}

fn plan(disk: &LoopDisk, point: &Path, afterwards: Afterwards) -> Handover {
    Handover::plan(&mount_at(point).unwrap(), &disk.node, afterwards).unwrap()
}

/// Everything of a mount that whoever made it chose.
fn chosen(mount: &Mount) -> (PathBuf, OsString, Vec<OsString>, Vec<OsString>, bool) {
    let Mount { point, fs_type, options, super_options, .. } = mount.clone();
    (point, fs_type, options, super_options, mount.is_shared())
}

fn a_taken_disk_belongs_to_the_guest_alone() {
    // R3, R4: guest and host could both have it mounted.
    if !LoopDisk::possible() {
        return;
    }
    let (gone, refused, number) = in_own_mounts(|| {
        let (dir, disk, point) = mounted("rw");
        let mount_before = mount_at(&point).unwrap();
        let taken = plan(&disk, &point, Afterwards::StayUnmounted).take(Access::ReadWrite, AT_ONCE).unwrap();
        let gone = mount_at(&point).is_none();
        let again = mount(&disk.node, &point, "ext4", MountFlags::empty(), None);
        let number = taken.number() == mount_before.device;
        drop(taken);
        mount(&disk.node, &point, "ext4", MountFlags::empty(), None).unwrap();
        assert_eq!(fs::read_to_string(point.join("file")).unwrap(), "content");
        unmount(&point, UnmountFlags::empty()).unwrap();
        drop((disk, dir));
        (gone, again.err().map(rustix::io::Errno::raw_os_error), number)
    });
    assert_eq!((gone, refused, number), (true, Some(libc::EBUSY), true));
}

fn a_volume_comes_back_with_all_its_options() {
    // R6: the options of the super block were lost.
    if !LoopDisk::possible() {
        return;
    }
    for (options, propagation) in [
        ("ro,nosuid,nodev,noexec,noatime,errors=remount-ro,data=writeback", MountPropagationFlags::PRIVATE),
        ("rw,strictatime,discard,commit=30,stripe=16", MountPropagationFlags::SHARED),
        ("rw,relatime,nodiratime,nodelalloc", MountPropagationFlags::PRIVATE),
    ] {
        let (before, after) = in_own_mounts(|| {
            let dir = tempfile::tempdir().unwrap();
            let disk = LoopDisk::new(dir.path(), "disk");
            let point = dir.path().join("volume");
            disk.mount(&point, options);
            mount_change(&point, propagation).unwrap();
            let before = mount_at(&point).unwrap();
            let handover = plan(&disk, &point, Afterwards::MountAgain);
            let recorded = serde_json::to_string(&handover).unwrap();
            let access = if options.starts_with("ro") { Access::ReadOnly } else { Access::ReadWrite };
            drop(handover.take(access, AT_ONCE).unwrap());
            // Another process gives it back, from the record.
            let handover: Handover = serde_json::from_str(&recorded).unwrap();
            assert_eq!(handover.give_back().unwrap(), GivenBack::Mounted);
            let after = mount_at(&point).unwrap();
            unmount(&point, UnmountFlags::empty()).unwrap();
            (before, after)
        });
        assert_eq!(chosen(&before), chosen(&after));
    }
}

fn a_disk_that_another_namespace_has_mounted_is_not_taken() {
    // R3, R4: only the own namespace's table was looked at, and a volume in use elsewhere was attached all the same.
    if !LoopDisk::possible() {
        return;
    }
    let (message, mounted_again, intact) = in_own_mounts(|| {
        let (_dir, disk, point) = mounted("rw");
        let (wait, done) = rustix::pipe::pipe().unwrap();
        let (ready, say_ready) = rustix::pipe::pipe().unwrap();
        // SAFETY: this process has one thread; the child makes system calls only.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(done);
            common::enter_own_mounts();
            rustix::io::write(&say_ready, b"r").unwrap();
            let _ = rustix::io::read(&wait, &mut [0u8; 1]);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) }
        }
        rustix::io::read(&ready, &mut [0u8; 1]).unwrap();
        let handover = plan(&disk, &point, Afterwards::StayUnmounted);
        let error = handover.take(Access::ReadWrite, AT_ONCE).unwrap_err();
        assert!(matches!(error, BlockError::InUse { .. }), "{error:?}");
        let mounted_again = mount_at(&point).is_some();
        let intact = fs::read_to_string(point.join("file")).unwrap();
        drop(done);
        // SAFETY: waits for the child made above; a null status pointer is allowed.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        unmount(&point, UnmountFlags::empty()).unwrap();
        (error.to_string().replace(&child.to_string(), "PID"), mounted_again, intact)
    });
    assert!(message.contains("it is still in use (held by the mount"), "{message}");
    assert!(message.contains("of process PID"), "{message}");
    assert!(mounted_again);
    assert_eq!(intact, "content");
}

fn a_disk_that_a_process_uses_is_not_taken_and_the_process_is_named() {
    // R14: a busy rootfs failed without a word about who.
    if !LoopDisk::possible() {
        return;
    }
    let (message, own_pid) = in_own_mounts(|| {
        let (_dir, disk, point) = mounted("rw");
        let file = fs::File::open(point.join("file")).unwrap();
        let error = plan(&disk, &point, Afterwards::MountAgain).take(Access::ReadWrite, AT_ONCE).unwrap_err();
        assert!(mount_at(&point).is_some());
        drop(file);
        unmount(&point, UnmountFlags::empty()).unwrap();
        (error.to_string(), std::process::id())
    });
    assert!(message.contains(&format!("held by process {own_pid} ")), "{message}");
}

fn a_disk_that_is_busy_for_a_moment_is_waited_for() {
    if !LoopDisk::possible() {
        return;
    }
    let taken = in_own_mounts(|| {
        let (_dir, disk, point) = mounted("rw");
        let handover = plan(&disk, &point, Afterwards::StayUnmounted);
        let file = fs::File::open(point.join("file")).unwrap();
        std::thread::scope(|scope| {
            // Before the first attempt or between two: both orders must end well.
            scope.spawn(move || drop(file));
            handover.take(Access::ReadWrite, Duration::from_secs(60)).is_ok()
        })
    });
    assert!(taken);
}

fn a_loop_device_lives_as_long_as_the_guest_has_it() {
    // R7, R8: the unmount tore it down, and its number went to another container.
    if !LoopDisk::possible() {
        return;
    }
    let (with_guest, content, without) = in_own_mounts(|| {
        let (_dir, disk, point) = mounted_with_autoclear();
        fs::write(point.join("x"), "").unwrap();
        let taken = plan(&disk, &point, Afterwards::StayUnmounted).take(Access::ReadWrite, AT_ONCE).unwrap();
        let with_guest = disk.is_attached();
        // The super block of ext4 has its magic number at byte 1080.
        let mut magic = [0; 2];
        let guest = fs::File::open(&disk.node).unwrap();
        guest.read_exact_at(&mut magic, 1080).unwrap();
        drop(guest);
        drop(taken);
        wait_until(|| !disk.is_attached());
        (with_guest, magic, disk.is_attached())
    });
    assert_eq!((with_guest, content, without), (true, [0x53, 0xEF], false));
}

fn the_loop_device_of_a_volume_outlives_the_guest_until_it_is_given_back() {
    // R6, R23: autoclear stayed off, or the device was gone before the volume was mounted again.
    if !LoopDisk::possible() {
        return;
    }
    let (while_away, given_back, after) = in_own_mounts(|| {
        let (_dir, disk, point) = mounted_with_autoclear();
        let handover = plan(&disk, &point, Afterwards::MountAgain);
        drop(handover.take(Access::ReadWrite, AT_ONCE).unwrap());
        let while_away = disk.is_attached();
        let given_back = handover.give_back().unwrap() == GivenBack::Mounted;
        unmount(&point, UnmountFlags::empty()).unwrap();
        wait_until(|| !disk.is_attached());
        (while_away, given_back, disk.is_attached())
    });
    assert_eq!((while_away, given_back, after), (true, true, false));
}

fn when_the_second_of_two_volumes_fails_both_come_back() {
    // R5: what had been unmounted before the failure was forgotten.
    if !LoopDisk::possible() {
        return;
    }
    let (before, after) = in_own_mounts(|| {
        let (_one, first, at_first) = mounted("rw,noatime");
        let (_two, second, at_second) = mounted("rw");
        let state = || [&at_first, &at_second].map(|p| mount_at(p).map(|m| (m.point, m.options)));
        let before = state();
        let first = plan(&first, &at_first, Afterwards::MountAgain);
        let second = plan(&second, &at_second, Afterwards::MountAgain);
        drop(first.take(Access::ReadWrite, AT_ONCE).unwrap());
        let busy = fs::File::open(at_second.join("file")).unwrap();
        second.take(Access::ReadWrite, AT_ONCE).unwrap_err();
        drop(busy);
        for handover in [&second, &first] {
            handover.give_back().unwrap();
        }
        let after = state();
        for point in [at_first, at_second] {
            unmount(&point, UnmountFlags::empty()).unwrap();
        }
        (before, after)
    });
    assert_eq!(before, after);
}

fn giving_back_is_idempotent_and_leaves_alone_what_is_not_ours() {
    if !LoopDisk::possible() {
        return;
    }
    let outcomes = in_own_mounts(|| {
        let (_dir, disk, point) = mounted("rw");
        let volume = plan(&disk, &point, Afterwards::MountAgain);
        let rootfs = plan(&disk, &point, Afterwards::StayUnmounted);
        let mut seen = vec![volume.give_back(), rootfs.give_back()];
        drop(volume.take(Access::ReadWrite, AT_ONCE).unwrap());
        seen.extend([volume.give_back(), volume.give_back()]);
        unmount(&point, UnmountFlags::empty()).unwrap();
        mount("tmpfs", &point, "tmpfs", MountFlags::empty(), None).unwrap();
        seen.push(volume.give_back());
        unmount(&point, UnmountFlags::empty()).unwrap();
        fs::remove_dir(&point).unwrap();
        seen.push(volume.give_back());
        seen.into_iter().map(|r| format!("{:?}", r.unwrap())).collect::<Vec<_>>()
    });
    let expected = ["AlreadyMounted", "NotWanted", "Mounted", "AlreadyMounted", "Occupied", "NobodyWaits"];
    assert_eq!(outcomes, expected);
}

fn a_device_number_that_was_used_again_is_not_mounted() {
    // R8: the number was written down, and meant another container's disk later.
    if !LoopDisk::possible() {
        return;
    }
    let refused = in_own_mounts(|| {
        let (dir, disk, point) = mounted("rw");
        let volume = plan(&disk, &point, Afterwards::MountAgain);
        drop(volume.take(Access::ReadWrite, AT_ONCE).unwrap());
        disk.detach();
        let gone = matches!(volume.give_back(), Err(GiveBackError::Device { .. }));
        let other = LoopDisk { node: disk.node.clone(), file: dir.path().join("other") };
        fs::copy(&disk.file, &other.file).unwrap();
        run_program("losetup", &[other.node.as_os_str(), other.file.as_os_str()]);
        let reused = matches!(volume.give_back(), Err(GiveBackError::Device { .. }));
        let left_alone = mount_at(&point).is_none();
        other.detach();
        (gone, reused, left_alone)
    });
    assert_eq!(refused, (true, true, true));
}

fn a_mount_that_was_replaced_is_not_unmounted() {
    if !LoopDisk::possible() {
        return;
    }
    let refused = in_own_mounts(|| {
        let (_dir, disk, point) = mounted("rw");
        let handover = plan(&disk, &point, Afterwards::MountAgain);
        mount("tmpfs", &point, "tmpfs", MountFlags::empty(), None).unwrap();
        let refused = matches!(handover.take(Access::ReadWrite, AT_ONCE), Err(BlockError::Changed { .. }));
        let there = mount_at(&point).unwrap().fs_type == "tmpfs";
        unmount(&point, UnmountFlags::empty()).unwrap();
        unmount(&point, UnmountFlags::empty()).unwrap();
        refused && there
    });
    assert!(refused);
}
