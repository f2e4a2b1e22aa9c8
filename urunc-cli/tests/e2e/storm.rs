//! Many containers: in a row, at once, and with create and start put back to back.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Failed;

use crate::Test;
use crate::scene::{Bundle, Need, Scene, describe, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "storm::1000_starts_right_after_create_40_at_a_time",
        needs: &[Need::Root],
        run: back_to_back,
    },
    Test { name: "storm::1000_containers_in_a_row", needs: &[Need::Root], run: in_a_row },
    Test { name: "storm::200_containers_live_at_once", needs: &[Need::Root], run: side_by_side },
    Test { name: "storm::of_two_commands_on_one_id_one_wins", needs: &[Need::Root], run: races },
    Test { name: "storm::20_real_guests_at_once", needs: &[Need::Root, Need::Qemu], run: at_once },
];

/// Create, start, delete; returns what the monitor printed.
fn life(scene: &Scene, bundle: &Bundle, id: &str) -> String {
    let console = scene.path(&format!("console-{id}"));
    let file = fs::File::create(&console).unwrap();
    let create = scene
        .command(&["create", "--bundle", bundle.str(), id])
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status()
        .unwrap();
    assert!(create.success(), "create {id}: {}", fs::read_to_string(&console).unwrap());
    // Before start: afterwards the monitor may already have ended, and a stopped container has no pid.
    let pid = scene.pid(id);
    let start = scene.command(&["start", id]).stdout(Stdio::null()).output().unwrap();
    assert!(start.status.success(), "start {id}: {}", describe(&start));
    reap(pid);
    scene.ok(&["delete", id]);
    let text = fs::read_to_string(&console).unwrap();
    fs::remove_file(&console).unwrap();
    text
}

/// B13: Go urunc loses a third of them.
fn back_to_back() -> Result<(), Failed> {
    const CONTAINERS: usize = 1000;
    const AT_A_TIME: usize = 40;
    let scene = Scene::new();
    scene.fake_monitor(Path::new("/usr/bin/echo"));
    let bundle = scene.fake(&["it-ran"]);
    let (next, ran) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let number @ 0..CONTAINERS = next.fetch_add(1, Ordering::Relaxed) {
                    let console = life(&scene, &bundle, &format!("c{number}"));
                    assert!(console.contains("it-ran"), "c{number}: {console:?}");
                    ran.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(ran.load(Ordering::Relaxed), CONTAINERS);
    scene.assert_clean();
    passed()
}

fn in_a_row() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(Path::new("/usr/bin/echo"));
    let bundle = scene.fake(&["it-ran"]);
    for _ in 0..1000 {
        assert!(scene.ok(&["run", "--bundle", bundle.str(), "c"]).contains("it-ran"));
    }
    scene.assert_clean();
    passed()
}

/// All of them are created, then all are started, then all run, then all are removed; each step 200 times at once.
fn side_by_side() -> Result<(), Failed> {
    const CONTAINERS: usize = 200;
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    let ids: Vec<String> = (0..CONTAINERS).map(|number| format!("c{number}")).collect();
    // A container inherits the streams of `create`, so that a pipe would not end before it.
    let console = || Stdio::from(fs::File::create(scene.path("console")).unwrap());
    let all = |words: &[&str]| {
        let commands = ids.iter().map(|id| {
            let mut arguments = words.to_vec();
            arguments.push(id);
            scene.command(&arguments).stdout(console()).stderr(console()).spawn().unwrap()
        });
        // Spawned all of them before the first is waited for.
        for child in commands.collect::<Vec<_>>() {
            let mut child = child;
            assert!(child.wait().unwrap().success(), "{words:?}: {}", scene.console());
        }
    };
    let status = |expected: &str| {
        let list: serde_json::Value = serde_json::from_str(&scene.ok(&["list", "--format", "json"])).unwrap();
        let list = list.as_array().unwrap();
        list.iter().filter(|entry| entry["status"] == expected).count()
    };
    all(&["create", "--bundle", bundle.str()]);
    assert_eq!(status("created"), CONTAINERS);
    all(&["start"]);
    assert_eq!(status("running"), CONTAINERS);
    all(&["delete", "--force"]);
    assert_eq!(scene.ok(&["list", "--quiet"]), "");
    scene.assert_clean();
    passed()
}

/// `tests/fault/races.rs` has them meet at every system call; here they really run at once, again and again.
fn races() -> Result<(), Failed> {
    const ROUNDS: usize = 15;
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    for (first, second, exclusive) in [
        (&["start"][..], &["start"][..], true),
        (&["start"], &["delete"], true),
        (&["kill"], &["delete"], false),
        (&["delete"], &["delete"], true),
        (&["delete", "--force"], &["delete", "--force"], false),
    ] {
        for round in 0..ROUNDS {
            scene.create_ok(&bundle, "c");
            let begin = |words: &[&str]| {
                let mut words = words.to_vec();
                words.push("c");
                scene.command(&words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            };
            let both = [begin(first), begin(second)].map(|child| child.wait_with_output().unwrap());
            let winners = both.iter().filter(|output| output.status.success()).count();
            let context = || {
                format!(
                    "{first:?} and {second:?}, round {round}: {}\n{}",
                    describe(&both[0]),
                    describe(&both[1])
                )
            };
            assert!(if exclusive { winners == 1 } else { winners >= 1 }, "{}", context());
            for loser in both.iter().filter(|output| !output.status.success()) {
                let said = String::from_utf8_lossy(&loser.stderr);
                let clear = ["does not exist", "it is running", "it is stopped", "container not running"];
                assert_eq!((loser.status.code(), said.lines().count()), (Some(1), 1), "{}", context());
                assert!(clear.iter().any(|words| said.contains(words)), "{}", context());
            }
            scene.ok(&["delete", "--force", "c"]);
        }
    }
    scene.assert_clean();
    passed()
}

fn at_once() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.qemu(&["it-ran"]);
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (scene, bundle) = (&scene, &bundle);
            scope.spawn(move || {
                let console = life(scene, bundle, &format!("c{number}"));
                assert!(console.contains("it-ran"), "c{number}: {console:?}");
            });
        }
    });
    scene.assert_clean();
    passed()
}
