//! A process that does nothing but be there: systemd makes no scope without one.
//!
//! It ends when whoever made it lets it go, or dies.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::UnshareFlags;
use urunc_state::Pid;

use super::child::Child;
use super::sys::{self, Cloned, Parentage};

/// The process. Ends, and is waited for, when dropped.
#[derive(Debug)]
pub struct Placeholder {
    pid: Pid,
    _child: Child,
    /// Its end is what the process waits for, should we be killed.
    _leash: OwnedFd,
}

impl Placeholder {
    /// Makes it.
    ///
    /// # Errors
    /// What the system says.
    pub fn spawn() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        match sys::clone_process(UnshareFlags::empty(), Parentage::Child, None)? {
            Cloned::Child => {
                log::set_max_level(log::LevelFilter::Off);
                let _ = sys::close_all_except(&[reader.as_fd().as_raw_fd()]);
                // Nothing is ever written; interruptions aside, this returns at the end of file.
                while rustix::io::read(&reader, &mut [0; 1]) == Err(rustix::io::Errno::INTR) {}
                sys::exit(0)
            }
            Cloned::Parent(pidfd) => {
                let child = Child::new(pidfd);
                let process = child.look().map_err(io::Error::other)?;
                let pid = process.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.pid();
                Ok(Self { pid, _child: child, _leash: writer })
            }
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }
}
