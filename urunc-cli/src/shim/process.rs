//! One process of a container: the container's own, or one that was added by `Exec`. Plain data; whoever changes it holds the container's lock.

use std::os::fd::OwnedFd;

use containerd_shim_protos::types::task::Status;

use super::children::Exit;
use super::stats::Membership;
use super::stdio::{Held, Request};
use super::terminal::Terminal;
use super::wait::Waiter;

/// How far a process is.
///
/// ```text
///   created ◀──▶ starting ──▶ running ◀──▶ paused
///      └────────────┴────────────┴───────────┴──▶ stopped
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Made, or for an `Exec` announced, but not started.
    Created,
    /// The runtime is starting it; it is created again should that fail.
    Starting,
    /// Started.
    Running,
    /// Frozen with its container.
    Paused,
    /// Ended, and containerd has been told.
    Stopped(Exit),
}

impl Stage {
    /// For messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
        }
    }

    /// For containerd.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Created | Self::Starting => Status::CREATED,
            Self::Running => Status::RUNNING,
            Self::Paused => Status::PAUSED,
            Self::Stopped(_) => Status::STOPPED,
        }
    }
}

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Its number; 0 as long as there is none.
    pub pid: u32,
    /// Itself.
    pub pidfd: Option<OwnedFd>,
    /// Its cgroups, which are there a little longer than itself.
    pub cgroups: Option<Membership>,
    /// How far it is.
    pub stage: Stage,
    /// Where its streams go.
    pub stdio: Request,
    /// What is kept open for it.
    pub held: Held,
    /// Its terminal.
    pub terminal: Option<Terminal>,
    /// What `Exec` wants to be run, until it is.
    pub spec: Option<Vec<u8>>,
    /// Who waits for its end.
    pub waiters: Vec<Waiter>,
}

impl Process {
    /// A process that does not exist yet.
    #[must_use]
    pub fn new(stdio: Request) -> Self {
        Self {
            pid: 0,
            pidfd: None,
            cgroups: None,
            stage: Stage::Created,
            stdio,
            held: Held::default(),
            terminal: None,
            spec: None,
            waiters: Vec::new(),
        }
    }

    /// Whether it has been or is being started, and has not ended.
    #[must_use]
    pub fn lives(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Running | Stage::Paused)
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match self.stage {
            Stage::Stopped(exit) => Some(exit),
            _ => None,
        }
    }
}
