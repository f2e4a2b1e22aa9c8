//! Deleting a directory of ours: by descriptor from top to bottom, never through a symbolic link and never into
//! another mount (B5, B12).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, unlinkat};
use rustix::io::Errno;

/// Something that could not be deleted.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Deletes the directory `name` in `parent`, which is open as `directory`. Goes on after a failure and reports
/// the first one; what has gone meanwhile counts as deleted.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &OsStr, directory: BorrowedFd<'_>) -> Result<(), Left> {
    let emptied = empty(directory).map_err(|left| below(name, left));
    let removed =
        ignore_missing(unlinkat(parent, name, AtFlags::REMOVEDIR)).map_err(|errno| left(name, errno));
    emptied.and(removed)
}

fn empty(directory: BorrowedFd<'_>) -> Result<(), Left> {
    let mut result = Ok(());
    for (name, file_type) in entries(directory).map_err(|errno| left(".".as_ref(), errno))? {
        result = result.and(remove_entry(directory, &name, file_type));
    }
    result
}

fn remove_entry(parent: BorrowedFd<'_>, name: &OsStr, file_type: FileType) -> Result<(), Left> {
    if file_type != FileType::Directory {
        match unlinkat(parent, name, AtFlags::empty()) {
            // Not every file system says in its listing what is a directory.
            Err(Errno::ISDIR) => {}
            result => return ignore_missing(result).map_err(|errno| left(name, errno)),
        }
    }
    match open_below(parent, name) {
        Ok(directory) => remove(parent, name, directory.as_fd()),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(left(name, errno)),
    }
}

fn open_below(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat2(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

/// All entries but `.` and `..`, read before anything is changed.
pub(crate) fn entries(directory: BorrowedFd<'_>) -> Result<Vec<(OsString, FileType)>, Errno> {
    let mut entries = vec![];
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            entries.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(entries)
}

fn ignore_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}

fn left(name: &OsStr, errno: Errno) -> Left {
    Left { path: PathBuf::from(name), source: errno.into() }
}

fn below(name: &OsStr, inner: Left) -> Left {
    Left { path: PathBuf::from(name).join(inner.path), source: inner.source }
}
