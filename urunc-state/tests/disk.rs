//! Disks that are full, read-only or in the way: a clear error, the old file intact, nothing left behind (F1, F5).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use support::{container, id, in_mount_namespace, is_root, lacks, now, path, scratch, tree};
use urunc_state::{Locked, Pid, PidFile, PidFileError, Record, Store, StoreError, WriteError};

const WHOLE: [&str; 3] = ["a", "a/origin.json", "a/state.json"];

/// Runs `work` with a container in a small tmpfs that is mounted for this thread only.
fn on_tmpfs(options: &str, work: impl FnOnce(&Path, &Store, Locked) + Send) {
    if lacks("root", is_root()) {
        return;
    }
    in_mount_namespace(|| {
        let directory = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), &*options).unwrap();
        let root = directory.path().join("root");
        let store = Store::open(&root).unwrap();
        let (origin, mut record) = container("a");
        record.owner = "old".into();
        let locked = store.create(&origin, record).unwrap();
        work(&root, &store, locked);
        rustix::mount::unmount(directory.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}

fn errno(error: &dyn Error) -> Option<Errno> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(errno) = error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error) {
            return Some(errno);
        }
        cause = error.source();
    }
    None
}

fn big(record: &Record) -> Record {
    let mut record = record.clone();
    record.owner = "new".repeat(100_000);
    record
}

fn assert_old(root: &Path, store: &Store) {
    assert_eq!(store.read(&id("a")).unwrap().owner, "old");
    assert_eq!(tree(root), WHOLE);
}

#[test]
fn a_full_disk_leaves_the_old_record_and_no_temporary_file() {
    on_tmpfs("size=128k", |root, store, mut locked| {
        let error = locked.save(big(locked.record())).unwrap_err();
        assert!(matches!(error, StoreError::Write { source: WriteError::Write { .. }, .. }), "{error:?}");
        assert_eq!(errno(&error), Some(Errno::NOSPC));
        assert_eq!(error.to_string(), "cannot save container a");
        assert_eq!(locked.record().owner, "old");
        assert_old(root, store);
        // With room again, all is well.
        locked.update(|record| record.owner = "newer".into()).unwrap();
        assert_eq!(store.read(&id("a")).unwrap().owner, "newer");
    });
}

#[test]
fn a_disk_that_is_full_while_creating_shows_no_container() {
    on_tmpfs("size=128k", |root, store, _locked| {
        let (origin, record) = container("b");
        let error = store.create(&origin, big(&record)).unwrap_err();
        assert_eq!(errno(&error), Some(Errno::NOSPC));
        assert!(matches!(store.read(&id("b")), Err(StoreError::NotFound { .. })));
        assert_old(root, store);
    });
}

#[test]
fn a_disk_without_inodes_leaves_the_old_record() {
    on_tmpfs("nr_inodes=6", |root, store, mut locked| {
        // Root directory, root, a, and its two files: one is left.
        fs::write(root.with_file_name("filler"), "").unwrap();
        let error = locked.update(|record| record.owner = "new".into()).unwrap_err();
        assert!(matches!(error, StoreError::Write { source: WriteError::Create { .. }, .. }), "{error:?}");
        assert_eq!(errno(&error), Some(Errno::NOSPC));
        assert_old(root, store);
    });
}

#[test]
fn a_read_only_disk_can_be_read_and_nothing_else() {
    on_tmpfs("size=1m", |root, store, mut locked| {
        mount_remount(root.parent().unwrap(), MountFlags::RDONLY, c"").unwrap();
        let read_only = |error: &StoreError| assert_eq!(errno(error), Some(Errno::ROFS), "{error:?}");
        read_only(&locked.update(|record| record.owner = "new".into()).unwrap_err());
        let (origin, record) = container("b");
        read_only(&store.create(&origin, record).unwrap_err());
        assert_old(root, store);
        read_only(&store.remove(locked).unwrap_err());
        assert_old(root, store);
        assert_eq!(store.list().unwrap(), [id("a")]);
        assert!(store.lock(&id("a"), now()).is_ok());
        read_only(&Store::open(&root.with_file_name("other")).unwrap_err());
    });
}

#[test]
fn a_rename_that_fails_leaves_the_old_record_and_no_temporary_file() {
    // F5: the temporary file stayed when the rename failed. A mount point cannot be replaced.
    on_tmpfs("size=1m", |root, store, mut locked| {
        let state = root.join("a/state.json");
        mount_bind(&state, &state).unwrap();
        let error = locked.update(|record| record.owner = "new".into()).unwrap_err();
        assert!(matches!(error, StoreError::Write { source: WriteError::Replace { .. }, .. }), "{error:?}");
        assert_eq!(error.source().unwrap().to_string(), "cannot replace state.json, which is unchanged");
        assert_eq!(errno(&error), Some(Errno::BUSY));
        assert_old(root, store);
    });
}

#[test]
fn a_directory_in_place_of_the_record_is_not_replaced() {
    let scratch = scratch();
    let (origin, record) = container("a");
    let mut locked = scratch.store.create(&origin, record).unwrap();
    let state = scratch.directory.path().join("a/state.json");
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    let error = locked.update(|record| record.owner = "new".into()).unwrap_err();
    assert!(matches!(error, StoreError::Write { source: WriteError::Replace { .. }, .. }), "{error:?}");
    assert_eq!(errno(&error), Some(Errno::ISDIR));
    assert_eq!(tree(scratch.directory.path()), WHOLE);
}

#[test]
fn a_link_in_place_of_the_record_is_replaced_not_followed() {
    let scratch = scratch();
    let (origin, record) = container("a");
    let mut locked = scratch.store.create(&origin, record).unwrap();
    let [state, victim] = ["a/state.json", "victim"].map(|name| scratch.directory.path().join(name));
    fs::rename(&state, &victim).unwrap();
    let precious = fs::read(&victim).unwrap();
    symlink(&victim, &state).unwrap();
    assert!(scratch.store.read(&id("a")).is_err());
    locked.update(|record| record.owner = "new".into()).unwrap();
    assert_eq!(scratch.store.read(&id("a")).unwrap().owner, "new");
    assert_eq!(fs::read(victim).unwrap(), precious);
}

// --- the pid file --------------------------------------------------------------------------------------------

fn pid(number: i64) -> Pid {
    Pid::new(number).unwrap()
}

#[test]
fn a_pid_file_holds_the_number_and_everybody_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("init.pid");
    let file = PidFile::new(path(&target)).unwrap();
    // A thread of its own, for the umask is shared among threads unless they unshare it.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: only this thread's umask and working directory are unshared.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
            rustix::process::umask(rustix::fs::Mode::RWXO | rustix::fs::Mode::RWXG);
            file.write(pid(42)).unwrap();
        });
    });
    assert_eq!(fs::read_to_string(&target).unwrap(), "42");
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o644);
    file.write(pid(43)).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "43");
    assert_eq!(tree(directory.path()), ["init.pid"]);
}

#[test]
fn leftovers_of_a_pid_file_are_removed_by_their_recorded_name() {
    // B19: the temporary name was predictable, and a leftover blocked later creates or a link was followed.
    let directory = tempfile::tempdir().unwrap();
    let file = PidFile::new(path(directory.path().join("pid"))).unwrap();
    let recorded: PidFile = serde_json::from_str(&serde_json::to_string(&file).unwrap()).unwrap();
    assert_eq!(recorded, file);
    let other = PidFile::new(path(directory.path().join("pid"))).unwrap();
    assert_ne!(other, file, "each pid file has its own temporary name");
    let temporary = serde_json::to_value(&file).unwrap()["temporary"].as_str().unwrap().to_owned();
    fs::write(directory.path().join(&temporary), "4").unwrap();
    fs::write(directory.path().join("foreign"), "").unwrap();
    other.remove_leftover().unwrap();
    assert!(directory.path().join(&temporary).exists());
    recorded.remove_leftover().unwrap();
    recorded.remove_leftover().unwrap();
    assert_eq!(tree(directory.path()), ["foreign"]);
    // The bundle may be gone by then.
    drop(directory);
    recorded.remove_leftover().unwrap();
}

#[test]
fn what_was_planted_at_the_temporary_name_is_neither_followed_nor_written() {
    // B19 once more: truncating an existing temporary file writes through whatever somebody put there.
    let directory = tempfile::tempdir().unwrap();
    let [target, victim] = ["pid", "victim"].map(|name| directory.path().join(name));
    fs::write(&victim, "precious").unwrap();
    let file = PidFile::new(path(&target)).unwrap();
    let temporary = serde_json::to_value(&file).unwrap()["temporary"].as_str().unwrap().to_owned();
    for plant in
        [|from: &Path, to: &Path| symlink(from, to), |from: &Path, to: &Path| fs::hard_link(from, to)]
    {
        let planted = directory.path().join(&temporary);
        plant(&victim, &planted).unwrap();
        let error = file.write(pid(42)).unwrap_err();
        assert!(matches!(error, PidFileError::Write { source: WriteError::Create { .. }, .. }), "{error:?}");
        assert_eq!(errno(&error), Some(Errno::EXIST));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(planted.exists() && !target.exists(), "neither taken for ours nor put in place");
        // As after a crash of ours: removed by its name, it is no longer in the way.
        file.remove_leftover().unwrap();
        file.write(pid(42)).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn a_recorded_temporary_name_cannot_lead_elsewhere() {
    for name in ["../../etc/passwd", "/etc/passwd", "pid", ".urunc@create-0123456789abcdef/x"] {
        let json = serde_json::json!({"path": "/bundle/pid", "temporary": name}).to_string();
        assert!(serde_json::from_str::<PidFile>(&json).is_err(), "{name}");
    }
}

#[test]
fn a_link_in_place_of_the_pid_file_is_replaced_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let [target, victim] = ["pid", "victim"].map(|name| directory.path().join(name));
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, &target).unwrap();
    PidFile::new(path(&target)).unwrap().write(pid(42)).unwrap();
    assert_eq!(
        (fs::read_to_string(target).unwrap(), fs::read_to_string(victim).unwrap()),
        ("42".into(), "precious".into())
    );
}

#[test]
fn a_pid_file_that_cannot_be_written_is_a_clear_error_without_leftovers() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken");
    fs::create_dir(&taken).unwrap();
    let error = PidFile::new(path(&taken)).unwrap().write(pid(42)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot write the pid file {}", taken.display()));
    assert_eq!(tree(directory.path()), ["taken"]);
    let missing = path(directory.path().join("no/where"));
    assert!(matches!(PidFile::new(missing).unwrap().write(pid(42)), Err(PidFileError::Directory { .. })));
    for nameless in ["/", "/bundle/.."] {
        assert!(matches!(PidFile::new(path(nameless)), Err(PidFileError::NoName { .. })));
    }
}
