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
#[path = "../support/runner.rs"]
mod runner;
#[expect(dead_code, reason = "it serves the end-to-end tests, too")]
#[path = "../support/scene.rs"]
mod scene;
mod server;
mod setups;
mod wire;
mod world;

use libtest_mimic::Arguments;

use need::Need;

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
    let tests = [docker::TESTS, podman::TESTS, cri::TESTS, create::TESTS, alone::TESTS, setups::TESTS];
    runner::run(&arguments, tests.into_iter().flatten())
}
