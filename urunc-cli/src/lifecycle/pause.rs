//! `pause` and `resume`, by the freezer of the container's control group: the monitor's virtual CPUs stop where they are,
//! and so does everything beside it. Every monitor can be paused, and none has to be asked.
//!
//! Whether a container is paused is seen in the kernel, so one that somebody else has frozen is paused too, and `resume`
//! thaws it. A created container is not paused: its process only waits for `start`, which would then wait for it.

use std::path::Path;

use urunc_state::{ContainerId, Event, Locked, Seen, Status};

use super::{LifecycleError, Runtime};
use crate::cgroup;

impl Runtime {
    /// Freezes a running container, and returns when all of it stands still.
    ///
    /// # Errors
    /// [`LifecycleError::Status`] if it does not run; [`LifecycleError::NoFreezer`] if this host has none;
    /// [`LifecycleError::Freeze`] if something in it does not stop, and it then runs on.
    pub fn pause(&self, id: &ContainerId) -> Result<(), LifecycleError> {
        let mut locked = self.lock(id)?;
        let Seen { status, .. } = locked.record().look()?;
        if status != Status::Running {
            let remedy = "only a running container can be paused";
            return Err(LifecycleError::Status { verb: "pause", id: id.clone(), status, remedy });
        }
        cgroup::freeze(freezer(&locked)?)?;
        note(&mut locked, status, Event::Paused);
        Ok(())
    }

    /// Lets a paused container run on.
    ///
    /// # Errors
    /// [`LifecycleError::Status`] if it is not paused; [`LifecycleError::Freeze`] if it cannot be thawed.
    pub fn resume(&self, id: &ContainerId) -> Result<(), LifecycleError> {
        let mut locked = self.lock(id)?;
        let Seen { status, .. } = locked.record().look()?;
        if status != Status::Paused {
            let remedy = "only a paused container can be resumed";
            return Err(LifecycleError::Status { verb: "resume", id: id.clone(), status, remedy });
        }
        cgroup::thaw(freezer(&locked)?)?;
        note(&mut locked, status, Event::Resumed);
        Ok(())
    }
}

fn freezer(locked: &Locked) -> Result<&Path, LifecycleError> {
    let record = locked.record();
    record.urunc.freezer.as_deref().ok_or_else(|| LifecycleError::NoFreezer { id: record.id().clone() })
}

/// Writes down for other readers what the kernel knows anyway.
fn note(locked: &mut Locked, seen: Status, event: Event) {
    let saved = locked.try_update(|record| record.advance(seen, event).map_err(LifecycleError::from));
    if let Err(error) = saved {
        let error = crate::report::chain(&error);
        log::warn!("container {}'s record could not be updated: {error}", locked.id());
    }
}
