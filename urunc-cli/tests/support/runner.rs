//! Tests that are listed as ignored, with the reason, where the machine lacks what they need; and that fail where
//! `URUNC_REQUIRE` promises it.

use std::fmt::Debug;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// What a test may need of the machine.
pub(crate) trait Need: Copy + Debug + Send + 'static {
    /// Whether it is there.
    fn is_met(self) -> bool;

    /// Whether `URUNC_REQUIRE` promises it.
    fn is_required(self) -> bool;
}

/// A test and what it needs.
pub(crate) struct Test<N: 'static> {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [N],
    pub(crate) run: fn() -> Result<(), Failed>,
}

pub(crate) fn run<N: Need>(arguments: &Arguments, tests: impl Iterator<Item = &'static Test<N>>) -> ExitCode {
    let trials = tests.map(|test| {
        let missing: Vec<N> = test.needs.iter().copied().filter(|need| !need.is_met()).collect();
        let run = test.run;
        let Some(first) = missing.first().copied() else { return Trial::test(test.name, run) };
        if missing.iter().any(|need| need.is_required()) {
            return Trial::test(test.name, move || {
                Err(format!("needs {first:?}, which URUNC_REQUIRE promises").into())
            });
        }
        Trial::test(test.name, run).with_kind(format!("skipped: needs {first:?}")).with_ignored_flag(true)
    });
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}
