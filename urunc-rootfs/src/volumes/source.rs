//! The source of a bind mount: looked at when the container is created, read when it starts.
//!
//! The path is trusted, what lies below it is not: a pod's other containers may write there. Links are never
//! followed, and nothing but regular files is opened. Reading needs no path and no `/proc`, so that it works after
//! the root has been changed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat, fstat, open, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::facts::{Extent, SourceFacts, SourceKind};
use crate::image::FileKind;
use crate::initrd::{Addition, Content};
use crate::mounts::MountTable;
use crate::probe::{as_mounted, mount_of};
use crate::root::{Below, ByteSize, Target};

/// How much is copied at most from one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Number of files, directories and links.
    pub entries: usize,
    /// Bytes in all files.
    pub bytes: ByteSize,
}

/// How deep directories may lie in each other.
const DEEPEST: usize = 32;

/// The open source of a bind mount.
#[derive(Debug)]
pub struct VolumeSource {
    fd: OwnedFd,
    path: PathBuf,
    kind: FileKind,
}

/// Why a volume's source cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It cannot be opened.
    #[error("cannot open the volume {}", path.display())]
    Open {
        /// Its path on the host.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something in it cannot be read.
    #[error("cannot read {} of the volume {}", inside.display(), path.display())]
    Read {
        /// The volume's path on the host.
        path: PathBuf,
        /// Where in the volume.
        inside: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something in it is neither a file nor a directory nor a link.
    #[error("cannot copy {} of the volume {}: it is {kind}", inside.display(), path.display())]
    Special {
        /// The volume's path on the host.
        path: PathBuf,
        /// Where in the volume.
        inside: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// There is more in it than may be copied.
    #[error("cannot copy the volume {}: it has more than {} entries or {} bytes", path.display(), limits.entries, limits.bytes.0)]
    TooLarge {
        /// The volume's path on the host.
        path: PathBuf,
        /// What may be copied.
        limits: Limits,
    },
}

impl Default for Limits {
    /// Room for any Kubernetes ConfigMap or Secret, which have at most 1 MiB.
    fn default() -> Self {
        Self { entries: 1000, bytes: ByteSize(8 << 20) }
    }
}

impl VolumeSource {
    /// Opens the file or directory `path`. Anything else is recognised and not opened.
    ///
    /// # Errors
    /// [`SourceError::Open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        let path = path.as_ref().to_path_buf();
        let look = || -> rustix::io::Result<(OwnedFd, FileKind)> {
            let place = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let kind = FileKind::of(&fstat(&place)?);
            if !matches!(kind, FileKind::Regular | FileKind::Directory) {
                return Ok((place, kind));
            }
            let again = format!("/proc/self/fd/{}", place.as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            Ok((openat(CWD, again, flags, Mode::empty())?, kind))
        };
        match look() {
            Ok((fd, kind)) => Ok(Self { fd, path, kind }),
            Err(e) => Err(SourceError::Open { path, source: e.into() }),
        }
    }

    /// As [`VolumeSource::open`], but what is mounted below it is not there: what it covers is, instead.
    ///
    /// # Errors
    /// [`SourceError::Open`].
    pub fn open_as(path: impl AsRef<Path>, below: Below) -> Result<Self, SourceError> {
        let mut source = Self::open(path)?;
        if below == Below::LeftOut && source.kind == FileKind::Directory {
            let again = || -> rustix::io::Result<OwnedFd> {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let alone = open_tree(&source.fd, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?;
                openat(&alone, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            };
            let opened = again();
            source.fd =
                opened.map_err(|e| SourceError::Open { path: source.path.clone(), source: e.into() })?;
        }
        Ok(source)
    }

    /// What there is to decide on. Whether what is mounted `below` counts is said, because only copying cares. Without limits nothing is to be copied, and nobody looks how much there is.
    ///
    /// # Errors
    /// [`SourceError::Open`] if the kernel does not tell.
    pub fn facts(
        &self,
        table: &MountTable,
        below: Below,
        limits: Option<Limits>,
    ) -> Result<SourceFacts, SourceError> {
        let cannot = |source| SourceError::Open { path: self.path.clone(), source };
        let sizes = |limits| match below {
            Below::Included => self.read_with(Path::new("/"), limits, Reading::Sizes),
            Below::LeftOut => {
                Self::open_as(&self.path, below)?.read_with(Path::new("/"), limits, Reading::Sizes)
            }
        };
        let look = |limits| match sizes(limits) {
            Ok(_) => Extent::Small,
            Err(SourceError::TooLarge { .. }) => Extent::Large,
            Err(SourceError::Special { kind, .. }) => Extent::Holds(kind),
            Err(SourceError::Open { .. } | SourceError::Read { .. }) => Extent::Unreadable,
        };
        let extent = || limits.map_or(Extent::Large, look);
        let kind = match self.kind {
            FileKind::Regular => SourceKind::File(extent()),
            FileKind::Directory => SourceKind::Directory(extent()),
            special => SourceKind::Special(special),
        };
        let (lies_in, mounted) = mount_of(&self.fd, table).map_err(cannot)?;
        Ok(SourceFacts { kind, mounted: mounted.map(|mount| Box::new(as_mounted(mount, table))), lies_in })
    }

    /// Reads everything there is, to be put at `destination`.
    ///
    /// # Errors
    /// [`SourceError::Read`], [`SourceError::Special`] and [`SourceError::TooLarge`].
    pub fn read(&self, destination: &Target, limits: Limits) -> Result<Vec<Addition>, SourceError> {
        self.read_with(destination.as_path(), limits, Reading::Contents)
    }

    /// The descriptor that must stay open for [`VolumeSource::read`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }

    fn read_with(&self, at: &Path, limits: Limits, reading: Reading) -> Result<Vec<Addition>, SourceError> {
        let mut walk = Walk { source: self, at, limits, reading, bytes: 0, found: Vec::new() };
        let stat = fstat(&self.fd).map_err(|e| walk.cannot_read(Path::new(""), e))?;
        match self.kind {
            FileKind::Regular => {
                let again = self.fd.try_clone().map_err(|e| walk.io_error(Path::new(""), e))?;
                walk.file(Path::new(""), &stat, again)?;
            }
            FileKind::Directory => walk.directory(Path::new(""), &stat, &self.fd, 0)?,
            kind => {
                return Err(SourceError::Special { path: self.path.clone(), inside: PathBuf::new(), kind });
            }
        }
        Ok(walk.found)
    }
}

/// Whether contents are wanted, or only whether they fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Sizes,
    Contents,
}

struct Walk<'a> {
    source: &'a VolumeSource,
    at: &'a Path,
    limits: Limits,
    reading: Reading,
    bytes: u64,
    found: Vec<Addition>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        inside: &Path,
        stat: &Stat,
        dir: &OwnedFd,
        depth: usize,
    ) -> Result<(), SourceError> {
        self.push(inside, stat, Content::Directory)?;
        if depth == DEEPEST {
            return Err(self.too_large());
        }
        let entries = Dir::read_from(dir).map_err(|e| self.cannot_read(inside, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.cannot_read(inside, e))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = inside.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let stat =
                statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.cannot_read(&below, e))?;
            let open_it = |flags| {
                let safe =
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                openat(dir, name, safe | flags, Mode::empty())
            };
            match FileKind::of(&stat) {
                FileKind::Regular if self.reading == Reading::Sizes => self.count(&below, &stat)?,
                FileKind::Regular => {
                    let file = open_it(OFlags::empty()).map_err(|e| self.cannot_read(&below, e))?;
                    // Between looking and opening somebody may have put something else there.
                    let stat = fstat(&file).map_err(|e| self.cannot_read(&below, e))?;
                    self.file(&below, &stat, file)?;
                }
                FileKind::Directory => {
                    let next = open_it(OFlags::DIRECTORY).map_err(|e| self.cannot_read(&below, e))?;
                    self.directory(&below, &stat, &next, depth + 1)?;
                }
                FileKind::Link => {
                    let to = readlinkat(dir, name, Vec::new()).map_err(|e| self.cannot_read(&below, e))?;
                    let to = PathBuf::from(std::ffi::OsStr::from_bytes(to.to_bytes()));
                    self.push(&below, &stat, Content::Link(to))?;
                }
                kind => return Err(self.special(&below, kind)),
            }
        }
        Ok(())
    }

    fn file(&mut self, inside: &Path, stat: &Stat, file: OwnedFd) -> Result<(), SourceError> {
        let kind = FileKind::of(stat);
        if kind != FileKind::Regular {
            return Err(self.special(inside, kind));
        }
        if self.reading == Reading::Sizes {
            return self.count(inside, stat);
        }
        let left = self.limits.bytes.0.saturating_sub(self.bytes);
        let mut content = Vec::new();
        let mut file = File::from(file);
        let read = io::Seek::rewind(&mut file)
            .and_then(|()| file.take(left.saturating_add(1)).read_to_end(&mut content))
            .map_err(|e| self.io_error(inside, e))?;
        self.add(u64::try_from(read).unwrap_or(u64::MAX))?;
        self.push(inside, stat, Content::File(content))
    }

    /// Counts a file that is not opened: doing so can wake up a file system behind a network.
    fn count(&mut self, inside: &Path, stat: &Stat) -> Result<(), SourceError> {
        self.add(u64::try_from(stat.st_size).unwrap_or(u64::MAX))?;
        self.push(inside, stat, Content::File(Vec::new()))
    }

    fn add(&mut self, size: u64) -> Result<(), SourceError> {
        if size > self.limits.bytes.0.saturating_sub(self.bytes) {
            return Err(self.too_large());
        }
        self.bytes += size;
        Ok(())
    }

    fn push(&mut self, inside: &Path, stat: &Stat, content: Content) -> Result<(), SourceError> {
        if self.found.len() >= self.limits.entries {
            return Err(self.too_large());
        }
        // `join` with an empty path would add a slash.
        let path = if inside.as_os_str().is_empty() { self.at.to_path_buf() } else { self.at.join(inside) };
        let mtime = u32::try_from(stat.st_mtime).unwrap_or(0);
        let mode = stat.st_mode & 0o7777;
        self.found.push(Addition { path, content, mode, uid: stat.st_uid, gid: stat.st_gid, mtime });
        Ok(())
    }

    fn too_large(&self) -> SourceError {
        SourceError::TooLarge { path: self.source.path.clone(), limits: self.limits }
    }

    fn special(&self, inside: &Path, kind: FileKind) -> SourceError {
        SourceError::Special { path: self.source.path.clone(), inside: inside.to_path_buf(), kind }
    }

    fn cannot_read(&self, inside: &Path, errno: Errno) -> SourceError {
        self.io_error(inside, errno.into())
    }

    fn io_error(&self, inside: &Path, source: io::Error) -> SourceError {
        SourceError::Read { path: self.source.path.clone(), inside: inside.to_path_buf(), source }
    }
}
