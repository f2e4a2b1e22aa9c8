//! A network namespace as an open descriptor with a verified identity. How to work inside one is `run.rs`.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::sys;

/// `CLONE_NEWNET` (linux/sched.h), which is how `NS_GET_NSTYPE` names a network namespace.
const NETWORK: i32 = 0x4000_0000;

/// Which namespace this is: its inode on the kernel's namespace file system. Two descriptors refer to one
/// namespace exactly if these are equal (namespaces(7)). The number can return once the namespace is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NsId {
    device: u64,
    inode: u64,
}

impl NsId {
    /// The identity of what `path` leads to, whatever that is.
    pub(crate) fn at(path: impl AsRef<Path>) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(NsId { device: metadata.st_dev(), inode: metadata.st_ino() })
    }
}

impl fmt::Display for NsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

/// A network namespace's number that never returns while the kernel runs (`SO_NETNS_COOKIE`, socket(7); Linux 5.14).
///
/// An [`NsId`] is enough as long as the namespace is open. For one that may be gone it is not: the kernel gives the lowest
/// free inode number to the next namespace, so within seconds it may be another container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NsCookie(u64);

impl NsCookie {
    /// That of the namespace that a socket belongs to; none on an older kernel.
    pub(crate) fn of_socket(socket: BorrowedFd<'_>) -> Option<Self> {
        sys::namespace_cookie(socket).ok().map(NsCookie)
    }
}

/// What to do when a namespace turns out to be the host's own.
///
/// "The host's own" is the namespace of this process or of process 1 as this process sees it: for a runtime
/// in the host's namespaces both are the same; for one that runs inside a container, the first is what its
/// neighbours live in, and the second protects the container's own init. Looking at process 1 takes all the
/// capabilities that it has; where that is not permitted, only the first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostNetwork {
    /// Refuse to enter it: a redirect there would hand all of the host's traffic to a guest (N1).
    Refuse,
    /// Enter it like any other.
    Allow,
}

/// Why a network namespace cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NsError {
    /// Nothing is there; the namespace is gone, or the path is wrong.
    #[error("network namespace {path} does not exist")]
    Missing {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// It is there and cannot be opened.
    #[error("cannot open network namespace {path}")]
    Open {
        /// The path that was asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is something else, for instance the empty file that a namespace was once mounted on.
    #[error("{path} is not a network namespace")]
    NotNetwork {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// It is not known where the namespace is, and where to look for it cannot be read.
    #[error("cannot look for network namespace {id} in {path}")]
    Search {
        /// The namespace.
        id: NsId,
        /// Where to look.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process has ended, and with it the way to its namespace.
    #[error("the process whose network namespace was asked for has ended")]
    ProcessGone,
    /// The process cannot be looked at.
    #[error("cannot find out which process a pidfd refers to")]
    Process {
        /// What the kernel said.
        source: io::Error,
    },
}

/// An open network namespace.
///
/// The descriptor keeps the namespace alive. Two values are equal if they are the same namespace.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    id: NsId,
    pub(crate) host: HostNetwork,
}

impl NetNs {
    /// Opens the namespace at `path`: a bind mount such as `/run/netns/NAME`, or `/proc/PID/ns/net`.
    ///
    /// A path that is gone is [`NsError::Missing`]; there is no second guess at another one (N3). Where the namespace
    /// itself is meant, and not the path, there is [`NetNs::find`].
    ///
    /// # Errors
    /// [`NsError::Missing`], [`NsError::NotNetwork`], or [`NsError::Open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NsError> {
        let path = path.as_ref();
        // NONBLOCK, for the path may be a fifo; it means nothing to a namespace.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => NsError::Missing { path: path.to_owned() },
            errno => NsError::Open { path: path.to_owned(), source: errno.into() },
        })?;
        NetNs::verified(fd, path)
    }

    /// Takes over an open descriptor of a namespace, such as another process has sent.
    ///
    /// # Errors
    /// [`NsError::NotNetwork`] if it is something else, [`NsError::Open`] if there is no telling; both name the descriptor
    /// by its path in `/proc`.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NsError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        NetNs::verified(fd, &path)
    }

    fn verified(fd: OwnedFd, path: &Path) -> Result<Self, NsError> {
        match sys::namespace_type(&fd) {
            Ok(NETWORK) => {}
            // What other files, and other namespaces, answer.
            Ok(_) | Err(Errno::NOTTY | Errno::INVAL | Errno::OPNOTSUPP) => {
                return Err(NsError::NotNetwork { path: path.to_owned() });
            }
            // No answer: whoever takes "not a namespace" for "gone" would leave everything in it.
            Err(errno) => return Err(NsError::Open { path: path.to_owned(), source: errno.into() }),
        }
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| NsError::Open { path: path.to_owned(), source: errno.into() })?;
        let id = NsId { device: stat.st_dev, inode: stat.st_ino };
        Ok(NetNs { fd, id, host: HostNetwork::Refuse })
    }

    /// Opens the namespace that a process lives in.
    ///
    /// The process is checked to be alive *after* its namespace was opened, so that a reused pid cannot lead
    /// into somebody else's (N2). `/proc` must be that of the caller's pid namespace.
    ///
    /// # Errors
    /// [`NsError::ProcessGone`] if it has ended, zombies included; otherwise as [`NetNs::open`].
    pub fn of_process(pidfd: BorrowedFd<'_>) -> Result<Self, NsError> {
        let pid = pid_of(pidfd)?;
        let opened = NetNs::open(format!("/proc/{pid}/ns/net"));
        if has_ended(pidfd).map_err(|source| NsError::Process { source })? {
            return Err(NsError::ProcessGone);
        }
        opened
    }

    /// Opens the namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`NsError::Missing`] or [`NsError::Open`] if `/proc` is not what it should be.
    pub fn current() -> Result<Self, NsError> {
        NetNs::open("/proc/thread-self/ns/net")
    }

    /// Says whether [`NetNs::run`] may enter this namespace if it is the host's own; it may not otherwise.
    #[must_use]
    pub fn with_host(self, host: HostNetwork) -> Self {
        NetNs { host, ..self }
    }

    /// The namespace's identity.
    #[must_use]
    pub fn id(&self) -> NsId {
        self.id
    }

    /// Whether this is the host's own namespace, as [`HostNetwork`] explains it.
    #[must_use]
    pub fn is_hosts(&self) -> bool {
        ["/proc/self/ns/net", "/proc/1/ns/net"]
            .iter()
            .any(|path| NsId::at(path).is_ok_and(|id| id == self.id))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PartialEq for NetNs {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for NetNs {}

/// The pid behind a pidfd, as `/proc/self/fdinfo` shows it (proc(5)): below 1 if the process was reaped.
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> Result<u32, NsError> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))
        .map_err(|source| NsError::Process { source })?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    match pid.map(|pid| pid.trim().parse::<i64>()) {
        Some(Ok(pid)) => u32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(NsError::ProcessGone),
        _ => Err(NsError::Process { source: io::ErrorKind::InvalidInput.into() }),
    }
}

/// Whether the process behind a pidfd has ended (pidfd_open(2): then the descriptor is readable).
fn has_ended(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
}
