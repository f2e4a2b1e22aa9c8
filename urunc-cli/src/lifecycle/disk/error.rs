//! What can be wrong with a guest's disk.

use std::io;
use std::path::PathBuf;

use urunc_rootfs::block::BlockError;
use urunc_rootfs::initrd::InitrdError;
use urunc_rootfs::root::{BadTarget, PlanError, PrepareError};
use urunc_rootfs::select::SelectError;
use urunc_rootfs::virtiofsd::OptionError;
use urunc_rootfs::volumes::{CopyError, SourceError, VolumesError};
use urunc_rootfs::{ImageError, ProbeError};
use urunc_state::StoreError;
use urunc_vmm::DeviceError;

use crate::sandbox::channel::ChannelError;

/// Why a guest cannot have its disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The container's root file system cannot be looked at.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// No root file system fits.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Volumes cannot reach the guest.
    #[error("{0}; `undeliverable = \"warn\"` in the section `[runtime]` of the configuration accepts that")]
    Volumes(VolumesError),
    /// A file that an annotation names is not there.
    #[error("cannot use the file that {key} names")]
    File {
        /// The annotation.
        key: &'static str,
        /// What is wrong with the file.
        #[source]
        source: ImageError,
    },
    /// A volume cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A hook is to run where the guest will be alone.
    #[error(
        "cannot run the startContainer hook {hook}: the container's root file system is given to the guest as the block device \
         {device}, and would be changed by two; make it a createContainer hook, or use another annotation than mountRootfs"
    )]
    HookOnDevice {
        /// The hook's program.
        hook: PathBuf,
        /// The device.
        device: PathBuf,
    },
    /// A mount of a kind that cannot be made for a guest.
    #[error(
        "cannot give the guest the mount at {}: it is of type {kind}, and only bind mounts reach a guest",
        destination.display()
    )]
    MountKind {
        /// Where the container wants it.
        destination: PathBuf,
        /// Its type.
        kind: String,
    },
    /// A bind mount of nothing.
    #[error("cannot bind anything at {}: the mount has no source", destination.display())]
    NoSource {
        /// Where the container wants it.
        destination: PathBuf,
    },
    /// A file of the image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The monitor's user may not open the disk image.
    #[error(
        "cannot give the guest the disk image {}: user {uid} may not {what} it (its mode is {mode:04o}, its owner \
         {owner}:{group}); make it accessible in the image, or run the container as its owner",
        path.display()
    )]
    Access {
        /// The disk image.
        path: PathBuf,
        /// The monitor's user.
        uid: u32,
        /// What it may not do.
        what: &'static str,
        /// The file's permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Its group.
        group: u32,
    },
    /// A disk image in a file system that goes to the guest as a whole.
    #[error(
        "cannot give the guest the disk image {}: it lies in the root file system that the guest gets as a disk itself",
        path.display()
    )]
    Inside {
        /// The disk image.
        path: PathBuf,
    },
    /// A place that cannot be in the monitor's root.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// A name that is no device's.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A block device cannot be handed over.
    #[error(transparent)]
    Block(Box<BlockError>),
    /// Volumes cannot be copied into the root file system.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The initrd cannot be composed.
    #[error(transparent)]
    Initrd(#[from] InitrdError),
    /// The initrd cannot be kept in memory.
    #[error("cannot keep the guest's initrd in memory")]
    Memory(#[source] io::Error),
    /// What the guest boots from does not fit into it.
    #[error(
        "cannot load {bytes} bytes of kernel and initrd into a guest with {memory} bytes of memory; raise \
         linux.resources.memory.limit, or default_memory_mb of the monitor in the configuration"
    )]
    TooLarge {
        /// The sizes of the files.
        bytes: u64,
        /// The guest's memory.
        memory: u64,
    },
    /// The size or the permissions of a file of the image cannot be told.
    #[error("cannot look at a file of the image")]
    Look(#[source] io::Error),
    /// A block device's descriptor cannot be copied.
    #[error("cannot keep a block device open for the guest")]
    Descriptor(#[source] io::Error),
    /// virtiofsd's options.
    #[error(transparent)]
    Virtiofsd(#[from] OptionError),
    /// The shared directory cannot be laid out.
    #[error(transparent)]
    Share(#[from] PlanError),
    /// The shared directory cannot be prepared.
    #[error("cannot prepare the directory that is shared with the guest")]
    PrepareShare(#[source] PrepareError),
    /// virtiofsd's socket cannot be made.
    #[error("cannot make virtiofsd's socket")]
    Socket(#[source] ChannelError),
    /// Something of virtiofsd's in the state directory cannot be made.
    #[error("cannot make {what} for virtiofsd")]
    Daemon {
        /// What it is.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was to be taken cannot be recorded.
    #[error(transparent)]
    Record(#[from] StoreError),
    /// It cannot be written down.
    #[error("cannot write down a block device for the record")]
    Encode(#[from] serde_json::Error),
}

impl From<BlockError> for DiskError {
    fn from(error: BlockError) -> Self {
        Self::Block(Box::new(error))
    }
}
