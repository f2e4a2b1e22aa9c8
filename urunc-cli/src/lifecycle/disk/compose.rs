//! The initrd that start composes: the image's with the container's files added, in memory, once per start.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Gid, MemfdFlags, Mode, SealFlags, Uid};
use urunc_rootfs::Image;
use urunc_rootfs::initrd::{self, Addition, Content, Dialect, InitrdError};
use urunc_rootfs::root::{Owner, Tmpfs};
use urunc_vmm::{ConfigPlace, Guest, Machine};

use super::plan::{COMPOSED_FD, FrozenDisk, composed};
use super::snapshot::Snapshot;
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
    let mut parts = Vec::new();
    for snapshot in &frozen.snapshots {
        let additions = snapshot.unless_customary(snapshot.read())?;
        parts.extend(additions.map(|additions| (Some(snapshot), additions)));
    }
    for (destination, Tmpfs { mode, owner: Owner { uid, gid }, .. }) in &frozen.directories {
        let path = destination.as_path().to_owned();
        let content = Content::Directory;
        parts.push((None, vec![Addition { path, content, mode: *mode, uid: *uid, gid: *gid, mtime: 0 }]));
    }
    if let Some(config) = &machine.boot.config
        && let ConfigPlace::InitrdFile(path) = &config.place
    {
        // It may hold secrets; only the guest's root, who reads it, may.
        let content = Content::File(config.contents.clone());
        let file = Addition { path: path.into(), content, mode: 0o400, uid: 0, gid: 0, mtime: 0 };
        parts.push((None, vec![file]));
    }
    let mut base = Image::open(rootfs)?.open_file(path)?.into_file();
    fits(base.metadata().map_err(DiskError::Look)?.len(), machine)?;
    let dialect = support::dialect(guest).unwrap_or(Dialect::Appended);
    // What has no place in this initrd is left out, if it was not asked for; each attempt leaves out one part.
    let file = loop {
        let all: Vec<Addition> = parts.iter().flat_map(|(_, additions)| additions.iter().cloned()).collect();
        match attempt(&mut base, &all, dialect, owner) {
            Ok(file) => break file,
            Err(error) => {
                let Some(at) = culprit(&error, &parts) else { return Err(error) };
                let (Some(snapshot), _) = parts.remove(at) else { return Err(error) };
                snapshot.unless_customary(Err::<(), _>(error))?;
            }
        }
    };
    Ok(Some((COMPOSED_FD, sealed(file).map_err(DiskError::Memory)?)))
}

/// Whether `bytes` of files that end up in the host's memory fit into the guest, which loads all of them. They come from the
/// image, and nobody's limit counts them.
pub(super) fn fits(bytes: u64, machine: &Machine) -> Result<(), DiskError> {
    let memory = machine.memory.as_bytes();
    if bytes > memory { Err(DiskError::TooLarge { bytes, memory }) } else { Ok(()) }
}

/// Which part it is that cannot be added.
fn culprit(error: &DiskError, parts: &[(Option<&Snapshot>, Vec<Addition>)]) -> Option<usize> {
    let (InitrdError::Blocked { path }
    | InitrdError::Shared { path }
    | InitrdError::PerhapsALink { path }
    | InitrdError::Unfit { path }) = (match error {
        DiskError::Initrd(error) => error,
        _ => return None,
    })
    else {
        return None;
    };
    parts.iter().position(|(_, additions)| additions.iter().any(|addition| addition.path == *path))
}

fn attempt(
    base: &mut File,
    additions: &[Addition],
    dialect: Dialect,
    owner: Owner,
) -> Result<File, DiskError> {
    let mut out = io::BufWriter::with_capacity(1 << 20, memory_file(owner).map_err(DiskError::Memory)?);
    initrd::compose(base, additions, dialect, &mut out)?;
    out.into_inner().map_err(|error| DiskError::Memory(error.into_error()))
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
