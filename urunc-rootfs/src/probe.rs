//! Looking at the host for the facts that [`select`](crate::select()) decides on. Changes nothing.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};

use crate::image::Image;
use crate::mounts::{DeviceNumber, Mount, MountId, MountTable};
use crate::select::{Completeness, ContainerRootfs, MountedRootfs};

/// The container's root file system cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[error("cannot look at {}", path.display())]
pub struct ProbeError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl ContainerRootfs {
    /// Finds out what the root directory of `image` is. The directory itself is asked for its mount, so that neither
    /// symbolic links in its path nor odd characters matter.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn probe(image: &Image, table: &MountTable) -> Result<Self, ProbeError> {
        let cannot = |source| ProbeError { path: image.path().to_path_buf(), source };
        let (_, mount) = mount_of(image, table).map_err(cannot)?;
        let Some(mount) = mount else { return Ok(Self::Directory) };
        Ok(Self::Mount(Box::new(as_mounted(mount, table))))
    }
}

/// What `table` and the device's node say about `mount`.
pub(crate) fn as_mounted(mount: &Mount, table: &MountTable) -> MountedRootfs {
    let others = table.of_device(mount.device).filter(|m| m.id != mount.id);
    let also_at = others.map(|m| m.point.clone()).collect();
    let complete = table.unreadable().is_empty();
    let table = if complete { Completeness::Complete } else { Completeness::Incomplete };
    MountedRootfs { mount: mount.clone(), node: block_node(mount), also_at, table }
}

/// The mount that a file or directory lies in, and what the table says of it if `place` is its root.
pub(crate) fn mount_of(place: impl AsFd, table: &MountTable) -> io::Result<(MountId, Option<&Mount>)> {
    let stat = statx(place, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    // Linux 5.8, both.
    let known = StatxAttributes::from_bits_retain(stat.stx_attributes_mask.bits());
    if !known.contains(StatxAttributes::MOUNT_ROOT) || stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let id = MountId(stat.stx_mnt_id);
    let is_root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok((id, table.get(id).filter(|_| is_root)))
}

/// The node of the block device that is mounted: the source if it is that device, else what the kernel calls it.
pub(crate) fn block_node(mount: &Mount) -> Option<PathBuf> {
    let kernels_name = || {
        let uevent = fs::read_to_string(format!("/sys/dev/block/{}/uevent", mount.device)).ok()?;
        let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
        Some(Path::new("/dev").join(name))
    };
    let source = Some(PathBuf::from(&mount.source)).filter(|path| path.is_absolute());
    let is_it = |path: &PathBuf| {
        let found = fs::metadata(path).ok().filter(|m| m.file_type().is_block_device());
        found.is_some_and(|m| DeviceNumber::from(m.rdev()) == mount.device)
    };
    source.filter(is_it).or_else(|| kernels_name().filter(is_it))
}
