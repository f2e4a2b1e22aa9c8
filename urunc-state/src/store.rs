//! The directory of all containers, `ROOT/ID/`: which are ours, how they are held and read.
//!
//! How a container's directory appears is in `create`, how it goes in `remove`, and what crashes leave of either
//! in `sweep`.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, accessat, fstat, open, openat, statat};
use rustix::io::Errno;

use crate::files::{self, ORIGIN};
use crate::lock::{Attempt, lock_until};
use crate::{ContainerId, Deadline, Lock, Locked, Origin, Record, StoreError, procfs, tree};

/// How a container's directory is opened.
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// All containers below one root.
#[derive(Debug)]
pub struct Store {
    root: OwnedFd,
    path: PathBuf,
}

impl Store {
    /// Opens the store at `root`, which is created with mode 0700 if it is missing.
    ///
    /// Whoever may write to `root` decides what is done to the containers in it, and with the caller's rights: a record
    /// names processes, mounts and control groups. One that exists already is taken as it is, as other runtimes do, for
    /// there is no telling who shares a group with whom, or whose home an administrator works in. So choose a
    /// root that nobody else can write to.
    ///
    /// # Errors
    /// [`StoreError::UnfitRoot`] for `/`, a link to it, a relative path or one with `..`; [`StoreError::Root`] when it cannot be
    /// opened or created.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let path = root.to_path_buf();
        let named = root.components().any(|part| matches!(part, Component::Normal(_)));
        if !root.is_absolute() || !named || root.components().any(|part| part == Component::ParentDir) {
            return Err(StoreError::UnfitRoot { path });
        }
        let open_root = || open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let opened = match open_root() {
            Err(Errno::NOENT) => DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(root)
                .and_then(|()| open_root().map_err(Into::into)),
            result => result.map_err(Into::into),
        };
        let found = opened.and_then(|root| {
            let path = procfs::path_of(root.as_fd())?;
            Ok((root, path))
        });
        match found {
            Ok((_, real)) if real.parent().is_none() => Err(StoreError::UnfitRoot { path }),
            Ok((root, path)) => Ok(Self { root, path }),
            Err(source) => Err(StoreError::Root { path, source }),
        }
    }

    /// Where it is: the same path however the root was spelled when it was opened, by a symbolic link or with slashes to
    /// spare, so that it can tell this store from others.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Holds a container, waiting until `deadline` for whoever holds it now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also when the container is deleted during the wait; [`StoreError::NotOurs`];
    /// [`StoreError::Busy`] at the deadline; [`StoreError::Document`] when the record is unusable (see
    /// [`lock_without_record`](Self::lock_without_record)); otherwise the step that failed.
    pub fn lock(&self, id: &ContainerId, deadline: Deadline) -> Result<Locked, StoreError> {
        let lock = self.lock_without_record(id, deadline)?;
        let record = files::read_record(id, lock.dir())?;
        Ok(Locked { lock, record })
    }

    /// Holds a container without reading its record: for removing one whose record is unusable.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), but for the record.
    pub fn lock_without_record(&self, id: &ContainerId, deadline: Deadline) -> Result<Lock, StoreError> {
        loop {
            let directory = self.directory(id)?;
            let failed = |errno| directory_error(id, "lock", errno);
            if lock_until(directory.as_fd(), deadline).map_err(failed)? == Attempt::Held {
                return Err(StoreError::Busy { id: id.clone() });
            }
            // Whoever held it may have deleted the container, and another may have the id by now.
            if self.shows(id.as_str(), directory.as_fd()).map_err(failed)? {
                return Ok(Lock { id: id.clone(), directory });
            }
        }
    }

    /// Reads a container's record without holding the container.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NotOurs`], [`StoreError::Document`] when the record is unusable, or
    /// [`StoreError::Read`].
    pub fn read(&self, id: &ContainerId) -> Result<Record, StoreError> {
        self.read_unlocked(id, files::read_record)
    }

    /// Reads a container's origin, which needs no lock as it never changes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn origin(&self, id: &ContainerId) -> Result<Origin, StoreError> {
        self.read_unlocked(id, files::read_origin)
    }

    fn read_unlocked<T>(
        &self,
        id: &ContainerId,
        read: impl Fn(&ContainerId, BorrowedFd<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let directory = self.directory(id)?;
            match read(id, directory.as_fd()) {
                // A file can be missing because the container is just being deleted. Then it is gone, or there
                // is another one by now.
                Err(StoreError::Read { source, .. })
                    if source.kind() == io::ErrorKind::NotFound
                        && !self
                            .shows(id.as_str(), directory.as_fd())
                            .map_err(|errno| directory_error(id, "compare", errno))? => {}
                result => return result,
            }
        }
    }

    /// Whether the container is ours. Otherwise the id is free or belongs to another runtime.
    ///
    /// # Errors
    /// [`StoreError::Directory`] when that cannot be found out.
    pub fn owns(&self, id: &ContainerId) -> Result<bool, StoreError> {
        match self.directory(id) {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. } | StoreError::NotOurs { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The ids of our containers, sorted.
    ///
    /// # Errors
    /// [`StoreError::Root`] when the root cannot be listed, [`StoreError::Directory`] when it cannot be told of one
    /// entry whether it is ours.
    pub fn list(&self) -> Result<Vec<ContainerId>, StoreError> {
        let mut ours = vec![];
        for (name, _) in self.entries()? {
            let Some(id) = name.to_str().and_then(|name| ContainerId::new(name).ok()) else { continue };
            if self.owns(&id)? {
                ours.push(id);
            }
        }
        ours.sort_unstable();
        Ok(ours)
    }

    /// Opens the directory of a container without holding the container: for the sockets in it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NotOurs`] or [`StoreError::Directory`].
    pub fn directory(&self, id: &ContainerId) -> Result<OwnedFd, StoreError> {
        let failed = |errno| directory_error(id, "open", errno);
        let directory = match openat(&self.root, id.as_str(), DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Err(StoreError::NotFound { id: id.clone() }),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(StoreError::NotOurs { id: id.clone() }),
            result => result.map_err(failed)?,
        };
        match accessat(&directory, ORIGIN, Access::EXISTS, AtFlags::empty()) {
            Ok(()) => Ok(directory),
            Err(Errno::NOENT) if self.shows(id.as_str(), directory.as_fd()).map_err(failed)? => {
                Err(StoreError::NotOurs { id: id.clone() })
            }
            Err(Errno::NOENT) => Err(StoreError::NotFound { id: id.clone() }),
            Err(errno) => Err(failed(errno)),
        }
    }

    pub(crate) fn entries(&self) -> Result<Vec<(OsString, FileType)>, StoreError> {
        tree::entries(self.root.as_fd())
            .map_err(|errno| StoreError::Root { path: self.path.clone(), source: errno.into() })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether `name` still leads to this very directory.
    pub(crate) fn shows(&self, name: &str, directory: BorrowedFd<'_>) -> Result<bool, Errno> {
        let held = fstat(directory)?;
        match statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(seen) => Ok((seen.st_dev, seen.st_ino) == (held.st_dev, held.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

pub(crate) fn directory_error(id: &ContainerId, step: &'static str, errno: Errno) -> StoreError {
    StoreError::Directory { id: id.clone(), step, source: errno.into() }
}
