//! What the monitor's root contains, decided purely: from what a monitor needs to a list of entries.
//!
//! Opens nothing; whether a host path exists is found out by `prepare`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::{HostLayout, TopLevel};
use super::target::{BadTarget, Target};
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

/// A device node; the monitor owns it and nobody else may open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Where it is, below `/dev`.
    pub target: Target,
    /// What it stands for.
    pub device: Device,
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

/// The monitor's root as plain data: what is in it, parents before children.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorRoot {
    /// What it contains; directories on the way are made as needed.
    pub entries: Vec<Entry>,
    /// Who owns device nodes and writable directories.
    pub owner: Owner,
    /// SELinux context of the file systems made here, if any.
    pub label: Option<String>,
}

/// One thing in the monitor's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A symbolic link.
    Link {
        /// Where it is.
        target: Target,
        /// What it says.
        to: PathBuf,
    },
    /// A file or directory that exists elsewhere.
    Bind {
        /// Where it appears.
        target: Target,
        /// What it is.
        source: Source,
        /// What the monitor may do with it.
        access: Use,
    },
    /// A copy of a file, in memory, read-only.
    Copy {
        /// Where it is.
        target: Target,
        /// Name of the descriptor to copy from.
        handle: String,
        /// Its size.
        size: ByteSize,
    },
    /// A read-only tmpfs with device nodes.
    Devices {
        /// Always `/dev`.
        target: Target,
        /// The nodes.
        nodes: Vec<DeviceNode>,
    },
    /// A writable tmpfs that belongs to the monitor.
    Scratch {
        /// Where it is.
        target: Target,
        /// How much fits in.
        size: ByteSize,
    },
    /// The masked process file system.
    Proc {
        /// Where it is.
        target: Target,
    },
}

/// Where something bound comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A path on the host, trusted.
    Host(PathBuf),
    /// A descriptor that is passed to `prepare` under this name.
    Handle(String),
}

/// Why no root can be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A host path cannot appear at the same place in the monitor's root.
    #[error("cannot show the host's {} to the monitor", path.display())]
    Path {
        /// The host path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BadTarget,
    },
    /// A device node outside `/dev`.
    #[error("cannot make the device node {target}: device nodes belong below /dev")]
    NotBelowDev {
        /// Where it was wanted.
        target: Target,
    },
    /// Two different things at one place.
    #[error("cannot put two different things at {target} in the monitor's root")]
    Conflict {
        /// The place.
        target: Target,
    },
    /// A place below something that cannot have anything below it.
    #[error("cannot make {target} in the monitor's root: {below} is not a directory to put things in")]
    Blocked {
        /// The place.
        target: Target,
        /// What is in the way.
        below: Target,
    },
}

/// Decides what is in the root of a monitor with these `needs` on a host with this `layout`.
///
/// # Errors
/// [`PlanError`] if two needs contradict each other.
pub fn plan(needs: &Needs, layout: &HostLayout) -> Result<MonitorRoot, PlanError> {
    let mut entries = Vec::new();
    if needs.libraries == Libraries::System {
        entries.push(same_place(Path::new("/usr"), Use::Program)?);
        for top in &layout.top {
            entries.push(match top {
                TopLevel::Link { path, to } => Entry::Link { target: at(path)?, to: to.clone() },
                TopLevel::Directory { path } => same_place(path, Use::Program)?,
            });
        }
        if let Some(cache) = &layout.loader_cache {
            entries.push(same_place(cache, Use::Data)?);
        }
    }
    entries.push(same_place(&needs.binary, Use::Program)?);
    for HostBind { source, target, access } in &needs.binds {
        entries.push(Entry::Bind { target: target.clone(), source: source.clone(), access: *access });
    }
    for BootFile { handle, target, delivery } in &needs.boot_files {
        let (target, handle) = (target.clone(), handle.clone());
        entries.push(match delivery {
            Delivery::Bind => Entry::Bind { target, source: Source::Handle(handle), access: Use::Data },
            Delivery::Copy { size } => Entry::Copy { target, handle, size: *size },
        });
    }
    if let Some(devices) = devices(&needs.devices)? {
        entries.push(devices);
    }
    for Scratch { target, size } in &needs.scratch {
        entries.push(Entry::Scratch { target: target.clone(), size: *size });
    }
    if needs.proc == Proc::Masked {
        entries.push(Entry::Proc { target: at(Path::new("/proc"))? });
    }
    Ok(MonitorRoot { entries: arrange(entries)?, owner: needs.owner, label: needs.label.clone() })
}

impl HostBind {
    /// The same at its place below `directory`.
    #[must_use]
    pub fn below(self, directory: &Target) -> Self {
        Self { target: directory.join(&self.target), ..self }
    }
}

impl Entry {
    /// Where the entry is.
    #[must_use]
    pub fn target(&self) -> &Target {
        match self {
            Self::Link { target, .. }
            | Self::Bind { target, .. }
            | Self::Copy { target, .. }
            | Self::Devices { target, .. }
            | Self::Scratch { target, .. }
            | Self::Proc { target } => target,
        }
    }

    /// Whether `other`, which lies below, is what this entry shows there anyway.
    fn shows(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Bind { target: a, source: Source::Host(from_a), access: Use::Program, .. },
                Self::Bind {
                    target: b, source: Source::Host(from_b), access: Use::Program | Use::Data, ..
                },
            ) => a.as_path() == from_a && b.as_path() == from_b,
            _ => false,
        }
    }

    /// Whether nothing can be put below this entry.
    fn is_leaf(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::Copy { .. } | Self::Proc { .. })
    }
}

/// All device nodes as one entry; the same node wanted twice is made once.
fn devices(wanted: &[DeviceNode]) -> Result<Option<Entry>, PlanError> {
    let target = at(Path::new("/dev"))?;
    let mut nodes: Vec<DeviceNode> = Vec::new();
    for node in wanted {
        if !node.target.is_below(&target) {
            return Err(PlanError::NotBelowDev { target: node.target.clone() });
        }
        let in_the_way = |n: &&DeviceNode| {
            n.target == node.target || n.target.is_below(&node.target) || node.target.is_below(&n.target)
        };
        match nodes.iter().find(in_the_way) {
            None => nodes.push(node.clone()),
            Some(same) if same == node => {}
            Some(_) => return Err(PlanError::Conflict { target: node.target.clone() }),
        }
    }
    Ok((!nodes.is_empty()).then_some(Entry::Devices { target, nodes }))
}

/// Parents first, nothing twice, nothing in something that cannot hold it.
pub(super) fn arrange(mut entries: Vec<Entry>) -> Result<Vec<Entry>, PlanError> {
    entries.sort_by_key(|e| e.target().as_path().components().count());
    let mut arranged: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let place = entry.target().clone();
        match arranged.iter().find(|e| *e.target() == place) {
            Some(same) if *same == entry => continue,
            Some(_) => return Err(PlanError::Conflict { target: place }),
            None => {}
        }
        let home = arranged.iter().rev().find(|e| place.is_below(e.target()));
        match home {
            Some(home) if home.is_leaf() => {
                return Err(PlanError::Blocked { target: place, below: home.target().clone() });
            }
            Some(home) if home.shows(&entry) => {}
            _ => arranged.push(entry),
        }
    }
    Ok(arranged)
}

/// The host's `path` at the same path.
fn same_place(path: &Path, access: Use) -> Result<Entry, PlanError> {
    Ok(Entry::Bind { target: at(path)?, source: Source::Host(path.to_path_buf()), access })
}

fn at(path: &Path) -> Result<Target, PlanError> {
    Target::new(path).map_err(|source| PlanError::Path { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Target {
        Target::new(path).unwrap()
    }

    fn merged_usr() -> HostLayout {
        let link =
            |name: &str| TopLevel::Link { path: format!("/{name}").into(), to: format!("usr/{name}").into() };
        HostLayout { top: vec![link("bin"), link("lib"), link("lib64")], loader_cache: None }
    }

    fn needs(binary: &str) -> Needs {
        Needs {
            binary: binary.into(),
            libraries: Libraries::System,
            binds: Vec::new(),
            boot_files: Vec::new(),
            devices: Vec::new(),
            scratch: Vec::new(),
            proc: Proc::Absent,
            owner: Owner { uid: 65534, gid: 65534 },
            label: None,
        }
    }

    fn node(path: &str, minor: u32) -> DeviceNode {
        DeviceNode { target: place(path), device: Device { kind: DeviceKind::Char, major: 10, minor } }
    }

    fn data(source: &str, target: &str) -> HostBind {
        HostBind { source: Source::Host(source.into()), target: place(target), access: Use::Data }
    }

    fn targets(root: &MonitorRoot) -> Vec<String> {
        root.entries.iter().map(|e| e.target().to_string()).collect()
    }

    #[test]
    fn a_program_below_usr_needs_one_bind_on_a_merged_usr_host() {
        let mut needs = needs("/usr/bin/qemu-system-x86_64");
        needs.binds = vec![data("/usr/share/qemu", "/usr/share/qemu")];
        let root = plan(&needs, &merged_usr()).unwrap();
        assert_eq!(targets(&root), ["/usr", "/bin", "/lib", "/lib64"]);
        let binds = root.entries.iter().filter(|e| matches!(e, Entry::Bind { .. })).count();
        assert_eq!(binds, 1);
    }

    #[test]
    fn a_split_usr_host_gets_its_library_directories_bound() {
        let layout = HostLayout {
            top: vec![TopLevel::Directory { path: "/lib64".into() }],
            loader_cache: Some("/etc/ld.so.cache".into()),
        };
        let root = plan(&needs("/opt/vmm/bin/monitor"), &layout).unwrap();
        assert_eq!(targets(&root), ["/usr", "/lib64", "/etc/ld.so.cache", "/opt/vmm/bin/monitor"]);
    }

    #[test]
    fn a_static_program_sees_itself_and_nothing_else_of_the_host() {
        // E9: the whole of /lib and /usr/lib was exposed.
        let mut needs = needs("/usr/local/bin/firecracker");
        needs.libraries = Libraries::None;
        assert_eq!(targets(&plan(&needs, &merged_usr()).unwrap()), ["/usr/local/bin/firecracker"]);
    }

    #[test]
    fn data_from_another_place_is_bound_over_what_usr_has_there() {
        let mut needs = needs("/usr/bin/qemu");
        needs.binds = vec![data("/opt/qemu-9/share", "/usr/share/qemu")];
        let root = plan(&needs, &merged_usr()).unwrap();
        assert_eq!(targets(&root).last().unwrap(), "/usr/share/qemu");
    }

    #[test]
    fn parents_come_before_children() {
        let mut needs = needs("/usr/bin/qemu");
        needs.binds = vec![data("/a", "/share/vol/deep"), data("/b", "/share/vol"), data("/c", "/share")];
        let root = plan(&needs, &HostLayout::default()).unwrap();
        assert_eq!(targets(&root), ["/usr", "/share", "/share/vol", "/share/vol/deep"]);
    }

    #[test]
    fn devices_are_one_file_system_and_the_same_node_is_made_once() {
        // E12: a node that was already there was fatal.
        let mut needs = needs("/usr/bin/qemu");
        needs.devices = vec![node("/dev/kvm", 232), node("/dev/net/tun", 200), node("/dev/kvm", 232)];
        let root = plan(&needs, &merged_usr()).unwrap();
        let Some(Entry::Devices { nodes, .. }) =
            root.entries.iter().find(|e| matches!(e, Entry::Devices { .. }))
        else {
            panic!("no devices in {root:?}")
        };
        assert_eq!(nodes, &[node("/dev/kvm", 232), node("/dev/net/tun", 200)]);
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |change: &dyn Fn(&mut Needs)| {
            let mut needs = needs("/opt/m");
            change(&mut needs);
            plan(&needs, &merged_usr()).unwrap_err().to_string()
        };
        // E12: nodes outside /dev were made wherever the path led.
        assert!(refused(&|n| n.devices = vec![node("/tmp/kvm", 232)]).contains("/tmp/kvm"));
        assert!(
            refused(&|n| n.devices = vec![node("/dev/kvm", 232), node("/dev/kvm", 1)]).contains("/dev/kvm")
        );
        assert!(
            refused(&|n| n.devices = vec![node("/dev/net/tun", 1), node("/dev/net", 2)]).contains("/dev/net")
        );
        assert!(
            refused(&|n| n.devices = vec![node("/dev/net", 2), node("/dev/net/tun", 1)]).contains("/dev/net")
        );
        assert!(refused(&|n| n.binds = vec![data("/a", "/x"), data("/b", "/x")]).contains("/x"));
        assert!(refused(&|n| n.binds = vec![data("/a", "/lib/x")]).contains("/lib/x"));
        assert!(refused(&|n| n.binary = "relative".into()).contains("relative"));
        assert!(refused(&|n| n.binary = "/usr/../etc/m".into()).contains("/etc/m"));
    }

    #[test]
    fn a_plan_survives_being_written_down() {
        let mut needs = needs("/usr/bin/qemu");
        needs.boot_files = vec![
            BootFile { handle: "kernel".into(), target: place("/boot/kernel"), delivery: Delivery::Bind },
            BootFile {
                handle: "initrd".into(),
                target: place("/boot/initrd,a=b\n"),
                delivery: Delivery::Copy { size: ByteSize(7) },
            },
        ];
        needs.devices = vec![node("/dev/kvm", 232)];
        needs.scratch = vec![Scratch { target: place("/tmp"), size: ByteSize(1 << 20) }];
        needs.proc = Proc::Masked;
        let root = plan(&needs, &merged_usr()).unwrap();
        let json = serde_json::to_string(&root).unwrap();
        assert_eq!(serde_json::from_str::<MonitorRoot>(&json).unwrap(), root);
        // A place outside the root cannot be smuggled in by way of the file (E13).
        assert!(
            serde_json::from_str::<MonitorRoot>(&json.replace("/boot/kernel", "/boot/../kernel")).is_err()
        );
    }
}
