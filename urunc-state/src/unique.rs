//! Names that nobody else has: for temporary files, and for directories that are not to be seen yet or any more.

use std::ffi::OsStr;
use std::fmt;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

/// A prefix of ours and 16 random hexadecimal digits. `@` cannot occur in a container id, so none of these names
/// is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct UniqueName(String);

/// What a name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A file that is about to replace another.
    File,
    /// A container's directory before it is complete.
    Create,
    /// A container's directory once it has been removed.
    Remove,
}

impl Purpose {
    fn prefix(self) -> &'static str {
        match self {
            Self::File => ".urunc@file-",
            Self::Create => ".urunc@create-",
            Self::Remove => ".urunc@remove-",
        }
    }
}

impl UniqueName {
    pub(crate) fn new(purpose: Purpose) -> Result<Self, rustix::io::Errno> {
        let mut random = [0; 8];
        // Eight bytes come whole or not at all (getrandom(2)).
        rustix::io::retry_on_intr(|| getrandom(&mut random, GetRandomFlags::empty()))?;
        Ok(Self(format!("{}{:016x}", purpose.prefix(), u64::from_ne_bytes(random))))
    }

    /// What `name` is for, if it is one of ours.
    pub(crate) fn purpose(name: &str) -> Option<Purpose> {
        [Purpose::File, Purpose::Create, Purpose::Remove].into_iter().find(|purpose| {
            name.strip_prefix(purpose.prefix()).is_some_and(|random| {
                random.len() == 16 && random.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
            })
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<OsStr> for UniqueName {
    fn as_ref(&self) -> &OsStr {
        self.0.as_ref()
    }
}

impl fmt::Display for UniqueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UniqueName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match Self::purpose(&name) {
            Some(_) => Ok(Self(name)),
            None => Err("not a temporary name of urunc's"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContainerId;

    #[test]
    fn a_unique_name_is_recognised_and_is_no_container_id() {
        for purpose in [Purpose::File, Purpose::Create, Purpose::Remove] {
            let name = UniqueName::new(purpose).unwrap();
            assert_eq!(UniqueName::purpose(name.as_str()), Some(purpose));
            assert!(ContainerId::new(name.as_str()).is_err());
            assert_ne!(name, UniqueName::new(purpose).unwrap());
        }
    }

    #[test]
    fn nothing_else_is_taken_for_ours() {
        for name in [
            "",
            "state.json",
            ".urunc@file-",
            ".urunc@file-0123456789abcde",
            ".urunc@file-0123456789abcdef0",
            ".urunc@file-0123456789ABCDEF",
            ".urunc@file-../../etc/passwd",
            ".urunc@other-0123456789abcdef",
        ] {
            assert_eq!(UniqueName::purpose(name), None, "{name}");
        }
    }
}
