//! Files of a container image, opened so that a hostile image can neither point outside itself nor block us.
//!
//! Every path is resolved by the kernel below the image's root (`openat2(2)`: `RESOLVE_IN_ROOT`,
//! `RESOLVE_NO_MAGICLINKS`) and used only through the descriptor obtained. What a file means is the
//! caller's business.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, open, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::confined;

/// An open image root directory.
#[derive(Debug)]
pub struct Image {
    root: OwnedFd,
    path: PathBuf,
}

/// A regular file of an image, open for reading.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    path: PathBuf,
    size: u64,
}

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// None of these.
    Unknown,
}

/// Why a file of an image cannot be used. `path` is always the path as the caller gave it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The image root itself cannot be opened as a directory.
    #[error("cannot open the image root {}", path.display())]
    Root {
        /// The image root.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No such file in the image.
    #[error("the image has no file {path:?}")]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// Something is there, but it is not a regular file.
    #[error("cannot use {path:?} of the image: it is {kind}, not a regular file")]
    NotRegular {
        /// The path as given.
        path: PathBuf,
        /// What it is instead.
        kind: FileKind,
    },
    /// A link on the way leads out of the image (through `/proc`) or round in circles.
    #[error("cannot use {path:?} of the image: a symbolic link on its way leaves the image or never ends")]
    Leaves {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file has more bytes than the caller allows.
    #[error("cannot use {path:?} of the image: it has {size} bytes, more than the {limit} accepted")]
    TooLarge {
        /// The path as given.
        path: PathBuf,
        /// The file's size, or what was read of it so far.
        size: u64,
        /// The caller's limit.
        limit: u64,
    },
    /// Somebody kept renaming directories while the path was resolved.
    #[error("cannot open {path:?} of the image: its directories change while it is resolved")]
    Unstable {
        /// The path as given.
        path: PathBuf,
    },
    /// Any other failure to open the file.
    #[error("cannot open {path:?} of the image")]
    Open {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file was opened but cannot be read.
    #[error("cannot read {path:?} of the image")]
    Read {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Image {
    /// Opens the directory `path`, which is trusted: it comes from the bundle, not from the image.
    ///
    /// # Errors
    /// [`ImageError::Root`] if it is not a directory that can be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        let path = path.as_ref().to_path_buf();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open(&path, flags, Mode::empty()) {
            Ok(root) => Ok(Self { root, path }),
            Err(e) => Err(ImageError::Root { path, source: e.into() }),
        }
    }

    /// The root directory as it was given to [`Image::open`], for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the regular file `path` for reading. Absolute and relative paths mean the same: both start at
    /// the image's root, and `..` and absolute links cannot leave it. Never blocks and has no side effect
    /// on fifos and devices: they are recognised before they are opened.
    ///
    /// # Errors
    /// Any [`ImageError`] but `Root`, `TooLarge` and `Read`.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<ImageFile, ImageError> {
        let path = path.as_ref();
        let (place, stat) = self.find(path)?;
        let kind = FileKind::of(&stat);
        if kind != FileKind::Regular {
            return Err(ImageError::NotRegular { path: path.to_path_buf(), kind });
        }
        // The link leads to this very inode whatever happens to its names; O_NONBLOCK guards against leases.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let again = format!("/proc/self/fd/{}", place.as_raw_fd());
        let fd = openat(CWD, again, flags, Mode::empty())
            .map_err(|e| ImageError::Open { path: path.to_path_buf(), source: e.into() })?;
        Ok(ImageFile { file: File::from(fd), path: path.to_path_buf(), size: size_of_file(&stat) })
    }

    /// Reads the whole regular file `path`, which may have at most `limit` bytes.
    ///
    /// # Errors
    /// Any [`ImageError`] but `Root`.
    pub fn read_small(&self, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>, ImageError> {
        self.open_file(path)?.read_small(limit)
    }

    /// Finds what `path` names without opening it (`O_PATH`).
    fn find(&self, path: &Path) -> Result<(OwnedFd, Stat), ImageError> {
        let found = confined::find(self.root.as_fd(), path).and_then(|fd| fstat(&fd).map(|stat| (fd, stat)));
        found.map_err(|e| cannot_find(path, e))
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl ImageFile {
    /// The path within the image, as it was given to [`Image::open_file`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads the whole file, which may have at most `limit` bytes, even if it grows meanwhile.
    ///
    /// # Errors
    /// [`ImageError::TooLarge`] and [`ImageError::Read`].
    pub fn read_small(&self, limit: u64) -> Result<Vec<u8>, ImageError> {
        let too_large = |size| Err(ImageError::TooLarge { path: self.path.clone(), size, limit });
        if self.size > limit {
            return too_large(self.size);
        }
        let mut content = Vec::new();
        let mut file = &self.file;
        file.rewind()
            .and_then(|()| file.take(limit.saturating_add(1)).read_to_end(&mut content))
            .map_err(|e| ImageError::Read { path: self.path.clone(), source: e })?;
        match u64::try_from(content.len()) {
            Ok(size) if size <= limit => Ok(content),
            _ => too_large(limit.saturating_add(1)),
        }
    }

    /// The open file itself.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

impl AsFd for ImageFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl FileKind {
    /// The kind that `stat` tells.
    pub(crate) fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::Regular,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "a regular file",
            Self::Directory => "a directory",
            Self::Link => "a symbolic link",
            Self::Fifo => "a fifo",
            Self::Socket => "a socket",
            Self::CharDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Unknown => "of an unknown kind",
        })
    }
}

fn size_of_file(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn cannot_find(path: &Path, errno: Errno) -> ImageError {
    let path = path.to_path_buf();
    match errno {
        Errno::NOENT | Errno::NOTDIR => ImageError::Missing { path },
        Errno::AGAIN => ImageError::Unstable { path },
        // ELOOP: a magic link, or more than 40 links. EXDEV: a link that only the kernel could follow.
        Errno::LOOP | Errno::XDEV => ImageError::Leaves { path, source: errno.into() },
        _ => ImageError::Open { path, source: errno.into() },
    }
}
