//! The directory of all containers: `ROOT/ID/{origin.json,state.json}`.
//!
//! A container's directory appears whole, by a rename that refuses to replace (B18), and disappears whole, by a
//! rename out of sight; nobody sees what lies between. In both hidden stages it has a name that is no container
//! id and is locked as long as somebody works on it, so that [`Store::sweep`] can tell leftovers from work in
//! progress.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{
    Access, AtFlags, FileType, Mode, OFlags, RenameFlags, accessat, fstat, fsync, mkdirat, open, openat,
    renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, read, retry_on_intr};

use crate::lock::{Attempt, STATE, lock_until, try_lock};
use crate::unique::{Purpose, UniqueName};
use crate::{ContainerId, Deadline, Lock, Locked, Origin, Record, StoreError, WriteError, atomic, tree};

/// The name of the origin in a container's directory. That it exists makes the container ours.
const ORIGIN: &str = "origin.json";

/// Longest file name of Linux's file systems (`NAME_MAX` in `linux/limits.h`).
const NAME_MAX: usize = 255;

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
    /// # Errors
    /// [`StoreError::UnfitRoot`] for `/`, a relative path or one with `..`; [`StoreError::Root`] when it cannot be
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
        match opened {
            Ok(root) => Ok(Self { root, path }),
            Err(source) => Err(StoreError::Root { path, source }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a container and holds it. Its directory appears with its origin and its first record in it, or
    /// not at all.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the id is taken, by whomever; [`StoreError::IdTooLong`];
    /// [`StoreError::OtherContainer`] when origin and record disagree; otherwise the step that failed. In each
    /// case nothing of the new container is left.
    pub fn create(&self, origin: &Origin, mut record: Record) -> Result<Locked, StoreError> {
        let id = record.id().clone();
        if origin.id() != &id {
            return Err(StoreError::OtherContainer { id: origin.id().clone(), record: id });
        }
        if id.as_str().len() > NAME_MAX {
            return Err(StoreError::IdTooLong { id, limit: NAME_MAX });
        }
        let document = |file, source| StoreError::Document { id: id.clone(), file, source };
        let files = [
            (ORIGIN, origin.to_json().map_err(|source| document(ORIGIN, source))?),
            (STATE, record.to_json().map_err(|source| document(STATE, source))?),
        ];
        let (hidden, directory) = self.hidden_directory(&id)?;
        if let Err(error) = self.fill_and_show(&id, &hidden, directory.as_fd(), &files) {
            // Best effort: the first error is the one to report, and the sweep takes care of the rest.
            let _ = tree::remove(self.root.as_fd(), hidden.as_ref(), directory.as_fd());
            return Err(error);
        }
        let lock = Lock { id, directory };
        if let Err(errno) = fsync(&self.root) {
            let failed = directory_error(&lock.id, "make durable", errno);
            let _ = self.remove(lock);
            return Err(failed);
        }
        Ok(Locked { lock, record })
    }

    /// Makes a directory that only we work on: of a unique name, and locked.
    fn hidden_directory(&self, id: &ContainerId) -> Result<(UniqueName, OwnedFd), StoreError> {
        let failed = |errno| directory_error(id, "create", errno);
        // A sweep may take the directory for a leftover in the moment before it is locked. Then try another.
        loop {
            let name = UniqueName::new(Purpose::Create).map_err(failed)?;
            mkdirat(&self.root, name.as_str(), Mode::RWXU).map_err(failed)?;
            match self.hold_hidden(&name) {
                Ok(Some(directory)) => return Ok((name, directory)),
                Ok(None) => {}
                Err(errno) => {
                    let _ = unlinkat(&self.root, name.as_str(), AtFlags::REMOVEDIR);
                    return Err(failed(errno));
                }
            }
        }
    }

    /// Opens and locks a directory that we have just made; `None` when a sweep was faster.
    fn hold_hidden(&self, name: &UniqueName) -> Result<Option<OwnedFd>, Errno> {
        let directory = match openat(&self.root, name.as_str(), DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result?,
        };
        let ours = try_lock(directory.as_fd())? == Attempt::Obtained
            && self.shows(name.as_str(), directory.as_fd())?;
        Ok(ours.then_some(directory))
    }

    fn fill_and_show(
        &self,
        id: &ContainerId,
        hidden: &UniqueName,
        directory: BorrowedFd<'_>,
        files: &[(&str, Vec<u8>)],
    ) -> Result<(), StoreError> {
        for (name, contents) in files {
            atomic::create(directory, name, atomic::Access::Private, contents)
                .map_err(|source: WriteError| StoreError::Write { id: id.clone(), source })?;
        }
        fsync(directory).map_err(|errno| directory_error(id, "make durable", errno))?;
        match renameat_with(&self.root, hidden.as_str(), &self.root, id.as_str(), RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(StoreError::AlreadyExists { id: id.clone() }),
            Err(errno) => Err(directory_error(id, "create", errno)),
        }
    }

    /// Holds a container, waiting until `deadline` for whoever holds it now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also when the container is deleted during the wait; [`StoreError::NotOurs`];
    /// [`StoreError::Busy`] at the deadline; [`StoreError::Document`] when the record is unusable (see
    /// [`lock_without_record`](Self::lock_without_record)); otherwise the step that failed.
    pub fn lock(&self, id: &ContainerId, deadline: Deadline) -> Result<Locked, StoreError> {
        let lock = self.lock_without_record(id, deadline)?;
        let record = read_record(id, lock.dir())?;
        Ok(Locked { lock, record })
    }

    /// Holds a container without reading its record: for removing one whose record is unusable.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), but for the record.
    pub fn lock_without_record(&self, id: &ContainerId, deadline: Deadline) -> Result<Lock, StoreError> {
        loop {
            let directory = self.container(id)?;
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
        self.read_unlocked(id, read_record)
    }

    /// Reads a container's origin, which needs no lock as it never changes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn origin(&self, id: &ContainerId) -> Result<Origin, StoreError> {
        self.read_unlocked(id, read_origin)
    }

    fn read_unlocked<T>(
        &self,
        id: &ContainerId,
        read: impl Fn(&ContainerId, BorrowedFd<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let directory = self.container(id)?;
            match read(id, directory.as_fd()) {
                // A file can be missing because the container is just being deleted. Then it is gone, or there
                // is another one by now.
                Err(StoreError::Read { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound
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
        match self.container(id) {
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

    /// Removes a container that is held. First it disappears from sight, then it is deleted: at no time can
    /// anybody see a part of it.
    ///
    /// # Errors
    /// [`StoreError::Directory`] when it cannot be moved out of sight; it is then still there. After
    /// [`StoreError::Remove`] it is gone, but a part of its files is left for the next [`sweep`](Self::sweep).
    pub fn remove(&self, container: impl Into<Lock>) -> Result<(), StoreError> {
        let Lock { id, directory } = container.into();
        let failed = |errno| directory_error(&id, "remove", errno);
        if !self.shows(id.as_str(), directory.as_fd()).map_err(failed)? {
            // Of another store, or moved away by hand: not what was locked.
            return Err(StoreError::NotFound { id });
        }
        let hidden = UniqueName::new(Purpose::Remove).map_err(failed)?;
        renameat_with(&self.root, id.as_str(), &self.root, hidden.as_str(), RenameFlags::NOREPLACE)
            .map_err(failed)?;
        // `directory` stays open, and with it the lock, until all is deleted: so no sweep interferes.
        tree::remove(self.root.as_fd(), hidden.as_ref(), directory.as_fd()).map_err(|left| {
            StoreError::Remove { id: id.clone(), path: self.path.join(left.path), source: left.source }
        })
    }

    /// Opens the directory of a container of ours.
    pub(crate) fn container(&self, id: &ContainerId) -> Result<OwnedFd, StoreError> {
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

fn read_record(id: &ContainerId, directory: BorrowedFd<'_>) -> Result<Record, StoreError> {
    let json = read_file(id, directory, STATE)?;
    let unusable = |source| StoreError::Document { id: id.clone(), file: STATE, source };
    let record = Record::from_json(&json).map_err(unusable)?;
    same_container(id, record.id())?;
    Ok(record)
}

fn read_origin(id: &ContainerId, directory: BorrowedFd<'_>) -> Result<Origin, StoreError> {
    let json = read_file(id, directory, ORIGIN)?;
    let unusable = |source| StoreError::Document { id: id.clone(), file: ORIGIN, source };
    let origin = Origin::from_json(&json).map_err(unusable)?;
    same_container(id, origin.id())?;
    Ok(origin)
}

/// A document that names another container was copied here by somebody: acting on it would hit the other one.
fn same_container(id: &ContainerId, found: &ContainerId) -> Result<(), StoreError> {
    if id == found {
        return Ok(());
    }
    Err(StoreError::OtherContainer { id: id.clone(), record: found.clone() })
}

fn read_file(id: &ContainerId, directory: BorrowedFd<'_>, file: &'static str) -> Result<Vec<u8>, StoreError> {
    let read_all = || {
        let fd = openat(directory, file, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let mut contents = Vec::with_capacity(16 * 1024);
        while retry_on_intr(|| read(&fd, spare_capacity(&mut contents)))? > 0 {
            contents.reserve(1024);
        }
        Ok(contents)
    };
    read_all().map_err(|errno: Errno| StoreError::Read { id: id.clone(), file, source: errno.into() })
}

fn directory_error(id: &ContainerId, step: &'static str, errno: Errno) -> StoreError {
    StoreError::Directory { id: id.clone(), step, source: errno.into() }
}
