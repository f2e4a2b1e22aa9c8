//! `delete`: removes a container that does not run, or with force any.

use urunc_state::{ContainerId, Seen, Status};

use super::kill::kill_and_wait;
use super::{LifecycleError, Runtime, salvage, teardown};

/// Whether `delete` may end what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// A running container is refused.
    No,
    /// It is killed.
    Yes,
}

impl Runtime {
    /// Removes a container and everything that it holds.
    ///
    /// # Errors
    /// [`LifecycleError::Status`] if it runs and `force` is [`Force::No`]; [`LifecycleError::Store`] if there is none; [`LifecycleError::Teardown`] if
    /// something could not be released, which is then still recorded.
    pub fn delete(&self, id: &ContainerId, force: Force) -> Result<(), LifecycleError> {
        let result = self.delete_existing(id, force);
        if force == Force::Yes {
            self.sweep();
        }
        result
    }

    /// Removes what killed commands have left half-made or half-removed. It is not the container's, so nothing depends
    /// on it; but the caller who uses force expects that nothing is left.
    fn sweep(&self) {
        match self.store.sweep_directories() {
            Ok(swept) => {
                for (path, error) in swept.failed {
                    log::warn!("cannot remove {}, which a killed command left: {error}", path.display());
                }
            }
            Err(error) => log::warn!("{}", crate::report::chain(&error)),
        }
    }

    fn delete_existing(&self, id: &ContainerId, force: Force) -> Result<(), LifecycleError> {
        let mut unreadable = false;
        if force == Force::Yes {
            // Before the lock: a command that hangs with the lock held may be waiting for this very process.
            match self.store.read(id) {
                Ok(record) => {
                    if let Some(process) = record.open_process()? {
                        kill_and_wait(id, &process, record.urunc.freezer.as_deref())?;
                    }
                }
                // Looked at again with the lock held: only what fails twice is given up.
                Err(error) if salvage::is_unreadable(&error) => unreadable = true,
                Err(error) => return Err(error.into()),
            }
        }
        let locked = match self.lock(id) {
            Err(LifecycleError::Store(error)) if unreadable && salvage::is_unreadable(&error) => {
                return self.salvage(id, error);
            }
            result => result?,
        };
        let Seen { status, process } = locked.record().look()?;
        if matches!(status, Status::Running | Status::Paused) && force == Force::No {
            let remedy = "stop it first, or use `delete --force`";
            return Err(LifecycleError::Status { verb: "delete", id: id.clone(), status, remedy });
        }
        if let Some(process) = process {
            kill_and_wait(id, &process, locked.record().urunc.freezer.as_deref())?;
        }
        teardown::destroy(&self.store, locked)
    }
}
