//! A process that is known to be the recorded one, and the only way to reach it.
//!
//! A number alone says nothing: it may have been given to another process since, on another boot, or it may mean
//! another process in another pid namespace (B1, B2). So a process is recorded as a [`ProcessIdentity`], opened
//! as a pidfd, *then* compared with what `/proc` says, and from there on reached only through the pidfd. The
//! order matters: once the pidfd is open it stays with one process, so a comparison that succeeds afterwards
//! holds for good.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::identity::{boot_id, current_pid_namespace, start_time};
use crate::{Deadline, ExeIdentity, Pid, ProcessIdentity, Signal, procfs, sys};

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a process that is gone needs other treatment than one that got the signal"]
pub enum Delivery {
    /// The process has it.
    Delivered,
    /// The process is dead: reaped already, or a zombie.
    Gone,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the process may still be alive"]
pub enum Waited {
    /// The process is dead.
    Exited,
    /// It was still alive at the deadline.
    TimedOut,
}

/// An open, verified process.
#[derive(Debug)]
pub struct Process {
    identity: ProcessIdentity,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens the recorded process; `None` when it is gone: reaped, its number reused, or of an earlier boot.
    /// A zombie is still there, but not [alive](Self::is_alive).
    ///
    /// # Errors
    /// [`ProcessError::OtherPidNamespace`] when the record was made in another pid namespace of this boot, and
    /// [`ProcessError::Hidden`] when `/proc` hides whoever has the number: then nothing can be said about the process.
    /// Otherwise the variants for what cannot be opened or read.
    pub fn open(identity: &ProcessIdentity) -> Result<Option<Self>, ProcessError> {
        let pid_namespace = current_pid_namespace()?;
        if pid_namespace != identity.pid_namespace {
            if boot_id()? != identity.boot_id {
                return Ok(None);
            }
            return Err(ProcessError::OtherPidNamespace {
                pid: identity.pid,
                recorded: identity.pid_namespace,
                current: pid_namespace,
            });
        }
        let Some(pidfd) = open_pidfd(identity.pid)? else { return Ok(None) };
        let process = Self { identity: identity.clone(), pidfd };
        // The boot id comes last: in nearly all cases the cheaper questions have settled it by then.
        let same = process.start_time()? == Some(identity.start_time) && boot_id()? == identity.boot_id;
        Ok(same.then_some(process))
    }

    /// Opens whichever live process has this number *now*; `None` when there is none.
    ///
    /// Only for a number that cannot have been reused: that of a child which has not been waited for, or one
    /// just read from the `cgroup.procs` of a cgroup that is ours and frozen. Everything else goes through
    /// [`open`](Self::open).
    ///
    /// # Errors
    /// The variants of [`ProcessError`] for what cannot be opened or read.
    pub fn with_pid(pid: Pid) -> Result<Option<Self>, ProcessError> {
        match open_pidfd(pid)? {
            Some(pidfd) => Self::identify(pid, pidfd),
            None => Ok(None),
        }
    }

    /// Takes over a pidfd, such as `clone3` gives, and learns the identity of its process; `None` when the
    /// process is dead already.
    ///
    /// # Errors
    /// The variants of [`ProcessError`] for what cannot be read, or when the process belongs to a pid namespace
    /// that is not below the current one.
    pub fn from_pidfd(pidfd: OwnedFd) -> Result<Option<Self>, ProcessError> {
        let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
        let contents = match procfs::read_small(&path) {
            Ok(contents) => contents,
            Err(source) => return Err(ProcessError::Read { path: path.into(), source }),
        };
        match procfs::pid_of_pidfd(&contents) {
            Some(-1) => Ok(None),
            Some(number) => match Pid::new(number.into()) {
                Ok(pid) => Self::identify(pid, pidfd),
                Err(_) => Err(ProcessError::NotVisible),
            },
            None => Err(ProcessError::Parse { path: path.into() }),
        }
    }

    fn identify(pid: Pid, pidfd: OwnedFd) -> Result<Option<Self>, ProcessError> {
        let pid_namespace = current_pid_namespace()?;
        let identity = ProcessIdentity { pid, start_time: 0, boot_id: boot_id()?, pid_namespace };
        let mut process = Self { identity, pidfd };
        let Some(start_time) = process.start_time()? else { return Ok(None) };
        process.identity.start_time = start_time;
        // Alive after the start time was read? Then the number was still its own when it was read.
        Ok(process.is_alive()?.then_some(process))
    }

    /// When whoever has its number now started; `None` if nobody has it.
    fn start_time(&self) -> Result<Option<u64>, ProcessError> {
        let found = start_time(self.pid())?;
        // It has a number as long as it is alive, and a line of its own in `/proc`, unless that is kept from us.
        if found.is_none() && self.is_alive()? {
            return Err(ProcessError::Hidden { pid: self.pid() });
        }
        Ok(found)
    }

    /// What to record about it.
    #[must_use]
    pub fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.identity.pid
    }

    /// The descriptor that stands for it; for libraries that stop or inspect the process.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it runs. A zombie does not, whoever its parent is (B10), and a process that we may not signal
    /// does: permissions play no part in it.
    ///
    /// # Errors
    /// [`ProcessError::Poll`] when the kernel cannot tell.
    pub fn is_alive(&self) -> Result<bool, ProcessError> {
        Ok(self.wait(Deadline::after(Duration::ZERO))? == Waited::TimedOut)
    }

    /// Waits until it is dead, at most until `deadline`. Whose child it is does not matter, and its exit status
    /// is left to its parent.
    ///
    /// # Errors
    /// [`ProcessError::Poll`] when the kernel cannot tell.
    pub fn wait(&self, deadline: Deadline) -> Result<Waited, ProcessError> {
        loop {
            let left = deadline.remaining();
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(Waited::TimedOut),
                Ok(_) => return Ok(Waited::Exited),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(ProcessError::Poll { pid: self.pid(), source: errno.into() }),
            }
        }
    }

    /// Sends `signal`. To be dead already is an outcome, not an error (F3).
    ///
    /// # Errors
    /// [`ProcessError::Signal`] when the kernel refuses, for lack of permission for example.
    pub fn signal(&self, signal: Signal) -> Result<Delivery, ProcessError> {
        // The kernel takes signals for a zombie and drops them.
        if !self.is_alive()? {
            return Ok(Delivery::Gone);
        }
        match pidfd_send_signal(&self.pidfd, sys::raw_signal(signal)) {
            Ok(()) => Ok(Delivery::Delivered),
            Err(Errno::SRCH) => Ok(Delivery::Gone),
            Err(errno) => Err(ProcessError::Signal { pid: self.pid(), signal, source: errno.into() }),
        }
    }

    /// The program that it executes now; `None` when it is dead.
    ///
    /// # Errors
    /// [`ProcessError::Read`] when `/proc/PID/exe` cannot be followed, for lack of permission for example.
    pub fn exe(&self) -> Result<Option<ExeIdentity>, ProcessError> {
        let path = format!("/proc/{}/exe", self.pid());
        let found = rustix::fs::stat(&path);
        // The path goes by number. It was this process's if the process still holds the number.
        if !self.is_alive()? {
            return Ok(None);
        }
        match found {
            Ok(stat) => Ok(Some(ExeIdentity { dev: stat.st_dev, ino: stat.st_ino })),
            Err(errno) => Err(ProcessError::Read { path: path.into(), source: errno.into() }),
        }
    }
}

/// Opens whoever has the number. ESRCH: nobody. EINVAL (ENOENT since Linux 6.9): a thread that is no process.
fn open_pidfd(pid: Pid) -> Result<Option<OwnedFd>, ProcessError> {
    match pidfd_open(pid.raw(), PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(ProcessError::Open { pid, source: errno.into() }),
    }
}

/// Why a process cannot be identified or reached. That it is gone is never an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The record means a process of another pid namespace.
    #[error(
        "cannot tell what became of process {pid}: it was recorded in pid namespace {recorded} and this is \
         {current}; run urunc in the pid namespace that the container was created from"
    )]
    OtherPidNamespace {
        /// The recorded number.
        pid: Pid,
        /// Inode of the namespace that the number belongs to.
        recorded: u64,
        /// Inode of ours.
        current: u64,
    },
    /// `/proc` shows the processes of another pid namespace.
    #[error(
        "cannot identify processes: /proc shows another pid namespace than ours; mount a fresh proc there"
    )]
    ForeignProc,
    /// `/proc` does not show the process, though it is alive (`hidepid`, proc(5)).
    #[error("cannot identify process {pid}: /proc hides it (mount option hidepid); run urunc as root")]
    Hidden {
        /// Its number.
        pid: Pid,
    },
    /// A descriptor for a process that has no number here.
    #[error("cannot identify a process that is not visible in this pid namespace")]
    NotVisible,
    /// No pidfd to be had.
    #[error("cannot open process {pid}")]
    Open {
        /// Its number.
        pid: Pid,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of `/proc` could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of `/proc` was not as documented.
    #[error("cannot understand the contents of {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
    },
    /// The kernel could not wait.
    #[error("cannot wait for process {pid}")]
    Poll {
        /// Its number.
        pid: Pid,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the signal.
    #[error("cannot send {signal} to process {pid}")]
    Signal {
        /// Its number.
        pid: Pid,
        /// The signal.
        signal: Signal,
        /// The cause.
        #[source]
        source: io::Error,
    },
}
