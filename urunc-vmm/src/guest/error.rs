//! What a guest's format cannot carry, said so that the user finds the place: the item, the character, the guest.
//! Values of environment variables never appear in a message: they may be secret.

use std::fmt;

use super::Guest;
use crate::{DeviceId, Monitor};

/// Something that cannot be told to a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A character that the guest's format gives another meaning or none.
    #[error("{item} contains {character}, which the {format} of a {guest} guest cannot carry")]
    Character {
        /// Where it is.
        item: Item,
        /// The character.
        character: Character,
        /// The guest.
        guest: Guest,
        /// The format, for example "command line".
        format: &'static str,
    },
    /// An empty value that the guest's format cannot tell from none.
    #[error("{item} is empty, which the {format} of a {guest} guest cannot carry")]
    Empty {
        /// What is empty.
        item: Item,
        /// The guest.
        guest: Guest,
        /// The format, for example "command line".
        format: &'static str,
    },
    /// Too long for the guest.
    #[error("{item} is {size} bytes long, but a {guest} guest takes at most {limit}")]
    TooLong {
        /// What is too long.
        item: Item,
        /// Its size in bytes.
        size: usize,
        /// The largest size.
        limit: usize,
        /// The guest.
        guest: Guest,
    },
    /// Something that the framework has no notion of.
    #[error("a {guest} guest cannot be given {what}: {remedy}")]
    Unsupported {
        /// What it was to be given.
        what: String,
        /// The guest.
        guest: Guest,
        /// What would work.
        remedy: &'static str,
    },
    /// The workload names a device that the machine does not have.
    #[error("the machine of a {guest} guest has no {what} {id}")]
    NoSuchDevice {
        /// What it is.
        what: &'static str,
        /// Its name.
        id: DeviceId,
        /// The guest.
        guest: Guest,
    },
    /// A combination that does not exist.
    #[error("a {guest} guest does not run on {monitor}: it runs on {}", list(guest.monitors()))]
    Pair {
        /// The guest.
        guest: Guest,
        /// The monitor.
        monitor: Monitor,
    },
}

/// A value that is to reach a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// An argument of the process.
    Argument {
        /// Its index; 0 is the program.
        index: usize,
        /// Its value.
        value: String,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// Something else, in words.
    Named(&'static str),
    /// Something else with a value, in words.
    Value {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: String,
    },
}

impl Item {
    pub(super) fn argument(index: usize, value: &str) -> Self {
        Self::Argument { index, value: value.to_owned() }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument { index, value } => write!(f, "argument {index} ({value:?})"),
            Self::Environment(name) => write!(f, "environment variable {name:?}"),
            Self::Named(what) => f.write_str(what),
            Self::Value { what, value } => write!(f, "{what} {value:?}"),
        }
    }
}

/// A character, printed by its name where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Character(pub char);

impl fmt::Display for Character {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            '\0' => f.write_str("a NUL byte"),
            '\n' => f.write_str("a newline"),
            '\r' => f.write_str("a carriage return"),
            '\t' => f.write_str("a tab"),
            ' ' => f.write_str("a space"),
            '"' => f.write_str("a double quote"),
            '\'' => f.write_str("a single quote"),
            ',' => f.write_str("a comma"),
            '\\' => f.write_str("a backslash"),
            c if c.is_ascii_graphic() => write!(f, "the character {c:?}"),
            c => write!(f, "the character U+{:04X}", u32::from(c)),
        }
    }
}

fn list(monitors: &[Monitor]) -> String {
    monitors.iter().map(|monitor| monitor.name()).collect::<Vec<_>>().join(", ")
}
