//! A path inside the monitor's root: absolute, without `.`, `..` or doubled slashes, and not `/` itself.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A place inside the monitor's root, such as `/dev/kvm`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub struct Target(PathBuf);

/// The path cannot be a place inside the monitor's root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path:?} is not a place in the monitor's root: it must be absolute, without `.` and `..`, and not `/`"
)]
pub struct BadTarget {
    path: PathBuf,
}

impl Target {
    /// Checks `path`.
    ///
    /// # Errors
    /// [`BadTarget`] if it is relative, `/`, not in its shortest form, or contains `..`.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, BadTarget> {
        let path = path.into();
        let mut parts = path.components();
        let absolute = parts.next() == Some(Component::RootDir);
        let mut rebuilt = PathBuf::from("/");
        let plain = parts.clone().all(|part| matches!(part, Component::Normal(_)));
        rebuilt.extend(parts);
        // `components` tolerates `a//b`, `a/./b` and `a/`: compare the bytes.
        let shortest = rebuilt.as_os_str() == path.as_os_str();
        if absolute && plain && shortest && path != Path::new("/") {
            Ok(Self(path))
        } else {
            Err(BadTarget { path })
        }
    }

    /// The absolute path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The place `below` this one.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self(self.0.join(below.relative()))
    }

    /// The path relative to the root.
    pub(super) fn relative(&self) -> &Path {
        self.0.strip_prefix("/").unwrap_or(&self.0)
    }

    /// The path relative to `other`, if this place lies strictly below it.
    pub(super) fn inside(&self, other: &Self) -> Option<&Path> {
        if self == other { None } else { self.0.strip_prefix(&other.0).ok() }
    }

    /// Whether this place lies strictly below `other`.
    pub(super) fn is_below(&self, other: &Self) -> bool {
        self.inside(other).is_some()
    }
}

impl TryFrom<PathBuf> for Target {
    type Error = BadTarget;

    fn try_from(path: PathBuf) -> Result<Self, BadTarget> {
        Self::new(path)
    }
}

impl From<Target> for PathBuf {
    fn from(target: Target) -> Self {
        target.0
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_places() {
        for good in ["/boot/kernel", "/dev", "/a b,c=d\n", "/...", "/.hidden"] {
            assert!(Target::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "/", "boot", "./a", "/..", "/a/../b", "/a/.", "/a/./b", "/a//b", "//a", "/a/"] {
            assert!(Target::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn below_means_components_and_not_letters() {
        let at = |p: &str| Target::new(p).unwrap();
        assert!(at("/usr/lib").is_below(&at("/usr")));
        assert!(!at("/usrlocal").is_below(&at("/usr")));
        assert!(!at("/usr").is_below(&at("/usr")));
    }
}
