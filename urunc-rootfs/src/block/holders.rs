//! Who keeps a mount or a device busy: for error messages, so it says what it can see and never fails.
//!
//! Reads only what `/proc` and `/sys` say about other processes; it touches no file of theirs, which might block.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::mounts::{DeviceNumber, Mount, MountTable};

/// How many holders a message names.
const NAMED: usize = 3;

/// Somebody who uses a file system or a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A process in the file system.
    Process {
        /// Its id, as seen from here.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// A process in whose mount namespace the device is mounted.
    Namespace {
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
        /// Where it is mounted there.
        point: PathBuf,
    },
    /// Something that is mounted inside.
    Below {
        /// Where.
        point: PathBuf,
    },
    /// A device that is built on this one.
    Device {
        /// Its name.
        name: String,
    },
}

/// The holders that could be found; perhaps none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HolderList(pub Vec<Holder>);

impl HolderList {
    /// Processes that have something below `mount` open, as current directory, root or program, and mounts below it.
    pub(super) fn of_mount(mount: &Mount) -> Self {
        let uses = |proc: &Path| {
            let inside =
                |link: &str| fs::read_link(proc.join(link)).is_ok_and(|to| to.starts_with(&mount.point));
            ["cwd", "root", "exe"].iter().any(|link| inside(link)) || has_open(proc, mount)
        };
        let users = processes().filter(|(_, proc)| uses(proc));
        let users = users.map(|(pid, proc)| Holder::Process { pid, name: name_of(&proc) });
        let table = MountTable::read().unwrap_or_default();
        let below = table.mounts().iter().filter(|m| m.parent == mount.id && m.id != mount.id);
        let below = below.map(|m| Holder::Below { point: m.point.clone() });
        Self(users.chain(below).collect())
    }

    /// Namespaces in which `device` is mounted, one process each, and devices on top of it.
    pub(super) fn of_device(device: DeviceNumber) -> Self {
        let mut seen = Vec::new();
        let mut holders = Vec::new();
        for (pid, proc) in processes() {
            let Ok(namespace) = fs::read_link(proc.join("ns/mnt")) else { continue };
            if seen.contains(&namespace) {
                continue;
            }
            seen.push(namespace);
            let table = MountTable::parse(&fs::read(proc.join("mountinfo")).unwrap_or_default());
            if let Some(mount) = table.of_device(device).next() {
                holders.push(Holder::Namespace { pid, name: name_of(&proc), point: mount.point.clone() });
            }
        }
        for entry in fs::read_dir(format!("/sys/dev/block/{device}/holders")).into_iter().flatten().flatten()
        {
            holders.push(Holder::Device { name: entry.file_name().to_string_lossy().into_owned() });
        }
        Self(holders)
    }
}

fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

fn name_of(proc: &Path) -> String {
    fs::read_to_string(proc.join("comm")).unwrap_or_default().trim().to_owned()
}

fn has_open(proc: &Path, mount: &Mount) -> bool {
    let wanted = format!("mnt_id:\t{}", mount.id.0);
    let infos = fs::read_dir(proc.join("fdinfo")).into_iter().flatten().flatten();
    infos
        .into_iter()
        .any(|info| fs::read_to_string(info.path()).is_ok_and(|text| text.lines().any(|l| l == wanted)))
}

impl fmt::Display for HolderList {
    /// Nothing, or ` (held by …)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, holder) in self.0.iter().take(NAMED).enumerate() {
            f.write_str(if n == 0 { " (held by " } else { ", " })?;
            match holder {
                Holder::Process { pid, name } => write!(f, "process {pid} {name}")?,
                Holder::Namespace { pid, name, point } => {
                    write!(f, "the mount {} of process {pid} {name}", point.display())?;
                }
                Holder::Below { point } => write!(f, "the mount {}", point.display())?,
                Holder::Device { name } => write!(f, "device {name}")?,
            }
        }
        match self.0.len() {
            0 => Ok(()),
            n if n > NAMED => write!(f, " and {} more)", n - NAMED),
            _ => f.write_str(")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_first_holders_and_counts_the_rest() {
        let process = |pid| Holder::Process { pid, name: "bash".into() };
        assert_eq!(HolderList::default().to_string(), "");
        assert_eq!(HolderList(vec![process(7)]).to_string(), " (held by process 7 bash)");
        let many = HolderList((1..6).map(process).collect());
        assert_eq!(many.to_string(), " (held by process 1 bash, process 2 bash, process 3 bash and 2 more)");
    }
}
