//! Why a monitor could not be asked: each says what was asked.

use std::{io, path::PathBuf, time::Duration};

/// A failed conversation with a monitor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// There is no connection.
    #[error("cannot connect to the monitor's control socket {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What lies at the path is not the monitor's socket.
    #[error("{} in the monitor's root is not the monitor's socket: {reason}", path.display())]
    NotItsSocket {
        /// The path.
        path: PathBuf,
        /// How it was found out.
        reason: String,
    },
    /// No answer in time.
    #[error("the monitor did not answer {request:?} within {limit:?}")]
    Silent {
        /// What was asked.
        request: String,
        /// How long it had.
        limit: Duration,
    },
    /// The connection ended.
    #[error("the monitor closed its control socket instead of answering {request:?}")]
    Closed {
        /// What was asked.
        request: String,
    },
    /// The connection failed.
    #[error("cannot exchange {request:?} with the monitor")]
    Exchange {
        /// What was asked.
        request: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An answer that is none.
    #[error("the monitor's answer to {request:?} is not understood: {answer:?}")]
    Garbled {
        /// What was asked.
        request: String,
        /// The start of what came back.
        answer: String,
    },
    /// Something has gone wrong before, and the answer to that request could still come.
    #[error("cannot ask the monitor {request:?} on the connection on which {earlier:?} failed; open another")]
    Spent {
        /// What was to be asked.
        request: String,
        /// What was asked when it failed.
        earlier: String,
    },
    /// The monitor said no.
    #[error("the monitor refused {request:?}: {reason}")]
    Refused {
        /// What was asked.
        request: String,
        /// Its words.
        reason: String,
    },
    /// A path that is no text, where the protocol is text.
    #[error("{} is not UTF-8", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// Something that this monitor's interface has no way to do.
    #[error("{monitor} cannot {what}")]
    Unsupported {
        /// The monitor.
        monitor: &'static str,
        /// What it cannot do.
        what: &'static str,
    },
}

/// Shortens an answer for a message: the peer decides how long it is.
pub(super) fn excerpt(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer.get(..200).unwrap_or(answer)).into_owned()
}
