//! Frames by hand: a guest played on a TAP device's descriptor, the wire seen from the other end of the pair,
//! and as much ARP, IPv4, IPv6, ICMP and UDP as two hosts need to talk.

use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};

use crate::lab::{Lab, PATIENCE};

pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
/// `struct virtio_net_hdr`, which precedes every frame of a TAP device with `IFF_VNET_HDR`.
const VNET_HEADER: [u8; 10] = [0; 10];

/// Something that frames come out of and go into.
#[derive(Debug)]
pub(crate) struct Port {
    file: std::fs::File,
    header: &'static [u8],
    /// The header of the last frame.
    pub(crate) seen: Vec<u8>,
}

impl Port {
    /// The guest's side of a TAP device.
    pub(crate) fn tap(fd: OwnedFd) -> Port {
        Port { file: fd.into(), header: &VNET_HEADER, seen: VNET_HEADER.to_vec() }
    }

    /// A raw socket on an interface: the wire (packet(7)).
    #[expect(clippy::cast_possible_truncation, reason = "constants that fit")]
    pub(crate) fn wire(lab: &Lab, interface: &str) -> Port {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let protocol = Protocol::from_raw(NonZero::new(u32::from(all)).unwrap());
        let opened = lab.netns().run(|_| {
            let flags = SocketFlags::CLOEXEC;
            let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(protocol)).unwrap();
            let address = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: all,
                sll_ifindex: name_to_index(&fd, interface).unwrap().try_into().unwrap(),
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            };
            let (pointer, size) = ((&raw const address).cast(), size_of_val(&address) as u32);
            // SAFETY: the pointer and the size are those of one initialised value.
            let bound = unsafe { libc::bind(fd.as_raw_fd(), pointer, size) };
            assert_eq!(bound, 0);
            fd
        });
        Port { file: opened.unwrap().into(), header: &[], seen: Vec::new() }
    }

    /// Says, as a monitor does, that frames may come with their checksum to be done (`TUN_F_CSUM`).
    pub(crate) fn offload_checksums(&self) {
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::TUN_F_CSUM) };
        assert_eq!(done, 0);
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.file.write_all(&[self.header, frame].concat()).unwrap();
    }

    /// The next frame that fulfils the condition; others are passed over.
    pub(crate) fn expect(&mut self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.receive_until(deadline) {
                Some(frame) if wanted(&frame) => return frame,
                Some(_) => (),
                None => panic!("not within {PATIENCE:?}: {what}"),
            }
        }
    }

    /// A frame, if one comes before the deadline.
    pub(crate) fn receive_until(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
        let ready = poll(&mut [PollFd::new(&self.file.as_fd(), PollFlags::IN)], Some(&left)).unwrap();
        (ready > 0).then(|| {
            let mut buffer = vec![0; 1 << 16];
            let length = self.file.read(&mut buffer).unwrap();
            self.seen.copy_from_slice(&buffer[..self.header.len()]);
            buffer[self.header.len()..length].to_vec()
        })
    }
}

pub(crate) type Mac = [u8; 6];
pub(crate) const BROADCAST: Mac = [0xff; 6];

pub(crate) fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

pub(crate) fn kind_of(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

/// An ARP message (RFC 826): operation 1 asks, 2 answers.
pub(crate) fn arp(operation: u16, from: (Mac, [u8; 4]), to: (Mac, [u8; 4])) -> Vec<u8> {
    let target = if operation == 1 { BROADCAST } else { to.0 };
    let head = [0, 1, 8, 0, 6, 4];
    let body = [&head[..], &operation.to_be_bytes(), &from.0, &from.1, &to.0, &to.1].concat();
    ethernet(target, from.0, ARP, &body)
}

/// The sender of an ARP message, if the frame is one of this operation.
pub(crate) fn arp_sender(frame: &[u8], operation: u16) -> Option<(Mac, [u8; 4])> {
    let is = kind_of(frame) == ARP && frame[20..22] == operation.to_be_bytes();
    is.then(|| (frame[22..28].try_into().unwrap(), frame[28..32].try_into().unwrap()))
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap().to_be_bytes()
}

/// An IPv4 packet that must not be fragmented (RFC 791).
pub(crate) fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = [&[0x45, 0][..], &total, &[0, 0, 0x40, 0, 64, protocol, 0, 0], &from, &to].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, payload.to_vec()].concat()
}

/// An IPv6 packet (RFC 8200) whose payload's checksum, at `sum_at`, is filled in.
pub(crate) fn ipv6(next: u8, from: [u8; 16], to: [u8; 16], mut payload: Vec<u8>, sum_at: usize) -> Vec<u8> {
    let pseudo = [&from[..], &to, &[0, 0], &length(&payload), &[0, 0, 0, next], &payload].concat();
    payload[sum_at..sum_at + 2].copy_from_slice(&checksum(&pseudo));
    [&[0x60, 0, 0, 0][..], &length(&payload), &[next, 255], &from, &to, &payload].concat()
}

/// An ICMP echo message without (ICMPv6) or with (ICMP) its checksum: type, identifier 7, sequence 1, data.
pub(crate) fn echo(kind: u8, data: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 7, 0, 1][..], data].concat()
}

pub(crate) fn icmp(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut message = echo(kind, data);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// A neighbour solicitation (135) or solicited advertisement (136) for `target` (RFC 4861), with the sender's
/// hardware address.
pub(crate) fn neighbour(kind: u8, target: [u8; 16], sender: Mac) -> Vec<u8> {
    let (flags, option) = if kind == 135 { (0, 1) } else { (0x60, 2) };
    [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target, &[option, 1], &sender].concat()
}
