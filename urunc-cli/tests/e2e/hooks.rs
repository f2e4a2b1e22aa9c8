//! Hooks as a runtime's callers rely on them: order, arguments, environment, document, place, time, and what a failure does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::scene::{Bundle, Need, Scene, copy_executable, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "hooks::all_kinds_run_in_order_with_the_right_state", needs: &[Need::Root], run: all_kinds },
    Test { name: "hooks::arguments_and_environment_are_exact", needs: &[Need::Root], run: exact },
    Test { name: "hooks::each_runs_where_it_belongs", needs: &[Need::Root], run: places },
    Test {
        name: "hooks::a_failure_before_the_start_undoes_the_command",
        needs: &[Need::Root],
        run: failures,
    },
    Test { name: "hooks::a_failure_after_the_start_is_only_logged", needs: &[Need::Root], run: logged },
    Test { name: "hooks::a_hook_that_takes_too_long_is_killed", needs: &[Need::Root], run: timeout },
    Test {
        name: "hooks::kill_ends_a_container_whose_poststart_hook_hangs",
        needs: &[Need::Root],
        run: hanging_poststart,
    },
    Test {
        name: "hooks::a_forced_delete_ends_a_create_whose_hook_hangs",
        needs: &[Need::Root],
        run: forced_during_create,
    },
    Test { name: "hooks::a_hook_ends_with_a_killed_create", needs: &[Need::Root], run: killed_create },
];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

fn sleeping() -> Scene {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    scene
}

/// Makes the bundle's root one in which a shell runs, for startContainer hooks.
fn give_a_shell(bundle: &Bundle) {
    let rootfs = bundle.path.join("rootfs");
    for directory in ["bin", "usr", "lib", "lib64"] {
        fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    // What the shell is linked with, found by the loader's own word.
    let listed = std::process::Command::new("ldd").arg("/bin/sh").output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for file in libraries.chain(["/bin/sh".into()]) {
        let to = rootfs.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        copy_executable(&file, &to);
    }
    fs::set_permissions(&rootfs, fs::Permissions::from_mode(0o777)).unwrap();
}

fn shell(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

fn all_kinds() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    give_a_shell(&bundle);
    let log = scene.path("log");
    bundle.edit(|spec| {
        spec["annotations"]["other"] = json!("kept");
        for kind in KINDS {
            // Two of each: B29, order counts. In its own root, startContainer has only what is there.
            let file = if kind == "startContainer" { "/log" } else { log.to_str().unwrap() };
            let line = |n: u32| format!("read -r state; echo \"{kind} {n} $state\" >> {file}");
            spec["hooks"][kind] = json!([shell(&line(1)), shell(&line(2))]);
        }
    });
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    scene.ok(&["start", "c"]);
    scene.ok(&["delete", "--force", "c"]);
    let inside = fs::read_to_string(bundle.path.join("rootfs/log")).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.splice(6..6, inside.lines());
    assert_eq!(lines.len(), 12, "{lines:#?}");
    let statuses = ["creating", "creating", "creating", "created", "running", "stopped"];
    for (index, line) in lines.iter().enumerate() {
        let mut words = line.splitn(3, ' ');
        assert_eq!(words.next().unwrap(), KINDS[index / 2]);
        assert_eq!(words.next().unwrap(), (index % 2 + 1).to_string());
        let state: Value = serde_json::from_str(words.next().unwrap()).unwrap();
        // B32
        assert_eq!(state["status"], statuses[index / 2], "{line}");
        assert_eq!(state["pid"], if index / 2 == 5 { 0 } else { pid }, "{line}");
        assert_eq!((&state["id"], &state["annotations"]["other"]), (&json!("c"), &json!("kept")));
        assert_eq!(state["bundle"].as_str().unwrap(), bundle.path.canonicalize().unwrap().to_str().unwrap());
    }
    scene.assert_clean();
    passed()
}

/// B30, B37
fn exact() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    let out = scene.path("out");
    let script =
        format!("{{ cat /proc/$$/cmdline; echo; cat /proc/$$/environ; }} | tr '\\0' '|' > {}", out.display());
    bundle.edit(|spec| {
        spec["hooks"]["createRuntime"] = json!([{
            "path": "/bin/sh", "args": ["odd name", "-c", script, "two words", ""], "env": ["PATH=/usr/bin:/bin", "Z=1", "A=a b"],
        }]);
    });
    let console = fs::File::create(scene.path("console")).unwrap();
    let mut create = scene.command(&["create", "--bundle", bundle.str(), "c"]);
    assert!(create.env("SECRET", "x").stdout(console).status().unwrap().success());
    let text = fs::read_to_string(&out).unwrap();
    let (arguments, environment) = text.split_once('\n').unwrap();
    assert!(arguments.starts_with("odd name|-c|") && arguments.ends_with("|two words||"), "{arguments}");
    assert_eq!(environment, "PATH=/usr/bin:/bin|Z=1|A=a b|");
    passed()
}

fn places() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    give_a_shell(&bundle);
    let dir = scene.path("places");
    fs::create_dir(&dir).unwrap();
    let look = |name: &str| {
        shell(&format!("readlink /proc/self/ns/uts /proc/self/ns/mnt > {}", dir.join(name).display()))
    };
    bundle.edit(|spec| {
        spec["hooks"]["createRuntime"] = json!([look("runtime")]);
        spec["hooks"]["createContainer"] = json!([look("container")]);
        let confined = "echo * > /seen; [ ! -e /proc/1 ]";
        spec["hooks"]["startContainer"] = json!([shell(confined)]);
    });
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let own: Vec<String> = ["uts", "mnt"]
        .iter()
        .map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string())
        .collect();
    let container: Vec<String> = ["uts", "mnt"]
        .iter()
        .map(|kind| {
            fs::read_link(format!("/proc/{}/ns/{kind}", scene.pid("c"))).unwrap().display().to_string()
        })
        .collect();
    let seen = |name: &str| -> Vec<String> {
        fs::read_to_string(dir.join(name)).unwrap().lines().map(ToOwned::to_owned).collect()
    };
    assert_eq!(seen("runtime"), own);
    assert_eq!(seen("container"), container);
    let inside = bundle.path.join("rootfs/seen");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&inside).unwrap());
    assert_eq!(owner, scene.uid, "it ran as the container's user");
    let listing = fs::read_to_string(inside).unwrap();
    assert!(listing.starts_with("bin boot "), "{listing}");
    passed()
}

fn failures() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    give_a_shell(&bundle);
    let original = bundle.spec();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        bundle.write(&original);
        bundle.edit(|spec| {
            spec["hooks"][kind] = json!([
                shell("echo because >&2; exit 3"),
                shell(&format!("echo never > {}", scene.path("never").display()))
            ]);
            spec["hooks"]["poststop"] =
                json!([shell(&format!("echo {kind} >> {}", scene.path("stopped").display()))]);
        });
        let output = scene.create(&bundle, "c");
        let message = String::from_utf8_lossy(&output.stderr).lines().last().unwrap().to_owned();
        assert!(!output.status.success(), "{kind}");
        assert!(
            message.contains(kind) && message.contains("exit status 3") && message.contains("because"),
            "{message}"
        );
        assert!(scene.fails(&["state", "c"]).contains("does not exist"));
        assert!(!scene.path("never").exists());
    }
    assert_eq!(
        fs::read_to_string(scene.path("stopped")).unwrap(),
        "prestart\ncreateRuntime\ncreateContainer\n"
    );
    bundle.write(&original);
    bundle.edit(|spec| {
        spec["hooks"]["startContainer"] = json!([{"path": "/bin/missing"}]);
    });
    scene.create_ok(&bundle, "c");
    let pid = scene.pid("c");
    let message = scene.fails(&["start", "c"]);
    assert!(
        message.contains("startContainer hook /bin/missing") && message.contains("No such file"),
        "{message}"
    );
    reap(pid);
    assert_eq!(scene.status("c"), "stopped");
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

fn logged() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    let ran = scene.path("ran");
    bundle.edit(|spec| {
        for kind in ["poststart", "poststop"] {
            spec["hooks"][kind] =
                json!([shell("exit 9"), shell(&format!("echo {kind} >> {}", ran.display()))]);
        }
    });
    scene.create_ok(&bundle, "c");
    let output = scene.urunc(&["start", "c"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("poststart hook /bin/sh ended with exit status 9"), "{text}");
    assert_eq!(scene.status("c"), "running");
    // The bundle is not needed any more.
    fs::remove_file(bundle.path.join("config.json")).unwrap();
    scene.ok(&["delete", "--force", "c"]);
    assert_eq!(fs::read_to_string(ran).unwrap(), "poststart\npoststop\n");
    passed()
}

/// A hook that says its number in `note` and never ends.
fn hanging(note: &std::path::Path) -> Value {
    let note = note.display();
    shell(&format!("echo $$ > {note}.new; mv {note}.new {note}; exec sleep 1000"))
}

/// The hook's number, as soon as it runs.
fn number_in(note: &std::path::Path) -> String {
    assert!(crate::scene::eventually(|| note.exists()), "the hook runs");
    fs::read_to_string(note).unwrap().trim().to_owned()
}

fn ends(pid: &str) -> bool {
    crate::scene::eventually(|| {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    })
}

/// `create` in the background.
fn creating(scene: &Scene, bundle: &Bundle) -> std::process::Child {
    let console = fs::File::create(scene.path("console")).unwrap();
    let mut create = scene.command(&["create", "--bundle", bundle.str(), "c"]);
    create.stdout(console.try_clone().unwrap()).stderr(console).spawn().unwrap()
}

/// Signals go out, and the network is released, while start still runs hooks (design.md, section 8).
fn hanging_poststart() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    let note = scene.path("pid");
    bundle.edit(|spec| spec["hooks"]["poststart"] = json!([hanging(&note)]));
    scene.create_ok(&bundle, "c");
    let mut start = scene.command(&["start", "c"]).spawn().unwrap();
    let hook = number_in(&note);
    assert_eq!(scene.status("c"), "running");
    scene.ok(&["kill", "c", "KILL"]);
    assert_eq!(scene.status("c"), "stopped");
    scene.ok(&["delete", "c"]);
    assert!(start.try_wait().unwrap().is_none(), "start still waits for its hook");
    let hook = rustix::process::Pid::from_raw(hook.parse().unwrap()).unwrap();
    rustix::process::kill_process(hook, rustix::process::Signal::KILL).unwrap();
    assert!(start.wait().unwrap().success());
    scene.assert_clean();
    passed()
}

fn forced_during_create() -> Result<(), Failed> {
    for kind in ["prestart", "createRuntime"] {
        let scene = sleeping();
        let bundle = scene.fake(&[]);
        let note = scene.path("pid");
        bundle.edit(|spec| spec["hooks"][kind] = json!([hanging(&note)]));
        let mut create = creating(&scene, &bundle);
        let hook = number_in(&note);
        scene.ok(&["delete", "--force", "c"]);
        assert!(!create.wait().unwrap().success());
        let said = scene.console();
        assert!(said.contains(kind) && said.contains("the container's process has ended"), "{said}");
        assert!(ends(&hook), "{hook}");
        scene.assert_clean();
    }
    passed()
}

fn killed_create() -> Result<(), Failed> {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let scene = sleeping();
        let bundle = scene.fake(&[]);
        let note = scene.path("pid");
        bundle.edit(|spec| {
            // Without a namespace that would end it.
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "network"}, {"type": "uts"}]);
            spec["hooks"][kind] = json!([hanging(&note)]);
        });
        let mut create = creating(&scene, &bundle);
        let hook = number_in(&note);
        if kind == "createContainer" {
            // It is init's.
            scene.ok(&["kill", "c", "KILL"]);
        } else {
            create.kill().unwrap();
        }
        assert!(!create.wait().unwrap().success());
        assert!(ends(&hook), "{kind} {hook}");
        scene.ok(&["delete", "--force", "c"]);
        scene.assert_clean();
    }
    passed()
}

fn timeout() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    // In memory: on a slow disk, making it could take all of the time.
    let note = scene.root().join(".pids");
    bundle.edit(|spec| {
        // Its child holds the output open, and is killed with it.
        let script = format!("sleep 1000 & echo $! $$ > {}; wait", note.display());
        spec["hooks"]["createRuntime"] = json!([{
            "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": 5,
        }]);
    });
    let output = scene.create(&bundle, "c");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("did not end within 5 s"), "{message}");
    for pid in fs::read_to_string(&note).unwrap().split_whitespace() {
        let gone = crate::scene::eventually(|| {
            fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
        });
        assert!(gone, "{pid}");
    }
    fs::remove_file(note).unwrap();
    scene.assert_clean();
    passed()
}
