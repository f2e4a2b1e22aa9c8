//! The guest's network, in a pod's namespace that the test makes: attached by start, gone after every kind of end.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use libtest_mimic::Failed;
use serde_json::json;

use crate::Test;
use crate::scene::{Bundle, Need, Scene, describe, eventually, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "network::a_solo5_guest_answers_ping", needs: &[Need::Root, Need::Spt], run: ping_spt },
    Test { name: "network::an_hvt_guest_answers_ping", needs: &[Need::Root, Need::Hvt], run: ping_hvt },
    Test {
        name: "network::a_guest_in_a_user_namespace_answers_ping",
        needs: &[Need::Root, Need::Spt],
        run: ping_mapped,
    },
    Test {
        name: "network::qemu_takes_the_tap",
        needs: &[Need::Root, Need::Qemu],
        run: || takes_the_tap("qemu"),
    },
    Test {
        name: "network::firecracker_takes_the_tap",
        needs: &[Need::Root, Need::Firecracker],
        run: || takes_the_tap("firecracker"),
    },
    Test {
        name: "network::cloud_hypervisor_takes_the_tap",
        needs: &[Need::Root, Need::CloudHypervisor],
        run: || takes_the_tap("cloud-hypervisor"),
    },
    Test {
        name: "network::a_route_that_does_not_reach_the_guest_is_a_warning",
        needs: &[Need::Root],
        run: left_out,
    },
    Test { name: "network::every_end_leaves_the_namespace_as_it_was", needs: &[Need::Root], run: every_end },
    Test { name: "network::500_starts_and_kills_leave_nothing", needs: &[Need::Root], run: cycles },
    Test {
        name: "network::500_starts_and_deaths_leave_nothing",
        needs: &[Need::Root],
        run: cycles_from_outside,
    },
    Test {
        name: "network::a_second_guest_is_refused_and_the_first_lives_on",
        needs: &[Need::Root],
        run: second,
    },
    Test {
        name: "network::what_a_dead_guest_left_does_not_block_the_next",
        needs: &[Need::Root],
        run: after_death,
    },
    Test { name: "network::the_hosts_network_is_never_touched", needs: &[Need::Root], run: host_network },
    Test { name: "network::a_vanished_namespace_does_not_stop_delete", needs: &[Need::Root], run: vanished },
    Test { name: "network::what_comes_back_is_refused_in_the_end", needs: &[Need::Root], run: comes_back },
    Test {
        name: "network::a_name_server_that_the_guest_cannot_have_is_named",
        needs: &[Need::Root],
        run: name_servers,
    },
    Test {
        name: "network::a_pinned_namespace_is_cleaned_after_its_process_has_gone",
        needs: &[Need::Root],
        run: pinned,
    },
    Test {
        name: "network::a_namespace_joined_through_a_process_is_cleaned_after_that_has_gone",
        needs: &[Need::Root],
        run: joined_through_a_process,
    },
];

/// A pod's network: a namespace with `eth0`, and another one with the other end of the wire.
pub(crate) struct Pod {
    name: String,
}

impl Pod {
    pub(crate) fn new(scene: &Scene) -> Self {
        let pod = Self { name: format!("urunc-e2e-{}", scene.uid) };
        tool("ip", &["netns", "add", &pod.name]);
        pod.wired()
    }

    /// In the namespace of a process, which it pins as engines do: by a mount.
    fn of_process(scene: &Scene, pid: i64) -> Self {
        let pod = Self { name: format!("urunc-e2e-{}", scene.uid) };
        pod.attach(pid);
        pod.wired()
    }

    fn attach(&self, pid: i64) {
        tool("ip", &["netns", "attach", &self.name, &pid.to_string()]);
    }

    fn wired(self) -> Self {
        let pod = self;
        let (inside, outside) = (pod.name.clone(), pod.peer());
        for line in [
            format!("netns add {outside}"),
            format!("-n {inside} link add eth0 type veth peer name eth0 netns {outside}"),
            format!("-n {inside} address add 10.77.0.2/24 dev eth0"),
            format!("-n {outside} address add 10.77.0.1/24 dev eth0"),
            format!("-n {inside} link set lo up"),
            format!("-n {inside} link set eth0 up"),
            format!("-n {outside} link set eth0 up"),
            format!("-n {inside} route add default via 10.77.0.1"),
        ] {
            tool("ip", &line.split(' ').collect::<Vec<_>>());
        }
        // The kernel needs a moment until the link is up and has its own address; both belong to the first inventory.
        let settled = |text: &str| {
            text.contains("inet6 fe80") && !text.contains("tentative") && !text.contains("NO-CARRIER")
        };
        assert!(eventually(|| settled(&tool("ip", &["-n", &inside, "address", "show", "eth0"]))));
        assert!(eventually(|| !tool("ip", &["-n", &inside, "route"]).contains("linkdown")));
        pod
    }

    pub(crate) fn peer(&self) -> String {
        format!("{}-p", self.name)
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Gives it IPv6 as well.
    pub(crate) fn ipv6(&self) {
        let (inside, outside) = (&self.name, self.peer());
        for line in [
            format!("-n {inside} address add fd77::2/64 dev eth0 nodad"),
            format!("-n {outside} address add fd77::1/64 dev eth0 nodad"),
            format!("-n {inside} route add default via fd77::1"),
        ] {
            tool("ip", &line.split(' ').collect::<Vec<_>>());
        }
    }

    /// Takes the addresses and routes of IPv4 away.
    pub(crate) fn without_ipv4(&self) {
        tool("ip", &["-n", &self.name, "-4", "address", "flush", "dev", "eth0"]);
    }

    pub(crate) fn mtu(&self, mtu: usize) {
        for name in [self.name.clone(), self.peer()] {
            tool("ip", &["-n", &name, "link", "set", "eth0", "mtu", &mtu.to_string()]);
        }
    }

    /// Everything that could be left: links, addresses, routes, qdiscs, filters.
    pub(crate) fn inventory(&self) -> Vec<String> {
        let ip = self.questions("ip", &["-d"], "link\naddress\nroute\n");
        let tc = self.questions("tc", &[], "qdisc show\nfilter show dev eth0 ingress\n");
        ip.lines().chain(tc.lines()).map(str::to_owned).collect()
    }

    /// Several questions to one process: this is asked after each of hundreds of cycles.
    fn questions(&self, program: &str, options: &[&str], lines: &str) -> String {
        let mut asked = Command::new(program)
            .args(options)
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        asked.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = asked.wait_with_output().unwrap();
        assert!(output.status.success(), "{program}: {}", describe(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn join(&self, bundle: &Bundle) {
        bundle.edit(|spec| {
            spec["linux"]["namespaces"] =
                json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "network", "path": self.path()}]);
        });
    }

    fn ping(&self) {
        let namespace = format!("--net=/run/netns/{}", self.peer());
        let words = [&namespace, "ping", "-c", "3", "-i", "0.1", "-W", "2", "10.77.0.2"];
        let answered = eventually(|| Command::new("nsenter").args(words).output().unwrap().status.success());
        assert!(answered, "nobody answers ping");
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for name in [self.peer(), self.name.clone()] {
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}

pub(crate) fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", describe(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A scene with a pod, and a fake QEMU that just holds what it inherits.
fn scene() -> (Scene, Pod, Bundle) {
    let scene = Scene::new();
    let script = scene.script("exec sleep 1000");
    scene.configure(&format!("[monitors.qemu]\npath = {:?}\n", script.to_str().unwrap()));
    let pod = Pod::new(&scene);
    let bundle = scene.qemu(&[]);
    pod.join(&bundle);
    (scene, pod, bundle)
}

/// Whose ids the monitor has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Users {
    /// The host's.
    Host,
    /// Those of a user namespace; the network's belongs to the host, as Podman makes it.
    Mapped,
}

fn ping(monitor: &str, kernel: &str, users: Users) -> Result<(), Failed> {
    let scene = Scene::new();
    let pod = Pod::new(&scene);
    let bundle = scene.bundle("bundle", monitor, kernel, &["answer", "ip=10.77.0.2"]);
    pod.join(&bundle);
    if users == Users::Mapped {
        crate::sandbox::map_ids(&bundle, scene.uid);
        bundle.edit(|spec| spec["process"]["user"] = json!({"uid": 0, "gid": 0}));
    }
    let before = pod.inventory();
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    pod.ping();
    assert_ne!(pod.inventory(), before);
    // The device ends with the monitor, though the monitor has opened it by name.
    let pid = scene.pid("c");
    scene.ok(&["kill", "c", "KILL"]);
    reap(pid);
    assert_eq!(pod.inventory(), before, "after kill");
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

fn ping_spt() -> Result<(), Failed> {
    ping("spt", "demo-net-spt", Users::Host)
}

/// The device node, the TAP that is opened by name, and its owner, in a user namespace.
fn ping_mapped() -> Result<(), Failed> {
    ping("spt", "demo-net-spt", Users::Mapped)
}

fn ping_hvt() -> Result<(), Failed> {
    ping("hvt", "demo-net", Users::Host)
}

/// Cloud Hypervisor ended at once: it was told an MTU, and may not set one. Its smallest was 1280, which not every pod has.
fn takes_the_tap(monitor: &str) -> Result<(), Failed> {
    let scene = Scene::new();
    let pod = Pod::new(&scene);
    pod.mtu(1000);
    let bundle = scene.bundle("bundle", monitor, "demo", &["hold"]);
    pod.join(&bundle);
    let before = pod.inventory();
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    assert!(eventually(|| scene.console().contains("holding")), "{}", scene.console());
    let pid = scene.pid("c");
    assert_ne!(taps(pid), 0);
    scene.ok(&["kill", "c", "KILL"]);
    reap(pid);
    assert_eq!(pod.inventory(), before);
    passed()
}

fn left_out() -> Result<(), Failed> {
    let (scene, pod, bundle) = scene();
    tool("ip", &["-n", &pod.name, "route", "add", "10.96.0.0/12", "via", "10.77.0.1"]);
    scene.create_ok(&bundle, "c");
    let output = scene.urunc(&["start", "c"]);
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}", describe(&output));
    assert!(
        warnings.contains("the route to 10.96.0.0/12 via 10.77.0.1 does not reach the guest"),
        "{warnings}"
    );
    // What follows from the address and the gateway is no loss.
    assert_eq!(warnings.matches("does not reach").count(), 1, "{warnings}");
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

/// How many TAP devices a process has open.
fn taps(pid: i64) -> usize {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "/dev/net/tun")).count()
}

/// F3, N5: whichever way a container ends, the namespace is as it was.
fn every_end() -> Result<(), Failed> {
    let (scene, pod, bundle) = scene();
    let before = pod.inventory();
    type End = fn(&Scene, i64);
    let ends: [(&str, End); 5] = [
        ("kill", |scene, _| drop(scene.ok(&["kill", "c", "KILL"]))),
        ("killed from outside, then kill", |scene, pid| {
            kill(pid);
            reap(pid);
            scene.ok(&["kill", "c", "TERM"]);
        }),
        ("killed from outside and not waited for, then kill", |scene, pid| {
            kill(pid);
            let stat = format!("/proc/{pid}/stat");
            assert!(eventually(|| fs::read_to_string(&stat).unwrap().contains(") Z ")));
            scene.ok(&["kill", "c", "TERM"]);
        }),
        ("killed from outside, then delete", |scene, pid| {
            kill(pid);
            reap(pid);
            scene.ok(&["delete", "c"]);
        }),
        ("delete --force", |scene, _| drop(scene.ok(&["delete", "--force", "c"]))),
    ];
    for (what, end) in ends {
        scene.create_ok(&bundle, "c");
        scene.ok(&["start", "c"]);
        let pid = scene.pid("c");
        assert_ne!(pod.inventory(), before, "{what}: nothing was attached");
        end(&scene, pid);
        assert_eq!(pod.inventory(), before, "{what}");
        scene.ok(&["delete", "--force", "c"]);
    }
    // A start that fails after the network was attached.
    fs::write(scene.path("monitor.sh"), "no program\n").unwrap();
    scene.create_ok(&bundle, "c");
    let message = scene.fails(&["start", "c"]);
    assert!(message.contains("Exec format error"), "{message}");
    assert_eq!(pod.inventory(), before, "failed start");
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

/// Upstream issues 406, 476, 938: crash loops filled the pod's namespace.
fn cycles() -> Result<(), Failed> {
    five_hundred(|scene, pid, _| {
        scene.ok(&["kill", "c", "KILL"]);
        reap(pid);
    })
}

/// The same where the monitor was killed by somebody else, and whichever command comes first cleans up.
fn cycles_from_outside() -> Result<(), Failed> {
    five_hundred(|scene, pid, round| {
        kill(pid);
        reap(pid);
        let command: &[&str] = if round % 2 == 0 { &["kill", "c", "TERM"] } else { &["delete", "c"] };
        scene.ok(command);
    })
}

fn five_hundred(end: fn(&Scene, i64, usize)) -> Result<(), Failed> {
    let (scene, pod, bundle) = scene();
    let before = pod.inventory();
    for round in 0..500 {
        scene.create_ok(&bundle, "c");
        scene.ok(&["start", "c"]);
        end(&scene, scene.pid("c"), round);
        assert_eq!(pod.inventory(), before, "cycle {round}");
        scene.ok(&["delete", "--force", "c"]);
    }
    assert_eq!(pod.inventory(), before);
    scene.assert_clean();
    passed()
}

/// B7, N8: two guests in one namespace never disturb each other.
fn second() -> Result<(), Failed> {
    let (scene, pod, bundle) = scene();
    let before = pod.inventory();
    scene.create_ok(&bundle, "first");
    scene.ok(&["start", "first"]);
    let held = pod.inventory();
    scene.create_ok(&bundle, "second");
    let message = scene.fails(&["start", "second"]);
    assert!(message.contains("first") && message.contains("eth0"), "{message}");
    assert_eq!(pod.inventory(), held);
    scene.ok(&["delete", "--force", "second"]);
    assert_eq!(pod.inventory(), held);
    assert_eq!(scene.status("first"), "running");
    scene.ok(&["delete", "--force", "first"]);
    assert_eq!(pod.inventory(), before);
    passed()
}

/// The filter of a dead guest black-holes the pod's interface until somebody removes it: the next start does.
fn after_death() -> Result<(), Failed> {
    let (scene, pod, bundle) = scene();
    let before = pod.inventory();
    scene.create_ok(&bundle, "first");
    scene.ok(&["start", "first"]);
    let pid = scene.pid("first");
    kill(pid);
    reap(pid);
    scene.create_ok(&bundle, "second");
    scene.ok(&["start", "second"]);
    assert_eq!(scene.status("second"), "running");
    // Deleting the first one now must not touch what the second one has.
    let held = pod.inventory();
    scene.ok(&["delete", "first"]);
    assert_eq!(pod.inventory(), held);
    scene.ok(&["delete", "--force", "second"]);
    assert_eq!(pod.inventory(), before);
    passed()
}

/// A filter that bears the container's own mark, and that nobody but the one who put it there can remove. Looking again was
/// without end.
fn comes_back() -> Result<(), Failed> {
    let (scene, pod, bundle) = scene();
    let mark = urunc_netns::Owner::new("c", &fs::canonicalize(scene.root()).unwrap()).mark();
    tool("tc", &["-n", &pod.name, "qdisc", "add", "dev", "eth0", "ingress"]);
    // Of another protocol than ours: then "delete all of this priority" means others.
    let filter = format!(
        "-n {} filter add dev eth0 ingress pref 30066 protocol ip u32 match u32 0 0 \
         action mirred egress redirect dev lo cookie {mark}",
        pod.name
    );
    tool("tc", &filter.split_ascii_whitespace().collect::<Vec<_>>());
    let before = pod.inventory();
    scene.create_ok(&bundle, "c");
    let message = scene.fails(&["start", "c"]);
    assert!(message.contains("eth0 is held by") && message.contains(&mark.to_string()), "{message}");
    assert_eq!(pod.inventory(), before);
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

fn name_servers() -> Result<(), Failed> {
    let (scene, _pod, bundle) = scene();
    let file = scene.path("resolv.conf");
    fs::write(&file, "nameserver 10.77.0.1\nnameserver fe80::1%eth0\n").unwrap();
    bundle.edit(|spec| {
        spec["mounts"] = json!([{"destination": "/etc/resolv.conf", "type": "bind", "source": file,
            "options": ["rbind", "ro"]}]);
    });
    let start = || {
        scene.create_ok(&bundle, "c");
        let output = scene.urunc(&["start", "c"]);
        assert!(output.status.success(), "{}", describe(&output));
        scene.ok(&["delete", "--force", "c"]);
        String::from_utf8(output.stderr).unwrap()
    };
    let said = start();
    assert!(said.contains("\"fe80::1%eth0\"") && !said.contains("10.77.0.1"), "{said}");
    fs::write(&file, "nameserver 10.77.0.1\n").unwrap();
    assert_eq!(start(), "");
    passed()
}

/// N1
fn host_network() -> Result<(), Failed> {
    let (scene, _pod, bundle) = scene();
    bundle.edit(|spec| {
        spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts"}])
    });
    let message = scene.fails(&["create", "--bundle", bundle.str(), "c"]);
    assert!(message.contains("network namespace") && message.contains("host_network"), "{message}");
    // The same by path: found out where it can be, at start.
    bundle.edit(|spec| {
        spec["linux"]["namespaces"] =
            json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "network", "path": format!("/proc/{}/ns/net", std::process::id())}]);
    });
    scene.create_ok(&bundle, "c");
    let message = scene.fails(&["start", "c"]);
    assert!(message.contains("host's own network namespace"), "{message}");
    scene.ok(&["delete", "c"]);
    // If it is configured so, the guest runs without network.
    let script = scene.script("exec sleep 1000");
    scene.configure(&format!(
        "[runtime]\nhost_network = \"none\"\n[monitors.qemu]\npath = {:?}\n",
        script.to_str().unwrap()
    ));
    bundle.edit(|spec| {
        spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts"}])
    });
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    assert_eq!(taps(scene.pid("c")), 0);
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

/// N3, B6
fn vanished() -> Result<(), Failed> {
    let (scene, pod, bundle) = scene();
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    let pid = scene.pid("c");
    kill(pid);
    reap(pid);
    drop(pod);
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

/// What keeps a container's own namespace when the container has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    /// A mount.
    Mount,
    /// A process that has joined it.
    Neighbour,
}

/// N3: a namespace without a path was taken for gone with its process. Then the interface went on swallowing everything,
/// for whoever had it pinned, and both commands said that all was well.
fn pinned() -> Result<(), Failed> {
    for pin in [Pin::Mount, Pin::Neighbour] {
        let scene = Scene::new();
        let script = scene.script("exec sleep 1000");
        scene.configure(&format!("[monitors.qemu]\npath = {:?}\n", script.to_str().unwrap()));
        scene.create_ok(&scene.qemu(&[]), "c");
        let pid = scene.pid("c");
        let pod = Pod::of_process(&scene, pid);
        let before = pod.inventory();
        scene.ok(&["start", "c"]);
        assert_ne!(pod.inventory(), before, "{pin:?}: nothing was attached");
        let mut neighbour = neighbour(&pod);
        if pin == Pin::Neighbour {
            tool("ip", &["netns", "delete", &pod.name]);
        }
        kill(pid);
        reap(pid);
        scene.ok(&["kill", "c", "TERM"]);
        if pin == Pin::Neighbour {
            pod.attach(neighbour.id().into());
        }
        assert_eq!(pod.inventory(), before, "{pin:?}");
        neighbour.kill().unwrap();
        neighbour.wait().unwrap();
        scene.ok(&["delete", "c"]);
        scene.assert_clean();
    }
    passed()
}

/// The same where the path led through a process that has ended since.
fn joined_through_a_process() -> Result<(), Failed> {
    let (scene, pod, bundle) = scene();
    let mut neighbour = neighbour(&pod);
    bundle.edit(|spec| {
        spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts"},
            {"type": "network", "path": format!("/proc/{}/ns/net", neighbour.id())}]);
    });
    let before = pod.inventory();
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    assert_ne!(pod.inventory(), before, "nothing was attached");
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
    scene.ok(&["delete", "--force", "c"]);
    assert_eq!(pod.inventory(), before);
    scene.assert_clean();
    passed()
}

/// A process that lives in the pod's namespace.
fn neighbour(pod: &Pod) -> Child {
    let namespace = format!("--net={}", pod.path().display());
    let words = [&namespace, "sh", "-c", "echo; exec sleep 1000"];
    let mut child = Command::new("nsenter").args(words).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

pub(crate) fn kill(pid: i64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
