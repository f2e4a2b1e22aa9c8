//! The monitors: what each can do, what it needs from the host, and how it is executed for a machine. One module
//! for each; everything here is pure. Running one is left to the caller, talking to one to [`crate::control`].

mod assemble;
mod capabilities;
mod cloud_hypervisor;
mod error;
mod firecracker;
mod host_needs;
mod qemu;
mod solo5;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use capabilities::{Capabilities, KvmNeed, TapHandover};
pub use error::{KernelMismatch, PlanError};
pub use host_needs::{DeviceNode, Firmware, HostFiles};

use crate::{Arch, ConfigPlace, GuestConfig, Host, KernelImage, Launch, Machine, Memory};

/// A program that runs virtual machines, or, for spt, confined processes that look like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Monitor {
    /// Solo5's tender that uses hardware virtualisation.
    #[serde(rename = "hvt")]
    Solo5Hvt,
    /// Solo5's tender that confines a process by seccomp.
    #[serde(rename = "spt")]
    Solo5Spt,
    /// QEMU's system emulator.
    #[serde(rename = "qemu")]
    Qemu,
    /// Firecracker.
    #[serde(rename = "firecracker")]
    Firecracker,
    /// Cloud Hypervisor.
    #[serde(rename = "cloud-hypervisor")]
    CloudHypervisor,
}

impl Monitor {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Solo5Hvt, Self::Solo5Spt, Self::Qemu, Self::Firecracker, Self::CloudHypervisor];

    /// Returns its name, as in the annotation `com.urunc.unikernel.hypervisor`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Solo5Hvt => "hvt",
            Self::Solo5Spt => "spt",
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// Returns the names that its program is installed under, most usual first.
    #[must_use]
    pub const fn binary_names(self, arch: Arch) -> &'static [&'static str] {
        match (self, arch) {
            (Self::Solo5Hvt, _) => &["solo5-hvt"],
            (Self::Solo5Spt, _) => &["solo5-spt"],
            (Self::Qemu, Arch::X86_64) => &["qemu-system-x86_64"],
            (Self::Qemu, Arch::Aarch64) => &["qemu-system-aarch64"],
            (Self::Firecracker, _) => &["firecracker"],
            (Self::CloudHypervisor, _) => &["cloud-hypervisor"],
        }
    }

    /// Returns what it can do on a host of the given architecture.
    #[must_use]
    pub const fn capabilities(self, arch: Arch) -> Capabilities {
        capabilities::of(self, arch)
    }

    /// Checks that it can boot a kernel on a host of the given architecture.
    ///
    /// # Errors
    /// [`KernelMismatch`] says what the kernel is and what would be accepted.
    pub fn accepts(self, kernel: &KernelImage, arch: Arch) -> Result<(), KernelMismatch> {
        if kernel.arch != arch {
            return Err(KernelMismatch::Architecture { kernel: kernel.arch, host: arch });
        }
        match self {
            Self::Solo5Hvt | Self::Solo5Spt => solo5::accepts(self, kernel),
            Self::Qemu => qemu::accepts(kernel),
            Self::Firecracker => firecracker::accepts(kernel),
            Self::CloudHypervisor => cloud_hypervisor::accepts(kernel),
        }
    }

    /// Returns the device nodes that it needs in its root. At `create` the network is not known yet; a node for
    /// it is listed wherever this machine could get one later.
    ///
    /// # Errors
    /// [`PlanError::Kvm`] if KVM is needed but not to be had.
    pub fn device_nodes(self, machine: &Machine, host: &Host) -> Result<Vec<DeviceNode>, PlanError> {
        host_needs::device_nodes(self, machine, host)
    }

    /// Returns what must be in its root besides its program, that program's libraries, and the machine's own
    /// files.
    #[must_use]
    pub fn host_files(self, machine: &Machine, host: &Host) -> HostFiles {
        host_needs::host_files(self, machine, host)
    }

    /// Returns how much memory it needs beside the guest's, for the limit of its cgroup. An estimate on the large side.
    #[must_use]
    pub fn overhead(self, machine: &Machine, host: &Host) -> Memory {
        host_needs::overhead(self, machine, host)
    }

    /// Plans how to execute it for a machine. Touches nothing.
    ///
    /// # Errors
    /// [`PlanError`] names what the monitor cannot do, with what it could.
    pub fn plan(self, machine: &Machine, host: &Host) -> Result<Launch, PlanError> {
        self.accepts(&machine.kernel.image, host.arch)?;
        if let Some(GuestConfig { place: ConfigPlace::InitrdFile(path), .. }) = &machine.boot.config {
            return Err(PlanError::ConfigNotPlaced { path: path.clone() });
        }
        let launch = match self {
            Self::Solo5Hvt | Self::Solo5Spt => solo5::plan(self, machine, host)?,
            Self::Qemu => qemu::plan(machine, host)?,
            Self::Firecracker => firecracker::plan(machine, host)?,
            Self::CloudHypervisor => cloud_hypervisor::plan(machine, host)?,
        };
        match launch.args.iter().find(|arg| arg.contains('\0')) {
            Some(arg) => Err(PlanError::Nul { argument: arg.clone() }),
            None => Ok(launch),
        }
    }
}

impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no supported monitor has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownMonitor {
    /// No monitor of this name is known.
    #[error("unknown monitor {0:?}: known are hvt, spt, qemu, firecracker and cloud-hypervisor")]
    Unknown(String),
    /// A monitor that the Go implementation knows and this one does not drive.
    #[error("monitor {name:?} is not supported: {reason}")]
    Unsupported {
        /// Its name.
        name: &'static str,
        /// Why.
        reason: &'static str,
    },
}

/// hyperlight-unikraft `docs/net.md`, `demos/urunc/README.md`; 0.18 and before.
const HYPERLIGHT: &str = "hluk boots the kernel that is built into it instead of the image's, and has no network device for the \
                          container's address: it opens sockets of the host instead; use qemu or firecracker";

impl FromStr for Monitor {
    type Err = UnknownMonitor;

    fn from_str(name: &str) -> Result<Self, UnknownMonitor> {
        if let Some(monitor) = Self::ALL.into_iter().find(|monitor| monitor.name() == name) {
            return Ok(monitor);
        }
        Err(match name {
            "hyperlight" => UnknownMonitor::Unsupported { name: "hyperlight", reason: HYPERLIGHT },
            "hyperlight-unikraft" => {
                UnknownMonitor::Unsupported { name: "hyperlight-unikraft", reason: HYPERLIGHT }
            }
            "hedge" => UnknownMonitor::Unsupported {
                name: "hedge",
                reason: "it needs a kernel module that was never released",
            },
            other => UnknownMonitor::Unknown(other.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests;
