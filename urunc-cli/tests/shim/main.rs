//! The shim under the real containerd: a private one, with root, state, socket and namespace of its own, for each test.
//!
//! `URUNC_CONTAINERD` names a directory with another `containerd`, `ctr` and `containerd-shim-runc-v2` than those of `PATH`.
//! A test that cannot run here is listed as ignored with what it lacks; where `URUNC_REQUIRE` names that thing, it fails instead.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clean_up;
mod containerd;
mod control;
mod create;
mod directly;
mod image;
#[expect(dead_code, reason = "it serves the end-to-end tests too")]
#[path = "../support/linux.rs"]
mod linux;
mod metadata;
mod processes;
mod restart;
mod run;
#[path = "../support/runner.rs"]
mod runner;
#[expect(dead_code, reason = "it serves the end-to-end tests too")]
#[path = "../support/scene.rs"]
mod scene;
mod snapshotters;
mod streams;

use libtest_mimic::Arguments;

use containerd::Need;

/// A test and what it needs.
type Test = runner::Test<Need>;

impl runner::Need for Need {
    fn is_met(self) -> bool {
        Self::is_met(self)
    }

    fn is_required(self) -> bool {
        Self::is_required(self)
    }
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let tests = [
        run::TESTS,
        streams::TESTS,
        processes::TESTS,
        control::TESTS,
        create::TESTS,
        metadata::TESTS,
        restart::TESTS,
        clean_up::TESTS,
        snapshotters::TESTS,
    ];
    runner::run(&arguments, tests.into_iter().flatten())
}
