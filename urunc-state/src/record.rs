//! The state record of a container: what `state.json` holds.
//!
//! It is a superset of the OCI state (runtime specification, "State"): the OCI fields at the top level, so that
//! whoever reads a runtime's `state.json` finds what it expects, and one object `urunc` with what we need. What
//! the user or the image said (`annotations`) and what the administrator configured (`urunc.config`) are kept
//! apart for good (B38), the latter as JSON text in which no name or number can get lost (B43). Fields that
//! we do not know are kept on both levels; a schema that we do not know is refused.
//!
//! Where the container really is in its life is not in here: see [`status`](crate::status()).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::{Fields, Unknown};
use crate::{
    AbsolutePath, ContainerId, DocumentError, Event, ExeIdentity, IllegalTransition, Json, ProcessIdentity,
    Schema, Status, Timestamp, document,
};

/// A container's state record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Version of the OCI specification that the state complies with.
    pub oci_version: String,
    id: ContainerId,
    status: Status,
    /// The OCI bundle.
    pub bundle: AbsolutePath,
    /// The container's root file system.
    pub rootfs: AbsolutePath,
    /// Name of the user who created the container.
    pub owner: String,
    /// When it was created.
    pub created: Timestamp,
    /// All annotations of the specification. Untrusted.
    pub annotations: BTreeMap<String, String>,
    /// What is ours.
    pub urunc: Details,
    unknown: Unknown,
}

/// The object `urunc` of a [`Record`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    schema: Schema,
    /// The container process: init, later the monitor. `None` until it has been cloned.
    pub process: Option<ProcessIdentity>,
    /// The program that init executes; it executes another one once the container has been started.
    pub exe: Option<ExeIdentity>,
    /// The monitor, such as `qemu`.
    pub monitor: String,
    /// The kind of guest, such as `unikraft`.
    pub guest: String,
    /// The configuration as it was when the container was created. Trusted.
    pub config: Json,
    /// The inputs of the machine's plan.
    pub machine: Json,
    /// The network namespace to join or joined, if it has a path.
    pub network_namespace: Option<AbsolutePath>,
    /// The file that tells whether the container's cgroup is frozen: `cgroup.events` on cgroup v2,
    /// `freezer.state` on v1.
    pub freezer: Option<AbsolutePath>,
    /// Why it stopped, if it did not just exit.
    pub reason: Option<String>,
    /// What must be released in the end, in the order in which it was acquired.
    pub resources: Vec<Resource>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// Something that the kernel does not clean up by itself. Recorded before it is acquired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is; names the library type that `data` belongs to.
    pub kind: String,
    /// Version of `data`.
    pub schema: u32,
    /// Whatever the owner needs in order to release it.
    pub data: Json,
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Written<'a> {
            oci_version: &'a str,
            id: &'a ContainerId,
            status: Status,
            /// For other readers: what is true at the time of writing. Never read by us.
            pid: i64,
            bundle: &'a AbsolutePath,
            rootfs: &'a AbsolutePath,
            owner: &'a str,
            created: &'a Timestamp,
            annotations: &'a BTreeMap<String, String>,
            urunc: &'a Details,
            #[serde(flatten)]
            unknown: &'a Unknown,
        }
        let Self { oci_version, id, status, bundle, rootfs, owner, created, annotations, urunc, unknown } =
            self;
        let (status, pid) = (*status, self.visible_pid(*status));
        Written { oci_version, id, status, pid, bundle, rootfs, owner, created, annotations, urunc, unknown }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Fields::deserialize(deserializer)?;
        let _for_others: i64 = fields.take("pid")?;
        Ok(Self {
            oci_version: fields.take("ociVersion")?,
            id: fields.take("id")?,
            status: fields.take("status")?,
            bundle: fields.take("bundle")?,
            rootfs: fields.take("rootfs")?,
            owner: fields.take("owner")?,
            created: fields.take("created")?,
            annotations: fields.find("annotations")?.unwrap_or_default(),
            urunc: fields.take("urunc")?,
            unknown: fields.rest(),
        })
    }
}

impl<'de> Deserialize<'de> for Details {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Fields::deserialize(deserializer)?;
        Ok(Self {
            schema: fields.take("schema")?,
            process: fields.find("process")?,
            exe: fields.find("exe")?,
            monitor: fields.take("monitor")?,
            guest: fields.take("guest")?,
            config: fields.take("config")?,
            machine: fields.take("machine")?,
            network_namespace: fields.find("networkNamespace")?,
            freezer: fields.find("freezer")?,
            reason: fields.find("reason")?,
            resources: fields.find("resources")?.unwrap_or_default(),
            unknown: fields.rest(),
        })
    }
}

impl Record {
    /// The version of the OCI runtime specification that a new record states.
    pub const OCI_VERSION: &'static str = "1.2.0";

    /// The first record of a container, in status `creating`. The other fields have defaults (`rootfs` is
    /// `BUNDLE/rootfs`, `owner` is `root`, `created` is now) and are set directly.
    #[must_use]
    pub fn new(id: ContainerId, bundle: AbsolutePath) -> Self {
        Self {
            oci_version: Self::OCI_VERSION.to_owned(),
            id,
            status: Status::Creating,
            rootfs: bundle.join("rootfs"),
            bundle,
            owner: "root".to_owned(),
            created: Timestamp::now(),
            annotations: BTreeMap::new(),
            urunc: Details::default(),
            unknown: Unknown::new(),
        }
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The status as last recorded, *not* the container's status: that is [`status`](crate::status()).
    #[must_use]
    pub fn recorded_status(&self) -> Status {
        self.status
    }

    /// Records what follows from `event` for a container that was *seen* in status `from`.
    ///
    /// # Errors
    /// [`IllegalTransition`]; the record is then unchanged.
    pub fn advance(&mut self, from: Status, event: Event) -> Result<Status, IllegalTransition> {
        self.status = from.after(event)?;
        Ok(self.status)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`DocumentError::Schema`] when it has a schema that we do not know, whatever else is in it;
    /// [`DocumentError::Malformed`] when it is not a record.
    pub fn from_json(json: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Outline {
            urunc: Inner,
        }
        #[derive(Deserialize)]
        struct Inner {
            schema: u32,
        }
        document::from_json(json, |json| Some(serde_json::from_slice::<Outline>(json).ok()?.urunc.schema))
    }

    /// Writes the record, with the pid that readers expect.
    ///
    /// # Errors
    /// [`DocumentError::Unwritable`] when a value of the record cannot be put into JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, DocumentError> {
        document::to_json(self)
    }

    /// The pid that other programs are told in this status: 0 where there is no process.
    pub(crate) fn visible_pid(&self, status: Status) -> i64 {
        match (&self.urunc.process, status) {
            (None, _) | (_, Status::Stopped) => 0,
            (Some(process), _) => process.pid.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pid;
    use crate::document::tests::{json, unknown_fields};
    use proptest::prelude::*;
    use serde_json::Value;

    fn record() -> Record {
        Record::new(ContainerId::new("a").unwrap(), AbsolutePath::new("/bundle").unwrap())
    }

    fn as_value(record: &Record) -> Value {
        serde_json::from_slice(&record.to_json().unwrap()).unwrap()
    }

    fn process() -> ProcessIdentity {
        ProcessIdentity {
            pid: Pid::new(42).unwrap(),
            start_time: 7,
            boot_id: "boot".into(),
            pid_namespace: 1,
        }
    }

    fn reason(error: DocumentError) -> String {
        match error {
            DocumentError::Malformed(source) => source.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn other_readers_find_the_pid_exactly_while_there_is_a_process() {
        // B1: the Go version wrote -1, and killed it.
        let mut record = record();
        assert_eq!(as_value(&record)["pid"], 0);
        record.urunc.process = Some(process());
        for (from, event, pid) in [
            (Status::Creating, Event::Created, 42),
            (Status::Created, Event::Started, 42),
            (Status::Running, Event::Exited, 0),
        ] {
            let status = record.advance(from, event).unwrap();
            // However it is written.
            for json in [as_value(&record), serde_json::to_value(&record).unwrap()] {
                assert_eq!((&json["status"], &json["pid"]), (&status.as_str().into(), &pid.into()));
            }
        }
    }

    #[test]
    fn the_pid_that_others_see_is_never_read() {
        let mut record = record();
        record.urunc.process = Some(process());
        let mut json = as_value(&record);
        json["pid"] = (-1).into();
        let read = Record::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.urunc.process, Some(process()));
        assert_eq!(read.visible_pid(Status::Running), 42);
    }

    #[test]
    fn a_forged_process_is_refused_on_reading() {
        let mut record = record();
        record.urunc.process = Some(process());
        let json = as_value(&record);
        for pid in [0, -1] {
            let mut json = json.clone();
            json["urunc"]["process"]["pid"] = pid.into();
            let error = Record::from_json(json.to_string().as_bytes()).unwrap_err();
            assert!(reason(error).contains("must be greater than 0"));
        }
    }

    #[test]
    fn an_illegal_step_leaves_the_record_as_it_was() {
        let mut record = record();
        let before = record.clone();
        assert!(record.advance(Status::Stopped, Event::Started).is_err());
        assert_eq!(record, before);
    }

    #[test]
    fn an_annotation_can_never_become_configuration() {
        // B38: spec annotations named like configuration keys were honoured when the state was read again.
        // B43: names with dots in them and explicit zeros got lost in flattened keys.
        let mut record = record();
        let config = serde_json::json!({"monitors": {"my.qemu": {"default_vcpus": 0}}});
        record.urunc.config = Json::of(&config).unwrap();
        let key = "urunc_config.monitors.qemu.binary_path";
        record.annotations.insert(key.into(), "/tmp/evil".into());
        let read = Record::from_json(&record.to_json().unwrap()).unwrap();
        assert_eq!(read.urunc.config, record.urunc.config);
        assert_eq!(read.annotations[key], "/tmp/evil");
    }

    #[test]
    fn what_is_not_our_record_is_refused_with_a_reason() {
        let good = as_value(&record());
        let without = |field: &str| {
            let mut json = good.clone();
            json.as_object_mut().unwrap().remove(field);
            json.to_string()
        };
        let with = |field: &str, value: Value| {
            let mut json = good.clone();
            json[field] = value;
            json.to_string()
        };
        for (json, expected) in [
            (String::new(), "EOF"),
            (good.to_string()[..100].to_owned(), "EOF"),
            ("null".into(), "expected"),
            (without("urunc"), "missing field `urunc`"),
            (without("status"), "missing field `status`"),
            (with("status", "zombie".into()), "unknown variant `zombie`"),
            (with("id", "..".into()), "names a directory"),
            (with("bundle", "relative".into()), "not absolute"),
            (with("created", "yesterday".into()), "not an RFC 3339 time"),
        ] {
            let error = reason(Record::from_json(json.as_bytes()).unwrap_err());
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn an_unknown_schema_is_named_even_if_nothing_else_can_be_read() {
        for (json, found) in [(r#"{"urunc":{"schema":2}}"#, 2), (r#"{"urunc":{"schema":0},"id":[]}"#, 0)] {
            let error = Record::from_json(json.as_bytes()).unwrap_err();
            assert!(matches!(error, DocumentError::Schema(schema) if schema.found == found), "{error:?}");
        }
    }

    fn own() -> impl Strategy<Value = Json> {
        json().prop_map(|value| Json::of(&value).unwrap())
    }

    fn texts(fields: serde_json::Map<String, Value>) -> Unknown {
        fields.into_iter().map(|(name, value)| (name, Json::of(&value).unwrap())).collect()
    }

    prop_compose! {
        fn any_record()(
            unknown in unknown_fields(),
            inner in unknown_fields(),
            annotations in prop::collection::btree_map(".{0,9}", ".{0,9}", 0..4),
            (config, machine, data) in (own(), own(), own()),
            reason in prop::option::of(".{0,9}"),
            owner in ".{0,9}",
            alive in any::<bool>(),
            namespace in prop::option::of("/[ -~]{0,20}"),
        ) -> Record {
            let mut record = record();
            record.unknown = texts(unknown);
            record.annotations = annotations;
            record.owner = owner;
            record.urunc = Details {
                schema: Schema,
                process: alive.then(process),
                exe: alive.then_some(ExeIdentity { dev: u64::MAX, ino: 1 }),
                monitor: "qemu".into(),
                guest: "linux".into(),
                config,
                machine,
                network_namespace: namespace.map(|path| AbsolutePath::new(path).unwrap()),
                freezer: None,
                reason,
                resources: vec![Resource { kind: "tap".into(), schema: 1, data }],
                unknown: texts(inner),
            };
            record
        }
    }

    proptest! {
        #[test]
        fn everything_survives_writing_and_reading(record in any_record()) {
            let read = Record::from_json(&record.to_json().unwrap()).unwrap();
            prop_assert_eq!(read, record);
        }

        #[test]
        fn a_rewrite_by_us_changes_nothing_in_a_file_from_elsewhere(record in any_record()) {
            let theirs = as_value(&record);
            let read = Record::from_json(theirs.to_string().as_bytes()).unwrap();
            prop_assert_eq!(as_value(&read), theirs);
        }

        #[test]
        fn no_prefix_of_a_record_passes_for_one(record in any_record(), cut in any::<prop::sample::Index>()) {
            let json = record.to_json().unwrap();
            let text = json.trim_ascii_end();
            prop_assert!(Record::from_json(&text[..cut.index(text.len())]).is_err());
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Record::from_json(&bytes).is_err());
        }
    }
}
