//! What a guest must be told to be on its container's network: plain data, for the one who configures guests.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;
use crate::names::{Interface, MacAddr, Mtu};

/// The routing table that holds ordinary routes (`RT_TABLE_MAIN`, linux/rtnetlink.h).
const MAIN_TABLE: u32 = 254;

/// The network configuration of one interface, complete enough for a guest to stand in for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNetwork {
    /// The container's interface.
    pub interface: Interface,
    /// The hardware address that the guest's interface must have: the container interface's own, so that
    /// nobody else on the network notices a change.
    pub mac: MacAddr,
    /// The largest packet.
    pub mtu: Mtu,
    /// All addresses of both families, link-local ones included, in the kernel's order: the first of a family
    /// is its primary one.
    pub addresses: Vec<Cidr>,
    /// All unicast routes through this interface, best first: those of the main table before those of others,
    /// then by metric.
    pub routes: Vec<Route>,
    /// Name servers. Discovery leaves this empty; it belongs to whoever reads the container's resolv.conf.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
}

/// One way to a network through the interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads; prefix length 0 is everywhere.
    pub destination: Cidr,
    /// The next hop; none if the destination is on this link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The address to send from, if the route prefers one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The lower, the better.
    pub metric: u32,
    /// The kernel's routing table; 254 is the main one.
    pub table: u32,
    /// The gateway is on this link although no route says so.
    #[serde(default)]
    pub onlink: bool,
}

impl Route {
    /// Whether this leads everywhere.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.destination.is_everything()
    }

    /// Whether the main table has it, which every sender uses; others are for policies.
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.table == MAIN_TABLE
    }

    /// What decides between routes to the same place: lower wins.
    pub(crate) fn rank(&self) -> (bool, u32, u32) {
        (!self.is_main(), self.metric, self.table)
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Internet Protocol version 4.
    V4,
    /// Internet Protocol version 6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl GuestNetwork {
    /// The address to configure where a guest can be told only one of a family.
    #[must_use]
    pub fn primary(&self, family: Family) -> Option<Cidr> {
        let mut of_family = self.addresses.iter().filter(|cidr| Family::of(cidr.address()) == family);
        // Every host makes itself an IPv6 link-local address; it says nothing about this one.
        of_family
            .find(|cidr| !matches!(cidr.address(), IpAddr::V6(v6) if v6.is_unicast_link_local()))
            .copied()
    }

    /// The best default route of a family; its gateway is `None` if everything is on this link.
    #[must_use]
    pub fn default_route(&self, family: Family) -> Option<&Route> {
        self.routes.iter().find(|r| r.is_default() && Family::of(r.destination.address()) == family)
    }

    /// The best default gateway of a family.
    #[must_use]
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        self.default_route(family).and_then(|route| route.gateway)
    }
}
