//! Removing and sweeping: all of what is ours, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use rustix::fs::{FlockOperation, flock};
use support::{container, id, in_mount_namespace, is_root, lacks, now, scratch, tree};
use urunc_state::StoreError;

#[test]
fn removing_follows_no_links_and_takes_everything() {
    let scratch = scratch();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "").unwrap();
    let (origin, record) = container("a");
    let locked = scratch.store.create(&origin, record).unwrap();
    let directory = scratch.directory.path().join("a");
    fs::create_dir_all(directory.join("deep/er/still")).unwrap();
    fs::write(directory.join("deep/er/file"), "").unwrap();
    symlink(outside.path(), directory.join("link")).unwrap();
    symlink(outside.path(), directory.join("deep/link")).unwrap();
    symlink("/nowhere", directory.join("dangling")).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(directory.join("init.sock")).unwrap();
    scratch.store.remove(locked).unwrap();
    assert_eq!(tree(scratch.directory.path()), [""; 0]);
    assert_eq!(tree(outside.path()), ["precious"]);
}

#[test]
fn removing_crosses_no_mount_and_says_what_is_left() {
    // B12: a recursive delete went through bind mounts that had survived.
    if lacks("root", is_root()) {
        return;
    }
    in_mount_namespace(|| {
        let scratch = scratch();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "").unwrap();
        let (origin, record) = container("a");
        let locked = scratch.store.create(&origin, record).unwrap();
        let inside = scratch.directory.path().join("a/mounted");
        fs::create_dir(&inside).unwrap();
        rustix::mount::mount_bind(outside.path(), &inside).unwrap();

        let error = scratch.store.remove(locked).unwrap_err();
        let StoreError::Remove { path, .. } = &error else { panic!("{error:?}") };
        assert!(path.ends_with("mounted"), "{path:?}");
        assert_eq!(tree(outside.path()), ["precious"]);
        // Out of sight all the same, and the next sweep finishes it once the mount is gone.
        assert!(matches!(scratch.store.read(&id("a")), Err(StoreError::NotFound { .. })));
        assert_eq!(scratch.store.sweep().unwrap().failed.len(), 1);
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
        let swept = scratch.store.sweep().unwrap();
        assert_eq!((swept.removed.len(), swept.failed.len()), (1, 0));
        assert_eq!(tree(scratch.directory.path()), [""; 0]);
    });
}

#[test]
fn a_lock_of_one_store_removes_nothing_from_another() {
    let [one, other] = [scratch(), scratch()];
    let (origin, record) = container("a");
    let locked = one.store.create(&origin, record.clone()).unwrap();
    drop(other.store.create(&origin, record).unwrap());
    assert!(matches!(other.store.remove(locked), Err(StoreError::NotFound { .. })));
    assert!(one.store.read(&id("a")).is_ok() && other.store.read(&id("a")).is_ok());
}

#[test]
fn a_sweep_takes_leftovers_and_only_those() {
    let scratch = scratch();
    let root = scratch.directory.path();
    for name in ["a", "held"] {
        let (origin, record) = container(name);
        drop(scratch.store.create(&origin, record).unwrap());
    }
    let leftovers = [".urunc@create-0123456789abcdef", ".urunc@remove-0123456789abcdef"];
    for name in leftovers {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("state.json"), "").unwrap();
    }
    fs::write(root.join("a/.urunc@file-0123456789abcdef"), "").unwrap();
    // None of these is a leftover: in use, not a name of ours, or not in a place of ours.
    let used = root.join(".urunc@create-fedcba9876543210");
    fs::create_dir(&used).unwrap();
    let used = fs::File::open(used).unwrap();
    flock(used.as_fd(), FlockOperation::LockExclusive).unwrap();
    fs::write(root.join("held/.urunc@file-0123456789abcdef"), "").unwrap();
    let held = scratch.store.lock(&id("held"), now()).unwrap();
    fs::write(root.join("a/.urunc@file-short"), "").unwrap();
    fs::create_dir(root.join("foreign")).unwrap();
    fs::write(root.join("foreign/.urunc@file-0123456789abcdef"), "").unwrap();

    let mut swept = scratch.store.sweep_directories().unwrap();
    swept.removed.sort();
    assert_eq!(swept.removed, leftovers.map(|name| root.join(name)));
    assert!(swept.failed.is_empty());
    let swept = scratch.store.sweep().unwrap();
    assert_eq!(swept.removed, [root.join("a/.urunc@file-0123456789abcdef")]);
    assert!(swept.failed.is_empty());
    drop((used, held));
    let swept = scratch.store.sweep().unwrap();
    assert_eq!(swept.removed.len(), 2);
    assert_eq!(
        tree(root),
        [
            "a",
            "a/.urunc@file-short",
            "a/origin.json",
            "a/state.json",
            "foreign",
            "foreign/.urunc@file-0123456789abcdef",
            "held",
            "held/origin.json",
            "held/state.json"
        ]
    );
}
