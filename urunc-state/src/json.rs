//! Parts of our documents that belong to somebody else: kept as the text that they are.
//!
//! Whoever only passes a record on neither pays for taking such a part apart nor can lose a name or a digit of it. That
//! counts, because every command reads a record, and a container's life writes it several times (benches/README.md).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// Any JSON value, as text. Two are equal if their texts are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// `value` as JSON.
    ///
    /// # Errors
    /// What of it JSON cannot express.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        to_raw_value(value).map(Self)
    }

    /// What the text says.
    ///
    /// # Errors
    /// Why it is no `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.text())
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

/// `null`
impl Default for Json {
    fn default() -> Self {
        Self(RawValue::NULL.to_owned())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Json {}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Fields of an object that no version of ours has, by name.
pub(crate) type Unknown = BTreeMap<String, Json>;

/// The fields of an object, from which the known ones are taken, so that the unknown ones remain. (What serde's `flatten`
/// does cannot carry text.)
pub(crate) struct Fields(Unknown);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Unknown::new();
                while let Some((name, json)) = map.next_entry::<String, Json>()? {
                    if let Some(_earlier) = fields.insert(name.clone(), json) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Fields {
    /// Takes a field that must be there.
    pub(crate) fn take<T: DeserializeOwned, E: Error>(&mut self, name: &'static str) -> Result<T, E> {
        let json = self.0.remove(name).ok_or_else(|| E::missing_field(name))?;
        json.read().map_err(|error| {
            // Where in the part it is would be taken for where in the whole.
            let text = error.to_string();
            let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
            E::custom(format_args!("{name}: {text}"))
        })
    }

    /// Takes a field that may be absent or `null`.
    pub(crate) fn find<T: DeserializeOwned, E: Error>(&mut self, name: &'static str) -> Result<Option<T>, E> {
        if self.0.contains_key(name) { self.take(name) } else { Ok(None) }
    }

    /// What has not been taken.
    pub(crate) fn rest(self) -> Unknown {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_digit_and_no_name_is_lost() {
        let text = r#"{"a.b":1.10,"a.b ":100000000000000000000000,"e":[null]}"#;
        let json: Json = serde_json::from_str(text).unwrap();
        assert_eq!((json.text(), serde_json::to_string(&json).unwrap().as_str()), (text, text));
        assert_eq!(format!("{json} {json:?}"), format!("{text} {text}"));
    }

    #[test]
    fn a_wrong_field_is_named() {
        let twice = serde_json::from_str::<Fields>(r#"{"a":1,"a":2}"#).err().unwrap();
        assert!(twice.to_string().starts_with("duplicate field `a`"), "{twice}");
        let mut fields: Fields = serde_json::from_str(r#"{"a":1}"#).unwrap();
        let wrong = fields.take::<bool, serde_json::Error>("a").unwrap_err();
        assert_eq!(wrong.to_string(), "a: invalid type: integer `1`, expected a boolean");
    }

    #[test]
    fn what_is_put_in_comes_out() {
        assert_eq!(Json::of(&[1, 2]).unwrap().read::<Vec<u8>>().unwrap(), [1, 2]);
        assert!(Json::default().read::<u8>().is_err());
        assert_eq!(Json::default(), Json::of(&()).unwrap());
    }
}
