//! The devices of a [`Machine`](crate::Machine): plain descriptions with validated names. How a monitor
//! spells them on its command line is left to [`crate::Monitor`].

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// A device description that no monitor or guest could work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Not six hexadecimal pairs.
    #[error("{0:?} is not a MAC address like 02:42:0a:00:00:02")]
    Mac(String),
    /// A group or all-zero address cannot belong to an interface.
    #[error("{0} is not the address of a single interface")]
    GroupMac(MacAddr),
    /// The name of a TAP device.
    #[error(
        "{0:?} is not a TAP device name: it must be 1 to 15 letters, digits, dots, dashes or underscores, and start with a letter or digit"
    )]
    TapName(String),
    /// The name of a disk or share.
    #[error("{0:?} is not a device name: it must be a letter and up to 19 letters, digits or underscores")]
    Name(String),
}

/// The MAC address of a guest's network interface; never a group address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Checks an address.
    ///
    /// # Errors
    /// [`DeviceError::GroupMac`] if the group bit is set or all bytes are zero.
    pub fn new(bytes: [u8; 6]) -> Result<Self, DeviceError> {
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(DeviceError::GroupMac(Self(bytes)));
        }
        Ok(Self(bytes))
    }

    /// Returns the six bytes in transmission order.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let refuse = || DeviceError::Mac(text.to_owned());
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2 && !pair.starts_with('+'));
            *byte = u8::from_str_radix(pair.ok_or_else(refuse)?, 16).map_err(|_| refuse())?;
        }
        if pairs.next().is_some() {
            return Err(refuse());
        }
        Self::new(bytes)
    }
}

impl TryFrom<String> for MacAddr {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

/// The stable name of a disk or a shared directory: a letter, then up to 19 letters, digits or underscores.
///
/// That is what every monitor takes unescaped: a virtio serial holds 20 bytes (virtio 1.2, 5.2.4), QEMU ids
/// start with a letter, and Firecracker's API wants letters, digits and underscores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

impl DeviceId {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceId {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for DeviceId {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        let first = text.starts_with(|c: char| c.is_ascii_alphabetic());
        if first && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            Ok(Self(text))
        } else {
            Err(DeviceError::Name(text))
        }
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

/// A network interface of the guest, backed by a TAP device of the container's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDevice {
    /// The address that the guest sees.
    pub mac: MacAddr,
    /// The MTU that the guest is told, where its device can carry it.
    pub mtu: u16,
    /// How the monitor gets at the TAP; see [`Capabilities::tap`](crate::Capabilities::tap).
    pub attachment: Attachment,
    /// The name that the image says its Solo5 manifest has for it; `None` takes the manifest's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared_as: Option<String>,
    /// Who moves the packets.
    #[serde(default)]
    pub backend: NetBackend,
}

/// The name of a TAP device: up to 15 letters, digits, dots, dashes and underscores, the first a letter or digit.
///
/// The kernel allows more (`dev_valid_name` in net/core/dev.c), but the tenders take `@3` for a descriptor and end a
/// name at white space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TapName(String);

impl TapName {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TapName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for TapName {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if first && rest && text.len() <= 15 { Ok(Self(text)) } else { Err(DeviceError::TapName(text)) }
    }
}

impl From<TapName> for String {
    fn from(name: TapName) -> Self {
        name.0
    }
}

/// How a monitor gets at a TAP device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attachment {
    /// An open descriptor, inherited as [`Role::Tap`](crate::Role::Tap).
    Descriptor,
    /// The device's name; the monitor opens `/dev/net/tun` itself.
    Name(TapName),
}

/// Who moves packets between guest and TAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetBackend {
    /// The monitor.
    #[default]
    Monitor,
    /// The host kernel, through `/dev/vhost-net` opened by the caller ([`Role::VhostNet`](crate::Role::VhostNet)).
    Vhost,
}

/// A disk of the guest: a raw image or a block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its stable name, shown to the guest as the serial number where the monitor can.
    pub id: DeviceId,
    /// Where it lies, as the monitor sees it.
    pub path: PathBuf,
    /// Whether the guest may write to it.
    pub access: Access,
    /// The name that the image says its Solo5 manifest has for it; `None` takes the manifest's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared_as: Option<String>,
}

/// Whether a guest may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It may read only.
    ReadOnly,
    /// It may read and write.
    ReadWrite,
}

/// A directory that the guest shares with the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The tag by which the guest mounts it.
    pub tag: DeviceId,
    /// The protocol, with what the monitor needs for it.
    pub kind: ShareKind,
}

/// How a directory is shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareKind {
    /// 9p, served by the monitor itself.
    NineP {
        /// The directory, as the monitor sees it.
        path: PathBuf,
        /// Whether the guest may write to it.
        access: Access,
    },
    /// virtiofs, served by a `virtiofsd` that listens on a socket.
    Virtiofs {
        /// The socket, as the monitor sees it.
        socket: PathBuf,
    },
}

impl ShareKind {
    /// Returns the name of the protocol, as in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NineP { .. } => "9p",
            Self::Virtiofs { .. } => "virtiofs",
        }
    }
}

/// A vsock device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vsock {
    /// The guest's context id; 0, 1 and 2 are taken (vsock(7)).
    pub cid: u32,
    /// Where Firecracker and Cloud Hypervisor put their end, as they see it. QEMU uses the host kernel's.
    pub socket: PathBuf,
}

/// What the guest's console is connected to; the host's end is the monitor's standard input and output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Console {
    /// The platform's UART (or, under Solo5, its console hypercall).
    #[default]
    Serial,
    /// A virtio console.
    Virtio,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_six_pairs_of_one_interface() {
        let mac: MacAddr = "02:42:0A:00:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:0a:00:00:02");
        for wrong in
            ["", "02:42:0a:00:00", "02:42:0a:00:00:02:03", "2:42:0a:00:00:02", "+2:42:0a:00:00:02", "x"]
        {
            assert_eq!(wrong.parse::<MacAddr>(), Err(DeviceError::Mac(wrong.to_owned())));
        }
        assert!(matches!("01:00:5e:00:00:01".parse::<MacAddr>(), Err(DeviceError::GroupMac(_))));
    }

    #[test]
    fn a_tap_name_is_a_word_that_every_monitor_takes() {
        for right in ["tap0_urunc", "u-1a2b3c", "0", "abcdefghijklmno"] {
            assert_eq!(right.parse::<TapName>().unwrap().as_str(), right);
        }
        for wrong in ["", "@3", "-x", "a b", "a,b", "a/b", "abcdefghijklmnop", "tap%d"] {
            assert_eq!(wrong.parse::<TapName>(), Err(DeviceError::TapName(wrong.to_owned())));
        }
    }

    #[test]
    fn a_device_name_is_a_word_that_every_monitor_takes() {
        for right in ["rootfs", "vol3", "annot_vol", "a", "abcdefghijklmnopqrst"] {
            assert_eq!(right.parse::<DeviceId>().unwrap().as_str(), right);
        }
        for wrong in ["", "3", "_a", "a,b", "a b", "a\n", "é", "abcdefghijklmnopqrstu", "a-b"] {
            assert_eq!(wrong.parse::<DeviceId>(), Err(DeviceError::Name(wrong.to_owned())));
        }
    }
}
