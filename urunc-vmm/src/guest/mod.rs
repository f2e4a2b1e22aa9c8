//! The guest's side of a machine: which framework the kernel belongs to, what runs in it, and how that is written
//! down for it. One module for each framework; each carries a value exactly or refuses it by name. How a monitor
//! hands the result over is left to [`crate::Monitor`].

mod boot;
mod error;
mod freebsd;
mod generic;
mod hermit;
mod linux;
mod mewz;
mod mirage;
mod network;
mod omission;
mod rumprun;
mod text;
mod unikraft;
mod urunit;
mod workload;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use boot::{
    Board, Boot, CommandLine, CommandLineError, ConfigPlace, ExitPort, GuestConfig, Platform, PowerButton,
    VirtioPci,
};
pub use error::{Character, EncodeError, Item};
pub use network::{AddressError, InterfaceAddress, Network, Route};
pub use omission::Omission;
pub use workload::{Root, Volume, Workload};

use crate::Monitor;

/// A framework that kernels are built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guest {
    /// [Unikraft](https://unikraft.org).
    Unikraft,
    /// [Rumprun](https://github.com/cloudkernels/rumprun).
    Rumprun,
    /// [MirageOS](https://mirage.io).
    Mirage,
    /// [Mewz](https://github.com/mewz-project/mewz).
    Mewz,
    /// Linux, with any program as init or with `urunit`.
    Linux,
    /// [Hermit](https://hermit-os.org).
    Hermit,
    /// FreeBSD.
    Freebsd,
    /// No framework in particular: the command line is the arguments and nothing else.
    Generic,
}

impl Guest {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Unikraft,
        Self::Rumprun,
        Self::Mirage,
        Self::Mewz,
        Self::Linux,
        Self::Hermit,
        Self::Freebsd,
        Self::Generic,
    ];

    /// Returns its name, as in the annotation `com.urunc.unikernel.unikernelType`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unikraft => "unikraft",
            Self::Rumprun => "rumprun",
            Self::Mirage => "mirage",
            Self::Mewz => "mewz",
            Self::Linux => "linux",
            Self::Hermit => "hermit",
            Self::Freebsd => "freebsd",
            Self::Generic => "generic",
        }
    }

    /// Returns the monitors that it runs on.
    #[must_use]
    pub const fn monitors(self) -> &'static [Monitor] {
        use Monitor::{CloudHypervisor, Firecracker, Qemu, Solo5Hvt, Solo5Spt};
        match self {
            Self::Rumprun => &[Solo5Hvt, Solo5Spt],
            Self::Mirage => &[Solo5Hvt, Solo5Spt, Qemu],
            Self::Unikraft => &[Qemu, Firecracker],
            Self::Linux => &[Qemu, Firecracker, CloudHypervisor],
            Self::Hermit | Self::Mewz => &[Qemu],
            Self::Freebsd => &[Qemu, Firecracker],
            Self::Generic => &Monitor::ALL,
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no guest has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown guest type {0:?}: known are unikraft, rumprun, mirage, mewz, linux, hermit, freebsd and generic"
)]
pub struct UnknownGuest(String);

impl FromStr for Guest {
    type Err = UnknownGuest;

    fn from_str(name: &str) -> Result<Self, UnknownGuest> {
        Self::ALL.into_iter().find(|guest| guest.name() == name).ok_or_else(|| UnknownGuest(name.to_owned()))
    }
}

#[cfg(test)]
mod tests;
