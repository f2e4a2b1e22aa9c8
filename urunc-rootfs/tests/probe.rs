//! What the host's mounts look like to the selection, on real mounts.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{LoopDisk, have_root, in_own_mounts};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use urunc_rootfs::select::{Completeness, ContainerRootfs, MountedRootfs};
use urunc_rootfs::{Image, MountTable};

fn main() -> std::process::ExitCode {
    common::run(tests![
        a_directory_is_no_mount,
        a_real_overlay_mount_is_found_through_links_and_odd_names,
        a_mounted_block_device_is_known_by_its_number_and_its_node,
    ])
}

fn probe(path: &Path) -> ContainerRootfs {
    ContainerRootfs::probe(&Image::open(path).unwrap(), &MountTable::read().unwrap()).unwrap()
}

fn a_directory_is_no_mount() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(probe(dir.path()), ContainerRootfs::Directory);
}

fn a_real_overlay_mount_is_found_through_links_and_odd_names() {
    // R19: paths with blanks and symbolic links in the bundle's path never matched.
    if !have_root() {
        return;
    }
    let (rootfs, expected) = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let stack = dir.path().join("stack");
        fs::create_dir(&stack).unwrap();
        // An overlay cannot lie on every file system; on a tmpfs it can.
        mount("tmpfs", &stack, "tmpfs", MountFlags::empty(), None).unwrap();
        let parts = ["lower", "upper", "work", "a rootfs\n#\\"].map(|name| stack.join(name));
        for part in &parts {
            fs::create_dir(part).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            parts[0].display(),
            parts[1].display(),
            parts[2].display()
        );
        mount(
            "overlay",
            &parts[3],
            "overlay",
            MountFlags::empty(),
            Some(&*std::ffi::CString::new(options).unwrap()),
        )
        .unwrap();
        symlink(&parts[3], dir.path().join("bundle")).unwrap();
        let ContainerRootfs::Mount(rootfs) = probe(&dir.path().join("bundle")) else { panic!("not a mount") };
        unmount(&stack, UnmountFlags::DETACH).unwrap();
        (*rootfs, parts[3].clone())
    });
    let MountedRootfs { mount, node, also_at, table } = rootfs;
    assert_eq!((mount.fs_type.to_str(), mount.point), (Some("overlay"), expected));
    assert_eq!((node, also_at.len(), table), (None, 0, Completeness::Complete));
}

fn a_mounted_block_device_is_known_by_its_number_and_its_node() {
    // R3: the source's name alone was compared.
    if !LoopDisk::possible() {
        return;
    }
    let (alone, through_alias, twice, node) = in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let disk = LoopDisk::new(dir.path(), "disk");
        let rootfs = dir.path().join("rootfs");
        let look = || {
            let ContainerRootfs::Mount(rootfs) = probe(&rootfs) else { panic!("not a mount") };
            (rootfs.node, rootfs.also_at.len())
        };
        disk.mount(&rootfs, "rw");
        let alone = look();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        mount_bind(&rootfs, &elsewhere).unwrap();
        let twice = look();
        unmount(&elsewhere, UnmountFlags::empty()).unwrap();
        unmount(&rootfs, UnmountFlags::empty()).unwrap();
        // Mounted under another name, which then means something else.
        let alias = LoopDisk { node: dir.path().join("alias"), file: disk.file.clone() };
        symlink(&disk.node, &alias.node).unwrap();
        alias.mount(&rootfs, "rw");
        fs::remove_file(&alias.node).unwrap();
        symlink("/dev/zero", &alias.node).unwrap();
        let through_alias = look();
        unmount(&rootfs, UnmountFlags::empty()).unwrap();
        std::mem::forget(alias);
        (alone, through_alias, twice, disk.node.clone())
    });
    assert_eq!(alone, (Some(node.clone()), 0));
    assert_eq!(through_alias, (Some(node.clone()), 0));
    assert_eq!(twice, (Some(node), 1));
}
