//! What can go wrong while the monitor's root is prepared.

use std::io;
use std::path::PathBuf;

use super::target::Target;

/// Why the monitor's root cannot be prepared. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The current mount namespace cannot be told.
    #[error("cannot identify the current mount namespace: is /proc mounted?")]
    Namespace {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A tmpfs cannot be made.
    #[error("cannot make a tmpfs for {} of the monitor's root", target.display())]
    Tmpfs {
        /// Where it was to be.
        target: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A directory, a link or an empty file cannot be made.
    #[error("cannot make {target} in the monitor's root")]
    Make {
        /// What was to be made.
        target: Target,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something is wanted in a directory that is bound read-only and does not have it.
    #[error("cannot put anything at {target} of the monitor's root: the host's directory there lacks it")]
    NoPlace {
        /// The place.
        target: Target,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A directory would lie on a file, a file on a directory, or something below a file.
    #[error("cannot put anything at {target} of the monitor's root: a directory and a file meet there")]
    Kind {
        /// The place.
        target: Target,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A host path, or something behind a descriptor, cannot be opened to be bound.
    #[error(
        "cannot open {source_name} for the monitor: install it, or correct its path in the configuration"
    )]
    Open {
        /// The host path or the name of the descriptor.
        source_name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The plan names a descriptor that the caller did not pass.
    #[error("cannot find the descriptor `{name}` that the plan refers to")]
    NoHandle {
        /// The missing name.
        name: String,
    },
    /// A bind cannot be made read-only or private.
    #[error("cannot restrict what the monitor may do at {target}")]
    Restrict {
        /// The place.
        target: Target,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something finished cannot be made read-only.
    #[error("cannot make {} of the monitor's root read-only", target.display())]
    Seal {
        /// The place.
        target: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A device node cannot be made.
    #[error("cannot make the device node {target} for the monitor")]
    Node {
        /// The node.
        target: Target,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A boot file cannot be copied into memory.
    #[error("cannot copy the descriptor `{name}` to {target}")]
    Copy {
        /// The name of the descriptor.
        name: String,
        /// The place.
        target: Target,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
