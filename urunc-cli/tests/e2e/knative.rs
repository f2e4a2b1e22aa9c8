//! Knative's user container: its guest has a private address behind the pod's, whose other processes keep receiving.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};

use libtest_mimic::Failed;
use serde_json::json;

use crate::Test;
use crate::network::{Pod, kill, tool};
use crate::network_linux::{
    CONFIGURE, IPV4, MIB, ROUNDS, SERVE, connect, md5, networked, noise, outside, receive, within,
};
use crate::scene::{Bundle, Need, Scene, eventually, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "network::a_knative_guest_is_behind_the_pods_address",
        needs: &[Need::Root, Need::Linux],
        run: behind,
    },
    Test {
        name: "network::a_knative_guest_that_starts_again_leaves_nothing",
        needs: &[Need::Root, Need::Qemu],
        run: again,
    },
];

/// `STATIC_GUEST` of urunc-netns.
const GUEST: &str = "172.16.1.2";
/// The other end of the pod's wire.
const WORLD: &str = "10.77.0.1";

/// The pod's inventory, and what static mode changes besides.
fn inventory(pod: &Pod) -> Vec<String> {
    let namespace = format!("--net={}", pod.path().display());
    let mut all = pod.inventory();
    let rules = tool("nsenter", &[&namespace, "nft", "list", "ruleset"]);
    let switches = "grep -H . /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/ip_forward";
    let switches = tool("nsenter", &[&namespace, "sh", "-c", switches]);
    all.extend(rules.lines().chain(switches.lines()).map(str::to_owned));
    all
}

fn masquerades(pod: &Pod) -> usize {
    inventory(pod).iter().filter(|line| line.contains("masquerade")).count()
}

fn user_container(pod: &Pod, bundle: &Bundle) {
    pod.join(bundle);
    bundle.edit(|spec| spec["annotations"]["io.kubernetes.cri.container-name"] = json!("user-container"));
}

/// N12 to N14: 100 MB from the guest into the pod, as the queue proxy takes it; as much from the world into the guest,
/// through the masquerade; and the pod itself still answers.
fn behind() -> Result<(), Failed> {
    let scene = Scene::new();
    let pod = Pod::new(&scene);
    let data = noise(4 * MIB);
    let client = format!(
        "say \"ping: $(try /bin/busybox ping -q -c 3 {WORLD} | /bin/busybox tail -n 1)\"\n\
         say \"fetched: $(/bin/busybox nc {WORLD} 7000 </dev/null | /bin/busybox md5sum)\"\n"
    );
    let bundle = networked(&scene, &format!("{CONFIGURE}{client}{SERVE}"), &data);
    user_container(&pod, &bundle);
    let before = inventory(&pod);
    let world = outside(&pod, || TcpListener::bind((WORLD, 7000)).unwrap());
    let proxy = within(&pod.path(), || TcpListener::bind(("0.0.0.0", 8012)).unwrap());
    scene.create_ok(&bundle, "guest");
    scene.ok(&["start", "guest"]);
    let (mut stream, from) = world.accept().unwrap();
    assert_eq!(from.ip(), IPV4.parse::<IpAddr>().unwrap(), "the guest's own address got out");
    for _ in 0..ROUNDS {
        stream.write_all(&data).unwrap();
    }
    drop(stream);
    let says = |line: &str| scene.console().replace('\r', "").contains(&format!("guest: {line}\n"));
    assert!(eventually(|| says("serving")), "{}", scene.console());
    for line in [
        "told: 172.16.1.2 255.255.255.0 172.16.1.1",
        "mtu: 1500",
        "ping: yes",
        &format!("fetched: {}  -", md5(&scene.path("sent"), &data, ROUNDS)),
    ] {
        assert!(says(line), "{line}: {}", scene.console());
    }
    assert_eq!(within(&pod.path(), || receive(GUEST, &data)), ROUNDS * data.len());
    // What is for the pod stays in the pod.
    let caller = std::thread::scope(|scope| {
        let caller = scope.spawn(|| outside(&pod, || connect_and_read(IPV4)));
        proxy.accept().unwrap().0.write_all(b"queue proxy").unwrap();
        caller.join().unwrap()
    });
    assert_eq!(caller, "queue proxy");
    let pid = scene.pid("guest");
    scene.ok(&["kill", "guest", "KILL"]);
    reap(pid);
    assert_eq!(inventory(&pod), before, "after kill");
    scene.ok(&["delete", "guest"]);
    scene.assert_clean();
    passed()
}

fn connect_and_read(address: &str) -> String {
    let mut text = String::new();
    let mut stream: TcpStream = connect(address, 8012);
    stream.read_to_string(&mut text).unwrap();
    text
}

/// N12: each start added another rule, and none was ever removed.
fn again() -> Result<(), Failed> {
    let scene = Scene::new();
    let pod = Pod::new(&scene);
    let bundle = scene.qemu(&["hold"]);
    user_container(&pod, &bundle);
    let before = inventory(&pod);
    // Killed from outside: the next one's start releases it first.
    for id in ["first", "second", "third"] {
        scene.create_ok(&bundle, id);
        scene.ok(&["start", id]);
        assert_eq!(masquerades(&pod), 1, "{id}");
        if id != "third" {
            let pid = scene.pid(id);
            kill(pid);
            reap(pid);
        }
    }
    let held = inventory(&pod);
    for id in ["first", "second"] {
        scene.ok(&["delete", id]);
        assert_eq!(inventory(&pod), held, "{id}");
    }
    scene.ok(&["delete", "--force", "third"]);
    assert_eq!(inventory(&pod), before);
    // The same container twice, with a regular end.
    for _ in 0..2 {
        scene.create_ok(&bundle, "same");
        scene.ok(&["start", "same"]);
        let pid = scene.pid("same");
        scene.ok(&["kill", "same", "KILL"]);
        reap(pid);
        assert_eq!(inventory(&pod), before);
        scene.ok(&["delete", "same"]);
    }
    scene.assert_clean();
    passed()
}
