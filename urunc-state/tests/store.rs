//! The store on a real file system.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use urunc_state::*;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

fn container(id: &str) -> (Origin, Record) {
    let id = ContainerId::new(id).unwrap();
    let bundle = AbsolutePath::new("/bundle").unwrap();
    (Origin::new(id.clone(), bundle.clone()), Record::new(id, bundle))
}

#[test]
fn create_read_update_remove() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (origin, record) = container("a");
    let mut locked = store.create(&origin, record.clone()).unwrap();
    let id = locked.id().clone();
    assert_eq!(store.read(&id).unwrap(), record);
    assert_eq!(store.origin(&id).unwrap(), origin);
    assert!(matches!(store.create(&origin, record), Err(StoreError::AlreadyExists { .. })));
    locked.update(|record| record.owner = "me".into()).unwrap();
    assert_eq!(store.read(&id).unwrap().owner, "me");
    assert!(matches!(store.lock(&id, Deadline::after(Duration::ZERO)), Err(StoreError::Busy { .. })));
    drop(locked);
    let locked = store.lock(&id, soon()).unwrap();
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&id));
    store.remove(locked).unwrap();
    assert!(matches!(store.read(&id), Err(StoreError::NotFound { .. })));
    assert!(store.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(Store::open(Path::new("/")).is_err());
}
