//! The second half: in the container's own mount namespace, the prepared root becomes `/`.
//!
//! Runs in the forked, single-threaded init, perhaps in a user namespace. Nothing is resolved by name here
//! but `/` and `/proc`: every mount and every place for it is a descriptor that `prepare` obtained.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, StatVfsMountFlags, fstatvfs};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, mount_remount,
    move_mount, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::prepare::{NamespaceId, PreparedMount, PreparedRoot};
use super::target::Target;
use super::tree::Restriction;

/// Why the prepared root did not become `/`. The caller's mount namespace is then of no further use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The current mount namespace cannot be told.
    #[error("cannot identify the current mount namespace: is /proc mounted?")]
    Namespace {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// This is the namespace of the host or of the caller's parent: nothing was changed.
    #[error("cannot build the monitor's root here: the mount namespace is shared with the host")]
    NotPrivate,
    /// Mounts here would still be seen by the host: nothing was changed.
    #[error("cannot make the mounts of this namespace independent of the host's")]
    Independence {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The root's tmpfs cannot be attached.
    #[error("cannot attach the monitor's root")]
    Root {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something prepared cannot be attached at its place.
    #[error("cannot mount {target} in the monitor's root")]
    Mount {
        /// The place.
        target: Target,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The process file system cannot be mounted.
    #[error("cannot mount a masked {target} for the monitor: in a nested user namespace, plan without it")]
    Proc {
        /// The place.
        target: Target,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The root cannot be changed.
    #[error("cannot change to the monitor's root")]
    Pivot {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host's root is still visible.
    #[error("cannot let go of the host's root")]
    LetGo {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl PreparedRoot {
    /// Makes the prepared root `/` and the current directory of the calling process, and lets go of everything
    /// that was mounted before.
    ///
    /// # Errors
    /// [`AttachError::NotPrivate`] before anything is changed if this is the mount namespace in which the root
    /// was prepared, or that of the init process; the step that failed otherwise.
    pub fn attach(self) -> Result<(), AttachError> {
        self.attach_at(Path::new("/"))?;
        // The old root ends up mounted on the new one, where "." leads to it (pivot_root(2), Notes).
        fchdir(&self.root)
            .and_then(|()| pivot_root(".", "."))
            .map_err(|e| AttachError::Pivot { source: e.into() })?;
        unmount(".", UnmountFlags::DETACH)
            .and_then(|()| chdir("/"))
            .map_err(|e| AttachError::LetGo { source: e.into() })?;
        self.close();
        Ok(())
    }

    /// Attaches everything, its root at `path`, which is trusted.
    pub(super) fn attach_at(&self, path: &Path) -> Result<(), AttachError> {
        self.refuse_shared_namespace()?;
        // Slaves, not private: when the host unmounts something, our copy must not keep it busy.
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .map_err(|e| AttachError::Independence { source: e.into() })?;
        let Self { root, root_pending, mounts, proc, .. } = self;
        move_mount(root, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(io::Error::from)
            .and_then(|()| root_pending.map_or(Ok(()), |r| restrict(root.as_fd(), r)))
            .map_err(|source| AttachError::Root { source })?;
        for PreparedMount { mount, point, pending } in mounts {
            put(mount.as_fd(), point.fd.as_fd())
                .and_then(|()| pending.map_or(Ok(()), |r| restrict(mount.as_fd(), r)))
                .map_err(|source| AttachError::Mount { target: point.target.clone(), source })?;
        }
        if let Some(point) = proc {
            masked_proc()
                .and_then(|mount| put(mount.as_fd(), point.fd.as_fd()))
                .map_err(|source| AttachError::Proc { target: point.target.clone(), source })?;
        }
        Ok(())
    }

    fn refuse_shared_namespace(&self) -> Result<(), AttachError> {
        let here = NamespaceId::current().map_err(|source| AttachError::Namespace { source })?;
        // Without the right to look at process 1, comparing with the parent's namespace has to do.
        let host = NamespaceId::of(Path::new("/proc/1/ns/mnt")).ok();
        if here == self.made_in || Some(here) == host { Err(AttachError::NotPrivate) } else { Ok(()) }
    }
}

fn put(mount: BorrowedFd<'_>, point: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", point, "", flags)?)
}

/// Processes only, of these only what the reader may trace, nothing to write.
fn masked_proc() -> io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Both since Linux 5.8: proc(5).
    fsconfig_set_string(&context, "subset", "pid")?;
    fsconfig_set_string(&context, "hidepid", "ptraceable")?;
    fsconfig_create(&context)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// What `mount_setattr` would have done before: for kernels older than 5.12, the topmost mount only.
fn restrict(mount: BorrowedFd<'_>, Restriction { flags, propagation }: Restriction) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    // A remount replaces all flags, and in a user namespace may not clear any: keep those that are there (E8).
    let there = fstatvfs(mount)?.f_flag;
    let mut all = MountFlags::BIND;
    for (attr, vfs, mount) in [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (MountAttrFlags::MOUNT_ATTR_NOATIME, StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (MountAttrFlags::MOUNT_ATTR_NODIRATIME, StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (MountAttrFlags::MOUNT_ATTR_RELATIME, StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if flags.contains(attr) || there.contains(vfs) {
            all |= mount;
        }
    }
    mount_remount(&path, all, "")?;
    Ok(mount_change(&path, propagation | MountPropagationFlags::REC)?)
}
