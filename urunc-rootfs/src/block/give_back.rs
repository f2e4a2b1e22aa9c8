//! Mounting a volume again where it was, with all its options.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};

use super::device::{WhenUnused, disk_sequence, open, set_when_unused};
use super::handover::{Afterwards, Handover, RETRY};
use crate::mounts::{DeviceNumber, Mount, MountTable, MountTableError};

/// How long the device may be busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// What giving back came to. All of them are success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// It was mounted again.
    Mounted,
    /// It is mounted, because it was never taken or somebody was faster.
    AlreadyMounted,
    /// Something else is mounted there now, which is left alone.
    Occupied,
    /// The mount point is gone: nobody wants it back.
    NobodyWaits,
    /// It is not to be mounted again.
    NotWanted,
}

/// Why a volume is not mounted again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GiveBackError {
    /// What is mounted cannot be told.
    #[error(transparent)]
    Table(#[from] MountTableError),
    /// The device is gone, or its number means another one now.
    #[error("cannot mount {} again: {} is not the device {number} any more", point.display(), node.display())]
    Device {
        /// The mount point.
        point: PathBuf,
        /// The node.
        node: PathBuf,
        /// The device's number.
        number: DeviceNumber,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The mount point cannot be looked at.
    #[error("cannot tell whether {} is still there to mount on", point.display())]
    Point {
        /// The mount point.
        point: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file system cannot be mounted.
    #[error("cannot mount {} on {} again", node.display(), point.display())]
    Mount {
        /// The mount point.
        point: PathBuf,
        /// The node.
        node: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is mounted, but its loop device does not vanish by itself any more.
    #[error("cannot make the loop device {} vanish by itself again", node.display())]
    Loop {
        /// The node.
        node: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Handover {
    /// Puts the host's mount back, if it is missing and wanted. The guest must be gone.
    ///
    /// # Errors
    /// [`GiveBackError`]; it may be called again.
    pub fn give_back(&self) -> Result<GivenBack, GiveBackError> {
        match self.afterwards {
            Afterwards::MountAgain => self.restore(),
            Afterwards::StayUnmounted => Ok(GivenBack::NotWanted),
        }
    }

    /// As [`Handover::give_back`], for the container's own root file system too: after a create that failed.
    ///
    /// # Errors
    /// [`GiveBackError`]; it may be called again.
    pub fn restore(&self) -> Result<GivenBack, GiveBackError> {
        let Mount { point, device, .. } = &self.mount;
        let table = MountTable::read()?;
        let outcome = match table.at(point) {
            Some(mount) if mount.device == *device => GivenBack::AlreadyMounted,
            Some(_) => GivenBack::Occupied,
            None => match point.try_exists() {
                Ok(true) => GivenBack::Mounted,
                Ok(false) => GivenBack::NobodyWaits,
                Err(source) => return Err(GiveBackError::Point { point: point.clone(), source }),
            },
        };
        if outcome != GivenBack::Mounted && !self.must_not_vanish() {
            return Ok(outcome);
        }
        let opened = open(&self.node, *device, OFlags::RDONLY).and_then(|file| {
            // The number of a loop or device-mapper device may have been used again.
            if self.disk_sequence == disk_sequence(*device)? {
                Ok(file)
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        });
        let held = match (opened, outcome) {
            (Ok(held), _) => held,
            // Nothing to mount and no device to set: nothing to do.
            (Err(_), GivenBack::Occupied | GivenBack::NobodyWaits) => return Ok(outcome),
            (Err(source), _) => {
                let (point, node) = (point.clone(), self.node.clone());
                return Err(GiveBackError::Device { point, node, number: *device, source });
            }
        };
        if outcome == GivenBack::Mounted {
            self.mount_when_free().map_err(|source| {
                let (point, node) = (point.clone(), self.node.clone());
                GiveBackError::Mount { point, node, source }
            })?;
        }
        if self.must_not_vanish() {
            set_when_unused(&held, WhenUnused::Clear)
                .map_err(|source| GiveBackError::Loop { node: self.node.clone(), source })?;
        }
        Ok(outcome)
    }

    /// Whoever had the device may be on its way out, or somebody may look at what is new.
    fn mount_when_free(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.mount_again() {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    thread::sleep(RETRY);
                }
                result => return result,
            }
        }
    }

    fn mount_again(&self) -> io::Result<()> {
        let Mount { point, options, super_options, fs_type, .. } = &self.mount;
        let context = fsopen(fs_type.as_os_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", self.node.as_path())?;
        for option in super_options {
            let (key, value) = split(option);
            let set = match value {
                None if key == "rw" => Ok(()),
                None => fsconfig_set_flag(&context, key),
                Some(value) => fsconfig_set_string(&context, key, value),
            };
            if let Err(e) = set {
                // Some file systems show options that cannot be set. A volume without one is better than none.
                log::warn!(
                    "{}: mounting again without the option {}: {e}",
                    point.display(),
                    option.display()
                );
            }
        }
        fsconfig_create(&context)?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(options))?;
        move_mount(&mount, "", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        if self.mount.is_shared() {
            mount_change(point, MountPropagationFlags::SHARED)?;
        }
        Ok(())
    }
}

/// `key=value`, or only `key`.
fn split(option: &OsString) -> (&std::ffi::OsStr, Option<&std::ffi::OsStr>) {
    let bytes = option.as_bytes();
    match bytes.iter().position(|b| *b == b'=') {
        None => (option, None),
        Some(at) => {
            (std::ffi::OsStr::from_bytes(&bytes[..at]), Some(std::ffi::OsStr::from_bytes(&bytes[at + 1..])))
        }
    }
}

/// The options of a mount, as `mountinfo` spells them (`show_mnt_opts` in the kernel).
fn attributes(options: &[OsString]) -> MountAttrFlags {
    const NAMES: [(&str, MountAttrFlags); 8] = [
        ("ro", MountAttrFlags::MOUNT_ATTR_RDONLY),
        ("nosuid", MountAttrFlags::MOUNT_ATTR_NOSUID),
        ("nodev", MountAttrFlags::MOUNT_ATTR_NODEV),
        ("noexec", MountAttrFlags::MOUNT_ATTR_NOEXEC),
        ("noatime", MountAttrFlags::MOUNT_ATTR_NOATIME),
        ("nodiratime", MountAttrFlags::MOUNT_ATTR_NODIRATIME),
        ("relatime", MountAttrFlags::MOUNT_ATTR_RELATIME),
        ("nosymfollow", MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let there = |name: &str| options.iter().any(|o| o == name);
    let flags =
        NAMES.iter().filter(|(name, _)| there(name)).fold(MountAttrFlags::empty(), |all, (_, f)| all | *f);
    // Neither of them is shown: every access is recorded.
    if there("noatime") || there("relatime") { flags } else { flags | MountAttrFlags::MOUNT_ATTR_STRICTATIME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_a_mount_is_kept() {
        // R6: unknown options were dropped, and those of the super block always.
        let of = |text: &str| attributes(&text.split(',').map(OsString::from).collect::<Vec<_>>());
        let tight = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        assert_eq!(of("ro,nosuid,nodev,noexec,relatime"), tight | MountAttrFlags::MOUNT_ATTR_RELATIME);
        assert_eq!(of("rw"), MountAttrFlags::MOUNT_ATTR_STRICTATIME);
        assert_eq!(
            of("rw,noatime,nodiratime"),
            MountAttrFlags::MOUNT_ATTR_NOATIME | MountAttrFlags::MOUNT_ATTR_NODIRATIME
        );
    }
}
