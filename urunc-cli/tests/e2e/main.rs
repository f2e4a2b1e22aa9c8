//! End-to-end tests: the real `urunc`, real monitors, the demo unikernel, on the real kernel.
//!
//! They need root and make everything below a temporary directory. A test that cannot run here is listed as ignored
//! with what it lacks; where the environment variable `URUNC_REQUIRE` names that thing, it fails instead.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cgroups;
mod console;
mod delegation;
mod disk;
mod events;
mod guests;
mod hooks;
mod input;
mod knative;
mod lifecycle;
mod limits;
#[path = "../support/linux.rs"]
mod linux;
mod mistakes;
mod network;
mod network_linux;
mod overhead;
mod pause;
mod process;
mod sandbox;
#[path = "../support/scene.rs"]
mod scene;
mod storm;
mod systemd;
mod update;
mod weaknesses;
mod yardstick;

use libtest_mimic::{Arguments, Failed, Trial};
use scene::Need;

/// A test and what it needs.
struct Test {
    name: &'static str,
    needs: &'static [Need],
    run: fn() -> Result<(), Failed>,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    // As containerd's shim does: processes whose `create` has exited become our children, so that we see how they end.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        eprintln!("cannot become a subreaper: {error}");
    }
    let tests = [
        lifecycle::TESTS,
        limits::TESTS,
        cgroups::TESTS,
        console::TESTS,
        delegation::TESTS,
        disk::TESTS,
        events::TESTS,
        guests::TESTS,
        hooks::TESTS,
        input::TESTS,
        knative::TESTS,
        mistakes::TESTS,
        network::TESTS,
        overhead::TESTS,
        pause::TESTS,
        network_linux::TESTS,
        process::TESTS,
        sandbox::TESTS,
        storm::TESTS,
        weaknesses::TESTS,
        systemd::TESTS,
        update::TESTS,
        yardstick::TESTS,
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
