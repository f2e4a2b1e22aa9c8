//! A container's terminal: a pseudo-terminal whose master goes to whoever asked for it, and whose slave becomes the
//! monitor's standard streams.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Gid, Uid, fchown};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::bundle::WindowSize;

/// How long the owner of a console socket may take to accept a terminal.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// No pseudo-terminal could be made.
    #[error("cannot make a pseudo-terminal")]
    Open(#[source] io::Error),
    /// The path does not fit a socket address.
    #[error("the socket's path {path} cannot be used; a socket's path has at most 107 bytes")]
    Address {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody took the pidfd.
    #[error("cannot send the container's pidfd to the socket {path}; its owner must be listening")]
    SendPidfd {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody took the master.
    #[error("cannot send the terminal to the console socket {path}; its owner must be listening")]
    Send {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Console {
    /// What the user talks to.
    pub master: OwnedFd,
    /// What the monitor talks to.
    pub slave: OwnedFd,
}

impl Console {
    /// Makes a pseudo-terminal whose slave belongs to `owner`.
    ///
    /// # Errors
    /// [`ConsoleError::Open`]
    pub fn open(owner: u32, size: Option<WindowSize>) -> Result<Self, ConsoleError> {
        let open = || -> rustix::io::Result<Self> {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let master = openpt(flags)?;
            unlockpt(&master)?;
            let slave = ioctl_tiocgptpeer(&master, flags)?;
            if let Some(WindowSize { rows, columns }) = size {
                tcsetwinsize(&slave, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
            }
            fchown(&slave, Some(Uid::from_raw(owner)), None::<Gid>)?;
            Ok(Self { master, slave })
        };
        open().map_err(|errno| ConsoleError::Open(errno.into()))
    }
}

/// Sends `master` to the Unix socket at `path`, as runc does: the data is the terminal's name.
///
/// # Errors
/// [`ConsoleError`]
pub fn send_master(master: &OwnedFd, path: &Path) -> Result<(), ConsoleError> {
    let name = ptsname(master, Vec::new())
        .map_err(|errno| ConsoleError::Send { path: path.to_owned(), source: errno.into() })?;
    send(master.as_fd(), name.as_bytes(), path)
}

/// Sends the container's `pidfd` to the Unix socket at `path` (`--pidfd-socket`).
///
/// # Errors
/// [`ConsoleError`]
pub fn send_pidfd(pidfd: BorrowedFd<'_>, path: &Path) -> Result<(), ConsoleError> {
    send(pidfd, b"pidfd", path).map_err(|error| match error {
        ConsoleError::Send { path, source } => ConsoleError::SendPidfd { path, source },
        other => other,
    })
}

fn send(fd: BorrowedFd<'_>, data: &[u8], path: &Path) -> Result<(), ConsoleError> {
    let address = SocketAddrUnix::new(path)
        .map_err(|errno| ConsoleError::Address { path: path.to_owned(), source: errno.into() })?;
    let send = || -> rustix::io::Result<()> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A listener whose queue is full would keep us waiting, with the container's lock held.
        set_socket_timeout(&socket, Timeout::Send, Some(SEND_PATIENCE))?;
        connect(&socket, &address)?;
        let descriptors = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&socket, &[IoSlice::new(data)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    };
    send().map_err(|errno| ConsoleError::Send { path: path.to_owned(), source: errno.into() })
}
