//! After a monitor was given a TAP device by name: wait until it has attached, and let the device die with it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::time::Instant;

use neli::utils::Groups;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::makedev;
use rustix::io::Errno;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::attachment::Attachment;
use crate::names::IfName;
use crate::namespace::{NsError, pid_of};
use crate::netlink::{NetlinkError, Socket};
use crate::run::Here;
use crate::sys::{self, Lifetime};

/// `RTNLGRP_LINK` (linux/rtnetlink.h): what happens to links.
const LINK_EVENTS: u32 = 1;

/// How the wait ended. None of these is a failure of the container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The monitor holds the device, which now goes when the monitor does.
    Attached,
    /// The monitor has ended. The device stays until it is detached.
    MonitorGone,
    /// The time is up. The device stays until it is detached.
    NotYet,
    /// The device is gone.
    TapGone,
}

/// Why it is not known, or not changed, how long the TAP device lives. It is recorded; detaching removes it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// The device's link cannot be watched.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The monitor cannot be identified.
    #[error(transparent)]
    Monitor(#[from] NsError),
    /// Neither device nor monitor can be waited for.
    #[error("cannot wait for a monitor to attach to {tap}")]
    Wait {
        /// The device.
        tap: IfName,
        /// What the kernel said.
        source: io::Error,
    },
    /// The monitor's descriptors cannot be looked at or copied.
    #[error("cannot look for {tap} among the monitor's descriptors, which needs CAP_SYS_PTRACE")]
    Search {
        /// The device.
        tap: IfName,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device stays persistent.
    #[error("cannot let {tap} end with the monitor")]
    Release {
        /// The device.
        tap: IfName,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Waits until the monitor has attached to the TAP device that it was given by name, then makes the device
/// end with the monitor. Call it once the monitor has been executed; an event ends the wait, not a timer.
///
/// # Errors
/// [`SettleError`]; the device is then as persistent as before.
pub fn settle(
    here: &Here,
    record: &Attachment,
    monitor: BorrowedFd<'_>,
    deadline: Instant,
) -> Result<Settled, SettleError> {
    let tap = &record.tap;
    let mut questions = Socket::route(here)?;
    let mut events = Socket::route(here)?;
    // Subscribe first and ask then, so that nothing falls in between.
    let subscribed = events.inner().add_mcast_membership(Groups::new_groups(&[LINK_EVENTS]));
    subscribed.map_err(|source| SettleError::Wait { tap: tap.clone(), source })?;
    loop {
        let Some(link) = questions.link(tap)? else { return Ok(Settled::TapGone) };
        if link.has_carrier()
            && let Some(copy) = find(monitor, tap)?
        {
            return match sys::set_tap_lifetime(&copy, Lifetime::Descriptor) {
                Ok(()) => Ok(Settled::Attached),
                Err(errno) => Err(SettleError::Release { tap: tap.clone(), source: errno.into() }),
            };
        }
        let ended = wait(&events, monitor, deadline);
        match ended.map_err(|source| SettleError::Wait { tap: tap.clone(), source })? {
            Some(settled) => return Ok(settled),
            // What happened matters less than that something did; a lost event has been one, too.
            None => drop(events.receive(format_args!("watch {tap}"))),
        }
    }
}

/// Waits for an event about a link; an outcome if there is nothing more to wait for.
fn wait(events: &Socket, monitor: BorrowedFd<'_>, deadline: Instant) -> io::Result<Option<Settled>> {
    let socket = sys::descriptor(events.inner());
    let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&monitor, PollFlags::IN)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) if !fds[1].revents().is_empty() => return Ok(Some(Settled::MonitorGone)),
            // Without time left even a stream of events comes to an end.
            Ok(events) if events == 0 || left.is_zero() => return Ok(Some(Settled::NotYet)),
            Ok(_) => return Ok(None),
            Err(Errno::INTR) => (),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A copy of the monitor's descriptor of the TAP device, if it has one.
fn find(monitor: BorrowedFd<'_>, tap: &IfName) -> Result<Option<OwnedFd>, SettleError> {
    let failed = |source: io::Error| SettleError::Search { tap: tap.clone(), source };
    // A monitor that ends meanwhile has no descriptors; whoever waits for it will see.
    let pid = match pid_of(monitor) {
        Err(NsError::ProcessGone) => return Ok(None),
        pid => pid?,
    };
    let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(failed)?,
    };
    for entry in entries.filter_map(Result::ok) {
        // By device number: the path depends on the monitor's root.
        let is_tun = fs::metadata(entry.path()).is_ok_and(|m| m.st_rdev() == makedev(10, 200));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|_| is_tun) else { continue };
        // Through the pidfd, so it is this process's even if the directory was another's by now.
        match pidfd_getfd(monitor, number, PidfdGetfdFlags::empty()) {
            Ok(copy) if sys::tap_name(copy.as_fd()) == Ok(tap.padded()) => return Ok(Some(copy)),
            Ok(_) | Err(Errno::BADF | Errno::SRCH) => (),
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Ok(None)
}
