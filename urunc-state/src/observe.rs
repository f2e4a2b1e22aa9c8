//! The status of a container, computed: from its record, its process and the kernel. Deciding ([`status`]) takes
//! plain data; looking ([`observe`]) decides nothing.

use crate::{ExeIdentity, Process, ProcessError, Record, Status, procfs};

/// Whether a container has a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// None has been recorded yet.
    Unborn,
    /// The recorded one is alive.
    Alive,
    /// The recorded one is gone, or a zombie.
    Dead,
}

/// What the freezer of the container's cgroup says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freezer {
    /// All of the cgroup is frozen.
    Frozen,
    /// It runs, or is about to freeze, or has no freezer that could be read.
    Thawed,
}

/// What can be seen of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its process.
    pub process: Liveness,
    /// The program that the process executes now, if that could be seen.
    pub exe: Option<ExeIdentity>,
    /// Its cgroup.
    pub freezer: Freezer,
}

/// The status of a container: what is seen goes before what is recorded.
///
/// | process | executes | recorded | status |
/// |---|---|---|---|
/// | unborn | | creating | creating |
/// | unborn | | anything else | stopped |
/// | dead | | anything | stopped |
/// | alive | init, or not to be seen | creating, created | as recorded |
/// | alive | another program than init | anything | running or paused |
/// | alive | anything | running, paused, stopped | running or paused |
///
/// So a `create` that crashed leaves a stopped container as soon as its init is gone, and a `start` that crashed
/// between the monitor's execution and the record leaves a running one. A live process is never called stopped,
/// even if the record gave it up: otherwise its resources would be released under it.
#[must_use]
pub fn status(record: &Record, observed: &Observed) -> Status {
    let executed = matches!((record.urunc.exe, observed.exe), (Some(init), Some(now)) if init != now);
    match (observed.process, record.recorded_status()) {
        (Liveness::Unborn, Status::Creating) => Status::Creating,
        (Liveness::Unborn | Liveness::Dead, _) => Status::Stopped,
        (Liveness::Alive, early @ (Status::Creating | Status::Created)) if !executed => early,
        (Liveness::Alive, _) => match observed.freezer {
            Freezer::Frozen => Status::Paused,
            Freezer::Thawed => Status::Running,
        },
    }
}

/// Looks at the kernel for `record`, whose process is `process` ([`Record::open_process`]).
///
/// # Errors
/// [`ProcessError`] when the kernel cannot say whether the process is alive.
pub fn observe(record: &Record, process: Option<&Process>) -> Result<Observed, ProcessError> {
    let nothing = |process| Observed { process, exe: None, freezer: Freezer::Thawed };
    let Some(process) = process else {
        return Ok(nothing(if record.urunc.process.is_none() { Liveness::Unborn } else { Liveness::Dead }));
    };
    match process.exe() {
        Ok(None) => Ok(nothing(Liveness::Dead)),
        Ok(exe @ Some(_)) => Ok(Observed { process: Liveness::Alive, exe, freezer: freezer(record) }),
        // Alive, but its program is not for us to see. The record has to do then.
        Err(ProcessError::Read { .. }) => {
            Ok(Observed { process: Liveness::Alive, exe: None, freezer: freezer(record) })
        }
        Err(error) => Err(error),
    }
}

fn freezer(record: &Record) -> Freezer {
    let path = record.urunc.freezer.as_ref().and_then(|path| path.to_str());
    match path.map(procfs::read_small) {
        Some(Ok(contents)) if is_frozen(&contents) => Freezer::Frozen,
        // Without a cgroup nothing is frozen.
        Some(Ok(_) | Err(_)) | None => Freezer::Thawed,
    }
}

/// Reads `cgroup.events` of cgroup v2 (`frozen 1` in one of the lines) or `freezer.state` of v1 (`FROZEN`).
fn is_frozen(contents: &[u8]) -> bool {
    contents.split(|&byte| byte == b'\n').any(|line| line == b"frozen 1" || line == b"FROZEN")
}

impl Record {
    /// Opens the container's process; `None` when there is none or it is gone.
    ///
    /// # Errors
    /// As [`Process::open`].
    pub fn open_process(&self) -> Result<Option<Process>, ProcessError> {
        match &self.urunc.process {
            Some(identity) => Process::open(identity),
            None => Ok(None),
        }
    }

    /// The container's status now: [`open_process`](Self::open_process), [`observe`] and [`status`] in one.
    ///
    /// # Errors
    /// As [`Process::open`] and [`observe`].
    pub fn current_status(&self) -> Result<Status, ProcessError> {
        let process = self.open_process()?;
        Ok(status(self, &observe(self, process.as_ref())?))
    }
}
