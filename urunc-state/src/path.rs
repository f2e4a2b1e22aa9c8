//! Paths that go into a record: absolute, because the next command has another working directory (B24), and
//! UTF-8, because JSON carries nothing else.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// An absolute path that can be written to JSON without loss.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    /// Checks `path` and wraps it. No file is looked at.
    ///
    /// # Errors
    /// [`InvalidPath`] says what is wrong with it.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, InvalidPath> {
        let path = path.into();
        if !path.is_absolute() {
            return Err(InvalidPath::Relative { path });
        }
        if path.to_str().is_none() {
            return Err(InvalidPath::NotUtf8 { path });
        }
        Ok(Self(path))
    }

    /// `rest` below this path; an absolute `rest` as it is, like [`Path::join`].
    #[must_use]
    pub fn join(&self, rest: &str) -> Self {
        Self(self.0.join(rest))
    }
}

impl Deref for AbsolutePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for AbsolutePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = InvalidPath;

    fn try_from(path: PathBuf) -> Result<Self, InvalidPath> {
        Self::new(path)
    }
}

/// Why a path cannot be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPath {
    /// It depends on the working directory.
    #[error("path {path:?} is not absolute")]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// JSON cannot carry it.
    #[error("path {path:?} is not valid UTF-8")]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn only_absolute_utf8_paths_are_taken() {
        assert!(AbsolutePath::new("/run/bundle").is_ok());
        assert!(matches!(AbsolutePath::new("bundle"), Err(InvalidPath::Relative { .. })));
        assert!(matches!(AbsolutePath::new(""), Err(InvalidPath::Relative { .. })));
        let odd = OsStr::from_bytes(b"/run/\xff");
        assert!(matches!(AbsolutePath::new(odd), Err(InvalidPath::NotUtf8 { .. })));
        assert!(serde_json::from_str::<AbsolutePath>("\"bundle\"").is_err());
    }
}
