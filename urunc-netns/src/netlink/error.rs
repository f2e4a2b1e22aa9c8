//! What can go wrong in a conversation over netlink.

use std::fmt::Arguments;
use std::io;

use neli::err::SocketError;
use rustix::io::Errno;

/// A netlink request that was not carried out. The text says what was attempted and, where the kernel has
/// words for it, why not; the source is the kernel's error number.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket")]
    Open {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel understood the request and refused it.
    #[error("cannot {attempt}{}", words(message.as_deref()))]
    Refused {
        /// What was asked for.
        attempt: String,
        /// The kernel's explanation (its "extended acknowledgement"), if it gave one.
        message: Option<String>,
        /// The kernel's error number.
        source: io::Error,
    },
    /// The request did not get through, or its answer did not come.
    #[error("cannot {attempt}: no answer over netlink")]
    Exchange {
        /// What was asked for.
        attempt: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The request could not be put into bytes.
    #[error("cannot {attempt}: the request cannot be encoded")]
    Encode {
        /// What was asked for.
        attempt: String,
        /// What neli said.
        source: SocketError,
    },
    /// The answer is not what the protocol says.
    #[error("cannot {attempt}: the kernel's answer cannot be understood")]
    Malformed {
        /// What was asked for.
        attempt: String,
    },
    /// A table kept changing while it was read.
    #[error("cannot {attempt}: it changed during each of {attempts} attempts")]
    Unsteady {
        /// What was asked for.
        attempt: String,
        /// How often it was tried.
        attempts: usize,
    },
}

impl NetlinkError {
    pub(super) fn refused(attempt: Arguments<'_>, code: i32, message: Option<String>) -> Self {
        let source = io::Error::from_raw_os_error(code.saturating_neg());
        NetlinkError::Refused { attempt: attempt.to_string(), message, source }
    }

    pub(super) fn malformed(attempt: Arguments<'_>) -> Self {
        NetlinkError::Malformed { attempt: attempt.to_string() }
    }

    /// The error number with which the kernel refused, if it did.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the request may have been carried out all the same: the answer was lost.
    pub(crate) fn is_uncertain(&self) -> bool {
        matches!(self, NetlinkError::Exchange { .. } | NetlinkError::Malformed { .. })
    }

    /// Whether the kernel refused with one of these.
    pub(crate) fn is(&self, any_of: &[Errno]) -> bool {
        self.errno().is_some_and(|errno| any_of.iter().any(|e| e.raw_os_error() == errno))
    }
}

fn words(message: Option<&str>) -> String {
    message.map(|message| format!(" (kernel: {message})")).unwrap_or_default()
}

/// What it means to take something away: it was there and is gone, or it was not there.
pub(crate) fn gone(result: Result<(), NetlinkError>, absent: &[Errno]) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is(absent) => Ok(()),
        result => result,
    }
}
