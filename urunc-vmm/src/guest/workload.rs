//! What runs in a guest and what it is to know of its surroundings, before it is written down for a framework.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Boot, EncodeError, Guest, generic};
use crate::{Arch, DeviceId, Machine, Monitor};

/// What is to run in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The framework.
    pub guest: Guest,
    /// The framework's version, if the image tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The arguments, the program's name first.
    #[serde(default)]
    pub args: Vec<String>,
    /// The environment, each entry `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// The user id to run as, where the guest knows users.
    #[serde(default)]
    pub uid: u32,
    /// The group id to run as, where the guest knows groups.
    #[serde(default)]
    pub gid: u32,
    /// The working directory; empty is `/`.
    #[serde(default)]
    pub cwd: String,
    /// The host name; empty is the guest's own default.
    #[serde(default)]
    pub hostname: String,
    /// The root file system.
    #[serde(default)]
    pub root: Root,
    /// Disks to mount besides the root.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// What the guest is to configure on the machine's network interfaces, in their order.
    #[serde(default)]
    pub networks: Vec<Network>,
}

/// A guest's root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// None.
    #[default]
    None,
    /// The machine's initial ramdisk.
    Initrd,
    /// A disk of the machine.
    Disk {
        /// Its name.
        id: DeviceId,
        /// The type of file system on it, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_system: Option<String>,
    },
    /// A shared directory of the machine.
    Share(DeviceId),
}

/// A disk to mount in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The disk's name in the machine.
    pub disk: DeviceId,
    /// Where to mount it.
    pub mount_point: String,
}

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

impl Workload {
    /// Describes a workload of the given arguments and nothing else.
    #[must_use]
    pub fn new(guest: Guest, args: Vec<String>) -> Self {
        Self {
            guest,
            version: None,
            args,
            env: Vec::new(),
            uid: 0,
            gid: 0,
            cwd: String::new(),
            hostname: String::new(),
            root: Root::None,
            volumes: Vec::new(),
            networks: Vec::new(),
        }
    }

    /// Writes the workload down for its framework, on this machine under this monitor. The result belongs into
    /// [`Machine::boot`]; what the machine has there already is ignored.
    ///
    /// # Errors
    /// [`EncodeError`] names what the framework's format cannot carry.
    pub fn boot(&self, machine: &Machine, monitor: Monitor, arch: Arch) -> Result<Boot, EncodeError> {
        if !self.guest.monitors().contains(&monitor) {
            return Err(EncodeError::Pair { guest: self.guest, monitor });
        }
        let _ = (machine, arch);
        match self.guest {
            Guest::Generic => generic::boot(self),
            guest => Err(EncodeError::Unsupported {
                what: "anything yet".to_owned(),
                guest,
                remedy: "its encoder is not part of this milestone",
            }),
        }
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
}
