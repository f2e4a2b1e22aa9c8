//! The processes of delegated containers, and what a guest has instead.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use containerd_shim_protos::api::{
    DeleteRequest, ExecProcessRequest, ResizePtyRequest, ShutdownRequest, StateRequest, WaitRequest,
};
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::containerd::{Containerd, Need, RUNTIME, describe, eventually, guest, plain};
use crate::directly::{client, patience, with_slow};
use crate::run::events_of;

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];
const RUNC: &[Need] = &[Need::Root, Need::Containerd, Need::Runc];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "processes::a_process_is_added_and_its_status_returned", needs: RUNC, run: exec },
    Test { name: "processes::a_real_time_signal_reaches_an_added_process", needs: RUNC, run: real_time },
    Test { name: "processes::a_signal_to_all_reaches_an_added_process", needs: RUNC, run: all },
    Test { name: "processes::the_end_of_an_added_process_is_told_first", needs: RUNC, run: order },
    Test { name: "processes::an_added_process_has_a_terminal_that_is_resized", needs: RUNC, run: terminal },
    Test {
        name: "processes::a_guest_takes_no_further_process_and_says_so",
        needs: GUEST,
        run: exec_in_guest,
    },
    Test { name: "processes::orphans_are_reaped_and_no_status_is_lost", needs: RUNC, run: orphans },
    Test { name: "processes::whoever_waits_for_what_never_starts_is_told", needs: RUNC, run: never_started },
    Test { name: "processes::a_container_is_deleted_once", needs: RUNC, run: deleted_twice },
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

/// A container with a process added that has said that it is there, and the client that waits for it.
fn with_added(containerd: &Containerd) -> Child {
    containerd.detach(&[], &plain(), "c", &["/bin/sh", "-c", "while :; do busybox sleep 1; done"]);
    let script = "echo ready; exec busybox sleep 600";
    let words = ["task", "exec", "--exec-id", "e", "c", "/bin/sh", "-c", script];
    let mut client = containerd.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{}", containerd.log());
    client
}

/// The first process, which is the init of its pid namespace and handles no signal, does not mind; nor that its `sleep` ends.
fn all() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    let mut client = with_added(&containerd);
    containerd.ok(&["task", "kill", "--all", "--signal", "USR1", "c"]);
    assert_eq!(client.wait().unwrap().code(), Some(128 + 10));
    assert_eq!(containerd.status("c"), "RUNNING");
    containerd.remove("c");
    containerd.assert_clean();
    Ok(())
}

/// The kernel ends both at once.
fn order() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    let told = events_of(&containerd, || {
        let mut client = with_added(&containerd);
        containerd.ok(&["task", "kill", "--signal", "KILL", "c"]);
        assert_eq!(client.wait().unwrap().code(), Some(137));
        assert!(eventually(|| containerd.status("c") == "STOPPED"), "{}", containerd.log());
        containerd.ctr(&["task", "rm", "c"]);
        containerd.ok(&["containers", "rm", "c"]);
    });
    let topics: Vec<&str> = told.iter().map(|(topic, _)| topic.as_str()).collect();
    let expected = ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"];
    assert_eq!(topics, expected.map(|topic| format!("/tasks/{topic}")), "{told:?}");
    let ended = |index: usize| serde_json::from_str::<Value>(&told[index].1).unwrap()["id"].clone();
    assert_eq!((ended(4), ended(5)), (json!("e"), json!("c")), "{told:?}");
    containerd.assert_clean();
    Ok(())
}

fn terminal() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    containerd.detach(&[], &plain(), "c", &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]);
    // It ends once its terminal has the size.
    let inside = "until busybox stty size | busybox grep -qx '33 44'; do busybox sleep 1; done; echo resized";
    let ctr = containerd.command(&["task", "exec", "--tty", "--exec-id", "e", "c", "/bin/sh", "-c"]);
    // ctr wants a terminal of its own.
    let words: Vec<_> =
        std::iter::once(ctr.get_program()).chain(ctr.get_args()).map(|word| word.to_str().unwrap()).collect();
    let line = format!("exec {} \"{inside}\"", words.join(" "));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.envs(ctr.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut script = script.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let shim = client(&containerd);
    let request =
        ResizePtyRequest { id: "c".into(), exec_id: "e".into(), height: 33, width: 44, ..Default::default() };
    // ctr has its own idea of the size at the beginning.
    let ends = eventually(|| {
        let _ = shim.resize_pty(patience(), &request);
        script.try_wait().unwrap().is_some()
    });
    assert!(ends, "{}", containerd.log());
    let output = script.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("resized"), "{}", describe(&output));
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
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

fn never_started() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    containerd.detach(&[], &plain(), "c", &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]);
    let shim = client(&containerd);
    let (id, exec_id) = (String::from("c"), String::from("e"));
    let announced = ExecProcessRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
    shim.exec(patience(), &announced).unwrap();
    let asked = shim.clone();
    let request = WaitRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
    let waiter = std::thread::spawn(move || asked.wait(patience(), &request));
    // The shim answers in the order in which it is asked, more or less.
    for _ in 0..20 {
        let request = StateRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
        shim.state(patience(), &request).unwrap();
    }
    shim.delete(patience(), &DeleteRequest { id, exec_id, ..Default::default() }).unwrap();
    let told = waiter.join().unwrap().unwrap_err().to_string();
    assert!(told.contains("process e of container c does not exist"), "{told}");
    containerd.remove("c");
    containerd.assert_clean();
    Ok(())
}

/// Of two that ask for it at the same time, one is told that there is nothing.
fn deleted_twice() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    let path = with_slow(&containerd, "delete", "");
    let reference = plain().reference();
    containerd.ok(&["run", "--detach", "--runtime", &path, &reference, "c", "/bin/sh", "-c", "exit 0"]);
    assert!(eventually(|| containerd.status("c") == "STOPPED"), "{}", containerd.log());
    let shim = client(&containerd);
    let delete = || {
        let shim = shim.clone();
        let request = DeleteRequest { id: "c".into(), ..Default::default() };
        std::thread::spawn(move || shim.delete(patience(), &request))
    };
    let both = [delete(), delete()];
    assert!(eventually(|| containerd.path("seen").exists()));
    std::fs::write(containerd.path("go"), "").unwrap();
    let results = both.map(|thread| thread.join().unwrap().map(drop));
    let told: Vec<String> = results.into_iter().filter_map(Result::err).map(|e| e.to_string()).collect();
    assert!(matches!(&*told, [told] if told.contains("container c does not exist")), "{told:?}");
    // containerd has not been told; it cleans up after a shim that ends.
    shim.shutdown(patience(), &ShutdownRequest { id: "c".into(), ..Default::default() }).unwrap();
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
