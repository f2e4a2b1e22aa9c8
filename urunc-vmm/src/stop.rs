//! Ending a monitor, by its pidfd. A process that is gone is a success: there is nothing left to end.

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    process::Signal,
};

use crate::{
    Shutdown, Unasked,
    control::{Control, ControlError},
};

/// How long the kernel may take for a process that it has killed. A machine's memory is freed in that time.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A monitor that could not be asked or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The signal was refused.
    #[error("cannot send signal {} to the monitor", signal.as_raw())]
    Signal {
        /// The signal.
        signal: Signal,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Waiting failed.
    #[error("cannot wait for the monitor to end")]
    Wait(#[source] std::io::Error),
    /// The control interface failed.
    #[error("cannot ask the guest to end")]
    Ask(#[source] ControlError),
    /// The guest can be asked only by its control interface, and there is no connection to it.
    #[error("cannot ask the guest to end without a connection to its monitor's control socket")]
    NoControl,
    /// Killed, and still there.
    #[error("the monitor is still there {KILL_LIMIT:?} after it was killed")]
    Unkillable,
}

/// Whether a signal found a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It did.
    Delivered,
    /// The process was gone.
    Gone,
}

/// How a monitor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was gone before it was asked.
    Before,
    /// It ended within its time of grace.
    InTime,
    /// It had to be killed.
    Killed,
}

/// Sends a signal as it is.
///
/// # Errors
/// [`StopError::Signal`], but not for a process that is gone.
pub fn signal(monitor: BorrowedFd<'_>, signal: Signal) -> Result<Delivery, StopError> {
    match rustix::process::pidfd_send_signal(monitor, signal) {
        Ok(()) => Ok(Delivery::Delivered),
        Err(Errno::SRCH) => Ok(Delivery::Gone),
        Err(error) => Err(StopError::Signal { signal, source: error.into() }),
    }
}

/// Asks a monitor to end its guest in an orderly way, as its plan says; does not wait.
///
/// # Errors
/// [`StopError::Ask`] and [`StopError::NoControl`] if it has to be asked by its control interface and cannot be,
/// unless it is gone.
pub fn request_shutdown(
    monitor: BorrowedFd<'_>,
    shutdown: Shutdown,
    control: Option<&mut Control>,
) -> Result<Delivery, StopError> {
    if wait(monitor, Duration::ZERO)? {
        return Ok(Delivery::Gone);
    }
    match shutdown {
        Shutdown::Terminate => signal(monitor, Signal::TERM),
        Shutdown::Kill => signal(monitor, Signal::KILL),
        Shutdown::Control { .. } => match control
            .map_or(Err(StopError::NoControl), |control| control.request_shutdown().map_err(StopError::Ask))
        {
            Ok(()) => Ok(Delivery::Delivered),
            // The connection of a monitor that ends meanwhile breaks before its pidfd tells.
            Err(_) if wait(monitor, Duration::ZERO)? => Ok(Delivery::Gone),
            Err(error) => Err(error),
        },
    }
}

/// Ends a monitor: asks, waits for `grace`, kills, waits.
///
/// # Errors
/// [`StopError`] if it could not even be killed. Not being able to ask is no error: it is then told to end by the signal
/// that its plan has for that.
pub fn stop(
    monitor: BorrowedFd<'_>,
    shutdown: Shutdown,
    control: Option<&mut Control>,
    grace: Duration,
) -> Result<Ended, StopError> {
    let asked = request_shutdown(monitor, shutdown, control).or_else(|error| {
        log::warn!("the guest cannot be asked to end, so its monitor is ended: {error}");
        signal(
            monitor,
            match shutdown.unasked() {
                Unasked::Terminate => Signal::TERM,
                Unasked::Kill => Signal::KILL,
            },
        )
    });
    if asked? == Delivery::Gone {
        return Ok(Ended::Before);
    }
    if wait(monitor, grace)? {
        return Ok(Ended::InTime);
    }
    signal(monitor, Signal::KILL)?;
    if wait(monitor, KILL_LIMIT)? { Ok(Ended::Killed) } else { Err(StopError::Unkillable) }
}

/// Waits until the process has ended, for `limit` at most; tells whether it has. A zombie has.
///
/// # Errors
/// [`StopError::Wait`].
pub fn wait(monitor: BorrowedFd<'_>, limit: Duration) -> Result<bool, StopError> {
    let failed = |error: Errno| StopError::Wait(error.into());
    let begun = Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        // More than the kernel can count is as good as for ever.
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::from_borrowed_fd(monitor, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::AsFd, fd::OwnedFd, unix::process::ExitStatusExt},
        process::{Child, Command, Stdio},
    };

    use rustix::process::{Pid, PidfdFlags};

    use super::*;

    const KILL_UNASKED: Shutdown = Shutdown::Control { otherwise: Unasked::Kill };

    fn spawn(script: &str) -> (Child, OwnedFd) {
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        (child, rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }

    /// Reads until the script says something: then its traps are set.
    fn until_ready(child: &mut Child) {
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    }

    /// F3 of the design, weakness 22 of the monitors reference: a dead monitor was an error, and a zombie a timeout.
    #[test]
    fn a_monitor_that_is_gone_is_a_success() {
        let (mut child, monitor) = spawn("exit 0");
        assert!(wait(monitor.as_fd(), Duration::from_secs(60)).unwrap());
        // A zombie, then nothing at all.
        for _ in 0..2 {
            for shutdown in [KILL_UNASKED, Shutdown::Terminate, Shutdown::Kill] {
                let ended = stop(monitor.as_fd(), shutdown, None, Duration::ZERO).unwrap();
                assert_eq!(ended, Ended::Before);
                assert_eq!(request_shutdown(monitor.as_fd(), shutdown, None).unwrap(), Delivery::Gone);
            }
            child.wait().unwrap();
        }
        assert_eq!(signal(monitor.as_fd(), Signal::WINCH).unwrap(), Delivery::Gone);
    }

    #[test]
    fn a_monitor_that_heeds_ends_in_time_and_one_that_does_not_is_killed() {
        let (mut child, monitor) = spawn("trap 'exit 7' TERM; echo; while :; do sleep 0.01; done");
        until_ready(&mut child);
        let ended = stop(monitor.as_fd(), Shutdown::Terminate, None, Duration::from_secs(60)).unwrap();
        assert_eq!(ended, Ended::InTime);
        assert_eq!(child.wait().unwrap().code(), Some(7));

        let (mut child, monitor) = spawn("trap '' TERM; echo; while :; do sleep 0.01; done");
        until_ready(&mut child);
        let grace = Duration::from_millis(20);
        assert_eq!(stop(monitor.as_fd(), Shutdown::Terminate, None, grace).unwrap(), Ended::Killed);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_guest_that_cannot_be_asked_is_ended_by_a_signal_and_the_request_alone_is_an_error() {
        for (otherwise, code, signal) in [(Unasked::Terminate, Some(7), None), (Unasked::Kill, None, Some(9))]
        {
            let (mut child, monitor) = spawn("trap 'exit 7' TERM; echo; while :; do sleep 0.01; done");
            until_ready(&mut child);
            let shutdown = Shutdown::Control { otherwise };
            let error = request_shutdown(monitor.as_fd(), shutdown, None).unwrap_err();
            assert!(matches!(error, StopError::NoControl));
            let ended = stop(monitor.as_fd(), shutdown, None, Duration::from_secs(60)).unwrap();
            assert_eq!(ended, Ended::InTime);
            let status = child.wait().unwrap();
            assert_eq!((status.code(), status.signal()), (code, signal));
        }
    }

    /// Signals keep their meaning: a window change ends nothing.
    #[test]
    fn other_signals_are_delivered_as_they_are() {
        let (mut child, monitor) = spawn("trap 'echo got' USR1; echo; while :; do sleep 0.01; done");
        until_ready(&mut child);
        assert_eq!(signal(monitor.as_fd(), Signal::WINCH).unwrap(), Delivery::Delivered);
        assert_eq!(signal(monitor.as_fd(), Signal::USR1).unwrap(), Delivery::Delivered);
        until_ready(&mut child);
        assert!(!wait(monitor.as_fd(), Duration::ZERO).unwrap());
        assert_eq!(
            stop(monitor.as_fd(), Shutdown::Kill, None, Duration::from_secs(60)).unwrap(),
            Ended::InTime
        );
        child.wait().unwrap();
    }
}
