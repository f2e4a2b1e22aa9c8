//! The systemd driver under a real systemd: the host's own program as pid 1 of namespaces of its own, below a control group of
//! its own, in which it sees nothing of the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::cgroups::{set_resources, sleeping};
use crate::scene::{Need, Scene, describe, eventually, passed};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "systemd::v1_a_container_is_a_scope_in_its_slice",
        needs: &[Need::Root, Need::Systemd],
        run: hybrid_life,
    },
    Test {
        name: "systemd::v2_a_container_is_a_scope_in_its_slice",
        needs: &[Need::Root, Need::Systemd],
        run: unified_life,
    },
    Test { name: "systemd::is_reached_by_the_bus_too", needs: &[Need::Root, Need::Systemd], run: by_bus },
    Test {
        name: "systemd::a_failed_create_leaves_no_unit",
        needs: &[Need::Root, Need::Systemd],
        run: undone,
    },
    Test {
        name: "systemd::what_it_would_refuse_is_refused_early",
        needs: &[Need::Root, Need::Systemd],
        run: refused,
    },
];

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// v1 with the host's controllers, and v2 without.
    Hybrid,
    /// v2 alone.
    Unified,
}

/// A systemd, and whatever it started. Killed with its namespace when dropped.
struct Systemd {
    child: Child,
    pid: u32,
    groups: Vec<PathBuf>,
    out: PathBuf,
}

/// Mount points and options of the host's hierarchies.
fn hierarchies() -> Vec<(PathBuf, String, String)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = mounts.lines().filter_map(|line| line.split_once(" - "));
    lines
        .filter_map(|(place, kind)| {
            let words: Vec<&str> = kind.split(' ').collect();
            let options = words[2].strip_prefix("rw,").unwrap_or("").to_owned();
            words[0]
                .starts_with("cgroup")
                .then(|| (PathBuf::from(place.split(' ').nth(4).unwrap()), words[0].to_owned(), options))
        })
        .collect()
}

impl Systemd {
    fn boot(scene: &Scene, layout: Layout) -> Self {
        let units = scene.path("units");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join("default.target"), "[Unit]\nDescription=Nothing\n").unwrap();
        fs::write(
            units.join("dbus.socket"),
            "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
        )
        .unwrap();
        let bus = "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nExecStart=/usr/bin/dbus-daemon --system --nofork --nopidfile --address=systemd:\n";
        fs::write(units.join("dbus.service"), bus).unwrap();
        let mut join = String::new();
        let mut mount = String::from("mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /sys/fs/cgroup; ");
        let mut groups = Vec::new();
        for (place, kind, options) in hierarchies() {
            let group = place.join(format!("urunc-systemd-{}", scene.uid));
            fs::create_dir(&group).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(inherited) = fs::read(place.join(file)) {
                    fs::write(group.join(file), inherited).unwrap();
                }
            }
            join += &format!("echo $$ > {}/cgroup.procs; ", group.display());
            groups.push(group);
            let name = place.file_name().unwrap().to_str().unwrap().to_owned();
            match layout {
                Layout::Hybrid => {
                    let options = if options.is_empty() { String::new() } else { format!("-o {options}") };
                    mount += &format!(
                        "mkdir /sys/fs/cgroup/{name}; mount -t {kind} {options} none /sys/fs/cgroup/{name}; "
                    );
                }
                Layout::Unified if kind == "cgroup2" => mount += "mount -t cgroup2 none /sys/fs/cgroup; ",
                Layout::Unified => {}
            }
        }
        let systemd = format!(
            "exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH={}:/run/systemd/transient:/run/systemd/system.control {SYSTEMD} --system \
             --unit=default.target --log-target=console --log-level=info --show-status=no",
            units.display()
        );
        let out = scene.path("systemd.out");
        let log = fs::File::create(&out).unwrap();
        let mut command = Command::new("sh");
        command.arg("-ec").arg(
            join + "exec unshare --cgroup --mount --uts --ipc --pid --fork --kill-child --mount-proc sh -ec \"$1\"",
        );
        command.args(["sh", &(mount + &systemd)]).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut systemd = Self { pid: 0, child, groups, out };
        let id = systemd.child.id();
        let first = || fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        assert!(eventually(|| !first().trim().is_empty()), "{}", systemd.said());
        systemd.pid = first().trim().parse().unwrap();
        let boots = || systemd.run(&["systemctl", "is-active", "default.target"]).stdout == b"active\n";
        assert!(eventually(boots), "{}", systemd.said());
        systemd
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Runs something beside it.
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.pid.to_string()]).args(words);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).output().unwrap()
    }

    /// Runs `urunc` beside it.
    fn urunc(&self, scene: &Scene, args: &[&str]) -> Output {
        let console = scene.path("console");
        let config = format!("URUNC_CONFIG_FILE={}", scene.path("config.toml").display());
        let urunc = scene.command(&[]);
        let mut words = vec!["env", config.as_str(), "sh", "-c"];
        // What a container inherits must not be a pipe that is waited for.
        let script = match args.contains(&"create") {
            true => format!("exec \"$@\" > {}", console.display()),
            false => "exec \"$@\"".to_owned(),
        };
        words.extend([script.as_str(), "sh", urunc.get_program().to_str().unwrap()]);
        words.extend(urunc.get_args().map(|arg| arg.to_str().unwrap()));
        words.push("--systemd-cgroup");
        words.extend(args);
        let errors = fs::File::create(scene.path("errors")).unwrap();
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.pid.to_string()]).args(&words);
        let mut output = command.stdin(Stdio::null()).stderr(errors).output().unwrap();
        output.stderr = fs::read(scene.path("errors")).unwrap();
        output
    }

    fn ok(&self, scene: &Scene, args: &[&str]) -> String {
        let output = self.urunc(scene, args);
        assert!(output.status.success(), "{args:?}: {}\n{}", describe(&output), self.said());
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, scene: &Scene, args: &[&str]) -> String {
        let output = self.urunc(scene, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", describe(&output));
        String::from_utf8(output.stderr).unwrap()
    }

    /// A property of a unit.
    fn show(&self, unit: &str, property: &str) -> String {
        let output = self.run(&["systemctl", "show", "--value", "--property", property, unit]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
        for group in &self.groups {
            assert!(eventually(|| remove(group)), "{}", group.display());
        }
    }
}

/// Removes a control group with those below it.
fn remove(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const SCOPE: &str = "cri-containerd-c1.scope";
const PATH: &str = "kubepods.slice/kubepods-besteffort.slice/cri-containerd-c1.scope";

/// A scene whose bundle is in a slice as kubelet would have it.
fn pod() -> (Scene, crate::scene::Bundle) {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| {
        spec["linux"]["cgroupsPath"] = json!("kubepods-besteffort.slice:cri-containerd:c1");
        spec["linux"].as_object_mut().unwrap().remove("resources");
    });
    (scene, bundle)
}

/// The numbers that the namespace has for a container's process.
fn pid(systemd: &Systemd, scene: &Scene) -> String {
    let state: Value = serde_json::from_str(&systemd.ok(scene, &["state", "c"])).unwrap();
    state["pid"].to_string()
}

fn hybrid_life() -> Result<(), Failed> {
    let (scene, bundle) = pod();
    set_resources(
        &bundle,
        json!({"memory": {"limit": 64 << 20}, "cpu": {"shares": 512, "quota": 25_000, "period": 50_000}, "pids": {"limit": 40}}),
    );
    let systemd = Systemd::boot(&scene, Layout::Hybrid);
    systemd.ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
    let pid = pid(&systemd, &scene);
    let group = |controller: &str| {
        let own = |path: &&PathBuf| path.parent().unwrap().ends_with(controller);
        systemd.groups.iter().find(own).unwrap().join(PATH)
    };
    let read =
        |file: PathBuf| fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let members = systemd.run(&["cat", &format!("/sys/fs/cgroup/memory/{PATH}/cgroup.procs")]);
    assert_eq!(String::from_utf8_lossy(&members.stdout).trim(), pid, "{}", describe(&members));
    assert_eq!(systemd.show(SCOPE, "ActiveState"), "active");
    assert_eq!(systemd.show(SCOPE, "Slice"), "kubepods-besteffort.slice");
    assert_eq!(systemd.show(SCOPE, "Delegate"), "yes");
    // Both say the same: what systemd would write again, and what is written.
    let limit: u64 = read(group("memory").join("memory.limit_in_bytes")).trim().parse().unwrap();
    assert!(limit > 64 << 20);
    assert_eq!(systemd.show(SCOPE, "MemoryLimit"), limit.to_string());
    assert_eq!(
        (systemd.show(SCOPE, "CPUShares"), systemd.show(SCOPE, "TasksMax")),
        ("512".into(), "40".into())
    );
    assert_eq!(systemd.show(SCOPE, "CPUQuotaPerSecUSec"), "500ms");
    systemd.ok(&scene, &["start", "c"]);
    assert_eq!(systemd.show(SCOPE, "ActiveState"), "active");
    systemd.ok(&scene, &["update", "--pids-limit", "50", "--memory", "96m", "c"]);
    assert_eq!(systemd.show(SCOPE, "TasksMax"), "50");
    assert_eq!(read(group("pids").join("pids.max")).trim(), "50");
    // A reload leaves the limits as they are.
    assert!(systemd.run(&["systemctl", "daemon-reload"]).status.success());
    assert_eq!(read(group("pids").join("pids.max")).trim(), "50");
    let raised = (limit + (32 << 20)).to_string();
    assert_eq!(read(group("memory").join("memory.limit_in_bytes")).trim(), raised);
    let period = systemd.groups.iter().map(|group| group.join(PATH).join("cpu.cfs_period_us"));
    assert_eq!(read(period.into_iter().find(|file| file.exists()).unwrap()).trim(), "50000");
    // Memory comes first, and is taken back, by systemd too.
    let args = ["update", "--memory", "128m", "--cpuset-cpus", "4000", "c"];
    assert!(systemd.fails(&scene, &args).contains("linux.resources.cpu"));
    assert_eq!(read(group("memory").join("memory.limit_in_bytes")).trim(), raised);
    assert_eq!(systemd.show(SCOPE, "MemoryLimit"), raised);
    systemd.ok(&scene, &["pause", "c"]);
    systemd.ok(&scene, &["kill", "c", "KILL"]);
    assert_eq!(systemd.show(SCOPE, "ActiveState"), "inactive");
    systemd.ok(&scene, &["delete", "c"]);
    assert!(!group("memory").exists() && !group("freezer").exists());
    // The name is free again at once.
    systemd.ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
    systemd.ok(&scene, &["delete", "--force", "c"]);
    assert_eq!(systemd.show(SCOPE, "LoadState"), "not-found");
    // Nor does the loss of the record take the name away.
    systemd.ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
    fs::write(scene.root().join("c/state.json"), "{ torn").unwrap();
    systemd.ok(&scene, &["delete", "--force", "c"]);
    assert_eq!(systemd.show(SCOPE, "LoadState"), "not-found");
    drop(systemd);
    scene.assert_clean();
    passed()
}

fn unified_life() -> Result<(), Failed> {
    let (scene, bundle) = pod();
    let systemd = Systemd::boot(&scene, Layout::Unified);
    for end in [&["delete", "--force", "c"][..], &["kill", "c", "KILL"]] {
        systemd.ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
        let pid = pid(&systemd, &scene);
        let members = systemd.run(&["cat", &format!("/sys/fs/cgroup/{PATH}/cgroup.procs")]);
        assert_eq!(String::from_utf8_lossy(&members.stdout).trim(), pid, "{}", describe(&members));
        assert_eq!(systemd.show(SCOPE, "ControlGroup"), format!("/{PATH}"));
        systemd.ok(&scene, &["start", "c"]);
        systemd.ok(&scene, &["pause", "c"]);
        systemd.ok(&scene, &["resume", "c"]);
        systemd.ok(&scene, end);
        systemd.ok(&scene, &["delete", "--force", "c"]);
        assert_eq!(systemd.show(SCOPE, "LoadState"), "not-found");
        assert!(!systemd.run(&["test", "-e", &format!("/sys/fs/cgroup/{PATH}")]).status.success());
    }
    drop(systemd);
    scene.assert_clean();
    passed()
}

fn by_bus() -> Result<(), Failed> {
    let (scene, bundle) = pod();
    let systemd = Systemd::boot(&scene, Layout::Unified);
    let output = systemd.run(&["systemctl", "start", "dbus.service"]);
    assert!(output.status.success(), "{}\n{}", describe(&output), systemd.said());
    // Without its own socket, as in a container that is given only the bus.
    systemd.run(&["rm", "/run/systemd/private"]);
    let on_bus = || {
        let name = ["busctl", "list", "--no-legend", "--acquired"];
        String::from_utf8_lossy(&systemd.run(&name).stdout).contains("org.freedesktop.systemd1")
    };
    assert!(eventually(on_bus), "{}\n{}", systemd.said(), describe(&systemd.run(&["busctl", "list"])));
    systemd.ok(&scene, &["create", "--bundle", bundle.str(), "c"]);
    let members = systemd.run(&["cat", &format!("/sys/fs/cgroup/{PATH}/cgroup.procs")]);
    assert_eq!(String::from_utf8_lossy(&members.stdout).trim(), pid(&systemd, &scene));
    systemd.ok(&scene, &["delete", "c"]);
    assert_eq!(systemd.show(SCOPE, "LoadState"), "not-found");
    drop(systemd);
    scene.assert_clean();
    passed()
}

fn undone() -> Result<(), Failed> {
    let (scene, bundle) = pod();
    let systemd = Systemd::boot(&scene, Layout::Unified);
    // The unit is there when this fails, because the group's file refuses it.
    set_resources(&bundle, json!({"unified": {"cgroup.max.depth": "nonsense"}}));
    let message = systemd.fails(&scene, &["create", "--bundle", bundle.str(), "c"]);
    assert!(message.contains("nonsense"), "{message}");
    assert_eq!(systemd.show(SCOPE, "LoadState"), "not-found");
    // A unit of that name that is somebody else's is left alone.
    let other = [
        "systemd-run",
        "--quiet",
        "--unit=cri-containerd-c1.scope",
        "--scope",
        "sh",
        "-c",
        "sleep 1000 > /dev/null 2>&1 &",
    ];
    let output = systemd.run(&other);
    assert!(output.status.success(), "{}", describe(&output));
    set_resources(&bundle, json!({}));
    let message = systemd.fails(&scene, &["create", "--bundle", bundle.str(), "c"]);
    assert!(message.contains("cri-containerd-c1.scope") && message.contains("UnitExists"), "{message}");
    assert_eq!(systemd.show(SCOPE, "ActiveState"), "active");
    drop(systemd);
    scene.assert_clean();
    passed()
}

fn refused() -> Result<(), Failed> {
    let (scene, bundle) = pod();
    let systemd = Systemd::boot(&scene, Layout::Unified);
    for (path, says) in [("/kubepods/c1", "slice:prefix:name"), ("kubepods:a:b", "ends in .slice")] {
        bundle.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        let message = systemd.fails(&scene, &["create", "--bundle", bundle.str(), "c"]);
        assert!(message.contains(says), "{message}");
    }
    drop(systemd);
    scene.assert_clean();
    passed()
}
