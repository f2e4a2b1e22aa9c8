//! The memory that each monitor needs for itself, against what its control group gets on top of the container's limit. Run
//! with `--nocapture`, the numbers of ARCHITECTURE.md come out.

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::cgroups::set_resources;
use crate::scene::{Need, Scene, eventually, passed};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "overhead::of_spt_is_enough", needs: &[Need::Root, Need::Spt], run: spt },
    Test { name: "overhead::of_hvt_is_enough", needs: &[Need::Root, Need::Hvt], run: hvt },
    Test {
        name: "overhead::of_firecracker_is_enough",
        needs: &[Need::Root, Need::Firecracker],
        run: firecracker,
    },
    Test {
        name: "overhead::of_cloud_hypervisor_is_enough",
        needs: &[Need::Root, Need::CloudHypervisor],
        run: cloud_hypervisor,
    },
    Test { name: "overhead::of_qemu_is_enough", needs: &[Need::Root, Need::Qemu], run: qemu },
    Test { name: "overhead::of_emulation_is_enough", needs: &[Need::Root, Need::Qemu], run: emulation },
];

const LIMIT: u64 = 128 << 20;

/// The demo guest touches next to nothing of its memory, so that what is counted is the monitor's.
#[expect(clippy::print_stdout, reason = "the numbers are for whoever asks for them with --nocapture")]
fn is_enough(monitor: &str, kernel: &str, config: &str) -> Result<(), Failed> {
    let scene = Scene::new();
    scene.configure(&format!("[runtime]\nmemory = \"on-top\"\n{config}"));
    let bundle = scene.bundle("bundle", monitor, kernel, &["burn=1", "hold"]);
    set_resources(&bundle, json!({"memory": {"limit": LIMIT}}));
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    assert!(eventually(|| scene.console().contains("holding")), "{}", scene.console());
    let event: Value = serde_json::from_str(&scene.ok(&["events", "--stats", "c"])).unwrap();
    let memory = event["data"]["memory"]["usage"].clone();
    let used = memory["max"].as_u64().or(memory["usage"].as_u64()).unwrap();
    let on_top = memory["limit"].as_u64().unwrap() - LIMIT;
    println!("{monitor} {config:?}: {} KiB used at most, {} KiB on top", used >> 10, on_top >> 10);
    assert!(used < on_top, "{used} bytes used, {on_top} on top");
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

fn spt() -> Result<(), Failed> {
    is_enough("spt", "demo-spt", "")
}

fn hvt() -> Result<(), Failed> {
    is_enough("hvt", "demo", "")
}

fn firecracker() -> Result<(), Failed> {
    is_enough("firecracker", "demo", "")
}

fn cloud_hypervisor() -> Result<(), Failed> {
    is_enough("cloud-hypervisor", "demo", "")
}

fn qemu() -> Result<(), Failed> {
    is_enough("qemu", "demo", "")
}

fn emulation() -> Result<(), Failed> {
    is_enough("qemu", "demo", "kvm = \"off\"\n")
}
