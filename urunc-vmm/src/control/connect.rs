//! Reaching a monitor's control socket. QEMU's and Cloud Hypervisor's lies in the caller's own directory. Firecracker
//! makes its own, in its root, where a hostile monitor may have put anything: links out of it, a socket of somebody
//! else. So that one is opened below the root by the kernel, used by its descriptor, and asked who listens.

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
    process::Pid,
};

use super::ControlError;

/// Connects to a socket of the caller's own.
///
/// Paths of more than 107 bytes do not fit in a socket address; go through `/proc/self/fd` of a directory then.
///
/// # Errors
/// [`ControlError::Connect`], also when nobody accepts within `limit`.
pub fn connect(path: &Path, limit: Duration) -> Result<UnixStream, ControlError> {
    connect_in_time(path, limit)
        .map_err(|source| ControlError::Connect { path: path.to_owned(), source: source.into() })
}

/// Connects to the socket that a monitor made at `path` in its root, which `root` is open on, and checks that the
/// monitor itself, `monitor`, listens there.
///
/// # Errors
/// [`ControlError::NotItsSocket`] if the path is no socket, leads through a link, or belongs to another process;
/// [`ControlError::Connect`] as for [`connect`].
pub fn connect_below(
    root: BorrowedFd<'_>,
    path: &Path,
    monitor: Pid,
    limit: Duration,
) -> Result<UnixStream, ControlError> {
    let not_its = |reason: String| ControlError::NotItsSocket { path: path.to_owned(), reason };
    let failed = |source: io::Error| ControlError::Connect { path: path.to_owned(), source };

    let socket = open_below(root, path).map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::XDEV => not_its("it leads through a link".to_owned()),
        error => failed(error.into()),
    })?;
    let stat = rustix::fs::fstat(&socket).map_err(|error| failed(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(not_its("it is no socket".to_owned()));
    }
    let by_descriptor = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let stream = connect_in_time(Path::new(&by_descriptor), limit).map_err(|error| failed(error.into()))?;
    let peer = sockopt::socket_peercred(&stream).map_err(|error| failed(error.into()))?;
    if peer.pid != monitor {
        let pid = peer.pid.as_raw_nonzero();
        return Err(not_its(format!("process {pid} listens, not {}", monitor.as_raw_nonzero())));
    }
    Ok(stream)
}

fn open_below(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// A connect waits while the listener's queue is full; the send timeout bounds that too (Linux
/// `net/unix/af_unix.c`, `unix_stream_connect`).
fn connect_in_time(path: &Path, limit: Duration) -> rustix::io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}
