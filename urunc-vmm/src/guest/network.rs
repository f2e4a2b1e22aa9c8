//! What a guest is to configure on its interfaces, and the arithmetic of addresses that frameworks' syntaxes need.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// What a guest is to configure on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Addresses, IPv4 and IPv6.
    pub addresses: Vec<InterfaceAddress>,
    /// Default gateways, at most one of each family.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Name servers.
    #[serde(default)]
    pub name_servers: Vec<IpAddr>,
    /// Routes besides those to the networks of the addresses and those by the gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// A way to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub destination: InterfaceAddress,
    /// The next hop; none if the destination is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl Route {
    /// Tells whether all of IPv4 is said to be on the link.
    pub(super) const fn is_ipv4_on_link(&self) -> bool {
        self.gateway.is_none() && self.destination.prefix == 0 && self.destination.address.is_ipv4()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gateway {
            Some(gateway) => write!(f, "{} via {gateway}", self.destination),
            None => write!(f, "{} on the link", self.destination),
        }
    }
}

/// The IPv4 part of a [`Network`], as most frameworks take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ipv4 {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) name_servers: Vec<Ipv4Addr>,
}

impl Network {
    pub(super) fn ipv4_address(&self) -> Option<InterfaceAddress> {
        self.addresses.iter().copied().find(|address| address.address().is_ipv4())
    }

    pub(super) fn ipv4(&self) -> Option<Ipv4> {
        let (address, prefix) =
            self.addresses.iter().find_map(|address| Some((v4(&address.address)?, address.prefix)))?;
        Some(Ipv4 {
            address,
            prefix,
            gateway: self.gateways.iter().find_map(v4),
            name_servers: self.name_servers.iter().filter_map(v4).collect(),
        })
    }
}

fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

impl Ipv4 {
    /// Returns the netmask in dotted notation.
    pub(super) fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    /// Tells whether the gateway can be reached without a route of its own.
    pub(super) fn gateway_is_on_link(&self) -> bool {
        let same = |gateway: Ipv4Addr| (gateway.to_bits() ^ self.address.to_bits()) & mask(self.prefix) == 0;
        self.gateway.is_none_or(same)
    }

    /// Returns the length of the longest prefix that address and gateway have in common, at most the interface's.
    pub(super) fn prefix_with_gateway(&self) -> u8 {
        let gateway = self.gateway.unwrap_or(self.address);
        let common = (gateway.to_bits() ^ self.address.to_bits()).leading_zeros();
        u8::try_from(common).map_or(self.prefix, |common| common.min(self.prefix))
    }
}

/// A prefix of no bits has the mask 0, which a shift by 32 would not give.
fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0)
}

/// An address with the length of its network's prefix, as `10.0.0.2/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceAddress {
    address: IpAddr,
    prefix: u8,
}

/// Text or numbers that are no address with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address with a prefix length like 10.0.0.2/24")]
pub struct AddressError(String);

impl InterfaceAddress {
    /// Joins an address and a prefix length.
    ///
    /// # Errors
    /// [`AddressError`] if the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, AddressError> {
        let limit = if address.is_ipv4() { 32 } else { 128 };
        if prefix > limit {
            return Err(AddressError(format!("{address}/{prefix}")));
        }
        Ok(Self { address, prefix })
    }

    /// Returns the address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Returns the length of the network's prefix.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for InterfaceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            // Digits only: `parse` alone would take "+8".
            let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
            Self::new(address.parse().ok()?, prefix.parse().ok().filter(|_| digits)?).ok()
        };
        parse().ok_or_else(|| AddressError(text.to_owned()))
    }
}

impl TryFrom<String> for InterfaceAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<InterfaceAddress> for String {
    fn from(address: InterfaceAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_address_has_a_prefix_that_fits() {
        for text in ["10.0.0.2/24", "0.0.0.0/0", "fd00::2/64", "fd00::2/128"] {
            assert_eq!(text.parse::<InterfaceAddress>().unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.2", "10.0.0.2/33", "10.0.0.2/+8", "10.0.0.2/", "fd00::2/129", "a/8"] {
            assert!(text.parse::<InterfaceAddress>().is_err(), "{text}");
        }
    }

    fn ipv4(address: &str, gateway: &str) -> Ipv4 {
        let network = Network {
            addresses: vec!["fd00::2/64".parse().unwrap(), address.parse().unwrap()],
            gateways: vec!["fd00::1".parse().unwrap(), gateway.parse().unwrap()],
            ..Network::default()
        };
        network.ipv4().unwrap()
    }

    /// Weakness 31 of the monitors reference: masks were counted by their bits.
    #[test]
    fn masks_and_subnets_follow_the_prefix() {
        for (address, mask) in [
            ("10.0.0.2/0", "0.0.0.0"),
            ("10.0.0.2/1", "128.0.0.0"),
            ("10.0.0.2/24", "255.255.255.0"),
            ("10.0.0.2/32", "255.255.255.255"),
        ] {
            assert_eq!(ipv4(address, "10.0.0.1").netmask().to_string(), mask);
        }
        for (address, gateway, on_link, common) in [
            ("10.0.0.2/24", "10.0.0.1", true, 24),
            ("10.0.0.2/32", "10.0.0.1", false, 30),
            ("192.168.1.2/24", "169.254.1.1", false, 1),
            ("10.0.0.2/24", "169.254.1.1", false, 0),
            ("10.0.0.2/0", "169.254.1.1", true, 0),
        ] {
            let ipv4 = ipv4(address, gateway);
            assert_eq!(
                (ipv4.gateway_is_on_link(), ipv4.prefix_with_gateway()),
                (on_link, common),
                "{address}"
            );
        }
    }
}
