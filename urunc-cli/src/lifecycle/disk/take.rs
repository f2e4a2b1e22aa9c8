//! Taking block devices from the host for the guest, each recorded before; and, when create fails, letting go of them
//! in the order that allows everything to be mounted again.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use urunc_rootfs::Image;
use urunc_rootfs::block::{BlockDevice, Handover};
use urunc_rootfs::root::MountPoint;
use urunc_rootfs::volumes::{Copied, copy_into};
use urunc_state::{Locked, Resource};

use super::plan::{DiskPlan, Whose};
use super::{DiskError, recorded};

/// How long a mount may be busy, with somebody who only looks at it (R14).
const PATIENCE: Duration = Duration::from_secs(5);

/// What create holds while it is not certain that the container will be.
#[derive(Debug)]
pub(in crate::lifecycle) struct Held {
    claims: Vec<BlockDevice>,
    own: Option<Handover>,
    copied: Vec<Copied>,
    /// What was made in directories that are shared with the guest, to mount volumes on.
    pub(in crate::lifecycle) points: Vec<MountPoint>,
    rootfs: PathBuf,
}

/// Keeps loop devices alive without standing in the way of a mount.
#[derive(Debug)]
pub(in crate::lifecycle) struct Undoing {
    own: Option<Handover>,
    copied: Vec<Copied>,
    points: Vec<MountPoint>,
    rootfs: PathBuf,
    _devices: Vec<File>,
}

impl DiskPlan {
    /// What must be given back to the host even if the record is lost. The container's own root file system is not: once
    /// the container is created, whoever mounted it unmounts it.
    ///
    /// # Errors
    /// [`DiskError::Encode`]
    pub(in crate::lifecycle) fn owed(&self) -> Result<Vec<Resource>, DiskError> {
        let hosts = self.takes.iter().filter(|take| take.whose == Whose::Host);
        Ok(recorded::resources(hosts)?)
    }

    /// Copies files into the root file system that goes to the guest, and takes all block devices. Nothing of the image
    /// may be open any more.
    ///
    /// # Errors
    /// [`DiskError`]; what `held` then holds must be let go of, and the record released.
    pub(in crate::lifecycle) fn take(
        &mut self,
        locked: &mut Locked,
        held: &mut Held,
    ) -> Result<(), DiskError> {
        self.files.clear();
        if !self.takes.is_empty() {
            let mut record = locked.record().clone();
            record.urunc.resources.extend(recorded::resources(&self.takes)?);
            locked.save(record)?;
        }
        if !self.copies.is_empty() {
            let image = Image::open(&self.rootfs)?;
            for snapshot in &self.copies {
                let copied = snapshot.read().and_then(|additions| Ok(copy_into(&image, &additions)?));
                held.copied.extend(snapshot.unless_customary(copied)?);
            }
        }
        for take in &self.takes {
            held.claims.push(take.handover.take(take.access, PATIENCE)?);
            if take.whose == Whose::Container {
                held.own = Some(take.handover.clone());
            }
        }
        Ok(())
    }
}

impl Held {
    /// Nothing yet, of a container with this root file system.
    pub(in crate::lifecycle) fn new(rootfs: PathBuf) -> Self {
        let (claims, own, copied, points) = (Vec::new(), None, Vec::new(), Vec::new());
        Self { claims, own, copied, points, rootfs }
    }

    /// Descriptors that must be open as long as the guest runs: the kernel lets go of the devices with them.
    ///
    /// # Errors
    /// [`DiskError::Descriptor`] if there are too many.
    pub(in crate::lifecycle) fn descriptors(&self) -> Result<Vec<OwnedFd>, DiskError> {
        let copies = self.claims.iter().map(|claim| claim.as_fd().try_clone_to_owned());
        copies.collect::<Result<_, _>>().map_err(DiskError::Descriptor)
    }

    /// Lets go of the claims, so that the devices can be mounted again while the result exists.
    pub(in crate::lifecycle) fn let_go(self) -> Undoing {
        let open_again = |claim: &BlockDevice| {
            File::open(format!("/proc/self/fd/{}", claim.as_fd().as_raw_fd()))
                .inspect_err(|error| log::warn!("cannot keep a block device open: {error}"))
        };
        let devices = self.claims.iter().filter_map(|claim| open_again(claim).ok()).collect();
        let Self { own, copied, points, rootfs, .. } = self;
        Undoing { own, copied, points, rootfs, _devices: devices }
    }
}

impl Undoing {
    /// Mounts the container's own root file system again, and puts its files back as they were. What the record listed
    /// must have been released; the root file system may not be listed any more, although create fails.
    ///
    /// In volumes, mount points stay: another container may have mounted something on them by now.
    pub(in crate::lifecycle) fn finish(self) {
        if let Some(Err(error)) = self.own.as_ref().map(Handover::restore) {
            log::warn!("{}", crate::report::chain(&error));
        }
        for copied in self.copied.into_iter().rev() {
            let undone = Image::open(&self.rootfs)
                .map_err(DiskError::from)
                .and_then(|image| copied.undo(&image).map_err(DiskError::from));
            if let Err(error) = undone {
                log::warn!("{}", crate::report::chain(&error));
            }
        }
        for point in self.points.iter().rev().filter(|point| point.directory == self.rootfs) {
            if let Err(error) = point.remove() {
                let place = self.rootfs.join(&point.inside);
                log::warn!("cannot remove {}, made to mount a volume on: {error}", place.display());
            }
        }
    }
}
