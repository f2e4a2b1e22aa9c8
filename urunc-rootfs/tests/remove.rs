//! Removing hostile directories: what is outside stays, whatever is inside.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{have_root, in_own_mounts};
use rustix::fs::{CWD, RenameFlags, mkdirat, openat, renameat_with};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use tempfile::TempDir;
use urunc_rootfs::{RemoveError, remove_directory};

fn main() -> std::process::ExitCode {
    common::run(tests![
        everything_inside_goes_and_links_are_not_followed,
        a_link_in_place_of_the_directory_is_refused,
        what_is_not_there_is_removed_already,
        nothing_is_removed_while_something_is_mounted_inside,
        a_directory_of_any_depth_is_removed,
        what_is_swapped_for_a_link_meanwhile_protects_the_outside,
    ])
}

/// A directory `victim` next to a file that must survive.
fn place() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/precious"), "").unwrap();
    fs::create_dir_all(dir.path().join("victim/a/b")).unwrap();
    fs::write(dir.path().join("victim/a/b/file"), "").unwrap();
    dir
}

fn survived(dir: &TempDir) -> bool {
    dir.path().join("outside/precious").exists()
}

fn everything_inside_goes_and_links_are_not_followed() {
    let dir = place();
    let victim = dir.path().join("victim");
    symlink(dir.path().join("outside"), victim.join("link")).unwrap();
    symlink("../../outside", victim.join("a/link")).unwrap();
    fs::hard_link(dir.path().join("outside/precious"), victim.join("hard")).unwrap();
    remove_directory(&victim).unwrap();
    assert!(!victim.exists());
    assert!(survived(&dir));
}

fn a_link_in_place_of_the_directory_is_refused() {
    let dir = place();
    symlink("outside", dir.path().join("link")).unwrap();
    assert!(matches!(remove_directory(dir.path().join("link")), Err(RemoveError::Remove { .. })));
    assert!(survived(&dir));
}

fn what_is_not_there_is_removed_already() {
    let dir = place();
    remove_directory(dir.path().join("nothing")).unwrap();
}

fn nothing_is_removed_while_something_is_mounted_inside() {
    // R1: the recursive delete went into whatever was still mounted: the container's rootfs, volumes, the host.
    if !have_root() {
        return;
    }
    let results = in_own_mounts(|| {
        let dir = place();
        let victim = dir.path().join("victim");
        let refused = || {
            let refused = matches!(remove_directory(&victim), Err(RemoveError::Mounted { .. }));
            refused && victim.join("a/b/file").exists() && survived(&dir)
        };
        // A bind of the same file system, one of another, one on a file, and the directory itself.
        mount_bind(dir.path().join("outside"), victim.join("a/b")).unwrap();
        let same = matches!(remove_directory(&victim), Err(RemoveError::Mounted { .. })) && survived(&dir);
        unmount(victim.join("a/b"), UnmountFlags::empty()).unwrap();
        mount("tmpfs", victim.join("a"), "tmpfs", MountFlags::empty(), None).unwrap();
        let other = matches!(remove_directory(&victim), Err(RemoveError::Mounted { .. }));
        unmount(victim.join("a"), UnmountFlags::empty()).unwrap();
        mount_bind(dir.path().join("outside/precious"), victim.join("a/b/file")).unwrap();
        let file = refused();
        unmount(victim.join("a/b/file"), UnmountFlags::empty()).unwrap();
        mount_bind(&victim, &victim).unwrap();
        let itself = refused();
        // Through a link, the mount table spells the path differently.
        symlink(dir.path(), dir.path().join("alias")).unwrap();
        let alias =
            matches!(remove_directory(dir.path().join("alias/victim")), Err(RemoveError::Mounted { .. }));
        unmount(&victim, UnmountFlags::empty()).unwrap();
        remove_directory(&victim).unwrap();
        [same, other, file, itself, alias, !victim.exists()]
    });
    assert_eq!(results, [true; 6]);
}

fn a_directory_of_any_depth_is_removed() {
    let dir = place();
    let victim = dir.path().join("victim");
    let mut here = openat(CWD, &victim, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    // Deeper than a path can be long, and than a process may have files open.
    for _ in 0..3000 {
        mkdirat(&here, "d", rustix::fs::Mode::RWXU).unwrap();
        here = openat(&here, "d", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    remove_directory(&victim).unwrap();
    assert!(!Path::new(&victim).exists());
}

fn what_is_swapped_for_a_link_meanwhile_protects_the_outside() {
    for _ in 0..20 {
        let dir = place();
        let victim = dir.path().join("victim");
        for n in 0..50 {
            fs::write(victim.join(format!("a/b/{n}")), "").unwrap();
        }
        symlink("../../outside", dir.path().join("evil")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (a, b) = (victim.join("a/b"), dir.path().join("evil"));
                    let _ = renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
                }
            });
            let _ = remove_directory(&victim);
            done.store(true, Ordering::Relaxed);
        });
        assert!(survived(&dir));
    }
}
