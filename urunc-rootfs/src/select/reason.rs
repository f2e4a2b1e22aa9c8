//! The ways to a root file system, and the words for why one was not taken.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::mounts::DeviceNumber;

/// A way for a guest to get a root file system, in order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// An initrd from the image.
    Initrd,
    /// A disk image from the image.
    BlockImage,
    /// The container's root file system as a block device.
    BlockDevice,
    /// The container's root file system over virtiofs.
    Virtiofs,
    /// The container's root file system over 9p.
    NineP,
    /// None at all.
    Nothing,
}

/// A way that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The way.
    pub way: Way,
    /// Why not.
    pub reason: Reason,
}

/// Why a way was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// An earlier way was possible.
    Earlier(Way),
    /// The image does not ask for it.
    NotAsked,
    /// The disk image is for another place in the guest.
    NotTheRoot(PathBuf),
    /// The guest has no driver for disks.
    GuestWithoutDisks,
    /// The guest cannot mount this.
    GuestCannot,
    /// The monitor cannot offer this.
    MonitorCannot,
    /// virtiofsd is not installed.
    NoVirtiofsd,
    /// The container's root file system is no mount of its own.
    NotMounted,
    /// It is the root of the host itself.
    HostRoot,
    /// Only part of a file system is mounted there.
    PartOfFileSystem(PathBuf),
    /// The guest does not read this type of file system.
    FileSystem(String),
    /// What is mounted there is not a block device.
    NotABlockDevice(DeviceNumber),
    /// The same file system is mounted elsewhere, too.
    AlsoMounted(PathBuf),
    /// Whether it is mounted elsewhere cannot be told.
    TableUnclear,
    /// Another of the container's volumes, at this place in the guest, comes from the same file system.
    AlsoVolume(PathBuf),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initrd => "initrd from the image",
            Self::BlockImage => "disk image from the image",
            Self::BlockDevice => "container rootfs as a block device",
            Self::Virtiofs => "container rootfs over virtiofs",
            Self::NineP => "container rootfs over 9p",
            Self::Nothing => "no root file system",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earlier(way) => write!(f, "not needed: {way} comes first"),
            Self::NotAsked => f.write_str("not what the image asks for"),
            Self::NotTheRoot(point) => {
                write!(f, "the disk is for {} in the guest, not for /", point.display())
            }
            Self::GuestWithoutDisks => f.write_str("the guest has no driver for disks"),
            Self::GuestCannot => f.write_str("the guest cannot mount it"),
            Self::MonitorCannot => f.write_str("the monitor cannot offer it"),
            Self::NoVirtiofsd => f.write_str("virtiofsd is not installed where the configuration says"),
            Self::NotMounted => f.write_str("it is a directory, not a mount of its own"),
            Self::HostRoot => f.write_str("it is the root of the host itself"),
            Self::PartOfFileSystem(root) => {
                write!(f, "only {} of a file system is mounted there", root.display())
            }
            Self::FileSystem(fs) => write!(f, "the guest does not read the file system {fs}"),
            Self::NotABlockDevice(device) => write!(f, "its device {device} is no block device of this host"),
            Self::AlsoMounted(at) => write!(f, "the same file system is also mounted at {}", at.display()),
            Self::AlsoVolume(at) => {
                write!(f, "the volume at {} is from the same file system", at.display())
            }
            Self::TableUnclear => f.write_str("the mount table has lines that could not be understood"),
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.way, self.reason)
    }
}

/// Reasons in a row, for an error message.
pub(super) struct Listed<'a>(pub(super) &'a [PassedOver]);

impl fmt::Display for Listed<'_> {
    /// Only the ways that were asked for: the others would hide the one that can be mended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.0.iter().filter(|p| p.reason != Reason::NotAsked);
        for (n, passed) in told.enumerate() {
            write!(f, "{}{passed}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
