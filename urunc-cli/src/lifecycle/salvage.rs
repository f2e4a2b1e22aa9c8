//! A forced delete of a container whose record nobody can read: a broken disk, or an edit by hand.
//!
//! What is known then is the origin, which is written once and never changes, and whatever of the record still makes
//! sense. A process identity that survived can be trusted as far as ever: it is compared with the process before that is
//! signalled. A record of a newer version is *not* treated like this; the newer urunc can read it.

use serde::Deserialize;
use serde_json::Value;
use urunc_state::{ContainerId, Deadline, DocumentError, Lock, Process, ProcessIdentity, StoreError};

use super::kill::kill_and_wait;
use super::{LOCK_PATIENCE, LifecycleError, Runtime, limits, teardown};

/// Whether `error` means that the record will never be readable again.
pub(super) fn is_unreadable(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Read { .. }
            | StoreError::OtherContainer { .. }
            | StoreError::Document { source: DocumentError::Malformed(_), .. }
    )
}

impl Runtime {
    /// Ends and removes a container without its record. `unreadable` says why there is none.
    ///
    /// # Errors
    /// [`LifecycleError::Unsalvageable`] if nothing says which process is the container's; it is then left alone.
    pub(super) fn salvage(&self, id: &ContainerId, unreadable: StoreError) -> Result<(), LifecycleError> {
        let lock = self.store.lock_without_record(id, Deadline::after(LOCK_PATIENCE))?;
        let origin = lock.origin()?;
        let identity = process_in_ruins(&lock);
        let path = self.store.path().join(id.as_str());
        // A group that was the container's is marked as such for as long as it exists.
        if identity.is_none() && (origin.cgroups.is_empty() || limits::has_foreign_group(&origin, &path)) {
            return Err(LifecycleError::Unsalvageable { id: id.clone(), path, source: unreadable });
        }
        log::warn!("container {id} is removed without its record: {}", crate::report::chain(&unreadable));
        if let Some(identity) = identity
            && let Some(process) = Process::open(&identity)?
        {
            let freezer =
                origin.cgroups.iter().map(|path| path.join("freezer.state")).find(|file| file.exists());
            kill_and_wait(id, &process, freezer.as_deref())?;
        }
        teardown::destroy_without_record(&self.store, lock, &origin)
    }
}

/// The process, if that part of the record is still there and the record is this container's.
fn process_in_ruins(lock: &Lock) -> Option<ProcessIdentity> {
    let record: Value = serde_json::from_slice(&lock.read_raw().ok()?).ok()?;
    if record.get("id")?.as_str()? != lock.id().as_str() {
        return None;
    }
    ProcessIdentity::deserialize(record.get("urunc")?.get("process")?).ok()
}
