//! The store on a real file system: what exists, whose it is, and what can be read.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use support::{container, id, now, scratch, soon, tree};
use urunc_state::{AbsolutePath, ContainerId, Event, Lock, Store, StoreError};

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
    let scratch = scratch();
    let link = scratch.directory.path().join("link");
    std::os::unix::fs::symlink("/", &link).unwrap();
    assert!(matches!(Store::open(&link), Err(StoreError::UnfitRoot { .. })));
}

#[test]
fn a_root_has_one_path_however_it_is_spelled() {
    let scratch = scratch();
    let real = scratch.directory.path().canonicalize().unwrap().join("root");
    fs::create_dir(&real).unwrap();
    let link = scratch.directory.path().join("link");
    std::os::unix::fs::symlink("root", &link).unwrap();
    for spelling in [real.clone(), link, real.join(""), scratch.directory.path().join(".//root/.")] {
        assert_eq!(Store::open(&spelling).unwrap().path().as_os_str(), real.as_os_str(), "{spelling:?}");
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
        assert_eq!(lock.origin().unwrap(), origin);
        // What there is of it can still be had.
        match fs::read(scratch.directory.path().join("a/state.json")) {
            Ok(ruins) => assert_eq!(lock.read_raw().unwrap(), ruins),
            Err(_) => assert!(matches!(lock.read_raw(), Err(StoreError::Read { .. }))),
        }
        scratch.store.remove(lock).unwrap();
        assert_eq!(tree(scratch.directory.path()), [""; 0]);
    }
}

/// Neither a reader that waits for ever nor one that takes all the memory there is.
#[test]
fn what_is_no_file_of_ours_in_place_of_a_record_is_an_error_at_once() {
    let scratch = scratch();
    let (origin, record) = container("a");
    drop(scratch.store.create(&origin, record).unwrap());
    let file = scratch.directory.path().join("a/state.json");
    fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(matches!(scratch.store.read(&id("a")), Err(StoreError::Document { .. })));
    fs::remove_file(&file).unwrap();
    fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
    let error = scratch.store.read(&id("a")).unwrap_err();
    assert!(
        matches!(&error, StoreError::Read { source, .. } if source.raw_os_error() == Some(27)),
        "{error:?}"
    );
}

#[test]
fn a_change_that_fails_changes_nothing() {
    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error(transparent)]
        Step(#[from] urunc_state::IllegalTransition),
        #[error(transparent)]
        Store(#[from] StoreError),
    }
    let scratch = scratch();
    let (origin, record) = container("a");
    let mut locked = scratch.store.create(&origin, record).unwrap();
    let before = locked.record().clone();
    let refused = locked.try_update(|record| {
        record.owner = "somebody".into();
        record.advance(urunc_state::Status::Stopped, Event::Started).map_err(Failed::from)
    });
    assert!(matches!(refused, Err(Failed::Step(_))), "{refused:?}");
    assert_eq!(locked.record(), &before);
    assert_eq!(scratch.store.read(&id("a")).unwrap(), before);
    let advanced = locked.try_update(|record| {
        record.advance(urunc_state::Status::Creating, Event::Created).map_err(Failed::from)
    });
    assert_eq!(advanced.unwrap(), urunc_state::Status::Created);
    assert_eq!(scratch.store.read(&id("a")).unwrap().recorded_status(), urunc_state::Status::Created);
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

#[test]
fn sockets_fit_however_long_the_path_of_the_container_is() {
    // B22: socket paths have at most 107 bytes, and a long containerd namespace made them longer.
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};
    let scratch = scratch();
    let store = Store::open(&scratch.directory.path().join("namespace".repeat(20))).unwrap();
    let name = "0123456789abcdef".repeat(15);
    let (origin, record) = container(&name);
    let locked = store.create(&origin, record).unwrap();
    let _listener =
        UnixListener::bind(format!("/proc/self/fd/{}/init.sock", locked.dir().as_raw_fd())).unwrap();
    // Another command reaches it, without the lock.
    let directory = store.directory(&id(&name)).unwrap();
    UnixStream::connect(format!("/proc/self/fd/{}/init.sock", directory.as_raw_fd())).unwrap();
    store.remove(locked).unwrap();
    assert_eq!(tree(store.path()), [""; 0]);
}
