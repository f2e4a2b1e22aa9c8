//! What is known before a root file system is chosen: facts, no decision.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use crate::mounts::Mount;

/// What is known about the image's wishes, the guest, the monitor and the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What the image or the spec asks for.
    pub wish: Wish,
    /// What the guest's kernel can use.
    pub guest: GuestSupport,
    /// What the monitor can offer.
    pub monitor: MonitorSupport,
    /// virtiofsd on this host, if its program exists.
    pub virtiofsd: Option<PathBuf>,
    /// The container's root file system.
    pub container: ContainerRootfs,
}

/// What the annotations ask for; empty values count as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// An initrd, as a path in the image.
    pub initrd: Option<PathBuf>,
    /// A disk image, as a path in the image.
    pub block: Option<PathBuf>,
    /// Where the guest mounts that disk.
    pub block_mount_point: Option<PathBuf>,
    /// Whether the container's root file system is to be the guest's.
    pub mount_rootfs: MountRootfs,
}

/// Whether the container's root file system is to be the guest's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountRootfs {
    /// The guest does without.
    #[default]
    No,
    /// It must get it.
    Yes,
}

/// What a guest can use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSupport {
    /// Whether it has a driver for disks.
    pub disks: Support,
    /// File systems that it can read from a disk, such as `ext4`.
    pub file_systems: Vec<String>,
    /// Whether it can mount virtiofs.
    pub virtiofs: Support,
    /// Whether it can mount 9p.
    pub nine_p: Support,
}

/// What a monitor can offer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorSupport {
    /// Whether it speaks to virtiofsd.
    pub virtiofs: Support,
    /// Whether it serves a directory over 9p.
    pub nine_p: Support,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// It cannot.
    #[default]
    No,
    /// It can.
    Yes,
}

/// What the directory with the container's root file system is on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerRootfs {
    /// A directory in some file system.
    Directory,
    /// The root of a mount.
    Mount(Box<MountedRootfs>),
}

/// A container's root file system that is mounted by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedRootfs {
    /// The mount.
    pub mount: Mount,
    /// Its block device's node on the host, if there is one with the mount's device number.
    pub node: Option<PathBuf>,
    /// Where else the same file system is mounted, as far as this namespace shows.
    pub also_at: Vec<PathBuf>,
    /// Whether every line of the mount table was understood.
    pub table: Completeness,
}

/// Whether the absence of something may be concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Everything was seen.
    Complete,
    /// Something was not understood.
    Incomplete,
}

/// The value of `mountRootfs` is not a truth value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot understand {value:?} as a truth value: write `true` or `false`")]
pub struct NotATruthValue {
    value: String,
}

impl Wish {
    /// The disk image and its place in the guest.
    #[must_use]
    pub fn disk(&self) -> Option<(&Path, &Path)> {
        Some((self.block.as_deref()?, self.block_mount_point.as_deref()?))
    }

    pub(super) fn wants_container_rootfs(&self) -> Result<(), Reason> {
        if self.mount_rootfs == MountRootfs::Yes { Ok(()) } else { Err(Reason::NotAsked) }
    }
}

impl Support {
    pub(super) fn or(self, reason: Reason) -> Result<(), Reason> {
        if self == Self::Yes { Ok(()) } else { Err(reason) }
    }
}

impl FromStr for MountRootfs {
    type Err = NotATruthValue;

    /// The spellings that the annotation has always had (those of Go's `strconv.ParseBool`).
    fn from_str(value: &str) -> Result<Self, NotATruthValue> {
        match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self::Yes),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self::No),
            _ => Err(NotATruthValue { value: value.to_owned() }),
        }
    }
}
