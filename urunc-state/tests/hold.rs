//! Holding a container: one at a time, the right one, and never for good.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use support::{container, id, scratch, soon, tree, wait_until};
use urunc_state::{Deadline, StoreError};

#[test]
fn a_held_container_is_busy_until_the_deadline_and_no_longer() {
    let scratch = scratch();
    let (origin, record) = container("a");
    let held = scratch.store.create(&origin, record).unwrap();
    let start = Instant::now();
    let wait = Duration::from_millis(50);
    let error = scratch.store.lock(&id("a"), Deadline::after(wait)).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }));
    assert!(start.elapsed() >= wait);
    // Reading needs no lock.
    assert!(scratch.store.read(&id("a")).is_ok() && scratch.store.origin(&id("a")).is_ok());
    drop(held);
    // A child that another test is starting may have a copy of the lock until it executes its program.
    assert!(scratch.store.lock(&id("a"), soon()).is_ok());
}

#[test]
fn no_update_is_lost_between_concurrent_holders() {
    let scratch = scratch();
    let (origin, record) = container("a");
    drop(scratch.store.create(&origin, record).unwrap());
    // Nothing says in which order they get the lock: one may have to wait for all updates of the others.
    let after_all_others = Deadline::after(Duration::from_secs(600));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let mut locked = scratch.store.lock(&id("a"), after_all_others).unwrap();
                    let count = locked.record().annotations.get("n").map_or(0, |n| n.parse::<u32>().unwrap());
                    locked
                        .update(|record| {
                            record.annotations.insert("n".into(), (count + 1).to_string());
                        })
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(scratch.store.read(&id("a")).unwrap().annotations["n"], "100");
    assert_eq!(tree(scratch.directory.path()), ["a", "a/origin.json", "a/state.json"]);
}

/// How many descriptors of this process are open on `path` (deleted or not).
fn descriptors_on(path: &Path) -> usize {
    let links =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link == path).count()
}

#[test]
fn deleting_and_recreating_cannot_fool_a_waiter() {
    let scratch = scratch();
    let directory = scratch.directory.path().join("a");
    let (origin, mut record) = container("a");
    record.owner = "first".into();
    let first = scratch.store.create(&origin, record.clone()).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| scratch.store.lock(&id("a"), soon()).unwrap());
        wait_until("the waiter has opened the old directory", || descriptors_on(&directory) == 2);
        // What a removal does, and before the waiter looks again another container has the id.
        fs::rename(&directory, directory.with_file_name(".urunc@remove-0123456789abcdef")).unwrap();
        record.owner = "second".into();
        let second = scratch.store.create(&origin, record).unwrap();
        drop(first);
        wait_until("the waiter waits for the new one", || descriptors_on(&directory) == 2);
        assert!(!waiter.is_finished());
        drop(second);
        let got = waiter.join().unwrap();
        assert_eq!(got.record().owner, "second");
        let held = rustix::fs::fstat(got.dir()).unwrap();
        assert_eq!(held.st_ino, fs::metadata(&directory).unwrap().ino());
    });
}

#[test]
fn a_waiter_learns_that_the_container_was_deleted() {
    let scratch = scratch();
    let directory = scratch.directory.path().join("a");
    let (origin, record) = container("a");
    let held = scratch.store.create(&origin, record).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| scratch.store.lock(&id("a"), soon()));
        wait_until("the waiter has opened the directory", || descriptors_on(&directory) == 2);
        scratch.store.remove(held).unwrap();
        assert!(matches!(waiter.join().unwrap(), Err(StoreError::NotFound { .. })));
    });
}

#[test]
fn concurrent_creators_and_removers_never_see_half_a_container() {
    let scratch = scratch();
    let (origin, record) = container("a");
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..200 {
                        match scratch.store.create(&origin, record.clone()) {
                            Ok(locked) => drop(locked),
                            Err(StoreError::AlreadyExists { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                        match scratch.store.lock(&id("a"), soon()) {
                            Ok(locked) => scratch.store.remove(locked).unwrap(),
                            Err(StoreError::NotFound { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                })
            })
            .collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            match scratch.store.read(&id("a")) {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
            // A sweep in the middle of it all disturbs nobody, though it may take a directory that its maker
            // has not locked yet.
            let swept = scratch.store.sweep().unwrap();
            assert!(swept.failed.is_empty(), "{swept:?}");
        }
    });
    assert_eq!(tree(scratch.directory.path()), [""; 0]);
}

#[test]
fn the_lock_does_not_survive_execve() {
    let scratch = scratch();
    let (origin, record) = container("a");
    let held = scratch.store.create(&origin, record).unwrap();
    let flags = rustix::io::fcntl_getfd(held.dir()).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    drop(held);
    // Not at once: `spawn` returns a moment before the kernel has closed the child's descriptors.
    let got = scratch.store.lock(&id("a"), soon());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(got.is_ok(), "{got:?}");
}
