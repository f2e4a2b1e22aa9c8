//! The namespaces of a pod, as a container manager makes them: network (with an address and a default route on `eth0`),
//! IPC and UTS, held by bind mounts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use serde_json::{Value, json};

use crate::scene::in_path;

/// The namespaces of one pod. They go with this process's mount namespace.
#[derive(Debug)]
pub(crate) struct Pod {
    directory: PathBuf,
}

const KINDS: [(&str, &str); 3] = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];

impl Pod {
    /// Whether the tools are there that set up and list its network.
    pub(crate) fn is_possible() -> bool {
        ["ip", "tc", "nft"].iter().all(|tool| in_path(tool).is_some())
    }

    pub(crate) fn new(directory: &Path) -> Self {
        std::fs::create_dir(directory).unwrap();
        for (_, file) in KINDS {
            File::create(directory.join(file)).unwrap();
        }
        let pod = Self { directory: directory.to_owned() };
        pod.make();
        pod
    }

    /// Makes its namespaces, as they are at first.
    pub(crate) fn make(&self) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let flags = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
                #[allow(unsafe_code, reason = "the function cannot know that the flags are harmless")]
                // SAFETY: no descriptor table is unshared.
                unsafe { unshare_unsafe(flags) }.unwrap();
                for (_, file) in KINDS {
                    mount_bind(format!("/proc/thread-self/ns/{file}"), self.directory.join(file)).unwrap();
                }
                run("ip link add eth0 type veth peer name other");
                run("ip link set lo up");
                run("ip link set eth0 address 02:00:00:00:00:07");
                run("ip link set other address 02:00:00:00:00:08");
                run("ip link set other up");
                run("ip link set eth0 up");
                run("ip addr add 10.7.0.2/24 dev eth0");
                run("ip route add default via 10.7.0.1");
                // The kernel reports the carrier a moment later.
                run("sh -c 'until ip link show eth0 | grep -q state.UP; do sleep 0.01; done'");
                run("sh -c 'while ip route | grep -q linkdown; do sleep 0.01; done'");
            });
        });
    }

    /// Its namespaces as the specification lists them, with new ones of the other kinds.
    pub(crate) fn namespaces(&self) -> Value {
        let joined =
            KINDS.map(|(kind, file)| json!({"type": kind, "path": self.directory.join(file).to_str()}));
        let new = ["pid", "mount"].map(|kind| json!({"type": kind}));
        Value::from([joined.as_slice(), new.as_slice()].concat())
    }

    /// Takes its namespaces away: with their last process they are gone.
    pub(crate) fn remove(&self) {
        for (_, file) in KINDS {
            unmount(self.directory.join(file), UnmountFlags::empty()).unwrap();
        }
    }

    /// Its links, addresses, routes, queueing disciplines, filters and nftables objects.
    pub(crate) fn network(&self) -> String {
        std::thread::scope(|scope| {
            let listing = scope.spawn(|| {
                let namespace = File::open(self.directory.join("net")).unwrap();
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )
                .unwrap();
                run("ip -o link; ip -o -4 addr; ip route; tc qdisc; tc filter show dev eth0 ingress; \
                     tc filter show dev eth0 parent ffff:; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward")
            });
            listing.join().unwrap()
        })
    }
}

/// Runs a shell command in the calling thread's namespaces.
fn run(script: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}
