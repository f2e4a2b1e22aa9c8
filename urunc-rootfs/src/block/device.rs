//! Block devices as descriptors, verified to be the ones that were meant.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::mounts::DeviceNumber;
use crate::root::{Device, DeviceKind};
use crate::sys;

/// A block device that nobody has mounted and, while this is open, nobody can mount.
///
/// A loop device stays attached as long as this is open: let the monitor inherit it.
#[derive(Debug)]
pub struct BlockDevice {
    file: File,
    number: DeviceNumber,
}

impl BlockDevice {
    /// Opens the node exclusively; `EBUSY` if the device is mounted in any namespace, or part of another one.
    pub(super) fn claim(node: &Path, number: DeviceNumber, access: Access) -> io::Result<Self> {
        let mode = match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        Ok(Self { file: open(node, number, mode | OFlags::EXCL)?, number })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// What a node for it in the monitor's root stands for.
    #[must_use]
    pub fn device(&self) -> Device {
        Device { kind: DeviceKind::Block, major: self.number.major, minor: self.number.minor }
    }
}

impl AsFd for BlockDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens `node`, which must be the block device `number`.
pub(super) fn open(node: &Path, number: DeviceNumber, flags: OFlags) -> io::Result<File> {
    // Looked at first: opening another kind of device may have side effects.
    let is_it = |m: &fs::Metadata| m.file_type().is_block_device() && DeviceNumber::from(m.rdev()) == number;
    if !is_it(&fs::metadata(node)?) {
        return Err(Errno::NODEV.into());
    }
    let file = File::from(openat(CWD, node, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?);
    if is_it(&file.metadata()?) { Ok(file) } else { Err(Errno::NODEV.into()) }
}

/// The kernel's serial number of what is in a device: it changes when a loop or device-mapper number is used for
/// something else (`/sys/block/…/diskseq`, Linux 5.15). None on older kernels.
pub(super) fn disk_sequence(number: DeviceNumber) -> io::Result<Option<u64>> {
    match fs::read_to_string(format!("/sys/dev/block/{number}/diskseq")) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a loop device does when nobody has it open any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WhenUnused {
    /// It stays; or it is no loop device.
    Stay,
    /// It lets go of its file.
    Clear,
}

/// Asks the device.
pub(super) fn when_unused(device: &File, number: DeviceNumber) -> io::Result<WhenUnused> {
    if !Path::new(&format!("/sys/dev/block/{number}/loop")).try_exists()? {
        return Ok(WhenUnused::Stay);
    }
    let clears = sys::loop_info(device.as_fd())?.flags & sys::LO_FLAGS_AUTOCLEAR != 0;
    Ok(if clears { WhenUnused::Clear } else { WhenUnused::Stay })
}

/// Tells a loop device what to do.
pub(super) fn set_when_unused(device: &File, what: WhenUnused) -> io::Result<()> {
    let mut info = sys::loop_info(device.as_fd())?;
    match what {
        WhenUnused::Stay => info.flags &= !sys::LO_FLAGS_AUTOCLEAR,
        WhenUnused::Clear => info.flags |= sys::LO_FLAGS_AUTOCLEAR,
    }
    sys::set_loop_info(device.as_fd(), &info)
}
