//! The small words of networking as types: interface names and numbers, hardware addresses, MTUs. Each is valid
//! once it exists. Network addresses are in `cidr.rs`.

use std::fmt;
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

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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

/// An interface: the number by which the kernel knows it, and the name by which people do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interface {
    /// Its name, which can change.
    pub name: IfName,
    /// Its number, which does not.
    pub index: IfIndex,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
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

/// Lets serde write and read a type as its text.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = $crate::names::NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
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
pub(crate) use as_text;
as_text!(IfName, MacAddr);

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
    fn what_is_almost_a_hardware_address_is_refused() {
        for bad in ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "02:00:00:00:00:+1"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read_back(octets: [u8; 6]) {
            let mac = MacAddr::from(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
        }
    }
}
