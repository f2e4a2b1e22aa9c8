//! A mount that is attached nowhere yet, and finding or making places inside it.
//!
//! Trees of ours (tmpfs) are filled freely. Trees that were bound may hold anything, hostile links included:
//! whatever is resolved in them stays below their root, and nothing is ever made in a read-only one.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fchmod, fstat, makedev, mknodat, openat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::needs::{Below, Binding, ByteSize, Device, DeviceKind, Later, Owner, Tmpfs, Use};
use crate::access::Access;
use crate::confined::{self, Missing};
use crate::image::FileKind;
use crate::sys;

const FILE_MODE: Mode = Mode::from_raw_mode(0o444);

/// A detached mount.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) mount: OwnedFd,
    pub(super) kind: TreeKind,
    /// What could not be set on the detached mount, because the kernel is older than 5.12.
    pub(super) pending: Option<Restriction>,
    /// What had to be made in it to mount something on; parents first.
    pub(super) made: RefCell<Vec<PathBuf>>,
    /// Where it is on the host, if it was bound by a path.
    pub(super) source: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) enum TreeKind {
    /// A tmpfs of ours, read-only in the end.
    Sealed { context: OwnedFd },
    /// A tmpfs of ours for the monitor to write in.
    Scratch,
    /// Something of the host.
    Bound(Use),
    /// A device node of the host, where we may not make our own.
    BoundDevice,
}

/// A directory to make something in.
#[derive(Debug)]
pub(super) enum Place<'a> {
    /// A tree's own root.
    Root(BorrowedFd<'a>),
    /// One below.
    Opened(OwnedFd),
}

impl AsFd for Place<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

/// Flags and propagation of a bind mount.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restriction {
    pub(super) flags: MountAttrFlags,
    pub(super) propagation: MountPropagationFlags,
}

/// Whether device nodes on a tmpfs work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nodes {
    Dead,
    Alive,
}

impl Tree {
    /// A tmpfs that is filled by us and then made read-only by [`Tree::seal`].
    pub(super) fn sealed(size: ByteSize, nodes: Nodes, label: Option<&str>) -> io::Result<Self> {
        let context = tmpfs_context(size, label)?;
        fsconfig_set_string(&context, "mode", "0755")?;
        let nodev =
            if nodes == Nodes::Dead { MountAttrFlags::MOUNT_ATTR_NODEV } else { MountAttrFlags::empty() };
        let mount = tmpfs(&context, nodev)?;
        Ok(Self {
            mount,
            kind: TreeKind::Sealed { context },
            pending: None,
            made: RefCell::default(),
            source: None,
        })
    }

    /// A tmpfs that only `owner` may enter.
    pub(super) fn scratch(size: ByteSize, owner: Owner, label: Option<&str>) -> io::Result<Self> {
        let context = tmpfs_context(size, label)?;
        fsconfig_set_string(&context, "mode", "0700")?;
        fsconfig_set_string(&context, "uid", owner.uid.to_string())?;
        fsconfig_set_string(&context, "gid", owner.gid.to_string())?;
        let mount = tmpfs(&context, MountAttrFlags::MOUNT_ATTR_NODEV)?;
        Ok(Self { mount, kind: TreeKind::Scratch, pending: None, made: RefCell::default(), source: None })
    }

    /// A tmpfs that is given to the guest.
    pub(super) fn memory(wanted: &Tmpfs, label: Option<&str>) -> io::Result<Self> {
        let Tmpfs { size, mode, owner } = wanted;
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        if let Some(size) = size {
            fsconfig_set_string(&context, "size", size.as_str())?;
        }
        if let Some(label) = label {
            fsconfig_set_string(&context, "context", label)?;
        }
        fsconfig_set_string(&context, "mode", format!("{mode:o}"))?;
        fsconfig_set_string(&context, "uid", owner.uid.to_string())?;
        fsconfig_set_string(&context, "gid", owner.gid.to_string())?;
        let mount = tmpfs(&context, MountAttrFlags::MOUNT_ATTR_NODEV)?;
        Ok(Self { mount, kind: TreeKind::Scratch, pending: None, made: RefCell::default(), source: None })
    }

    /// A clone of what `path` names, seen from `at`; an empty path means `at` itself.
    pub(super) fn bound(
        at: BorrowedFd<'_>,
        path: &Path,
        binding: Binding,
        kind: TreeKind,
    ) -> Result<Self, BindError> {
        let clone = |deep: OpenTreeFlags| {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | deep;
            let empty = if path.as_os_str().is_empty() {
                OpenTreeFlags::AT_EMPTY_PATH
            } else {
                OpenTreeFlags::empty()
            };
            open_tree(at, path, flags | empty).map_err(|e| BindError::Open(e.into()))
        };
        let source = (!path.as_os_str().is_empty()).then(|| path.to_path_buf());
        let mut restriction = Restriction::on(&kind);
        if binding.later == Later::Followed {
            restriction.propagation = MountPropagationFlags::DOWNSTREAM;
        }
        let mount = clone(match binding.below {
            Below::Included => OpenTreeFlags::AT_RECURSIVE,
            Below::LeftOut => OpenTreeFlags::empty(),
        })?;
        // What grows is read-only only when it has grown.
        let later = if kind.grows() { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        match sys::mount_setattr_recursive(mount.as_fd(), restriction.flags - later, restriction.propagation)
        {
            Ok(()) => Ok(Self { mount, kind, pending: None, made: RefCell::default(), source }),
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
                // Older than 5.12: only the topmost mount can be restricted, so what must be read-only is only that.
                let mount = if kind.grows() { mount } else { clone(OpenTreeFlags::empty())? };
                Ok(Self { mount, kind, pending: Some(restriction), made: RefCell::default(), source })
            }
            Err(e) => Err(BindError::Restrict(e)),
        }
    }

    /// The finished mount, read-only if it is to be. A tmpfs of ours becomes that for good: by its super block, which
    /// no remount inside a user namespace can undo.
    pub(super) fn seal(self) -> io::Result<OwnedFd> {
        match &self.kind {
            TreeKind::Sealed { context } => {
                fsconfig_set_flag(context, "ro")?;
                fsconfig_reconfigure(context)?;
            }
            TreeKind::Bound(Use::Share(Access::ReadOnly)) if self.pending.is_none() => {
                let Restriction { flags, propagation } = Restriction::on(&self.kind);
                sys::mount_setattr_recursive(self.mount.as_fd(), flags, propagation)?;
            }
            _ => {}
        }
        Ok(self.mount)
    }

    /// The directory that holds `inside`, made if it is missing and may be made.
    pub(super) fn parent(&self, inside: &Path) -> rustix::io::Result<Place<'_>> {
        if let Some(place) = self.own_place(inside)? {
            return Ok(place);
        }
        let mut made = self.made.borrow_mut();
        let missing = if self.kind.grows() { Missing::Make(&mut made) } else { Missing::Fail };
        confined::parent(self.mount.as_fd(), inside, missing).map(Place::Opened)
    }

    /// The same in a tmpfs that we fill ourselves. Nobody else can have put anything there, so that each directory is
    /// simply opened or made. A link on the way, which would be ours as well, is left to the careful way.
    fn own_place(&self, inside: &Path) -> rustix::io::Result<Option<Place<'_>>> {
        if !matches!(self.kind, TreeKind::Sealed { .. }) {
            return Ok(None);
        }
        let mut place = Place::Root(self.mount.as_fd());
        for part in inside.parent().unwrap_or(Path::new("")) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            place = Place::Opened(match openat(&place, part, flags, Mode::empty()) {
                Err(Errno::NOENT) => confined::make_directory(&place, part)?,
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                opened => opened?,
            });
        }
        Ok(Some(place))
    }

    /// Makes the place `inside` in a tmpfs that we fill ourselves, unless there is something already.
    fn own_point(&self, inside: &Path, kind: PointKind) -> rustix::io::Result<Option<OwnedFd>> {
        let (Some(place), Some(name)) = (self.own_place(inside)?, inside.file_name()) else {
            return Ok(None);
        };
        let made = match kind {
            PointKind::Directory => confined::make_directory(&place, name),
            PointKind::File => make_file(&place, name, OFlags::RDONLY),
        };
        match made {
            Err(Errno::EXIST) => Ok(None),
            made => made.map(Some),
        }
    }

    /// The place `inside` to mount something on; an empty one is made if it is missing and may be made.
    pub(super) fn point(&self, inside: &Path, kind: PointKind) -> rustix::io::Result<OwnedFd> {
        if let Some(made) = self.own_point(inside, kind)? {
            return Ok(made);
        }
        let fd = match confined::find(self.mount.as_fd(), inside) {
            Err(Errno::NOENT) if self.kind.grows() => {
                let inside = confined::missing_end(self.mount.as_fd(), inside)?;
                let dir = self.parent(&inside)?;
                let name = inside.file_name().ok_or(Errno::INVAL)?;
                let made = match kind {
                    PointKind::Directory => confined::make_directory(&dir, name)?,
                    PointKind::File => make_file(&dir, name, OFlags::RDONLY)?,
                };
                self.made.borrow_mut().push(inside);
                made
            }
            found => found?,
        };
        match (PointKind::of(fd.as_fd())?, kind) {
            (PointKind::Directory, PointKind::File) => Err(Errno::ISDIR),
            (PointKind::File, PointKind::Directory) => Err(Errno::NOTDIR),
            _ => Ok(fd),
        }
    }
}

impl TreeKind {
    /// Whether something missing may be made there.
    pub(super) fn grows(&self) -> bool {
        match self {
            Self::Sealed { .. } | Self::Scratch | Self::Bound(Use::Share(_)) => true,
            Self::Bound(Use::Program | Use::Data) | Self::BoundDevice => false,
        }
    }
}

/// What a mount point must be for what is mounted on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PointKind {
    Directory,
    File,
}

impl PointKind {
    /// What `fd` is, and so what it can be mounted on.
    pub(super) fn of(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let kind = FileKind::of(&fstat(fd)?);
        Ok(if kind == FileKind::Directory { Self::Directory } else { Self::File })
    }
}

/// Why a bind failed.
#[derive(Debug)]
pub(super) enum BindError {
    Open(io::Error),
    Restrict(io::Error),
}

impl Restriction {
    fn on(kind: &TreeKind) -> Self {
        const COMMON: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
        const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
        const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
        const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let (flags, propagation) = match kind {
            TreeKind::Bound(Use::Program) => (NODEV | RDONLY, MountPropagationFlags::PRIVATE),
            TreeKind::Bound(Use::Share(Access::ReadWrite)) => {
                (NODEV | NOEXEC, MountPropagationFlags::DOWNSTREAM)
            }
            TreeKind::Bound(Use::Share(Access::ReadOnly)) => {
                (NODEV | NOEXEC | RDONLY, MountPropagationFlags::DOWNSTREAM)
            }
            TreeKind::BoundDevice => (NOEXEC, MountPropagationFlags::PRIVATE),
            _ => (NODEV | NOEXEC | RDONLY, MountPropagationFlags::PRIVATE),
        };
        Self { flags: COMMON | flags, propagation }
    }
}

/// Makes a device node that `owner` may use, and nobody else.
pub(super) fn make_node(
    dir: impl AsFd,
    name: &OsStr,
    device: Device,
    access: Access,
    owner: Owner,
) -> rustix::io::Result<()> {
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let mode = match access {
        Access::ReadOnly => Mode::RUSR,
        Access::ReadWrite => Mode::RUSR | Mode::WUSR,
    };
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    mknodat(&dir, name, kind, mode, makedev(device.major, device.minor))?;
    chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    // Gives back what the umask took.
    chmodat(&dir, name, mode, AtFlags::empty())
}

/// Makes an empty file that everybody may read, opened for `access`; fails if something of that name exists.
pub(super) fn make_file(dir: impl AsFd, name: &OsStr, access: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, FILE_MODE)?;
    fchmod(&file, FILE_MODE)?;
    Ok(file)
}

fn tmpfs_context(size: ByteSize, label: Option<&str>) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "size", size.0.to_string())?;
    if let Some(label) = label {
        fsconfig_set_string(&context, "context", label)?;
    }
    Ok(context)
}

fn tmpfs(context: &OwnedFd, flags: MountAttrFlags) -> io::Result<OwnedFd> {
    fsconfig_create(context)?;
    let flags = flags | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}
