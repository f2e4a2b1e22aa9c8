//! A container in the foreground: its terminal is connected to ours, and our signals are passed on to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use urunc_state::Signal;

use super::sys::SignalFd;

/// The process has ended.
#[derive(Debug)]
pub struct Ended;

/// Our own terminal in raw mode; put back when dropped.
#[derive(Debug)]
struct Raw<'fd> {
    terminal: BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> Raw<'fd> {
    fn enter(terminal: BorrowedFd<'fd>) -> rustix::io::Result<Option<Self>> {
        if !isatty(terminal) {
            return Ok(None);
        }
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // Only the user's shell is left to notice if this fails.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Passes signals to `forward` and copies between our standard streams and `terminal` (the master of the container's
/// terminal), until `process` has ended and everything that it printed has been copied.
///
/// # Errors
/// What the system says.
pub fn relay(
    process: BorrowedFd<'_>,
    terminal: Option<BorrowedFd<'_>>,
    forward: impl Fn(Signal),
) -> io::Result<Ended> {
    let signals = SignalFd::new()?;
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let raw = match terminal {
        Some(_) => Raw::enter(stdin.as_fd())?,
        None => None,
    };
    let resize = || match (terminal, &raw) {
        (Some(master), Some(ours)) => tcgetwinsize(ours.terminal).and_then(|size| tcsetwinsize(master, size)),
        _ => Ok(()),
    };
    resize()?;
    let mut input_open = terminal.is_some();
    loop {
        let master = terminal.unwrap_or(process);
        let mut watched = [
            PollFd::from_borrowed_fd(process, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(master, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        ];
        let count = if input_open { 4 } else { 3 };
        match poll(&mut watched[..count], None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let [ended, signalled, output, input] = watched.map(|fd| !fd.revents().is_empty());
        if signalled {
            match signals.next()? {
                Some(Signal::WINCH) => resize()?,
                Some(signal) => forward(signal),
                None => {}
            }
        }
        let copied = match terminal {
            Some(master) if output => copy(master, stdout.as_fd())?,
            _ => 0,
        };
        if let Some(master) = terminal
            && input
            && input_open
        {
            input_open = copy(stdin.as_fd(), master)? > 0;
        }
        if ended && copied == 0 {
            return Ok(Ended);
        }
    }
}

/// Copies what is there now; 0 is the end of `from`. A terminal whose other side is closed answers `EIO`.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
    let mut buffer = [0; 8192];
    let length = match rustix::io::read(from, &mut buffer) {
        Ok(length) => length,
        Err(Errno::IO) => 0,
        Err(Errno::INTR | Errno::AGAIN) => return Ok(buffer.len()),
        Err(errno) => return Err(errno.into()),
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::IO) => return Ok(0),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(length)
}
