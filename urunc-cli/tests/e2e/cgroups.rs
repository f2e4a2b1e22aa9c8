//! Control groups on the real kernel: this host's own layout, and a v2-only one in a mount namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::scene::{Bundle, Need, Scene, describe, eventually, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "cgroups::limits_are_those_of_the_specification", needs: &[Need::Root], run: limits },
    Test { name: "cgroups::the_monitor_is_in_all_hierarchies", needs: &[Need::Root], run: membership },
    Test { name: "cgroups::delete_kills_whatever_is_in_the_group", needs: &[Need::Root], run: stragglers },
    Test { name: "cgroups::a_group_in_use_is_refused_and_left_alone", needs: &[Need::Root], run: in_use },
    Test { name: "cgroups::an_absolute_path_is_below_the_mount", needs: &[Need::Root], run: absolute },
    Test {
        name: "cgroups::the_monitors_memory_is_accounted_as_configured",
        needs: &[Need::Root],
        run: accounting,
    },
    Test { name: "cgroups::running_out_of_memory_is_the_reason", needs: &[Need::Root], run: out_of_memory },
    Test {
        name: "cgroups::a_lost_record_and_somebody_elses_group_tell_nothing",
        needs: &[Need::Root],
        run: foreign,
    },
    Test { name: "cgroups::a_refused_limit_is_named_and_leaves_nothing", needs: &[Need::Root], run: refused },
    Test {
        name: "cgroups::devices_are_those_of_the_rules_and_of_the_plan",
        needs: &[Need::Root],
        run: devices,
    },
    Test {
        name: "cgroups::without_systemd_its_driver_is_refused_with_a_remedy",
        needs: &[Need::Root],
        run: systemd,
    },
    Test { name: "cgroups::v2_a_container_goes_through_its_life", needs: &[Need::Root], run: unified_life },
    Test { name: "cgroups::v2_device_rules_hold", needs: &[Need::Root], run: unified_devices },
];

/// A scene whose monitor sleeps until it is told to end.
pub(crate) fn sleeping() -> Scene {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    scene
}

/// The directories of a container's group, as its record has them.
pub(crate) fn directories(scene: &Scene, id: &str) -> Vec<PathBuf> {
    let record: Value =
        serde_json::from_slice(&fs::read(scene.root().join(id).join("state.json")).unwrap()).unwrap();
    let resources = record["urunc"]["resources"].as_array().unwrap().clone();
    let group = resources.iter().find(|resource| resource["kind"] == "cgroup").unwrap();
    let list = group["data"]["directories"].as_array().unwrap();
    list.iter().map(|directory| directory["path"].as_str().unwrap().into()).collect()
}

/// The contents of the first of `names` (v1's and v2's word for it) that one of the group's directories has.
pub(crate) fn setting(scene: &Scene, id: &str, names: &[&str]) -> String {
    let directories = directories(scene, id);
    let mut files =
        names.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    let file = files.find(|file| file.exists()).unwrap_or_else(|| panic!("{names:?} in {directories:?}"));
    fs::read_to_string(file).unwrap().trim().to_owned()
}

pub(crate) fn set_resources(bundle: &Bundle, resources: Value) {
    bundle.edit(|spec| spec["linux"]["resources"] = resources);
}

fn limits() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    set_resources(
        &bundle,
        json!({
            "memory": {"limit": 128 << 20, "reservation": 64 << 20},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 40},
        }),
    );
    scene.create_ok(&bundle, "c");
    let limit: u64 = setting(&scene, "c", &["memory.limit_in_bytes", "memory.max"]).parse().unwrap();
    assert!(limit > 128 << 20 && limit < 160 << 20, "{limit}");
    let reservation: u64 =
        setting(&scene, "c", &["memory.soft_limit_in_bytes", "memory.low"]).parse().unwrap();
    assert_eq!(limit - reservation, 64 << 20);
    assert!(["512", "20"].contains(&setting(&scene, "c", &["cpu.shares", "cpu.weight"]).as_str()));
    assert!(
        ["50000", "50000 100000"].contains(&setting(&scene, "c", &["cpu.cfs_quota_us", "cpu.max"]).as_str())
    );
    assert_eq!(setting(&scene, "c", &["cpuset.cpus"]), "0");
    assert_eq!(setting(&scene, "c", &["pids.max"]), "40");
    let directories = directories(&scene, "c");
    scene.ok(&["start", "c"]);
    scene.ok(&["delete", "--force", "c"]);
    assert!(directories.iter().all(|directory| !directory.exists()));
    scene.assert_clean();
    passed()
}

/// B33: the monitor is inside its limits, before it starts and after.
fn membership() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"})));
    scene.create_ok(&bundle, "c");
    let check = || {
        let pid = scene.pid("c");
        for directory in directories(&scene, "c") {
            let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap();
            assert_eq!(procs.trim(), pid.to_string(), "{}", directory.display());
        }
        // The group is the root of the container's cgroup namespace.
        assert_ne!(
            fs::read_link(format!("/proc/{pid}/ns/cgroup")).unwrap(),
            fs::read_link("/proc/self/ns/cgroup").unwrap()
        );
    };
    check();
    scene.ok(&["start", "c"]);
    check();
    // A group that a name like another's would hit is a different one.
    scene.create_ok(&bundle, "c2");
    assert_ne!(directories(&scene, "c"), directories(&scene, "c2"));
    passed()
}

fn sleep_in(directory: &Path) -> std::process::Child {
    let child = Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
    fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
    child
}

fn stragglers() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    for (index, end) in [["kill", "c", "KILL"], ["delete", "--force", "c"]].iter().enumerate() {
        scene.create_ok(&bundle, "c");
        scene.ok(&["start", "c"]);
        let directories = directories(&scene, "c");
        let straggler = &directories[index * (directories.len() - 1)];
        fs::create_dir(straggler.join("child")).unwrap();
        let mut child = sleep_in(straggler);
        scene.ok(end);
        assert!(child.wait().unwrap().code().is_none(), "it was killed");
        assert!(directories.iter().all(|directory| !directory.exists()));
        scene.ok(&["delete", "--force", "c"]);
    }
    scene.assert_clean();
    passed()
}

/// Principle 4: touch only what is ours.
fn in_use() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let first = directories(&scene, "c");
    // What is unique to this scene, to find the mounts by.
    let name = format!("/urunc-e2e-{}/busy", scene.uid);
    let mounts: Vec<&Path> = first.iter().map(|path| path.parent().unwrap()).collect();
    let foreign = mounts[0].ancestors().find(|path| path.parent().unwrap().ends_with("cgroup")).unwrap();
    let foreign = foreign.join(&name[1..]);
    fs::create_dir_all(&foreign).unwrap();
    let mut child = sleep_in(&foreign);
    bundle.edit(|spec| spec["linux"]["cgroupsPath"] = json!(name));
    let refused = scene.create(&bundle, "d");
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && message.contains("there are processes in it"), "{message}");
    assert!(child.try_wait().unwrap().is_none(), "the other's process lives on");
    assert!(foreign.exists());
    assert!(scene.fails(&["state", "d"]).contains("does not exist"));
    child.kill().unwrap();
    child.wait().unwrap();
    remove_below_mounts(&name);
    passed()
}

/// Removes what a test's absolute path made, in every hierarchy.
fn remove_below_mounts(name: &str) {
    let top = Path::new(name).components().nth(1).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let top = Path::new(line.split(' ').nth(4).unwrap()).join(top);
        for entry in fs::read_dir(&top).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                let _ = fs::remove_dir(entry.path());
            }
        }
        let _ = fs::remove_dir(top);
    }
}

fn absolute() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    let name = format!("/urunc-e2e-{}/c", scene.uid);
    bundle.edit(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/../.{name}")));
    scene.create_ok(&bundle, "c");
    let paths = directories(&scene, "c");
    assert!(paths.iter().all(|path| path.ends_with(&name[1..]) && path.exists()), "{paths:?}");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", scene.pid("c"))).unwrap();
    assert!(cgroup.lines().all(|line| line.ends_with(&format!(":{name}"))), "{cgroup}");
    scene.ok(&["delete", "c"]);
    assert!(paths.iter().all(|path| !path.exists()));
    remove_below_mounts(&name);
    passed()
}

fn accounting() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    let script = scene.path("monitor.sh");
    let configure = |memory: &str| {
        scene.configure(&format!("[runtime]\nmemory = {memory:?}\n[monitors.spt]\npath = {script:?}\n"));
    };
    let guest = || -> u64 {
        let record: Value =
            serde_json::from_slice(&fs::read(scene.root().join("c/state.json")).unwrap()).unwrap();
        record["urunc"]["machine"]["machine"]["memory"].as_u64().unwrap()
    };
    let limit = || -> u64 { setting(&scene, "c", &["memory.limit_in_bytes", "memory.max"]).parse().unwrap() };
    configure("on-top");
    scene.create_ok(&bundle, "c");
    assert_eq!(guest(), 64 << 20);
    assert!(limit() > 64 << 20);
    scene.ok(&["delete", "c"]);
    configure("inside");
    scene.create_ok(&bundle, "c");
    assert_eq!(limit(), 64 << 20);
    assert!(guest() < 64 << 20);
    scene.ok(&["delete", "c"]);
    set_resources(&bundle, json!({"memory": {"limit": 4 << 20}}));
    let refused = scene.create(&bundle, "c");
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("4194304 bytes") && message.contains("raise the limit"), "{message}");
    scene.assert_clean();
    passed()
}

fn out_of_memory() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("x=0123456789abcdef; while :; do x=$x$x; done"));
    let bundle = scene.fake(&[]);
    set_resources(&bundle, json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}}));
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    scene.ok(&["start", "c"]);
    assert!(eventually(|| scene.status("c") == "stopped"));
    let reason = scene.state("c")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("killed the monitor"), "{reason}");
    assert_eq!(reap(pid), 128 + 9);
    // Nobody has released anything yet, and afterwards nobody could look it up any more.
    assert!(scene.state("c")["reason"].as_str().unwrap().contains("ran out of memory"));
    let output = scene.urunc(&["kill", "c", "KILL"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("ran out of memory"), "{}", describe(&output));
    let state = scene.state("c");
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    assert!(state["reason"].as_str().unwrap().contains("linux.resources.memory.limit"), "{state}");
    scene.ok(&["delete", "c"]);
    // A whole life in the foreground says it, too.
    let output = scene.urunc(&["run", "--bundle", bundle.str(), "c"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(128 + 9));
    assert!(said.contains("ran out of memory"), "{said}");
    // What was killed need not have been the monitor.
    scene.fake_monitor(&scene.script("sh -c 'x=0123456789abcdef; while :; do x=$x$x; done'; exit 3"));
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    scene.ok(&["start", "c"]);
    assert!(eventually(|| scene.status("c") == "stopped"));
    let reason = scene.state("c")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("killed a process of the container"), "{reason}");
    assert_eq!(reap(pid), 3);
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

/// Without a record, only a group that is the container's own says what its process is.
fn foreign() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let (pid, record) = (scene.pid("c"), scene.root().join("c/state.json"));
    let groups = directories(&scene, "c");
    let mark = |mark: &[u8]| {
        for group in &groups {
            rustix::fs::setxattr(group, "user.urunc", mark, rustix::fs::XattrFlags::empty()).unwrap();
        }
    };
    let whole = fs::read(&record).unwrap();
    fs::write(&record, "{ torn").unwrap();
    mark(b"/run/other/c");
    let message = scene.fails(&["delete", "--force", "c"]);
    assert!(message.contains("cannot tell which process container c is"), "{message}");
    fs::write(&record, whole).unwrap();
    assert_eq!((scene.status("c").as_str(), scene.pid("c")), ("created", pid));
    mark(scene.root().join("c").to_str().unwrap().as_bytes());
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

fn refused() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    for (resources, says) in [
        (json!({"cpu": {"cpus": "4000"}}), vec!["linux.resources.cpu.cpus", "4000"]),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}), vec!["hugepageLimits"]),
        (json!({"memory": {"swap": 1 << 20}}), vec!["memory.swap"]),
        (json!({"network": {"classID": 7}, "unified": {"x": "1"}}), vec!["linux.resources."]),
    ] {
        set_resources(&bundle, resources);
        let output = scene.create(&bundle, "c");
        let message = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        assert!(!output.status.success(), "{says:?}");
        assert!(says.iter().all(|word| message.contains(word)), "{message}");
    }
    scene.assert_clean();
    passed()
}

fn rules() -> Value {
    json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    ])
}

fn devices() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    set_resources(&bundle, json!({"devices": rules()}));
    scene.create_ok(&bundle, "c");
    let directories = directories(&scene, "c");
    if let Some(list) = directories.iter().map(|path| path.join("devices.list")).find(|file| file.exists()) {
        let list = fs::read_to_string(list).unwrap();
        assert!(list.contains("c 1:3 rwm") && list.contains("c 136:* rw"), "{list}");
        assert!(!list.contains("a *:*"), "{list}");
    }
    let group = directories.iter().find(|path| path.join("devices.list").exists()).unwrap_or(&directories[0]);
    assert_denied(group);
    passed()
}

/// In the group, `/dev/null` can be opened and the kernel's log cannot.
fn assert_denied(group: &Path) {
    let procs = group.join("cgroup.procs");
    let script = format!("echo $$ > {} && : < /dev/null && : < /dev/kmsg", procs.display());
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("/dev/kmsg") && message.contains("not permitted"), "{}", describe(&output));
    assert!(!message.contains("/dev/null"), "{message}");
}

fn systemd() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    let message = without_systemd(&scene, &["--systemd-cgroup", "create", "--bundle", bundle.str(), "c"]);
    assert!(
        message.contains("/run/systemd/private") && message.contains("SystemdCgroup = false"),
        "{message}"
    );
    // Only create and run make a group; the callers send the flag with every command.
    let message = without_systemd(&scene, &["--systemd-cgroup", "state", "c"]);
    assert!(message.contains("does not exist"), "{message}");
    scene.assert_clean();
    passed()
}

/// What `urunc` says, which fails, where nobody listens on systemd's socket or the bus.
fn without_systemd(scene: &Scene, args: &[&str]) -> String {
    let urunc = scene.command(args);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /run && exec \"$@\"", "sh"]);
    command.arg(urunc.get_program()).args(urunc.get_args());
    command.env("URUNC_CONFIG_FILE", scene.path("config.toml")).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    String::from_utf8(output.stderr).unwrap()
}

/// Runs `urunc` where only cgroup v2 is mounted. This kernel may have its controllers in v1; the rest of v2 is there.
fn unified(scene: &Scene, args: &[&str]) -> Output {
    let urunc = scene.command(args);
    let mut words = vec![urunc.get_program().to_owned()];
    words.extend(urunc.get_args().map(ToOwned::to_owned));
    let console = fs::File::create(scene.path("console")).unwrap();
    let log = fs::File::create(scene.path("errors")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"")
        .arg("sh");
    command.args(words).env("URUNC_CONFIG_FILE", scene.path("config.toml"));
    let out = fs::File::create(scene.path("out")).unwrap();
    let create = args[0] == "create";
    let status =
        command.stdin(Stdio::null()).stdout(if create { console } else { out }).stderr(log).status().unwrap();
    Output {
        status,
        stdout: fs::read(scene.path("out")).unwrap(),
        stderr: fs::read(scene.path("errors")).unwrap(),
    }
}

pub(crate) fn unified_ok(scene: &Scene, args: &[&str]) -> String {
    let output = unified(scene, args);
    assert!(output.status.success(), "{args:?}: {}", describe(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The same directory where this host has cgroup v2 mounted.
pub(crate) fn on_host(unified: &Path) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    Path::new(line.split(' ').nth(4).unwrap()).join(unified.strip_prefix("/sys/fs/cgroup").unwrap())
}

fn unified_life() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    set_resources(&bundle, json!({"unified": {"cgroup.max.descendants": "3"}}));
    unified_ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
    let directories = directories(&scene, "c");
    assert_eq!(directories.len(), 1);
    let group = on_host(&directories[0]);
    assert_eq!(fs::read_to_string(group.join("cgroup.max.descendants")).unwrap().trim(), "3");
    let pid = scene.pid("c");
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap().trim(), pid.to_string());
    unified_ok(&scene, &["start", "c"]);
    // Somebody else in the group, in a group below it.
    fs::create_dir(group.join("child")).unwrap();
    let mut child = sleep_in(&group.join("child"));
    unified_ok(&scene, &["delete", "--force", "c"]);
    assert!(child.wait().unwrap().code().is_none(), "it was killed");
    assert!(!group.exists());
    scene.assert_clean();
    passed()
}

fn unified_devices() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    set_resources(&bundle, json!({"devices": rules()}));
    unified_ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
    let group = on_host(&directories(&scene, "c")[0]);
    assert_denied(&group);
    unified_ok(&scene, &["start", "c"]);
    assert!(eventually(|| scene.status("c") == "running"));
    unified_ok(&scene, &["delete", "--force", "c"]);
    assert!(!group.exists());
    passed()
}
