//! A child process as long as nobody else answers for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use urunc_state::{Process, ProcessError};

/// How long the kernel may take for a process that was killed.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Why a child cannot be identified. It is gone then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// There are no descriptors left.
    #[error("cannot copy the descriptor of the container's process")]
    Descriptor(#[source] io::Error),
    /// The kernel does not tell who it is.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Dropped, it is killed and waited for, so that what it holds is free.
#[derive(Debug)]
pub struct Child(Option<OwnedFd>);

impl Child {
    pub(super) fn new(pidfd: OwnedFd) -> Self {
        Self(Some(pidfd))
    }

    /// Learns who it is; `None` if it is dead already.
    pub(super) fn look(&self) -> Result<Option<Process>, ChildError> {
        let Some(pidfd) = &self.0 else { return Ok(None) };
        let copy = pidfd.try_clone().map_err(ChildError::Descriptor)?;
        Ok(Process::from_pidfd(copy)?)
    }

    /// Learns who it is, for whom the caller answers from here on; `None` if it is dead already.
    ///
    /// # Errors
    /// [`ChildError`]
    pub fn identify(mut self) -> Result<Option<Process>, ChildError> {
        let process = self.look()?;
        self.0 = None;
        Ok(process)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(pidfd) = &self.0 else { return };
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
        let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&PATIENCE));
        let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}
