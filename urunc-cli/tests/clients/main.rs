//! The programs that people drive urunc with: Docker, Podman and Kubernetes' interface to containerd, each set up by the very files of `examples/`.
//!
//! Each test has a world of its own (`world.rs`): the host's files, processes, links and control groups are not touched. Of several versions of a
//! client, the one that comes first in `PATH` is tested. A test that cannot run here is listed as ignored with what it lacks; where
//! `URUNC_REQUIRE` names that thing, it fails instead.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alone;
#[expect(dead_code, reason = "it serves the shim's tests, too")]
#[path = "../shim/containerd.rs"]
mod containerd;
mod create;
mod cri;
mod docker;
#[expect(dead_code, reason = "it serves the shim's tests, too")]
#[path = "../shim/image.rs"]
mod image;
mod kubelet;
#[expect(dead_code, reason = "it serves the end-to-end tests, too")]
#[path = "../support/linux.rs"]
mod linux;
mod need;
mod podman;
#[expect(dead_code, reason = "it serves the end-to-end tests, too")]
#[path = "../support/scene.rs"]
mod scene;
mod server;
mod setups;
mod wire;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};

use need::Need;

/// A test and what it needs.
struct Test {
    name: &'static str,
    needs: &'static [Need],
    run: fn() -> Result<(), Failed>,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let tests = [docker::TESTS, podman::TESTS, cri::TESTS, create::TESTS, alone::TESTS, setups::TESTS];
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
