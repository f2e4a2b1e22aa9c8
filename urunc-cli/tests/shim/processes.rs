//! The processes of delegated containers, and what a guest has instead.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::containerd::{Containerd, Need, RUNTIME, describe, eventually, guest, plain};

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];
const RUNC: &[Need] = &[Need::Root, Need::Containerd, Need::Runc];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "processes::a_process_is_added_and_its_status_returned", needs: RUNC, run: exec },
    Test { name: "processes::a_real_time_signal_reaches_an_added_process", needs: RUNC, run: real_time },
    Test {
        name: "processes::a_guest_takes_no_further_process_and_says_so",
        needs: GUEST,
        run: exec_in_guest,
    },
    Test { name: "processes::orphans_are_reaped_and_no_status_is_lost", needs: RUNC, run: orphans },
    Test {
        name: "processes::containers_of_a_pod_share_a_shim",
        needs: &[Need::Root, Need::Containerd, Need::Guest, Need::Runc],
        run: pod,
    },
];

fn exec() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    containerd.detach(&[], &plain(), "c", &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]);
    let output =
        containerd.ctr(&["task", "exec", "--exec-id", "e", "c", "/bin/sh", "-c", "echo inside; exit 4"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "inside\n",
        "{}\n{}",
        describe(&output),
        containerd.log()
    );
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(containerd.status("c"), "RUNNING");
    containerd.remove("c");
    containerd.assert_clean();
    Ok(())
}

/// 35, which is SIGRTMIN+1 for the C library, ends what does not expect it.
fn real_time() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    containerd.detach(&[], &plain(), "c", &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]);
    let words = ["task", "exec", "--exec-id", "e", "c", "/bin/sh", "-c", "echo ready; busybox sleep 60"];
    let mut client = containerd.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{}", containerd.log());
    containerd.ok(&["task", "kill", "--exec-id", "e", "--signal", "35", "c"]);
    assert_eq!(client.wait().unwrap().code(), Some(128 + 35));
    containerd.remove("c");
    containerd.assert_clean();
    Ok(())
}

fn exec_in_guest() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    containerd.detach(&[], &guest(), "guest", &["hold"]);
    let output = containerd.ctr(&["task", "exec", "--exec-id", "e", "guest", "/bin/sh"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("container guest is a unikernel"), "{said}");
    assert_eq!(containerd.status("guest"), "RUNNING");
    containerd.remove("guest");
    containerd.assert_clean();
    Ok(())
}

/// In the host's pid namespace, what a container's process orphans becomes the shim's child.
fn orphans() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    let script = "for i in 1 2 3 4 5; do (busybox sleep 0 & :); done; while busybox sleep 1; do :; done";
    let mut spec: Value = serde_json::from_str(&containerd.ok(&["oci", "spec"])).unwrap();
    spec["root"]["path"] = json!(containerd.path("image-busybox/rootfs"));
    spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    let config = containerd.path("spec.json");
    std::fs::write(&config, spec.to_string()).unwrap();
    let arguments = ["run", "--detach", "--runtime", RUNTIME, "--config", config.to_str().unwrap(), "c"];
    containerd.ok(&arguments);
    let output = containerd.ctr(&["task", "exec", "--exec-id", "e", "c", "/bin/sh", "-c", "exit 9"]);
    assert_eq!(output.status.code(), Some(9), "{}", describe(&output));
    let (shim, _) = containerd.shims().first().cloned().unwrap();
    let zombies = || {
        let children =
            std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap_or_default();
        children.split_whitespace().filter(|pid| !crate::containerd::lives(pid.parse().unwrap())).count()
    };
    assert!(eventually(|| zombies() == 0), "{} zombies", zombies());
    containerd.remove("c");
    containerd.assert_clean();
    Ok(())
}

fn pod() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain(), guest()]);
    let pod = ["--annotation", "io.kubernetes.cri.sandbox-id=pause"];
    containerd.detach(&pod, &plain(), "pause", &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]);
    containerd.detach(&pod, &guest(), "guest", &["hold"]);
    assert_eq!(containerd.shims().len(), 1);
    containerd.remove("guest");
    assert_eq!(containerd.status("pause"), "RUNNING");
    assert_eq!(containerd.shims().len(), 1);
    containerd.remove("pause");
    containerd.assert_clean();
    Ok(())
}
