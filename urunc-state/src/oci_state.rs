//! The document that the `state` command prints and that hooks get on their standard input.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::{ContainerId, Record, Status};

/// The OCI state of a container (runtime specification, "State") with what CRI-O, Podman and nerdctl read
/// besides: `created`, `rootfs` and `owner`. The pid is 0 where there is no process.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState<'a> {
    oci_version: &'a str,
    id: &'a ContainerId,
    status: Status,
    pid: i64,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    owner: &'a str,
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> OciState<'a> {
    /// The document for a container that is in `status`.
    #[must_use]
    pub fn new(record: &'a Record, status: Status) -> Self {
        Self {
            oci_version: &record.oci_version,
            id: record.id(),
            status,
            pid: record.visible_pid(status),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: record.created.as_str(),
            owner: &record.owner,
            annotations: &record.annotations,
        }
    }
}
