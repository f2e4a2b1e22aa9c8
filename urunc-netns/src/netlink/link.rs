//! Links and their addresses: reading them, setting up a TAP's link, deleting one (rtnetlink(7),
//! linux/if_link.h, linux/if_addr.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, Ifla, Rtm};
use rustix::io::Errno;

use super::error::gone;
use super::wire::{Payload, attribute, u32_at, until_zero};
use super::{NetlinkError, Socket};
use crate::cidr::Cidr;
use crate::names::{IfIndex, IfName, Interface, MacAddr, Mtu};
use crate::sysctl::SwitchState;

// linux/if.h.
pub(crate) const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_LOWER_UP: u32 = 1 << 16;
/// linux/if_arp.h.
const ARPHRD_ETHER: u16 = 1;
// linux/socket.h.
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
/// linux/if_link.h.
const IFLA_INET_CONF: u16 = 1;
/// linux/if_addr.h: another host has this address, so it is not used.
const IFA_F_DADFAILED: u32 = 0x08;

/// What is known about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) interface: Interface,
    pub(crate) flags: u32,
    /// Its hardware address, if it is an Ethernet link and has one.
    pub(crate) mac: Option<MacAddr>,
    pub(crate) mtu: u32,
    pub(crate) alias: Option<String>,
    /// Whether it forwards IPv4 packets.
    pub(crate) forwarding: SwitchState,
    pub(crate) received: Counters,
    pub(crate) transmitted: Counters,
}

/// How much went one way through a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that arrived.
    pub packets: u64,
    /// Bytes in them, Ethernet headers included.
    pub bytes: u64,
    /// Packets that were damaged.
    pub errors: u64,
    /// Packets for which there was no room.
    pub dropped: u64,
}

impl Link {
    pub(crate) fn is_loopback(&self) -> bool {
        self.flags & IFF_LOOPBACK != 0
    }

    pub(crate) fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    /// Whether something is attached at the far side: for a TAP, a process that has it open.
    pub(crate) fn has_carrier(&self) -> bool {
        self.flags & IFF_LOWER_UP != 0
    }

    /// Reads `struct ifinfomsg` and its attributes.
    pub(crate) fn read(message: &[u8]) -> Option<Link> {
        let kind = u16::from_ne_bytes(*message.get(2..)?.first_chunk()?);
        let index = u32_at(message.get(4..)?)?;
        let flags = u32_at(message.get(8..)?)?;
        let attributes = message.get(16..)?;
        let mac = attribute(attributes, Ifla::Address).filter(|_| kind == ARPHRD_ETHER);
        let mac = mac.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        let alias = attribute(attributes, Ifla::Ifalias).map(until_zero);
        let [received, transmitted] = counters(attribute(attributes, Ifla::Stats64).unwrap_or_default());
        Some(Link {
            interface: Interface {
                name: IfName::from_kernel(until_zero(attribute(attributes, Ifla::Ifname)?)),
                index: IfIndex(index),
            },
            flags,
            mac: mac.filter(|octets| *octets != [0; 6]).map(MacAddr::from),
            mtu: attribute(attributes, Ifla::Mtu).and_then(u32_at)?,
            forwarding: forwarding(attribute(attributes, Ifla::AfSpec).unwrap_or_default()),
            alias: alias.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
            received,
            transmitted,
        })
    }
}

/// The first of the IPv4 settings (`IFLA_INET_CONF`, linux/if_link.h; `IPV4_DEVCONF_FORWARDING`, linux/ip.h).
fn forwarding(per_family: &[u8]) -> SwitchState {
    let of_ipv4 = attribute(per_family, AF_INET).unwrap_or_default();
    match attribute(of_ipv4, IFLA_INET_CONF).and_then(u32_at) {
        None | Some(0) => SwitchState::Off,
        Some(_) => SwitchState::On,
    }
}

/// `struct rtnl_link_stats64`: packets, bytes, errors and drops, received and transmitted in turn.
fn counters(stats: &[u8]) -> [Counters; 2] {
    let number = |index: usize| {
        let bytes = stats.get(index * 8..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    };
    [0, 1].map(|way| Counters {
        packets: number(way),
        bytes: number(way + 2),
        errors: number(way + 4),
        dropped: number(way + 6),
    })
}

/// `struct ifinfomsg` (linux/rtnetlink.h): an index, flags to set and which of them to look at.
fn ifinfomsg(index: u32, flags: u32) -> Payload {
    Payload::new(&[[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat())
}

impl Socket {
    /// All links of the namespace.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        self.dump(format_args!("list the links"), Rtm::Getlink, &ifinfomsg(0, 0), Link::read)
    }

    /// The link of that name, if there is one.
    pub(crate) fn link(&mut self, name: &IfName) -> Result<Option<Link>, NetlinkError> {
        let request = ifinfomsg(0, 0).text(Ifla::Ifname, name.as_str());
        match self.get(format_args!("look up {name}"), Rtm::Getlink, request, Link::read) {
            Err(error) if error.is(&[Errno::NODEV]) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Gives a link its MTU and the text that says whose it is.
    pub(crate) fn prepare_link(
        &mut self,
        link: &Interface,
        alias: &str,
        mtu: Mtu,
    ) -> Result<(), NetlinkError> {
        let request =
            ifinfomsg(link.index.0, 0).attr(Ifla::Ifalias, alias.as_bytes()).u32(Ifla::Mtu, mtu.get());
        let attempt = format_args!("set the MTU of {link} to {mtu} and mark it");
        self.change(attempt, Rtm::Setlink, NlmF::empty(), request)
    }

    /// Brings a link up.
    pub(crate) fn raise_link(&mut self, link: &Interface) -> Result<(), NetlinkError> {
        let attempt = format_args!("bring up {link}");
        self.change(attempt, Rtm::Setlink, NlmF::empty(), ifinfomsg(link.index.0, IFF_UP))
    }

    /// Deletes a link; success if it is already gone.
    pub(crate) fn delete_link(&mut self, link: &Interface) -> Result<(), NetlinkError> {
        let attempt = format_args!("delete {link}");
        gone(self.change(attempt, Rtm::Dellink, NlmF::empty(), ifinfomsg(link.index.0, 0)), &[Errno::NODEV])
    }

    /// The usable addresses of all links.
    pub(crate) fn addresses(&mut self) -> Result<Vec<(IfIndex, Cidr)>, NetlinkError> {
        self.dump(format_args!("list the addresses"), Rtm::Getaddr, &Payload::new(&[0; 8]), read_address)
    }

    /// Gives a link an IPv4 address.
    pub(crate) fn add_address(
        &mut self,
        link: &Interface,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let header = [&[AF_INET, prefix, 0, 0], &link.index.0.to_ne_bytes()[..]].concat();
        let octets = address.octets();
        let request = Payload::new(&header).attr(Ifa::Local, &octets).attr(Ifa::Address, &octets);
        let attempt = format_args!("give {link} the address {address}/{prefix}");
        self.change(attempt, Rtm::Newaddr, NlmF::CREATE | NlmF::EXCL, request)
    }
}

/// Reads `struct ifaddrmsg` and its attributes.
pub(super) fn read_address(message: &[u8]) -> Option<(IfIndex, Cidr)> {
    let [family, prefix, flags, _scope] = *message.first_chunk()?;
    let index = IfIndex(u32_at(message.get(4..)?)?);
    let attributes = message.get(8..)?;
    // The attribute has the flags beyond the first eight; older kernels have none.
    let flags = attribute(attributes, Ifa::Flags).and_then(u32_at).unwrap_or(u32::from(flags));
    // On a point-to-point link ADDRESS is the far end's, so LOCAL goes first.
    let bytes = attribute(attributes, Ifa::Local).or_else(|| attribute(attributes, Ifa::Address))?;
    let address = ip_address(family, bytes)?;
    Cidr::new(address, prefix).filter(|_| flags & IFA_F_DADFAILED == 0).map(|cidr| (index, cidr))
}

/// An address of the given family, from its bytes in network order.
pub(crate) fn ip_address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        AF_INET6 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}
