//! Turning per-interface switches that netlink cannot turn, or not with all that belongs to it, by way of `/proc/sys/net`, which shows each thread its
//! own network namespace (unlike `/proc/net`, which shows the process's).

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names::IfName;
use crate::run::Here;

/// A switch of one interface (Documentation/networking/ip-sysctl.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    /// Forward IPv4 packets that arrive there.
    Ipv4Forwarding,
    /// Have nothing to do with IPv6 there.
    Ipv6Disabled,
}

/// What a switch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchState {
    /// 0.
    Off,
    /// 1, or whatever is not 0.
    On,
}

/// A switch could not be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {path}")]
pub struct SysctlError {
    attempt: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl SysctlError {
    /// Whether the interface, or the kernel's support for the protocol, does not exist.
    pub(crate) fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Sets the switch in the namespace that the calling thread is in.
pub(crate) fn set(
    _here: &Here,
    switch: Switch,
    interface: &IfName,
    state: SwitchState,
) -> Result<(), SysctlError> {
    let path = path(switch, interface);
    let (text, attempt) = match state {
        SwitchState::Off => ("0", "turn off"),
        SwitchState::On => ("1", "turn on"),
    };
    let failed = |source| SysctlError { attempt, path: path.clone(), source };
    #[cfg(test)]
    crate::faults::point().map_err(failed)?;
    // Not `fs::write`: it would ask to create what does not exist, which the kernel answers differently.
    let mut file = fs::OpenOptions::new().write(true).open(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

fn path(switch: Switch, interface: &IfName) -> PathBuf {
    match switch {
        Switch::Ipv4Forwarding => format!("/proc/sys/net/ipv4/conf/{interface}/forwarding").into(),
        Switch::Ipv6Disabled => format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").into(),
    }
}
