//! When each step of `create` and `start` was taken, for measurements: the names of the Go implementation, as JSON lines in
//! a file that the configuration names.
//!
//! Stamps are collected in memory and written at the end of a command, in the order in which they were taken; init hands
//! its own over with its answers. Where two implementations do things in another order, the times tell: here the network
//! and the disk are ready (TS15 to TS17) before the start message is sent (TS13).

use std::cell::RefCell;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::json;
use urunc_state::ContainerId;

use crate::config;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// `create` begins.
    CreateInvoked,
    /// Its bundle has been read.
    BundleRead,
    /// It is planned and recorded.
    Planned,
    /// It is about to clone init.
    Cloning,
    /// Init begins.
    InitBegins,
    /// Init has left create's descriptors behind.
    InitIsolated,
    /// Create knows init's process.
    InitKnown,
    /// prestart and createRuntime hooks have run.
    HooksRun,
    /// Create has told init to proceed.
    ProceedSent,
    /// Init has been told to proceed.
    ProceedReceived,
    /// The container is created.
    Created,
    /// `start` begins.
    StartInvoked,
    /// Its record has been read.
    RecordRead,
    /// Init has been told what to execute.
    ExecuteSent,
    /// Init knows what to execute.
    ExecuteReceived,
    /// Start is about to work in the container's network namespace.
    NetworkBegins,
    /// The guest's network is there.
    NetworkReady,
    /// The guest's disk is there.
    DiskReady,
    /// Init is about to execute the monitor.
    Executing,
}

impl Step {
    /// All of them, by number.
    pub const ALL: [Self; 19] = [
        Self::CreateInvoked,
        Self::BundleRead,
        Self::Planned,
        Self::Cloning,
        Self::InitBegins,
        Self::InitIsolated,
        Self::InitKnown,
        Self::HooksRun,
        Self::ProceedSent,
        Self::ProceedReceived,
        Self::Created,
        Self::StartInvoked,
        Self::RecordRead,
        Self::ExecuteSent,
        Self::ExecuteReceived,
        Self::NetworkBegins,
        Self::NetworkReady,
        Self::DiskReady,
        Self::Executing,
    ];

    /// Its number in the Go implementation.
    #[must_use]
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|step| *step == self).unwrap_or_default()
    }

    /// Its name in the Go implementation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateInvoked => "CR.invoked",
            Self::BundleRead => "CR.unikontainer_created",
            Self::Planned => "CR.initial_setup",
            Self::Cloning => "CR.start_reexec",
            Self::InitBegins => "RX.create_invoked",
            Self::InitIsolated => "RX.close_pipes_and_setup_base",
            Self::InitKnown => "CR.received_pids",
            Self::HooksRun => "CR.hooks_executed",
            Self::ProceedSent => "CR.sent_ack",
            Self::ProceedReceived => "RX.received_ack",
            Self::Created => "CR.terminated",
            Self::StartInvoked => "ST.invoked",
            Self::RecordRead => "ST.unikontainer_created",
            Self::ExecuteSent => "ST.sent_start_msg",
            Self::ExecuteReceived => "RX.received_start_msg",
            Self::NetworkBegins => "RX.joined_netns",
            Self::NetworkReady => "RX.network_setup_completed",
            Self::DiskReady => "RX.disk_setup_completed",
            Self::Executing => "RX.execve_hypervisor",
        }
    }
}

/// When a step was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    step: Step,
    /// Nanoseconds since 1970.
    time: u64,
}

/// The stamps of one process; none are taken unless the configuration wants them.
#[derive(Clone, Debug, Default)]
pub struct Stamps(Option<RefCell<Vec<Stamp>>>);

impl Stamps {
    /// An empty collection.
    #[must_use]
    pub fn new(config: &config::Timestamps) -> Self {
        Self(config.enabled.then(RefCell::default))
    }

    /// An empty collection that takes stamps if this one does.
    #[must_use]
    pub fn another(&self) -> Self {
        Self(self.0.as_ref().map(|_| RefCell::default()))
    }

    /// Takes a stamp.
    pub fn take(&self, step: Step) {
        let Some(stamps) = &self.0 else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        stamps.borrow_mut().push(Stamp { step, time: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) });
    }

    /// Adds those of another process.
    pub fn add(&self, others: Vec<Stamp>) {
        if let Some(stamps) = &self.0 {
            stamps.borrow_mut().extend(others);
        }
    }

    /// All so far; they are then gone from here.
    #[must_use]
    pub fn drain(&self) -> Vec<Stamp> {
        self.0.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// Appends all so far to the file. A failure is only logged: measurements are not worth a container.
    pub fn write(&self, config: &config::Timestamps, id: &ContainerId) {
        let stamps = self.drain();
        if stamps.is_empty() {
            return;
        }
        let path = &config.destination;
        if let Err(error) = append(path, &lines(stamps, id)) {
            log::warn!("cannot write timestamps to {}: {error}", path.display());
        }
    }
}

/// The clock has the resolution of nanoseconds, so that equal times are those of one instant; then the number decides.
fn lines(mut stamps: Vec<Stamp>, id: &ContainerId) -> String {
    stamps.sort_by_key(|stamp| (stamp.time, stamp.step.number()));
    let line = |Stamp { step, time }: Stamp| {
        let number = step.number();
        let line = json!({
            "containerID": id,
            "timestampID": format!("TS{number:02}"),
            "timestampName": step.name(),
            "timestampOrder": number,
            "time": time,
        });
        format!("{line}\n")
    };
    stamps.into_iter().map(line).collect()
}

/// One write, so that the lines of commands that run at the same time do not mix.
fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    let mut file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
            }
            options.open(path)?
        }
        result => result?,
    };
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn numbers_and_names_are_those_of_the_go_implementation() {
        let stamps = Step::ALL.into_iter().map(|step| Stamp { step, time: 5 }).rev().collect();
        let text = lines(stamps, &ContainerId::new("c").unwrap());
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = |id: &str, name: &str, order: u32| json!({"containerID": "c", "timestampID": id, "timestampName": name, "timestampOrder": order, "time": 5});
        assert_eq!(lines[0], expected("TS00", "CR.invoked", 0));
        assert_eq!(lines[9], expected("TS09", "RX.received_ack", 9));
        assert_eq!(lines[18], expected("TS18", "RX.execve_hypervisor", 18));
    }

    /// B42: a file that everybody may write to, in a directory that nobody made.
    #[test]
    fn the_directory_is_made_and_the_file_is_not_for_everybody() {
        let directory = tempfile::tempdir().unwrap();
        let config = config::Timestamps { enabled: true, destination: directory.path().join("a/b/stamps") };
        for step in [Step::CreateInvoked, Step::StartInvoked] {
            let stamps = Stamps::new(&config);
            stamps.take(step);
            stamps.write(&config, &ContainerId::new("c").unwrap());
        }
        let text = std::fs::read_to_string(&config.destination).unwrap();
        assert_eq!(text.lines().count(), 2);
        let mode = std::fs::metadata(&config.destination).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0);
    }

    #[test]
    fn without_the_configurations_wish_nothing_is_taken() {
        let stamps = Stamps::new(&config::Timestamps::default());
        stamps.take(Step::CreateInvoked);
        stamps.add(vec![Stamp { step: Step::Executing, time: 1 }]);
        assert!(stamps.drain().is_empty());
    }
}
