//! Which root file system a guest gets, decided purely, and why it is not another one.
//!
//! The first [`Way`] that is possible wins. Every other way gets a [`Reason`], for `urunc check` and debug logs.
//! [`ContainerRootfs::probe`] looks at the host; carrying the choice out is the caller's work.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::mounts::Mount;

mod facts;
mod reason;

use reason::Listed;

pub use facts::{
    Completeness, ContainerRootfs, Facts, GuestSupport, MonitorSupport, MountRootfs, MountedRootfs,
    NotATruthValue, Support, Wish,
};
pub use reason::{PassedOver, Reason, Way};

/// The root file system that the guest gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// An initrd.
    Initrd {
        /// Its path in the image.
        path: PathBuf,
    },
    /// A disk image.
    BlockImage {
        /// Its path in the image.
        path: PathBuf,
    },
    /// The container's root file system as a block device; it must be unmounted on the host.
    BlockDevice {
        /// The mount that goes.
        mount: Box<Mount>,
        /// The device's node on the host.
        node: PathBuf,
    },
    /// The container's root file system, shared by virtiofsd.
    Virtiofs {
        /// The program that shares it.
        program: PathBuf,
    },
    /// The container's root file system, shared by the monitor.
    NineP,
    /// None.
    Nothing,
}

/// A selection and why it is not another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What the guest gets.
    pub selection: Selection,
    /// Every other way, in order, with the reason why it was not taken.
    pub passed_over: Vec<PassedOver>,
}

/// Why no decision is possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// The image demands something that is not possible here.
    #[error("cannot give the guest the root file system that the image asks for: {}", Listed(passed_over))]
    NoWay {
        /// Every way, with the reason why it is not possible.
        passed_over: Vec<PassedOver>,
    },
    /// A disk image that nobody knows where to mount.
    #[error(
        "cannot use the disk image {path:?}: the annotation `com.urunc.unikernel.blkMntPoint` is missing"
    )]
    NoMountPoint {
        /// The disk image.
        path: PathBuf,
    },
}

/// Decides which root file system the guest gets.
///
/// # Errors
/// [`SelectError::NoWay`] if the image asks for a root file system and no way leads to one;
/// [`SelectError::NoMountPoint`] if it names a disk but not its place.
pub fn select(facts: &Facts) -> Result<Decision, SelectError> {
    if let (Some(path), None) = (&facts.wish.block, &facts.wish.block_mount_point) {
        return Err(SelectError::NoMountPoint { path: path.clone() });
    }
    let mut selected: Option<(Way, Selection)> = None;
    let mut passed_over = Vec::new();
    for (way, attempt) in WAYS {
        let attempt = match &selected {
            Some((earlier, _)) => Err(Reason::Earlier(*earlier)),
            None => attempt(facts),
        };
        match attempt {
            Ok(selection) => selected = Some((way, selection)),
            Err(reason) => passed_over.push(PassedOver { way, reason }),
        }
    }
    match selected {
        Some((_, selection)) => Ok(Decision { selection, passed_over }),
        None => Err(SelectError::NoWay { passed_over }),
    }
}

type Attempt = fn(&Facts) -> Result<Selection, Reason>;

const WAYS: [(Way, Attempt); 6] = [
    (Way::Initrd, initrd),
    (Way::BlockImage, block_image),
    (Way::BlockDevice, block_device),
    (Way::Virtiofs, virtiofs),
    (Way::NineP, nine_p),
    (Way::Nothing, nothing),
];

fn initrd(facts: &Facts) -> Result<Selection, Reason> {
    let path = facts.wish.initrd.clone().ok_or(Reason::NotAsked)?;
    Ok(Selection::Initrd { path })
}

fn block_image(facts: &Facts) -> Result<Selection, Reason> {
    let (path, point) = facts.wish.disk().ok_or(Reason::NotAsked)?;
    if point != Path::new("/") {
        return Err(Reason::NotTheRoot(point.to_path_buf()));
    }
    facts.guest.disks.or(Reason::GuestWithoutDisks)?;
    Ok(Selection::BlockImage { path: path.to_path_buf() })
}

fn block_device(facts: &Facts) -> Result<Selection, Reason> {
    facts.wish.wants_container_rootfs()?;
    let ContainerRootfs::Mount(rootfs) = &facts.container else {
        facts.guest.disks.or(Reason::GuestWithoutDisks)?;
        return Err(Reason::NotMounted);
    };
    let node = as_disk(rootfs, &facts.guest)?;
    Ok(Selection::BlockDevice { mount: Box::new(rootfs.mount.clone()), node })
}

/// The node of the device behind a mount, if the guest can have it as a disk and nobody else is seen to use it.
pub(crate) fn as_disk(rootfs: &MountedRootfs, guest: &GuestSupport) -> Result<PathBuf, Reason> {
    let MountedRootfs { mount, node, also_at, table } = rootfs;
    guest.disks.or(Reason::GuestWithoutDisks)?;
    if mount.point == Path::new("/") {
        return Err(Reason::HostRoot);
    }
    if mount.root != Path::new("/") {
        return Err(Reason::PartOfFileSystem(mount.root.clone()));
    }
    if !guest.file_systems.iter().any(|known| mount.fs_type == **known) {
        return Err(Reason::FileSystem(mount.fs_type.to_string_lossy().into_owned()));
    }
    let node = node.clone().ok_or(Reason::NotABlockDevice(mount.device))?;
    match (also_at.first(), table) {
        (Some(other), _) => Err(Reason::AlsoMounted(other.clone())),
        (None, Completeness::Incomplete) => Err(Reason::TableUnclear),
        (None, Completeness::Complete) => Ok(node),
    }
}

fn virtiofs(facts: &Facts) -> Result<Selection, Reason> {
    facts.wish.wants_container_rootfs()?;
    facts.guest.virtiofs.or(Reason::GuestCannot)?;
    facts.monitor.virtiofs.or(Reason::MonitorCannot)?;
    let program = facts.virtiofsd.clone().ok_or(Reason::NoVirtiofsd)?;
    Ok(Selection::Virtiofs { program })
}

fn nine_p(facts: &Facts) -> Result<Selection, Reason> {
    facts.wish.wants_container_rootfs()?;
    facts.guest.nine_p.or(Reason::GuestCannot)?;
    facts.monitor.nine_p.or(Reason::MonitorCannot)?;
    Ok(Selection::NineP)
}

/// Doing without is possible only if nothing was asked for.
fn nothing(facts: &Facts) -> Result<Selection, Reason> {
    let disk_for_the_root = facts.wish.disk().is_some_and(|(_, point)| point == Path::new("/"));
    if facts.wish.mount_rootfs == MountRootfs::Yes || disk_for_the_root {
        Err(Reason::NotAsked)
    } else {
        Ok(Selection::Nothing)
    }
}

impl Selection {
    /// The way by which it came about.
    #[must_use]
    pub fn way(&self) -> Way {
        match self {
            Self::Initrd { .. } => Way::Initrd,
            Self::BlockImage { .. } => Way::BlockImage,
            Self::BlockDevice { .. } => Way::BlockDevice,
            Self::Virtiofs { .. } => Way::Virtiofs,
            Self::NineP => Way::NineP,
            Self::Nothing => Way::Nothing,
        }
    }
}

#[cfg(test)]
mod tests;
