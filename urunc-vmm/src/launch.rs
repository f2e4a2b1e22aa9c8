//! The outcome of a plan: how to execute a monitor, as plain data that can be stored and sent. Carrying it out
//! (placing descriptors, `execve`) is left to the caller.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::Protocol;

/// The first descriptor number that a plan assigns; 0, 1 and 2 are the container's streams.
pub(crate) const FIRST_FD: i32 = 3;

/// How to execute a monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program, as seen in the root that it runs in.
    pub program: PathBuf,
    /// Its arguments without the program name. No element holds a NUL byte.
    pub args: Vec<String>,
    /// Its whole environment; nothing is to be inherited.
    pub env: Vec<(String, String)>,
    /// Contents that the monitor reads from descriptors.
    pub documents: Vec<Document>,
    /// Descriptors that it inherits. Beside these, the documents and 0 to 2, it must have none.
    pub inherit: Vec<Inherit>,
    /// Where it serves its control interface.
    pub control: Option<ControlPoint>,
    /// How it is asked to end.
    pub shutdown: Shutdown,
    /// What it does when the guest resets itself.
    pub on_reset: OnReset,
    /// What the user should know about this plan.
    pub warnings: Vec<Warning>,
}

/// A document for the monitor's eyes only. The caller puts the contents into a memory file (`memfd_create`,
/// rewound, ideally sealed) that the monitor's user may read, and leaves it open under the given number.
///
/// Monitors open it as `/proc/self/fd/N`, so a plan with documents needs `/proc` in the monitor's root
/// ([`HostFiles::proc`](crate::HostFiles::proc)).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// What it is, for messages.
    pub name: String,
    /// Its contents; they may hold secrets of the container's environment.
    pub contents: Vec<u8>,
    /// The descriptor number that it must have in the monitor.
    pub fd: i32,
}

impl fmt::Debug for Document {
    /// Shows the size in place of the contents, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("name", &self.name)
            .field("bytes", &self.contents.len())
            .field("fd", &self.fd)
            .finish()
    }
}

/// A descriptor that the monitor inherits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherit {
    /// What it is.
    pub role: Role,
    /// The number that it must have in the monitor.
    pub fd: i32,
}

/// What an inherited descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The TAP device of the machine's n-th network interface.
    Tap(usize),
    /// An open `/dev/vhost-net` for the machine's n-th network interface.
    VhostNet(usize),
    /// An open `/dev/vhost-vsock`.
    VhostVsock,
    /// A Unix stream socket that already listens, for control connections.
    Control,
    /// The write end of a pipe whose other end is watched; see [`OnReset::BootsAgain`].
    Events,
}

/// Where a monitor serves its control interface, and in which language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlPoint {
    /// QMP on the listener inherited as [`Role::Control`].
    Qmp,
    /// Cloud Hypervisor's HTTP API on the listener inherited as [`Role::Control`].
    CloudHypervisor,
    /// Firecracker's HTTP API on a socket that it makes itself.
    Firecracker {
        /// The socket's path in the monitor's root. The directory must exist and belong to the monitor's user.
        path: PathBuf,
    },
}

impl ControlPoint {
    /// Returns the language that is spoken there.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match self {
            Self::Qmp => Protocol::Qmp,
            Self::CloudHypervisor => Protocol::CloudHypervisor,
            Self::Firecracker { .. } => Protocol::Firecracker,
        }
    }
}

/// How a monitor is asked to end the guest in an orderly way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shutdown {
    /// By the control interface; the guest is told and ends itself.
    Control {
        /// What ends a monitor that cannot be asked.
        otherwise: Unasked,
    },
    /// By SIGTERM: the monitor ends at once, the guest is not told.
    Terminate,
    /// By SIGKILL: the monitor ignores SIGTERM when it is the first process of its pid namespace.
    Kill,
}

/// What ends a monitor that is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unasked {
    /// SIGTERM.
    Terminate,
    /// SIGKILL: it ignores SIGTERM.
    Kill,
}

impl Shutdown {
    /// Returns what ends the monitor if it is not asked.
    #[must_use]
    pub const fn unasked(self) -> Unasked {
        match self {
            Self::Control { otherwise } => otherwise,
            Self::Terminate => Unasked::Terminate,
            Self::Kill => Unasked::Kill,
        }
    }
}

/// What a monitor does when the guest resets itself, which is how many guests end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReset {
    /// It ends.
    Ends,
    /// It would boot the guest again, for ever. Somebody must read the events that it writes to [`Role::Events`]
    /// and end it: [`control::watch`](crate::control::watch), in a process of its own that ends with the monitor.
    BootsAgain,
}

/// Something in a plan that the user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Warning {
    /// The guest is emulated, which is slow.
    Emulated {
        /// Why KVM is not used.
        reason: String,
    },
    /// The guest gets less memory than asked for.
    MemoryRounded {
        /// What was asked for.
        asked: crate::Memory,
        /// What it gets.
        given: crate::Memory,
    },
    /// The monitor's system call filter was to be off, but cannot be.
    SeccompStays,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emulated { reason } => {
                write!(f, "the guest is emulated, without hardware virtualisation: {reason}")
            }
            Self::MemoryRounded { asked, given } => {
                write!(f, "the guest gets {given} of memory instead of {asked}")
            }
            Self::SeccompStays => f.write_str("the monitor's own system call filter cannot be turned off"),
        }
    }
}
