//! Every operation, interrupted or failing at each of its system calls: what is seen afterwards is all or
//! nothing, and what is reported is true (F1, F5, B18).

use std::fs;
use std::path::PathBuf;

use urunc_state::{Pid, PidFile, Process, Record, StoreError};

use crate::helper::{FAILED, LEFTOVER, UNSYNCED};
use crate::support::{Scratch, container, id, lacks, now, path, scratch, tree};
use crate::trace::{Fault, Traced, available, is_noise, run};

const WHOLE: [&str; 3] = ["a", "a/origin.json", "a/state.json"];
const NOTHING: [&str; 0] = [];

/// A store with what `helper` needs to find.
fn prepare(helper: &str) -> (Scratch, PathBuf) {
    let scratch = scratch();
    let pid_file = tempfile::tempdir_in(scratch.directory.path().parent().unwrap()).unwrap().keep();
    fs::write(pid_file.join("pid"), "1").unwrap();
    if helper != "create" {
        let (mut origin, mut record) = container("a");
        record.owner = "old".into();
        origin.pid_file = Some(PidFile::new(path(pid_file.join("pid"))).unwrap());
        let me = Process::with_pid(Pid::new(std::process::id().into()).unwrap()).unwrap().unwrap();
        record.urunc.process = Some(me.identity().clone());
        drop(scratch.store.create(&origin, record).unwrap());
    }
    (scratch, pid_file)
}

fn read(scratch: &Scratch) -> Option<Record> {
    match scratch.store.read(&id("a")) {
        Ok(record) => {
            // What can be read can also be held, and its origin is there.
            scratch.store.lock(&id("a"), now()).unwrap();
            scratch.store.origin(&id("a")).unwrap();
            Some(record)
        }
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Runs `helper` with a fault at each of its calls in turn and hands each outcome to `check`.
fn at_each_call(
    helper: &str,
    fault: impl Fn(usize) -> Fault,
    mut check: impl FnMut(&Scratch, &PathBuf, &Traced, &str),
) {
    let (scratch, pid_file) = prepare(helper);
    let undisturbed = run(helper, scratch.directory.path(), Fault::None);
    assert_eq!(undisturbed.code, Some(0));
    fs::remove_dir_all(pid_file).unwrap();
    for index in 0..undisturbed.calls.len() {
        let (scratch, pid_file) = prepare(helper);
        let traced = run(helper, scratch.directory.path(), fault(index));
        check(
            &scratch,
            &pid_file,
            &traced,
            &format!("{helper}, call {index}: {:?}", undisturbed.calls[index]),
        );
        fs::remove_dir_all(pid_file).unwrap();
    }
}

/// Old before new, each seen at least once.
fn assert_one_step(seen: &[bool], what: &str) {
    assert!(seen.is_sorted() && !seen[0] && seen[seen.len() - 1], "{what}: {seen:?}");
}

pub(crate) fn killed_at_any_system_call() {
    if lacks("x86_64", available()) {
        return;
    }
    let mut seen = vec![];
    at_each_call("create", Fault::Kill, |scratch, _, traced, what| {
        assert_eq!(traced.code, None, "{what}");
        seen.push(read(scratch).is_some());
        scratch.store.sweep().unwrap();
        let expected: &[&str] = if seen[seen.len() - 1] { &WHOLE } else { &NOTHING };
        assert_eq!(tree(scratch.directory.path()), expected, "{what}");
        let (origin, record) = container("a");
        assert_eq!(scratch.store.create(&origin, record).is_ok(), expected.is_empty(), "{what}");
    });
    assert_one_step(&seen, "create");

    seen.clear();
    at_each_call("update", Fault::Kill, |scratch, _, traced, what| {
        assert_eq!(traced.code, None, "{what}");
        let owner = read(scratch).unwrap().owner;
        assert!(owner == "old" || owner == "new", "{what}: {owner}");
        seen.push(owner == "new");
        scratch.store.sweep().unwrap();
        assert_eq!(tree(scratch.directory.path()), WHOLE, "{what}");
    });
    assert_one_step(&seen, "update");

    seen.clear();
    at_each_call("remove", Fault::Kill, |scratch, _, traced, what| {
        assert_eq!(traced.code, None, "{what}");
        seen.push(read(scratch).is_none());
        scratch.store.sweep().unwrap();
        let expected: &[&str] = if seen[seen.len() - 1] { &NOTHING } else { &WHOLE };
        assert_eq!(tree(scratch.directory.path()), expected, "{what}");
    });
    assert_one_step(&seen, "remove");

    seen.clear();
    at_each_call("pid_file", Fault::Kill, |scratch, directory, traced, what| {
        assert_eq!(traced.code, None, "{what}");
        let text = fs::read_to_string(directory.join("pid")).unwrap();
        assert!(text == "1" || text == "42", "{what}: {text}");
        seen.push(text == "42");
        scratch.store.origin(&id("a")).unwrap().pid_file.unwrap().remove_leftover().unwrap();
        assert_eq!(tree(directory), ["pid"], "{what}");
    });
    assert_one_step(&seen, "pid file");
}

pub(crate) fn failed_at_any_system_call() {
    if lacks("x86_64", available()) {
        return;
    }
    // What each exit code promises. Nothing temporary may be left: no sweep comes first (F5).
    let failure = |index| Fault::Fail(index, libc::EIO);
    let mut failed = 0;
    at_each_call("create", failure, |scratch, _, traced, what| {
        let expected: &[&str] = match traced.code {
            Some(0) => &WHOLE,
            Some(FAILED) => &NOTHING,
            other => panic!("{what}: {other:?}"),
        };
        failed += usize::from(expected.is_empty());
        assert_eq!(tree(scratch.directory.path()), expected, "{what}");
    });
    assert!(failed >= 10, "create failed {failed} times only");

    let mut codes = vec![];
    at_each_call("update", failure, |scratch, _, traced, what| {
        let expected = match traced.code {
            Some(0 | UNSYNCED) => "new",
            Some(FAILED) => "old",
            other => panic!("{what}: {other:?}"),
        };
        codes.push(traced.code);
        assert_eq!(read(scratch).unwrap().owner, expected, "{what}");
        assert_eq!(tree(scratch.directory.path()), WHOLE, "{what}");
    });
    assert!(codes.contains(&Some(FAILED)));
    assert_eq!(codes.iter().filter(|code| **code == Some(UNSYNCED)).count(), 1, "the sync of the directory");

    codes.clear();
    at_each_call("remove", failure, |scratch, _, traced, what| {
        codes.push(traced.code);
        match traced.code {
            Some(0) => assert_eq!(tree(scratch.directory.path()), NOTHING, "{what}"),
            Some(FAILED) => assert_eq!(tree(scratch.directory.path()), WHOLE, "{what}"),
            Some(LEFTOVER) => {
                assert!(read(scratch).is_none(), "{what}");
                assert_eq!(scratch.store.sweep().unwrap().removed.len(), 1, "{what}");
                assert_eq!(tree(scratch.directory.path()), NOTHING, "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    });
    assert!(codes.contains(&Some(FAILED)) && codes.contains(&Some(LEFTOVER)));

    codes.clear();
    at_each_call("pid_file", failure, |_, directory, traced, what| {
        let expected = match traced.code {
            Some(0 | UNSYNCED) => "42",
            Some(FAILED) => "1",
            other => panic!("{what}: {other:?}"),
        };
        codes.push(traced.code);
        assert_eq!(fs::read_to_string(directory.join("pid")).unwrap(), expected, "{what}");
        assert_eq!(tree(directory), ["pid"], "{what}");
    });
    assert!(codes.contains(&Some(FAILED)) && codes.contains(&Some(UNSYNCED)));
}

fn undisturbed(helper: &str) -> Traced {
    let (scratch, pid_file) = prepare(helper);
    let mut traced = run(helper, scratch.directory.path(), Fault::None);
    traced.calls.retain(|call| !is_noise(*call));
    fs::remove_dir_all(pid_file).unwrap();
    traced
}

/// The calls that make something durable or visible, in order.
fn milestones(traced: &Traced) -> Vec<&'static str> {
    let name = |call: &i64| match *call {
        libc::SYS_fsync | libc::SYS_fdatasync => Some("sync"),
        libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => Some("rename"),
        _ => None,
    };
    traced.calls.iter().filter_map(name).collect()
}

pub(crate) fn no_sync_is_missing_and_none_is_made_twice() {
    if lacks("x86_64", available()) {
        return;
    }
    // F5: the file, once, before it takes the place of the old one; then the directory, once.
    assert_eq!(milestones(&undisturbed("update")), ["sync", "rename", "sync"]);
    assert_eq!(milestones(&undisturbed("pid_file")), ["sync", "rename", "sync"]);
    // Two files and their directory, before the container appears; then the root.
    assert_eq!(milestones(&undisturbed("create")), ["sync", "sync", "sync", "rename", "sync"]);
    // A removed container that a power failure brings back is whole, and stopped.
    assert_eq!(milestones(&undisturbed("remove")), ["rename"]);
}

pub(crate) fn the_costs_of_each_operation() {
    if lacks("x86_64", available()) {
        return;
    }
    // Of the 600 system calls of a whole create, start, kill and delete.
    for (helper, most) in [
        ("create", 20),
        ("update", 11),
        ("remove", 14),
        ("pid_file", 12),
        ("lock", 11),
        ("read", 8),
        ("identify", 13),
        ("status", 14),
    ] {
        let made = undisturbed(helper).calls.len();
        eprintln!("{helper}: {made} system calls");
        assert!(made <= most, "{helper}: {made} system calls, at most {most} were expected");
    }
}
