//! Replacing a file so that every reader, now and after a crash, sees the old contents or the new, never a
//! mixture and never nothing (F1, B19).
//!
//! A temporary file of a unique name in the same directory is written and synced; `atomicwrites` renames it over
//! the target and syncs the directory. That is one sync of the file and one of the directory (F5).
//! `atomicwrites::AtomicFile` would make a temporary directory for each write and sync that as well: 21 system
//! calls and three syncs where this takes 9 and two, and a crash leaves a directory where this leaves one file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use crate::unique::UniqueName;

/// Who may read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// 0600.
    Private,
    /// 0644, whatever the umask says.
    Public,
}

/// Replaces `name` in `directory` by a file with these contents. `temporary` is the name to use until then.
pub(crate) fn replace(
    directory: BorrowedFd<'_>,
    name: &str,
    temporary: &UniqueName,
    access: Access,
    contents: &[u8],
) -> Result<(), WriteError> {
    create(directory, temporary.as_str(), access, contents).inspect_err(|error| {
        if matches!(error, WriteError::Write { .. }) {
            // Best effort: the first error is the one to report, and what is left is swept later.
            let _ = unlinkat(directory, temporary.as_str(), AtFlags::empty());
        }
    })?;
    // By descriptor, for the directory may be renamed or removed meanwhile, and its path may be long.
    let here = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let (from, to) = (format!("{here}/{temporary}"), format!("{here}/{name}"));
    atomicwrites::replace_atomic(from.as_ref(), to.as_ref()).map_err(|source| {
        // The temporary file is still there exactly if the rename has not happened.
        match unlinkat(directory, temporary.as_str(), AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => WriteError::Unsynced { name: name.to_owned(), source },
            _ => WriteError::Replace { name: name.to_owned(), source },
        }
    })
}

/// Writes a new file and syncs it; for a directory that nobody sees yet. On failure a part of it may be left.
pub(crate) fn create(
    directory: BorrowedFd<'_>,
    name: &str,
    access: Access,
    contents: &[u8],
) -> Result<(), WriteError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let private = Mode::RUSR | Mode::WUSR;
    let file = openat(directory, name, flags, private)
        .map_err(|errno| WriteError::Create { name: name.to_owned(), source: errno.into() })?;
    let mut file = File::from(file);
    let written = file.write_all(contents).and_then(|()| {
        if access == Access::Public {
            rustix::fs::fchmod(&file, private | Mode::RGRP | Mode::ROTH)?;
        }
        file.sync_all()
    });
    written.map_err(|source| WriteError::Write { name: name.to_owned(), source })
}

/// Which step of writing a file failed. Except after [`WriteError::Unsynced`] the earlier file is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No new file could be made.
    #[error("cannot create {name}")]
    Create {
        /// The file.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The contents could not be written or synced.
    #[error("cannot write {name}")]
    Write {
        /// The file.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The new file could not take the place of the old one, which is still there.
    #[error("cannot replace {name}, which is unchanged")]
    Replace {
        /// The file.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The new file *is* in place, but might not survive a power failure.
    #[error("{name} has been replaced, but cannot be made durable")]
    Unsynced {
        /// The file.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}
