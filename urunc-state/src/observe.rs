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

/// What a look at a container gives: its status, and its process while it has one.
#[derive(Debug)]
pub struct Seen {
    /// The status at that moment.
    pub status: Status,
    /// The verified process, alive or a zombie.
    pub process: Option<Process>,
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

    /// Looks at the container: [`open_process`](Self::open_process), [`observe`] and [`status`] in one.
    ///
    /// # Errors
    /// As [`Process::open`] and [`observe`].
    pub fn look(&self) -> Result<Seen, ProcessError> {
        let process = self.open_process()?;
        let observed = observe(self, process.as_ref())?;
        Ok(Seen { status: status(self, &observed), process })
    }

    /// The container's status now; [`look`](Self::look) gives the process too.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub fn current_status(&self) -> Result<Status, ProcessError> {
        Ok(self.look()?.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AbsolutePath, ContainerId, Event};
    use proptest::prelude::*;

    const INIT: ExeIdentity = ExeIdentity { dev: 1, ino: 1 };
    const MONITOR: ExeIdentity = ExeIdentity { dev: 1, ino: 2 };

    /// A record in each recorded status, reached by legal steps.
    fn recorded(status: Status, exe: Option<ExeIdentity>) -> Record {
        let mut record = Record::new(ContainerId::new("a").unwrap(), AbsolutePath::new("/bundle").unwrap());
        record.urunc.exe = exe;
        let (from, event) = match status {
            Status::Creating => return record,
            Status::Created => (Status::Creating, Event::Created),
            Status::Running => (Status::Created, Event::Started),
            Status::Paused => (Status::Running, Event::Paused),
            Status::Stopped => (Status::Running, Event::Exited),
        };
        record.advance(from, event).unwrap();
        record
    }

    fn seen(process: Liveness, exe: Option<ExeIdentity>, freezer: Freezer) -> Observed {
        Observed { process, exe, freezer }
    }

    #[test]
    fn the_status_is_that_of_the_table() {
        use Freezer::{Frozen, Thawed};
        use Liveness::{Alive, Dead, Unborn};
        use Status::{Created, Creating, Paused, Running, Stopped};
        let (init, monitor, hidden) = (Some(INIT), Some(MONITOR), None);
        for (process, exe, freezer, expected) in [
            // recorded:              creating  created  running  paused   stopped
            (Unborn, hidden, Thawed, [Creating, Stopped, Stopped, Stopped, Stopped]),
            (Dead, hidden, Thawed, [Stopped, Stopped, Stopped, Stopped, Stopped]),
            (Alive, init, Thawed, [Creating, Created, Running, Running, Running]),
            (Alive, init, Frozen, [Creating, Created, Paused, Paused, Paused]),
            (Alive, hidden, Thawed, [Creating, Created, Running, Running, Running]),
            (Alive, hidden, Frozen, [Creating, Created, Paused, Paused, Paused]),
            (Alive, monitor, Thawed, [Running, Running, Running, Running, Running]),
            (Alive, monitor, Frozen, [Paused, Paused, Paused, Paused, Paused]),
        ] {
            for (before, expected) in Status::ALL.into_iter().zip(expected) {
                let observed = seen(process, exe, freezer);
                assert_eq!(status(&recorded(before, init), &observed), expected, "{before}, {observed:?}");
            }
        }
    }

    #[test]
    fn while_inits_program_is_not_recorded_the_program_says_nothing() {
        let observed = seen(Liveness::Alive, Some(MONITOR), Freezer::Thawed);
        assert_eq!(status(&recorded(Status::Creating, None), &observed), Status::Creating);
    }

    fn any_observed() -> impl Strategy<Value = Observed> {
        (0..3_usize, prop::option::of(prop::sample::select(vec![INIT, MONITOR])), any::<bool>()).prop_map(
            |(process, exe, frozen)| Observed {
                process: [Liveness::Unborn, Liveness::Alive, Liveness::Dead][process],
                exe,
                freezer: if frozen { Freezer::Frozen } else { Freezer::Thawed },
            },
        )
    }

    proptest! {
        #[test]
        fn a_live_process_is_never_stopped_and_a_dead_one_always(
            before in 0..5_usize,
            observed in any_observed(),
        ) {
            let now = status(&recorded(Status::ALL[before], Some(INIT)), &observed);
            match observed.process {
                Liveness::Alive => prop_assert_ne!(now, Status::Stopped),
                Liveness::Dead => prop_assert_eq!(now, Status::Stopped),
                Liveness::Unborn => prop_assert!(matches!(now, Status::Creating | Status::Stopped)),
            }
        }
    }

    #[test]
    fn only_the_words_of_the_kernel_mean_frozen() {
        for (contents, expected) in [
            ("populated 1\nfrozen 1\n", true),
            ("frozen 1", true),
            ("FROZEN\n", true),
            ("populated 1\nfrozen 0\n", false),
            ("FREEZING\n", false),
            ("THAWED\n", false),
            ("frozen 10\n", false),
            ("", false),
        ] {
            assert_eq!(is_frozen(contents.as_bytes()), expected, "{contents:?}");
        }
    }
}
