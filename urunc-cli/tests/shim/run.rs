//! Guests from start to end, with `ctr`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{Containerd, Need, describe, eventually, guest, plain, qemu, shown};
use crate::directly::with_late;

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];
const RUNC: &[Need] = &[Need::Root, Need::Containerd, Need::Runc];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "run::a_guest_prints_and_its_status_is_returned", needs: GUEST, run: status },
    Test {
        name: "run::qemu_works_as_well",
        needs: &[Need::Root, Need::Containerd, Need::Qemu],
        run: with_qemu,
    },
    Test { name: "run::a_detached_guest_is_listed_and_killed", needs: GUEST, run: detached },
    Test { name: "run::events_come_once_and_in_order", needs: GUEST, run: events },
    Test { name: "run::a_lack_of_memory_is_told_before_the_end", needs: RUNC, run: memory },
    Test { name: "run::what_is_no_unikernel_runs_under_runc", needs: RUNC, run: delegated },
    Test { name: "run::many_containers_leave_nothing", needs: GUEST, run: many },
];

fn status() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    let output = containerd.run(&["--rm"], &guest(), "guest", &["hello", "exit=3"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("Hello from the urunc demo unikernel"),
        "{}\n{}",
        describe(&output),
        containerd.log()
    );
    assert!(text.contains("word 2: exit=3"), "{}", describe(&output));
    assert_eq!(output.status.code(), shown(3), "{}", describe(&output));
    containerd.assert_clean();
    Ok(())
}

fn with_qemu() -> Result<(), Failed> {
    let containerd = Containerd::start(&[qemu()]);
    let output = containerd.run(&["--rm"], &qemu(), "guest", &["hello", "exit=3"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("word 2: exit=3"), "{}", describe(&output));
    // isa-debug-exit reports (status << 1) | 1.
    assert_eq!(output.status.code(), Some(7), "{}", describe(&output));
    containerd.assert_clean();
    Ok(())
}

fn detached() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    containerd.detach(&[], &guest(), "guest", &["hold"]);
    let (pid, status) = containerd.task("guest").unwrap();
    assert_eq!(status, "RUNNING");
    assert!(containerd.ok(&["task", "ps", "guest"]).contains(&pid.to_string()));
    assert!(containerd.ok(&["task", "metrics", "guest"]).contains("memory"));
    // A signal that means nothing to the monitor does not end it.
    containerd.ok(&["task", "kill", "--signal", "WINCH", "guest"]);
    assert_eq!(containerd.status("guest"), "RUNNING");
    // Not while it runs.
    assert!(!containerd.ctr(&["task", "rm", "guest"]).status.success());
    containerd.ok(&["task", "kill", "guest"]);
    assert!(eventually(|| containerd.status("guest") == "STOPPED"));
    containerd.ctr(&["task", "rm", "guest"]);
    containerd.ok(&["containers", "rm", "guest"]);
    containerd.assert_clean();
    Ok(())
}

/// What containerd tells of tasks while `run` runs a container that it then deletes, as topics.
pub(crate) fn topics_of(containerd: &Containerd, run: impl FnOnce()) -> Vec<String> {
    events_of(containerd, run).into_iter().map(|(topic, _)| topic).collect()
}

/// The same, each with what is told: a JSON document.
pub(crate) fn events_of(containerd: &Containerd, run: impl FnOnce()) -> Vec<(String, String)> {
    let mut listener = containerd.command(&["events"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(listener.stdout.take().unwrap()).lines();
    // A sign that it listens: containerd tells of the first thing that happens after it has subscribed.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    assert!(eventually(|| {
        containerd.ctr(&["namespaces", "label", &containerd.namespace, "x=y"]);
        receiver.try_recv().is_ok()
    }));
    run();
    let mut told: Vec<(String, String)> = Vec::new();
    while told.last().is_none_or(|(topic, _)| topic != "/tasks/delete") {
        let line = receiver.recv_timeout(std::time::Duration::from_secs(180)).unwrap();
        // A time, the namespace, the topic, and a document.
        let topic = line.split_whitespace().find(|word| word.starts_with("/tasks/")).map(str::to_owned);
        let document = line.find('{').map_or("", |begin| &line[begin..]).to_owned();
        told.extend(topic.map(|topic| (topic, document)));
    }
    // The listener is `timeout`, which passes this signal on.
    let pid = rustix::process::Pid::from_raw(i32::try_from(listener.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    listener.wait().unwrap();
    told
}

fn events() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    let topics = topics_of(&containerd, || {
        let output = containerd.run(&["--rm"], &guest(), "guest", &["hello", "exit=3"]);
        assert_eq!(output.status.code(), shown(3), "{}", describe(&output));
    });
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    Ok(())
}

/// Kubernetes shows the event as the reason `OOMKilled`. The process has ended before the command that starts it has.
fn memory() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    let runtime = with_late(&containerd, "start", "c");
    let topics = topics_of(&containerd, || {
        let too_much = ["/bin/busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"];
        let options = ["run", "--rm", "--memory-limit", "16777216", "--runtime", &runtime];
        let output =
            containerd.ctr(&[&options[..], &[plain().reference().as_str(), "c"], &too_much].concat());
        assert_eq!(output.status.code(), Some(137), "{}", describe(&output));
    });
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete"]);
    Ok(())
}

fn delegated() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    let output = containerd.run(&["--rm"], &plain(), "c", &["/bin/sh", "-c", "echo hi from $$; exit 7"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hi from 1\n",
        "{}\n{}",
        describe(&output),
        containerd.log()
    );
    assert_eq!(output.status.code(), Some(7));
    containerd.assert_clean();
    Ok(())
}

fn many() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    for round in 0..10 {
        let id = format!("guest{round}");
        let output = containerd.run(&["--rm"], &guest(), &id, &["hello", "exit=1"]);
        assert_eq!(output.status.code(), shown(1), "{}\n{}", describe(&output), containerd.log());
    }
    containerd.assert_clean();
    Ok(())
}
