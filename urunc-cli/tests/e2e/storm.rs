//! Many containers: in a row, at once, and with create and start put back to back.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Failed;

use crate::Test;
use crate::scene::{Bundle, Need, Scene, describe, eventually, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "storm::1000_starts_right_after_create_40_at_a_time",
        needs: &[Need::Root],
        run: back_to_back,
    },
    Test { name: "storm::200_containers_in_a_row", needs: &[Need::Root], run: in_a_row },
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

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
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
    for _ in 0..200 {
        assert!(life(&scene, &bundle, "c").contains("it-ran"));
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
    assert!(eventually(|| open_descriptors() < 64), "{} descriptors are open", open_descriptors());
    scene.assert_clean();
    passed()
}
