//! Which namespaces a container gets: new ones, or existing ones given by path (those of its pod).

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use rustix::thread::UnshareFlags;

/// Why the list of namespaces cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamespaceError {
    /// One kind is listed twice.
    #[error("linux.namespaces lists the {0} namespace twice; list it once")]
    Twice(NamespaceKind),
    /// There is no private mount namespace; the monitor's root would be built over the host's (R1, R2).
    #[error(
        "linux.namespaces has no mount namespace; add {{\"type\": \"mount\"}}: the monitor's root is built in it"
    )]
    NoMount,
    /// A mount namespace is to be joined; its owner would see the monitor's root.
    #[error(
        "linux.namespaces joins the mount namespace {0}; leave its path out: the monitor's root needs one of its own"
    )]
    MountByPath(PathBuf),
    /// A path is relative.
    #[error("linux.namespaces gives the {kind} namespace by the relative path {path}; use an absolute one")]
    Relative {
        /// Its kind.
        kind: NamespaceKind,
        /// The path as given.
        path: PathBuf,
    },
}

/// A kind of namespace that a container can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceKind {
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Network stack.
    Network,
    /// Process ids.
    Pid,
    /// View of the cgroup hierarchy.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
    /// Mounts.
    Mount,
    /// User and group ids.
    User,
}

impl NamespaceKind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Ipc, Self::Uts, Self::Network, Self::Pid, Self::Cgroup, Self::Time, Self::Mount, Self::User];

    /// The flag that `clone3(2)`, `unshare(2)` and `setns(2)` know it by.
    #[must_use]
    pub fn flag(self) -> UnshareFlags {
        match self {
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Uts => UnshareFlags::NEWUTS,
            Self::Network => UnshareFlags::NEWNET,
            Self::Pid => UnshareFlags::NEWPID,
            Self::Cgroup => UnshareFlags::NEWCGROUP,
            Self::Time => UnshareFlags::NEWTIME,
            Self::Mount => UnshareFlags::NEWNS,
            Self::User => UnshareFlags::NEWUSER,
        }
    }
}

impl std::fmt::Display for NamespaceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Network => "network",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
            Self::Mount => "mount",
            Self::User => "user",
        })
    }
}

/// The namespaces of a container. A kind that is in neither is the caller's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Made for the container.
    pub new: Vec<NamespaceKind>,
    /// Joined by path.
    pub join: BTreeMap<NamespaceKind, PathBuf>,
}

impl Namespaces {
    /// Reads the specification's list.
    ///
    /// # Errors
    /// [`NamespaceError`]
    pub fn new(list: &[LinuxNamespace]) -> Result<Self, NamespaceError> {
        let mut namespaces = Self::default();
        for entry in list {
            let kind = match entry.typ() {
                LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
                LinuxNamespaceType::Uts => NamespaceKind::Uts,
                LinuxNamespaceType::Network => NamespaceKind::Network,
                LinuxNamespaceType::Pid => NamespaceKind::Pid,
                LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
                LinuxNamespaceType::Time => NamespaceKind::Time,
                LinuxNamespaceType::Mount => NamespaceKind::Mount,
                LinuxNamespaceType::User => NamespaceKind::User,
            };
            if namespaces.new.contains(&kind) || namespaces.join.contains_key(&kind) {
                return Err(NamespaceError::Twice(kind));
            }
            match entry.path().clone().filter(|path| !path.as_os_str().is_empty()) {
                None => namespaces.new.push(kind),
                Some(path) if kind == NamespaceKind::Mount => return Err(NamespaceError::MountByPath(path)),
                Some(path) if path.is_relative() => return Err(NamespaceError::Relative { kind, path }),
                Some(path) => {
                    namespaces.join.insert(kind, path);
                }
            }
        }
        if namespaces.new.contains(&NamespaceKind::Mount) {
            Ok(namespaces)
        } else {
            Err(NamespaceError::NoMount)
        }
    }

    /// Whether the container has its own `kind`, new or joined, and not the caller's.
    #[must_use]
    pub fn has(&self, kind: NamespaceKind) -> bool {
        self.new.contains(&kind) || self.join.contains_key(&kind)
    }

    /// The flags for `clone3(2)`. The cgroup namespace is not among them: init unshares it once it is in its cgroup,
    /// which becomes the namespace's root.
    #[must_use]
    pub fn clone_flags(&self) -> UnshareFlags {
        self.new
            .iter()
            .filter(|kind| **kind != NamespaceKind::Cgroup)
            .fold(UnshareFlags::empty(), |flags, kind| flags | kind.flag())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(json: &str) -> Result<Namespaces, NamespaceError> {
        let list: Vec<LinuxNamespace> = serde_json::from_str(json).unwrap();
        Namespaces::new(&list)
    }

    #[test]
    fn a_pods_container_joins_some_and_makes_others() {
        let got = namespaces(
            r#"[{"type":"pid"},{"type":"mount"},{"type":"network","path":"/var/run/netns/x"},{"type":"ipc","path":""}]"#,
        )
        .unwrap();
        assert_eq!(got.join, BTreeMap::from([(NamespaceKind::Network, "/var/run/netns/x".into())]));
        assert!(got.has(NamespaceKind::Ipc) && !got.has(NamespaceKind::Uts));
        assert_eq!(got.clone_flags(), UnshareFlags::NEWPID | UnshareFlags::NEWNS | UnshareFlags::NEWIPC);
        // B35: never silently ignored.
        let got = namespaces(r#"[{"type":"mount"},{"type":"user"}]"#).unwrap();
        assert_eq!(got.clone_flags(), UnshareFlags::NEWUSER | UnshareFlags::NEWNS);
    }

    #[test]
    fn what_would_touch_the_hosts_mounts_is_refused() {
        assert_eq!(namespaces(r#"[{"type":"pid"}]"#), Err(NamespaceError::NoMount));
        assert!(matches!(
            namespaces(r#"[{"type":"mount","path":"/proc/1/ns/mnt"}]"#),
            Err(NamespaceError::MountByPath(_))
        ));
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(
            namespaces(r#"[{"type":"mount"},{"type":"mount"}]"#),
            Err(NamespaceError::Twice(NamespaceKind::Mount))
        );
        assert!(matches!(
            namespaces(r#"[{"type":"mount"},{"type":"network","path":"x"}]"#),
            Err(NamespaceError::Relative { .. })
        ));
    }
}
