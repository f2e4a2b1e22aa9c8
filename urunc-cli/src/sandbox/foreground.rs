//! A container in the foreground: its input and its terminal are connected to ours, and our signals are passed on to it.
//!
//! Nothing here blocks but the one `poll`: a reader that does not read, or a writer that does not write, never keeps a
//! signal or the container's end from being seen.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use urunc_state::Signal;

use super::SignalFd;

/// As much as a pipe that is ready takes without blocking (`PIPE_BUF`, pipe(7)).
const CHUNK: usize = 4096;

/// Our ends of what the container's standard streams are.
#[derive(Debug)]
pub enum Streams {
    /// The master of its terminal.
    Terminal(OwnedFd),
    /// The writing end of its input; its output is ours. A monitor that got our own terminal as input would change the
    /// terminal's modes, and an interrupt from the keyboard would not reach us any more.
    Input(OwnedFd),
    /// Everything is ours.
    Inherited,
}

/// Our own terminal's modes, put back when dropped, whatever happened to them meanwhile.
#[derive(Debug)]
struct Modes<'fd> {
    terminal: BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> Modes<'fd> {
    fn keep(terminal: BorrowedFd<'fd>) -> Option<Self> {
        let before = isatty(terminal).then(|| tcgetattr(terminal).ok())??;
        Some(Self { terminal, before })
    }

    fn make_raw(&self) -> rustix::io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(self.terminal, OptionalActions::Now, &raw)
    }
}

impl Drop for Modes<'_> {
    fn drop(&mut self) {
        // Only the user's shell is left to notice if this fails.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Where a pump writes to.
#[derive(Debug)]
enum End<'fd> {
    Borrowed(BorrowedFd<'fd>),
    /// Closed with the pump, so that the reader sees the end.
    Owned(OwnedFd),
}

impl AsFd for End<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(fd) => *fd,
            Self::Owned(fd) => fd.as_fd(),
        }
    }
}

/// Copies in one direction, at most one chunk ahead.
#[derive(Debug)]
struct Pump<'fd> {
    from: BorrowedFd<'fd>,
    /// `None` once either side has ended.
    to: Option<End<'fd>>,
    pending: Vec<u8>,
}

impl<'fd> Pump<'fd> {
    fn new(from: BorrowedFd<'fd>, to: End<'fd>) -> Self {
        Self { from, to: Some(to), pending: Vec::new() }
    }

    /// What has to happen before this pump can go on.
    fn awaits(&self) -> Option<PollFd<'_>> {
        let to = self.to.as_ref()?;
        Some(if self.pending.is_empty() {
            PollFd::from_borrowed_fd(self.from, PollFlags::IN)
        } else {
            PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT)
        })
    }

    /// Moves one chunk one step. The direction closes when either side has ended.
    fn step(&mut self) {
        let Some(to) = &self.to else { return };
        let moved = if self.pending.is_empty() {
            read(self.from, &mut self.pending)
        } else {
            write(to, &mut self.pending)
        };
        match moved {
            Ok(Moved::Some) | Err(Errno::INTR | Errno::AGAIN) => {}
            // EIO: the other side of a terminal is closed. EPIPE: nobody reads any more. The rest is no better.
            Ok(Moved::End) | Err(_) => self.to = None,
        }
    }

    /// Moves what is there already, without waiting for more than room.
    fn finish(&mut self) {
        while let Some(awaited) = self.awaits() {
            // What was printed last must arrive, but a reader that has stopped reading must not keep us for ever.
            let patience = if self.pending.is_empty() { NOW } else { LAST_WORDS };
            match poll(&mut [awaited], Some(&patience)) {
                Ok(0) => return,
                Ok(_) | Err(Errno::INTR) => self.step(),
                Err(_) => return,
            }
        }
    }
}

enum Moved {
    Some,
    End,
}

fn read(from: BorrowedFd<'_>, pending: &mut Vec<u8>) -> rustix::io::Result<Moved> {
    let mut chunk = [0; CHUNK];
    let length = rustix::io::read(from, &mut chunk)?;
    pending.extend_from_slice(&chunk[..length]);
    Ok(if length == 0 { Moved::End } else { Moved::Some })
}

fn write(to: &End<'_>, pending: &mut Vec<u8>) -> rustix::io::Result<Moved> {
    let written = rustix::io::write(to, pending)?;
    pending.drain(..written);
    Ok(Moved::Some)
}

const NOW: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
const LAST_WORDS: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };

/// Passes `signals` to `forward` and copies between our standard streams and the container's, until `process` has ended
/// and what it printed has been copied.
///
/// # Errors
/// If signals or the process cannot be waited for; a stream that fails only ends its own direction.
pub fn relay(
    process: BorrowedFd<'_>,
    streams: Streams,
    signals: &SignalFd,
    forward: impl Fn(Signal),
) -> io::Result<()> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let modes = Modes::keep(stdin.as_fd());
    let (terminal, input) = match streams {
        Streams::Terminal(master) => (Some(master), None),
        Streams::Input(fd) => (None, Some(End::Owned(fd))),
        Streams::Inherited => (None, None),
    };
    if let (Some(_), Some(modes)) = (&terminal, &modes) {
        modes.make_raw()?;
    }
    // A size that cannot be passed on is a cosmetic matter.
    let resize = || {
        if let (Some(master), Some(ours)) = (&terminal, &modes)
            && let Ok(size) = tcgetwinsize(ours.terminal)
        {
            let _ = tcsetwinsize(master, size);
        }
    };
    resize();
    let input = input.or(terminal.as_ref().map(|master| End::Borrowed(master.as_fd())));
    let mut input = input.map(|to| Pump::new(stdin.as_fd(), to));
    let mut output = terminal.as_ref().map(|from| Pump::new(from.as_fd(), End::Borrowed(stdout.as_fd())));
    loop {
        let [ended, signalled, readable, writable] = wait(process, signals, input.as_ref(), output.as_ref())?;
        if signalled {
            match signals.next()? {
                Some(Signal::WINCH) => resize(),
                Some(signal) => forward(signal),
                None => {}
            }
        }
        if let Some(input) = input.as_mut().filter(|_| readable) {
            input.step();
        }
        if let Some(output) = output.as_mut().filter(|_| writable) {
            output.step();
        }
        if ended {
            if let Some(output) = &mut output {
                output.finish();
            }
            return Ok(());
        }
    }
}

/// Waits until anything can go on, and says what.
fn wait(
    process: BorrowedFd<'_>,
    signals: &SignalFd,
    input: Option<&Pump<'_>>,
    output: Option<&Pump<'_>>,
) -> rustix::io::Result<[bool; 4]> {
    let (input, output) = (input.and_then(Pump::awaits), output.and_then(Pump::awaits));
    let present = [true, true, input.is_some(), output.is_some()];
    let mut watched = vec![
        PollFd::from_borrowed_fd(process, PollFlags::IN),
        PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
    ];
    watched.extend(input.into_iter().chain(output));
    loop {
        match poll(&mut watched, None) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                break;
            }
        }
    }
    let mut ready = watched.iter().map(|fd| !fd.revents().is_empty());
    Ok(present.map(|is_there| is_there && ready.next().unwrap_or(false)))
}
