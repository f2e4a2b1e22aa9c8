//! Reading and writing our two JSON files, `state.json` and `origin.json`.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::SchemaError;

/// Reads a document. When that fails, `schema_of` looks whether an unknown schema is the reason: what a newer
/// urunc wrote need not even parse.
pub(crate) fn from_json<T: DeserializeOwned>(
    json: &[u8],
    schema_of: impl FnOnce(&[u8]) -> Option<u32>,
) -> Result<T, DocumentError> {
    serde_json::from_slice(json).map_err(|source| {
        match schema_of(json).and_then(|found| crate::Schema::try_from(found).err()) {
            Some(unknown) => DocumentError::Schema(unknown),
            None => DocumentError::Malformed(source),
        }
    })
}

/// Writes a document, on one line.
pub(crate) fn to_json(document: &impl Serialize) -> Result<Vec<u8>, DocumentError> {
    let mut json = serde_json::to_vec(document).map_err(DocumentError::Unwritable)?;
    json.push(b'\n');
    Ok(json)
}

/// Why some text is not a document that we can work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Another version of urunc wrote it.
    #[error(transparent)]
    Schema(SchemaError),
    /// It is damaged, or somebody else's.
    #[error("cannot understand it")]
    Malformed(#[source] serde_json::Error),
    /// It holds a value that JSON cannot carry.
    #[error("cannot express it in JSON")]
    Unwritable(#[source] serde_json::Error),
}
