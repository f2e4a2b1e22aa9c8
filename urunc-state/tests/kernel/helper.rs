//! What the helper processes do.

use std::io::Write;
use std::path::Path;

use urunc_state::{Pid, PidFileError, Process, Record, Store, StoreError, WriteError};

use crate::reuse;
use crate::support::{container, id, now, path, soon};
use crate::trace::mark;

/// How a helper ends whose operation failed.
pub(crate) const FAILED: u8 = 10;
/// How a helper ends whose operation failed, but put the new file in place.
pub(crate) const UNSYNCED: u8 = 11;
/// How a helper ends that removed a container but not all of its files.
pub(crate) const LEFTOVER: u8 = 12;

/// Does what is asked and returns the exit code.
pub(crate) fn run(name: &str, arguments: &[String]) -> u8 {
    if name == "reuse" {
        reuse::in_a_fresh_pid_namespace();
        return 0;
    }
    let store = Store::open(Path::new(&arguments[0])).unwrap();
    if name == "pid_file" {
        let file = store.origin(&id("a")).unwrap().pid_file.unwrap();
        mark();
        let written = file.write(Pid::new(42).unwrap());
        mark();
        return match written {
            Ok(()) => 0,
            Err(PidFileError::Write { source: WriteError::Unsynced { .. }, .. }) => UNSYNCED,
            Err(_) => FAILED,
        };
    }
    let result = operate(name, &store);
    mark();
    match result {
        Ok(()) => 0,
        Err(StoreError::Write { source: WriteError::Unsynced { .. }, .. }) => UNSYNCED,
        Err(StoreError::Remove { .. }) => LEFTOVER,
        Err(_) => FAILED,
    }
}

fn operate(name: &str, store: &Store) -> Result<(), StoreError> {
    match name {
        "writer" => write_until_killed(store),
        "create" => {
            let (origin, record) = container("a");
            mark();
            store.create(&origin, record).map(drop)
        }
        "update" => {
            let mut locked = store.lock(&id("a"), soon())?;
            mark();
            let result = locked.update(|record| record.owner = "new".into());
            mark();
            // What is held in memory is what is on disk, after an error too.
            assert_eq!(locked.record(), &store.read(&id("a"))?);
            result
        }
        "remove" => {
            let locked = store.lock(&id("a"), soon())?;
            mark();
            store.remove(locked)
        }
        "lock" => {
            mark();
            store.lock(&id("a"), now()).map(drop)
        }
        "read" => {
            mark();
            store.read(&id("a")).map(drop)
        }
        "identify" => {
            let me = Pid::new(std::process::id().into()).unwrap();
            mark();
            drop(Process::with_pid(me).unwrap().unwrap());
            Ok(())
        }
        "status" => {
            let record = store.read(&id("a"))?;
            mark();
            record.current_status().unwrap();
            Ok(())
        }
        other => panic!("no helper {other}"),
    }
}

/// The contents of the writer's record number `n`: of changing size, and all of it depending on `n`.
pub(crate) fn fill(record: &mut Record, n: u64) {
    record.annotations.insert("n".into(), n.to_string());
    let length = usize::try_from(n * 7919 % 20_000).unwrap();
    record.annotations.insert("padding".into(), n.to_string().repeat(length / 8));
    record.urunc.reason = Some(n.to_string());
    record.urunc.network_namespace = Some(path(format!("/run/netns/{n}")));
}

/// Reads the number out of a record, and makes sure that all of the record is of that number.
pub(crate) fn number(record: &Record) -> u64 {
    let n = record.annotations["n"].parse().unwrap();
    let mut expected = record.clone();
    fill(&mut expected, n);
    assert_eq!(*record, expected);
    n
}

fn write_until_killed(store: &Store) -> Result<(), StoreError> {
    let mut locked = store.lock(&id("a"), soon())?;
    let mut n = number(locked.record());
    std::io::stdout().write_all(b"!").unwrap();
    std::io::stdout().flush().unwrap();
    loop {
        n += 1;
        locked.update(|record| fill(record, n))?;
    }
}
