//! The limits of the monitor's process: what the specification says, or an error that names it.

use std::fs;

use libtest_mimic::Failed;
use serde_json::json;

use crate::Test;
use crate::scene::{Need, Scene, passed};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "limits::rlimits_and_oom_score_are_the_specifications", needs: &[Need::Root], run: applied },
    Test { name: "limits::what_the_host_does_not_permit_is_named", needs: &[Need::Root], run: refused },
];

/// B33
fn applied() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    let now: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let adjusted = (now + 7).min(1000);
    bundle.edit(|spec| {
        spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]);
        spec["process"]["oomScoreAdj"] = json!(adjusted);
    });
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let pid = scene.pid("c");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let of = |name: &str| -> Vec<String> {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).map(ToOwned::to_owned).collect()
    };
    assert_eq!(of("Max open files"), ["100", "200"]);
    assert_eq!(of("Max core file size"), ["0", "0"]);
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), adjusted.to_string());
    passed()
}

fn refused() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    let original = bundle.spec();
    // Above what any system allows (fs.nr_open), so that it does not matter whether we have CAP_SYS_RESOURCE.
    for (field, value, says) in [
        (
            "rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1u64 << 40}]),
            "RLIMIT_NOFILE to 1:1099511627776",
        ),
        ("rlimits", json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]), "RLIMIT_CPU"),
        ("oomScoreAdj", json!(1001), "oomScoreAdj is 1001"),
    ] {
        bundle.write(&original);
        bundle.edit(|spec| spec["process"][field] = value.clone());
        let output = scene.create(&bundle, "c");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(says), "{message}");
    }
    scene.assert_clean();
    passed()
}
