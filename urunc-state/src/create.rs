//! How a container appears: whole, by a rename that refuses to replace (B18).
//!
//! Until then its directory has a name that is no container id, and is locked, so that a sweep can tell it from
//! a leftover. The lock goes along with the directory: the new container is held from its first moment.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, RenameFlags, fsync, mkdirat, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::atomic::{self, Access};
use crate::files::{ORIGIN, STATE};
use crate::lock::{Attempt, try_lock};
use crate::store::{DIRECTORY, directory_error};
use crate::unique::{Purpose, UniqueName};
use crate::{ContainerId, Lock, Locked, Origin, Record, Store, StoreError, tree};

/// Longest file name of Linux's file systems (`NAME_MAX` in `linux/limits.h`).
const NAME_MAX: usize = 255;

impl Store {
    /// Creates a container and holds it. Its directory appears with its origin and its first record in it, or
    /// not at all.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the id is taken, by whomever; [`StoreError::IdTooLong`];
    /// [`StoreError::OtherContainer`] when origin and record disagree; otherwise the step that failed. In each
    /// case nothing of the new container is left.
    pub fn create(&self, origin: &Origin, record: Record) -> Result<Locked, StoreError> {
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
            let _ = tree::remove(self.root(), hidden.as_ref(), directory.as_fd());
            return Err(error);
        }
        let lock = Lock { id, directory };
        if let Err(errno) = fsync(self.root()) {
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
            mkdirat(self.root(), name.as_str(), Mode::RWXU).map_err(failed)?;
            match self.hold_hidden(&name) {
                Ok(Some(directory)) => return Ok((name, directory)),
                Ok(None) => {}
                Err(errno) => {
                    let _ = unlinkat(self.root(), name.as_str(), AtFlags::REMOVEDIR);
                    return Err(failed(errno));
                }
            }
        }
    }

    /// Opens and locks a directory that we have just made; `None` when a sweep was faster.
    fn hold_hidden(&self, name: &UniqueName) -> Result<Option<OwnedFd>, Errno> {
        let directory = match openat(self.root(), name.as_str(), DIRECTORY, Mode::empty()) {
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
            atomic::create(directory, name, Access::Private, contents)
                .map_err(|source| StoreError::Write { id: id.clone(), source })?;
        }
        fsync(directory).map_err(|errno| directory_error(id, "make durable", errno))?;
        match renameat_with(self.root(), hidden.as_str(), self.root(), id.as_str(), RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(StoreError::AlreadyExists { id: id.clone() }),
            Err(errno) => Err(directory_error(id, "create", errno)),
        }
    }
}
