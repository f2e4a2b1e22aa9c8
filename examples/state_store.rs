//! The life of a container's record: created, changed under its lock, read by others, removed.
//!
//! `cargo run --example state_store [ROOT]`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use urunc_state::{
    AbsolutePath, ContainerId, Deadline, Event, Json, OciState, Origin, Pid, Process, Record, Resource,
    Store, StoreError,
};

fn main() -> Result<(), Box<dyn Error>> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let root = given
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("urunc-example-{}", std::process::id())));
    let store = Store::open(&root)?;

    let id = ContainerId::new("web-1")?;
    let bundle = AbsolutePath::new("/run/bundles/web-1")?;
    let origin = Origin::new(id.clone(), bundle.clone());
    let mut record = Record::new(id.clone(), bundle);
    record.urunc.monitor = "qemu".to_owned();
    record.urunc.guest = "unikraft".to_owned();

    // The directory appears with both files in it, and nobody else can change it while we hold it.
    let mut locked = store.create(&origin, record)?;
    println!("created {} in {}", locked.id(), store.path().display());
    if let Err(error @ StoreError::AlreadyExists { .. }) = store.create(&origin, locked.record().clone()) {
        println!("a second time: {error}");
    }

    // What the kernel will not clean up is recorded before it is acquired.
    let data = Json::of(&json!({"paths": ["/sys/fs/cgroup/urunc/web-1"]}))?;
    locked.update(|record| {
        record.urunc.resources.push(Resource { kind: "cgroup".to_owned(), schema: 1, data });
    })?;

    // The container's process; here it is ourselves, in place of an init that waits for `start`.
    let init = Process::with_pid(Pid::new(std::process::id().into())?)?.ok_or("cannot find ourselves")?;
    locked.try_update(|record| -> Result<(), Box<dyn Error>> {
        record.urunc.process = Some(init.identity().clone());
        record.urunc.exe = init.exe()?;

        // A step in the container's life starts from the status that was seen, not from the recorded one.
        let seen = record.current_status()?;
        if let Err(refused) = record.advance(seen, Event::Started) {
            println!("{id} is not ready: {refused}");
        }
        record.advance(seen, Event::Created)?;
        Ok(())
    })?;
    drop(locked);

    // Anybody may read at any time, and gets a whole record.
    let record = store.read(&id)?;
    println!("{}", serde_json::to_string_pretty(&OciState::new(&record, record.current_status()?))?);

    let locked = store.lock(&id, Deadline::after(Duration::from_secs(10)))?;
    for resource in locked.record().urunc.resources.iter().rev() {
        println!("releasing {} {}", resource.kind, resource.data);
    }
    store.remove(locked)?;
    println!("removed; left: {:?}", store.list()?);
    if given.is_none() {
        std::fs::remove_dir(root)?;
    }
    Ok(())
}
