//! A TAP device while we hold its descriptor: making it and preparing its hand-over. Its link is netlink's
//! business.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::names::IfName;
use crate::run::Here;
use crate::sys::{self, Lifetime};

/// Makes a TAP device that must not exist yet (EBUSY) and lives as long as the descriptor.
///
/// It has virtio-net headers, so whoever serves it can turn on checksum and segmentation offloads.
pub(crate) fn make(_here: &Here, name: &IfName) -> io::Result<OwnedFd> {
    let fd = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    #[cfg(test)]
    crate::faults::point()?;
    sys::make_tap(&fd, name)?;
    Ok(fd)
}

/// Lets `uid` attach by name, and the device outlive our descriptor until then.
///
/// The owner goes first: a persistent device without one is open to every process of the namespace.
pub(crate) fn offer_by_name(tap: impl AsFd, uid: u32) -> io::Result<()> {
    #[cfg(test)]
    crate::faults::point()?;
    sys::set_tap_owner(&tap, uid)?;
    sys::set_tap_lifetime(&tap, Lifetime::Persistent)?;
    Ok(())
}
