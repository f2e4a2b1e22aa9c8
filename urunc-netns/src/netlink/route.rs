//! Routes: reading the ones that lead somewhere through a link (rtnetlink(7), linux/rtnetlink.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use neli::consts::rtnl::{Rta, Rtm};

use super::link::{AF_INET, AF_INET6, ip_address};
use super::wire::{Payload, attribute, u32_at};
use super::{NetlinkError, Socket};
use crate::cidr::Cidr;
use crate::guest::Route;
use crate::names::IfIndex;

// linux/rtnetlink.h.
const RTN_UNICAST: u8 = 1;
const RT_TABLE_LOCAL: u32 = 255;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 1;
const RTNH_F_ONLINK: u32 = 4;

impl Socket {
    /// All unicast routes of both families and all tables but the local one, each with its link. A route with
    /// several next hops appears once for each.
    pub(crate) fn routes(&mut self) -> Result<Vec<(IfIndex, Route)>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut header = [0; 12];
            header[0] = family;
            // A kernel without IPv6 answers with whatever it has; only what was asked for counts.
            let read = |message: &[u8]| read_route(message).filter(|_| message.first() == Some(&family));
            let routes =
                self.dump(format_args!("list the routes"), Rtm::Getroute, &Payload::new(&header), read)?;
            found.extend(routes.into_iter().flatten());
        }
        Ok(found)
    }
}

/// Reads `struct rtmsg` and its attributes; nothing if the route leads nowhere.
pub(super) fn read_route(message: &[u8]) -> Option<Vec<(IfIndex, Route)>> {
    let [family, prefix, _, _, table, _, _, kind] = *message.first_chunk()?;
    let flags = u32_at(message.get(8..)?)?;
    let of_route = message.get(12..)?;
    let table = attribute(of_route, Rta::Table).and_then(u32_at).unwrap_or(u32::from(table));
    if kind != RTN_UNICAST || table == RT_TABLE_LOCAL || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let everywhere: IpAddr =
        if family == AF_INET { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let destination = match attribute(of_route, Rta::Dst) {
        Some(bytes) => ip_address(family, bytes)?,
        None => everywhere,
    };
    let route = Route {
        destination: Cidr::new(destination, prefix)?,
        gateway: gateway(family, of_route),
        source: attribute(of_route, Rta::Prefsrc).and_then(|bytes| ip_address(family, bytes)),
        metric: attribute(of_route, Rta::Priority).and_then(u32_at).unwrap_or(0),
        table,
        onlink: flags & RTNH_F_ONLINK != 0,
    };
    let mut found = Vec::new();
    if let Some(index) = attribute(of_route, Rta::Oif).and_then(u32_at).filter(|_| flags & RTNH_F_DEAD == 0) {
        found.push((IfIndex(index), route.clone()));
    }
    let mut hops = attribute(of_route, Rta::Multipath).unwrap_or_default();
    while let Some((hop, rest)) = next_hop(hops) {
        hops = rest;
        if hop.flags & RTNH_F_DEAD == 0 {
            let onlink = hop.flags & RTNH_F_ONLINK != 0;
            found.push((
                hop.link,
                Route { gateway: gateway(family, hop.attributes), onlink, ..route.clone() },
            ));
        }
    }
    Some(found)
}

/// The next hop's address: of the route's own family, or, by `RTA_VIA`, of another.
fn gateway(family: u8, of_route: &[u8]) -> Option<IpAddr> {
    let own = attribute(of_route, Rta::Gateway).and_then(|bytes| ip_address(family, bytes));
    own.or_else(|| {
        // `struct rtvia`: a family in two bytes, then the address.
        let (family, address) = attribute(of_route, RTA_VIA)?.split_first_chunk::<2>()?;
        ip_address(u8::try_from(u16::from_ne_bytes(*family)).ok()?, address)
    })
}

/// linux/rtnetlink.h; neli names it for glibc only.
const RTA_VIA: u16 = 18;

/// `struct rtnexthop` and the attributes that follow it.
struct Hop<'a> {
    flags: u32,
    link: IfIndex,
    attributes: &'a [u8],
}

fn next_hop(bytes: &[u8]) -> Option<(Hop<'_>, &[u8])> {
    let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let this = bytes.get(..length)?;
    let hop = Hop {
        flags: u32::from(*this.get(2)?),
        link: IfIndex(u32_at(this.get(4..)?)?),
        attributes: this.get(8..)?,
    };
    Some((hop, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}
