//! The version of our file formats. A file of an unknown version is refused, never guessed at: acting on half of
//! what a newer urunc recorded could leave things behind or remove the wrong ones.

use serde::{Deserialize, Serialize};

/// The one version that this code reads and writes. A field may be added without a new one; a new one is needed
/// when an older urunc would do harm by ignoring what it does not know.
const CURRENT: u32 = 1;

/// The `schema` field: can only hold [`CURRENT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub(crate) struct Schema;

impl TryFrom<u32> for Schema {
    type Error = SchemaError;

    fn try_from(found: u32) -> Result<Self, SchemaError> {
        if found == CURRENT { Ok(Self) } else { Err(SchemaError { found }) }
    }
}

impl From<Schema> for u32 {
    fn from(_: Schema) -> Self {
        CURRENT
    }
}

/// A file of a version that this urunc does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("schema version {found} is not known, only {CURRENT} is; use the urunc that created the container")]
pub struct SchemaError {
    /// The version in the file.
    pub found: u32,
}
