//! Facts about the host that a plan depends on. They are given by the caller: nothing here looks at anything.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// A processor architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// AMD64, also called x86-64.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// Returns the architecture that this program was built for, if monitors exist on it.
    #[must_use]
    pub fn current() -> Option<Self> {
        std::env::consts::ARCH.parse().ok()
    }

    /// Returns the name that the kernel, QEMU and Rust use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An architecture without monitors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no monitor runs on architecture {0:?}: x86_64 and aarch64 are supported")]
pub struct UnknownArch(String);

impl FromStr for Arch {
    type Err = UnknownArch;

    /// Reads the kernel's name (`uname -m`) or Go's (`amd64`, `arm64`), as image manifests have it.
    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        match name {
            "x86_64" | "amd64" => Ok(Self::X86_64),
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            other => Err(UnknownArch(other.to_owned())),
        }
    }
}

/// What a plan needs to know of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The host's architecture.
    pub arch: Arch,
    /// Whether KVM can be used.
    pub kvm: KvmAccess,
    /// The monitor's program, as seen in the root that it will run in.
    pub program: PathBuf,
    /// QEMU's data directory where it is not the one that QEMU was built with, as seen in the monitor's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
}

/// Whether `/dev/kvm` can be used, as found by opening it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmAccess {
    /// It opens and answers, on real hardware.
    Native,
    /// It opens and answers, but the host is a virtual machine itself (`hypervisor` in `/proc/cpuinfo`),
    /// where some model-specific registers cannot be set.
    Nested,
    /// It cannot be used.
    Unusable {
        /// Why, for messages: "there is no /dev/kvm", "/dev/kvm: permission denied".
        reason: String,
    },
}
