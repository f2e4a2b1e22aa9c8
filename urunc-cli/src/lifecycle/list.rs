//! `list`: all containers of a state root.

use urunc_state::{ContainerId, Pid, Record, Status};

use super::{LifecycleError, Runtime};

/// One container in a list.
#[derive(Debug)]
pub struct Entry {
    /// What is recorded.
    pub record: Record,
    /// What is true.
    pub status: Status,
}

impl Entry {
    /// The container's process, if it has one.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        if self.status == Status::Stopped {
            None
        } else {
            self.record.urunc.process.as_ref().map(|process| process.pid)
        }
    }
}

impl Runtime {
    /// The ids of our containers; those of a runtime that we delegate to are not among them.
    ///
    /// # Errors
    /// [`LifecycleError::Store`] if the state root cannot be read.
    pub fn ids(&self) -> Result<Vec<ContainerId>, LifecycleError> {
        Ok(self.store.list()?)
    }

    /// Our containers. One that vanishes meanwhile, or whose record cannot be read, does not spoil the list: the
    /// latter is logged.
    ///
    /// # Errors
    /// As [`Self::ids`].
    pub fn list(&self) -> Result<Vec<Entry>, LifecycleError> {
        let mut entries = Vec::new();
        for id in self.store.list()? {
            let entry = self.store.read(&id).map_err(LifecycleError::from).and_then(|record| {
                let status = record.current_status()?;
                Ok(Entry { record, status })
            });
            match entry {
                Ok(entry) => entries.push(entry),
                Err(LifecycleError::Store(urunc_state::StoreError::NotFound { .. })) => {}
                Err(error) => log::warn!("{}", crate::report::chain(&error)),
            }
        }
        Ok(entries)
    }
}
