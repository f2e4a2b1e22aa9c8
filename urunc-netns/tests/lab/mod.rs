//! The laboratory of this crate's tests: network namespaces that vanish with the test, and iproute2 in them as
//! the oracle. It uses nothing of the crate but the type that a test is about, so it cannot share its errors.
#![allow(dead_code, reason = "each test binary uses its part of the laboratory")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use urunc_netns::NetNs;

/// Says whether the test can run here. If not, it says why on standard error, and fails if `URUNC_REQUIRE`
/// wants what is missing.
#[must_use]
pub(crate) fn ready() -> bool {
    needs(&[("root", rustix::process::geteuid().is_root()), ("tun", File::open("/dev/net/tun").is_ok())])
        && needs(&["ip", "tc", "nsenter", "unshare"].map(|program| (program, has(program))))
}

/// As [`ready`], for conditions of one's own.
#[must_use]
pub(crate) fn needs(conditions: &[(&str, bool)]) -> bool {
    let Some((missing, _)) = conditions.iter().find(|(_, met)| !met) else { return true };
    let required = std::env::var("URUNC_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|word| word == *missing), "required and missing: {missing}");
    // Past the test harness, which keeps the output of tests that pass to itself.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped: needs {missing}").unwrap();
    false
}

pub(crate) fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// How long to wait for what must happen, however slow the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a condition, which must become true.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// A fresh network namespace, alive as long as this value.
#[derive(Debug)]
pub(crate) struct Lab {
    namespace: OwnedFd,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        holder.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let namespace = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap().into();
        end(holder);
        let lab = Lab { namespace };
        // No addresses that come by themselves, and none that wait for duplicates: dumps stay comparable.
        lab.sh("for i in all default; do
                    echo 1 >/proc/sys/net/ipv6/conf/$i/addr_gen_mode
                    echo 0 >/proc/sys/net/ipv6/conf/$i/accept_dad
                done
                ip link set lo up");
        lab
    }

    /// A path that leads to the namespace from anywhere.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_fd().as_raw_fd()).into()
    }

    pub(crate) fn netns(&self) -> NetNs {
        NetNs::open(self.path()).unwrap()
    }

    /// Runs a shell script in the namespace and gives back what it prints. It must succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.command("sh").args(["-euc", script]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A program about to be started in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }

    /// Everything that this crate could have changed, as iproute2 sees it. A link may vanish while it looks.
    pub(crate) fn dump(&self) -> String {
        self.sh(
            "ip -j -d link; ip -j -d addr; ip -j -d route show table all; ip -j -6 -d route show table all
             tc -j -d qdisc
             for link in $(ip -o link | cut -d: -f2 | cut -d@ -f1); do
                 echo $link: $(cat /proc/sys/net/ipv4/conf/$link/forwarding)
                 tc -j -d filter show dev $link ingress 2>&1 || :; tc -j -d filter show dev $link egress 2>&1 || :
             done
             cat /proc/sys/net/ipv4/ip_forward
             if command -v nft >/dev/null; then nft -j list ruleset; fi",
        )
    }
}

/// Compares two dumps and shows no more than what differs.
#[track_caller]
pub(crate) fn same(after: &str, before: &str) {
    let pieces = |text: &str| text.replace("},{", "},\n{").lines().map(str::to_owned).collect::<Vec<_>>();
    let (after, before) = (pieces(after), pieces(before));
    let only = |a: &[String], b: &[String]| a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>();
    let (appeared, vanished) = (only(&after, &before), only(&before, &after));
    let first = after.iter().zip(&before).find(|(a, b)| a != b);
    assert!(
        after == before,
        "first difference: {first:#?}\nappeared: {appeared:#?}\nvanished: {vanished:#?}"
    );
}

/// Waits until a namespace is as it was before. A TAP device goes with the last copy of its descriptor, and what
/// another thread of the test starts has one until it executes its program.
#[track_caller]
pub(crate) fn restored(lab: &Lab, before: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut after = lab.dump();
    while after != before && Instant::now() < deadline {
        after = lab.dump();
    }
    same(&after, before);
}

/// Kills a process of ours and waits for it.
pub(crate) fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A pod's namespace with `eth0`, whose other end `peer` is in a namespace of its own: 10.9.0.2/24 and
/// fd09::2/64 inside, .1 outside, which is also the gateway.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) inside: Lab,
    pub(crate) outside: Lab,
}

impl Pod {
    pub(crate) fn new() -> Pod {
        Pod::with_mtu(1500)
    }

    pub(crate) fn with_mtu(mtu: u32) -> Pod {
        let (inside, outside) = (Lab::new(), Lab::new());
        inside.sh(&format!(
            "ip link add eth0 mtu {mtu} address 02:00:00:00:09:02 type veth \
                 peer name peer mtu {mtu} address 02:00:00:00:09:01 netns {}",
            outside.path().display()
        ));
        outside.sh("ip addr add 10.9.0.1/24 dev peer; ip addr add fd09::1/64 dev peer; ip link set peer up");
        inside.sh("ip addr add 10.9.0.2/24 dev eth0; ip addr add fd09::2/64 dev eth0; ip link set eth0 up
             ip route add default via 10.9.0.1; ip -6 route add default via fd09::1");
        until("eth0 has its carrier and its addresses", || {
            let state = inside.sh("ip -j addr show eth0; ip -6 route show table local");
            let settled = state.contains(r#""operstate":"UP""#) && !state.contains("tentative");
            settled && state.contains("local fd09::2")
        });
        Pod { inside, outside }
    }
}
