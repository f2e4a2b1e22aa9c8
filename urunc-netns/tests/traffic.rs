//! Frames between a guest on the TAP device and the far end of a veth pair: all of them, both ways, unchanged.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod frames;
mod lab;

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use frames::{ARP, BROADCAST, IPV4, IPV6, Mac, Port};
use lab::{Lab, Pod};
use urunc_netns::{Attachment, Handover, Mode, Owner, Tap, attach, detach, discover, plan, traffic};

const GUEST: Mac = [2, 0, 0, 0, 9, 2];
const PEER: Mac = [2, 0, 0, 0, 9, 1];
const GUEST4: [u8; 4] = [10, 9, 0, 2];
const PEER4: [u8; 4] = [10, 9, 0, 1];

fn v6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

/// Attaches a guest by descriptor and gives its side of the device.
fn attached(lab: &Lab, mode: Mode) -> (Attachment, Port) {
    let owner = Owner::new("guest", Path::new("/run/urunc"));
    let attached = lab.netns().run(|here| {
        let found = discover(here).unwrap().unwrap();
        let plan = plan(&found, &owner, mode, Handover::Descriptor).unwrap();
        let tap = attach(here, &plan.attachment).unwrap();
        (plan.attachment, tap)
    });
    match attached.unwrap() {
        (attachment, Tap::Descriptor(fd)) => (attachment, Port::tap(fd)),
        (_, Tap::Named) => panic!("a descriptor was asked for"),
    }
}

/// Bytes that repeat in no short period.
fn noise(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from((i * 31 + i / 251 * 7 + seed * 13) % 256).unwrap()).collect()
}

/// Frames of both families and of none, to everybody, somebody and nobody, from the shortest to the longest.
fn all_sorts(mtu: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let destinations =
        [GUEST, BROADCAST, [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1], [2, 0, 0, 0, 0, 99]];
    for (number, to) in destinations.into_iter().enumerate() {
        for kind in [IPV4, IPV6, ARP, 0x88b5, 0x8847] {
            // One byte of payload is what a filter with a key would let pass by.
            for length in [1, 3, 4, 46, 600, mtu] {
                frames.push(frames::ethernet(to, PEER, kind, &noise(length, number)));
            }
        }
    }
    frames
}

#[test]
fn every_frame_arrives_both_ways_unchanged() {
    if !lab::ready() {
        return;
    }
    for mtu in [1500, 9000] {
        let pod = Pod::with_mtu(mtu);
        let (_, mut guest) = attached(&pod.inside, Mode::Dynamic);
        let mut wire = Port::wire(&pod.outside, "peer");
        for frame in all_sorts(mtu.try_into().unwrap()) {
            wire.send(&frame);
            // The far kernel has things of its own to say; they arrive as well.
            guest.expect("the frame from the wire", |seen| seen == frame);
            assert_eq!(guest.seen, [0; 10], "no offload was asked for");
        }
        for mut frame in all_sorts(mtu.try_into().unwrap()) {
            frame[..6].copy_from_slice(&PEER);
            frame[6..12].copy_from_slice(&GUEST);
            guest.send(&frame);
            wire.expect("the frame from the guest", |seen| seen == frame);
        }
    }
}

/// The header that precedes each frame says that the checksum is still to be done, as far as the guest can.
#[test]
fn a_monitor_can_turn_on_offloads() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let (_, mut guest) = attached(&pod.inside, Mode::Dynamic);
    guest.offload_checksums();
    pod.outside.sh("ip neigh add 10.9.0.2 lladdr 02:00:00:00:09:02 dev peer");
    let socket = pod.outside.netns().run(|_| UdpSocket::bind("10.9.0.1:700")).unwrap().unwrap();
    socket.send_to(b"hello", "10.9.0.2:900").unwrap();
    guest.expect("the datagram", |f| frames::kind_of(f) == IPV4);
    // VIRTIO_NET_HDR_F_NEEDS_CSUM, the checksum's start and offset (linux/virtio_net.h).
    assert_eq!(guest.seen, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0]);
}

#[test]
fn a_vlan_tag_reaches_the_guest() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let (_, mut guest) = attached(&pod.inside, Mode::Dynamic);
    let mut wire = Port::wire(&pod.outside, "peer");
    let frame = frames::ethernet(GUEST, PEER, 0x8100, &[&[0, 42, 8, 0][..], &noise(100, 1)].concat());
    wire.send(&frame);
    guest.expect("the tagged frame", |seen| seen == frame);
}

/// The guest asks for its neighbour's address, and pings it with as much as fits.
#[test]
fn a_guest_reaches_its_gateway_over_ipv4_and_ipv6() {
    if !lab::ready() {
        return;
    }
    for mtu in [1500_u32, 9000] {
        let pod = Pod::with_mtu(mtu);
        let (_, mut guest) = attached(&pod.inside, Mode::Dynamic);
        let room = usize::try_from(mtu).unwrap();

        guest.send(&frames::arp(1, (GUEST, GUEST4), ([0; 6], PEER4)));
        let answer = guest.expect("an ARP answer", |f| frames::arp_sender(f, 2).is_some());
        assert_eq!(frames::arp_sender(&answer, 2), Some((PEER, PEER4)));
        let data = noise(room - 28, 4);
        let ping = frames::ipv4(1, GUEST4, PEER4, &frames::icmp(8, &data));
        guest.send(&frames::ethernet(PEER, GUEST, IPV4, &ping));
        let pong = guest.expect("an echo reply", |f| frames::kind_of(f) == IPV4 && f[34] == 0);
        assert_eq!(pong[42..], data);

        let (own, other) = (v6("fd09::2"), v6("fd09::1"));
        let everybody = v6("ff02::1:ff00:1");
        let solicitation = frames::ipv6(58, own, everybody, frames::neighbour(135, other, GUEST), 2);
        guest.send(&frames::ethernet([0x33, 0x33, 0xff, 0, 0, 1], GUEST, IPV6, &solicitation));
        let answer = guest.expect("an advertisement", |f| frames::kind_of(f) == IPV6 && f[54] == 136);
        assert_eq!((&answer[62..78], &answer[80..86]), (&other[..], &PEER[..]));
        let data = noise(room - 48, 6);
        let ping = frames::ipv6(58, own, other, frames::echo(128, &data), 2);
        guest.send(&frames::ethernet(PEER, GUEST, IPV6, &ping));
        let pong = guest.expect("an echo reply", |f| frames::kind_of(f) == IPV6 && f[54] == 129);
        assert_eq!(pong[62..], data);
    }
}

/// The other way round: the far kernel looks for the guest, finds it, and sends it a datagram.
#[test]
fn a_guest_is_reached_from_outside_over_ipv4_and_ipv6() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let (_, mut guest) = attached(&pod.inside, Mode::Dynamic);
    let bind =
        |address: &'static str| pod.outside.netns().run(move |_| UdpSocket::bind(address)).unwrap().unwrap();

    bind("10.9.0.1:700").send_to(b"hello over IPv4", "10.9.0.2:900").unwrap();
    let request = guest.expect("an ARP request", |f| frames::arp_sender(f, 1).is_some());
    guest.send(&frames::arp(2, (GUEST, GUEST4), frames::arp_sender(&request, 1).unwrap()));
    let datagram = guest.expect("the datagram", |f| frames::kind_of(f) == IPV4);
    assert_eq!(&datagram[42..], b"hello over IPv4");

    bind("[fd09::1]:700").send_to(b"hello over IPv6", "[fd09::2]:900").unwrap();
    guest.expect("a solicitation", |f| frames::kind_of(f) == IPV6 && f[54] == 135);
    let own = v6("fd09::2");
    let advertisement = frames::ipv6(58, own, v6("fd09::1"), frames::neighbour(136, own, GUEST), 2);
    guest.send(&frames::ethernet(PEER, GUEST, IPV6, &advertisement));
    let datagram = guest.expect("the datagram", |f| frames::kind_of(f) == IPV6 && f[20] == 17);
    assert_eq!(&datagram[62..], b"hello over IPv6");
}

/// N21: the host says nothing to the guest by itself, as it would with IPv6 on the device: one second is the
/// time within which a kernel's first solicitations and reports come.
#[test]
fn the_host_sends_nothing_of_its_own_into_the_guest() {
    if !lab::ready() {
        return;
    }
    for mode in [Mode::Dynamic, Mode::Static] {
        let pod = Pod::new();
        pod.inside.sh("for i in all default; do echo 0 >/proc/sys/net/ipv6/conf/$i/addr_gen_mode; done");
        let (attachment, mut guest) = attached(&pod.inside, mode);
        let deadline = Instant::now() + Duration::from_millis(1200);
        while let Some(frame) = guest.receive_until(deadline) {
            assert_eq!(frame[6..12], PEER, "not from the far end of the wire: {frame:02x?}");
        }
        let addresses = pod.inside.sh(&format!("ip -6 -o addr show dev {}", attachment.tap));
        assert_eq!(addresses, "");
    }
}

#[test]
fn after_detaching_the_interface_belongs_to_the_container_again() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let (attachment, guest) = attached(&pod.inside, Mode::Dynamic);
    let udp = |lab: &Lab, address: &'static str| {
        lab.netns().run(move |_| UdpSocket::bind(address)).unwrap().unwrap()
    };
    let (inside, outside) = (udp(&pod.inside, "10.9.0.2:900"), udp(&pod.outside, "10.9.0.1:700"));
    inside.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    outside.send_to(b"to the guest", "10.9.0.2:900").unwrap();
    let error = inside.recv_from(&mut [0; 99]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "it went to the guest, who did not answer");
    // Before the container hears again: what waits for its answer would otherwise still be sent.
    pod.outside.sh("ip neigh flush dev peer");
    pod.inside.netns().run(|here| detach(here, &attachment)).unwrap().unwrap();
    drop(guest);
    inside.set_read_timeout(Some(lab::PATIENCE)).unwrap();
    outside.send_to(b"to the container", "10.9.0.2:900").unwrap();
    let mut buffer = [0; 99];
    let (length, _) = inside.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"to the container");
}

/// Knative: the guest's packets leave with the container's address, and the answers find their way back.
#[test]
fn a_guest_in_static_mode_is_hidden_behind_the_container() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let (attachment, mut guest) = attached(&pod.inside, Mode::Static);
    let mut wire = Port::wire(&pod.outside, "peer");
    let (host4, own4) = ([172, 16, 1, 1], [172, 16, 1, 2]);
    guest.send(&frames::arp(1, (GUEST, own4), ([0; 6], host4)));
    let answer = guest.expect("an ARP answer", |f| frames::arp_sender(f, 2).is_some());
    let (host, _) = frames::arp_sender(&answer, 2).unwrap();
    let data = noise(1472, 2);
    let ping = frames::ipv4(1, own4, PEER4, &frames::icmp(8, &data));
    guest.send(&frames::ethernet(host, GUEST, IPV4, &ping));
    // The host knows the guest's address by now: it has just been asked by it.
    let pong = guest.expect("an echo reply", |f| frames::kind_of(f) == IPV4 && f[34] == 0);
    assert_eq!((&pong[26..30], &pong[30..34], &pong[42..]), (&PEER4[..], &own4[..], &data[..]));
    let outside = wire.expect("the echo request", |f| frames::kind_of(f) == IPV4 && f[34] == 8);
    assert_eq!(outside[26..30], GUEST4, "masqueraded");
    let counted = pod.inside.netns().run(|here| traffic(here, &attachment)).unwrap().unwrap().unwrap();
    assert_eq!(counted.sent.packets, 2, "an ARP request and a ping");
    assert!(counted.received.bytes > 1500, "{counted:?}");
}
