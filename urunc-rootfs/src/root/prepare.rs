//! The first half of carrying out a [`MonitorRoot`]: everything is opened, made and restricted in `create`,
//! on mounts that are attached nowhere yet (`fsmount(2)`, `open_tree(2)`).
//!
//! Runs in the host's mount namespace and changes nothing in it. Dropping the result undoes it all.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstat, makedev, openat, stat, symlinkat};
use rustix::io::Errno;

use super::error::PrepareError;
use super::needs::{Binding, ByteSize, DeviceNode, Source, Use};
use super::plan::{Entry, MonitorRoot};
use super::target::Target;
use super::tree::{BindError, Nodes, Place, PointKind, Restriction, Tree, TreeKind, make_file, make_node};
use crate::confined;
use crate::image::FileKind;
use crate::sys;

/// Room on a tmpfs for directories, links and mount points, besides the files copied.
const SLACK: u64 = 256 * 1024;

/// An open file or directory, under the name by which the plan refers to it.
#[derive(Debug, Clone, Copy)]
pub struct Handle<'a> {
    /// The name.
    pub name: &'a str,
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
}

/// The monitor's root, ready to be attached; see [`PreparedRoot::attach`].
///
/// Survives `fork` and `clone`; parent and child may drop it in any order.
#[derive(Debug)]
pub struct PreparedRoot {
    pub(super) root: OwnedFd,
    pub(super) root_pending: Option<Restriction>,
    pub(super) mounts: Vec<PreparedMount>,
    pub(super) proc: Option<PreparedPoint>,
    /// The mount namespace in which this was prepared and which must not be the one that it is attached in.
    pub(super) made_in: NamespaceId,
}

/// A detached mount and the place that waits for it.
#[derive(Debug)]
pub(super) struct PreparedMount {
    pub(super) mount: OwnedFd,
    pub(super) point: PreparedPoint,
    /// What is left to be restricted once it is attached.
    pub(super) pending: Option<Restriction>,
}

/// A directory or file to mount on, already resolved.
#[derive(Debug)]
pub(super) struct PreparedPoint {
    pub(super) fd: OwnedFd,
    pub(super) target: Target,
}

/// Device and inode of a namespace file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamespaceId(u64, u64);

/// A file or directory that was made in a directory of the host to mount something on. It stays when the container is
/// gone, as with every runtime; one whose container never came to be should be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// The directory of the host that is shared.
    pub directory: PathBuf,
    /// Where it is in there.
    pub inside: PathBuf,
}

impl MountPoint {
    /// Removes it, if it is empty. What was made later must go first.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove(&self) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, &self.directory, flags, Mode::empty())?;
        let found = match confined::find(directory.as_fd(), &self.inside) {
            Err(Errno::NOENT) => return Ok(()),
            found => fstat(found?)?,
        };
        if FileKind::of(&found) != FileKind::Directory && found.st_size != 0 {
            return Err(Errno::NOTEMPTY.into());
        }
        Ok(confined::remove(directory.as_fd(), &self.inside)?)
    }
}

impl MonitorRoot {
    /// Opens, makes and restricts everything that the plan lists. `handles` are the descriptors that it names.
    ///
    /// # Errors
    /// The first [`PrepareError`]; everything prepared so far is gone again, but for mount points in shared directories.
    pub fn prepare(&self, handles: &[Handle<'_>]) -> Result<PreparedRoot, PrepareError> {
        self.prepare_noting(handles, &mut Vec::new())
    }

    /// As [`MonitorRoot::prepare`], and adds to `made` what had to be made in directories of the host, parents first, even
    /// if it fails.
    ///
    /// # Errors
    /// As [`MonitorRoot::prepare`].
    pub fn prepare_noting(
        &self,
        handles: &[Handle<'_>],
        made: &mut Vec<MountPoint>,
    ) -> Result<PreparedRoot, PrepareError> {
        let copied = self.entries.iter().map(|e| if let Entry::Copy { size, .. } = e { size.0 } else { 0 });
        // Each file fills whole pages, which the slack covers.
        let size = ByteSize(copied.fold(SLACK, u64::saturating_add));
        let root = Tree::sealed(size, Nodes::Dead, self.label.as_deref())
            .map_err(|source| PrepareError::Tmpfs { target: PathBuf::from("/"), source })?;
        prepare(self, root, handles, made)
    }
}

/// Fills `root` with what `plan` lists.
pub(super) fn prepare(
    plan: &MonitorRoot,
    root: Tree,
    handles: &[Handle<'_>],
    made: &mut Vec<MountPoint>,
) -> Result<PreparedRoot, PrepareError> {
    let made_in = NamespaceId::current().map_err(|source| PrepareError::Namespace { source })?;
    let mut work = Work { plan, handles, root, mounts: Vec::new(), proc: None };
    let added = plan.entries.iter().try_for_each(|entry| work.add(entry));
    made.extend(work.made());
    added?;
    // Only now: mount points were made in the trees until here.
    let Work { root, mounts, proc, .. } = work;
    let seal = |tree: Tree, target: &Path| {
        let pending = tree.pending;
        let sealed = tree.seal().map(|mount| (mount, pending));
        sealed.map_err(|source| PrepareError::Seal { target: target.to_path_buf(), source })
    };
    let (root, root_pending) = seal(root, Path::new("/"))?;
    let mut prepared = Vec::with_capacity(mounts.len());
    for (tree, point) in mounts {
        let (mount, pending) = seal(tree, point.target.as_path())?;
        prepared.push(PreparedMount { mount, point, pending });
    }
    Ok(PreparedRoot { root, root_pending, mounts: prepared, proc, made_in })
}

impl PreparedRoot {
    /// Lets go of it, which takes fewer system calls than dropping.
    pub fn close(self) {
        let Self { root, mounts, proc, .. } = self;
        let mounts = mounts.into_iter().flat_map(|PreparedMount { mount, point, .. }| [mount, point.fd]);
        let proc = proc.into_iter().map(|point| point.fd);
        sys::close_together(std::iter::once(root).chain(mounts).chain(proc));
    }

    /// Every descriptor that must stay open until [`PreparedRoot::attach`]. All are close-on-exec.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let mounts = self.mounts.iter().flat_map(|m| [m.mount.as_fd(), m.point.fd.as_fd()]);
        let proc = self.proc.iter().map(|p| p.fd.as_fd());
        std::iter::once(self.root.as_fd()).chain(mounts).chain(proc)
    }
}

impl NamespaceId {
    /// The calling thread's mount namespace.
    pub(super) fn current() -> io::Result<Self> {
        Self::of(Path::new("/proc/thread-self/ns/mnt"))
    }

    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let stat = stat(path)?;
        Ok(Self(stat.st_dev, stat.st_ino))
    }
}

/// A root under construction.
struct Work<'a> {
    plan: &'a MonitorRoot,
    handles: &'a [Handle<'a>],
    root: Tree,
    mounts: Vec<(Tree, PreparedPoint)>,
    proc: Option<PreparedPoint>,
}

impl Work<'_> {
    /// What was made in directories of the host so far.
    fn made(&self) -> Vec<MountPoint> {
        let trees = std::iter::once(&self.root).chain(self.mounts.iter().map(|(tree, _)| tree));
        let made = trees.filter_map(|tree| Some((tree.source.as_ref()?, tree.made.borrow())));
        made.flat_map(|(source, made)| {
            let point = |inside: &PathBuf| MountPoint { directory: source.clone(), inside: inside.clone() };
            made.iter().map(point).collect::<Vec<_>>()
        })
        .collect()
    }

    fn add(&mut self, entry: &Entry) -> Result<(), PrepareError> {
        match entry {
            Entry::Link { target, to } => {
                let (dir, name) = self.parent(target)?;
                symlinkat(to.as_path(), &dir, name).map_err(|e| cannot_make(target, e))
            }
            Entry::Copy { target, handle, .. } => self.copy(target, handle),
            Entry::Bind { target, source, access } => self.bind(target, source, *access),
            Entry::Devices { target, nodes } => {
                let tree = Tree::sealed(ByteSize(SLACK), Nodes::Alive, self.plan.label.as_deref());
                self.push_tmpfs(target, tree)?;
                nodes.iter().try_for_each(|node| self.node(node))
            }
            Entry::Scratch { target, size } => {
                self.push_tmpfs(target, Tree::scratch(*size, self.plan.owner, self.plan.label.as_deref()))
            }
            Entry::Proc { target } => {
                self.proc = Some(self.point(target, PointKind::Directory)?);
                Ok(())
            }
        }
    }

    fn push_tmpfs(&mut self, target: &Target, tree: io::Result<Tree>) -> Result<(), PrepareError> {
        let tree = tree.map_err(|source| PrepareError::Tmpfs { target: target.clone().into(), source })?;
        let point = self.point(target, PointKind::Directory)?;
        self.mounts.push((tree, point));
        Ok(())
    }

    fn bind(&mut self, target: &Target, source: &Source, access: Use) -> Result<(), PrepareError> {
        let kind = TreeKind::Bound(access);
        let tree = match source {
            Source::Host(path) => Tree::bound(CWD, path, Binding::default(), kind),
            Source::Volume { path, binding } => Tree::bound(CWD, path, *binding, kind),
            Source::Handle(name) => Tree::bound(self.handle(name)?, Path::new(""), Binding::default(), kind),
            Source::Memory(tmpfs) => {
                return self.push_tmpfs(target, Tree::memory(tmpfs, self.plan.label.as_deref()));
            }
        };
        let tree = tree.map_err(|e| match e {
            BindError::Open(e) => PrepareError::Open { source_name: describe(source), source: e },
            BindError::Restrict(e) => PrepareError::Restrict { target: target.clone(), source: e },
        })?;
        self.push_bound(target, tree)
    }

    fn push_bound(&mut self, target: &Target, tree: Tree) -> Result<(), PrepareError> {
        let kind = PointKind::of(tree.mount.as_fd()).map_err(|e| cannot_make(target, e))?;
        let point = self.point(target, kind)?;
        self.mounts.push((tree, point));
        Ok(())
    }

    fn node(&mut self, DeviceNode { target, device, access }: &DeviceNode) -> Result<(), PrepareError> {
        let cannot = |source| PrepareError::Node { target: target.clone(), source };
        let (dir, name) = self.parent(target)?;
        match make_node(&dir, name, *device, *access, self.plan.owner) {
            // A user namespace may not make nodes; but it may bind the host's, with the host's owner and mode.
            Err(Errno::PERM) => {
                let tree = Tree::bound(CWD, target.as_path(), Binding::default(), TreeKind::BoundDevice)
                    .map_err(|(BindError::Open(e) | BindError::Restrict(e))| cannot(e))?;
                let stat = fstat(&tree.mount).map_err(|e| cannot(e.into()))?;
                if stat.st_rdev != makedev(device.major, device.minor) {
                    return Err(cannot(Errno::NODEV.into()));
                }
                self.push_bound(target, tree)
            }
            made => made.map_err(|e| cannot(e.into())),
        }
    }

    fn copy(&self, target: &Target, name: &str) -> Result<(), PrepareError> {
        let from = self.handle(name)?;
        let (dir, file_name) = self.parent(target)?;
        let copy = || -> io::Result<()> {
            // Opened anew, so that the caller's position in the file does not matter.
            let again = format!("/proc/self/fd/{}", from.as_raw_fd());
            let mut from = File::from(openat(CWD, again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
            let mut to = File::from(make_file(&dir, file_name, OFlags::WRONLY)?);
            io::copy(&mut from, &mut to).map(drop)
        };
        copy().map_err(|source| PrepareError::Copy { name: name.to_owned(), target: target.clone(), source })
    }

    fn handle(&self, name: &str) -> Result<BorrowedFd<'_>, PrepareError> {
        let found = self.handles.iter().find(|h| h.name == name).map(|h| h.fd);
        found.ok_or_else(|| PrepareError::NoHandle { name: name.to_owned() })
    }

    /// The directory that is to hold `target`, and the name in it.
    fn parent<'t>(&self, target: &'t Target) -> Result<(Place<'_>, &'t OsStr), PrepareError> {
        let (tree, inside) = self.tree_of(target);
        let dir = tree.parent(inside).map_err(|e| self.no_place(target, e))?;
        Ok((dir, inside.file_name().unwrap_or_default()))
    }

    fn point(&self, target: &Target, kind: PointKind) -> Result<PreparedPoint, PrepareError> {
        let (tree, inside) = self.tree_of(target);
        let fd = tree.point(inside, kind).map_err(|e| self.no_place(target, e))?;
        Ok(PreparedPoint { fd, target: target.clone() })
    }

    /// The tree that `target` lies in, and where in that tree.
    fn tree_of<'t>(&self, target: &'t Target) -> (&Tree, &'t Path) {
        for (tree, point) in self.mounts.iter().rev() {
            if let Some(inside) = target.inside(&point.target) {
                return (tree, inside);
            }
        }
        (&self.root, target.relative())
    }

    fn no_place(&self, target: &Target, errno: Errno) -> PrepareError {
        let source = errno.into();
        match errno {
            Errno::ISDIR | Errno::NOTDIR => PrepareError::Kind { target: target.clone(), source },
            Errno::NOENT if !self.tree_of(target).0.kind.grows() => {
                PrepareError::NoPlace { target: target.clone(), source }
            }
            _ => cannot_make(target, errno),
        }
    }
}

fn describe(source: &Source) -> String {
    match source {
        Source::Host(path) | Source::Volume { path, .. } => path.display().to_string(),
        Source::Handle(name) => format!("the descriptor `{name}`"),
        Source::Memory(_) => "a tmpfs".to_owned(),
    }
}

fn cannot_make(target: &Target, errno: Errno) -> PrepareError {
    PrepareError::Make { target: target.clone(), source: errno.into() }
}
