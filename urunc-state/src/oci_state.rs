//! The document that the `state` command prints and that hooks get on their standard input.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::{ContainerId, Record, Status};

/// The OCI state of a container (runtime specification, "State") with what CRI-O, Podman and nerdctl read
/// besides: `created`, `rootfs` and `owner`; and, if a container is stopped because its start failed, with the `reason`,
/// which those who do not know it ignore. The pid is 0 where there is no process.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
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
            reason: record.urunc.reason.as_deref().filter(|_| status == Status::Stopped),
            annotations: &record.annotations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AbsolutePath, Pid, ProcessIdentity, Timestamp};

    #[test]
    fn a_stopped_container_tells_why() {
        let mut record = Record::new(ContainerId::new("a").unwrap(), AbsolutePath::new("/bundle").unwrap());
        record.urunc.reason = Some("no monitor".to_owned());
        for status in Status::ALL {
            let document = serde_json::to_value(OciState::new(&record, status)).unwrap();
            let reason = document.get("reason").and_then(|reason| reason.as_str());
            assert_eq!(reason, (status == Status::Stopped).then_some("no monitor"));
        }
    }

    #[test]
    fn the_document_has_what_clients_read_and_nothing_of_ours() {
        let mut record = Record::new(ContainerId::new("a").unwrap(), AbsolutePath::new("/bundle").unwrap());
        record.created = Timestamp::try_from("2026-01-01T00:00:00Z".to_owned()).unwrap();
        record.annotations.insert("key".into(), "value".into());
        let pid = Pid::new(42).unwrap();
        record.urunc.process =
            Some(ProcessIdentity { pid, start_time: 1, boot_id: String::new(), pid_namespace: 1 });
        for (status, pid) in
            [("creating", 42), ("created", 42), ("running", 42), ("paused", 42), ("stopped", 0)]
        {
            let found = Status::ALL.into_iter().find(|known| known.as_str() == status).unwrap();
            assert_eq!(
                serde_json::to_value(OciState::new(&record, found)).unwrap(),
                serde_json::json!({
                    "ociVersion": "1.2.0",
                    "id": "a",
                    "status": status,
                    "pid": pid,
                    "bundle": "/bundle",
                    "rootfs": "/bundle/rootfs",
                    "created": "2026-01-01T00:00:00Z",
                    "owner": "root",
                    "annotations": {"key": "value"},
                })
            );
        }
    }
}
