//! The small words of networking as types: interface names and indexes, hardware addresses, MTUs, and
//! addresses with a prefix length. Each is valid once it exists; none knows the kernel.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a piece of text is not a valid name, address or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not an interface name.
    #[error(
        "{0:?} is not an interface name: 1 to 15 bytes, no slash, colon or white space, not \".\" or \"..\""
    )]
    Interface(String),
    /// Not a hardware address.
    #[error("{0:?} is not a hardware address: six hexadecimal bytes separated by colons")]
    Mac(String),
    /// Not an address with a prefix length.
    #[error("{0:?} is not an address with a prefix length, such as 10.0.0.2/24 or fd00::2/64")]
    Cidr(String),
    /// Not an MTU.
    #[error("an MTU of {0} bytes is out of range: 68 (RFC 791) to 65535")]
    Mtu(u32),
}

/// An interface's name: 1 to 15 bytes, as the kernel accepts them (`dev_valid_name`, net/core/dev.c).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as `struct ifreq` holds it: padded with zero bytes, at least one.
    pub(crate) fn padded(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..self.0.len()].copy_from_slice(self.0.as_bytes());
        bytes
    }

    /// What the kernel says. Its names need not be UTF-8: then every byte beyond ASCII shows as a question
    /// mark (which keeps the length valid), and the interface is known by its index anyway.
    pub(crate) fn from_kernel(bytes: &[u8]) -> Self {
        let ascii = |b: &u8| if b.is_ascii() { char::from(*b) } else { '?' };
        IfName(str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(ascii).collect(), str::to_owned))
    }
}

impl FromStr for IfName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
        let clean = text.bytes().all(|b| b != b'/' && b != b':' && b != 0 && !is_space(b));
        if fits && clean { Ok(IfName(text.to_owned())) } else { Err(NameError::Interface(text.to_owned())) }
    }
}

/// The kernel's `isspace` (lib/ctype.c), which also counts the vertical tab and the no-break space of Latin-1.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d | 0xa0)
}

/// An interface's number, unique in its network namespace for as long as that lives, unless somebody asks
/// for a number that was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(pub(crate) u32);

impl IfIndex {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link's largest packet in bytes, without the Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

impl Mtu {
    /// The size in bytes.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = NameError;

    fn try_from(bytes: u32) -> Result<Self, NameError> {
        if (68..=65535).contains(&bytes) { Ok(Mtu(bytes)) } else { Err(NameError::Mtu(bytes)) }
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> u32 {
        mtu.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An Ethernet hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The six bytes in transmission order.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        MacAddr(octets)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Mac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(hex).ok_or_else(wrong)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(MacAddr(octets)) }
    }
}

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

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )*};
}
as_text!(IfName, MacAddr, Cidr);

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_interface_name_is_what_the_kernel_accepts() {
        for good in ["eth0", "net1", "macvtap0", "a", "fifteen-bytes-x", "eth0.100", "wlan@home", "é"] {
            assert_eq!(good.parse::<IfName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "sixteen-bytes-xx", "a/b", "a:b", "a b", "a\tb", "a\0b"] {
            assert_eq!(bad.parse::<IfName>(), Err(NameError::Interface(bad.into())));
        }
    }

    #[test]
    fn a_name_that_is_no_utf_8_does_not_stop_the_reader() {
        assert_eq!(IfName::from_kernel(b"et\xff0").as_str(), "et?0");
    }

    #[test]
    fn an_mtu_has_bounds() {
        assert_eq!(Mtu::try_from(1500).unwrap().get(), 1500);
        assert_eq!(Mtu::try_from(67), Err(NameError::Mtu(67)));
        // N14: an MTU of 0 cannot be said.
        assert_eq!(serde_json::from_str::<Mtu>("0").map_err(|e| e.to_string().contains("68")), Err(true));
    }

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
    fn text_that_is_almost_right_is_refused() {
        for bad in ["10.0.0.2", "10.0.0.2/33", "fd00::2/129", "/24", "10.0.0.2/", "10.0.0.2/-1"] {
            assert_eq!(bad.parse::<Cidr>(), Err(NameError::Cidr(bad.into())));
        }
        for bad in ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "02:00:00:00:00:+1"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read_back(octets: [u8; 6], v4: u32, v6: u128, prefix in 0_u8..=32) {
            let mac = MacAddr::from(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let cidr = Cidr::new(address, prefix).unwrap();
                let json = serde_json::to_string(&cidr).unwrap();
                prop_assert_eq!(serde_json::from_str::<Cidr>(&json).unwrap(), cidr);
            }
        }
    }
}
