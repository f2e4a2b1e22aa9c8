//! What runs in a guest and what it is to know of its surroundings, before it is written down for a framework.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Boot, EncodeError, Guest, Network, freebsd, generic, hermit, linux, mewz, mirage, rumprun, unikraft,
};
use crate::{Arch, DeviceId, Disk, Machine, Monitor, Share, ShareKind};

/// What is to run in a guest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl fmt::Debug for Workload {
    /// Shows the names of variables without their values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            self.env.iter().map(|entry| entry.split('=').next().unwrap_or_default()).collect();
        f.debug_struct("Workload")
            .field("guest", &self.guest)
            .field("version", &self.version)
            .field("args", &self.args)
            .field("env", &names)
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .field("cwd", &self.cwd)
            .field("hostname", &self.hostname)
            .field("root", &self.root)
            .field("volumes", &self.volumes)
            .field("networks", &self.networks)
            .finish()
    }
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
        /// The type of file system on it (as in `mount -t`), if known.
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
        let guest = self.guest;
        if !guest.monitors().contains(&monitor) {
            return Err(EncodeError::Pair { guest, monitor });
        }
        if self.networks.len() > machine.nets.len() {
            let what = format!("{} networks on {} interfaces", self.networks.len(), machine.nets.len());
            return Err(EncodeError::Unsupported { what, guest, remedy: "add interfaces to the machine" });
        }
        if self.root == Root::Initrd && machine.initrd.is_none() {
            let what = "an initial ramdisk as root on a machine that has none".to_owned();
            return Err(EncodeError::Unsupported { what, guest, remedy: "add one to the machine" });
        }
        let place = Place { machine, monitor, arch };
        match guest {
            Guest::Unikraft => unikraft::boot(self, place),
            Guest::Rumprun => rumprun::boot(self, place),
            Guest::Mirage => mirage::boot(self, place),
            Guest::Mewz => mewz::boot(self, place),
            Guest::Linux => linux::boot(self, place),
            Guest::Hermit => hermit::boot(self, place),
            Guest::Freebsd => freebsd::boot(self, place),
            Guest::Generic => generic::boot(self),
        }
    }
}

/// Where a workload runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) machine: &'a Machine,
    pub(super) monitor: Monitor,
    pub(super) arch: Arch,
}

impl<'a> Place<'a> {
    /// Finds a disk, and its position among the guest's.
    pub(super) fn disk(self, id: &DeviceId, guest: Guest) -> Result<(usize, &'a Disk), EncodeError> {
        let found = self.machine.disks.iter().enumerate().find(|(_, disk)| disk.id == *id);
        found.ok_or_else(|| EncodeError::NoSuchDevice { what: "disk", id: id.clone(), guest })
    }

    /// Finds a shared directory.
    pub(super) fn share(self, tag: &DeviceId, guest: Guest) -> Result<&'a Share, EncodeError> {
        let found = self.machine.shares.iter().find(|share| share.tag == *tag);
        found.ok_or_else(|| EncodeError::NoSuchDevice { what: "shared directory", id: tag.clone(), guest })
    }

    /// Finds a directory that is shared by 9p, for guests without a virtiofs driver.
    pub(super) fn nine_p(self, tag: &DeviceId, guest: Guest) -> Result<&'a Share, EncodeError> {
        let share = self.share(tag, guest)?;
        match share.kind {
            ShareKind::NineP { .. } => Ok(share),
            ShareKind::Virtiofs { .. } => Err(EncodeError::Unsupported {
                what: "a virtiofs root".to_owned(),
                guest,
                remedy: "share it by 9p",
            }),
        }
    }
}

/// Refuses volumes for guests that mount none.
pub(super) fn refuse_volumes(workload: &Workload, remedy: &'static str) -> Result<(), EncodeError> {
    match workload.volumes.first() {
        Some(volume) => Err(EncodeError::Unsupported {
            what: format!("the volume at {:?}", volume.mount_point),
            guest: workload.guest,
            remedy,
        }),
        None => Ok(()),
    }
}

/// Refuses a root file system of a kind that the guest cannot mount.
pub(super) fn refuse_root<T>(workload: &Workload, remedy: &'static str) -> Result<T, EncodeError> {
    let what = match &workload.root {
        Root::None => "no root file system",
        Root::Initrd => "an initial ramdisk as root",
        Root::Disk { .. } => "a disk as root",
        Root::Share(_) => "a shared directory as root",
    };
    Err(EncodeError::Unsupported { what: what.to_owned(), guest: workload.guest, remedy })
}

/// Returns the only network of a guest whose format has a place for one.
pub(super) fn only_network(workload: &Workload) -> Result<Option<&Network>, EncodeError> {
    match workload.networks.as_slice() {
        [] => Ok(None),
        [network] => Ok(Some(network)),
        several => Err(EncodeError::Unsupported {
            what: format!("{} networks", several.len()),
            guest: workload.guest,
            remedy: "it configures one interface",
        }),
    }
}
