//! The pid file that the caller of `create` asks for, written like everything else: whole or not at all.
//!
//! It lies in a directory that is not ours, usually the bundle. The temporary name is therefore chosen, and
//! recorded in the container's origin, before it is used: what a crash leaves there is removed by that name,
//! without guessing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, open, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::atomic::{self, Access, WriteError};
use crate::unique::{Purpose, UniqueName};
use crate::{AbsolutePath, Pid};

/// A pid file to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFile {
    path: AbsolutePath,
    temporary: UniqueName,
}

impl PidFile {
    /// Plans the pid file at `path`. Nothing is touched yet.
    ///
    /// # Errors
    /// [`PidFileError::NoName`] when `path` ends in no file name.
    pub fn new(path: AbsolutePath) -> Result<Self, PidFileError> {
        if path.file_name().is_none() {
            return Err(PidFileError::NoName { path: path.to_path_buf() });
        }
        let temporary =
            UniqueName::new(Purpose::File).map_err(|errno| PidFileError::Random { source: errno.into() })?;
        Ok(Self { path, temporary })
    }

    /// Where it goes.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it, with mode 0644. An existing file is replaced; a symbolic link is replaced, not followed.
    ///
    /// Whatever has the temporary name already is neither written nor removed. So whoever tries again with a recorded plan
    /// after a crash calls [`remove_leftover`](Self::remove_leftover) first.
    ///
    /// # Errors
    /// [`PidFileError`] names the step; nothing temporary is left behind.
    pub fn write(&self, pid: Pid) -> Result<(), PidFileError> {
        let (directory, name) = self.open_directory()?;
        let text = pid.to_string();
        atomic::replace(directory.as_fd(), name, &self.temporary, Access::Public, text.as_bytes())
            .map_err(|source| PidFileError::Write { path: self.path.to_path_buf(), source })
    }

    /// Removes what a crash while writing may have left. The pid file itself stays: it is the caller's. When
    /// the directory is gone, so is the leftover.
    ///
    /// # Errors
    /// [`PidFileError`] when the directory cannot be opened or the leftover not be removed.
    pub fn remove_leftover(&self) -> Result<(), PidFileError> {
        let directory = match self.open_directory() {
            Ok((directory, _)) => directory,
            Err(PidFileError::Directory { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match unlinkat(&directory, self.temporary.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                let path = self.path.with_file_name(self.temporary.as_str());
                Err(PidFileError::Leftover { path, source: errno.into() })
            }
        }
    }

    fn open_directory(&self) -> Result<(OwnedFd, &str), PidFileError> {
        let parts = self.path.parent().zip(self.path.file_name().and_then(|name| name.to_str()));
        let (parent, name) = parts.ok_or_else(|| PidFileError::NoName { path: self.path.to_path_buf() })?;
        match open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(directory) => Ok((directory, name)),
            Err(errno) => Err(PidFileError::Directory { path: parent.to_path_buf(), source: errno.into() }),
        }
    }
}

/// Which step of writing a pid file failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PidFileError {
    /// The path ends in `/..` or is `/`.
    #[error("cannot write a pid file at {}: the path ends in no file name", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// The kernel gave no random name.
    #[error("cannot choose a temporary name for the pid file")]
    Random {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The directory of the pid file could not be opened.
    #[error("cannot open {}, the directory of the pid file", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the pid file {}", path.display())]
    Write {
        /// The pid file.
        path: PathBuf,
        /// The step.
        #[source]
        source: WriteError,
    },
    /// A leftover could not be removed.
    #[error("cannot remove {}, left by an interrupted create", path.display())]
    Leftover {
        /// The temporary file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}
