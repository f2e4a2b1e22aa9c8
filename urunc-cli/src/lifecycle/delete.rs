//! `delete`: removes a container that does not run, or with force any.

use urunc_state::{ContainerId, Seen, Status, StoreError};

use super::kill::kill_and_wait;
use super::{LifecycleError, Runtime, teardown};

/// Whether `delete` may end what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// A running container is refused.
    No,
    /// It is killed; a container that does not exist is success.
    Yes,
}

impl Runtime {
    /// Removes a container and everything that it holds.
    ///
    /// # Errors
    /// [`LifecycleError::Status`] if it runs and `force` is [`Force::No`]; [`LifecycleError::Store`] if there is none; [`LifecycleError::Teardown`] if
    /// something could not be released, which is then still recorded.
    pub fn delete(&self, id: &ContainerId, force: Force) -> Result<(), LifecycleError> {
        match self.delete_existing(id, force) {
            Err(LifecycleError::Store(StoreError::NotFound { .. })) if force == Force::Yes => Ok(()),
            result => result,
        }
    }

    fn delete_existing(&self, id: &ContainerId, force: Force) -> Result<(), LifecycleError> {
        if force == Force::Yes {
            // Before the lock: a command that hangs with the lock held may be waiting for this very process.
            if let Some(process) = self.store.read(id)?.open_process()? {
                kill_and_wait(id, &process)?;
            }
        }
        let locked = self.lock(id)?;
        let Seen { status, process } = locked.record().look()?;
        if matches!(status, Status::Running | Status::Paused) && force == Force::No {
            let remedy = "stop it first, or use `delete --force`";
            return Err(LifecycleError::Status { verb: "delete", id: id.clone(), status, remedy });
        }
        if let Some(process) = process {
            kill_and_wait(id, &process)?;
        }
        teardown::destroy(&self.store, locked)
    }
}
