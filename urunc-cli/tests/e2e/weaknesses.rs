//! Weaknesses of the Go implementation that no other test is about. `WEAKNESSES.md` lists them all.

use std::fs;

use libtest_mimic::Failed;
use serde_json::json;

use crate::Test;
use crate::scene::{Need, Scene, eventually, passed};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "weaknesses::a_lost_bundle_does_not_hide_the_monitor",
        needs: &[Need::Root],
        run: lost_bundle,
    },
    Test { name: "weaknesses::a_removed_monitor_can_be_killed", needs: &[Need::Root], run: lost_monitor },
    Test { name: "weaknesses::words_of_ours_are_ordinary_ids", needs: &[Need::Root], run: words },
    Test { name: "weaknesses::annotations_are_never_configuration", needs: &[Need::Root], run: annotations },
    Test { name: "weaknesses::devices_are_the_monitors_alone", needs: &[Need::Root], run: devices },
    Test { name: "weaknesses::poststop_hooks_run_where_delete_runs", needs: &[Need::Root], run: poststop },
];

fn sleeping() -> Scene {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    scene
}

fn alive(pid: i64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// B4: "some file is missing" was taken for "the container is gone", while its monitor ran on.
fn lost_bundle() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let pid = scene.pid("c");
    fs::remove_dir_all(&bundle.path).unwrap();
    assert_eq!(scene.status("c"), "running");
    assert!(scene.fails(&["delete", "c"]).contains("it is running"));
    assert!(alive(pid));
    scene.ok(&["delete", "--force", "c"]);
    assert!(!alive(pid));
    scene.assert_clean();
    passed()
}

/// B8: a monitor could be killed only as long as its program was installed.
fn lost_monitor() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let pid = scene.pid("c");
    fs::remove_file(scene.path("monitor.sh")).unwrap();
    scene.ok(&["kill", "c", "KILL"]);
    assert!(eventually(|| !alive(pid)));
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

/// B26: names of internal commands and directories were taken for what they are not.
fn words() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    for id in ["init", "libcontainer", "monitor", "state.json", "reexec.sock", "--reexec"] {
        let console = fs::File::create(scene.path("console")).unwrap();
        let mut create = scene.command(&["create", "--bundle", bundle.str(), "--", id]);
        let created = create.stdout(console.try_clone().unwrap()).stderr(console).status().unwrap();
        assert!(created.success(), "{id}: {}", scene.console());
        scene.ok(&["start", "--", id]);
        assert!(scene.ok(&["state", "--", id]).contains("\"running\""));
        scene.ok(&["delete", "--force", "--", id]);
    }
    for command in ["init", "monitor"] {
        assert_eq!(scene.urunc(&[command, "c"]).status.code(), Some(1), "{command} is no command");
    }
    scene.assert_clean();
    passed()
}

/// B38: annotations of the user were read as the administrator's configuration, a monitor's program included.
fn annotations() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| {
        for name in ["spt", "qemu"] {
            spec["annotations"][format!("urunc_config.monitors.{name}.binary_path")] =
                json!("/usr/bin/false");
            spec["annotations"][format!("urunc_config.monitors.{name}.path")] = json!("/usr/bin/false");
        }
    });
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let pid = scene.pid("c");
    assert!(eventually(|| fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"sleep")));
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

/// B40: everybody could open the nodes.
fn devices() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("cd /dev; stat -c '%n %a %u %g' *; exec sleep 1000"));
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    assert!(eventually(|| scene.console().contains("urandom")), "{}", scene.console());
    let id = scene.uid;
    let mut nodes: Vec<String> = scene.console().lines().map(str::to_owned).collect();
    nodes.sort();
    assert_eq!(nodes, ["null", "urandom"].map(|name| format!("{name} 600 {id} {id}")));
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

/// B9: after the network had been cleaned up, they ran in whichever namespace the thread was left in.
fn poststop() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    let seen = scene.path("seen");
    bundle.edit(|spec| {
        let script = format!("readlink /proc/self/ns/net /proc/self/ns/mnt > {}", seen.display());
        spec["hooks"]["poststop"] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]);
    });
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    scene.ok(&["delete", "--force", "c"]);
    let own = ["net", "mnt"]
        .map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string());
    assert_eq!(fs::read_to_string(seen).unwrap().lines().collect::<Vec<_>>(), own);
    scene.assert_clean();
    passed()
}
