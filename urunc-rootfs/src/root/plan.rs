//! What the monitor's root contains, decided purely: from what a monitor needs to a list of entries.
//!
//! Opens nothing; whether a host path exists is found out by `prepare`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::{HostLayout, TopLevel};
use super::needs::{
    BootFile, ByteSize, Delivery, DeviceNode, HostBind, Libraries, Needs, Owner, Proc, Scratch, Source, Use,
};
use super::target::{BadTarget, Target};

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
mod tests;
