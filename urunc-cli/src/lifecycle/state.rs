//! `state` and `ps`: looking without touching. No lock is taken, so they answer while another command hangs.

use urunc_state::{ContainerId, OciState, Pid, Seen, Status};

use super::{LifecycleError, Runtime};

impl Runtime {
    /// The OCI state document of a container, as JSON.
    ///
    /// # Errors
    /// [`LifecycleError::Store`] if the container does not exist, [`LifecycleError::Process`] if its process cannot be looked at.
    pub fn state(&self, id: &ContainerId) -> Result<serde_json::Value, LifecycleError> {
        let record = self.store.read(id)?;
        let status = record.current_status()?;
        Ok(serde_json::to_value(OciState::new(&record, status))?)
    }

    /// The live processes of a container.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn processes(&self, id: &ContainerId) -> Result<Vec<Pid>, LifecycleError> {
        let Seen { status, process } = self.store.read(id)?.look()?;
        // A zombie is still there, but no container any more.
        Ok(process.filter(|_| status != Status::Stopped).into_iter().map(|process| process.pid()).collect())
    }
}
