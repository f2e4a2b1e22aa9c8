//! A volume of which the guest gets a copy: into its initrd at start, or into the root file system that goes to it as a disk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use urunc_rootfs::initrd::Addition;
use urunc_rootfs::root::{Below, Target};
use urunc_rootfs::volumes::{Limits, VolumeSource, Weight};

use super::DiskError;

/// What is copied from where to where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) source: PathBuf,
    pub(super) destination: Target,
    /// Whether what is mounted below the source is copied, too.
    #[serde(default)]
    pub(super) below: Below,
    /// Whether anybody minds if the guest does not get it.
    pub(super) weight: Weight,
}

impl Snapshot {
    /// Reads what is there now.
    pub(super) fn read(&self) -> Result<Vec<Addition>, DiskError> {
        Ok(VolumeSource::open_as(&self.source, self.below)?.read(&self.destination, Limits::default())?)
    }

    /// Passes `result` on, but for an error with something that container engines put into every container, wanted or not:
    /// a guest that has no place for it shall run all the same.
    pub(super) fn unless_customary<T>(&self, result: Result<T, DiskError>) -> Result<Option<T>, DiskError> {
        match (result, self.weight) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(error), Weight::Customary) => {
                let error = crate::report::chain(&error);
                log::warn!("the guest does not get {}: {error}", self.destination);
                Ok(None)
            }
            (Err(error), Weight::Asked) => Err(error),
        }
    }
}
