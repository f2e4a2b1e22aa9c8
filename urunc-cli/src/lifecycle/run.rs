//! `run`: create, start, wait, delete, in one command; the exit status is the monitor's.

use std::io;
use std::os::fd::AsFd;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use urunc_state::ContainerId;

use super::create::{CreateRequest, Created};
use super::delete::Force;
use super::{LifecycleError, Runtime};
use crate::sandbox::foreground::{self, Ended};

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
    /// Those of create, start and delete; a container that could not be started is removed again.
    pub fn run(&self, request: &RunRequest) -> Result<u8, LifecycleError> {
        let id = &request.create.id;
        let created = self.create(&request.create)?;
        if let Err(error) = self.start(id) {
            if let Err(undo) = self.delete(id, Force::Yes) {
                log::warn!("{}", crate::report::chain(&undo));
            }
            return Err(error);
        }
        if request.waiting == Waiting::Detach {
            return Ok(0);
        }
        let status = self.wait(id, &created)?;
        if request.waiting == Waiting::Foreground {
            self.delete(id, Force::No)?;
        }
        Ok(status)
    }

    /// Passes signals and the terminal on until the monitor, which is our child, has ended.
    fn wait(&self, id: &ContainerId, created: &Created) -> Result<u8, LifecycleError> {
        let wait_error = |source: io::Error| LifecycleError::Wait { id: id.clone(), source };
        let pidfd = created.process.pidfd();
        let forward = |signal| {
            if let Err(error) = self.kill(id, signal) {
                log::warn!("{}", crate::report::chain(&error));
            }
        };
        let Ended = foreground::relay(pidfd, created.terminal.as_ref().map(AsFd::as_fd), forward)
            .map_err(wait_error)?;
        let status =
            waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).map_err(|errno| wait_error(errno.into()))?;
        let code = status
            .and_then(|s| s.exit_status().or_else(|| s.terminating_signal().map(|signal| 128 + signal)));
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }
}
