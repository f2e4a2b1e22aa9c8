//! The demo unikernel under every monitor that is installed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use libtest_mimic::Failed;

use crate::Test;
use crate::scene::{Need, Scene, describe, eventually, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "guests::qemu_boots_the_demo_guest", needs: &[Need::Root, Need::Qemu], run: qemu_boots },
    Test { name: "guests::qemu_without_kvm_emulates", needs: &[Need::Root, Need::Qemu], run: qemu_emulates },
    Test { name: "guests::spt_boots_the_demo_guest", needs: &[Need::Root, Need::Spt], run: spt_boots },
    Test { name: "guests::hvt_boots_the_demo_guest", needs: &[Need::Root, Need::Hvt], run: hvt_boots },
    Test {
        name: "guests::firecracker_boots_the_demo_guest",
        needs: &[Need::Root, Need::Firecracker],
        run: fc_boots,
    },
    Test {
        name: "guests::cloud_hypervisor_boots_the_demo_guest",
        needs: &[Need::Root, Need::CloudHypervisor],
        run: ch_boots,
    },
    Test {
        name: "guests::firecracker_asks_the_guest_to_shut_down",
        needs: &[Need::Root, Need::Firecracker],
        run: fc_stops,
    },
    Test {
        name: "guests::cloud_hypervisor_asks_the_guest_to_shut_down",
        needs: &[Need::Root, Need::CloudHypervisor],
        run: ch_stops,
    },
    Test {
        name: "guests::a_firecracker_that_cannot_be_asked_is_killed",
        needs: &[Need::Root, Need::Firecracker],
        run: fc_unasked,
    },
    Test {
        name: "guests::a_cloud_hypervisor_that_cannot_be_watched_is_killed",
        needs: &[Need::Root, Need::CloudHypervisor],
        run: ch_unwatched,
    },
    Test {
        name: "guests::a_kernel_that_only_root_may_read_boots_for_others",
        needs: &[Need::Root, Need::Qemu],
        run: unreadable,
    },
    Test { name: "guests::qemu_ends_on_a_stop_signal", needs: &[Need::Root, Need::Qemu], run: qemu_stops },
    Test { name: "guests::spt_ends_on_a_stop_signal", needs: &[Need::Root, Need::Spt], run: spt_stops },
    Test { name: "guests::hvt_ends_on_a_stop_signal", needs: &[Need::Root, Need::Hvt], run: hvt_stops },
    Test { name: "guests::echo_reaches_the_guest_and_back", needs: &[Need::Root, Need::Qemu], run: echo },
];

fn boots(monitor: &str, kernel: &str, config: &str, status: i32) -> Scene {
    let scene = Scene::new();
    scene.configure(config);
    let bundle = scene.bundle("bundle", monitor, kernel, &["hello", "exit=3"]);
    let output = scene.urunc(&["run", "--bundle", bundle.str(), "guest"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Hello from the urunc demo unikernel"), "{}", describe(&output));
    assert!(text.contains("word 1: hello") && text.contains("word 2: exit=3"), "{}", describe(&output));
    assert_eq!(output.status.code(), Some(status), "{}", describe(&output));
    // 64 MiB were asked for; what the board takes for itself is less than two.
    let memory = text.lines().find_map(|line| line.strip_prefix("memory: ")).unwrap();
    let mib: u64 = memory.split(' ').next().unwrap().parse().unwrap();
    assert!((62..=64).contains(&mib), "{memory}");
    scene.assert_clean();
    scene
}

/// QEMU's `isa-debug-exit` reports `(status << 1) | 1`.
fn qemu_boots() -> Result<(), Failed> {
    boots("qemu", "demo", "", 7);
    passed()
}

fn qemu_emulates() -> Result<(), Failed> {
    boots("qemu", "demo", "[runtime]\nkvm = \"off\"\n", 7);
    passed()
}

/// The monitor, which runs as the container's user, could not open it, and ended at once although start had succeeded.
fn unreadable() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.qemu(&["hello", "exit=3"]);
    let kernel = bundle.path.join("rootfs/boot/kernel");
    fs::set_permissions(&kernel, fs::Permissions::from_mode(0o600)).unwrap();
    let output = scene.urunc(&["run", "--bundle", bundle.str(), "guest"]);
    assert_eq!(output.status.code(), Some(7), "{}", describe(&output));
    assert_eq!(fs::metadata(&kernel).unwrap().mode() & 0o7777, 0o600, "the image has changed");
    scene.assert_clean();
    passed()
}

fn spt_boots() -> Result<(), Failed> {
    boots("spt", "demo-spt", "", 3);
    passed()
}

fn hvt_boots() -> Result<(), Failed> {
    boots("hvt", "demo", "", 3);
    passed()
}

/// Firecracker and Cloud Hypervisor end with 0 whatever the guest says.
fn fc_boots() -> Result<(), Failed> {
    boots("firecracker", "demo", "", 0);
    passed()
}

fn ch_boots() -> Result<(), Failed> {
    boots("cloud-hypervisor", "demo", "", 0);
    passed()
}

/// The guest is asked, and says so; it is not just ended.
fn shuts_down(monitor: &str, request: &str) -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.bundle("bundle", monitor, "demo", &["hold"]);
    scene.create_ok(&bundle, "guest");
    scene.ok(&["start", "guest"]);
    assert!(eventually(|| scene.console().contains("holding")), "{}", scene.console());
    let pid = scene.pid("guest");
    scene.ok(&["kill", "guest", "TERM"]);
    assert_eq!(reap(pid), 0);
    assert!(scene.console().contains(request), "{}", scene.console());
    scene.ok(&["delete", "guest"]);
    scene.assert_clean();
    passed()
}

fn fc_stops() -> Result<(), Failed> {
    shuts_down("firecracker", "ctrl-alt-del")
}

fn ch_stops() -> Result<(), Failed> {
    shuts_down("cloud-hypervisor", "power button")
}

/// It got SIGTERM, which it ignores.
fn fc_unasked() -> Result<(), Failed> {
    type Hinder = fn(&Scene, i64);
    let hinders: [(&str, Hinder); 2] = [
        ("frozen", |scene, _| drop(scene.ok(&["pause", "guest"]))),
        ("without its socket", |_, pid| {
            fs::remove_file(format!("/proc/{pid}/root/run/firecracker.sock")).unwrap();
        }),
    ];
    for (what, hinder) in hinders {
        let scene = Scene::new();
        let bundle = scene.bundle("bundle", "firecracker", "demo", &["hold"]);
        scene.create_ok(&bundle, "guest");
        scene.ok(&["start", "guest"]);
        assert!(eventually(|| scene.console().contains("holding")), "{}", scene.console());
        let pid = scene.pid("guest");
        hinder(&scene, pid);
        scene.ok(&["kill", "guest", "TERM"]);
        assert!(eventually(|| scene.status("guest") == "stopped"), "{what}");
        assert_eq!(reap(pid), 128 + 9, "{what}");
        scene.ok(&["delete", "guest"]);
        scene.assert_clean();
    }
    passed()
}

/// What a monitor writes as its events was collected until memory ran out.
fn ch_unwatched() -> Result<(), Failed> {
    let scene = Scene::new();
    // Its last descriptor is the events'.
    let script = scene.script(
        "for word; do case $word in fd=*) events=${word#fd=} ;; esac; done\n\
         while :; do echo '{\"source\": '; done >&$events &\n\
         exec sleep 1000",
    );
    scene.configure(&format!("[monitors.cloud-hypervisor]\npath = {:?}\n", script.to_str().unwrap()));
    let bundle = scene.bundle("bundle", "cloud-hypervisor", "demo", &[]);
    scene.create_ok(&bundle, "guest");
    let pid = scene.pid("guest");
    scene.ok(&["start", "guest"]);
    assert_eq!(reap(pid), 128 + 9);
    scene.ok(&["delete", "guest"]);
    scene.assert_clean();
    passed()
}

/// Monitors section 9, number 23: where the monitor ignores TERM as pid 1, the container still ends.
fn stops(monitor: &str, kernel: &str) -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.bundle("bundle", monitor, kernel, &["hold"]);
    scene.create_ok(&bundle, "guest");
    scene.ok(&["start", "guest"]);
    assert!(eventually(|| scene.console().contains("hold")), "{}", scene.console());
    let pid = scene.pid("guest");
    // WINCH does not end it (upstream issue 594).
    scene.ok(&["kill", "guest", "WINCH"]);
    assert_eq!(scene.status("guest"), "running");
    scene.ok(&["kill", "guest"]);
    reap(pid);
    assert_eq!(scene.status("guest"), "stopped");
    scene.ok(&["delete", "guest"]);
    scene.assert_clean();
    passed()
}

fn qemu_stops() -> Result<(), Failed> {
    stops("qemu", "demo")
}

fn spt_stops() -> Result<(), Failed> {
    stops("spt", "demo-spt")
}

fn hvt_stops() -> Result<(), Failed> {
    stops("hvt", "demo")
}

fn echo() -> Result<(), Failed> {
    use std::io::Write;
    use std::process::Stdio;
    let scene = Scene::new();
    let bundle = scene.qemu(&["echo"]);
    let mut child = scene
        .command(&["run", "--bundle", bundle.str(), "guest"])
        .stdin(Stdio::piped())
        .stdout(std::fs::File::create(scene.path("console")).unwrap())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    assert!(eventually(|| scene.console().contains("word 1: echo")));
    stdin.write_all(b"anybody there?\n").unwrap();
    assert!(eventually(|| scene.console().contains("anybody there?")), "{}", scene.console());
    scene.ok(&["kill", "guest", "KILL"]);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    scene.assert_clean();
    passed()
}
