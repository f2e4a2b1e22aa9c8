//! `update`: limits of running containers, on this host's own control groups and on v2 alone.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::cgroups::{directories, on_host, set_resources, setting, sleeping, unified_ok};
use crate::scene::{Need, Scene, describe, eventually, passed};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "update::a_running_guest_gets_other_limits",
        needs: &[Need::Root, Need::Qemu],
        run: running_guest,
    },
    Test { name: "update::limits_can_be_given_as_json", needs: &[Need::Root], run: as_json },
    Test { name: "update::a_refused_limit_leaves_all_as_they_were", needs: &[Need::Root], run: refused },
    Test { name: "update::only_what_lives_can_be_updated", needs: &[Need::Root], run: wrong_status },
    Test { name: "update::less_than_the_guest_has_is_warned_of", needs: &[Need::Root], run: too_little },
    Test { name: "update::v2_files_are_written", needs: &[Need::Root], run: unified },
];

fn recorded(scene: &Scene, id: &str) -> Value {
    let record: Value =
        serde_json::from_slice(&fs::read(scene.root().join(id).join("state.json")).unwrap()).unwrap();
    let resources = record["urunc"]["resources"].as_array().unwrap().clone();
    resources.iter().find(|it| it["kind"] == "cgroup").unwrap()["data"]["resources"].clone()
}

fn memory_limit(scene: &Scene) -> u64 {
    setting(scene, "c", &["memory.limit_in_bytes", "memory.max"]).parse().unwrap()
}

fn running_guest() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.qemu(&["hold"]);
    set_resources(&bundle, json!({"memory": {"limit": 64 << 20}, "cpu": {"shares": 512, "period": 50_000}}));
    scene.create_ok(&bundle, "c");
    let on_top = memory_limit(&scene) - (64 << 20);
    scene.ok(&["start", "c"]);
    assert!(eventually(|| scene.console().contains("hold")), "{}", scene.console());
    scene.ok(&["update", "--memory", "128m", "--pids-limit", "77", "--cpu-quota", "25000", "c"]);
    // The rule of create holds: the monitor's own memory still comes on top.
    assert_eq!(memory_limit(&scene), (128 << 20) + on_top);
    assert_eq!(setting(&scene, "c", &["pids.max"]), "77");
    assert!(
        ["25000", "25000 50000"].contains(&setting(&scene, "c", &["cpu.cfs_quota_us", "cpu.max"]).as_str())
    );
    // What was not named stays.
    assert!(["512", "20"].contains(&setting(&scene, "c", &["cpu.shares", "cpu.weight"]).as_str()));
    let limits = recorded(&scene, "c");
    assert_eq!(limits["memory"]["limit"], json!({"at": 128 << 20}));
    assert_eq!((&limits["cpu"]["shares"], &limits["pids"]), (&json!(512), &json!({"at": 77})));
    scene.ok(&["update", "--memory", "-1", "--pids-limit", "-1", "c"]);
    assert!(memory_limit(&scene) > 1 << 60);
    assert_eq!(setting(&scene, "c", &["pids.max"]), "max");
    assert_eq!(scene.status("c"), "running");
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

fn as_json() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    // A created container has limits, too.
    let mut child = scene
        .command(&["update", "--resources", "-", "--pids-limit", "9", "c"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // As containerd sends it, device rules included, which must not shut the monitor's devices off.
    let document = json!({
        "pids": {"limit": 40},
        "cpu": {"cpus": "0"},
        "devices": [{"allow": false, "access": "rwm"}],
    });
    child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    // With a document, the other flags do not count.
    assert_eq!(setting(&scene, "c", &["pids.max"]), "40");
    assert_eq!(setting(&scene, "c", &["cpuset.cpus"]), "0");
    let devices = directories(&scene, "c").into_iter().map(|path| path.join("devices.list"));
    if let Some(list) = devices.into_iter().find(|path| path.exists()) {
        assert!(fs::read_to_string(list).unwrap().starts_with("a *:* rwm"));
    }
    let file = scene.path("limits.json");
    fs::write(&file, r#"{"cpu": {"shares": 300}}"#).unwrap();
    scene.ok(&["update", "-r", file.to_str().unwrap(), "c"]);
    assert!(["300", "12"].contains(&setting(&scene, "c", &["cpu.shares", "cpu.weight"]).as_str()));
    scene.ok(&["start", "c"]);
    fs::write(&file, "{").unwrap();
    assert!(scene.fails(&["update", "-r", file.to_str().unwrap(), "c"]).contains("no JSON"));
    assert!(scene.fails(&["update", "-r", "/nonexistent", "c"]).contains("/nonexistent"));
    passed()
}

fn refused() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    set_resources(&bundle, json!({"memory": {"limit": 64 << 20}, "cpu": {"cpus": "0", "shares": 100}}));
    scene.create_ok(&bundle, "c");
    let before = (memory_limit(&scene), recorded(&scene, "c"));
    // Memory and shares come first, and are taken back.
    let args = ["update", "--memory", "96m", "--cpu-share", "900", "--cpuset-cpus", "4000", "c"];
    let message = scene.fails(&args);
    assert!(message.contains("linux.resources.cpu.cpus") && message.contains("4000"), "{message}");
    assert_eq!((memory_limit(&scene), recorded(&scene, "c")), before);
    assert!(["100", "4"].contains(&setting(&scene, "c", &["cpu.shares", "cpu.weight"]).as_str()));
    for (flags, says) in [
        (["--memory", "much"], "--memory is \"much\""),
        (["--memory-swap", "1m"], "memory.swap"),
        (["--l3-cache-schema", "L3:0=f"], "Intel RDT"),
        (["--memory", "-5"], "--memory is \"-5\""),
    ] {
        let message = scene.fails(&["update", flags[0], flags[1], "c"]);
        assert!(message.contains(says), "{message}");
    }
    passed()
}

fn wrong_status() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    assert!(scene.fails(&["update", "--pids-limit", "5", "nobody"]).contains("does not exist"));
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    scene.ok(&["pause", "c"]);
    scene.ok(&["update", "--pids-limit", "5", "c"]);
    assert_eq!((setting(&scene, "c", &["pids.max"]).as_str(), scene.status("c").as_str()), ("5", "paused"));
    scene.ok(&["kill", "c", "KILL"]);
    assert!(scene.fails(&["update", "--pids-limit", "5", "c"]).contains("it is stopped"));
    passed()
}

fn too_little() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let output = scene.urunc(&["update", "--memory", "32m", "c"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("booted with 67108864 bytes"), "{}", describe(&output));
    let output = scene.urunc(&["update", "--memory", "64m", "c"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", describe(&output));
    passed()
}

fn unified() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    set_resources(&bundle, json!({"unified": {"cgroup.max.depth": "9"}}));
    unified_ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
    let group = on_host(&directories(&scene, "c")[0]);
    let file = scene.path("limits.json");
    fs::write(&file, r#"{"unified": {"cgroup.max.descendants": "3"}}"#).unwrap();
    unified_ok(&scene, &["update", "--resources", file.to_str().unwrap(), "c"]);
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap().trim().to_owned();
    assert_eq!((read("cgroup.max.descendants"), read("cgroup.max.depth")), ("3".into(), "9".into()));
    assert_eq!(recorded(&scene, "c")["unified"]["cgroup.max.descendants"], "3");
    unified_ok(&scene, &["delete", "c"]);
    scene.assert_clean();
    passed()
}
