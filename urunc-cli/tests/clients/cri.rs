//! Pods, as the kubelet makes them through containerd's CRI. Each runs under urunc's shim altogether: the pause container and the sidecars by runc,
//! the unikernel by a monitor in the pod's namespaces.

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{guest, plain, qemu, shown};
use crate::docker::net;
use crate::image::{Described, Image};
use crate::kubelet::{Container, Node, Pids, Pod, State};
use crate::need::Need;
use crate::server;

const GUEST: &[Need] = &[Need::Root, Need::Cri, Need::Runc, Need::Guest];
const SPT: &[Need] = &[Need::Root, Need::Cri, Need::Runc, Need::Spt];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "cri::a_pod_of_guest_and_sidecar_lives_and_goes", needs: SPT, run: pod },
    Test { name: "cri::a_guest_ends_and_its_status_is_known", needs: GUEST, run: status },
    Test {
        name: "cri::a_stop_reaches_the_guest_within_its_grace",
        needs: &[Need::Root, Need::Cri, Need::Runc, Need::Qemu],
        run: asked,
    },
    Test {
        name: "cri::a_guest_is_reached_by_tcp_at_the_address_of_its_pod",
        needs: &[Need::Root, Need::Cri, Need::Runc, Need::Linux],
        run: tcp,
    },
    Test { name: "cri::a_guest_may_share_the_processes_of_its_pod", needs: GUEST, run: shared },
    Test { name: "cri::annotations_of_the_pod_make_a_unikernel", needs: GUEST, run: annotated },
    Test { name: "cri::a_user_container_of_knative_has_its_fixed_address", needs: SPT, run: knative },
    Test { name: "cri::fifty_pods_leave_nothing", needs: GUEST, run: fifty },
    Test { name: "cri::a_failure_leaves_the_pod_as_it_was", needs: GUEST, run: failure },
];

const IDLE: &[&str] = &["/bin/sh", "-c", "while busybox sleep 1; do :; done"];

/// The guest is told its pod's address, which CNI gives only now.
fn answer(address: &str) -> [String; 2] {
    ["answer".to_owned(), format!("ip={address}")]
}

fn pod() -> Result<(), Failed> {
    let node = Node::start(&[net(), plain()]);
    let before = node.world.inventory();
    let pod = Pod::default();
    let id = node.run_pod(&pod);
    let address = node.address(&id);
    let sidecar = node.run((&pod, &id), "sidecar", &plain(), IDLE);
    let words = answer(&address);
    let guest = node.run((&pod, &id), "guest", &net(), &words.each_ref().map(String::as_str));
    node.prints(&pod, "guest", &format!("answering for {address}"));
    node.ping(&address);

    assert_eq!(node.state(&guest), State::Running);
    assert_eq!(node.exec(&sidecar, &["/bin/sh", "-c", "echo inside; exit 4"]), Some(("inside\n".into(), 4)));
    assert_eq!(node.exec(&guest, &["/bin/sh"]), None);
    let (_, memory) = node.stats(&guest);
    assert!(memory > 0);

    // A crash loop: the same pod gets the next container.
    node.stop(&guest, 1);
    assert_eq!(node.state(&guest), State::Exited(137));
    node.remove(&guest);
    let guest = node.run((&pod, &id), "again", &net(), &words.each_ref().map(String::as_str));
    node.prints(&pod, "again", &format!("answering for {address}"));
    node.ping(&address);
    assert_eq!(node.state(&sidecar), State::Running);

    // The kubelet stops pods whose containers still run.
    node.remove_pod(&id);
    assert!(node.log(&pod, "guest").contains(" stdout F "));
    drop(guest);
    node.world.assert_as_before_but(&before, &["cni0"]);
    Ok(())
}

fn status() -> Result<(), Failed> {
    let node = Node::start(&[guest()]);
    let pod = Pod::default();
    let id = node.run_pod(&pod);
    let guest = node.run((&pod, &id), "guest", &guest(), &["hello", "exit=3"]);
    let code = u64::try_from(shown(3).unwrap()).unwrap();
    assert!(crate::containerd::eventually(|| node.state(&guest) == State::Exited(code)));
    node.prints(&pod, "guest", "word 2: exit=3");
    node.remove(&guest);
    node.remove_pod(&id);
    Ok(())
}

fn asked() -> Result<(), Failed> {
    let node = Node::start(&[qemu()]);
    let pod = Pod::default();
    let id = node.run_pod(&pod);
    let guest = node.run((&pod, &id), "guest", &qemu(), &["hold", "exit=3"]);
    node.prints(&pod, "guest", "holding until told to stop");
    node.stop(&guest, 30);
    node.prints(&pod, "guest", "asked to stop by the power button");
    // isa-debug-exit reports (status << 1) | 1.
    assert_eq!(node.state(&guest), State::Exited(7));
    node.remove_pod(&id);
    Ok(())
}

fn tcp() -> Result<(), Failed> {
    let dir = tempfile::tempdir().unwrap();
    let image = server::image(dir.path());
    let node = Node::start(&[image.clone(), plain()]);
    node.world.write("/etc/urunc/config.toml", server::CONFIG);
    let pod = Pod::default();
    let id = node.run_pod(&pod);
    node.run((&pod, &id), "sidecar", &plain(), IDLE);
    node.run((&pod, &id), "guest", &image, &["/init"]);
    node.prints(&pod, "guest", server::SERVES);
    let address = node.address(&id);
    node.ping(&address);
    server::assert_greets(&node.world, &address, server::PORT);
    node.remove_pod(&id);
    Ok(())
}

/// `shareProcessNamespace`: the monitor is no pid 1.
fn shared() -> Result<(), Failed> {
    let node = Node::start(&[guest(), plain()]);
    let before = node.world.inventory();
    let pod = Pod { pids: Pids::Pod, ..Pod::default() };
    let id = node.run_pod(&pod);
    let sidecar = node.run((&pod, &id), "sidecar", &plain(), IDLE);
    let monitor = node.run((&pod, &id), "guest", &guest(), &["hold"]);
    let (processes, _) = node.exec(&sidecar, &["/bin/busybox", "ps"]).unwrap();
    assert!(processes.contains(guest().monitor), "{processes}");
    node.stop(&monitor, 1);
    assert!(matches!(node.state(&monitor), State::Exited(_)));
    node.remove_pod(&id);
    node.world.assert_as_before_but(&before, &["cni0"]);
    Ok(())
}

fn annotated() -> Result<(), Failed> {
    let image = Image { described: Described::Not, ..guest() };
    let node = Node::start(std::slice::from_ref(&image));
    let annotations = image.annotations();
    let annotations = annotations.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let pod = Pod { annotations, ..Pod::default() };
    let id = node.run_pod(&pod);
    let guest = node.run((&pod, &id), "guest", &image, &["hold"]);
    node.prints(&pod, "guest", "holding until told to stop");
    node.stop(&guest, 1);
    node.remove_pod(&id);
    Ok(())
}

/// Knative's queue-proxy is a sidecar that reaches the user's container in the pod.
fn knative() -> Result<(), Failed> {
    let node = Node::start(&[net(), plain()]);
    let before = node.world.inventory();
    let pod = Pod::default();
    let id = node.run_pod(&pod);
    let proxy = node.run((&pod, &id), "queue-proxy", &plain(), IDLE);
    let guest = node.run((&pod, &id), "user-container", &net(), &["answer", "ip=172.16.1.2"]);
    node.prints(&pod, "user-container", "answering for 172.16.1.2");
    let ping = ["/bin/busybox", "ping", "-c", "2", "-W", "5", "172.16.1.2"];
    let pinged = node.exec(&proxy, &ping);
    assert!(pinged.as_ref().is_some_and(|(_, status)| *status == 0), "{pinged:?}\n{}", node.world.log());
    // The pod's own address stays the pod's.
    node.ping(&node.address(&id));
    node.stop(&guest, 1);
    node.remove_pod(&id);
    node.world.assert_as_before_but(&before, &["cni0"]);
    Ok(())
}

fn fifty() -> Result<(), Failed> {
    // Under QEMU the demo unikernel has no network: there, the pod's is made and removed all the same.
    let image = if Need::Spt.is_met() { net() } else { guest() };
    let node = Node::start(std::slice::from_ref(&image));
    let pod = Pod::default();
    let mut before = Vec::new();
    for round in 0..50 {
        let id = node.run_pod(&pod);
        let words = if Need::Spt.is_met() { answer(&node.address(&id)) } else { ["hold".into(), "x".into()] };
        let guest = node.run((&pod, &id), "guest", &image, &words.each_ref().map(String::as_str));
        assert_eq!(node.state(&guest), State::Running, "round {round}");
        node.stop(&guest, 1);
        node.remove(&guest);
        node.remove_pod(&id);
        if round == 0 {
            // With the bridge, which stays.
            before = node.world.inventory();
        }
    }
    node.world.assert_as_before(&before);
    assert_eq!(node.world.groups("k8s.io"), Vec::<String>::new());
    Ok(())
}

fn failure() -> Result<(), Failed> {
    let node = Node::start(&[guest(), plain()]);
    let pod = Pod::default();
    let id = node.run_pod(&pod);
    let sidecar = node.run((&pod, &id), "sidecar", &plain(), IDLE);
    let before = node.world.inventory();
    let config = format!("[monitors.{}]\npath = \"/nonexistent/monitor\"\n", guest().monitor);
    node.world.write("/etc/urunc/config.toml", config);
    // CRI creates the task when the container is started.
    let failed =
        node.try_create((&pod, &id), &Container::new("guest", &guest().reference(), &["hold"])).unwrap();
    assert!(!node.try_start(&failed));
    assert!(node.world.log().contains("/nonexistent/monitor"), "{}", node.world.log());
    assert!(matches!(node.state(&failed), State::Exited(_)));
    node.remove(&failed);
    node.world.assert_as_before(&before);
    assert_eq!(node.state(&sidecar), State::Running);
    node.world.write("/etc/urunc/config.toml", "");
    let guest = node.run((&pod, &id), "again", &guest(), &["hold"]);
    assert_eq!(node.state(&guest), State::Running);
    node.remove_pod(&id);
    Ok(())
}
