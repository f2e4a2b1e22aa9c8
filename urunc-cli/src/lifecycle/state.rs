//! `state` and `ps`: looking without touching. No lock is taken, so they answer while another command hangs.

use urunc_state::{ContainerId, OciState, Pid, Seen, Status};

use super::limits::{Recorded, oom_reason};
use super::{LifecycleError, Runtime};

impl Runtime {
    /// The OCI state document of a container, as JSON. One that is stopped has the `reason`, if it did not just exit.
    ///
    /// # Errors
    /// [`LifecycleError::Store`] if the container does not exist, [`LifecycleError::Process`] if its process cannot be looked at.
    pub fn state(&self, id: &ContainerId) -> Result<serde_json::Value, LifecycleError> {
        let record = self.store.read(id)?;
        let status = record.current_status()?;
        let mut document = serde_json::to_value(OciState::new(&record, status))?;
        if status == Status::Stopped
            && record.urunc.reason.is_none()
            // Nobody has released the group yet, which alone knows.
            && let Some(reason) = oom_reason(&record)
        {
            document["reason"] = reason.into();
        }
        Ok(document)
    }

    /// The live processes of a container: its monitor, then whatever else is in its control group.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn processes(&self, id: &ContainerId) -> Result<Vec<Pid>, LifecycleError> {
        let record = self.store.read(id)?;
        let Seen { status, process } = record.look()?;
        // A zombie is still there, but no container any more.
        let Some(monitor) = process.filter(|_| status != Status::Stopped).map(|process| process.pid()) else {
            return Ok(Vec::new());
        };
        let group = Recorded::of(&record);
        let members = group.map(|group| crate::cgroup::members(&group.directories)).unwrap_or_default();
        let others = members.into_iter().filter(|pid| *pid != monitor);
        Ok(std::iter::once(monitor).chain(others).collect())
    }
}
