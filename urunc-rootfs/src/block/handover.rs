//! Taking a mounted block device from the host.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};

use super::device::{BlockDevice, WhenUnused, disk_sequence, open, set_when_unused, when_unused};
use super::give_back::GiveBackError;
use super::holders::HolderList;
use crate::access::Access;
use crate::mounts::{DeviceNumber, Mount};

/// Between two attempts at something that is busy for a moment; the kernel has no event for it.
pub(super) const RETRY: Duration = Duration::from_millis(10);

/// A mounted block device that goes to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    pub(super) mount: Mount,
    pub(super) node: PathBuf,
    pub(super) afterwards: Afterwards,
    pub(super) when_unused: WhenUnused,
    pub(super) disk_sequence: Option<u64>,
}

/// What happens to the mount when the guest is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Afterwards {
    /// Nothing: it is the container's own root file system, which belongs to whoever made the container.
    StayUnmounted,
    /// It is mounted again: it is a volume.
    MountAgain,
}

/// Why a block device cannot be taken. The host's mount is then as it was, but for `NotRestored`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The device cannot be opened, or is not the one that was mounted.
    #[error("cannot open {} as the block device {number} that is mounted", node.display())]
    Open {
        /// The node.
        node: PathBuf,
        /// The number of the device that is mounted.
        number: DeviceNumber,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What is mounted there has changed since the plan was made.
    #[error("cannot unmount {}: something else is mounted there now", point.display())]
    Changed {
        /// The mount point.
        point: PathBuf,
    },
    /// The loop device cannot be told to stay.
    #[error("cannot keep the loop device {} alive", node.display())]
    Loop {
        /// The node.
        node: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host cannot unmount it.
    #[error("cannot unmount {} to give its device to the guest{holders}", point.display())]
    Unmount {
        /// The mount point.
        point: PathBuf,
        /// Who uses it, as far as can be seen.
        holders: HolderList,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host has unmounted it, but somebody else has it mounted or in use.
    #[error("cannot give {} to the guest: it is still in use{holders}", node.display())]
    InUse {
        /// The node.
        node: PathBuf,
        /// Who uses it, as far as can be seen.
        holders: HolderList,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The device cannot be taken, and then could not be mounted again either.
    #[error("cannot mount {} again after this failed: {reason}", point.display())]
    NotRestored {
        /// The mount point.
        point: PathBuf,
        /// Why the device was not taken.
        reason: Box<BlockError>,
        /// Why it was not mounted again.
        #[source]
        source: GiveBackError,
    },
}

impl Handover {
    /// Plans to take the device behind `node`, mounted as `mount`. Changes nothing; record the result.
    ///
    /// # Errors
    /// [`BlockError::Open`] if `node` is not that device.
    pub fn plan(mount: &Mount, node: &Path, afterwards: Afterwards) -> Result<Self, BlockError> {
        let look = || {
            let device = open(node, mount.device, OFlags::RDONLY)?;
            Ok((when_unused(&device, mount.device)?, disk_sequence(mount.device)?))
        };
        let (when_unused, disk_sequence) =
            look().map_err(|source| cannot_open(node, mount.device, source))?;
        Ok(Self { mount: mount.clone(), node: node.to_path_buf(), afterwards, when_unused, disk_sequence })
    }

    /// Where the host has it mounted.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.mount.point
    }

    /// Unmounts the device on the host and claims it. Something that is busy is tried again until `patience` is over.
    ///
    /// Close everything that was opened below the mount point before, an [`Image`](crate::Image) included, and call
    /// this before the container's mount namespace exists: a copy of the mount there would keep the device busy.
    ///
    /// # Errors
    /// [`BlockError`]; the mount is then in place again, unless it says otherwise.
    pub fn take(&self, access: Access, patience: Duration) -> Result<BlockDevice, BlockError> {
        // Held open from here: a loop device with nobody to use it would be gone.
        let held = open(&self.node, self.mount.device, OFlags::RDONLY)
            .map_err(|source| cannot_open(&self.node, self.mount.device, source))?;
        if !self.is_mounted() {
            return Err(BlockError::Changed { point: self.mount.point.clone() });
        }
        if self.must_not_vanish() {
            // Nobody holds it between the monitor's end and `give_back`.
            set_when_unused(&held, WhenUnused::Stay)
                .map_err(|source| BlockError::Loop { node: self.node.clone(), source })?;
        }
        let deadline = Instant::now() + patience;
        let taken = self.unmount(deadline).and_then(|()| self.claim(access, deadline));
        taken.map_err(|reason| match self.restore() {
            Ok(_) => reason,
            Err(source) => {
                BlockError::NotRestored { point: self.mount.point.clone(), reason: Box::new(reason), source }
            }
        })
    }

    /// Whether the loop device must outlive a time in which nobody has it open.
    pub(super) fn must_not_vanish(&self) -> bool {
        self.when_unused == WhenUnused::Clear && self.afterwards == Afterwards::MountAgain
    }

    /// Whether the very mount that was planned with is at its place.
    fn is_mounted(&self) -> bool {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(CWD, &self.mount.point, flags, StatxFlags::MNT_ID)
            .is_ok_and(|s| s.stx_mnt_id == self.mount.id.0)
    }

    /// Another container's mount namespace, just cloned, may have the mount until its own root is in place.
    fn claim(&self, access: Access, deadline: Instant) -> Result<BlockDevice, BlockError> {
        loop {
            match BlockDevice::claim(&self.node, self.mount.device, access) {
                Ok(device) => return Ok(device),
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    thread::sleep(RETRY);
                }
                Err(source) => {
                    let holders = HolderList::of_device(self.mount.device);
                    return Err(BlockError::InUse { node: self.node.clone(), holders, source });
                }
            }
        }
    }

    fn unmount(&self, deadline: Instant) -> Result<(), BlockError> {
        loop {
            match unmount(&self.mount.point, UnmountFlags::NOFOLLOW) {
                Ok(()) => return Ok(()),
                Err(Errno::BUSY) if Instant::now() < deadline => thread::sleep(RETRY),
                Err(e) => {
                    let holders = HolderList::of_mount(&self.mount);
                    return Err(BlockError::Unmount {
                        point: self.mount.point.clone(),
                        holders,
                        source: e.into(),
                    });
                }
            }
        }
    }
}

fn cannot_open(node: &Path, number: DeviceNumber, source: io::Error) -> BlockError {
    BlockError::Open { node: node.to_path_buf(), number, source }
}
