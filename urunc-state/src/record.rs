//! The state record of a container: what `state.json` holds.
//!
//! It is a superset of the OCI state (runtime specification, "State"): the OCI fields at the top level, so that
//! whoever reads a runtime's `state.json` finds what it expects, and one object `urunc` with what we need. What
//! the user or the image said (`annotations`) and what the administrator configured (`urunc.config`) are kept
//! apart for good (B38), the latter as a JSON value in which no name or number can get lost (B43). Fields that
//! we do not know are kept on both levels; a schema that we do not know is refused.
//!
//! Where the container really is in its life is not in here: see [`status`](crate::status()).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    AbsolutePath, ContainerId, DocumentError, Event, ExeIdentity, IllegalTransition, ProcessIdentity, Schema,
    Status, Timestamp, document,
};

/// A container's state record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Version of the OCI specification that the state complies with.
    pub oci_version: String,
    id: ContainerId,
    status: Status,
    /// For other readers: what is true at the time of writing. Set by each write, and never read by us.
    pid: i64,
    /// The OCI bundle.
    pub bundle: AbsolutePath,
    /// The container's root file system.
    pub rootfs: AbsolutePath,
    /// Name of the user who created the container.
    pub owner: String,
    /// When it was created.
    pub created: Timestamp,
    /// All annotations of the specification. Untrusted.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What is ours.
    pub urunc: Details,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// The object `urunc` of a [`Record`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    pub config: Value,
    /// The inputs of the machine's plan.
    pub machine: Value,
    /// The network namespace to join or joined, if it has a path.
    pub network_namespace: Option<AbsolutePath>,
    /// The file that tells whether the container's cgroup is frozen: `cgroup.events` on cgroup v2,
    /// `freezer.state` on v1.
    pub freezer: Option<AbsolutePath>,
    /// Why it stopped, if it did not just exit.
    pub reason: Option<String>,
    /// What must be released in the end, in the order in which it was acquired.
    #[serde(default)]
    pub resources: Vec<Resource>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// Something that the kernel does not clean up by itself. Recorded before it is acquired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is; names the library type that `data` belongs to.
    pub kind: String,
    /// Version of `data`.
    pub schema: u32,
    /// Whatever the owner needs in order to release it.
    pub data: Value,
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
            pid: 0,
            rootfs: bundle.join("rootfs"),
            bundle,
            owner: "root".to_owned(),
            created: Timestamp::now(),
            annotations: BTreeMap::new(),
            urunc: Details::default(),
            unknown: Map::new(),
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
    pub fn to_json(&mut self) -> Result<Vec<u8>, DocumentError> {
        self.pid = self.visible_pid(self.status);
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
