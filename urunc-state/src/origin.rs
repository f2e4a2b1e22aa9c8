//! What is known of a container before anything exists: `origin.json`.
//!
//! It is written once, before the container's directory appears, and never rewritten. That it exists makes a
//! container ours; without it, the id belongs to a runtime that we delegate to. And when the record itself is
//! unreadable all the same, it holds what a forced delete needs.

use serde::{Deserialize, Serialize};

use crate::{AbsolutePath, ContainerId, DocumentError, PidFile, Resource, Schema, Timestamp, document};

/// Where a container comes from, and where its processes and leftovers are to be found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    schema: Schema,
    marker: Marker,
    id: ContainerId,
    /// The OCI bundle.
    pub bundle: AbsolutePath,
    /// When the container was created.
    pub created: Timestamp,
    /// The directories of the cgroup that the container will have, one for each hierarchy.
    #[serde(default)]
    pub cgroups: Vec<AbsolutePath>,
    /// The systemd unit of the cgroup, if systemd is to make it.
    pub systemd_unit: Option<String>,
    /// The network namespace to join, if it has a path.
    pub network_namespace: Option<AbsolutePath>,
    /// The pid file that the caller asked for.
    pub pid_file: Option<PidFile>,
    /// What will be taken from the host and must be given back even if the record is lost.
    #[serde(default)]
    pub resources: Vec<Resource>,
}

/// Tells our `origin.json` from a file that merely has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Marker {
    #[serde(rename = "urunc container")]
    Container,
}

impl Origin {
    /// The origin of a new container. The other fields start empty and are set directly.
    #[must_use]
    pub fn new(id: ContainerId, bundle: AbsolutePath) -> Self {
        Self {
            schema: Schema,
            marker: Marker::Container,
            id,
            bundle,
            created: Timestamp::now(),
            cgroups: vec![],
            systemd_unit: None,
            network_namespace: None,
            pid_file: None,
            resources: vec![],
        }
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Reads an origin.
    ///
    /// # Errors
    /// [`DocumentError::Schema`] when it has a schema that we do not know, whatever else is in it;
    /// [`DocumentError::Malformed`] when it is not an origin.
    pub fn from_json(json: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Outline {
            schema: u32,
        }
        document::from_json(json, |json| Some(serde_json::from_slice::<Outline>(json).ok()?.schema))
    }

    /// Writes the origin.
    ///
    /// # Errors
    /// [`DocumentError::Unwritable`] when a value of the origin cannot be put into JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, DocumentError> {
        document::to_json(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tests::unknown_fields;
    use proptest::prelude::*;
    use serde_json::Value;

    fn origin() -> Origin {
        Origin::new(ContainerId::new("a").unwrap(), AbsolutePath::new("/bundle").unwrap())
    }

    #[test]
    fn a_file_without_our_marker_is_not_an_origin() {
        let good: Value = serde_json::from_slice(&origin().to_json().unwrap()).unwrap();
        for marker in [Value::Null, "runc".into()] {
            let mut json = good.clone();
            json["marker"] = marker;
            assert!(matches!(
                Origin::from_json(json.to_string().as_bytes()),
                Err(DocumentError::Malformed(_))
            ));
        }
    }

    #[test]
    fn an_unknown_schema_is_named_even_if_nothing_else_can_be_read() {
        let error = Origin::from_json(br#"{"schema":3}"#).unwrap_err();
        assert!(matches!(error, DocumentError::Schema(schema) if schema.found == 3), "{error:?}");
    }

    proptest! {
        #[test]
        fn everything_survives_writing_and_reading(
            unknown in unknown_fields(),
            cgroups in prop::collection::vec("/[ -~]{0,20}", 0..3),
            unit in prop::option::of("[a-z]{1,9}[.]scope"),
            namespace in prop::option::of("/[ -~]{0,20}"),
            pid_file in prop::option::of("/[a-z ]{1,9}/pid"),
            kinds in prop::collection::vec("[ -~]{0,20}", 0..3),
        ) {
            let path = |path: String| AbsolutePath::new(path).unwrap();
            let mut origin = origin();
            origin.cgroups = cgroups.into_iter().map(path).collect();
            origin.systemd_unit = unit;
            origin.network_namespace = namespace.map(path);
            origin.pid_file = pid_file.map(|file| PidFile::new(path(file)).unwrap());
            let resource = |kind| Resource { kind, schema: 1, data: crate::Json::of(&[1]).unwrap() };
            origin.resources = kinds.into_iter().map(resource).collect();
            let mut json: Value = serde_json::from_slice(&origin.to_json().unwrap()).unwrap();
            json.as_object_mut().unwrap().extend(unknown);
            prop_assert_eq!(Origin::from_json(json.to_string().as_bytes()).unwrap(), origin);
        }
    }
}
