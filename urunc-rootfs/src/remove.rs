//! Removing a directory with everything in it, without ever leaving it: no link is followed, no mount crossed.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags, openat, openat2, renameat_with, unlinkat,
};
use rustix::io::Errno;

use crate::mounts::{MountTable, MountTableError};

/// Directories deeper than this are first moved to the top, so that neither descriptors nor the stack run out.
const DEEPEST: u32 = 32;

/// Why a directory was not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// Something is mounted in it: nothing was removed.
    #[error("cannot remove {}: something is mounted at {}", path.display(), point.display())]
    Mounted {
        /// The directory.
        path: PathBuf,
        /// The mount point in it.
        point: PathBuf,
    },
    /// What is mounted cannot be told: nothing was removed.
    #[error(transparent)]
    Table(#[from] MountTableError),
    /// Part of it could not be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// What the kernel said; `EXDEV` and `EBUSY` mean that something has been mounted in it meanwhile.
        #[source]
        source: io::Error,
    },
}

/// Removes the directory `path` and everything in it. If it does not exist, that is success.
///
/// # Errors
/// [`RemoveError::Mounted`] and [`RemoveError::Table`] before anything is removed, [`RemoveError::Remove`] at the first
/// thing that cannot be.
pub fn remove_directory(path: impl AsRef<Path>) -> Result<(), RemoveError> {
    let path = path.as_ref();
    let cannot = |source| RemoveError::Remove { path: path.to_path_buf(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match openat(CWD, path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(cannot(e.into())),
    };
    // As the mount table spells it, without links.
    let real = fs::read_link(format!("/proc/self/fd/{}", top.as_raw_fd())).map_err(cannot)?;
    let table = MountTable::read()?;
    if let Some(mount) = table.mounts().iter().find(|m| m.point.starts_with(&real)) {
        return Err(RemoveError::Mounted { path: path.to_path_buf(), point: mount.point.clone() });
    }
    let mut moved = 0;
    loop {
        let before = moved;
        empty(&top, &top, 0, &mut moved).map_err(|e| cannot(e.into()))?;
        if moved == before {
            break;
        }
    }
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(cannot(e.into())),
    }
}

/// Removes everything in `dir`, `depth` levels below `top`; counts what was moved to `top` in place of that.
fn empty(top: &OwnedFd, dir: &OwnedFd, depth: u32, moved: &mut u64) -> rustix::io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(e) => return Err(e),
        }
        if depth == DEEPEST {
            *moved += 1;
            renameat_with(dir, name, top, format!("urunc-removing-{moved}"), RenameFlags::NOREPLACE)?;
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let below = openat2(dir, name, flags, Mode::empty(), resolve)?;
        empty(top, &below, depth + 1, moved)?;
        unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}
