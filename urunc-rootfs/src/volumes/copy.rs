//! Putting small files into the container's root file system, before it goes to the guest as a disk.
//!
//! The file system is the container's own writable layer, and its contents are hostile: every destination is
//! resolved below its root. What is replaced is remembered, so that a create that fails leaves it as it was.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fgetxattr,
    flistxattr, fsetxattr, fstat, futimens, linkat, openat, readlinkat, renameat, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::confined::{self, Missing};
use crate::image::{FileKind, Image};
use crate::initrd::{Addition, Content};
use crate::sys::{self, FileHandle};

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
    Replaced(Box<Remembered>),
}

/// A file or link that is no longer there, with all that belongs to it.
#[derive(Debug)]
struct Remembered {
    path: PathBuf,
    content: Content,
    traits: Traits,
    /// The file itself, if it has other names, so that it still exists.
    inode: Option<FileHandle>,
}

/// Names and values.
type Attributes = Vec<(CString, Vec<u8>)>;

/// What a file has besides its content.
#[derive(Debug)]
struct Traits {
    mode: u32,
    uid: u32,
    gid: u32,
    times: Timestamps,
    /// Extended attributes, access control lists among them.
    attributes: Attributes,
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
                Change::Made(path) => {
                    let inside = path.strip_prefix("/").unwrap_or(&path);
                    confined::remove(image.as_fd(), inside).map_err(|e| cannot_copy(&path, e.into()))?;
                }
                Change::Replaced(old) => {
                    let dir = parent(image, &old.path, Missing::Fail);
                    let dir = dir.map_err(|e| cannot_copy(&old.path, e.into()))?;
                    old.put_back(&dir).map_err(|e| cannot_copy(&old.path, e))?;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, image: &Image, addition: &Addition) -> Result<(), CopyError> {
        let path = &addition.path;
        let cannot = |e: Errno| cannot_copy(path, e.into());
        let mut made = Vec::new();
        let dir = parent(image, path, Missing::Make(&mut made));
        self.changes.extend(made.into_iter().map(Change::Made));
        let dir = dir.map_err(cannot)?;
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
                self.changes.push(Change::Replaced(Box::new(old)));
            }
            (Some(kind), _) => return blocked(kind),
            (None, _) => self.changes.push(Change::Made(path.clone())),
        }
        let time = Timespec { tv_sec: i64::from(addition.mtime), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        let Addition { mode, uid, gid, .. } = *addition;
        let traits = Traits { mode, uid, gid, times, attributes: Vec::new() };
        write(&dir, path, &addition.content, &traits).map_err(|e| cannot_copy(path, e))
    }
}

impl Remembered {
    fn put_back(&self, dir: &OwnedFd) -> io::Result<()> {
        if let Some(inode) = &self.inode {
            match self.link_back(dir, inode) {
                Ok(()) => return Ok(()),
                // Its other names are gone, too, or the file system cannot find it any more.
                Err(error) => log::debug!("{:?} is put back as a file of its own: {error}", self.path),
            }
        }
        write(dir, &self.path, &self.content, &self.traits)
    }

    fn link_back(&self, dir: &OwnedFd, inode: &FileHandle) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = sys::open_by_handle(openat(dir, ".", flags, Mode::empty())?.as_fd(), inode)?;
        remove_unfinished(dir)?;
        linkat(&file, "", dir, UNFINISHED, AtFlags::EMPTY_PATH)?;
        Ok(renameat(dir, UNFINISHED, dir, self.path.file_name().unwrap_or_default())?)
    }
}

/// The directory that holds `path`.
fn parent(image: &Image, path: &Path, missing: Missing<'_>) -> rustix::io::Result<OwnedFd> {
    let inside = path.strip_prefix("/").map_err(|_| Errno::INVAL)?;
    confined::parent(image.as_fd(), inside, missing)
}

/// What is at `path` now.
fn remember(dir: &OwnedFd, path: &Path, kind: FileKind) -> Result<Remembered, CopyError> {
    let name = path.file_name().unwrap_or_default();
    let look = || -> io::Result<(Stat, Content, Attributes)> {
        if kind == FileKind::Link {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let to = readlinkat(dir, name, Vec::new())?.into_bytes();
            return Ok((stat, Content::Link(OsString::from_vec(to).into()), Vec::new()));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(dir, name, flags, Mode::empty())?);
        let stat = fstat(&file)?;
        let attributes = attributes(&file)?;
        let mut content = Vec::new();
        file.take(REMEMBERED + 1).read_to_end(&mut content)?;
        Ok((stat, Content::File(content), attributes))
    };
    let (stat, content, attributes) = look().map_err(|e| cannot_copy(path, e))?;
    match &content {
        Content::File(bytes) if u64::try_from(bytes.len()).is_ok_and(|n| n <= REMEMBERED) => {}
        Content::File(_) => {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            return Err(CopyError::TooLarge { path: path.to_path_buf(), size });
        }
        _ => {}
    }
    let nanoseconds = |n| i64::try_from(n).unwrap_or(0);
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanoseconds(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat.st_mtime_nsec) },
    };
    let mode = stat.st_mode & 0o7777;
    let traits = Traits { mode, uid: stat.st_uid, gid: stat.st_gid, times, attributes };
    // Not every file system has handles; then it comes back as a file of its own.
    let inode = (stat.st_nlink > 1).then(|| sys::handle_of(dir.as_fd(), name).ok()).flatten();
    Ok(Remembered { path: path.to_path_buf(), content, traits, inode })
}

/// The extended attributes of `file`; none where the file system has no such thing.
fn attributes(file: &File) -> io::Result<Attributes> {
    // As much as the kernel gives (xattr(7)).
    let mut names = vec![0; 64 * 1024];
    let length = match flistxattr(file, &mut names) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        length => length?,
    };
    let mut value = vec![0; 64 * 1024];
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut all = Vec::new();
    for name in names {
        let name = CString::new(name)?;
        let length = fgetxattr(file, &name, &mut value)?;
        all.push((name, value[..length].to_vec()));
    }
    Ok(all)
}

/// Puts `content` at the name of `path` in `dir`; a file appears there complete or not at all.
fn write(dir: &OwnedFd, path: &Path, content: &Content, traits: &Traits) -> io::Result<()> {
    let Traits { mode, uid, gid, times, attributes } = traits;
    let name = path.file_name().unwrap_or_default();
    let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
    let own = |file: &OwnedFd| -> io::Result<()> {
        rustix::fs::fchown(file, uid, gid)?;
        fchmod(file, Mode::from_raw_mode(*mode))?;
        // A change of owner takes some of them away.
        for (name, value) in attributes {
            fsetxattr(file, name, value, XattrFlags::empty())?;
        }
        Ok(futimens(file, times)?)
    };
    if *content == Content::Directory {
        return own(&confined::make_directory(dir, name)?);
    }
    remove_unfinished(dir)?;
    let make = || -> io::Result<()> {
        if let Content::File(bytes) = content {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(dir, UNFINISHED, flags, Mode::RUSR | Mode::WUSR)?);
            file.write_all(bytes)?;
            own(&file.into())?;
        } else if let Content::Link(to) = content {
            symlinkat(to.as_path(), dir, UNFINISHED)?;
            chownat(dir, UNFINISHED, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            utimensat(dir, UNFINISHED, times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(renameat(dir, UNFINISHED, dir, name)?)
    };
    make().inspect_err(|_| {
        // What failed matters, not whether its remains could be removed: the next attempt does that first.
        let _ = unlinkat(dir, UNFINISHED, AtFlags::empty());
    })
}

/// Removes what an attempt that was killed has left.
fn remove_unfinished(dir: &OwnedFd) -> rustix::io::Result<()> {
    match unlinkat(dir, UNFINISHED, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

fn cannot_copy(path: &Path, source: io::Error) -> CopyError {
    CopyError::Copy { path: path.to_path_buf(), source }
}
