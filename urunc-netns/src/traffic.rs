//! How much has gone through a guest's TAP device, for those who serve statistics.

use crate::attachment::Attachment;
use crate::netlink::link::Counters;
use crate::netlink::{NetlinkError, Socket};
use crate::run::Here;

/// A guest's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// What the guest got.
    pub received: Counters,
    /// What the guest sent.
    pub sent: Counters,
}

/// Reads the counters of the guest's TAP device; none if the device is gone.
///
/// # Errors
/// [`NetlinkError`] if the kernel does not answer.
pub fn traffic(here: &Here, record: &Attachment) -> Result<Option<Traffic>, NetlinkError> {
    let link = Socket::route(here)?.link(&record.tap)?;
    // What the device transmits, the guest receives.
    Ok(link.map(|link| Traffic { received: link.transmitted, sent: link.received }))
}
