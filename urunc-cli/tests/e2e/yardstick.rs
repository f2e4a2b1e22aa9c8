//! runc as the yardstick: the same command lines to runc and to urunc, for a container of runc's, for the same one handed over
//! by urunc, and for a unikernel; what callers depend on must not differ. Where urunc differs on purpose, the table says why.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::scene::{BUSYBOX, Need, Scene, URUNC, describe, eventually, passed};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "yardstick::a_whole_life_is_that_of_runc", needs: &[Need::Root, Need::Runc], run: life },
    Test { name: "yardstick::documents_have_runcs_keys", needs: &[Need::Root, Need::Runc], run: documents },
    Test { name: "yardstick::hooks_run_in_runcs_order", needs: &[Need::Root, Need::Runc], run: hooks },
];

/// Who is asked, and for what kind of container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// runc, for its own.
    Runc,
    /// urunc, for a container that it hands over.
    Delegated,
    /// urunc, for a unikernel.
    Unikernel,
}

const ALL: [Subject; 3] = [Subject::Runc, Subject::Delegated, Subject::Unikernel];

struct Ground {
    scene: Scene,
    subject: Subject,
    bundle: String,
}

impl Ground {
    fn new(subject: Subject) -> Self {
        let scene = Scene::new();
        scene.fake_monitor(&scene.script("trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done"));
        let bundle = match subject {
            Subject::Unikernel => scene.fake(&[]).str().to_owned(),
            Subject::Runc | Subject::Delegated => plain(&scene),
        };
        Self { scene, subject, bundle }
    }

    fn run(&self, words: &[&str]) -> Output {
        let words = words.iter().map(|word| match *word {
            "BUNDLE" => self.bundle.clone(),
            "PIDFILE" => self.scene.path("pid").display().to_string(),
            word => word.to_owned(),
        });
        let program = if self.subject == Subject::Runc { "runc" } else { URUNC };
        let mut command = Command::new(program);
        command.arg("--root").arg(self.scene.root()).args(words).stdin(Stdio::null());
        command.env("URUNC_CONFIG_FILE", self.scene.path("config.toml"));
        // Files, because a container inherits them.
        let (out, err) = (self.scene.path("out"), self.scene.path("err"));
        let file = |path: &Path| fs::File::create(path).unwrap();
        let status = command.stdout(file(&out)).stderr(file(&err)).status().unwrap();
        Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() }
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{:?} {words:?}: {}", self.subject, describe(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> String {
        let output = self.run(&["state", "c"]);
        let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or("none").to_owned()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.subject != Subject::Unikernel {
            self.run(&["delete", "--force", "c"]);
        }
    }
}

/// A bundle that is no unikernel.
fn plain(scene: &Scene) -> String {
    let path = scene.path("plain");
    fs::create_dir_all(path.join("rootfs/bin")).unwrap();
    fs::copy(BUSYBOX, path.join("rootfs/bin/sh")).unwrap();
    let script = "trap 'exit 9' USR1; echo ready; while :; do read -t 1 x < /dev/zero; done";
    let spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", script]},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}],
        "linux": {
            "resources": {"memory": {"limit": 64 << 20}},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
        },
    });
    fs::write(path.join("config.json"), spec.to_string()).unwrap();
    path.display().to_string()
}

/// What is expected of a command.
struct Step {
    words: &'static [&'static str],
    status: i32,
    /// What callers look for in the error.
    says: &'static str,
    /// The state afterwards.
    state: &'static str,
    /// Where a unikernel differs: its exit status, and why.
    differs: Option<(i32, &'static str)>,
}

const fn step(words: &'static [&'static str], status: i32, says: &'static str, state: &'static str) -> Step {
    Step { words, status, says, state, differs: None }
}

const LIFE: &[Step] = &[
    // containerd (pkg/process, checkKillError) and conmon match these words.
    step(&["state", "c"], 1, "does not exist", "none"),
    step(&["kill", "c", "TERM"], 1, "does not exist", "none"),
    step(&["start", "c"], 1, "does not exist", "none"),
    step(&["delete", "c"], 1, "does not exist", "none"),
    step(&["pause", "c"], 1, "does not exist", "none"),
    step(&["resume", "c"], 1, "does not exist", "none"),
    step(&["ps", "c"], 1, "does not exist", "none"),
    step(&["events", "--stats", "c"], 1, "does not exist", "none"),
    step(&["update", "--pids-limit", "9", "c"], 1, "does not exist", "none"),
    // containerd always sends one more of these than is needed.
    step(&["delete", "--force", "c"], 0, "", "none"),
    step(&["create", "--bundle", "BUNDLE", "--pid-file", "PIDFILE", "c"], 0, "", "created"),
    step(&["create", "--bundle", "BUNDLE", "c"], 1, "exist", "created"),
    step(&["create", "--bundle", "/nonexistent", "d"], 1, "/nonexistent", "created"),
    step(&["create", "--bundle", "BUNDLE", "../d"], 1, "", "created"),
    step(&["update", "--pids-limit", "90", "c"], 0, "", "created"),
    step(&["resume", "c"], 1, "paused", "created"),
    step(&["start", "c"], 0, "", "running"),
    step(&["start", "c"], 1, "", "running"),
    step(&["delete", "c"], 1, "c", "running"),
    step(&["ps", "--format", "json", "c"], 0, "", "running"),
    step(&["ps", "c"], 0, "", "running"),
    step(&["events", "--stats", "c"], 0, "", "running"),
    step(&["events", "--interval", "0s", "c"], 1, "greater than 0", "running"),
    step(&["kill", "c", "NOSUCH"], 1, "NOSUCH", "running"),
    step(&["kill", "c", "0x9"], 1, "0x9", "running"),
    step(&["pause", "c"], 0, "", "paused"),
    step(&["pause", "c"], 1, "", "paused"),
    step(&["delete", "c"], 1, "paused", "paused"),
    step(&["kill", "c", "WINCH"], 0, "", "paused"),
    step(&["update", "--memory", "96M", "c"], 0, "", "paused"),
    step(&["resume", "c"], 0, "", "running"),
    step(&["kill", "c", "SIGUSR1"], 0, "", "stopped"),
    Step {
        differs: Some((
            0,
            "it releases what the dead monitor held (F3), and its caller wants an end, which there is",
        )),
        ..step(&["kill", "c", "9"], 1, "not running", "stopped")
    },
    step(&["kill", "c", "USR2"], 1, "container not running", "stopped"),
    step(&["pause", "c"], 1, "", "stopped"),
    step(&["resume", "c"], 1, "paused", "stopped"),
    step(&["events", "c"], 1, "", "stopped"),
    step(&["update", "--pids-limit", "9", "c"], 1, "", "stopped"),
    step(&["start", "c"], 1, "stopped", "stopped"),
    step(&["ps", "--format", "json", "c"], 0, "", "stopped"),
    step(&["delete", "c"], 0, "", "none"),
    step(&["delete", "c"], 1, "does not exist", "none"),
    step(&["delete", "--force", "c"], 0, "", "none"),
];

fn life() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for subject in ALL {
        let ground = Ground::new(subject);
        for (number, step) in LIFE.iter().enumerate() {
            let output = ground.run(step.words);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let differs = step.differs.filter(|_| subject == Subject::Unikernel);
            let expected = differs.map_or(step.status, |(status, _)| status);
            let name = format!("{subject:?} {number} {:?}", step.words);
            if output.status.code() != Some(expected) {
                wrong.push(format!("{name}: expected status {expected}, {}", describe(&output)));
            }
            if expected != 0 && !said.to_lowercase().contains(&step.says.to_lowercase()) {
                wrong.push(format!("{name}: expected {:?}, says {said}", step.says));
            }
            if !eventually(|| ground.status() == step.state) {
                wrong.push(format!("{name}: expected {}, is {}", step.state, ground.status()));
            }
        }
        let pid = fs::read_to_string(ground.scene.path("pid")).unwrap();
        if pid.parse::<u32>().is_err() {
            wrong.push(format!("{subject:?}: the pid file has {pid:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    passed()
}

/// The keys of a document and of the objects in it; lists and the kernel's own tables are opaque.
fn keys(value: &Value, path: &str, all: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{key}");
        if !["/data/memory/raw", "/data/hugetlb", "/annotations"].contains(&path.as_str()) {
            keys(value, &path, all);
        }
        all.push(path);
    }
}

fn documents() -> Result<(), Failed> {
    let grounds = [Subject::Runc, Subject::Unikernel].map(Ground::new);
    let documents = grounds.each_ref().map(|ground| {
        ground.ok(&["create", "--bundle", "BUNDLE", "--pid-file", "PIDFILE", "c"]);
        let state: Value = serde_json::from_str(&ground.ok(&["state", "c"])).unwrap();
        // No newline, and nothing else: callers parse the file as a number.
        let pid = fs::read_to_string(ground.scene.path("pid")).unwrap();
        assert_eq!(pid, state["pid"].to_string(), "{:?}", ground.subject);
        ground.ok(&["start", "c"]);
        let list: Value = serde_json::from_str(&ground.ok(&["list", "--format", "json"])).unwrap();
        let ps: Vec<i64> = serde_json::from_str(&ground.ok(&["ps", "--format", "json", "c"])).unwrap();
        assert!(ps.contains(&state["pid"].as_i64().unwrap()), "{ps:?}");
        let stats: Value = serde_json::from_str(&ground.ok(&["events", "--stats", "c"])).unwrap();
        (state, list[0].clone(), stats)
    });
    let [runc, ours] = documents;
    // What can be zero is left out by both, and is not the same in both.
    let may_be_zero = |key: &str| {
        ["/usage", "/max", "/cache", "/throttling", "/percpu", "/blkio", "/total"]
            .iter()
            .any(|it| key.contains(it))
    };
    for (name, runc, ours) in
        [("state", &runc.0, &ours.0), ("list", &runc.1, &ours.1), ("events", &runc.2, &ours.2)]
    {
        let (mut theirs, mut mine) = (Vec::new(), Vec::new());
        keys(runc, "", &mut theirs);
        keys(ours, "", &mut mine);
        let missing: Vec<_> = theirs.iter().filter(|key| !mine.contains(key) && !may_be_zero(key)).collect();
        assert!(missing.is_empty(), "{name}: runc has {missing:?}, {ours}");
    }
    for (runc, ours) in [(&runc.0, &ours.0), (&runc.1, &ours.1)] {
        for key in ["id", "status"] {
            assert_eq!(runc[key], ours[key]);
        }
        for key in ["pid", "bundle", "rootfs", "created", "ociVersion", "owner"] {
            let kind = |value: &Value| (value.is_string(), value.is_number());
            assert_eq!(kind(&runc[key]), kind(&ours[key]), "{key}");
        }
    }
    assert_eq!((&runc.2["type"], &runc.2["id"]), (&ours.2["type"], &ours.2["id"]));
    drop(grounds);
    passed()
}

fn hooks() -> Result<(), Failed> {
    let orders = [Subject::Runc, Subject::Unikernel].map(|subject| {
        let ground = Ground::new(subject);
        let log = ground.scene.path("hooks");
        let hook = |kind: &str, number: u32| {
            let script = format!(
                "echo {kind}{number} $(grep -o '\"status\": *\"[a-z]*\"' | tr -d ' ') >> {}",
                log.display()
            );
            json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
        };
        let config = Path::new(&ground.bundle).join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        // startContainer hooks run in the container's own root, which has no place for a log that both could write to.
        for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            spec["hooks"][kind] = json!([hook(kind, 1), hook(kind, 2)]);
        }
        fs::write(&config, spec.to_string()).unwrap();
        ground.ok(&["create", "--bundle", "BUNDLE", "c"]);
        ground.ok(&["start", "c"]);
        ground.ok(&["kill", "c", "KILL"]);
        assert!(eventually(|| ground.status() == "stopped"));
        ground.ok(&["delete", "c"]);
        fs::read_to_string(&log).unwrap()
    });
    let [runc, ours] = orders;
    // runc tells poststart hooks that the container is created; the specification ("Lifecycle") and we say that it runs.
    let lines = runc.lines().map(|line| match line.starts_with("poststart") {
        true => line.replace("created", "running") + "\n",
        false => line.to_owned() + "\n",
    });
    assert_eq!(ours, lines.collect::<String>());
    assert_eq!(runc.lines().count(), 10, "{runc}");
    passed()
}
