//! Why something was not attached, or not detached.

use std::io;

use crate::names::IfName;
use crate::namespace::{NsError, NsId};
use crate::netlink::NetlinkError;
use crate::run::RunError;
use crate::sysctl::SysctlError;

/// Why a guest was not attached. What had been made by then is gone again, except with
/// [`AttachError::NotUndone`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The plan is for another namespace than the one that the thread is in.
    #[error("this plan is for network namespace {planned}, not for {here}")]
    Elsewhere {
        /// The plan's namespace.
        planned: NsId,
        /// The thread's namespace.
        here: NsId,
    },
    /// The name is in use. Whatever has it was not touched.
    #[error("TAP device {name} already exists; if an earlier start left it, detach that first")]
    TapTaken {
        /// The name.
        name: IfName,
    },
    /// The device was not made.
    #[error("cannot create TAP device {name}")]
    CreateTap {
        /// Its name.
        name: IfName,
        /// What the kernel said; ENOENT means that the host has no /dev/net/tun.
        source: io::Error,
    },
    /// The device was made and then taken away or renamed by somebody.
    #[error("TAP device {name} vanished while it was set up")]
    Vanished {
        /// Its name.
        name: IfName,
    },
    /// The device cannot be handed over by name.
    #[error("cannot offer TAP device {name} to user {uid}")]
    Offer {
        /// Its name.
        name: IfName,
        /// The user.
        uid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a change.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel refused to turn a switch.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// Attaching failed, and so did cleaning up after it; [`detach`](crate::detach) with the same plan finishes the job.
    #[error("cannot undo a failed attachment ({undo})")]
    NotUndone {
        /// Why it was to be undone.
        source: Box<AttachError>,
        /// What could not be undone.
        undo: DetachError,
    },
}

impl AttachError {
    /// Whether the step that failed may have had its effect all the same.
    pub(super) fn is_uncertain(&self) -> bool {
        matches!(self, AttachError::Netlink(error) if error.is_uncertain())
    }
}

/// Why something of an attachment may still be there. Every part was tried, whatever happened to the others
/// (F3).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetachError {
    /// The attachment is in another namespace than the one that the thread is in. Nothing was touched, and
    /// this is no success (F2).
    #[error("this attachment is in network namespace {recorded}, not in {here}")]
    Elsewhere {
        /// The attachment's namespace.
        recorded: NsId,
        /// The thread's namespace.
        here: NsId,
    },
    /// Some parts could not be removed.
    #[error("cannot remove all of an attachment: {}", chains(failures))]
    Parts {
        /// One error for each such part.
        failures: Vec<PartError>,
    },
}

/// Why one part of an attachment was not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// The kernel refused a change.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel refused to turn a switch.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// Each error with its cause; there is no one source among several.
fn chains(failures: &[PartError]) -> String {
    let chain = |error: &PartError| {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    };
    failures.iter().map(chain).collect::<Vec<_>>().join("; ")
}

/// Why an attachment was not released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The namespace may be there and cannot be opened.
    #[error(transparent)]
    Open(#[from] NsError),
    /// The namespace cannot be entered.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Something is left.
    #[error(transparent)]
    Detach(#[from] DetachError),
}
