//! `run`: create, start, wait, delete, in one command; the exit status is the monitor's.

use rustix::process::{WaitId, WaitIdOptions, waitid};
use urunc_state::{ContainerId, Process, StoreError};

use super::create::{CreateRequest, Created};
use super::kill::kill_and_wait;
use super::{LifecycleError, Runtime, teardown};
use crate::sandbox::SignalFd;
use crate::sandbox::foreground::{self, Streams};

/// When `run` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// When the guest boots.
    Detach,
    /// When the monitor has ended; the container is then removed.
    Foreground,
    /// When the monitor has ended; the stopped container stays.
    ForegroundKeep,
}

/// What to run.
#[derive(Debug)]
pub struct RunRequest {
    /// How to create it.
    pub create: CreateRequest,
    /// When to return.
    pub waiting: Waiting,
}

impl Runtime {
    /// Runs a container. Returns the exit status for the caller's shell: the monitor's, or 128 plus the signal that ended
    /// it, or 0 if it was detached.
    ///
    /// # Errors
    /// Those of create and start; a container that could not be started is removed again.
    pub fn run(&self, request: &RunRequest) -> Result<u8, LifecycleError> {
        let id = &request.create.id;
        // From here on an interrupt does not end this command half-way: it is passed on as soon as there is a monitor.
        let signals = match request.waiting {
            Waiting::Detach => None,
            Waiting::Foreground | Waiting::ForegroundKeep => {
                Some(SignalFd::new().map_err(|source| LifecycleError::Wait { id: id.clone(), source })?)
            }
        };
        let Created { process, streams } = self.create(&request.create)?;
        if let Err(error) = self.start(id) {
            self.remove(id, &process);
            return Err(error);
        }
        let Some(signals) = signals else { return Ok(0) };
        let status = self.wait(id, &process, streams, &signals)?;
        if request.waiting == Waiting::Foreground {
            self.remove(id, &process);
        }
        Ok(status)
    }

    /// Passes signals and streams on until the monitor, which is our child, has ended.
    fn wait(
        &self,
        id: &ContainerId,
        process: &Process,
        streams: Streams,
        signals: &SignalFd,
    ) -> Result<u8, LifecycleError> {
        let forward = |signal| {
            if let Err(error) = self.kill(id, signal) {
                log::warn!("{}", crate::report::chain(&error));
            }
        };
        if let Err(error) = foreground::relay(process.pidfd(), streams, signals, forward) {
            log::warn!("the streams of container {id} are not connected any more: {error}");
        }
        // The exit status is asked for whatever became of the streams.
        let status = waitid(WaitId::PidFd(process.pidfd()), WaitIdOptions::EXITED)
            .map_err(|errno| LifecycleError::Wait { id: id.clone(), source: errno.into() })?;
        let code = status
            .and_then(|s| s.exit_status().or_else(|| s.terminating_signal().map(|signal| 128 + signal)));
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }

    /// Removes our container, if it is still ours: somebody may have deleted it, and created another one of its name.
    fn remove(&self, id: &ContainerId, process: &Process) {
        let remove = || -> Result<(), LifecycleError> {
            let locked = match self.lock(id) {
                Err(LifecycleError::Store(StoreError::NotFound { .. })) => return Ok(()),
                result => result?,
            };
            if locked.record().urunc.process.as_ref() != Some(process.identity()) {
                return Ok(());
            }
            kill_and_wait(id, process, locked.record().urunc.freezer.as_deref())?;
            teardown::destroy(&self.store, locked)
        };
        // The status of what ran matters more to the caller than that something is left, which `delete` can mend.
        if let Err(error) = remove() {
            log::error!("{}", crate::report::chain(&error));
        }
    }
}
