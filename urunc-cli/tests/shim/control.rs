//! Pause, resume, update, metrics, and memory that runs out: what containerd asks of a running task, for guests and for
//! containers of the other runtime alike.

use std::fs;
use std::process::Stdio;

use containerd_shim_protos::api::UpdateTaskRequest;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::context;
use containerd_shim_protos::{Client, TaskClient};
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::containerd::{Containerd, Need, describe, eventually, guest, plain};
use crate::run::topics_of;
use crate::scene::executable;

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];
const BOTH: &[Need] = &[Need::Root, Need::Containerd, Need::Guest, Need::Runc];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "control::tasks_are_paused_and_resumed", needs: BOTH, run: pause },
    Test { name: "control::a_paused_task_can_be_killed", needs: GUEST, run: kill_paused },
    Test { name: "control::metrics_show_what_is_used_and_its_limits", needs: GUEST, run: metrics },
    Test { name: "control::limits_are_updated", needs: BOTH, run: update },
    Test {
        name: "control::a_shim_holds_as_many_descriptors_after_many_containers",
        needs: BOTH,
        run: descriptors,
    },
    Test { name: "control::too_little_memory_for_a_monitor_is_told", needs: GUEST, run: out_of_memory },
];

fn pause() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest(), plain()]);
    containerd.detach(&[], &guest(), "guest", &["hold"]);
    containerd.detach(&[], &plain(), "plain", &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]);
    for id in ["guest", "plain"] {
        containerd.ok(&["task", "pause", id]);
        assert_eq!(containerd.status(id), "PAUSED", "{id}");
        let again = containerd.ctr(&["task", "pause", id]);
        assert!(!again.status.success(), "{id}: {}", describe(&again));
        assert_eq!(containerd.status(id), "PAUSED", "{id}");
        containerd.ok(&["task", "resume", id]);
        assert_eq!(containerd.status(id), "RUNNING", "{id}");
        assert!(!containerd.ctr(&["task", "resume", id]).status.success(), "{id}");
        containerd.remove(id);
    }
    containerd.assert_clean();
    Ok(())
}

fn kill_paused() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    let topics = topics_of(&containerd, || {
        containerd.detach(&[], &guest(), "guest", &["hold"]);
        containerd.ok(&["task", "pause", "guest"]);
        containerd.remove("guest");
    });
    let expected = ["/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/exit", "/tasks/delete"];
    assert_eq!(topics, expected);
    containerd.assert_clean();
    Ok(())
}

fn measured(containerd: &Containerd, id: &str) -> Value {
    serde_json::from_str(&containerd.ok(&["task", "metrics", "--format", "json", id])).unwrap()
}

/// The first of these members that there is: v1 and v2 have different words.
fn number(metrics: &Value, pointers: &[&str]) -> u64 {
    let found = pointers.iter().find_map(|pointer| metrics.pointer(pointer)?.as_u64());
    found.unwrap_or_else(|| panic!("none of {pointers:?} in {metrics}"))
}

const MEMORY_LIMIT: &[&str] = &["/memory/usage/limit", "/memory/usage_limit"];
const PIDS_LIMIT: &[&str] = &["/pids/limit"];

fn metrics() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    containerd.detach(&["--memory-limit", "67108864"], &guest(), "guest", &["burn=600"]);
    let cpu = || number(&measured(&containerd, "guest"), &["/cpu/usage/total", "/cpu/usage_usec"]);
    let first = cpu();
    assert!(eventually(|| cpu() > first));
    let metrics = measured(&containerd, "guest");
    assert!(number(&metrics, &["/memory/usage/usage", "/memory/usage"]) > 100_000, "{metrics}");
    // The guest's memory, and on top of it the monitor's.
    assert!((64 << 20..1 << 30).contains(&number(&metrics, MEMORY_LIMIT)), "{metrics}");
    assert!(number(&metrics, &["/pids/current"]) > 0, "{metrics}");
    containerd.remove("guest");
    assert!(!containerd.ctr(&["task", "metrics", "guest"]).status.success());
    containerd.assert_clean();
    Ok(())
}

/// `ctr` cannot ask for it, so this speaks to the shim as containerd does.
fn update() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest(), plain()]);
    for (image, id, arguments) in [
        (guest(), "guest", &["hold"][..]),
        (plain(), "plain", &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]),
    ] {
        containerd.detach(&["--memory-limit", "67108864"], &image, id, arguments);
        // That of the container before may be about to end.
        let ours = |(_, words): &(i32, Vec<String>)| words.iter().any(|word| word == id);
        let (_, words) = containerd.shims().into_iter().find(ours).unwrap();
        let address = format!("unix://{}", Containerd::socket(&words).display());
        let shim = TaskClient::new(Client::connect(&address).unwrap());
        let ask = |resources: &Value| {
            let any = Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
                value: resources.to_string().into_bytes(),
                ..Any::default()
            };
            let request = UpdateTaskRequest {
                id: id.to_owned(),
                resources: MessageField::some(any),
                ..UpdateTaskRequest::default()
            };
            shim.update(context::with_timeout(120_000_000_000), &request)
        };
        let before = number(&measured(&containerd, id), MEMORY_LIMIT);
        ask(&json!({"memory": {"limit": 134_217_728}, "pids": {"limit": 33}})).unwrap();
        let metrics = measured(&containerd, id);
        assert_eq!(number(&metrics, MEMORY_LIMIT) - before, 64 << 20, "{metrics}");
        assert_eq!(number(&metrics, PIDS_LIMIT), 33);
        // What is refused is said, and changes nothing.
        let refused = ask(&json!({"cpu": {"cpus": "4000"}})).unwrap_err().to_string();
        assert!(refused.contains("4000") || refused.contains("cpuset"), "{refused}");
        assert_eq!(number(&measured(&containerd, id), PIDS_LIMIT), 33);
        containerd.remove(id);
    }
    containerd.assert_clean();
    Ok(())
}

/// In a pod, whose shim outlives the containers that come and go.
fn descriptors() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain(), guest()]);
    let pod = ["--annotation", "io.kubernetes.cri.sandbox-id=pause"];
    containerd.detach(&pod, &plain(), "pause", &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]);
    let shim = containerd.shims().first().unwrap().0;
    let count = || fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    let live = || {
        let mut options = pod.to_vec();
        options.push("--rm");
        let output = containerd.run(&options, &guest(), "guest", &["hello"]);
        assert!(output.status.code().is_some(), "{}", describe(&output));
    };
    live();
    let before = count();
    (0..8).for_each(|_| live());
    // What containerd connects with may come and go.
    assert!(eventually(|| count() <= before), "{before} before, {} now", count());
    assert_eq!(containerd.shims().len(), 1);
    containerd.remove("pause");
    containerd.assert_clean();
    Ok(())
}

/// Kubernetes shows the event as the reason `OOMKilled`.
fn out_of_memory() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    let monitor = containerd.path("monitor.sh");
    executable(&monitor, "#!/bin/sh\nx=0123456789abcdef; while :; do x=$x$x; done\n");
    let path = monitor.display();
    // Whatever its guest, the monitor takes more than it may have.
    containerd.configure(&format!(
        "[runtime]\nmemory = \"on-top\"\n[monitors.spt]\npath = \"{path}\"\n[monitors.qemu]\npath = \"{path}\"\n"
    ));
    let topics = topics_of(&containerd, || {
        let mut child = containerd
            .command(&[
                "run",
                "--rm",
                "--memory-limit",
                "33554432",
                "--runtime",
                crate::containerd::RUNTIME,
                &guest().reference(),
                "guest",
            ])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(137));
    });
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete"]);
    containerd.assert_clean();
    Ok(())
}
