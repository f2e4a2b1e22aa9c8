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
#[path = "../support/runner.rs"]
mod runner;
mod sandbox;
#[path = "../support/scene.rs"]
mod scene;
mod storm;
mod systemd;
mod update;
mod weaknesses;
mod yardstick;

use libtest_mimic::Arguments;
use scene::Need;

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
    runner::run(&arguments, tests.into_iter().flatten())
}
