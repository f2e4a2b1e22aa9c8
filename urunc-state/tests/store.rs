//! The store on a real file system: what exists, who may change it, and what disappears.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use support::{container, id, in_mount_namespace, is_root, lacks, now, scratch, soon, tree, wait_until};
use urunc_state::{AbsolutePath, ContainerId, Deadline, Event, Lock, Store, StoreError};

#[test]
fn a_container_is_created_read_changed_and_removed() {
    let scratch = scratch();
    let store = &scratch.store;
    let (origin, record) = container("a");
    let mut locked = store.create(&origin, record.clone()).unwrap();
    assert_eq!(store.read(&id("a")).unwrap(), record);
    assert_eq!(store.origin(&id("a")).unwrap(), origin);
    locked.update(|record| record.owner = "me".into()).unwrap();
    assert_eq!(store.read(&id("a")).unwrap().owner, "me");
    drop(locked);

    let locked = store.lock(&id("a"), soon()).unwrap();
    assert_eq!(locked.record().owner, "me");
    store.remove(locked).unwrap();
    assert!(matches!(store.read(&id("a")), Err(StoreError::NotFound { .. })));
    assert_eq!(tree(scratch.directory.path()), [""; 0]);
}

#[test]
fn a_deleted_id_can_be_used_again() {
    let scratch = scratch();
    let (origin, record) = container("a");
    for _ in 0..3 {
        let locked = scratch.store.create(&origin, record.clone()).unwrap();
        scratch.store.remove(locked).unwrap();
    }
}

#[test]
fn files_and_directories_are_private_whatever_the_umask() {
    let scratch = scratch();
    let root = scratch.directory.path().join("x/y");
    let store = Store::open(&root).unwrap();
    let (origin, record) = container("a");
    store.create(&origin, record).unwrap().update(|_| ()).unwrap();
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        [mode(""), mode("a"), mode("a/state.json"), mode("a/origin.json")],
        [0o700, 0o700, 0o600, 0o600]
    );
}

#[test]
fn roots_that_could_reach_the_whole_system_are_refused() {
    // B5: a root of `/` or a relative one makes every id a system directory.
    for bad in ["", "/", "//", "/.", "run", "./run", "../run", "/run/..", "/run/../..", "/run/../etc"] {
        assert!(matches!(Store::open(Path::new(bad)), Err(StoreError::UnfitRoot { .. })), "{bad:?}");
    }
}

#[test]
fn a_root_that_is_a_file_is_a_clear_error() {
    let scratch = scratch();
    let file = scratch.directory.path().join("file");
    fs::write(&file, "").unwrap();
    for root in [file.clone(), file.join("below")] {
        let error = Store::open(&root).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot use the state directory {}", root.display()));
    }
}

#[test]
fn an_existing_container_is_never_overwritten() {
    // B18: create over a live container replaced its state.
    let scratch = scratch();
    let (origin, mut record) = container("a");
    record.owner = "first".into();
    drop(scratch.store.create(&origin, record.clone()).unwrap());
    record.owner = "second".into();
    let error = scratch.store.create(&origin, record).unwrap_err();
    assert_eq!(error.to_string(), "container a already exists");
    assert_eq!(scratch.store.read(&id("a")).unwrap().owner, "first");
    assert_eq!(tree(scratch.directory.path()), ["a", "a/origin.json", "a/state.json"]);
}

#[test]
fn of_many_creators_of_one_id_exactly_one_wins() {
    let scratch = scratch();
    let start = Barrier::new(8);
    let winners = thread::scope(|scope| {
        let creators: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let (origin, record) = container("a");
                    start.wait();
                    scratch.store.create(&origin, record).is_ok()
                })
            })
            .collect();
        creators.into_iter().filter_map(|creator| creator.join().unwrap().then_some(())).count()
    });
    assert_eq!(winners, 1);
    assert_eq!(tree(scratch.directory.path()), ["a", "a/origin.json", "a/state.json"]);
}

#[test]
fn an_id_that_fits_no_file_name_is_a_clear_error_and_never_found() {
    let scratch = scratch();
    let long = |length| id(&"x".repeat(length));
    for length in [255, 256, 1024] {
        let (origin, record) = container(long(length).as_str());
        match scratch.store.create(&origin, record) {
            Ok(_) => assert_eq!(length, 255),
            Err(error) => {
                assert!(length > 255);
                assert!(matches!(error, StoreError::IdTooLong { limit: 255, .. }));
                assert!(error.to_string().contains(&format!("{length} bytes, a file name at most 255")));
                assert!(matches!(scratch.store.read(&long(length)), Err(StoreError::NotFound { .. })));
                assert!(matches!(scratch.store.lock(&long(length), now()), Err(StoreError::NotFound { .. })));
            }
        }
    }
    assert!(ContainerId::new("x".repeat(1025)).is_err());
    assert_eq!(scratch.store.list().unwrap(), [long(255)]);
}

#[test]
fn origin_and_record_must_be_of_the_same_container() {
    let scratch = scratch();
    let (origin, _) = container("a");
    let (other, mut record) = container("b");
    assert!(matches!(scratch.store.create(&origin, record.clone()), Err(StoreError::OtherContainer { .. })));
    record.owner = "b".into();
    drop(scratch.store.create(&other, record.clone()).unwrap());
    let (origin, a) = container("a");
    let mut locked = scratch.store.create(&origin, a).unwrap();
    assert!(matches!(locked.save(record), Err(StoreError::OtherContainer { .. })));
    assert_eq!(locked.record().id(), &id("a"));
}

#[test]
fn a_copied_directory_does_not_pass_for_the_container_whose_record_it_holds() {
    let scratch = scratch();
    let (origin, record) = container("a");
    drop(scratch.store.create(&origin, record).unwrap());
    let [a, b] = ["a", "b"].map(|name| scratch.directory.path().join(name));
    fs::create_dir(&b).unwrap();
    for file in ["origin.json", "state.json"] {
        fs::copy(a.join(file), b.join(file)).unwrap();
    }
    assert!(matches!(scratch.store.read(&id("b")), Err(StoreError::OtherContainer { .. })));
    assert!(matches!(scratch.store.origin(&id("b")), Err(StoreError::OtherContainer { .. })));
    assert!(matches!(scratch.store.lock(&id("b"), now()), Err(StoreError::OtherContainer { .. })));
}

#[test]
fn what_another_runtime_made_is_neither_listed_nor_locked_nor_swept() {
    let scratch = scratch();
    let root = scratch.directory.path();
    let (origin, record) = container("ours");
    drop(scratch.store.create(&origin, record).unwrap());
    fs::create_dir(root.join("runc")).unwrap();
    fs::write(root.join("runc/state.json"), r#"{"id":"runc"}"#).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    symlink(root.join("ours"), root.join("link")).unwrap();
    fs::create_dir(root.join("not an id")).unwrap();
    let before = tree(root);
    for foreign in ["runc", "empty", "file", "link"] {
        let foreign = id(foreign);
        assert!(!scratch.store.owns(&foreign).unwrap());
        assert!(matches!(scratch.store.read(&foreign), Err(StoreError::NotOurs { .. })), "{foreign}");
        assert!(matches!(scratch.store.lock(&foreign, now()), Err(StoreError::NotOurs { .. })), "{foreign}");
        let (origin, record) = container(foreign.as_str());
        assert!(matches!(scratch.store.create(&origin, record), Err(StoreError::AlreadyExists { .. })));
    }
    assert!(!scratch.store.owns(&id("nothing")).unwrap());
    assert!(scratch.store.owns(&id("ours")).unwrap());
    assert_eq!(scratch.store.list().unwrap(), [id("ours")]);
    let swept = scratch.store.sweep().unwrap();
    assert!(swept.removed.is_empty() && swept.failed.is_empty());
    assert_eq!(tree(root), before);
}

#[test]
fn errors_that_containerd_reads_have_its_words() {
    let scratch = scratch();
    let error = scratch.store.read(&id("a")).unwrap_err();
    assert_eq!(error.to_string(), "container a does not exist");
}

// --- holding ---------------------------------------------------------------------------------------------

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
    assert!(scratch.store.lock(&id("a"), now()).is_ok());
}

#[test]
fn no_update_is_lost_between_concurrent_holders() {
    let scratch = scratch();
    let (origin, record) = container("a");
    drop(scratch.store.create(&origin, record).unwrap());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let mut locked = scratch.store.lock(&id("a"), soon()).unwrap();
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
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    drop(held);
    // Not at once: `spawn` returns a moment before the kernel has closed the child's descriptors.
    assert!(scratch.store.lock(&id("a"), soon()).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
}

// --- unusable records --------------------------------------------------------------------------------------

#[test]
fn a_container_whose_record_is_unusable_can_still_be_removed() {
    // F1: with a torn state.json every later start, kill and delete failed.
    let (origin, record) = container("a");
    let damages: [fn(&Path); 4] = [
        |file| fs::write(file, "{\"ociVersion\":\"1.2").unwrap(),
        |file| fs::write(file, "").unwrap(),
        |file| fs::remove_file(file).unwrap(),
        |file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        },
    ];
    for damage in damages {
        let scratch = scratch();
        drop(scratch.store.create(&origin, record.clone()).unwrap());
        damage(&scratch.directory.path().join("a/state.json"));
        for result in [scratch.store.read(&id("a")).err(), scratch.store.lock(&id("a"), now()).err()] {
            assert!(
                matches!(result, Some(StoreError::Document { .. } | StoreError::Read { .. })),
                "{result:?}"
            );
        }
        assert_eq!(scratch.store.list().unwrap(), [id("a")]);
        assert_eq!(scratch.store.origin(&id("a")).unwrap(), origin);
        let lock: Lock = scratch.store.lock_without_record(&id("a"), now()).unwrap();
        scratch.store.remove(lock).unwrap();
        assert_eq!(tree(scratch.directory.path()), [""; 0]);
    }
}

#[test]
fn a_record_of_a_newer_schema_is_refused_with_its_number() {
    let scratch = scratch();
    let (origin, record) = container("a");
    drop(scratch.store.create(&origin, record).unwrap());
    let file = scratch.directory.path().join("a/state.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    json["urunc"]["schema"] = 2.into();
    json["status"] = "a status of the future".into();
    fs::write(&file, json.to_string()).unwrap();
    let error = scratch.store.read(&id("a")).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("schema version 2 is not known, only 1 is"), "{cause}");
}

// --- removing ----------------------------------------------------------------------------------------------

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

// --- sweeping ----------------------------------------------------------------------------------------------

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

    let mut swept = scratch.store.sweep().unwrap();
    swept.removed.sort();
    let expected = [leftovers[0], leftovers[1], "a/.urunc@file-0123456789abcdef"].map(|name| root.join(name));
    assert_eq!(swept.removed, expected);
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

// --- the file as others read it -----------------------------------------------------------------------------

#[test]
fn the_file_is_an_oci_state_and_unknown_fields_outlive_an_update() {
    let scratch = scratch();
    let (origin, mut record) = container("a");
    record.annotations.insert("com.urunc.unikernel.unikernelType".into(), "unikraft".into());
    drop(scratch.store.create(&origin, record).unwrap());
    let file = scratch.directory.path().join("a/state.json");
    let load = || serde_json::from_slice::<serde_json::Value>(&fs::read(&file).unwrap()).unwrap();
    let mut json = load();
    assert_eq!(json["ociVersion"], "1.2.0");
    assert_eq!((&json["id"], &json["status"], &json["pid"]), (&"a".into(), &"creating".into(), &0.into()));
    assert_eq!((&json["bundle"], &json["rootfs"]), (&"/bundle".into(), &"/bundle/rootfs".into()));
    assert_eq!(json["annotations"]["com.urunc.unikernel.unikernelType"], "unikraft");

    json["future"] = serde_json::json!({"deep": [1, 2.5, null]});
    json["urunc"]["future"] = "kept".into();
    fs::write(&file, json.to_string()).unwrap();
    let mut locked = scratch.store.lock(&id("a"), now()).unwrap();
    locked
        .update(|record| {
            record.advance(urunc_state::Status::Creating, Event::Created).unwrap();
            record.urunc.network_namespace = Some(AbsolutePath::new("/run/netns/pod").unwrap());
        })
        .unwrap();
    let after = load();
    assert_eq!((&after["future"], &after["urunc"]["future"]), (&json["future"], &json["urunc"]["future"]));
    assert_eq!(after["status"], "created");
}
