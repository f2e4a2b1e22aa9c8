//! What a guest is not told, because its framework has no notion of it and would not miss it either: the process
//! environment of a container is always set, and so is its working directory. Nothing is left out silently.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{InterfaceAddress, Route, Workload};

/// Something that does not reach the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Omission {
    /// The arguments.
    Arguments,
    /// The environment.
    Environment,
    /// The host name.
    Hostname,
    /// The user and group id.
    User,
    /// The working directory.
    WorkingDirectory,
    /// Name servers.
    NameServers,
    /// A further address of an interface that has one already.
    Address(InterfaceAddress),
    /// A gateway outside of the networks of the interface.
    Gateway(IpAddr),
    /// A route.
    Route(Route),
}

impl Omission {
    /// Tells whether the guest cannot reach somebody, or be reached, for the lack of it.
    #[must_use]
    pub const fn cuts_off(&self) -> bool {
        matches!(self, Self::Address(_) | Self::Gateway(_) | Self::Route(_))
    }
}

impl fmt::Display for Omission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Arguments => "the arguments do",
            Self::Environment => "the environment does",
            Self::Hostname => "the host name does",
            Self::User => "the user and group id do",
            Self::WorkingDirectory => "the working directory does",
            Self::NameServers => "the name servers do",
            Self::Address(address) => return write!(f, "the address {address} does not reach the guest"),
            Self::Gateway(gateway) => {
                return write!(
                    f,
                    "the gateway {gateway} does not reach the guest: it is in none of its networks"
                );
            }
            Self::Route(route) => return write!(f, "the route to {route} does not reach the guest"),
        };
        write!(f, "{what} not reach the guest")
    }
}

/// What a framework can be told; the rest of a workload is omitted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carries {
    pub(super) arguments: bool,
    pub(super) environment: bool,
    pub(super) hostname: bool,
    pub(super) process: bool,
    pub(super) name_servers: usize,
    /// Addresses of each family for one interface, IPv4 preferred; one of them where only one fits.
    pub(super) addresses: Addresses,
    pub(super) routes: Routes,
}

/// The routes, besides that by a gateway, that one interface can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Routes {
    /// None.
    #[default]
    None,
    /// The one that says that all of IPv4 is on the link.
    Ipv4OnLink,
}

/// The addresses that one interface can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Addresses {
    /// One of IPv4.
    #[default]
    Ipv4,
    /// One, of IPv4 if there is one.
    Either,
    /// One of IPv4 and all of IPv6.
    Ipv4AndAllIpv6,
}

impl Carries {
    /// Lists what of a workload is left out.
    pub(super) fn omitted(self, workload: &Workload) -> Vec<Omission> {
        let mut omitted = Vec::new();
        let mut note = |missing: bool, omission| {
            if missing {
                omitted.push(omission);
            }
        };
        note(!self.arguments && !workload.args.is_empty(), Omission::Arguments);
        note(!self.environment && !workload.env.is_empty(), Omission::Environment);
        note(!self.hostname && !workload.hostname.is_empty(), Omission::Hostname);
        note(!self.process && (workload.uid, workload.gid) != (0, 0), Omission::User);
        note(!self.process && !matches!(workload.cwd.as_str(), "" | "/"), Omission::WorkingDirectory);
        let servers = |network: &super::Network| {
            let told = network.name_servers.iter().filter(|server| server.is_ipv4()).take(self.name_servers);
            told.count() < network.name_servers.len()
        };
        note(workload.networks.iter().any(servers), Omission::NameServers);
        for network in &workload.networks {
            let told = network.ipv4_address().or(match self.addresses {
                Addresses::Ipv4 | Addresses::Ipv4AndAllIpv6 => None,
                Addresses::Either => network.addresses.first().copied(),
            });
            let is_told = |address: &InterfaceAddress| {
                Some(*address) == told
                    || (self.addresses == Addresses::Ipv4AndAllIpv6 && address.address().is_ipv6())
            };
            let rest = network.addresses.iter().filter(|address| !is_told(address));
            omitted.extend(rest.map(|address| Omission::Address(*address)));
            let is_told = |route: &Route| self.routes == Routes::Ipv4OnLink && route.is_ipv4_on_link();
            let rest = network.routes.iter().filter(|route| !is_told(route));
            omitted.extend(rest.map(|route| Omission::Route(*route)));
        }
        omitted
    }
}
