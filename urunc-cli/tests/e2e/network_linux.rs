//! Real traffic through the redirect: a Linux guest with the stock kernel and its virtio drivers answers ping and moves
//! a hundred megabytes each way, over both families, with ordinary and large packets.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;
use crate::linux;
use crate::network::{Pod, tool};
use crate::scene::{Bundle, Need, Scene, describe, eventually, passed, reap, stock_kernel};

const LINUX: &[Need] = &[Need::Root, Need::Linux];

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "network::a_linux_guest_moves_100_mb_each_way_with_an_mtu_of_1500",
        needs: LINUX,
        run: || traffic(1500),
    },
    Test {
        name: "network::a_linux_guest_moves_100_mb_each_way_with_an_mtu_of_9000",
        needs: LINUX,
        run: || traffic(9000),
    },
    Test { name: "network::a_linux_guest_lives_in_an_ipv6_only_pod", needs: LINUX, run: only_ipv6 },
];

pub(crate) const MIB: usize = 1 << 20;
/// What the guest serves is this often a file of 4 MiB.
pub(crate) const ROUNDS: usize = 25;
pub(crate) const IPV4: &str = "10.77.0.2";
const IPV6: &str = "fd77::2";

/// How a guest gets on the network: `ip=` and the variables are what the runtime told it.
pub(crate) const CONFIGURE: &str = r#"
ip() { /bin/busybox ip "$@"; }
parameter() { /bin/busybox tr ' ' '\n' </proc/cmdline | /bin/busybox sed -n "s/^$1=//p"; }
/bin/busybox mkdir -p /sys
/bin/busybox mount -t sysfs sysfs /sys
IFS=: read -r address _ gateway mask _ <<end
$(parameter ip)
end
say "told: $address $mask $gateway"
say "told: $URUNC_IPV6 $URUNC_IPV6_GATEWAY"
say "mtu: $(show /sys/class/net/eth0/mtu)"
put /proc/sys/net/ipv6/conf/eth0/accept_dad 0
ip link set eth0 up
if [ -n "$address" ]; then
  /bin/busybox ifconfig eth0 "$address" netmask "$mask"
  ip route add default via "$gateway"
fi
for address in $(/bin/busybox echo "$URUNC_IPV6" | /bin/busybox tr , ' '); do ip -6 address add "$address" dev eth0; done
[ -z "$URUNC_IPV6_GATEWAY" ] || ip -6 route add default via "$URUNC_IPV6_GATEWAY"
"#;
/// And serves.
pub(crate) const SERVE: &str = r#"
/bin/busybox nc -ll -p 5000 -e /send &
/bin/busybox nc -ll -p 5001 -e /receive &
say serving
# Until somebody calls.
/bin/busybox nc -l -p 5002 </dev/null
"#;
const SEND: &[u8] =
    b"#!/bin/busybox sh\ni=0; while [ $i -lt 25 ]; do /bin/busybox cat /data; i=$((i + 1)); done\n";
const RECEIVE: &[u8] = b"#!/bin/busybox sh\nexec /bin/busybox md5sum\n";

/// Bytes that follow no pattern, and are always the same (xorshift64).
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

/// A bundle with a guest that does what `script` says, with the network's drivers and `data`.
pub(crate) fn networked(scene: &Scene, script: &str, data: &[u8]) -> Bundle {
    let bundle = linux::bundle(scene, "/init");
    bundle.annotate("initrd", "/boot/initrd");
    let boot = bundle.path.join("rootfs/boot");
    fs::copy(stock_kernel(), boot.join("vmlinuz")).unwrap();
    let more: [(&str, &[u8]); 3] = [("send", SEND), ("receive", RECEIVE), ("data", data)];
    fs::write(boot.join("initrd"), linux::initrd_with(linux::NETWORK, &more, script)).unwrap();
    bundle
}

/// Runs `client` on a thread in the network namespace at the other end of the wire.
pub(crate) fn outside<T: Send>(pod: &Pod, client: impl FnOnce() -> T + Send) -> T {
    within(&Path::new("/run/netns").join(pod.peer()), client)
}

/// Runs `client` on a thread in a network namespace.
pub(crate) fn within<T: Send>(namespace: &Path, client: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).unwrap();
            client()
        });
        thread.join().unwrap()
    })
}

pub(crate) fn connect(address: &str, port: u16) -> TcpStream {
    let address = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
    let mut stream = None;
    // The guest says that it serves before its servers listen.
    let connected = eventually(|| {
        stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).ok();
        stream.is_some()
    });
    assert!(connected, "nobody listens at {address}");
    let stream = stream.unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(120))).unwrap();
    stream
}

/// Takes what the guest serves, and compares it byte by byte; returns how much it was.
pub(crate) fn receive(address: &str, data: &[u8]) -> usize {
    let mut stream = connect(address, 5000);
    let mut buffer = vec![0; 256 * 1024];
    let mut count = 0;
    loop {
        let length = stream.read(&mut buffer).unwrap();
        if length == 0 {
            return count;
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let expected = &data[count % data.len()..];
            let (part, after) = rest.split_at(rest.len().min(expected.len()));
            assert!(part == &expected[..part.len()], "another byte after {count}");
            count += part.len();
            rest = after;
        }
    }
}

/// Sends `data` so often, and returns the checksum that the guest has made of it.
fn send(address: &str, data: &[u8], rounds: usize) -> String {
    let mut stream = connect(address, 5001);
    for _ in 0..rounds {
        stream.write_all(data).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_whitespace().next().unwrap_or_default().to_owned()
}

pub(crate) fn md5(path: &Path, data: &[u8], rounds: usize) -> String {
    fs::write(path, data.repeat(rounds)).unwrap();
    let sum = tool("md5sum", &[path.to_str().unwrap()]);
    fs::remove_file(path).unwrap();
    sum.split_whitespace().next().unwrap().to_owned()
}

/// A ping with a packet that fills the MTU and must not be taken apart. Headers are 28 and 48 bytes.
fn ping(pod: &Pod, address: &str, mtu: usize) {
    let size = (mtu - if address.contains(':') { 48 } else { 28 }).to_string();
    let namespace = format!("--net=/run/netns/{}", pod.peer());
    let words = [&namespace, "ping", "-c", "3", "-i", "0.1", "-W", "5", "-M", "do", "-s", &size, address];
    let answers = || Command::new("nsenter").args(words).output().unwrap();
    assert!(eventually(|| answers().status.success()), "{}", describe(&answers()));
}

fn traffic(mtu: usize) -> Result<(), Failed> {
    let scene = Scene::new();
    let pod = Pod::new(&scene);
    pod.ipv6();
    pod.mtu(mtu);
    let data = noise(4 * MIB);
    let bundle = networked(&scene, &format!("{CONFIGURE}{SERVE}"), &data);
    pod.join(&bundle);
    let before = pod.inventory();
    scene.create_ok(&bundle, "guest");
    scene.ok(&["start", "guest"]);
    let says = |line: &str| scene.console().replace('\r', "").contains(&format!("guest: {line}\n"));
    assert!(eventually(|| says("serving")), "{}", scene.console());
    for line in
        ["told: 10.77.0.2 255.255.255.0 10.77.0.1", "told: fd77::2/64 fd77::1", &format!("mtu: {mtu}")]
    {
        assert!(says(line), "{line}: {}", scene.console());
    }
    for address in [IPV4, IPV6] {
        ping(&pod, address, mtu);
        let count = outside(&pod, || receive(address, &data));
        assert_eq!(count, ROUNDS * data.len(), "from {address}");
    }
    let expected = md5(&scene.path("sent"), &data, ROUNDS);
    assert_eq!(outside(&pod, || send(IPV4, &data, ROUNDS)), expected);
    assert_eq!(outside(&pod, || send(IPV6, &data, ROUNDS)), expected);
    // The guest ends by itself, and takes the network with it.
    let pid = scene.pid("guest");
    outside(&pod, || drop(connect(IPV4, 5002)));
    assert_eq!(reap(pid), 0, "{}", scene.console());
    scene.ok(&["delete", "guest"]);
    assert_eq!(pod.inventory(), before);
    scene.assert_clean();
    passed()
}

/// N6, N19: such a pod's guest was not started, or after its interface had been taken.
fn only_ipv6() -> Result<(), Failed> {
    let scene = Scene::new();
    let pod = Pod::new(&scene);
    pod.ipv6();
    pod.without_ipv4();
    let data = noise(4 * MIB);
    let bundle = networked(&scene, &format!("{CONFIGURE}{SERVE}"), &data);
    pod.join(&bundle);
    let before = pod.inventory();
    scene.create_ok(&bundle, "guest");
    scene.ok(&["start", "guest"]);
    let says = |line: &str| scene.console().replace('\r', "").contains(&format!("guest: {line}\n"));
    assert!(eventually(|| says("serving")), "{}", scene.console());
    assert!(says("told: fd77::2/64 fd77::1"), "{}", scene.console());
    ping(&pod, IPV6, 1500);
    let expected = md5(&scene.path("sent"), &data, 1);
    assert_eq!(outside(&pod, || send(IPV6, &data, 1)), expected);
    scene.ok(&["delete", "--force", "guest"]);
    assert_eq!(pod.inventory(), before);
    scene.assert_clean();
    passed()
}
