//! Addresses with a prefix length, of both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{NameError, as_text};

/// An address with a prefix length: what an interface has (`10.0.0.2/24`), or where a route leads
/// (`10.0.0.0/24`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Joins an address and a prefix length, if the address has that many bits.
    #[must_use]
    pub const fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix <= bits { Some(Cidr { address, prefix }) } else { None }
    }

    /// An IPv4 address and its prefix length; one beyond 32 counts as 32.
    pub(crate) const fn v4(address: Ipv4Addr, prefix: u8) -> Self {
        Cidr { address: IpAddr::V4(address), prefix: if prefix > 32 { 32 } else { prefix } }
    }

    /// The address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// The number of leading bits that name the network.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether this is where a default route leads: everywhere.
    #[must_use]
    pub fn is_everything(self) -> bool {
        self.prefix == 0
    }

    /// The IPv4 netmask in dotted form, as many guests' command lines want it; none for IPv6.
    #[must_use]
    pub fn netmask(self) -> Option<Ipv4Addr> {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
        self.address.is_ipv4().then(|| Ipv4Addr::from_bits(mask))
    }

    /// Whether the two networks have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Cidr) -> bool {
        let shared = u32::from(self.prefix.min(other.prefix));
        // Leading bits beyond `shared` are shifted out; a shift by all bits leaves nothing to differ.
        match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(32 - shared).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - shared).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Cidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        Cidr::new(address, prefix.parse().map_err(|_| wrong())?).ok_or_else(wrong)
    }
}

as_text!(Cidr);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_netmask_is_for_ipv4() {
        let mask = |text: &str| text.parse::<Cidr>().unwrap().netmask().map(|m| m.to_string());
        assert_eq!(mask("10.0.0.2/24").as_deref(), Some("255.255.255.0"));
        assert_eq!(mask("10.0.0.2/0").as_deref(), Some("0.0.0.0"));
        assert_eq!(mask("10.0.0.2/32").as_deref(), Some("255.255.255.255"));
        assert_eq!(mask("fd00::2/64"), None);
    }

    #[test]
    fn networks_overlap_where_their_shared_prefix_agrees() {
        let overlap = |a: &str, b: &str| a.parse::<Cidr>().unwrap().overlaps(b.parse().unwrap());
        assert!(overlap("172.16.1.0/24", "172.16.0.0/16"));
        assert!(overlap("172.16.1.7/32", "172.16.1.0/24"));
        assert!(overlap("10.0.0.0/8", "0.0.0.0/0"));
        assert!(!overlap("172.16.1.0/24", "172.16.2.0/24"));
        assert!(!overlap("::/0", "0.0.0.0/0"));
        assert!(overlap("fd00::/8", "fd12::1/128"));
        assert!(!overlap("fd00::1/128", "fd00::2/128"));
    }

    #[test]
    fn what_is_almost_an_address_with_a_prefix_is_refused() {
        for bad in ["10.0.0.2", "10.0.0.2/33", "fd00::2/129", "/24", "10.0.0.2/", "10.0.0.2/-1"] {
            assert_eq!(bad.parse::<Cidr>(), Err(NameError::Cidr(bad.into())));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read_back(v4: u32, v6: u128, prefix in 0_u8..=32) {
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let cidr = Cidr::new(address, prefix).unwrap();
                let json = serde_json::to_string(&cidr).unwrap();
                prop_assert_eq!(serde_json::from_str::<Cidr>(&json).unwrap(), cidr);
            }
        }
    }
}
