//! Terminals: `urunc` sends the master of a container's terminal to a socket of ours, and a thread each way copies between it and
//! the client's fifos.

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

use super::ShimError;
use super::runtime::Streams;

/// How long the master may take to arrive; when `urunc create` has ended it has been sent.
const PATIENCE: Duration = Duration::from_secs(10);
const STACK: usize = 256 << 10;

/// A socket that a terminal's master is sent to. Its file is gone when it is dropped.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens beside the shim's own socket: that path is short enough, which a bundle's may not be.
    ///
    /// # Errors
    /// [`ShimError::Path`]
    pub fn listen(beside: &Path) -> Result<Self, ShimError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut name = beside.as_os_str().to_owned();
        name.push(format!(".tty{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let path = PathBuf::from(name);
        let listener = UnixListener::bind(&path).map_err(ShimError::path("listen on", &path))?;
        Ok(Self { listener, path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the master.
    ///
    /// # Errors
    /// [`ShimError::System`] if none comes.
    pub fn receive(self) -> Result<OwnedFd, ShimError> {
        let failed = |source| ShimError::System("receive the container's terminal", source);
        if !ready(self.listener.as_fd(), PollFlags::IN, None).map_err(failed)? {
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        let (stream, _) = self.listener.accept().map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut name = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .map_err(|errno| failed(errno.into()))?;
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        descriptor.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // Nobody looks for it.
        let _ = fs::remove_file(&self.path);
    }
}

/// A terminal in use. Dropping it ends the copying.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    _stop: OwnedFd,
}

impl Terminal {
    /// Copies between the master and `streams` from now on.
    ///
    /// # Errors
    /// [`ShimError::System`]
    pub fn connect(master: OwnedFd, streams: Streams) -> Result<Self, ShimError> {
        let failed = |source| ShimError::System("connect the container's terminal", source);
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        // A write to a client that does not read must not keep a thread from being stopped.
        for descriptor in [&streams.stdout, &master] {
            let flags = fcntl_getfl(descriptor).map_err(|errno| failed(errno.into()))?;
            fcntl_setfl(descriptor, flags | OFlags::NONBLOCK).map_err(|errno| failed(errno.into()))?;
        }
        let copy = |name: &str, from: OwnedFd, to: OwnedFd, stopped: OwnedFd| {
            let run = move || copy(from.into(), to.into(), stopped.as_fd());
            thread::Builder::new().name(name.into()).stack_size(STACK).spawn(run).map(drop)
        };
        let copies = || -> io::Result<()> {
            copy("tty out", master.try_clone()?, streams.stdout, stopped.try_clone()?)?;
            copy("tty in", streams.stdin, master.try_clone()?, stopped)
        };
        copies().map_err(failed)?;
        Ok(Self { master, _stop: stop })
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// [`ShimError::System`]
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), ShimError> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size)
            .map_err(|errno| ShimError::System("resize the container's terminal", errno.into()))
    }
}

/// Copies until either side ends (a master says EIO when the last slave is closed) or it is told to stop.
fn copy(mut from: File, mut to: File, stop: BorrowedFd<'_>) {
    let mut buffer = [0; 8192];
    while ready(from.as_fd(), PollFlags::IN, Some(stop)).unwrap_or(false) {
        let count = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !ready(to.as_fd(), PollFlags::OUT, Some(stop)).unwrap_or(false) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

/// Waits until `descriptor` can be used. `false` if it is time to stop, or, without a `stop`, when time is over.
fn ready(descriptor: BorrowedFd<'_>, flags: PollFlags, stop: Option<BorrowedFd<'_>>) -> io::Result<bool> {
    let first = PollFd::from_borrowed_fd(descriptor, flags);
    let seconds = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
    match stop {
        None => Ok(poll(&mut [first], Some(&limit))? > 0),
        Some(stop) => {
            let mut fds = [first, PollFd::from_borrowed_fd(stop, PollFlags::IN)];
            poll(&mut fds, None)?;
            // What the process printed last is still copied: the first descriptor has precedence.
            Ok(!fds[0].revents().is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

    #[test]
    fn what_is_typed_arrives_and_what_is_printed_comes_back() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let pipe = || pipe_with(PipeFlags::CLOEXEC).unwrap();
        let ((typed, keys), (screen, printed)) = (pipe(), pipe());
        let stderr = pipe().1;
        let terminal = Terminal::connect(master, Streams { stdin: typed, stdout: printed, stderr }).unwrap();
        terminal.resize(7, 70).unwrap();
        assert_eq!(rustix::termios::tcgetwinsize(&slave).unwrap().ws_col, 70);
        File::from(keys).write_all(b"x\n").unwrap();
        let mut process = File::from(slave);
        let mut heard = [0; 2];
        process.read_exact(&mut heard).unwrap();
        process.write_all(b"last words").unwrap();
        // The reader sees the end after the process's last words.
        drop(process);
        let mut seen = String::new();
        File::from(screen).read_to_string(&mut seen).unwrap();
        assert!(seen.ends_with("last words"), "{seen:?}");
    }
}
