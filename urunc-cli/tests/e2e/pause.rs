//! Pausing by the freezer of the control group: this host's own, and that of a v2-only host.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::Test;
use crate::cgroups::{on_host, sleeping, unified_ok};
use crate::scene::{Need, Scene, eventually, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "pause::a_paused_guest_stands_still_and_runs_on",
        needs: &[Need::Root, Need::Qemu],
        run: stands_still,
    },
    Test { name: "pause::only_what_runs_can_be_paused", needs: &[Need::Root], run: wrong_status },
    Test { name: "pause::a_paused_container_can_be_killed_and_removed", needs: &[Need::Root], run: ends },
    Test { name: "pause::a_signal_waits_until_resume", needs: &[Need::Root], run: signal_waits },
    Test {
        name: "pause::a_stop_signal_to_a_paused_monitor_waits_until_resume",
        needs: &[Need::Root, Need::Qemu],
        run: stop_waits,
    },
    Test { name: "pause::v2_has_the_same_states", needs: &[Need::Root], run: unified },
];

/// The file that shows whether a container is frozen.
fn freezer(scene: &Scene, id: &str) -> PathBuf {
    let record: Value =
        serde_json::from_slice(&fs::read(scene.root().join(id).join("state.json")).unwrap()).unwrap();
    record["urunc"]["freezer"].as_str().unwrap().into()
}

/// Clock ticks that a process and its threads have spent outside the kernel and in it (proc_pid_stat(5)).
fn ticks(pid: i64) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn stands_still() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.qemu(&["burn=600"]);
    scene.create_ok(&bundle, "guest");
    scene.ok(&["start", "guest"]);
    let pid = scene.pid("guest");
    assert!(eventually(|| scene.console().contains("burn=600")), "{}", scene.console());
    scene.ok(&["pause", "guest"]);
    let before = ticks(pid);
    assert_eq!(scene.status("guest"), "paused");
    assert!(scene.ok(&["list"]).contains("paused"));
    let record: Value =
        serde_json::from_slice(&fs::read(scene.root().join("guest/state.json")).unwrap()).unwrap();
    assert_eq!(record["status"], "paused");
    assert_eq!(ticks(pid), before);
    scene.ok(&["resume", "guest"]);
    assert_eq!(scene.status("guest"), "running");
    assert!(eventually(|| ticks(pid) > before));
    scene.ok(&["delete", "--force", "guest"]);
    scene.assert_clean();
    passed()
}

fn wrong_status() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    for verb in ["pause", "resume"] {
        assert!(scene.fails(&[verb, "nobody"]).contains("does not exist"));
    }
    scene.create_ok(&bundle, "c");
    let refused = |verb: &str, says: &str| {
        let message = scene.fails(&[verb, "c"]);
        assert!(message.contains(says), "{message}");
    };
    refused("pause", "it is created; only a running container can be paused");
    refused("resume", "it is created; only a paused container can be resumed");
    scene.ok(&["start", "c"]);
    refused("resume", "it is running");
    scene.ok(&["pause", "c"]);
    refused("pause", "it is paused");
    refused("start", "it is paused");
    refused("delete", "it is paused");
    scene.ok(&["resume", "c"]);
    scene.ok(&["kill", "c", "KILL"]);
    refused("pause", "it is stopped");
    refused("resume", "it is stopped");
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

/// On cgroup v1 what is frozen does not die of SIGKILL before it is thawed, whoever froze it.
fn ends() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    for end in [["kill", "c", "KILL"], ["delete", "--force", "c"]] {
        for by_hand in [false, true] {
            scene.create_ok(&bundle, "c");
            let pid = scene.pid("c");
            scene.ok(&["start", "c"]);
            if by_hand {
                let file = freezer(&scene, "c");
                let (file, frozen) = match file.ends_with("cgroup.events") {
                    true => (file.with_file_name("cgroup.freeze"), "1"),
                    false => (file, "FROZEN"),
                };
                fs::write(file, frozen).unwrap();
                assert!(eventually(|| scene.status("c") == "paused"));
            } else {
                scene.ok(&["pause", "c"]);
            }
            scene.ok(&end);
            assert_eq!(reap(pid), 128 + 9, "{end:?}");
            scene.ok(&["delete", "--force", "c"]);
        }
    }
    // The record is lost: its group is still found, and thawed.
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    scene.ok(&["pause", "c"]);
    fs::write(scene.root().join("c/state.json"), "{").unwrap();
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

fn signal_waits() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done"));
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    scene.ok(&["start", "c"]);
    assert!(eventually(|| scene.console().contains("ready")));
    scene.ok(&["pause", "c"]);
    scene.ok(&["kill", "c", "USR1"]);
    assert_eq!(scene.status("c"), "paused");
    scene.ok(&["resume", "c"]);
    assert_eq!(reap(pid), 5);
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

/// A frozen QEMU cannot be asked by its control socket; nobody may wait for the answer.
fn stop_waits() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.qemu(&["hold"]);
    scene.create_ok(&bundle, "guest");
    let pid = scene.pid("guest");
    scene.ok(&["start", "guest"]);
    assert!(eventually(|| scene.console().contains("hold")), "{}", scene.console());
    scene.ok(&["pause", "guest"]);
    scene.ok(&["kill", "guest", "TERM"]);
    assert_eq!(scene.status("guest"), "paused");
    scene.ok(&["resume", "guest"]);
    reap(pid);
    scene.ok(&["delete", "guest"]);
    scene.assert_clean();
    passed()
}

fn unified() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| drop(spec["linux"].as_object_mut().unwrap().remove("resources")));
    for end in [["kill", "c", "KILL"], ["delete", "--force", "c"]] {
        unified_ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
        unified_ok(&scene, &["start", "c"]);
        unified_ok(&scene, &["pause", "c"]);
        let events = fs::read_to_string(on_host(&freezer(&scene, "c"))).unwrap();
        assert!(events.contains("frozen 1"), "{events}");
        assert!(unified_ok(&scene, &["state", "c"]).contains("\"paused\""));
        unified_ok(&scene, &["resume", "c"]);
        assert!(unified_ok(&scene, &["state", "c"]).contains("\"running\""));
        unified_ok(&scene, &["pause", "c"]);
        unified_ok(&scene, &end);
        unified_ok(&scene, &["delete", "--force", "c"]);
    }
    scene.assert_clean();
    passed()
}
