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

/// Writes a document.
pub(crate) fn to_json(document: &impl Serialize) -> Result<Vec<u8>, DocumentError> {
    let mut json = Vec::with_capacity(4096);
    serde_json::to_writer(&mut json, document).map_err(DocumentError::Unwritable)?;
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
    #[error("it is damaged or not urunc's; the container can be deleted with --force")]
    Malformed(#[source] serde_json::Error),
    /// It holds a value that JSON cannot carry.
    #[error("it holds what JSON cannot express")]
    Unwritable(#[source] serde_json::Error),
}

#[cfg(test)]
pub(crate) mod tests {
    //! Laws that hold for both documents.
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    /// Any JSON value that serde_json can hold.
    pub(crate) fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no such number", |n| n.is_finite()).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Fields with names that no version of ours has.
    pub(crate) fn unknown_fields() -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::btree_map("x-.{0,6}", json(), 0..5).prop_map(|map| map.into_iter().collect())
    }
}
