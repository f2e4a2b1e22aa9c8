//! QMP: lines of JSON, answers in order, events in between (QEMU `docs/interop/qmp-spec.rst`,
//! `qapi/{control,run-state,migration}.json`). QEMU serves one connection at a time; a second waits.

use std::{os::unix::net::UnixStream, time::Duration};

use serde_json::{Value, json};

use super::{ControlError, Info, State, channel::Channel};

/// A connection to QEMU after the handshake.
#[derive(Debug)]
pub(super) struct Qmp {
    channel: Channel,
    /// Of the last request; its answer bears the same one.
    id: u64,
    version: String,
}

impl Qmp {
    pub(super) fn open(stream: UnixStream, limit: Duration) -> Result<Self, ControlError> {
        let mut qmp = Self { channel: Channel::new(stream), id: 0, version: String::new() };
        qmp.channel.begin(limit);
        qmp.channel.request("greeting")?;
        let greeting = qmp.message()?;
        let version = &greeting["QMP"]["version"]["qemu"];
        let [major, minor, micro] =
            ["major", "minor", "micro"].map(|part| version[part].as_u64().unwrap_or_default());
        if version.is_null() {
            return Err(qmp.channel.garbled(greeting.to_string().as_bytes()));
        }
        qmp.version = format!("{major}.{minor}.{micro}");
        qmp.run("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Starts a call that takes `limit` at most.
    pub(super) fn begin(&mut self, limit: Duration) {
        self.channel.begin(limit);
    }

    /// Runs a command without arguments whose answer says nothing.
    pub(super) fn run(&mut self, command: &str) -> Result<(), ControlError> {
        self.ask(command, Value::Null).map(drop)
    }

    pub(super) fn info(&mut self) -> Result<Info, ControlError> {
        let answer = self.ask("query-status", Value::Null)?;
        let Some(status) = answer["status"].as_str() else {
            return Err(self.channel.garbled(answer.to_string().as_bytes()));
        };
        let state = match status {
            "running" => State::Running,
            // After a snapshot, and while one has been read, the machine can go on.
            "paused" | "postmigrate" => State::Paused,
            "prelaunch" | "inmigrate" => State::NotStarted,
            other => State::Other(other.to_owned()),
        };
        Ok(Info { state, version: self.version.clone() })
    }

    pub(super) fn snapshot(&mut self, directory: &str) -> Result<(), ControlError> {
        self.migrate("migrate", directory)
    }

    /// Needs `-incoming defer`. QEMU would run the machine when it is read, so it is told to wait first.
    pub(super) fn restore(&mut self, directory: &str) -> Result<(), ControlError> {
        self.run("stop")?;
        self.migrate("migrate-incoming", directory)
    }

    /// Both ways are migrations to or from a file, which end with an event.
    fn migrate(&mut self, command: &str, directory: &str) -> Result<(), ControlError> {
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        self.ask("migrate-set-capabilities", events)?;
        self.ask(command, json!({ "uri": format!("file:{directory}/qemu") }))?;
        loop {
            let message = self.message()?;
            if message["event"] != "MIGRATION" {
                continue;
            }
            match message["data"]["status"].as_str() {
                Some("completed") => return Ok(()),
                Some(status @ ("failed" | "cancelled")) => {
                    return Err(self.channel.refused(status.to_owned()));
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value, ControlError> {
        self.channel.request(command)?;
        self.id += 1;
        let mut message = json!({ "execute": command, "id": self.id });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        self.channel.send(format!("{message}\n").as_bytes())?;
        self.answer()
    }

    /// Reads messages until one is the answer; events are none.
    fn answer(&mut self) -> Result<Value, ControlError> {
        loop {
            let mut message = self.message()?;
            let id = message.get("id");
            let is_ours = id.and_then(Value::as_u64) == Some(self.id);
            // A request that cannot even be read is refused without its id.
            if let Some(error) = message.get("error").filter(|_| is_ours || id.is_none()) {
                let reason = error["desc"].as_str().unwrap_or("without a reason");
                return Err(self.channel.refused(reason.to_owned()));
            }
            if let Some(answer) = message.get_mut("return").filter(|_| is_ours) {
                return Ok(answer.take());
            }
            if message.get("event").is_none() {
                return Err(self.channel.garbled(message.to_string().as_bytes()));
            }
        }
    }

    fn message(&mut self) -> Result<Value, ControlError> {
        let line = self.channel.read_until(b"\n")?;
        serde_json::from_slice(&line).map_err(|_| self.channel.garbled(&line))
    }
}
