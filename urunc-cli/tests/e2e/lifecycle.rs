//! The verbs in order and out of order.

use std::fs;
use std::path::Path;

use libtest_mimic::Failed;
use serde_json::json;

use crate::Test;
use crate::scene::{Need, Scene, eventually, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "lifecycle::a_container_goes_through_all_states", needs: &[Need::Root], run: all_states },
    Test { name: "lifecycle::the_exit_status_is_the_monitors", needs: &[Need::Root], run: exit_status },
    Test { name: "lifecycle::run_returns_the_exit_status", needs: &[Need::Root], run: run_status },
    Test { name: "lifecycle::run_detached_returns_at_once", needs: &[Need::Root], run: run_detached },
    Test { name: "lifecycle::start_twice_is_refused", needs: &[Need::Root], run: start_twice },
    Test {
        name: "lifecycle::a_running_container_is_not_deleted_without_force",
        needs: &[Need::Root],
        run: delete_running,
    },
    Test { name: "lifecycle::a_created_container_can_be_deleted", needs: &[Need::Root], run: delete_created },
    Test { name: "lifecycle::an_unknown_id_is_said_to_be_unknown", needs: &[Need::Root], run: unknown_id },
    Test {
        name: "lifecycle::an_id_in_use_is_refused_and_the_first_lives_on",
        needs: &[Need::Root],
        run: id_in_use,
    },
    Test { name: "lifecycle::the_same_bundle_runs_twice", needs: &[Need::Root], run: same_bundle_twice },
    Test {
        name: "lifecycle::kill_after_the_end_succeeds_for_stop_signals_only",
        needs: &[Need::Root],
        run: kill_dead,
    },
    Test {
        name: "lifecycle::the_state_document_has_what_callers_read",
        needs: &[Need::Root],
        run: state_document,
    },
    Test { name: "lifecycle::list_and_ps_show_containers", needs: &[Need::Root], run: list_and_ps },
    Test { name: "lifecycle::a_pid_file_names_the_container_process", needs: &[Need::Root], run: pid_file },
    Test { name: "lifecycle::a_relative_bundle_is_found_again", needs: &[Need::Root], run: relative_bundle },
    Test { name: "lifecycle::namespaces_are_made_or_joined", needs: &[Need::Root], run: namespaces },
    Test {
        name: "lifecycle::check_and_spec_help_a_newcomer",
        needs: &[Need::Root, Need::Qemu],
        run: check_and_spec,
    },
    Test { name: "lifecycle::timestamps_are_written_in_order", needs: &[Need::Root], run: timestamps },
    Test { name: "lifecycle::urunc_json_stands_in_for_annotations", needs: &[Need::Root], run: urunc_json },
];

/// A scene whose monitor sleeps until it is told to end.
fn sleeping() -> Scene {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    scene
}

fn all_states() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    assert_eq!(scene.status("c"), "created");
    let pid = scene.pid("c");
    scene.ok(&["start", "c"]);
    assert_eq!((scene.status("c").as_str(), scene.pid("c")), ("running", pid));
    scene.ok(&["kill", "c", "KILL"]);
    assert_eq!((scene.status("c").as_str(), scene.pid("c")), ("stopped", 0));
    assert_eq!(reap(pid), 128 + 9);
    scene.ok(&["delete", "c"]);
    assert!(scene.fails(&["state", "c"]).contains("does not exist"));
    scene.assert_clean();
    passed()
}

fn exit_status() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exit 42"));
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    scene.ok(&["start", "c"]);
    assert_eq!(reap(pid), 42);
    assert_eq!(scene.status("c"), "stopped");
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

fn run_status() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("echo out; echo err >&2; exit 42"));
    let bundle = scene.fake(&[]);
    let output = scene.urunc(&["run", "--bundle", bundle.str(), "c"]);
    assert_eq!(output.status.code(), Some(42));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    scene.assert_clean();
    scene.fake_monitor(&scene.script("kill -9 $$; exec sleep 1000"));
    // As pid 1 of its namespace it cannot kill itself; from outside it can.
    let mut child = scene.command(&["run", "--bundle", bundle.str(), "c"]).spawn().unwrap();
    assert!(eventually(|| scene.urunc(&["state", "c"]).stdout.windows(7).any(|word| word == b"running")));
    scene.ok(&["kill", "c", "KILL"]);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    scene.assert_clean();
    passed()
}

fn run_detached() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    let console = fs::File::create(scene.path("console")).unwrap();
    let status =
        scene.command(&["run", "--detach", "--bundle", bundle.str(), "c"]).stdout(console).status().unwrap();
    assert!(status.success());
    assert_eq!(scene.status("c"), "running");
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

fn start_twice() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let message = scene.fails(&["start", "c"]);
    assert!(message.contains("it is running"), "{message}");
    assert_eq!(scene.status("c"), "running");
    passed()
}

fn delete_running() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let message = scene.fails(&["delete", "c"]);
    assert!(message.contains("it is running") && message.contains("--force"), "{message}");
    assert_eq!(scene.status("c"), "running");
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    // containerd always sends a second one.
    scene.ok(&["delete", "--force", "c"]);
    passed()
}

/// Upstream issue 778.
fn delete_created() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

fn unknown_id() -> Result<(), Failed> {
    let scene = Scene::new();
    for command in ["start", "state", "kill", "delete", "ps"] {
        // containerd matches this text.
        assert!(scene.fails(&[command, "nobody"]).contains("does not exist"), "{command}");
    }
    scene.ok(&["delete", "--force", "nobody"]);
    passed()
}

/// B18
fn id_in_use() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    let message = scene.fails(&["create", "--bundle", bundle.str(), "c"]);
    assert!(message.contains("already exists"), "{message}");
    assert_eq!((scene.status("c").as_str(), scene.pid("c")), ("created", pid));
    passed()
}

/// R9: boot files are not moved out of the image.
fn same_bundle_twice() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(Path::new("/usr/bin/echo"));
    let bundle = scene.fake(&["word"]);
    for _ in 0..2 {
        assert!(scene.ok(&["run", "--bundle", bundle.str(), "c"]).contains("word"));
    }
    scene.assert_clean();
    passed()
}

/// F3: "already gone" is success for whoever wants it gone.
fn kill_dead() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exit 0"));
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    scene.ok(&["start", "c"]);
    reap(pid);
    for signal in ["TERM", "KILL", "9", "SIGINT"] {
        scene.ok(&["kill", "c", signal]);
    }
    // containerd matches this text.
    assert!(scene.fails(&["kill", "c", "USR1"]).contains("container not running"));
    assert!(scene.fails(&["kill", "c", "NOSUCH"]).contains("NOSUCH"));
    scene.ok(&["delete", "c"]);
    passed()
}

fn state_document() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| spec["annotations"]["org.example"] = json!("x"));
    scene.create_ok(&bundle, "c");
    let state = scene.state("c");
    assert_eq!(state["ociVersion"], "1.0.2");
    assert_eq!(state["id"], "c");
    assert_eq!(state["bundle"], bundle.path.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(state["annotations"]["org.example"], "x");
    assert_eq!(state["annotations"]["com.urunc.unikernel.unikernelType"], "generic");
    assert!(state["created"].as_str().unwrap().ends_with('Z'));
    assert!(state["rootfs"].as_str().unwrap().ends_with("/rootfs"));
    assert!(state["pid"].as_i64().unwrap() > 0);
    // The file on disk is read by others (section 3.1 of the reference): an OCI state with the annotation.
    let file: serde_json::Value =
        serde_json::from_slice(&fs::read(scene.root().join("c/state.json")).unwrap()).unwrap();
    assert_eq!(file["annotations"]["com.urunc.unikernel.unikernelType"], "generic");
    assert_eq!((&file["status"], &file["pid"]), (&json!("created"), &state["pid"]));
    passed()
}

fn list_and_ps() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "first");
    scene.create_ok(&bundle, "second");
    scene.ok(&["start", "second"]);
    let table = scene.ok(&["list"]);
    assert!(table.starts_with("ID ") && table.contains("first") && table.contains("running"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&scene.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    assert_eq!(scene.ok(&["list", "-q"]).lines().count(), 2);
    let pids: Vec<i64> = serde_json::from_str(&scene.ok(&["ps", "--format", "json", "second"])).unwrap();
    let pid = scene.pid("second");
    assert_eq!(pids, [pid]);
    // The table is that of the host's ps(1), which says of our process what it is asked.
    let lines = |text: String| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split_ascii_whitespace().map(str::to_owned).collect()).collect()
    };
    assert!(eventually(|| fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"sleep")));
    let table = lines(scene.ok(&["ps", "second"]));
    let column = table[0].iter().position(|head| head == "PID").unwrap();
    assert_eq!((table.len(), table[1][column].as_str()), (2, pid.to_string().as_str()));
    assert_eq!(lines(scene.ok(&["ps", "second", "-eo", "pid,comm"]))[1], [pid.to_string(), "sleep".into()]);
    assert!(scene.fails(&["ps", "second", "-eo", "comm"]).contains("column PID"));
    scene.ok(&["kill", "second", "KILL"]);
    assert_eq!(scene.ok(&["ps", "--format", "json", "second"]), "[]\n");
    passed()
}

fn pid_file() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    let path = scene.path("init.pid");
    let console = fs::File::create(scene.path("console")).unwrap();
    let args = ["create", "--bundle", bundle.str(), "--pid-file", path.to_str().unwrap(), "c"];
    assert!(
        scene.command(&args).stdout(console.try_clone().unwrap()).stderr(console).status().unwrap().success()
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), scene.pid("c").to_string());
    passed()
}

/// B24
fn relative_bundle() -> Result<(), Failed> {
    let scene = sleeping();
    scene.fake(&[]);
    let console = fs::File::create(scene.path("console")).unwrap();
    let mut command = scene.command(&["create", "--bundle", "bundle", "c"]);
    command.current_dir(scene.path("")).stdout(console.try_clone().unwrap()).stderr(console);
    assert!(command.status().unwrap().success());
    scene.ok(&["start", "c"]);
    assert_eq!(scene.status("c"), "running");
    passed()
}

fn namespaces() -> Result<(), Failed> {
    let scene = sleeping();
    let first = scene.fake(&[]);
    scene.create_ok(&first, "first");
    let link = |pid: i64, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let owner = scene.pid("first");
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        assert_ne!(link(owner, kind), fs::read_link(format!("/proc/self/ns/{kind}")).unwrap(), "{kind}");
    }
    // As in a pod: the second one joins what the first one made.
    let second = scene.bundle("second", "spt", "demo-spt", &[]);
    second.edit(|spec| {
        spec["linux"]["namespaces"] = json!([
            {"type": "network", "path": format!("/proc/{owner}/ns/net")},
            {"type": "ipc", "path": format!("/proc/{owner}/ns/ipc")},
            {"type": "uts", "path": format!("/proc/{owner}/ns/uts")},
            {"type": "pid", "path": format!("/proc/{owner}/ns/pid")},
            {"type": "mount"},
        ]);
    });
    scene.create_ok(&second, "second");
    let joiner = scene.pid("second");
    for kind in ["pid", "net", "ipc", "uts"] {
        assert_eq!(link(owner, kind), link(joiner, kind), "{kind}");
    }
    assert_ne!(link(owner, "mnt"), link(joiner, "mnt"));
    scene.ok(&["start", "second"]);
    assert_eq!(scene.status("second"), "running");
    scene.ok(&["kill", "second", "KILL"]);
    assert_eq!(reap(joiner), 128 + 9);
    scene.ok(&["delete", "second"]);
    scene.ok(&["delete", "--force", "first"]);
    scene.assert_clean();
    passed()
}

fn urunc_json() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(Path::new("/usr/bin/echo"));
    let bundle = scene.fake(&["word"]);
    bundle.edit(|spec| spec["annotations"] = json!({}));
    let file = json!({
        "com.urunc.unikernel.unikernelType": "Z2VuZXJpYw==",
        "com.urunc.unikernel.hypervisor": "c3B0",
        "com.urunc.unikernel.binary": "L2Jvb3Qva2VybmVs",
    });
    fs::write(bundle.path.join("rootfs/urunc.json"), file.to_string()).unwrap();
    assert!(scene.ok(&["run", "--bundle", bundle.str(), "c"]).contains("word"));
    scene.assert_clean();
    passed()
}

fn check_and_spec() -> Result<(), Failed> {
    let scene = Scene::new();
    let text = scene.ok(&["check"]);
    assert!(text.lines().any(|line| line.starts_with("ok") && line.contains("qemu-system")), "{text}");
    // A bundle from nothing, as the README tells.
    let bundle = scene.path("new");
    fs::create_dir_all(bundle.join("rootfs/boot")).unwrap();
    let bundle = bundle.to_str().unwrap();
    scene.ok(&["spec", "--bundle", bundle]);
    let output = scene.urunc(&["check", "--bundle", bundle]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && text.contains("/boot/kernel"), "{text}");
    fs::copy(crate::scene::demo("demo"), format!("{bundle}/rootfs/boot/kernel")).unwrap();
    let text = scene.ok(&["check", "--bundle", bundle]);
    assert!(text.contains("a generic guest for qemu"), "{text}");
    // And which root file system the guest would get, and why no other.
    let rootfs: Vec<&str> = text.lines().filter(|line| line.contains("guest's rootfs")).collect();
    assert!(rootfs[0].ends_with("no root file system"), "{text}");
    let initrd = "not initrd from the image: not what the image asks for";
    assert!(rootfs.len() == 6 && rootfs.iter().any(|line| line.ends_with(initrd)), "{text}");
    assert!(scene.fails(&["spec", "--bundle", bundle]).contains("config.json"));
    passed()
}

/// B49: each is taken where its name says, or where what the name says is done here.
fn timestamps() -> Result<(), Failed> {
    let scene = sleeping();
    let monitor = scene.path("monitor.sh");
    let log = scene.path("logs/stamps");
    let configure = |enabled: bool| {
        scene.configure(&format!(
            "[timestamps]\nenabled = {enabled}\ndestination = {:?}\n[monitors.spt]\npath = {:?}\n",
            log.to_str().unwrap(),
            monitor.to_str().unwrap()
        ));
    };
    let bundle = scene.fake(&[]);
    configure(false);
    scene.create_ok(&bundle, "quiet");
    assert!(!log.exists());
    configure(true);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["containerID"] == "c"), "{text}");
    assert!(lines.is_sorted_by_key(|line| line["time"].as_u64().unwrap()), "{text}");
    let names: Vec<&str> = lines.iter().map(|line| line["timestampID"].as_str().unwrap()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..19).map(|number| format!("TS{number:02}")).collect::<Vec<_>>());
    // What one process does, and what it does because of another one's message, has an order.
    for order in [
        &["TS00", "TS01", "TS02", "TS03", "TS06", "TS07", "TS08", "TS09", "TS10"][..],
        &["TS03", "TS04", "TS05", "TS09"],
        &["TS10", "TS11", "TS12", "TS15", "TS16", "TS17", "TS13", "TS14", "TS18"],
    ] {
        let places = order.iter().map(|name| names.iter().position(|it| it == name).unwrap());
        assert!(places.is_sorted(), "{order:?} in {names:?}");
    }
    for id in ["quiet", "c"] {
        scene.ok(&["delete", "--force", id]);
    }
    scene.assert_clean();
    passed()
}
