//! Firecracker's requests.

use serde::Deserialize;
use serde_json::json;

use super::{ControlError, Info, State, http::Http};
use crate::{Attachment, Machine};

pub(super) fn request_shutdown(http: &mut Http) -> Result<(), ControlError> {
    http.send("PUT", "/actions", &json!({ "action_type": "SendCtrlAltDel" }))
}

pub(super) fn set_state(http: &mut Http, state: &str) -> Result<(), ControlError> {
    http.send("PATCH", "/vm", &json!({ "state": state }))
}

pub(super) fn info(http: &mut Http) -> Result<Info, ControlError> {
    #[derive(Deserialize)]
    struct Answer {
        state: String,
        vmm_version: String,
    }
    let answer = http.get("/")?;
    let parsed: Answer = serde_json::from_slice(&answer).map_err(|_| http.garbled(&answer))?;
    let state = match parsed.state.as_str() {
        "Running" => State::Running,
        "Paused" => State::Paused,
        "Not started" => State::NotStarted,
        other => State::Other(other.to_owned()),
    };
    Ok(Info { state, version: parsed.vmm_version })
}

pub(super) fn snapshot(http: &mut Http, directory: &str) -> Result<(), ControlError> {
    let body = json!({
        "snapshot_type": "Full",
        "snapshot_path": format!("{directory}/vmstate"),
        "mem_file_path": format!("{directory}/memory"),
    });
    http.send("PUT", "/snapshot/create", &body)
}

/// The snapshot holds the names of TAP devices; those of this machine take their place.
pub(super) fn restore(http: &mut Http, directory: &str, machine: &Machine) -> Result<(), ControlError> {
    let overrides: Vec<_> = (1..)
        .zip(&machine.nets)
        .filter_map(|(number, net)| match &net.attachment {
            Attachment::Name(name) => {
                Some(json!({ "iface_id": format!("net{number}"), "host_dev_name": name }))
            }
            Attachment::Descriptor => None,
        })
        .collect();
    let mut body = json!({
        "snapshot_path": format!("{directory}/vmstate"),
        "mem_backend": { "backend_type": "File", "backend_path": format!("{directory}/memory") },
        "resume_vm": false,
    });
    if !overrides.is_empty() {
        body["network_overrides"] = overrides.into();
    }
    http.send("PUT", "/snapshot/load", &body)
}
