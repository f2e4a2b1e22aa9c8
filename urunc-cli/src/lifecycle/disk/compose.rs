//! The initrd that start composes: the image's with the container's files added, in memory, once per start.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Gid, MemfdFlags, Mode, SealFlags, Uid};
use urunc_rootfs::Image;
use urunc_rootfs::initrd::{self, Addition, Content, Dialect};
use urunc_rootfs::root::Owner;
use urunc_rootfs::volumes::{Limits, VolumeSource};
use urunc_vmm::{ConfigPlace, Guest, Machine};

use super::plan::{COMPOSED_FD, FrozenDisk, composed};
use super::{DiskError, support};

/// Composes the initrd of `machine`, if it is to be composed, and returns it with the number that the monitor must
/// inherit it as.
///
/// # Errors
/// [`DiskError`]
pub(in crate::lifecycle) fn compose(
    frozen: &FrozenDisk,
    machine: &Machine,
    guest: Guest,
    rootfs: &Path,
    owner: Owner,
) -> Result<Option<(i32, OwnedFd)>, DiskError> {
    let Some(path) = frozen.initrd.as_deref().filter(|_| composed(machine)) else { return Ok(None) };
    let mut additions = Vec::new();
    for snapshot in &frozen.snapshots {
        additions
            .extend(VolumeSource::open(&snapshot.source)?.read(&snapshot.destination, Limits::default())?);
    }
    if let Some(config) = &machine.boot.config
        && let ConfigPlace::InitrdFile(path) = &config.place
    {
        // It may hold secrets; only the guest's root, who reads it, may.
        let content = Content::File(config.contents.clone());
        additions.push(Addition { path: path.into(), content, mode: 0o400, uid: 0, gid: 0, mtime: 0 });
    }
    let mut base = Image::open(rootfs)?.open_file(path)?.into_file();
    let dialect = support::dialect(guest).unwrap_or(Dialect::Appended);
    let mut out = io::BufWriter::with_capacity(1 << 20, memory_file(owner).map_err(DiskError::Memory)?);
    initrd::compose(&mut base, &additions, dialect, &mut out)?;
    let file = out.into_inner().map_err(|error| DiskError::Memory(error.into_error()))?;
    Ok(Some((COMPOSED_FD, sealed(file).map_err(DiskError::Memory)?)))
}

/// A file in memory that the monitor's user, and nobody else, may open.
fn memory_file(owner: Owner) -> io::Result<File> {
    let fd = rustix::fs::memfd_create("initrd", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::fchmod(&fd, Mode::RUSR)?;
    rustix::fs::fchown(&fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    Ok(fd.into())
}

fn sealed(mut file: File) -> io::Result<OwnedFd> {
    file.rewind()?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
    Ok(file.into())
}
