//! How a container goes: out of sight first, by a rename to a name that is no container id, then for good.

use std::os::fd::AsFd;

use rustix::fs::{RenameFlags, renameat_with};

use crate::store::directory_error;
use crate::unique::{Purpose, UniqueName};
use crate::{Lock, Store, StoreError, tree};

impl Store {
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
        renameat_with(self.root(), id.as_str(), self.root(), hidden.as_str(), RenameFlags::NOREPLACE)
            .map_err(failed)?;
        // `directory` stays open, and with it the lock, until all is deleted: so no sweep interferes.
        tree::remove(self.root(), hidden.as_ref(), directory.as_fd()).map_err(|left| StoreError::Remove {
            id: id.clone(),
            path: self.path().join(left.path),
            source: left.source,
        })
    }
}
