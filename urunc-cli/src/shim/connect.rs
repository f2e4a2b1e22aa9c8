//! Connecting to a Unix socket without waiting for ever: `connect` blocks as long as whoever listens accepts nobody and its queue is full.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, socket_with,
};

/// How soon a full queue is looked at again.
const AGAIN: Duration = Duration::from_millis(10);

/// Connects within `limit`.
///
/// # Errors
/// What the system says; `WouldBlock` if the queue stays full.
pub fn connect(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let until = Instant::now() + limit;
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect_to(&socket, &address) {
            Ok(()) => break,
            // unix(7) does not have it; connect(2) does, as EAGAIN.
            Err(Errno::AGAIN) if Instant::now() < until => thread::sleep(AGAIN),
            Err(errno) => return Err(errno.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Whether somebody listens: also one who is too busy to accept.
#[must_use]
pub fn listens(path: &Path) -> bool {
    connect(path, Duration::ZERO).map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Blocking, the last of them would wait for ever.
    #[test]
    fn a_full_queue_is_a_listener_that_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(!listens(&path));
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut queue = Vec::new();
        let full = loop {
            match connect(&path, Duration::ZERO) {
                Ok(stream) => queue.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(listens(&path));
        drop(listener);
        assert!(!listens(&path));
    }
}
