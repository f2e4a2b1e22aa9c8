//! How this host's control groups are mounted, and where in them the caller is.

use std::io;
use std::path::{Path, PathBuf};

use urunc_rootfs::{Mount, MountTable, MountTableError};

use crate::procfs;

/// Why the host's hierarchies cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The mounts cannot be told.
    #[error(transparent)]
    Mounts(#[from] MountTableError),
    /// A file that describes them cannot be read.
    #[error("cannot read {path} to learn about the host's cgroups")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What a hierarchy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HierarchyKind {
    /// Of version 1, with these controllers (or one `name=…`).
    V1(Vec<String>),
    /// Of version 2, with these controllers.
    V2(Vec<String>),
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// What it is.
    pub kind: HierarchyKind,
    /// The caller's own group, relative to the mount.
    pub own: PathBuf,
}

impl Hierarchy {
    /// Whether it has this controller.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        let (HierarchyKind::V1(list) | HierarchyKind::V2(list)) = &self.kind;
        list.iter().any(|name| name == controller)
    }
}

/// All of the host's hierarchies: only v2 (unified), only v1 (legacy), or both (hybrid).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Each hierarchy once.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Looks at this host.
    ///
    /// # Errors
    /// [`LayoutError`]
    pub fn probe() -> Result<Self, LayoutError> {
        Self::among(&MountTable::read()?)
    }

    /// Looks at this host, whose mounts are known.
    ///
    /// # Errors
    /// [`LayoutError::Read`]
    pub fn among(mounts: &MountTable) -> Result<Self, LayoutError> {
        let read = |path: &Path| {
            procfs::read(path).map_err(|source| LayoutError::Read { path: path.to_owned(), source })
        };
        let own = read(Path::new("/proc/thread-self/cgroup"))?;
        let mut layout = Self::parse(mounts, &String::from_utf8_lossy(&own));
        for hierarchy in &mut layout.hierarchies {
            if let HierarchyKind::V2(controllers) = &mut hierarchy.kind {
                let path = hierarchy.mount.join("cgroup.controllers");
                let text = read(&path)?;
                *controllers =
                    String::from_utf8_lossy(&text).split_ascii_whitespace().map(str::to_owned).collect();
            }
        }
        Ok(layout)
    }

    /// Understands the text of `cgroup` (cgroups(7), "/proc/pid/cgroup").
    /// The controllers of a v2 hierarchy are in neither it nor the table.
    #[must_use]
    pub fn parse(table: &MountTable, own: &str) -> Self {
        let mut layout = Self::default();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(id), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
            let unified = id == "0" && names.is_empty();
            let mount = table.mounts().iter().find(|mount| {
                let is_it = if unified {
                    mount.fs_type == "cgroup2"
                } else {
                    mount.fs_type == "cgroup"
                        && names.iter().all(|name| mount.super_options.iter().any(|option| option == *name))
                };
                is_it && is_visible(table, mount)
            });
            let Some(mount) = mount else { continue };
            if layout.hierarchies.iter().any(|hierarchy| hierarchy.mount == mount.point) {
                continue;
            }
            // Where only a part of the hierarchy is mounted, as in a container, the path is relative to the whole.
            let path = Path::new(path);
            let own = path.strip_prefix(&mount.root).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
            let kind = if unified {
                HierarchyKind::V2(Vec::new())
            } else {
                HierarchyKind::V1(names.into_iter().map(str::to_owned).collect())
            };
            layout.hierarchies.push(Hierarchy { mount: mount.point.clone(), kind, own: own.to_owned() });
        }
        layout
    }

    /// The hierarchy with this controller, if any: v1 first, because a controller that v1 has is not v2's.
    #[must_use]
    pub fn with(&self, controller: &str) -> Option<&Hierarchy> {
        let is_v2 = |hierarchy: &&Hierarchy| matches!(hierarchy.kind, HierarchyKind::V2(_));
        let having = || self.hierarchies.iter().filter(|hierarchy| hierarchy.has(controller));
        having().find(|hierarchy| !is_v2(hierarchy)).or_else(|| having().next())
    }

    /// Whether limits are those of v2: there is no v1 controller at all.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.hierarchies.iter().all(|hierarchy| matches!(hierarchy.kind, HierarchyKind::V2(_)))
            && !self.hierarchies.is_empty()
    }
}

/// Whether a path leads to this mount: nothing has been mounted over it, nor over a directory above it.
fn is_visible(table: &MountTable, mount: &Mount) -> bool {
    let mounts = table.mounts();
    let mut here = mount;
    // A table has no loops, but it is read while it changes.
    for _ in 0..mounts.len() {
        let place = mounts.iter().position(|other| other.id == here.id);
        let covers = |(index, other): (usize, &Mount)| {
            other.parent == here.parent
                && other.id != here.id
                && here.point.starts_with(&other.point)
                && (other.point != here.point || Some(index) > place)
        };
        if mounts.iter().enumerate().any(covers) {
            return false;
        }
        match table.get(here.parent) {
            Some(parent) if parent.id != here.id => here = parent,
            _ => break,
        }
    }
    true
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn mount(id: u32, point: &str, root: &str, kind: &str, options: &str) -> String {
        format!("{id} 1 0:{id} {root} {point} rw,nosuid - {kind} {kind} rw,{options}\n")
    }

    /// Debian 12 and every current distribution.
    pub(in super::super) fn unified() -> Layout {
        let mounts = mount(30, "/sys/fs/cgroup", "/", "cgroup2", "nsdelegate");
        let mut layout =
            Layout::parse(&MountTable::parse(mounts.as_bytes()), "0::/system.slice/containerd.service\n");
        let all = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"].map(str::to_owned);
        layout.hierarchies[0].kind = HierarchyKind::V2(all.into());
        layout
    }

    /// v1 controllers, and a v2 hierarchy without any.
    pub(in super::super) fn hybrid() -> Layout {
        let mounts = [
            mount(30, "/sys/fs/cgroup/memory", "/", "cgroup", "memory"),
            mount(31, "/sys/fs/cgroup/cpu,cpuacct", "/", "cgroup", "cpu,cpuacct"),
            mount(32, "/sys/fs/cgroup/cpuset", "/", "cgroup", "cpuset"),
            mount(33, "/sys/fs/cgroup/devices", "/", "cgroup", "devices"),
            mount(34, "/sys/fs/cgroup/freezer", "/", "cgroup", "freezer"),
            mount(35, "/sys/fs/cgroup/blkio", "/", "cgroup", "blkio"),
            mount(36, "/sys/fs/cgroup/pids", "/", "cgroup", "pids"),
            mount(37, "/sys/fs/cgroup/systemd", "/", "cgroup", "xattr,name=systemd"),
            mount(38, "/sys/fs/cgroup/unified", "/", "cgroup2", "nsdelegate"),
        ]
        .concat();
        let own = "9:memory:/own\n8:cpu,cpuacct:/\n7:cpuset:/\n6:devices:/\n5:freezer:/\n4:blkio:/\n3:pids:/\n\
                   1:name=systemd:/\n0::/\n";
        Layout::parse(&MountTable::parse(mounts.as_bytes()), own)
    }

    #[test]
    fn a_unified_host_has_one_hierarchy() {
        let layout = unified();
        assert!(layout.is_unified());
        assert_eq!(layout.with("memory").unwrap().own, Path::new("system.slice/containerd.service"));
        assert_eq!(layout.with("freezer"), None);
    }

    #[test]
    fn a_hybrid_host_has_its_controllers_in_v1() {
        let layout = hybrid();
        assert!(!layout.is_unified());
        assert_eq!(layout.hierarchies.len(), 9);
        assert_eq!(layout.with("cpuacct").unwrap().mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(layout.with("memory").unwrap().own, Path::new("own"));
    }

    #[test]
    fn in_a_container_paths_are_relative_to_what_is_mounted() {
        let mounts = mount(30, "/sys/fs/cgroup", "/docker/abc", "cgroup2", "nsdelegate");
        let layout = Layout::parse(&MountTable::parse(mounts.as_bytes()), "0::/docker/abc/child\n");
        assert_eq!(layout.hierarchies[0].own, Path::new("child"));
    }

    #[test]
    fn what_is_mounted_over_is_not_seen() {
        // A tmpfs with a v1 hierarchy in it, and cgroup v2 mounted over the tmpfs, as in a test's mount namespace.
        let mounts = [
            mount(30, "/sys/fs/cgroup", "/", "tmpfs", ""),
            mount(31, "/sys/fs/cgroup/memory", "/", "cgroup", "memory").replace("31 1 ", "31 30 "),
            mount(32, "/sys/fs/cgroup", "/", "cgroup2", "").replace("32 1 ", "32 30 "),
        ];
        let own = "4:memory:/own\n0::/\n";
        assert!(Layout::parse(&MountTable::parse(mounts.concat().as_bytes()), own).is_unified());
        assert!(!Layout::parse(&MountTable::parse(mounts[..2].concat().as_bytes()), own).is_unified());
        assert_eq!(Layout::parse(&MountTable::parse(b""), "0::/\nnonsense\n"), Layout::default());
    }
}
