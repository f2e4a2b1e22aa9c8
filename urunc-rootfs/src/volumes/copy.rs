//! Putting small files into the container's root file system, before it goes to the guest as a disk.
//!
//! The file system is the container's own writable layer, and its contents are hostile: every destination is
//! resolved below its root. What is replaced is remembered, so that a create that fails leaves it as it was.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fstat, futimens, openat,
    readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::confined::{self, Missing};
use crate::image::{FileKind, Image};
use crate::initrd::{Addition, Content};

/// A file larger than this is not replaced: it would have to be remembered.
const REMEMBERED: u64 = 1 << 20;

/// Name of a file that is not complete yet.
const UNFINISHED: &str = ".urunc-unfinished";

/// Why files cannot be copied into the container's root file system. It is then as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The destination, or its directory, cannot be made.
    #[error("cannot copy a volume to {path:?} of the container's root file system")]
    Copy {
        /// The destination.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A directory would replace a file, or a file a directory.
    #[error("cannot copy a volume to {path:?} of the container's root file system: {kind} is there")]
    Blocked {
        /// The destination.
        path: PathBuf,
        /// What is there.
        kind: FileKind,
    },
    /// What is there is too large to be put back if anything fails later.
    #[error(
        "cannot replace {path:?} of the container's root file system: it has {size} bytes, more than {REMEMBERED}"
    )]
    TooLarge {
        /// The destination.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
}

/// What copying changed.
#[derive(Debug, Default)]
pub struct Copied {
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Made(PathBuf),
    Replaced(Addition),
}

/// Copies `additions` into the image's directory, each to its path there; what is at the place of a file is replaced.
///
/// # Errors
/// [`CopyError`]; everything is put back.
pub fn copy_into(image: &Image, additions: &[Addition]) -> Result<Copied, CopyError> {
    let mut copied = Copied::default();
    for addition in additions {
        if let Err(e) = copied.put(image, addition) {
            copied.undo(image)?;
            return Err(e);
        }
    }
    Ok(copied)
}

impl Copied {
    /// Puts everything back as it was.
    ///
    /// # Errors
    /// [`CopyError::Copy`] names what is not as it was.
    pub fn undo(self, image: &Image) -> Result<(), CopyError> {
        for change in self.changes.into_iter().rev() {
            match change {
                Change::Made(path) => remove(image, &path).map_err(|e| cannot_copy(&path, e))?,
                Change::Replaced(old) => {
                    let (dir, _) = parent(image, &old.path).map_err(|e| cannot_copy(&old.path, e.into()))?;
                    write(&dir, &old).map_err(|e| cannot_copy(&old.path, e))?;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, image: &Image, addition: &Addition) -> Result<(), CopyError> {
        let path = &addition.path;
        let cannot = |e: Errno| cannot_copy(path, e.into());
        let (dir, made) = parent(image, path).map_err(cannot)?;
        self.changes.extend(made.into_iter().map(Change::Made));
        let name = path.file_name().ok_or_else(|| cannot(Errno::INVAL))?;
        let there = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileKind::of(&stat)),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(cannot(e)),
        };
        let blocked = |kind| Err(CopyError::Blocked { path: path.clone(), kind });
        match (there, &addition.content) {
            // A directory's own files stay; the volume's are put beside them.
            (Some(FileKind::Directory), Content::Directory) => return Ok(()),
            (Some(kind @ FileKind::Directory), _) => return blocked(kind),
            (Some(kind @ (FileKind::Regular | FileKind::Link)), Content::File(_) | Content::Link(_)) => {
                let old = remember(&dir, path, kind)?;
                self.changes.push(Change::Replaced(old));
            }
            (Some(kind), _) => return blocked(kind),
            (None, _) => self.changes.push(Change::Made(path.clone())),
        }
        write(&dir, addition).map_err(|e| cannot_copy(path, e))
    }
}

/// The directory that holds `path`, and what had to be made for it.
fn parent(image: &Image, path: &Path) -> rustix::io::Result<(OwnedFd, Vec<PathBuf>)> {
    let inside = path.strip_prefix("/").map_err(|_| Errno::INVAL)?;
    confined::parent(image.as_fd(), inside, Missing::Make)
}

/// What is at `path` now.
fn remember(dir: &OwnedFd, path: &Path, kind: FileKind) -> Result<Addition, CopyError> {
    let name = path.file_name().unwrap_or_default();
    let look = || -> io::Result<(rustix::fs::Stat, Content)> {
        if kind == FileKind::Link {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let to = readlinkat(dir, name, Vec::new())?.into_bytes();
            return Ok((stat, Content::Link(OsString::from_vec(to).into())));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(dir, name, flags, Mode::empty())?);
        let stat = fstat(&file)?;
        let mut content = Vec::new();
        file.take(REMEMBERED + 1).read_to_end(&mut content)?;
        Ok((stat, Content::File(content)))
    };
    let (stat, content) = look().map_err(|e| cannot_copy(path, e))?;
    match &content {
        Content::File(bytes) if u64::try_from(bytes.len()).is_ok_and(|n| n <= REMEMBERED) => {}
        Content::File(_) => {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            return Err(CopyError::TooLarge { path: path.to_path_buf(), size });
        }
        _ => {}
    }
    let mtime = u32::try_from(stat.st_mtime).unwrap_or(0);
    let mode = stat.st_mode & 0o7777;
    Ok(Addition { path: path.to_path_buf(), content, mode, uid: stat.st_uid, gid: stat.st_gid, mtime })
}

/// Puts `addition` at its name in `dir`; a file appears there complete or not at all.
fn write(dir: &OwnedFd, addition: &Addition) -> io::Result<()> {
    let Addition { path, content, mode, uid, gid, mtime } = addition;
    let name = path.file_name().unwrap_or_default();
    let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
    let own = |file: &OwnedFd| -> io::Result<()> {
        rustix::fs::fchown(file, uid, gid)?;
        fchmod(file, Mode::from_raw_mode(*mode))?;
        let time = Timespec { tv_sec: i64::from(*mtime), tv_nsec: 0 };
        Ok(futimens(file, &Timestamps { last_access: time, last_modification: time })?)
    };
    if *content == Content::Directory {
        return own(&confined::make_directory(dir, name)?);
    }
    match unlinkat(dir, UNFINISHED, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let make = || -> io::Result<()> {
        if let Content::File(bytes) = content {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(dir, UNFINISHED, flags, Mode::RUSR | Mode::WUSR)?);
            file.write_all(bytes)?;
            own(&file.into())?;
        } else if let Content::Link(to) = content {
            symlinkat(to.as_path(), dir, UNFINISHED)?;
            chownat(dir, UNFINISHED, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(renameat(dir, UNFINISHED, dir, name)?)
    };
    make().inspect_err(|_| {
        // What failed matters, not whether its remains could be removed: the next attempt does that first.
        let _ = unlinkat(dir, UNFINISHED, AtFlags::empty());
    })
}

/// Removes what was made at `path`, if it is there.
fn remove(image: &Image, path: &Path) -> io::Result<()> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let dir = match confined::parent(image.as_fd(), path, Missing::Fail) {
        Ok((dir, _)) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let name = path.file_name().unwrap_or_default();
    let removed = match unlinkat(&dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(&dir, name, AtFlags::REMOVEDIR),
        other => other,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn cannot_copy(path: &Path, source: io::Error) -> CopyError {
    CopyError::Copy { path: path.to_path_buf(), source }
}
