//! What the shim can fail at, and the code under which containerd is told.

use std::io;
use std::path::PathBuf;

use containerd_shim_protos::{protobuf, ttrpc};

use crate::report;

/// Why the shim could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShimError {
    /// The command line.
    #[error("cannot understand the command line: {0}")]
    Usage(String),
    /// A container or process that the shim does not have.
    #[error("{what} does not exist")]
    NotFound {
        /// What was named.
        what: String,
    },
    /// A container or process that the shim has already.
    #[error("{what} already exists")]
    Exists {
        /// What was named.
        what: String,
    },
    /// The process is in another state than the request needs.
    #[error("cannot {verb} {what}: it is {state}")]
    State {
        /// What was to be done.
        verb: &'static str,
        /// To what.
        what: String,
        /// What it is.
        state: &'static str,
    },
    /// The process is not there any more. Clients match the text.
    #[error("process already finished: {what}")]
    Finished {
        /// Whose process.
        what: String,
    },
    /// The host's control groups.
    #[error(transparent)]
    Layout(crate::cgroup::LayoutError),
    /// The shim was told to end.
    #[error("the shim was shut down while the container was created; try again")]
    Ending,
    /// Something that a unikernel cannot do.
    #[error("container {id} is a unikernel: {reason}")]
    Unikernel {
        /// The container.
        id: String,
        /// Why not.
        reason: &'static str,
    },
    /// Something that this shim does not do.
    #[error("{0} is not supported by this shim")]
    Unsupported(&'static str),
    /// A request that cannot be understood.
    #[error("cannot understand {what}: {reason}")]
    Invalid {
        /// What was given.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A message cannot be read or written.
    #[error("cannot translate {what}")]
    Message {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: protobuf::Error,
    },
    /// A document is not JSON.
    #[error("cannot read {} as JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The runtime failed, and said why.
    #[error("OCI runtime {verb} failed: {reason}")]
    Runtime {
        /// The runtime's command.
        verb: &'static str,
        /// What it said.
        reason: String,
    },
    /// The runtime took too long and was ended.
    #[error("OCI runtime {verb} did not end within {seconds} s and was killed")]
    RuntimeHangs {
        /// The runtime's command.
        verb: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// A file or a directory.
    #[error("cannot {verb} {}", path.display())]
    Path {
        /// What was to be done.
        verb: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something of the system.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
    /// The ttrpc library.
    #[error("cannot serve containerd")]
    Serve(#[source] ttrpc::Error),
}

impl ShimError {
    /// For `map_err` on operations on a file.
    pub(super) fn path(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path { verb, path, source }
    }

    fn code(&self) -> ttrpc::Code {
        match self {
            Self::NotFound { .. } | Self::Finished { .. } => ttrpc::Code::NOT_FOUND,
            Self::Exists { .. } => ttrpc::Code::ALREADY_EXISTS,
            Self::State { .. } => ttrpc::Code::FAILED_PRECONDITION,
            Self::Ending => ttrpc::Code::UNAVAILABLE,
            Self::Unikernel { .. } | Self::Unsupported(_) => ttrpc::Code::UNIMPLEMENTED,
            Self::Invalid { .. } | Self::Message { .. } => ttrpc::Code::INVALID_ARGUMENT,
            // runc's words, which containerd's shim for runc translates in the same way.
            Self::Runtime { verb: "kill", reason } if is_gone(reason) => ttrpc::Code::NOT_FOUND,
            _ => ttrpc::Code::UNKNOWN,
        }
    }

    /// As an answer to containerd.
    pub(super) fn status(&self) -> ttrpc::Status {
        ttrpc::get_status(self.code(), report::chain(self))
    }
}

/// Whether a runtime says that there is no process to signal.
pub(super) fn is_gone(reason: &str) -> bool {
    ["container not running", "process already finished", "no such process", "does not exist"]
        .iter()
        .any(|words| reason.contains(words))
}

impl From<ShimError> for ttrpc::Error {
    fn from(error: ShimError) -> Self {
        Self::RpcStatus(error.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// containerd's client decides by the code whether a failed kill matters.
    #[test]
    fn a_signal_to_something_dead_is_answered_with_not_found() {
        for words in ["container not running", "cannot send USR1 to container c: container not running"] {
            let error = ShimError::Runtime { verb: "kill", reason: words.to_owned() };
            assert_eq!(error.code(), ttrpc::Code::NOT_FOUND);
        }
        let other = ShimError::Runtime { verb: "kill", reason: "permission denied".to_owned() };
        assert_eq!(other.code(), ttrpc::Code::UNKNOWN);
    }
}
