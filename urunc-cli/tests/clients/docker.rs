//! Docker, with a daemon, data and a `docker0` of its own in each test.

use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{RUNTIME, describe, eventually, guest, plain, qemu, shown};
use crate::image::Image;
use crate::need::Need;
use crate::server;
use crate::world::{Hierarchies, World, demo};

const GUEST: &[Need] = &[Need::Root, Need::Docker, Need::Guest];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "docker::a_guest_prints_and_its_status_is_returned", needs: GUEST, run: status },
    Test {
        name: "docker::a_runtime_is_found_by_the_name_of_its_shim",
        needs: &[Need::Root, Need::DockerWithShims, Need::Guest],
        run: by_name,
    },
    Test { name: "docker::a_detached_guest_is_seen_measured_and_removed", needs: GUEST, run: detached },
    Test {
        name: "docker::a_guest_lives_under_control_groups_of_version_2_alone",
        needs: GUEST,
        run: unified,
    },
    Test {
        name: "docker::a_restart_and_a_stop_reach_the_guest_within_their_grace",
        needs: &[Need::Root, Need::Docker, Need::Qemu],
        run: asked,
    },
    Test {
        name: "docker::a_guest_that_will_not_stop_is_killed_after_its_grace",
        needs: &[Need::Root, Need::Docker, Need::Qemu],
        run: deaf,
    },
    Test {
        name: "docker::a_restarted_guest_answers_on_the_bridge",
        needs: &[Need::Root, Need::Docker, Need::Spt],
        run: bridge,
    },
    Test {
        name: "docker::a_guest_is_reached_by_tcp_and_by_its_published_port",
        needs: &[Need::Root, Need::Docker, Need::Linux],
        run: tcp,
    },
    Test { name: "docker::a_guest_that_fails_is_started_again_as_told", needs: GUEST, run: policy },
    Test {
        name: "docker::what_is_no_unikernel_runs_as_ever",
        needs: &[Need::Root, Need::Docker, Need::Runc],
        run: plain_container,
    },
    Test { name: "docker::a_failure_is_told_and_leaves_nothing", needs: GUEST, run: failure },
];

/// A running Docker.
pub(crate) struct Docker {
    pub(crate) world: World,
}

impl Docker {
    /// Starts it with one of the configurations in `examples/docker`, and images.
    pub(crate) fn start(config: &str, images: &[Image]) -> Self {
        Self::start_in(World::new(), config, images)
    }

    fn start_in(world: World, config: &str, images: &[Image]) -> Self {
        let docker = Self { world };
        docker.world.install(&format!("docker/{config}"), "/etc/docker/daemon.json");
        docker.world.daemon(&["dockerd"]);
        assert!(
            eventually(|| docker.world.output(&["docker", "version"]).status.success()),
            "{}",
            docker.world.log()
        );
        for image in images {
            docker.import(image);
        }
        docker
    }

    /// An image from its file system alone: whatever says that it is a unikernel is in there.
    fn import(&self, image: &Image) {
        let archive = image.archive(&self.world.at("/run"));
        let layer = archive.with_file_name("layer.tar");
        // The client reads it in the world.
        let command = format!("CMD {}", serde_json::json!(image.command));
        let mut import = self.world.command(&["docker", "import", "--change", &command, "-", image.name]);
        let output = import.stdin(std::fs::File::open(layer).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", describe(&output));
    }

    pub(crate) fn ok(&self, words: &[&str]) -> String {
        self.world.ok(&[&["docker"], words].concat()).trim().to_owned()
    }

    /// `docker run`.
    pub(crate) fn run(
        &self,
        runtime: &str,
        options: &[&str],
        image: &Image,
        words: &[&str],
    ) -> std::process::Output {
        self.world.output(&[&["docker", "run", "--runtime", runtime], options, &[image.name], words].concat())
    }

    fn detach(&self, name: &str, options: &[&str], image: &Image, words: &[&str]) {
        let output = self.run("urunc", &[&["--detach", "--name", name], options].concat(), image, words);
        assert!(output.status.success(), "{}\n{}", describe(&output), self.world.log());
    }

    fn inspect(&self, name: &str, what: &str) -> String {
        self.ok(&["inspect", "--format", &format!("{{{{{what}}}}}"), name])
    }

    /// Whether the container's log has it, now or soon.
    fn prints(&self, name: &str, text: &str) {
        let logs = || self.ok(&["logs", name]);
        assert!(eventually(|| logs().contains(text)), "{}\n{}", logs(), self.world.log());
    }
}

fn greets(docker: &Docker, runtime: &str) {
    let before = docker.world.inventory();
    let output = docker.run(runtime, &["--rm"], &guest(), &["hello", "exit=3"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("Hello from the urunc demo unikernel"),
        "{}\n{}",
        describe(&output),
        docker.world.log()
    );
    assert!(text.contains("word 2: exit=3"), "{}", describe(&output));
    assert_eq!(output.status.code(), shown(3), "{}", describe(&output));
    docker.world.assert_as_before(&before);
}

/// The annotations are in `urunc.json`, and only there.
fn status() -> Result<(), Failed> {
    greets(&Docker::start("daemon.json", &[guest()]), "urunc");
    Ok(())
}

fn by_name() -> Result<(), Failed> {
    let docker = Docker::start("daemon-with-shim.json", &[guest()]);
    greets(&docker, "urunc");
    greets(&docker, RUNTIME);
    Ok(())
}

fn detached() -> Result<(), Failed> {
    is_seen_measured_and_removed(&Docker::start("daemon.json", &[guest()]), &["--memory", "64m"]);
    Ok(())
}

/// The machine may have no controllers for version 2, and so no memory limit.
fn unified() -> Result<(), Failed> {
    let world = World::with(Hierarchies::Unified);
    let docker = Docker::start_in(world, "daemon.json", &[guest()]);
    assert_eq!(docker.ok(&["info", "--format", "{{.CgroupVersion}}"]), "2");
    is_seen_measured_and_removed(&docker, &[]);
    Ok(())
}

fn is_seen_measured_and_removed(docker: &Docker, options: &[&str]) {
    let before = docker.world.inventory();
    docker.detach("guest", options, &guest(), &["hold"]);
    docker.prints("guest", if options.is_empty() { "memory: " } else { "memory: 64 MiB" });
    docker.prints("guest", "holding until told to stop");
    assert_eq!(docker.inspect("guest", ".State.Status"), "running");
    assert_ne!(docker.inspect("guest", ".State.Pid"), "0");
    let stats = docker.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}} of {{.PIDs}}", "guest"]);
    let measured = !stats.starts_with("0B") && !stats.ends_with(" 0");
    assert!(stats.contains("B / ") && (measured || options.is_empty()), "{stats}");
    assert!(docker.ok(&["top", "guest"]).contains(guest().monitor));
    assert!(!docker.world.output(&["docker", "rm", "guest"]).status.success());
    docker.ok(&["pause", "guest"]);
    assert_eq!(docker.inspect("guest", ".State.Status"), "paused");
    docker.ok(&["unpause", "guest"]);
    docker.ok(&["kill", "guest"]);
    assert_eq!(docker.ok(&["wait", "guest"]), "137");
    docker.ok(&["start", "guest"]);
    assert_eq!(docker.inspect("guest", ".State.Status"), "running");
    docker.ok(&["rm", "--force", "guest"]);
    docker.world.assert_as_before(&before);
}

fn asked() -> Result<(), Failed> {
    let docker = Docker::start("daemon.json", &[qemu()]);
    let before = docker.world.inventory();
    docker.detach("guest", &[], &qemu(), &["hold", "exit=3"]);
    docker.prints("guest", "holding until told to stop");
    docker.ok(&["restart", "--time", "60", "guest"]);
    let times = |text: &str| docker.ok(&["logs", "guest"]).matches(text).count();
    assert!(eventually(|| times("holding until told to stop") == 2), "{}", docker.world.log());
    docker.ok(&["stop", "--time", "60", "guest"]);
    assert!(eventually(|| times("asked to stop by the power button") == 2), "{}", docker.world.log());
    // isa-debug-exit reports (status << 1) | 1; killed, it would be 137.
    assert_eq!(docker.inspect("guest", ".State.ExitCode"), "7");
    docker.ok(&["rm", "guest"]);
    docker.world.assert_as_before(&before);
    Ok(())
}

/// The monitor of a guest that knows no power button is asked by SIGTERM. This one takes note and goes on.
pub(crate) const DEAF: &str = "#!/bin/sh\ntrap 'echo told' TERM\necho ready\nwhile :; do sleep 0.1; done\n";

fn deaf() -> Result<(), Failed> {
    let image = Image { name: "deaf", kind: "unikraft", ..qemu() };
    let docker = Docker::start("daemon.json", std::slice::from_ref(&image));
    docker.world.replace_monitor("qemu", DEAF);
    docker.detach("guest", &[], &image, &[]);
    docker.prints("guest", "ready");
    let begin = Instant::now();
    docker.ok(&["stop", "--time", "2", "guest"]);
    assert!(begin.elapsed() >= Duration::from_secs(2));
    docker.prints("guest", "told");
    assert_eq!(docker.inspect("guest", ".State.ExitCode"), "137");
    Ok(())
}

/// The demo unikernel with a network, which answers pings.
pub(crate) fn net() -> Image {
    Image { name: "demo-net", files: vec![(demo("demo-net-spt"), "boot/kernel")], monitor: "spt", ..guest() }
}

fn bridge() -> Result<(), Failed> {
    let docker = Docker::start("daemon.json", &[net()]);
    let before = docker.world.inventory();
    // Docker gives the first container the first address of docker0's network.
    docker.detach("guest", &[], &net(), &["answer", "ip=172.17.0.2"]);
    for _ in 0..2 {
        assert_eq!(docker.inspect("guest", ".NetworkSettings.IPAddress"), "172.17.0.2");
        docker.prints("guest", "answering for 172.17.0.2");
        docker.world.ok(&["ping", "-c", "3", "-i", "0.2", "-W", "5", "172.17.0.2"]);
        docker.ok(&["restart", "--time", "1", "guest"]);
    }
    docker.ok(&["rm", "--force", "guest"]);
    docker.world.assert_as_before(&before);
    Ok(())
}

/// Linux has booted, so it has the power button, but nobody in it does anything about that.
fn tcp() -> Result<(), Failed> {
    let dir = tempfile::tempdir().unwrap();
    let image = server::image(dir.path());
    let docker = Docker::start("daemon.json", std::slice::from_ref(&image));
    docker.world.write("/etc/urunc/config.toml", server::CONFIG);
    let before = docker.world.inventory();
    docker.detach("guest", &["--publish", "8080:5000", "--memory", "128m"], &image, &[]);
    docker.prints("guest", server::SERVES);
    let address = docker.inspect("guest", ".NetworkSettings.IPAddress");
    server::assert_greets(&docker.world, &address, server::PORT);
    for host in ["127.0.0.1", "172.17.0.1"] {
        server::assert_greets(&docker.world, host, 8080);
    }
    docker.ok(&["stop", "--time", "1", "guest"]);
    assert_eq!(docker.inspect("guest", ".State.ExitCode"), "137");
    docker.ok(&["rm", "guest"]);
    docker.world.assert_as_before(&before);
    Ok(())
}

fn policy() -> Result<(), Failed> {
    let docker = Docker::start("daemon.json", &[guest()]);
    docker.detach("guest", &["--restart", "on-failure:2"], &guest(), &["hello", "exit=3"]);
    assert!(eventually(|| docker.inspect("guest", ".RestartCount") == "2"));
    assert!(eventually(|| docker.inspect("guest", ".State.Status") == "exited"));
    assert_eq!(docker.ok(&["logs", "guest"]).matches("Hello from").count(), 3);
    assert_eq!(docker.inspect("guest", ".State.ExitCode"), shown(3).unwrap().to_string());
    Ok(())
}

fn plain_container() -> Result<(), Failed> {
    let docker = Docker::start("daemon.json", &[plain()]);
    let before = docker.world.inventory();
    docker.detach("plain", &[], &plain(), &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]);
    assert_eq!(docker.ok(&["exec", "plain", "/bin/sh", "-c", "echo from inside"]), "from inside");
    docker.ok(&["rm", "--force", "plain"]);
    docker.world.assert_as_before(&before);
    Ok(())
}

fn failure() -> Result<(), Failed> {
    let docker = Docker::start("daemon.json", &[guest()]);
    let before = docker.world.inventory();
    let config = format!("[monitors.{}]\npath = \"/nonexistent/monitor\"\n", guest().monitor);
    docker.world.write("/etc/urunc/config.toml", config);
    let output = docker.run("urunc", &["--rm"], &guest(), &[]);
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("/nonexistent/monitor"),
        "{}\n{}",
        describe(&output),
        docker.world.log()
    );
    docker.world.assert_as_before(&before);
    Ok(())
}
