//! The container id: the only thing that is ever joined to the root of the store.
//!
//! The grammar is runc's, so that an id means the same to us and to the runtime that we delegate to. It has no
//! path separator and excludes `.` and `..`, so an id can neither leave the root nor name it (B5).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A valid container id: `[A-Za-z0-9_+.-]{1,1024}`, neither `.` nor `..`.
///
/// ```
/// use urunc_state::ContainerId;
///
/// assert!(ContainerId::new("web-1.example").is_ok());
/// assert!(ContainerId::new("../etc").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The longest id. A store takes only what also fits into a file name; see [`StoreError::IdTooLong`].
    ///
    /// [`StoreError::IdTooLong`]: crate::StoreError::IdTooLong
    pub const MAX_LEN: usize = 1024;

    /// Checks `id` and wraps it.
    ///
    /// # Errors
    /// [`InvalidId`] names what is wrong with it.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        let id = id.into();
        if id.is_empty() {
            return Err(InvalidId::Empty);
        }
        if id.len() > Self::MAX_LEN {
            return Err(InvalidId::TooLong { length: id.len() });
        }
        if let Some(character) = id.chars().find(|&c| !(c.is_ascii_alphanumeric() || "_+.-".contains(c))) {
            return Err(InvalidId::Character { id, character });
        }
        if id == "." || id == ".." {
            return Err(InvalidId::Directory { id });
        }
        Ok(Self(id))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(id: &str) -> Result<Self, InvalidId> {
        Self::new(id)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidId;

    fn try_from(id: String) -> Result<Self, InvalidId> {
        Self::new(id)
    }
}

/// Why a text is not a container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// Nothing was given.
    #[error("invalid container id: it is empty")]
    Empty,
    /// More than [`ContainerId::MAX_LEN`] bytes.
    #[error("invalid container id of {length} bytes: at most {} are allowed", ContainerId::MAX_LEN)]
    TooLong {
        /// Length in bytes.
        length: usize,
    },
    /// A character outside the grammar.
    #[error("invalid container id {id:?}: {character:?} is not one of A-Z a-z 0-9 _ + . -")]
    Character {
        /// The whole text.
        id: String,
        /// The first offender.
        character: char,
    },
    /// `.` or `..`.
    #[error("invalid container id {id:?}: it names a directory")]
    Directory {
        /// The whole text.
        id: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_from_dots_to_1025_characters() {
        // B5: no id may lead outside the root or to the root itself.
        let longest = "a".repeat(1024);
        for good in ["a", "A-Z_0.9+", "...", "..a", ".hidden", "-", "libcontainer", &longest] {
            assert_eq!(ContainerId::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "/",
            "a/b",
            "../x",
            "a\\b",
            "a b",
            "a\0",
            "a\n",
            "ä",
            "@a",
            "~",
            &"a".repeat(1025),
        ] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn errors_name_the_value_and_what_is_allowed() {
        let message = |id: &str| ContainerId::new(id).unwrap_err().to_string();
        assert_eq!(message("a/b"), "invalid container id \"a/b\": '/' is not one of A-Z a-z 0-9 _ + . -");
        assert_eq!(message(".."), "invalid container id \"..\": it names a directory");
        assert_eq!(
            message(&"x".repeat(1025)),
            "invalid container id of 1025 bytes: at most 1024 are allowed"
        );
    }

    #[test]
    fn deserializing_checks_as_well() {
        assert!(serde_json::from_str::<ContainerId>("\"..\"").is_err());
        assert_eq!(serde_json::from_str::<ContainerId>("\"a\"").unwrap().as_str(), "a");
    }

    proptest! {
        #[test]
        fn an_accepted_id_is_one_plain_path_component(text in "\\PC{0,20}") {
            if let Ok(id) = ContainerId::new(text) {
                let path = std::path::Path::new(id.as_str());
                prop_assert_eq!(path.components().count(), 1);
                prop_assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))));
            }
        }
    }
}
