//! A container's machine, described once and for every monitor. It decides nothing: [`crate::Workload`] says
//! what a guest framework wants on it, [`crate::Monitor::plan`] how a monitor provides it.

use std::{num::NonZeroU32, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Boot, Console, Disk, KernelImage, Memory, NetDevice, Share, Vsock};

/// A virtual machine. Every path is as the monitor sees it, inside its own root.
///
/// It can be stored (at `create`) and completed later (with the network, at `start`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel.
    pub kernel: Kernel,
    /// The initial ramdisk. One: no monitor takes a second, so several archives are joined beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// What the guest framework wants: command line, board, configuration. See [`crate::Workload::boot`].
    #[serde(default)]
    pub boot: Boot,
    /// The guest's memory.
    pub memory: Memory,
    /// The number of virtual CPUs.
    pub vcpus: NonZeroU32,
    /// Network interfaces, in the guest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<NetDevice>,
    /// Disks, in the guest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Shared directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// A vsock device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Vsock>,
    /// The console.
    #[serde(default)]
    pub console: Console,
    /// Whether hardware virtualisation is to be used.
    #[serde(default)]
    pub kvm: Kvm,
    /// Whether the monitor confines itself with its own system call filter.
    #[serde(default)]
    pub seccomp: Seccomp,
    /// Whether the monitor is to serve a control socket, if it can.
    #[serde(default)]
    pub control: ControlSocket,
    /// Whether it boots its kernel or waits for a snapshot.
    #[serde(default)]
    pub startup: Startup,
}

impl Machine {
    /// Describes a machine with one CPU, no device but the console, and defaults for everything else.
    #[must_use]
    pub fn new(kernel: Kernel, memory: Memory) -> Self {
        Self {
            kernel,
            initrd: None,
            boot: Boot::default(),
            memory,
            vcpus: NonZeroU32::MIN,
            nets: Vec::new(),
            disks: Vec::new(),
            shares: Vec::new(),
            vsock: None,
            console: Console::default(),
            kvm: Kvm::default(),
            seccomp: Seccomp::default(),
            control: ControlSocket::default(),
            startup: Startup::default(),
        }
    }
}

/// A kernel: where it lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Its path, as the monitor sees it.
    pub path: PathBuf,
    /// What [`kernel::inspect`](crate::kernel::inspect) found in it.
    pub image: KernelImage,
}

/// Whether QEMU uses KVM. Other monitors either need it or cannot use it, and say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kvm {
    /// KVM where the host has it, emulation with a warning where not.
    #[default]
    Auto,
    /// KVM, or an error.
    Required,
    /// Emulation.
    Off,
}

/// Whether the monitor's own system call filter is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// On.
    #[default]
    On,
    /// Off, where the monitor can be told so; the Solo5 tenders cannot.
    Off,
}

/// Whether a monitor that can serve a control socket is told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlSocket {
    /// It serves one.
    #[default]
    On,
    /// It serves none.
    Off,
}

/// What a monitor does when it is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Startup {
    /// It boots the kernel.
    #[default]
    Boot,
    /// It waits for [`Control::restore`](crate::Control::restore).
    Restore,
}
