//! What is known about a container's volumes: facts, no decision.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::image::FileKind;
use crate::mounts::MountId;
use crate::root::{Binding, Tmpfs};
use crate::select::MountedRootfs;

/// One of the container's mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its path in the guest.
    pub destination: PathBuf,
    /// What it is.
    pub origin: Origin,
    /// What the guest may do with it.
    pub access: Access,
}

/// Where a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A file or directory of the host.
    Bind {
        /// Its path.
        path: PathBuf,
        /// What is there.
        facts: SourceFacts,
        /// How it is to be bound.
        binding: Binding,
    },
    /// An empty directory in memory.
    Tmpfs(Tmpfs),
    /// Something that every guest kernel has by itself, such as `proc`.
    Kernel,
}

/// What is known about the source of a bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// What it is.
    pub kind: SourceKind,
    /// The mount whose root it is, if it is one.
    pub mounted: Option<Box<MountedRootfs>>,
    /// The mount that it lies in.
    pub lies_in: MountId,
}

/// What the source of a bind mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A regular file.
    File(Extent),
    /// A directory.
    Directory(Extent),
    /// Anything else.
    Special(FileKind),
}

/// How much there is in a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Little enough to be copied: within the [`Limits`](super::Limits).
    Small,
    /// More than that, or nobody has looked, because nothing is to be copied.
    Large,
    /// There is something like this in it, which cannot be copied.
    Holds(FileKind),
    /// Something in it cannot be read.
    Unreadable,
}
