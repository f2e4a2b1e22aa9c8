//! What a monitor needs to see: the input of the plan.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::target::Target;
use crate::access::Access;

/// Everything that one monitor needs to see. Lists are in no particular order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// The monitor's program on the host, with symbolic links resolved (`std::fs::canonicalize`).
    pub binary: PathBuf,
    /// Whether the program needs the system's shared libraries.
    pub libraries: Libraries,
    /// Further host files and directories: firmware, data directories, a shared directory.
    pub binds: Vec<HostBind>,
    /// Files of the image that the monitor boots from.
    pub boot_files: Vec<BootFile>,
    /// Device nodes, all below `/dev`.
    pub devices: Vec<DeviceNode>,
    /// Writable directories.
    pub scratch: Vec<Scratch>,
    /// Whether there is a `/proc`.
    pub proc: Proc,
    /// Whom the monitor runs as, in the ids of the namespace in which `prepare` runs.
    pub owner: Owner,
    /// SELinux context of the file systems made here, if any.
    pub label: Option<String>,
}

/// Which of the system's libraries a program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Libraries {
    /// It is linked statically.
    None,
    /// It is linked dynamically: `/usr` and what belongs to it is bound read-only.
    System,
}

/// Something of the host, or behind a descriptor, bound into the monitor's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBind {
    /// What is bound; links on the way are followed.
    pub source: Source,
    /// Where the monitor sees it.
    pub target: Target,
    /// What the monitor may do with it.
    pub access: Use,
}

/// A file of the image that the monitor boots from, such as its kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// Name of the descriptor that is passed to `prepare`.
    pub handle: String,
    /// Where the monitor sees it, such as `/boot/kernel`.
    pub target: Target,
    /// How it gets there.
    pub delivery: Delivery,
}

/// How a file of the image gets into the monitor's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Bound: costs nothing, and keeps the image's file system busy as long as the monitor lives.
    Bind,
    /// Copied into memory: for an image whose file system is to be unmounted and given to the guest.
    Copy {
        /// The file's size; room is made for it.
        size: ByteSize,
    },
}

/// What the monitor may do with something bound. Nothing bound ever has working setuid bits or devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// Read and execute.
    Program,
    /// Read.
    Data,
    /// What [`Access`] says; things may be bound inside, at places that are made there if they are missing, and later
    /// mounts and unmounts of the host below it are seen.
    Share(Access),
}

/// A device node; the monitor owns it and nobody else may open it. A control group's device rules should say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Where it is, below `/dev`.
    pub target: Target,
    /// What it stands for.
    pub device: Device,
    /// What the monitor may open it for.
    pub access: Access,
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// The two kinds of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// A writable directory of the monitor, in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scratch {
    /// Where it is.
    pub target: Target,
    /// How much fits in.
    pub size: ByteSize,
}

/// Whether the monitor has a `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proc {
    /// None.
    Absent,
    /// Read-only, with processes only (no `sysrq-trigger`, no `sys`), and of those only its own.
    Masked,
}

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// Where something bound comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A path on the host, trusted, with all that is mounted below it.
    Host(PathBuf),
    /// The same, as its user wants it bound.
    Volume {
        /// The path.
        path: PathBuf,
        /// The user's wishes.
        binding: Binding,
    },
    /// A descriptor that is passed to `prepare` under this name.
    Handle(String),
    /// Nowhere: an empty directory in memory.
    Memory(Tmpfs),
}

/// How somebody wants a directory of the host bound, where mounts are concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Those that are below it now.
    #[serde(default)]
    pub below: Below,
    /// Those that come and go later, if it is read-only. What is writable always sees them.
    #[serde(default)]
    pub later: Later,
}

/// Mounts below a directory that is bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Below {
    /// They come along (`rbind`).
    #[default]
    Included,
    /// They do not: what they cover is seen instead (`bind`).
    LeftOut,
}

/// Mounts and unmounts of the host, below what is bound, after that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Later {
    /// They do not matter (`private`).
    #[default]
    Ignored,
    /// They happen there, too (`slave`, `shared`), once the root is attached: the kernel keeps them from detached mounts.
    Followed,
}

/// An empty directory in memory, as a tmpfs is mounted (tmpfs(5)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// How much fits in, in the words of the file system's option: `64m`, `10%`. Without it, half of the memory that there is.
    pub size: Option<String>,
    /// The directory's permissions.
    pub mode: u32,
    /// Its owner.
    pub owner: Owner,
}

impl HostBind {
    /// The same at its place below `directory`.
    #[must_use]
    pub fn below(self, directory: &Target) -> Self {
        Self { target: directory.join(&self.target), ..self }
    }
}
