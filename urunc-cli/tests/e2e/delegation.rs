//! Containers that are no unikernels go to another runtime, with unchanged arguments, and its exit status is ours.

use std::fs;

use libtest_mimic::Failed;
use serde_json::json;

use crate::Test;
use crate::scene::{Need, Scene, copy_executable, describe, passed};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "delegation::an_ordinary_container_is_handed_over_unchanged",
        needs: &[Need::Root],
        run: unchanged,
    },
    Test {
        name: "delegation::knatives_proxy_is_pointed_to_the_guest_of_its_pod",
        needs: &[Need::Root],
        run: queue_proxy,
    },
    Test { name: "delegation::a_missing_runtime_is_named", needs: &[Need::Root], run: missing },
    Test {
        name: "delegation::a_runtime_that_keeps_its_state_elsewhere_is_asked",
        needs: &[Need::Root],
        run: elsewhere,
    },
    Test {
        name: "delegation::what_only_the_other_runtime_understands_reaches_it",
        needs: &[Need::Root],
        run: strange,
    },
    Test { name: "delegation::urunc_never_hands_over_to_itself", needs: &[Need::Root], run: itself },
    Test { name: "delegation::exec_in_a_unikernel_is_answered_at_once", needs: &[Need::Root], run: exec },
];

/// A scene whose other runtime prints its arguments and ends with status 7.
fn with_runtime() -> Scene {
    let scene = Scene::new();
    let runtime = scene.script("echo \"$@\"; exit 7");
    scene.configure(&format!("[runtime]\ndelegate = {:?}\n", runtime.to_str().unwrap()));
    scene
}

fn unchanged() -> Result<(), Failed> {
    let scene = with_runtime();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| spec["annotations"] = json!({}));
    let root = scene.root();
    let root = root.to_str().unwrap();
    let output = scene.urunc(&["create", "--bundle", bundle.str(), "--no-pivot", "c"]);
    let expected = format!("--root {root} create --bundle {} --no-pivot c\n", bundle.str());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", describe(&output));
    assert_eq!(output.status.code(), Some(7));
    // What would be wrong in a unikernel is the other runtime's business.
    bundle.edit(|spec| {
        spec["linux"]["namespaces"] = json!([{"type": "user"}]);
        spec["hostname"] = json!("x".repeat(100));
        spec["process"]["terminal"] = json!(true);
    });
    assert_eq!(scene.urunc(&["create", "--bundle", bundle.str(), "c"]).status.code(), Some(7));
    bundle.edit(|spec| drop(spec.as_object_mut().unwrap().remove("linux")));
    assert_eq!(scene.urunc(&["create", "--bundle", bundle.str(), "c"]).status.code(), Some(7));
    // A directory that is not ours, as runc makes it under the same root.
    fs::create_dir(scene.root().join("c")).unwrap();
    fs::write(scene.root().join("c/state.json"), "{}").unwrap();
    for args in [
        &["start", "c"][..],
        &["state", "c"],
        &["kill", "--all", "c", "9"],
        &["delete", "--force", "c"],
        &["exec", "-t", "c", "sh", "-c", "true"],
        &["ps", "c"],
        &["pause", "c"],
        &["resume", "c"],
        &["update", "--resources", "-", "c"],
        &["events", "--stats", "c"],
        // Commands that urunc has not, and flags that it does not know.
        &["checkpoint", "--image-path", "/nonexistent", "--leave-running", "c"],
        &["frobnicate", "--deep=1", "c"],
        &["kill", "--gently", "c"],
        &["exec", "--pidfd-socket", "/nonexistent", "c", "sh"],
        &["update", "--memory-checkpoint", "x", "c"],
    ] {
        let output = scene.urunc(args);
        assert_eq!(output.status.code(), Some(7), "{args:?}: {}", describe(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("--root {root} {}\n", args.join(" ")));
    }
    for args in [
        &["restore", "--bundle", bundle.str(), "d"][..],
        &["create", "--bundle", bundle.str(), "--pidfd-socket", "/s", "d"],
    ] {
        let output = scene.urunc(args);
        assert_eq!(output.status.code(), Some(7), "{args:?}: {}", describe(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("--root {root} {}\n", args.join(" ")));
    }
    assert_eq!(scene.ok(&["list", "--quiet"]), "");
    fs::remove_dir_all(scene.root().join("c")).unwrap();
    passed()
}

/// As Podman calls us, without `--root`.
fn elsewhere() -> Result<(), Failed> {
    let scene = with_runtime();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| spec["annotations"] = json!({}));
    let id = format!("urunc-elsewhere-{}", scene.uid);
    for args in [
        &["create", "--bundle", bundle.str(), &id][..],
        &["start", &id],
        &["state", &id],
        &["delete", "--force", &id],
        &["checkpoint", "--image-path", "/nonexistent", &id],
    ] {
        let mut command = std::process::Command::new(crate::scene::URUNC);
        command.args(args).env("URUNC_CONFIG_FILE", scene.path("config.toml"));
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{args:?}: {}", describe(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", args.join(" ")));
    }
    passed()
}

fn strange() -> Result<(), Failed> {
    let scene = with_runtime();
    let bundle = scene.fake(&[]);
    let original = bundle.spec();
    for (pointer, value) in [
        ("/linux/resources/pids", json!({"limit": null})),
        ("/process/rlimits", json!([{"type": "RLIMIT_TOMORROW", "soft": 1, "hard": 1}])),
        ("/linux/namespaces", json!([{"type": "tomorrow"}])),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_TOMORROW"]}),
        ),
        ("/hostname", json!(7)),
    ] {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        for annotated in [true, false] {
            bundle.write(&original);
            bundle.edit(|spec| {
                spec.pointer_mut(parent).unwrap()[field] = value.clone();
                if !annotated {
                    spec["annotations"] = json!({});
                }
            });
            let output = scene.urunc(&["create", "--bundle", bundle.str(), "c"]);
            // A unikernel's is ours to refuse.
            let expected = if annotated { 1 } else { 7 };
            assert_eq!(output.status.code(), Some(expected), "{pointer}: {}", describe(&output));
        }
    }
    passed()
}

fn missing() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.configure("[runtime]\ndelegate = \"/opt/none/runc\"\n");
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| spec["annotations"] = json!({}));
    let message = scene.fails(&["create", "--bundle", bundle.str(), "c"]);
    assert!(message.contains("/opt/none/runc") && message.contains("runtime.delegate"), "{message}");
    scene.ok(&["delete", "--force", "nobody"]);
    scene.assert_clean();
    passed()
}

/// B41, B48: only beside a unikernel, and nothing else is changed.
fn queue_proxy() -> Result<(), Failed> {
    let scene = Scene::new();
    let (runtime, monitor) = (scene.path("runtime.sh"), scene.script("exec sleep 1000"));
    copy_executable("/usr/bin/true", &runtime);
    scene.configure(&format!("[runtime]\ndelegate = {runtime:?}\n[monitors.spt]\npath = {monitor:?}\n"));
    let named = |bundle: &crate::scene::Bundle, name: &str| {
        bundle.edit(|spec| {
            spec["annotations"]["io.kubernetes.cri.container-name"] = json!(name);
            spec["annotations"]["io.kubernetes.cri.sandbox-id"] = json!("pod");
        });
    };
    let proxy = scene.bundle("proxy", "spt", "demo-spt", &[]);
    // The pod's annotations are on the proxy, too.
    named(&proxy, "queue-proxy");
    proxy.edit(|spec| {
        spec["process"]["env"] = json!([
            "A=1",
            "SERVING_READINESS_PROBE={\"tcpSocket\":{\"host\":\"127.0.0.1\",\"port\":80}}",
            "Z=2"
        ]);
        spec["com.example.future"] = json!({"kept": true});
    });
    let original = proxy.spec();
    let create = || scene.ok(&["create", "--bundle", proxy.str(), "proxy"]);
    create();
    assert_eq!(proxy.spec(), original, "there is no guest");
    let user = scene.fake(&[]);
    named(&user, "user-container");
    scene.create_ok(&user, "user");
    create();
    let mut expected = original;
    expected["process"]["env"] = json!([
        "A=1",
        "SERVING_READINESS_PROBE={\"tcpSocket\":{\"host\":\"172.16.1.2\",\"port\":80}}",
        "Z=2",
        "REDIRECT_IP=172.16.1.2",
    ]);
    assert_eq!(proxy.spec(), expected);
    let mut files: Vec<_> =
        fs::read_dir(&proxy.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["config.json", "rootfs"]);
    scene.ok(&["delete", "--force", "user"]);
    scene.assert_clean();
    passed()
}

fn itself() -> Result<(), Failed> {
    let scene = Scene::new();
    let link = scene.path("runc");
    std::os::unix::fs::symlink(crate::scene::URUNC, &link).unwrap();
    scene.configure(&format!("[runtime]\ndelegate = {:?}\n", link.to_str().unwrap()));
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| spec["annotations"] = json!({}));
    let message = scene.fails(&["create", "--bundle", bundle.str(), "c"]);
    assert!(message.contains("urunc itself"), "{message}");
    passed()
}

fn exec() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    let message = scene.fails(&["exec", "c", "sh"]);
    assert!(message.contains("it is a unikernel"), "{message}");
    assert!(scene.fails(&["exec", "nobody", "sh"]).contains("does not exist"));
    // What urunc has for no container is said of this one, in the log file as well.
    let log = scene.path("log.json");
    let message = scene.fails(&[
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "checkpoint",
        "--image-path",
        "/i",
        "c",
    ]);
    assert_eq!(
        message,
        "urunc: cannot checkpoint container c: it is a unikernel, and urunc has no such command for unikernels"
    );
    let logged = fs::read_to_string(&log).unwrap();
    assert!(
        logged.contains("\"level\":\"error\"") && logged.contains("cannot checkpoint container c"),
        "{logged}"
    );
    assert!(scene.fails(&["restore", "--bundle", bundle.str(), "d"]).contains("cannot restore bundle"));
    // A flag that nobody knows is still a mistake.
    let output = scene.urunc(&["kill", "--gently", "c"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("unexpected argument '--gently'"),
        "{}",
        describe(&output)
    );
    let output = scene.urunc(&["frobnicate", "nobody"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("unrecognized subcommand"),
        "{}",
        describe(&output)
    );
    passed()
}
