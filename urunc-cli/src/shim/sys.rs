//! What has no safe wrapper: real-time signals, giving a child descriptors other than its standard streams, and looking for a zombie without taking it.
#![allow(
    unsafe_code,
    reason = "Command::pre_exec is unsafe, and rustix's waitid does not say which process it saw"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal};

/// Lets `command` run with `descriptors` as its descriptors 3, 4 and so on.
///
/// # Errors
/// What the system says when it has no further descriptors.
pub(super) fn place(command: &mut Command, descriptors: &[OwnedFd]) -> io::Result<()> {
    const FIRST: RawFd = 3;
    // Out of the way of the places, so that none is overwritten before it has been copied.
    let above = FIRST + RawFd::try_from(descriptors.len()).unwrap_or(0);
    let high = descriptors
        .iter()
        .map(|descriptor| fcntl_dupfd_cloexec(descriptor, above).map_err(io::Error::from))
        .collect::<io::Result<Vec<OwnedFd>>>()?;
    let in_child = move || {
        for (place, descriptor) in (FIRST..).zip(&high) {
            // SAFETY: dup2 touches no memory; whatever `place` was in this child, nobody uses it before execve.
            if unsafe { libc::dup2(descriptor.as_raw_fd(), place) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and execve the closure makes only system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(in_child) };
    Ok(())
}

/// Makes sure that no command inherits `descriptor`.
///
/// # Errors
/// What the system says.
pub(super) fn keep_private(descriptor: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfd(descriptor, FdFlags::CLOEXEC)?)
}

/// The signal of a number, real-time ones included. None for 0, which is no signal, for 32 and 33, which the C library keeps to itself, and for
/// what the kernel does not have.
pub(super) fn signal(number: u32) -> Option<Signal> {
    let number = i32::try_from(number).ok().filter(|number| matches!(number, 1..=31 | 34..=64))?;
    // SAFETY: it is the number of a signal, and of none that a C library reserves.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}

/// Waits until a child has ended and says which, without reaping it. `None` if there is no child.
pub(super) fn first_zombie() -> Option<Pid> {
    loop {
        // SAFETY: `siginfo_t` consists of integers and pointers that are only read; zero is valid for all of them.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes within `info`, which lives until the call returns.
        let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOWAIT) };
        if result == 0 {
            // SAFETY: waitid has filled in the fields of a SIGCHLD.
            return Pid::from_raw(unsafe { info.si_pid() });
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_that_may_be_sent_has_a_number() {
        for (number, known) in
            [(0, false), (1, true), (31, true), (32, false), (33, false), (34, true), (64, true), (65, false)]
        {
            assert_eq!(signal(number).map(Signal::as_raw), known.then_some(number.cast_signed()), "{number}");
        }
    }
}
