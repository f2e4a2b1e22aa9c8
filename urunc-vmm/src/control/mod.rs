//! Talking to a running monitor: QMP, Firecracker's API and Cloud Hypervisor's API behind one interface. Every call is
//! bounded in time, and the monitor is not trusted: it may be silent, or say anything. What to do with a monitor that
//! does not answer is left to the caller, who can always end it by its pidfd ([`crate::stop`]).

mod channel;
mod cloud_hypervisor;
mod connect;
mod error;
mod events;
mod firecracker;
mod http;
mod qmp;

use std::{os::unix::net::UnixStream, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

pub use connect::{connect, connect_below};
pub use error::ControlError;
pub use events::{Watched, watch};

use crate::Machine;

/// The language of a monitor's control interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// QEMU's machine protocol (QEMU `docs/interop/qmp-spec.rst`).
    Qmp,
    /// Firecracker's HTTP API (Firecracker `src/firecracker/swagger/firecracker.yaml`).
    Firecracker,
    /// Cloud Hypervisor's HTTP API (cloud-hypervisor `docs/api.md`).
    CloudHypervisor,
}

/// What a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It waits to be started or restored.
    NotStarted,
    /// Something else, in the monitor's own word; QEMU says `internal-error` when KVM gave up.
    Other(String),
}

/// What a monitor says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What its machine is doing.
    pub state: State,
    /// Its version.
    pub version: String,
}

/// A connection to a monitor's control interface.
#[derive(Debug)]
pub struct Control {
    connection: Connection,
    limit: Duration,
}

#[derive(Debug)]
enum Connection {
    Qmp(qmp::Qmp),
    Firecracker(http::Http),
    CloudHypervisor(http::Http),
}

impl Control {
    /// Starts a conversation on a connected socket, in which every call takes `limit` at most, however many requests it
    /// consists of. After a call that ended in another way than by an answer, every further one is
    /// [`ControlError::Spent`]: nobody could tell whose answer comes next.
    ///
    /// # Errors
    /// [`ControlError`] if the monitor does not greet as its protocol has it (QMP does, the others say nothing first).
    pub fn open(stream: UnixStream, protocol: Protocol, limit: Duration) -> Result<Self, ControlError> {
        let connection = match protocol {
            Protocol::Qmp => Connection::Qmp(qmp::Qmp::open(stream, limit)?),
            Protocol::Firecracker => Connection::Firecracker(http::Http::new(stream)),
            Protocol::CloudHypervisor => Connection::CloudHypervisor(http::Http::new(stream)),
        };
        Ok(Self { connection, limit })
    }

    fn begin(&mut self, limit: Duration) -> &mut Connection {
        match &mut self.connection {
            Connection::Qmp(qmp) => qmp.begin(limit),
            Connection::Firecracker(http) | Connection::CloudHypervisor(http) => http.begin(limit),
        }
        &mut self.connection
    }

    /// Asks the guest to end, as by its power button or by Ctrl-Alt-Del. Success means that it was asked.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn request_shutdown(&mut self) -> Result<(), ControlError> {
        match self.begin(self.limit) {
            Connection::Qmp(qmp) => qmp.run("system_powerdown"),
            Connection::Firecracker(http) => firecracker::request_shutdown(http),
            Connection::CloudHypervisor(http) => cloud_hypervisor::act(http, "vm.power-button"),
        }
    }

    /// Stops the guest's processors. Pausing a paused machine is an error under Cloud Hypervisor.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn pause(&mut self) -> Result<(), ControlError> {
        match self.begin(self.limit) {
            Connection::Qmp(qmp) => qmp.run("stop"),
            Connection::Firecracker(http) => firecracker::set_state(http, "Paused"),
            Connection::CloudHypervisor(http) => cloud_hypervisor::act(http, "vm.pause"),
        }
    }

    /// Lets the guest's processors run on.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn resume(&mut self) -> Result<(), ControlError> {
        match self.begin(self.limit) {
            Connection::Qmp(qmp) => qmp.run("cont"),
            Connection::Firecracker(http) => firecracker::set_state(http, "Resumed"),
            Connection::CloudHypervisor(http) => cloud_hypervisor::act(http, "vm.resume"),
        }
    }

    /// Asks what the machine is doing.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn info(&mut self) -> Result<Info, ControlError> {
        match self.begin(self.limit) {
            Connection::Qmp(qmp) => qmp.info(),
            Connection::Firecracker(http) => firecracker::info(http),
            Connection::CloudHypervisor(http) => cloud_hypervisor::info(http),
        }
    }

    /// Writes memory and devices of a paused machine into a directory, as the monitor sees it; disks are not
    /// written. This call takes `limit` at most, since it writes the guest's memory. QEMU can from 8.2 on.
    ///
    /// # Errors
    /// [`ControlError`]; what was written until then stays.
    pub fn snapshot(&mut self, directory: &Path, limit: Duration) -> Result<(), ControlError> {
        let directory = text(directory)?;
        match self.begin(limit) {
            Connection::Qmp(qmp) => qmp.snapshot(directory),
            Connection::Firecracker(http) => firecracker::snapshot(http, directory),
            Connection::CloudHypervisor(http) => cloud_hypervisor::snapshot(http, directory),
        }
    }

    /// Reads a snapshot into a monitor that was started with [`Startup::Restore`](crate::Startup::Restore). The
    /// machine is paused afterwards; [`resume`](Self::resume) it. With a network, Firecracker can from 1.12 on, and Cloud
    /// Hypervisor cannot.
    ///
    /// # Errors
    /// [`ControlError`]; the monitor is of no use then, and should be ended.
    pub fn restore(
        &mut self,
        directory: &Path,
        machine: &Machine,
        limit: Duration,
    ) -> Result<(), ControlError> {
        let directory = text(directory)?;
        match self.begin(limit) {
            Connection::Qmp(qmp) => qmp.restore(directory),
            Connection::Firecracker(http) => firecracker::restore(http, directory, machine),
            Connection::CloudHypervisor(http) => cloud_hypervisor::restore(http, directory, machine),
        }
    }
}

fn text(directory: &Path) -> Result<&str, ControlError> {
    directory.to_str().ok_or_else(|| ControlError::NotUtf8 { path: directory.to_owned() })
}

#[cfg(test)]
mod tests;
