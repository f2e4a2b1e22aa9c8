//! What the monitor's process really has: identity, privileges, descriptors, environment, root. And what happens when it,
//! or init before it, dies or cannot be executed.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::json;

use crate::Test;
use crate::scene::{Need, Scene, eventually, executable, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "process::a_caller_may_ignore_its_children", needs: &[Need::Root], run: ignored_children },
    Test { name: "process::the_monitor_has_no_privileges", needs: &[Need::Root], run: privileges },
    Test { name: "process::the_monitor_has_a_clean_environment", needs: &[Need::Root], run: environment },
    Test { name: "process::the_monitor_sees_only_its_own_root", needs: &[Need::Root], run: root },
    Test {
        name: "process::a_monitor_that_cannot_be_executed_fails_start",
        needs: &[Need::Root],
        run: not_executable,
    },
    Test {
        name: "process::an_init_killed_before_start_fails_start",
        needs: &[Need::Root],
        run: init_killed_before,
    },
    Test {
        name: "process::an_init_killed_during_start_never_hangs_it",
        needs: &[Need::Root],
        run: init_killed_during,
    },
    Test {
        name: "process::a_stray_connection_does_not_use_up_the_container",
        needs: &[Need::Root],
        run: stray,
    },
    Test {
        name: "process::what_a_killed_create_leaves_can_be_killed",
        needs: &[Need::Root],
        run: kill_unborn,
    },
    Test { name: "process::the_callers_umask_is_not_inherited", needs: &[Need::Root], run: umask },
    Test { name: "process::a_killed_create_leaves_no_process", needs: &[Need::Root], run: create_killed },
];

/// The lines of `/proc/PID/status`.
pub(crate) fn status_of(pid: i64) -> BTreeMap<String, String> {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// B36, E1, E2
fn privileges() -> Result<(), Failed> {
    for root in [false, true] {
        let scene = Scene::new();
        scene.fake_monitor(&scene.script("exec sleep 1000"));
        let bundle = scene.fake(&[]);
        let uid = if root { 0 } else { scene.uid };
        bundle.edit(|spec| {
            spec["process"]["user"] =
                json!({"uid": uid, "gid": uid, "additionalGids": [7, 8], "umask": 0o27});
        });
        scene.create_ok(&bundle, "c");
        scene.ok(&["start", "c"]);
        let status = status_of(scene.pid("c"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        assert_eq!(status["NoNewPrivs"], "1");
        assert_eq!(status["Uid"], format!("{uid}\t{uid}\t{uid}\t{uid}"));
        assert_eq!(status["Gid"], format!("{uid}\t{uid}\t{uid}\t{uid}"));
        assert_eq!(status["Groups"].trim(), "7 8");
        assert_eq!(status["Umask"], "0027");
        assert_eq!(status["SigBlk"], "0000000000000000");
        assert_eq!(status["SigIgn"], "0000000000000000");
        scene.ok(&["delete", "--force", "c"]);
        scene.assert_clean();
    }
    passed()
}

/// B37, E5
fn environment() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    let console = fs::File::create(scene.path("console")).unwrap();
    // A descriptor and a variable that must not get through.
    let secret = fs::File::open("/etc/hostname").unwrap();
    let leaked = rustix::io::dup(&secret).unwrap();
    let mut create = scene.command(&["create", "--bundle", bundle.str(), "c"]);
    create.env("SECRET", "x").stdout(console.try_clone().unwrap()).stderr(console);
    assert!(create.status().unwrap().success());
    drop(leaked);
    assert!(scene.command(&["start", "c"]).env("SECRET", "x").status().unwrap().success());
    let pid = scene.pid("c");
    assert!(eventually(|| fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"sleep")));
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(
        !environment.windows(6).any(|word| word == b"SECRET"),
        "{}",
        String::from_utf8_lossy(&environment)
    );
    let descriptors = || {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    // The loader opens and closes one of its own.
    assert!(eventually(|| descriptors() == ["0", "1", "2"]), "{:?}", descriptors());
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), std::path::Path::new("/"));
    passed()
}

fn root() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(
        &scene.script("ls -a / /boot /dev; hostname; cat /etc/shadow; touch /x; exec sleep 1000"),
    );
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let pid = scene.pid("c");
    assert!(eventually(|| fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"sleep")));
    let console = scene.console();
    assert!(console.contains("kernel") && console.contains("demo"), "{console}");
    for absent in ["home", "root", "var", "sys", "proc"] {
        assert!(!console.lines().any(|line| line == absent), "{absent} in {console}");
    }
    assert!(console.contains("/etc/shadow: No such file"), "{console}");
    assert!(console.contains("Read-only file system"), "{console}");
    // The old root is not mounted any more, and nothing of the host's is writable.
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    for line in mounts.lines() {
        let (mount, file_system) = line.split_once(" - ").unwrap();
        let options = [mount.split(' ').nth(5).unwrap(), file_system.split(' ').nth(2).unwrap()];
        assert!(options.iter().any(|list| list.split(',').any(|option| option == "ro")), "{line}");
        assert!(!line.contains("shared:"), "{line}");
    }
    passed()
}

/// B15: success means that it happened.
fn not_executable() -> Result<(), Failed> {
    let scene = Scene::new();
    let text = scene.path("not-a-program");
    executable(&text, "this is no program\n");
    scene.fake_monitor(&text);
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let message = scene.fails(&["start", "c"]);
    assert!(message.contains("not-a-program") && message.contains("Exec format error"), "{message}");
    // Who looks later learns it, too.
    let state = scene.state("c");
    assert_eq!(state["status"], "stopped");
    let reason = state["reason"].as_str().unwrap();
    assert!(message.ends_with(reason), "{message} {reason}");
    let list: serde_json::Value = serde_json::from_str(&scene.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(list[0]["reason"], reason);
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

/// B14: a dead init is an answer, not a hang.
fn init_killed_before() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    kill(pid);
    reap(pid);
    assert_eq!(scene.status("c"), "stopped");
    let message = scene.fails(&["start", "c"]);
    assert!(message.contains("it is stopped"), "{message}");
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

fn init_killed_during() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    let (mut failed, mut started) = (0, 0);
    for round in 0..100u64 {
        scene.create_ok(&bundle, "c");
        let pid = scene.pid("c");
        let mut start = scene.command(&["start", "c"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
        // From "before it has connected" to "long after execve".
        std::thread::sleep(Duration::from_micros(round * 60));
        kill(pid);
        let output = start.wait_with_output_bounded();
        match output {
            (true, _) => started += 1,
            (false, message) => {
                failed += 1;
                assert!(message.contains("cannot start container c"), "{message}");
            }
        }
        reap(pid);
        assert_eq!(scene.status("c"), "stopped");
        scene.ok(&["delete", "c"]);
    }
    scene.assert_clean();
    eprintln!("{failed} starts were hit before the monitor ran, {started} after");
    passed()
}

/// Waits for a child, at most 30 s, and returns whether it succeeded and what it said.
trait Bounded {
    fn wait_with_output_bounded(&mut self) -> (bool, String);
}

impl Bounded for std::process::Child {
    fn wait_with_output_bounded(&mut self) -> (bool, String) {
        use std::io::Read;
        let cell = std::cell::RefCell::new(self);
        assert!(eventually(|| cell.borrow_mut().try_wait().unwrap().is_some()), "start hangs");
        let child = cell.into_inner();
        let mut message = String::new();
        child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
        (child.wait().unwrap().success(), message)
    }
}

/// B25: a connection that says nothing, or half of something, is not the start.
fn stray() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let path = scene.root().join("c/init.sock");
    let mut silent = Vec::new();
    for message in [None, Some(&b"half a mess"[..]), Some(b"{}")] {
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET, None)
                .unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        if let Some(message) = message {
            rustix::net::send(&socket, message, rustix::net::SendFlags::NOSIGNAL).unwrap();
        } else {
            // Stays open and says nothing.
            silent.push(socket);
        }
    }
    scene.ok(&["start", "c"]);
    assert_eq!(scene.status("c"), "running");
    passed()
}

/// B17: whenever create is killed, its init goes too, and one forced delete makes the host clean.
fn create_killed() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    for round in 0..100u64 {
        let mut create = scene.command(&["create", "--bundle", bundle.str(), "c"]);
        let mut child =
            create.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * 100));
        child.kill().unwrap();
        child.wait().unwrap();
        scene.ok(&["delete", "--force", "c"]);
        // Hidden directories of interrupted creates are swept by a later one.
        let hidden = |left: &String| left.starts_with(&format!("state {}/.", scene.root().display()));
        let clean = eventually(|| scene.leftovers().iter().all(hidden));
        assert!(clean, "round {round}: {:#?}", scene.leftovers());
    }
    passed()
}

fn kill(pid: i64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A record without a process, as a create leaves it that was killed right after its first write.
fn kill_unborn() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    for signal in ["TERM", "KILL"] {
        scene.create_ok(&bundle, "c");
        kill(scene.pid("c"));
        let path = scene.root().join("c/state.json");
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["status"] = json!("creating");
        record["urunc"]["process"] = json!(null);
        fs::write(&path, record.to_string()).unwrap();
        assert_eq!(scene.status("c"), "creating");
        scene.ok(&["kill", "c", signal]);
        assert_eq!(scene.status("c"), "stopped");
        scene.ok(&["delete", "c"]);
    }
    scene.assert_clean();
    passed()
}

fn umask() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("umask"));
    let bundle = scene.fake(&[]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(crate::scene::URUNC);
    command.arg("--root").arg(scene.root()).args(["run", "--bundle", bundle.str(), "c"]);
    let output = command.env("URUNC_CONFIG_FILE", scene.path("config.toml")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0022\n", "{}", crate::scene::describe(&output));
    passed()
}

/// What a caller ignores is ignored after `execve`, and the kernel then reaps children by itself.
fn ignored_children() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exit 42"));
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| {
        spec["hooks"]["createRuntime"] = json!([{"path": "/bin/true"}]);
    });
    let urunc = |args: &[&str]| {
        let plain = scene.command(args);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "trap '' CHLD; exec \"$@\"", "sh", crate::scene::URUNC]);
        command.args(plain.get_args()).env("URUNC_CONFIG_FILE", scene.path("config.toml"));
        command.stdin(std::process::Stdio::null()).output().unwrap()
    };
    let output = urunc(&["run", "--bundle", bundle.str(), "c"]);
    assert_eq!(output.status.code(), Some(42), "{}", crate::scene::describe(&output));
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    scene.create_ok(&bundle, "c");
    let output = urunc(&["ps", "c"]);
    assert!(output.status.success(), "{}", crate::scene::describe(&output));
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}
