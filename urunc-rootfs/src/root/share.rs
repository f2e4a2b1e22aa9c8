//! The tree that a daemon of its own shares with the guest: the container's root file system with its volumes in it.
//!
//! Prepared in `create` as the monitor's root is, and attached in the daemon's mount namespace: in that of the monitor,
//! the volumes would be lost when its root changes.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use serde::{Deserialize, Serialize};

use super::attach::AttachError;
use super::error::PrepareError;
use super::needs::{Binding, HostBind, Owner, Use};
use super::plan::{Entry, MonitorRoot, PlanError, arrange};
use super::prepare::{MountPoint, PreparedRoot, prepare};
use super::tree::{BindError, Tree, TreeKind};
use crate::access::Access;

/// What is shared with the guest, as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedTree {
    root: PathBuf,
    access: Access,
    binds: Vec<Entry>,
}

/// The shared tree, ready to be attached; see [`PreparedShare::attach`].
#[derive(Debug)]
pub struct PreparedShare {
    tree: PreparedRoot,
    path: PathBuf,
}

impl SharedTree {
    /// Plans to share the directory `root` of the host, with `binds` at their places in it.
    ///
    /// # Errors
    /// [`PlanError::Conflict`] if two binds have the same place.
    pub fn plan(root: PathBuf, access: Access, binds: Vec<HostBind>) -> Result<Self, PlanError> {
        let bind = |HostBind { source, target, access }| Entry::Bind { target, source, access };
        Ok(Self { root, access, binds: arrange(binds.into_iter().map(bind).collect())? })
    }

    /// The directory that the daemon is to share.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens everything and makes the places for it that the root lacks, which are added to `made`, parents first, even if it
    /// fails. These stay; nothing else is changed.
    ///
    /// # Errors
    /// The first [`PrepareError`].
    pub fn prepare(&self, made: &mut Vec<MountPoint>) -> Result<PreparedShare, PrepareError> {
        let cannot_open =
            |source: io::Error| PrepareError::Open { source_name: self.root.display().to_string(), source };
        let root = Tree::bound(CWD, &self.root, Binding::default(), TreeKind::Bound(Use::Share(self.access)));
        let root = root.map_err(|(BindError::Open(e) | BindError::Restrict(e))| cannot_open(e))?;
        let contents =
            MonitorRoot { entries: self.binds.clone(), owner: Owner { uid: 0, gid: 0 }, label: None };
        Ok(PreparedShare { tree: prepare(&contents, root, &[], made)?, path: self.root.clone() })
    }
}

impl PreparedShare {
    /// Every descriptor that must stay open until [`PreparedShare::attach`]. All are close-on-exec.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.tree.fds()
    }

    /// Attaches the tree over its own root, in a mount namespace that is the daemon's alone.
    ///
    /// # Errors
    /// As [`PreparedRoot::attach`].
    pub fn attach(self) -> Result<(), AttachError> {
        self.tree.attach_at(&self.path)
    }
}
