//! Cloud Hypervisor's requests.

use serde::Deserialize;
use serde_json::json;

use super::{ControlError, Info, State, http::Http};
use crate::Machine;

pub(super) fn act(http: &mut Http, action: &str) -> Result<(), ControlError> {
    http.put(&path(action))
}

pub(super) fn info(http: &mut Http) -> Result<Info, ControlError> {
    #[derive(Deserialize)]
    struct Ping {
        version: String,
    }
    #[derive(Deserialize)]
    struct Machine {
        state: String,
    }
    let ping = http.get(&path("vmm.ping"))?;
    let Ping { version } = serde_json::from_slice(&ping).map_err(|_| http.garbled(&ping))?;
    // Before a machine is made, it answers 404 or 500, depending on the version.
    let answer = match http.get(&path("vm.info")) {
        Err(ControlError::Refused { .. }) => return Ok(Info { state: State::NotStarted, version }),
        answer => answer?,
    };
    let machine: Machine = serde_json::from_slice(&answer).map_err(|_| http.garbled(&answer))?;
    let state = match machine.state.as_str() {
        "Running" => State::Running,
        "Paused" => State::Paused,
        "Created" => State::NotStarted,
        other => State::Other(other.to_owned()),
    };
    Ok(Info { state, version })
}

pub(super) fn snapshot(http: &mut Http, directory: &str) -> Result<(), ControlError> {
    let body = json!({ "destination_url": format!("file://{directory}") });
    http.send("PUT", &path("vm.snapshot"), &body)
}

/// A TAP by descriptor would have to be sent along with the request.
pub(super) fn restore(http: &mut Http, directory: &str, machine: &Machine) -> Result<(), ControlError> {
    if !machine.nets.is_empty() {
        let what = "restore a machine with a network here: its TAP is a descriptor";
        return Err(ControlError::Unsupported { monitor: "cloud-hypervisor", what });
    }
    let body = json!({ "source_url": format!("file://{directory}") });
    http.send("PUT", &path("vm.restore"), &body)
}

fn path(action: &str) -> String {
    format!("/api/v1/{action}")
}
