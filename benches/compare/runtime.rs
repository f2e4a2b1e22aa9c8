//! The runtimes that are compared, and how each is told to do the same.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::bench::Tools;
use crate::error::{BenchError, Result};
use crate::place::Place;
use crate::workload::{Workload, in_path};

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Floor,
    Urunc,
    Crun,
    Runc,
    Youki,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Floor, Self::Urunc, Self::Crun, Self::Runc, Self::Youki];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Urunc => "urunc",
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Youki => "youki",
        }
    }
}

/// The four commands of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Create,
    Start,
    Kill,
    Delete,
}

impl Step {
    pub(crate) const ALL: [Self; 4] = [Self::Create, Self::Start, Self::Kill, Self::Delete];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Kill => "kill",
            Self::Delete => "delete",
        }
    }
}

/// A runtime that is there.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    root: PathBuf,
    bundle: PathBuf,
    args: Vec<String>,
    pids: PathBuf,
}

impl Runtime {
    /// Looks for it: floor and urunc have been built, the others are in `PATH`.
    pub(crate) fn find(
        kind: Kind,
        place: &Place,
        tools: &Tools,
        workload: &Workload,
    ) -> Result<Option<Self>> {
        let program = match kind {
            Kind::Floor => Some(tools.floor.join("floor")),
            Kind::Urunc => Some(tools.urunc.clone()),
            Kind::Crun | Kind::Runc | Kind::Youki => in_path(kind.name()),
        };
        let Some(program) = program else { return Ok(None) };
        if !program.is_file() {
            let remedy = "`make bench` builds it";
            return Err(BenchError::Missing { path: program.display().to_string(), remedy });
        }
        let version = match kind {
            Kind::Floor => "of this repository".to_owned(),
            _ => version(&program),
        };
        let bundle = if kind == Kind::Urunc { &workload.unikernel } else { &workload.program };
        Ok(Some(Self {
            kind,
            program,
            version,
            root: place.directory(&format!("state-{}", kind.name()))?,
            bundle: bundle.clone(),
            args: workload.args.clone(),
            pids: place.directory("pids")?,
        }))
    }

    /// The file that `create` writes the process id to.
    pub(crate) fn pid_file(&self, id: &str) -> PathBuf {
        self.pids.join(format!("{}-{id}", self.kind.name()))
    }

    /// The command line of a step in the life of the container `id`.
    pub(crate) fn command(&self, step: Step, id: &str) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec![self.program.clone().into()];
        if self.kind == Kind::Floor {
            self.floor(step, id, &mut line);
            return line;
        }
        line.extend(["--root".into(), self.root.clone().into()]);
        line.push(step.name().into());
        if step == Step::Create {
            line.extend(["--bundle".into(), self.bundle.clone().into()]);
            line.extend(["--pid-file".into(), self.pid_file(id).into()]);
        }
        line.push(id.into());
        if step == Step::Kill {
            line.push("KILL".into());
        }
        line
    }

    fn floor(&self, step: Step, id: &str, line: &mut Vec<OsString>) {
        let cgroup = Place::cgroup().join(format!("floor-{id}"));
        line.extend([step.name().into(), self.root.join(id).into()]);
        match step {
            Step::Create => {
                line.extend([self.bundle.join("rootfs").into(), cgroup.into(), self.pid_file(id).into()]);
                line.extend(self.args.iter().map(OsString::from));
            }
            Step::Delete => line.push(cgroup.into()),
            Step::Start | Step::Kill => {}
        }
    }

    /// A command that only urunc is measured with.
    pub(crate) fn list(&self) -> Vec<OsString> {
        vec![self.program.clone().into(), "--root".into(), self.root.clone().into(), "list".into()]
    }
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}
