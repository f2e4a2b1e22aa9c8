//! What a monitor needs from the host in its own root: device nodes, data files, `/proc`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Monitor, PlanError, firecracker, qemu, solo5};
use crate::{ConfigPlace, ControlSocket, Host, KvmAccess, Machine, Memory, ShareKind};

/// A character device that a monitor opens itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceNode {
    /// `/dev/kvm`.
    Kvm,
    /// `/dev/net/tun`.
    NetTun,
    /// `/dev/urandom`.
    Urandom,
    /// `/dev/null`.
    Null,
}

impl DeviceNode {
    /// Returns its path, on the host and in the monitor's root.
    #[must_use]
    pub fn path(self) -> &'static Path {
        Path::new(match self {
            Self::Kvm => "/dev/kvm",
            Self::NetTun => "/dev/net/tun",
            Self::Urandom => "/dev/urandom",
            Self::Null => "/dev/null",
        })
    }
}

/// What must be in a monitor's root besides its program and that program's libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFiles {
    /// Directories of data, read-only, where they exist on the host. A bind of `/usr` covers those below it.
    pub data: Vec<PathBuf>,
    /// A file that must be in one of some directories of the host.
    pub firmware: Option<Firmware>,
    /// Whether it needs `/proc`. Its own process is enough (mount option `subset=pid`).
    pub proc: bool,
    /// A directory in which the monitor makes its control socket; it must exist and belong to its user.
    pub socket_dir: Option<PathBuf>,
}

/// A file without which a machine does not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// Its name.
    pub name: String,
    /// The directories in which it may be.
    pub places: Vec<PathBuf>,
}

pub(super) fn device_nodes(
    monitor: Monitor,
    machine: &Machine,
    host: &Host,
) -> Result<Vec<DeviceNode>, PlanError> {
    let mut nodes = vec![DeviceNode::Null, DeviceNode::Urandom];
    match monitor {
        Monitor::Solo5Hvt | Monitor::Solo5Spt => {
            if monitor == Monitor::Solo5Hvt {
                need_kvm(monitor, host)?;
                nodes.push(DeviceNode::Kvm);
            }
            if solo5::declares_network(machine) {
                nodes.push(DeviceNode::NetTun);
            }
        }
        Monitor::Qemu => {
            if qemu::acceleration(machine, host)?.uses_kvm() {
                nodes.push(DeviceNode::Kvm);
            }
        }
        Monitor::Firecracker => {
            need_kvm(monitor, host)?;
            nodes.extend([DeviceNode::Kvm, DeviceNode::NetTun]);
        }
        Monitor::CloudHypervisor => {
            need_kvm(monitor, host)?;
            nodes.push(DeviceNode::Kvm);
        }
    }
    Ok(nodes)
}

pub(super) fn host_files(monitor: Monitor, machine: &Machine, host: &Host) -> HostFiles {
    let place = machine.boot.config.as_ref().map(|config| &config.place);
    let document = matches!(place, Some(ConfigPlace::Initrd | ConfigPlace::LastDisk));
    let files = HostFiles { proc: document, ..HostFiles::default() };
    match monitor {
        Monitor::Solo5Hvt | Monitor::Solo5Spt | Monitor::CloudHypervisor => files,
        Monitor::Qemu => {
            // Its 9p server changes modes by way of /proc/self/fd (hw/9pfs/9p-local.c, fchmodat_nofollow).
            let serves = machine.shares.iter().any(|share| matches!(share.kind, ShareKind::NineP { .. }));
            HostFiles {
                data: qemu::data_dirs(host),
                firmware: qemu::firmware(machine, host),
                proc: files.proc || serves,
                ..files
            }
        }
        Monitor::Firecracker => {
            let socket = Path::new(firecracker::SOCKET).parent().map(Path::to_owned);
            let serves = machine.control == ControlSocket::On;
            HostFiles { proc: true, socket_dir: socket.filter(|_| serves), ..files }
        }
    }
}

/// What the monitor itself needs, measured while the demo guest held on x86_64 (resident, file pages included: hvt and
/// spt 2 MiB, Firecracker 5, Cloud Hypervisor 11, QEMU 43, emulating at most its translation cache more), and room for
/// devices and their queues. Page tables of host and guest together take a 256th of what they map.
pub(super) fn overhead(monitor: Monitor, machine: &Machine, host: &Host) -> Memory {
    let mib = match monitor {
        Monitor::Solo5Hvt | Monitor::Solo5Spt => 4,
        Monitor::Firecracker => 12,
        Monitor::CloudHypervisor => 24,
        Monitor::Qemu => match qemu::acceleration(machine, host) {
            Ok(acceleration) if !acceleration.uses_kvm() => 64 + u64::from(qemu::TRANSLATION_CACHE_MIB),
            _ => 64,
        },
    };
    let vcpus = Memory::mib(u64::from(machine.vcpus.get()));
    let tables = machine.memory.as_bytes() / 256;
    Memory::bytes(Memory::mib(mib).as_bytes().saturating_add(vcpus.as_bytes()).saturating_add(tables))
}

/// Refuses a host without KVM for a monitor that does not run without.
pub(super) fn need_kvm(monitor: Monitor, host: &Host) -> Result<(), PlanError> {
    match &host.kvm {
        KvmAccess::Native | KvmAccess::Nested => Ok(()),
        KvmAccess::Unusable { reason } => {
            Err(PlanError::Kvm { monitor, why: "it cannot do without", reason: reason.clone() })
        }
    }
}
