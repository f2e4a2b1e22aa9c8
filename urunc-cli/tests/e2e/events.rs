//! `events`: what containers use, in runc's JSON lines, and that their memory ran out.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::cgroups::{set_resources, sleeping, unified_ok};
use crate::scene::{Need, Scene, eventually, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "events::stats_of_a_guest_are_told_once", needs: &[Need::Root, Need::Qemu], run: once },
    Test {
        name: "events::stats_come_in_intervals_until_the_end",
        needs: &[Need::Root, Need::Qemu],
        run: intervals,
    },
    Test { name: "events::running_out_of_memory_is_told", needs: &[Need::Root], run: out_of_memory },
    Test { name: "events::only_what_lives_is_measured", needs: &[Need::Root], run: wrong_status },
    Test { name: "events::v2_has_counters", needs: &[Need::Root], run: unified },
];

fn once() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.qemu(&["burn=600"]);
    set_resources(&bundle, json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}));
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    assert!(eventually(|| scene.console().contains("burn=600")), "{}", scene.console());
    let text = scene.ok(&["events", "--stats", "c"]);
    assert_eq!(text.lines().count(), 1, "{text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some("c")));
    let data = &event["data"];
    let cpu = data["cpu"]["usage"]["total"].as_u64().unwrap();
    assert!(cpu > 0, "{data}");
    let memory = &data["memory"]["usage"];
    // The guest's and the monitor's, below the limit that counts both.
    assert!(memory["usage"].as_u64().unwrap() > 1 << 20, "{data}");
    assert!((64 << 20..1 << 40).contains(&memory["limit"].as_u64().unwrap()), "{data}");
    assert_eq!(data["pids"]["limit"], 50);
    assert!(data["pids"]["current"].as_u64().unwrap() > 1, "QEMU has threads: {data}");
    // The kernel counts at ticks, of which there may be none between two commands.
    let grows = || {
        let again: Value = serde_json::from_str(&scene.ok(&["events", "--stats", "c"])).unwrap();
        again["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > cpu
    };
    assert!(eventually(grows));
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

fn intervals() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.qemu(&["hold"]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let mut child =
        scene.command(&["events", "--interval", "20ms", "c"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["type"], "stats");
    }
    scene.ok(&["kill", "c", "KILL"]);
    // The lines end with the container.
    assert!(lines.all(|line| line.unwrap().contains("\"stats\"")));
    assert!(child.wait().unwrap().success());
    passed()
}

fn out_of_memory() -> Result<(), Failed> {
    let scene = Scene::new();
    let lines = scene.path("lines");
    // The monitor waits in its own root until the watcher is there; a signal is what it can be told by.
    scene.fake_monitor(&scene.script(
        "trap 'x=0123456789abcdef; while :; do x=$x$x; done' USR1; echo ready; while :; do sleep 0.01; done",
    ));
    let bundle = scene.fake(&[]);
    set_resources(&bundle, json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}}));
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    scene.ok(&["start", "c"]);
    assert!(eventually(|| scene.console().contains("ready")));
    let mut child = scene
        .command(&["events", "--interval", "10ms", "c"])
        .stdout(fs::File::create(&lines).unwrap())
        .spawn()
        .unwrap();
    let printed = || fs::read_to_string(&lines).unwrap();
    // The first measurement comes when the watch is set.
    assert!(eventually(|| printed().contains("\"stats\"")));
    scene.ok(&["kill", "c", "USR1"]);
    assert_eq!(reap(pid), 128 + 9);
    assert!(child.wait().unwrap().success());
    let text = printed();
    let oom: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|it: &Value| it["type"] == "oom")
        .collect();
    assert!(!oom.is_empty() && oom[0] == json!({"type": "oom", "id": "c"}), "{text}");
    // It is the reason of the container's end, too.
    scene.ok(&["kill", "c", "KILL"]);
    let record = fs::read_to_string(scene.root().join("c/state.json")).unwrap();
    assert!(record.contains("ran out of memory"), "{record}");
    passed()
}

fn wrong_status() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    assert!(scene.fails(&["events", "--stats", "nobody"]).contains("does not exist"));
    scene.create_ok(&bundle, "c");
    scene.ok(&["events", "--stats", "c"]);
    scene.ok(&["start", "c"]);
    scene.ok(&["pause", "c"]);
    scene.ok(&["events", "--stats", "c"]);
    scene.ok(&["kill", "c", "KILL"]);
    for args in [&["events", "c"][..], &["events", "--stats", "c"]] {
        assert!(scene.fails(args).contains("it is stopped"));
    }
    let output = scene.urunc(&["events", "--interval", "0s", "c"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("greater than 0"), "{said}");
    passed()
}

/// This kernel has its controllers in v1, but processor time is counted in v2 without one.
fn unified() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| drop(spec["linux"].as_object_mut().unwrap().remove("resources")));
    unified_ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
    unified_ok(&scene, &["start", "c"]);
    let event: Value = serde_json::from_str(&unified_ok(&scene, &["events", "--stats", "c"])).unwrap();
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{event}");
    unified_ok(&scene, &["delete", "--force", "c"]);
    passed()
}
