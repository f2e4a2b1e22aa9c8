//! containerd is killed and comes back while containers run.

use std::fs;
use std::process::Stdio;

use containerd_shim_protos::api::{ExecProcessRequest, StartRequest};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use libtest_mimic::Failed;
use serde_json::json;

use crate::Test;
use crate::containerd::{Containerd, Need, describe, eventually, guest, lives, plain, shown};
use crate::directly::{client, patience, with_slow};

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];
const RUNC: &[Need] = &[Need::Root, Need::Containerd, Need::Runc];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "restart::containers_in_every_state_are_found_again", needs: GUEST, run: states },
    Test { name: "restart::an_end_that_containerd_missed_is_told", needs: GUEST, run: missed_end },
    Test { name: "restart::a_container_created_before_is_started_after", needs: GUEST, run: created },
    Test { name: "restart::a_slow_command_costs_no_container", needs: RUNC, run: slow_command },
];

/// Upstream issue 599: after a restart, containers fell back to "created".
fn states() -> Result<(), Failed> {
    let mut containerd = Containerd::start(&[guest()]);
    containerd.detach(&[], &guest(), "running", &["hold"]);
    containerd.detach(&[], &guest(), "stopped", &["hello", "exit=5"]);
    assert!(eventually(|| containerd.status("stopped") == "STOPPED"));
    let before = containerd.task("running").unwrap();
    containerd.kill();
    assert!(lives(before.0));
    containerd.launch();
    assert_eq!(containerd.task("running"), Some(before));
    assert_eq!(containerd.status("stopped"), "STOPPED");
    let removed = containerd.ctr(&["task", "rm", "stopped"]);
    let said = describe(&removed);
    assert!(said.contains(&format!("exit code {}", shown(5).unwrap())), "{said}");
    containerd.ok(&["containers", "rm", "stopped"]);
    containerd.remove("running");
    containerd.assert_clean();
    Ok(())
}

fn missed_end() -> Result<(), Failed> {
    let mut containerd = Containerd::start(&[guest()]);
    containerd.detach(&[], &guest(), "guest", &["hold"]);
    let (pid, _) = containerd.task("guest").unwrap();
    containerd.kill();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert!(eventually(|| !lives(pid)));
    containerd.launch();
    assert!(eventually(|| containerd.status("guest") == "STOPPED"), "{}", containerd.log());
    let removed = describe(&containerd.ctr(&["task", "rm", "guest"]));
    assert!(removed.contains("137"), "{removed}");
    containerd.ok(&["containers", "rm", "guest"]);
    containerd.assert_clean();
    Ok(())
}

/// Its start hangs while containerd is killed and comes back, and then fails: so there is a container that was created and not started.
fn created() -> Result<(), Failed> {
    let mut containerd = Containerd::start(&[guest()]);
    let shim = with_slow(&containerd, "start", "exit 1;");
    let reference = guest().reference();
    let words = ["run", "--detach", "--runtime", &shim, &reference, "guest", "hello", "exit=5"];
    let mut run = containerd.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(eventually(|| containerd.path("seen").exists()), "{}", containerd.log());
    containerd.kill();
    run.wait().unwrap();
    containerd.launch();
    let (pid, status) = containerd.task("guest").unwrap();
    assert_eq!(status, "CREATED", "{}", containerd.log());
    assert!(lives(pid));
    fs::write(containerd.path("go"), "").unwrap();
    // ctr starts only what it creates.
    let request = StartRequest { id: "guest".into(), ..StartRequest::default() };
    client(&containerd).start(patience(), &request).unwrap();
    assert!(eventually(|| containerd.status("guest") == "STOPPED"), "{}", containerd.log());
    let removed = describe(&containerd.ctr(&["task", "rm", "guest"]));
    assert!(removed.contains(&format!("exit code {}", shown(5).unwrap())), "{removed}");
    containerd.ok(&["containers", "rm", "guest"]);
    containerd.assert_clean();
    Ok(())
}

/// containerd asks each shim when it comes back, and has those that do not answer within 5 s cleaned up with all their containers.
fn slow_command() -> Result<(), Failed> {
    let mut containerd = Containerd::start(&[plain()]);
    let shim = with_slow(&containerd, "exec", "");
    let script = "while busybox sleep 1; do :; done";
    let reference = plain().reference();
    containerd.ok(&["run", "--detach", "--runtime", &shim, &reference, "c", "/bin/sh", "-c", script]);
    let before = containerd.task("c").unwrap();
    // ctr would wait for containerd.
    let asked = client(&containerd);
    let process = json!({"cwd": "/", "args": ["/bin/sh", "-c", "exit 0"], "env": ["PATH=/bin"]});
    let spec = Any { value: process.to_string().into_bytes(), ..Any::default() };
    let announced = ExecProcessRequest {
        id: "c".into(),
        exec_id: "e".into(),
        spec: MessageField::some(spec),
        ..ExecProcessRequest::default()
    };
    asked.exec(patience(), &announced).unwrap();
    let request = StartRequest { id: "c".into(), exec_id: "e".into(), ..StartRequest::default() };
    let started = std::thread::spawn(move || asked.start(patience(), &request));
    assert!(eventually(|| containerd.path("seen").exists()), "{}", containerd.log());
    containerd.kill();
    containerd.launch();
    assert_eq!(containerd.task("c"), Some(before.clone()), "{}", containerd.log());
    fs::write(containerd.path("go"), "").unwrap();
    started.join().unwrap().unwrap();
    assert_eq!(containerd.task("c"), Some(before), "{}", containerd.log());
    containerd.remove("c");
    containerd.assert_clean();
    Ok(())
}
