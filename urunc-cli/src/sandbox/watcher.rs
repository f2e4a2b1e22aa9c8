//! A small process that ends a monitor whose guest has reset itself, for monitors that would boot it again for ever; and
//! one whose events cannot be read.
//!
//! It reads the monitor's events until the monitor is gone, which closes the pipe; so it can neither outlive the monitor
//! nor end another process: it knows the monitor by its pidfd.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::UnshareFlags;
use urunc_vmm::control::{Watched, watch};

use super::sys::{self, Cloned, Parentage};

/// Starts a watcher of `events`, the reading end of the pipe that `monitor` writes to.
///
/// # Errors
/// If it cannot be forked.
pub fn spawn(events: OwnedFd, monitor: BorrowedFd<'_>) -> io::Result<()> {
    match sys::clone_process(UnshareFlags::empty(), Parentage::Child, None)? {
        Cloned::Parent(_) => Ok(()),
        Cloned::Child => {
            // Nobody is there to tell about a failure.
            let mut keep = [events.as_fd().as_raw_fd(), monitor.as_raw_fd()];
            keep.sort_unstable();
            log::set_max_level(log::LevelFilter::Off);
            let _ = sys::close_all_except(&keep);
            let _ = rustix::process::setsid();
            let signal = match watch(File::from(events)) {
                Ok(Watched::Reset) => Some(Signal::TERM),
                Ok(Watched::Ended) => None,
                // What says nothing that can be read could boot its guest again for ever.
                Err(_) => Some(Signal::KILL),
            };
            if let Some(signal) = signal {
                let _ = pidfd_send_signal(monitor, signal);
            }
            sys::exit(0)
        }
    }
}
