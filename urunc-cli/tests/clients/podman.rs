//! Podman, with storage and networks of its own in each test.

use std::fs::File;
use std::process::Output;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{describe, eventually, guest, plain, qemu, shown};
use crate::docker::{DEAF, net};
use crate::image::Image;
use crate::need::Need;
use crate::server;
use crate::world::World;

const GUEST: &[Need] = &[Need::Root, Need::Podman, Need::Guest];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "podman::a_guest_prints_and_its_status_is_returned", needs: GUEST, run: status },
    Test { name: "podman::a_detached_guest_is_seen_measured_and_removed", needs: GUEST, run: detached },
    Test {
        name: "podman::a_stop_reaches_the_guest_within_its_grace",
        needs: &[Need::Root, Need::Podman, Need::Qemu],
        run: asked,
    },
    Test {
        name: "podman::a_guest_that_will_not_stop_is_killed_after_its_grace",
        needs: &[Need::Root, Need::Podman, Need::Qemu],
        run: deaf,
    },
    Test {
        name: "podman::a_restarted_guest_answers_on_a_network_of_cni",
        needs: &[Need::Root, Need::Podman, Need::Cni, Need::Spt],
        run: with_cni,
    },
    Test {
        name: "podman::a_restarted_guest_answers_on_a_network_of_netavark",
        needs: &[Need::Root, Need::Podman, Need::Netavark, Need::Spt],
        run: with_netavark,
    },
    Test {
        name: "podman::a_guest_is_reached_by_tcp_and_by_its_published_port",
        needs: &[Need::Root, Need::Podman, Need::Netavark, Need::Linux],
        run: tcp,
    },
    Test {
        name: "podman::what_is_no_unikernel_runs_as_ever",
        needs: &[Need::Root, Need::Podman, Need::Runc],
        run: plain_container,
    },
    Test { name: "podman::a_failure_is_told_and_leaves_nothing", needs: GUEST, run: failure },
];

/// What Podman needs where the limits of the machine are low and nobody runs systemd.
const MACHINE: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:4096\"]\n\
                       [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

/// A world with Podman in it.
pub(crate) struct Podman {
    pub(crate) world: World,
    /// What the test does not answer for: mounts of Podman's storage, and bridges, which stay.
    before: Vec<String>,
}

impl Podman {
    /// Installs the configuration of `examples/podman` and images.
    pub(crate) fn start(images: &[Image]) -> Self {
        Self::with_machine(MACHINE, images)
    }

    fn with_machine(machine: &str, images: &[Image]) -> Self {
        let world = World::new();
        world.install("podman/urunc.conf", "/etc/containers/containers.conf.d/urunc.conf");
        world.write("/etc/containers/containers.conf.d/machine.conf", machine);
        let mut podman = Self { world, before: Vec::new() };
        for image in images {
            let archive = image.archive(&podman.world.at("/run"));
            let command = format!("CMD {}", serde_json::json!(image.command));
            let mut import =
                podman.world.command(&["podman", "import", "--change", &command, "-", image.name]);
            let layer = File::open(archive.with_file_name("layer.tar")).unwrap();
            let output = import.stdin(layer).output().unwrap();
            assert!(output.status.success(), "{}", describe(&output));
        }
        podman.before = podman.world.inventory();
        podman
    }

    pub(crate) fn output(&self, words: &[&str]) -> Output {
        self.world.output(&[&["podman", "--runtime", "urunc"], words].concat())
    }

    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "podman {words:?}: {}", describe(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn inspect(&self, name: &str, what: &str) -> String {
        self.ok(&["inspect", "--format", &format!("{{{{{what}}}}}"), name])
    }

    fn prints(&self, name: &str, text: &str) {
        let logs = || self.ok(&["logs", name]);
        assert!(eventually(|| logs().contains(text)), "{}", logs());
    }

    /// Fails if a container left something. The network's bridge stays, and Podman keeps its storage mounted.
    fn assert_clean(&self) {
        let kept = ["cni-podman0", "podman0", " /run/netns ", "/var/lib/containers/storage/overlay "];
        self.world.assert_as_before_but(&self.before, &kept);
    }
}

fn status() -> Result<(), Failed> {
    let podman = Podman::start(&[guest()]);
    let output = podman.output(&["run", "--rm", guest().name, "hello", "exit=3"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Hello from the urunc demo unikernel"), "{}", describe(&output));
    assert!(text.contains("word 2: exit=3"), "{}", describe(&output));
    assert_eq!(output.status.code(), shown(3), "{}", describe(&output));
    podman.assert_clean();
    Ok(())
}

fn detached() -> Result<(), Failed> {
    let podman = Podman::start(&[guest()]);
    podman.ok(&["run", "--detach", "--name", "guest", "--memory", "64m", guest().name, "hold"]);
    podman.prints("guest", "memory: 64 MiB");
    podman.prints("guest", "holding until told to stop");
    assert_eq!(podman.inspect("guest", ".State.Status"), "running");
    assert_eq!(podman.inspect("guest", ".OCIRuntime"), "urunc");
    let stats = podman.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}} of {{.PIDS}}", "guest"]);
    assert!(stats.contains("B / ") && !stats.starts_with("0B") && !stats.ends_with(" 0"), "{stats}");
    // Not while it runs.
    assert!(!podman.output(&["rm", "guest"]).status.success());
    podman.ok(&["pause", "guest"]);
    assert_eq!(podman.inspect("guest", ".State.Status"), "paused");
    podman.ok(&["unpause", "guest"]);
    podman.ok(&["kill", "guest"]);
    assert_eq!(podman.ok(&["wait", "guest"]), "137");
    assert_eq!(podman.inspect("guest", ".State.Status"), "exited");
    podman.ok(&["start", "guest"]);
    assert_eq!(podman.inspect("guest", ".State.Status"), "running");
    podman.ok(&["rm", "--force", "guest"]);
    podman.assert_clean();
    Ok(())
}

fn asked() -> Result<(), Failed> {
    let podman = Podman::start(&[qemu()]);
    podman.ok(&["run", "--detach", "--name", "guest", qemu().name, "hold", "exit=3"]);
    podman.prints("guest", "holding until told to stop");
    podman.ok(&["stop", "--time", "30", "guest"]);
    podman.prints("guest", "asked to stop by the power button");
    // isa-debug-exit reports (status << 1) | 1.
    assert_eq!(podman.inspect("guest", ".State.ExitCode"), "7");
    podman.ok(&["rm", "guest"]);
    podman.assert_clean();
    Ok(())
}

/// As with Docker: the monitor is told, and goes on.
fn deaf() -> Result<(), Failed> {
    let image = Image { name: "deaf", kind: "unikraft", ..qemu() };
    let podman = Podman::start(std::slice::from_ref(&image));
    podman.world.replace_monitor("qemu", DEAF);
    podman.ok(&["run", "--detach", "--name", "guest", image.name]);
    podman.prints("guest", "ready");
    let begin = Instant::now();
    podman.ok(&["stop", "--time", "2", "guest"]);
    assert!(begin.elapsed() >= Duration::from_secs(2));
    podman.prints("guest", "told");
    assert_eq!(podman.inspect("guest", ".State.ExitCode"), "137");
    Ok(())
}

fn network(backend: &str) {
    let machine = format!("{MACHINE}[network]\nnetwork_backend = \"{backend}\"\n");
    let podman = Podman::with_machine(&machine, &[net()]);
    let address = "10.88.0.9";
    let words = ["answer", "ip=10.88.0.9"];
    podman.ok(&[&["run", "--detach", "--name", "guest", "--ip", address, net().name], &words[..]].concat());
    for _ in 0..2 {
        assert_eq!(podman.inspect("guest", ".NetworkSettings.IPAddress"), address);
        podman.prints("guest", "answering for 10.88.0.9");
        podman.world.ok(&["ping", "-c", "3", "-i", "0.2", "-W", "5", address]);
        podman.ok(&["restart", "--time", "1", "guest"]);
    }
    podman.ok(&["rm", "--force", "guest"]);
    podman.assert_clean();
}

fn with_cni() -> Result<(), Failed> {
    network("cni");
    Ok(())
}

fn with_netavark() -> Result<(), Failed> {
    network("netavark");
    Ok(())
}

fn tcp() -> Result<(), Failed> {
    let dir = tempfile::tempdir().unwrap();
    let image = server::image(dir.path());
    let machine = format!("{MACHINE}[network]\nnetwork_backend = \"netavark\"\n");
    let podman = Podman::with_machine(&machine, std::slice::from_ref(&image));
    podman.world.write("/etc/urunc/config.toml", server::CONFIG);
    podman.ok(&[
        "run",
        "--detach",
        "--name",
        "guest",
        "--publish",
        "8080:5000",
        "--memory",
        "128m",
        image.name,
    ]);
    podman.prints("guest", server::SERVES);
    let address = podman.inspect("guest", ".NetworkSettings.IPAddress");
    server::assert_greets(&podman.world, &address, server::PORT);
    server::assert_greets(&podman.world, "10.88.0.1", 8080);
    podman.ok(&["rm", "--force", "--time", "1", "guest"]);
    podman.assert_clean();
    Ok(())
}

fn plain_container() -> Result<(), Failed> {
    let podman = Podman::start(&[plain()]);
    let script = "while busybox sleep 1; do :; done";
    podman.ok(&["run", "--detach", "--name", "plain", plain().name, "/bin/sh", "-c", script]);
    assert_eq!(podman.ok(&["exec", "plain", "/bin/sh", "-c", "echo from inside"]), "from inside");
    assert_eq!(podman.output(&["exec", "plain", "/bin/sh", "-c", "exit 4"]).status.code(), Some(4));
    podman.ok(&["rm", "--force", "--time", "0", "plain"]);
    podman.assert_clean();
    Ok(())
}

fn failure() -> Result<(), Failed> {
    let podman = Podman::start(&[guest()]);
    let config = format!("[monitors.{}]\npath = \"/nonexistent/monitor\"\n", guest().monitor);
    podman.world.write("/etc/urunc/config.toml", config);
    let output = podman.output(&["run", "--rm", guest().name]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nonexistent/monitor"), "{}", describe(&output));
    podman.assert_clean();
    Ok(())
}
