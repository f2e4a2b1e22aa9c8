//! What the measurements share: the place, the runtimes that were found, progress, and a source of random order.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{BenchError, Result};
use crate::launcher::Launcher;
use crate::place::Place;
use crate::runtime::{Kind, Runtime};
use crate::workload::Workload;

/// What has been built for this.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The runtime that is measured; the shim lies beside it.
    pub(crate) urunc: PathBuf,
    /// Directory of `floor`, `launch` and `stand-in`.
    pub(crate) floor: PathBuf,
    /// Directory of the demo unikernels.
    pub(crate) guests: PathBuf,
}

/// The bench.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) workload: Workload,
    pub(crate) tools: Tools,
    runtimes: Arc<[Runtime]>,
    /// What could not be measured.
    pub(crate) skipped: Vec<String>,
    failures: Cell<usize>,
    random: u64,
}

impl Bench {
    /// Looks for the runtimes of `wanted`.
    pub(crate) fn set_up(place: Place, tools: Tools, wanted: &[Kind]) -> Result<Self> {
        let workload = Workload::prepare(&place, &tools)?;
        let (mut runtimes, mut skipped) = (Vec::new(), Vec::new());
        for kind in wanted {
            match Runtime::find(*kind, &place, &tools, &workload)? {
                Some(runtime) => runtimes.push(runtime),
                None => skipped.push(format!("{}: not installed", kind.name())),
            }
        }
        // Any number but 0 will do; one that changes from run to run keeps order effects from repeating.
        let random = u64::from(std::process::id()) << 32 | 0x9e37_79b9;
        Ok(Self {
            place,
            workload,
            tools,
            runtimes: runtimes.into(),
            skipped,
            failures: Cell::new(0),
            random,
        })
    }

    pub(crate) fn runtimes(&self) -> Arc<[Runtime]> {
        self.runtimes.clone()
    }

    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![("URUNC_CONFIG_FILE".into(), self.workload.config.clone().into())]
    }

    pub(crate) fn launcher(&self) -> Result<Launcher> {
        self.launcher_in(Path::new("/"))
    }

    /// The same for commands that look at their current directory.
    pub(crate) fn launcher_in(&self, directory: &Path) -> Result<Launcher> {
        let program = self.tools.floor.join("launch");
        Launcher::start(&program, directory, &self.environment(), &self.place.path("errors"))
    }

    /// Progress, for whoever waits.
    pub(crate) fn say(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// A measurement that failed.
    pub(crate) fn complain(&self, kind: Kind, error: &BenchError) {
        self.failures.set(self.failures.get() + 1);
        self.say(&format!("  {}: {}", kind.name(), chain(error)));
    }

    /// How many measurements have failed.
    pub(crate) fn failures(&self) -> usize {
        self.failures.get()
    }

    /// Puts `order` into random order (Fisher and Yates; xorshift is random enough for this).
    pub(crate) fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let bound = u64::try_from(last).unwrap_or(0) + 1;
            order.swap(last, usize::try_from(self.random % bound).unwrap_or(0));
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
