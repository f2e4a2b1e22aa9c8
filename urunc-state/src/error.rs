//! What can go wrong in a store. The texts `does not exist` and the like are read by containerd.

use std::io;
use std::path::PathBuf;

use crate::{ContainerId, DocumentError, WriteError};

/// Which step failed, for which container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// `/`, a relative path, or one with `..` in it.
    #[error("state directory {path:?} must be an absolute path below / without \"..\"")]
    UnfitRoot {
        /// The path.
        path: PathBuf,
    },
    /// The root could not be opened, created or read.
    #[error("cannot use the state directory {}", path.display())]
    Root {
        /// The root.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is no such container.
    #[error("container {id} does not exist")]
    NotFound {
        /// The container.
        id: ContainerId,
    },
    /// There is a directory of this name, but another runtime made it.
    #[error("container {id} was not created by urunc")]
    NotOurs {
        /// The container.
        id: ContainerId,
    },
    /// The id is taken, by us or by another runtime with the same root.
    #[error("container {id} already exists")]
    AlreadyExists {
        /// The container.
        id: ContainerId,
    },
    /// A valid id, but the file system has no names that long.
    #[error("cannot create container {id}: its id has {} bytes, a file name at most {limit}", id.as_str().len())]
    IdTooLong {
        /// The container.
        id: ContainerId,
        /// The file system's limit.
        limit: usize,
    },
    /// Origin and record are of different containers.
    #[error("record of container {record} does not belong to container {id}")]
    OtherContainer {
        /// The container at hand.
        id: ContainerId,
        /// The container that the document names.
        record: ContainerId,
    },
    /// Another command held the container until the deadline.
    #[error("container {id} is busy: another urunc command works on it; try again")]
    Busy {
        /// The container.
        id: ContainerId,
    },
    /// The container's directory could not be made, opened, locked or compared.
    #[error("cannot {step} the directory of container {id}")]
    Directory {
        /// The container.
        id: ContainerId,
        /// The verb: what was tried.
        step: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of the container could not be read.
    #[error("cannot read {file} of container {id}")]
    Read {
        /// The container.
        id: ContainerId,
        /// The file.
        file: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of the container was read, but is not what it should be.
    #[error("cannot use {file} of container {id}")]
    Document {
        /// The container.
        id: ContainerId,
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// A file of the container could not be written. The cause says whether the old one is in place.
    #[error("cannot save container {id}")]
    Write {
        /// The container.
        id: ContainerId,
        /// The step.
        #[source]
        source: WriteError,
    },
    /// The container is gone from sight, but some of its files are left for the next sweep.
    #[error("cannot remove {} of container {id}", path.display())]
    Remove {
        /// The container.
        id: ContainerId,
        /// What is left.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}
