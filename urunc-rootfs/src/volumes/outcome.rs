//! What becomes of a container's volumes, and the words for what does not reach the guest.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::image::FileKind;
use crate::mounts::Mount;
use crate::root::{Below, Binding, HostBind, Source, Target, Tmpfs, Use};
use crate::select::Reason;

/// What happens to all volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePlan {
    /// The ways of those that reach the guest.
    pub deliveries: Vec<Delivery>,
    /// Those that do not.
    pub undelivered: Vec<Undelivered>,
}

/// How one volume reaches the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Bound into the directory that is shared with the guest: both see every change.
    Share {
        /// Its path on the host.
        source: PathBuf,
        /// How it is bound.
        binding: Binding,
        /// Its path in the guest.
        destination: Target,
        /// What the guest may do with it.
        access: Access,
    },
    /// A disk of its own; the host has it unmounted meanwhile.
    Disk {
        /// Its name, the same at every start.
        id: DiskId,
        /// The mount that goes.
        mount: Box<Mount>,
        /// The device's node on the host.
        node: PathBuf,
        /// Where the guest mounts it.
        destination: Target,
        /// What the guest may do with it.
        access: Access,
    },
    /// A disk image from the container's image.
    ImageDisk {
        /// Its name, the same at every start.
        id: DiskId,
        /// Its path in the image.
        path: PathBuf,
        /// Where the guest mounts it.
        destination: Target,
    },
    /// An empty directory in memory, in the directory that is shared with the guest.
    Memory {
        /// Its path in the guest.
        destination: Target,
        /// What it is.
        tmpfs: Tmpfs,
    },
    /// An empty directory in the initrd, which is in the guest's memory as a whole.
    Directory {
        /// Its path in the guest.
        destination: Target,
        /// What it is; its size is limited by the guest's memory alone.
        tmpfs: Tmpfs,
    },
    /// A copy; later changes are not seen. Into an initrd goes what is there when the container starts, into the container's
    /// root file system what is there when it is created.
    Snapshot {
        /// Its path on the host.
        source: PathBuf,
        /// Whether what is mounted below it is copied, too.
        below: Below,
        /// Its path in the guest.
        destination: Target,
        /// Where the copy goes.
        medium: Medium,
    },
}

/// What a snapshot is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// The initrd that is composed at start.
    Initrd,
    /// The container's root file system, before it is unmounted.
    Rootfs,
}

/// The name of a disk; at most 20 bytes, as much as virtio-blk's serial number holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskId(String);

/// A volume that does not reach the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Its path in the guest.
    pub destination: PathBuf,
    /// Why not.
    pub why: Why,
    /// Whether anybody minds.
    pub weight: Weight,
}

/// Whether anybody minds that a volume is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The user asked for it.
    Asked,
    /// Container engines add it to every container, wanted or not.
    Customary,
}

/// Why a volume does not reach the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// The guest has its own.
    GuestsOwn,
    /// There is no way into this guest for files, and as a disk it was refused.
    NoWay {
        /// Why it cannot be a disk, if it is one.
        disk: Option<Reason>,
    },
    /// The guest's root is a disk image of the image, which is not changed; and as a disk it was refused.
    ImageIsRoot {
        /// Why it cannot be a disk, if it is one.
        disk: Option<Reason>,
    },
    /// It could only be copied, and is too large for that.
    TooLarge {
        /// Why it cannot be a disk, if it is one.
        disk: Option<Reason>,
    },
    /// It is a writable directory and could only be copied: what the guest writes would be lost.
    WritesWouldBeLost {
        /// Why it cannot be a disk, if it is one.
        disk: Option<Reason>,
    },
    /// It could only be copied, and something in it is neither a file nor a directory nor a link.
    Holds(FileKind),
    /// It could only be copied, and something in it cannot be read.
    Unreadable,
    /// It is neither a file nor a directory.
    Special(FileKind),
    /// An empty directory in memory, which only the guest itself could make: its root is a disk.
    Tmpfs,
    /// The destination is not an absolute, plain path.
    Destination,
}

/// What to do about volumes that somebody asked for and that do not reach the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undeliverable {
    /// Refuse the container.
    Refuse,
    /// Warn.
    Warn,
}

/// Volumes that somebody asked for do not reach the guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot give the guest all of the container's volumes: {}", Listed(undelivered))]
pub struct VolumesError {
    /// Those volumes.
    pub undelivered: Vec<Undelivered>,
}

impl VolumePlan {
    /// What the caller must refuse under `policy`. The rest of [`VolumePlan::undelivered`] deserves a warning, or,
    /// if customary, a line in the debug log.
    ///
    /// # Errors
    /// [`VolumesError`] names every volume that was asked for and does not reach the guest.
    pub fn check(&self, policy: Undeliverable) -> Result<(), VolumesError> {
        let asked = self.undelivered.iter().filter(|u| u.weight == Weight::Asked);
        let undelivered: Vec<_> = asked.cloned().collect();
        match policy {
            Undeliverable::Refuse if !undelivered.is_empty() => Err(VolumesError { undelivered }),
            _ => Ok(()),
        }
    }

    /// The binds for everything shared, each at its path in the guest; see [`HostBind::below`].
    #[must_use]
    pub fn binds(&self) -> Vec<HostBind> {
        let bind = |delivery: &Delivery| match delivery {
            Delivery::Share { source, binding, destination, access } => {
                let access = match access {
                    Access::ReadOnly => Use::Data,
                    Access::ReadWrite => Use::Share(Access::ReadWrite),
                };
                let source = Source::Volume { path: source.clone(), binding: *binding };
                Some(HostBind { source, target: destination.clone(), access })
            }
            Delivery::Memory { destination, tmpfs } => Some(HostBind {
                source: Source::Memory(tmpfs.clone()),
                target: destination.clone(),
                access: Use::Share(Access::ReadWrite),
            }),
            _ => None,
        };
        self.deliveries.iter().filter_map(bind).collect()
    }

    pub(super) fn leave_out(&mut self, destination: &Path, why: Why, weight: Weight) {
        self.undelivered.push(Undelivered { destination: destination.to_path_buf(), why, weight });
    }
}

impl DiskId {
    /// A name for the disk at `destination` that does not depend on other disks.
    pub(super) fn of(destination: &Target) -> Self {
        // FNV-1a, 64 bits: no secret, only short and stable.
        let bytes = destination.as_path().as_os_str().as_encoded_bytes();
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(format!("vol{hash:016x}"))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.destination.display(), self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = match self {
            Self::NoWay { disk }
            | Self::ImageIsRoot { disk }
            | Self::TooLarge { disk }
            | Self::WritesWouldBeLost { disk } => disk.as_ref(),
            _ => None,
        };
        match self {
            Self::GuestsOwn => f.write_str("the guest has its own")?,
            Self::NoWay { .. } => {
                f.write_str("with this root file system nothing of the host reaches the guest")?
            }
            Self::ImageIsRoot { .. } => f.write_str(
                "the guest's root is a disk image, which takes nothing of the host; boot from an initrd beside it, which does",
            )?,
            Self::TooLarge { .. } => f.write_str("it is too large to be copied into the guest")?,
            Self::WritesWouldBeLost { .. } => {
                f.write_str("the guest would get a copy and lose what it writes; mount it read-only")?;
            }
            Self::Holds(kind) => write!(f, "it could only be copied, and {kind} in it cannot")?,
            Self::Unreadable => f.write_str("it could only be copied, and something in it cannot be read")?,
            Self::Special(kind) => write!(f, "it is {kind}, neither a file nor a directory")?,
            Self::Tmpfs => f.write_str("a tmpfs must be mounted by the guest itself")?,
            Self::Destination => {
                f.write_str("its destination is not an absolute path without `.` and `..`")?
            }
        }
        disk.map_or(Ok(()), |reason| write!(f, " (as a disk: {reason})"))
    }
}

struct Listed<'a>(&'a [Undelivered]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, undelivered) in self.0.iter().enumerate() {
            write!(f, "{}{undelivered}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
