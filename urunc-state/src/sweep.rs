//! Removing what killed commands left behind in a store: half-made and half-deleted directories, and temporary
//! files. All of it is harmless and invisible; this only keeps it from piling up.
//!
//! A leftover is known by its name, which only we give, *and* by nobody holding it. So neither another runtime's
//! directory nor work in progress is ever touched.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, openat, unlinkat};
use rustix::io::Errno;

use crate::lock::{Attempt, try_lock};
use crate::store::DIRECTORY;
use crate::unique::{Purpose, UniqueName};
use crate::{ContainerId, Store, StoreError, tree};

/// What a sweep has done.
#[derive(Debug, Default)]
pub struct Swept {
    /// What was removed.
    pub removed: Vec<PathBuf>,
    /// What could not be removed, and why.
    pub failed: Vec<(PathBuf, io::Error)>,
}

impl Store {
    /// Removes the leftovers of killed commands. Goes on after a failure, and skips whatever is in use.
    ///
    /// # Errors
    /// [`StoreError::Root`] when the root cannot be listed.
    pub fn sweep(&self) -> Result<Swept, StoreError> {
        self.sweep_entries(|id, swept| self.sweep_files(id, swept))
    }

    /// Like [`sweep`](Self::sweep), but looks into no container: temporary files in them stay, and go with them. As
    /// fast with thousands of containers as with one, so that every command can afford it.
    ///
    /// # Errors
    /// [`StoreError::Root`] when the root cannot be listed.
    pub fn sweep_directories(&self) -> Result<Swept, StoreError> {
        self.sweep_entries(|_, _| {})
    }

    fn sweep_entries(&self, container: impl Fn(&ContainerId, &mut Swept)) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for (name, _) in self.entries()? {
            let Some(name) = name.to_str() else { continue };
            match UniqueName::purpose(name) {
                Some(Purpose::Create | Purpose::Remove) => {
                    swept.note(self.path().join(name), self.sweep_directory(name));
                }
                Some(Purpose::File) => {}
                None => {
                    if let Ok(id) = ContainerId::new(name) {
                        container(&id, &mut swept);
                    }
                }
            }
        }
        Ok(swept)
    }

    fn sweep_directory(&self, name: &str) -> Result<Outcome, io::Error> {
        let directory = match openat(self.root(), name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Outcome::Skipped),
            result => result?,
        };
        if try_lock(directory.as_fd())? == Attempt::Held || !self.shows(name, directory.as_fd())? {
            return Ok(Outcome::Skipped);
        }
        match tree::remove(self.root(), name.as_ref(), directory.as_fd()) {
            Ok(()) => Ok(Outcome::Removed),
            Err(left) => Err(left.source),
        }
    }

    fn sweep_files(&self, id: &ContainerId, swept: &mut Swept) {
        let path = self.path().join(id.as_str());
        // Not ours, or gone: none of our business.
        let Ok(directory) = self.directory(id) else { return };
        let listed = match try_lock(directory.as_fd()) {
            Ok(Attempt::Held) => return,
            Ok(Attempt::Obtained) => tree::entries(directory.as_fd()),
            Err(errno) => Err(errno),
        };
        match listed {
            Err(errno) => swept.note(path, Err(errno.into())),
            Ok(entries) => {
                for (name, _) in entries.iter().filter(|(name, _)| is_temporary(name)) {
                    swept.note(path.join(name), sweep_file(directory.as_fd(), name));
                }
            }
        }
    }
}

fn is_temporary(name: &OsStr) -> bool {
    name.to_str().and_then(UniqueName::purpose) == Some(Purpose::File)
}

fn sweep_file(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Outcome, io::Error> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(Outcome::Skipped),
        result => Ok(result.map(|()| Outcome::Removed)?),
    }
}

enum Outcome {
    Removed,
    Skipped,
}

impl Swept {
    fn note(&mut self, path: PathBuf, outcome: Result<Outcome, io::Error>) {
        match outcome {
            Ok(Outcome::Removed) => self.removed.push(path),
            Ok(Outcome::Skipped) => {}
            Err(error) => self.failed.push((path, error)),
        }
    }
}
