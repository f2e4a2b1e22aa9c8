//! The shim under the real containerd: a private one, with root, state, socket and namespace of its own, for each test.
//!
//! `URUNC_CONTAINERD` names a directory with another `containerd`, `ctr` and `containerd-shim-runc-v2` than those of `PATH`.
//! A test that cannot run here is listed as ignored with what it lacks; where `URUNC_REQUIRE` names that thing, it fails instead.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clean_up;
mod containerd;
mod control;
mod create;
mod image;
#[expect(dead_code, reason = "it serves the end-to-end tests too")]
#[path = "../support/linux.rs"]
mod linux;
mod metadata;
mod processes;
mod restart;
mod run;
#[expect(dead_code, reason = "it serves the end-to-end tests too")]
#[path = "../support/scene.rs"]
mod scene;
mod snapshotters;
mod streams;

use libtest_mimic::{Arguments, Failed, Trial};

use containerd::Need;

/// A test and what it needs.
struct Test {
    name: &'static str,
    needs: &'static [Need],
    run: fn() -> Result<(), Failed>,
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
    let trials = tests.into_iter().flatten().map(|test| {
        let missing: Vec<Need> = test.needs.iter().copied().filter(|need| !need.is_met()).collect();
        let run = test.run;
        let Some(first) = missing.first().copied() else { return Trial::test(test.name, run) };
        if missing.iter().any(|need| need.is_required()) {
            return Trial::test(test.name, move || {
                Err(format!("needs {first:?}, which URUNC_REQUIRE promises").into())
            });
        }
        Trial::test(test.name, run).with_kind(format!("skipped: needs {first:?}")).with_ignored_flag(true)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
