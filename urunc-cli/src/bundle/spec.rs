//! The parts of an OCI runtime specification that concern a monitor, as plain data, checked for presence and range.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;
use urunc_rootfs::Access;

use super::clocks::{self, ClockError, ClockOffsets};
use super::document::{Document, Process};
use super::hooks::{self, HookSpecError, Hooks};
use super::ids::{self, IdMappings, MappingError, UserNamespace};
use super::labels::{self, LabelError, Labels};
use super::namespaces::{NamespaceError, NamespaceKind, Namespaces};
use super::resources::{self, ResourceError};
use super::rlimits::{self, Rlimit, RlimitError};
use super::seccomp::{self, SeccompProfile};
use super::sysctls::{self, Sysctl, SysctlError};
use crate::cgroup::{Limit, Resources};

/// What is wrong with a specification.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A section is missing (B27).
    #[error("it has no `{0}` section, which a unikernel needs")]
    Missing(&'static str),
    /// The root path is empty.
    #[error("root.path is empty; give the directory of the image's root file system")]
    EmptyRoot,
    /// The namespaces cannot be used.
    #[error(transparent)]
    Namespaces(#[from] NamespaceError),
    /// A hook cannot be used.
    #[error(transparent)]
    Hooks(#[from] HookSpecError),
    /// A limit of the process cannot be used.
    #[error(transparent)]
    Rlimits(#[from] RlimitError),
    /// A resource limit cannot be used.
    #[error(transparent)]
    Resources(#[from] ResourceError),
    /// A text contains a NUL byte, which no process argument can carry.
    #[error("{0} contains a NUL character")]
    Nul(&'static str),
    /// A name is too long for the kernel (`uname(2)`).
    #[error("{field} is {length} bytes long; the kernel accepts 64")]
    NameLength {
        /// The field.
        field: &'static str,
        /// Its length.
        length: usize,
    },
    /// A name would be the host's.
    #[error(
        "{field} is {name:?}, but linux.namespaces has no uts namespace, so that it would become the host's; add {{\"type\": \"uts\"}}, \
         or remove it"
    )]
    NameOfHost {
        /// The field.
        field: &'static str,
        /// Its value.
        name: String,
    },
    /// The working directory is relative.
    #[error("process.cwd is {0:?}; use an absolute path")]
    Cwd(PathBuf),
    /// The kernel knows no such adjustment (proc_pid_oom_score_adj(5)).
    #[error("process.oomScoreAdj is {0}; use a number from -1000 to 1000")]
    OomScore(i32),
    /// The ids of a user namespace cannot be used.
    #[error(transparent)]
    Mappings(#[from] MappingError),
    /// A kernel setting cannot be used.
    #[error(transparent)]
    Sysctls(#[from] SysctlError),
    /// A clock cannot be moved.
    #[error(transparent)]
    Clocks(#[from] ClockError),
    /// A label of a security module cannot be used.
    #[error(transparent)]
    Labels(#[from] LabelError),
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Whether the container's streams are a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Streams are inherited.
    No,
    /// Streams are a pseudo-terminal of this size, if one is given.
    Yes(Option<WindowSize>),
}

/// Who the monitor runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; exactly these, none of the caller's (E2).
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: Option<u32>,
}

/// An entry of `mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where the container sees it.
    pub destination: PathBuf,
    /// Kind of file system, if it is no bind mount.
    pub kind: Option<String>,
    /// What is mounted.
    pub source: Option<PathBuf>,
    /// Mount options.
    pub options: Vec<String>,
}

impl Mount {
    /// Whether it shows a file or directory of the host.
    #[must_use]
    pub fn is_bind(&self) -> bool {
        self.kind.as_deref() == Some("bind")
            || self.options.iter().any(|option| option == "bind" || option == "rbind")
    }
}

/// What a specification says that concerns a monitor.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// `ociVersion`
    pub version: String,
    /// `root.path`, absolute.
    pub rootfs: PathBuf,
    /// `root.readonly`: what the guest may do with its root file system.
    pub root_access: Access,
    /// `process.args`: the guest's arguments.
    pub args: Vec<String>,
    /// `process.env`: the guest's environment.
    pub env: Vec<String>,
    /// `process.cwd`: the guest's working directory.
    pub cwd: PathBuf,
    /// `process.user`
    pub user: User,
    /// The same in the ids of the host.
    pub host_user: User,
    /// `linux.uidMappings` and `gidMappings`, if there is a user namespace.
    pub mappings: Option<IdMappings>,
    /// `process.terminal`
    pub terminal: Terminal,
    /// `mounts`
    pub mounts: Vec<Mount>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `domainname`
    pub domainname: Option<String>,
    /// `linux.sysctl`
    pub sysctls: Vec<Sysctl>,
    /// `linux.timeOffsets`
    pub clocks: ClockOffsets,
    /// What security modules are to do with the monitor.
    pub labels: Labels,
    /// `linux.namespaces`
    pub namespaces: Namespaces,
    /// `linux.cgroupsPath`
    pub cgroups_path: Option<PathBuf>,
    /// `linux.resources`
    pub resources: Resources,
    /// Memory for the guest in bytes: at first `linux.resources.memory.limit`, if there is one, and then what the monitor
    /// leaves of it.
    pub memory_limit: Option<u64>,
    /// `linux.seccomp`; without it the monitor's own filter is off (design.md section 8).
    pub seccomp: Option<SeccompProfile>,
    /// `process.rlimits`
    pub rlimits: Vec<Rlimit>,
    /// `process.oomScoreAdj`
    pub oom_score_adj: Option<i32>,
    /// `hooks`
    pub hooks: Hooks,
    /// What it asks for that a monitor does not get, for a warning.
    pub unapplied: Vec<&'static str>,
    /// `annotations`
    pub annotations: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// Checks and converts `document`, whose relative paths are below `bundle`.
    ///
    /// # Errors
    /// [`SpecError`]
    pub(super) fn new(document: &Document, bundle: &Path) -> Result<Self, SpecError> {
        let process = document.process.as_ref().ok_or(SpecError::Missing("process"))?;
        let root = document.root.as_ref().ok_or(SpecError::Missing("root"))?;
        let linux = document.linux.as_ref().ok_or(SpecError::Missing("linux"))?;
        if root.path().as_os_str().is_empty() {
            return Err(SpecError::EmptyRoot);
        }
        let args = process.args.clone().unwrap_or_default();
        let env = process.env.clone().unwrap_or_default();
        no_nul("process.args", &args)?;
        no_nul("process.env", &env)?;
        let cwd = process.cwd.clone();
        if cwd.is_relative() && !cwd.as_os_str().is_empty() {
            return Err(SpecError::Cwd(cwd));
        }
        if let Some(value) = process.oom_score_adj.filter(|value| !(-1000..=1000).contains(value)) {
            return Err(SpecError::OomScore(value));
        }
        let resources = linux.resources().as_ref().map(resources::convert).transpose()?.unwrap_or_default();
        let memory_limit = match resources.memory.limit {
            Some(Limit::At(bytes)) => Some(bytes),
            Some(Limit::Unlimited) | None => None,
        };
        let namespaces = Namespaces::new(linux.namespaces().as_deref().unwrap_or_default())?;
        let user = User {
            uid: process.user.uid(),
            gid: process.user.gid(),
            groups: process.user.additional_gids().clone().unwrap_or_default(),
            umask: process.user.umask(),
        };
        let mappings = ids::convert(
            if namespaces.has(NamespaceKind::User) { UserNamespace::Own } else { UserNamespace::Callers },
            linux.uid_mappings().as_deref().unwrap_or_default(),
            linux.gid_mappings().as_deref().unwrap_or_default(),
            user.groups.iter().copied(),
        )?;
        Ok(Self {
            version: document.oci_version.clone(),
            rootfs: bundle.join(root.path()),
            root_access: if root.readonly() == Some(true) { Access::ReadOnly } else { Access::ReadWrite },
            args,
            env,
            cwd,
            host_user: mappings.as_ref().map_or_else(|| Ok(user.clone()), |map| on_host(&user, map))?,
            user,
            mappings,
            terminal: terminal(process),
            mounts: document.mounts.iter().flatten().map(mount).collect(),
            hostname: name("hostname", &document.hostname, &namespaces)?,
            domainname: name("domainname", &document.domainname, &namespaces)?,
            sysctls: linux
                .sysctl()
                .as_ref()
                .map_or_else(|| Ok(Vec::new()), |all| sysctls::convert(all, &namespaces))?,
            clocks: linux
                .time_offsets()
                .as_ref()
                .map_or_else(|| Ok(ClockOffsets::default()), |all| clocks::convert(all, &namespaces))?,
            labels: labels::convert(
                process.apparmor_profile.as_deref(),
                process.selinux_label.as_deref(),
                linux.mount_label().as_deref(),
            )?,
            namespaces,
            cgroups_path: linux.cgroups_path().clone(),
            resources,
            memory_limit,
            seccomp: linux.seccomp().as_ref().map(seccomp::convert),
            rlimits: rlimits::convert(process.rlimits.as_deref().unwrap_or_default())?,
            oom_score_adj: process.oom_score_adj,
            hooks: document.hooks.as_ref().map(hooks::convert).transpose()?.unwrap_or_default(),
            unapplied: unapplied(process, linux),
            annotations: document.annotations.clone().unwrap_or_default(),
        })
    }
}

/// Fields that somebody set on purpose and that have no meaning for a monitor. Those that engines always set (masked paths,
/// capabilities and the like) are not among them: a monitor has less than they would leave it.
fn unapplied(process: &Process, linux: &Linux) -> Vec<&'static str> {
    let fields = [
        ("linux.devices", linux.devices().as_ref().is_some_and(|all| !all.is_empty())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("process.ioPriority", process.io_priority.is_some()),
        ("process.scheduler", process.scheduler.is_some()),
    ];
    fields.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

/// `user` in the ids of the host.
fn on_host(user: &User, map: &IdMappings) -> Result<User, MappingError> {
    let (uid, gid) = map.to_host(user.uid, user.gid)?;
    let groups = user.groups.iter().filter_map(|gid| map.groups.to_host(*gid)).collect();
    Ok(User { uid, gid, groups, umask: user.umask })
}

/// The name of a UTS namespace, which must not be the host's.
fn name(
    field: &'static str,
    name: &Option<String>,
    namespaces: &Namespaces,
) -> Result<Option<String>, SpecError> {
    let Some(name) = name.clone().filter(|name| !name.is_empty()) else { return Ok(None) };
    if name.len() > 64 {
        return Err(SpecError::NameLength { field, length: name.len() });
    }
    if !namespaces.has(NamespaceKind::Uts) {
        return Err(SpecError::NameOfHost { field, name });
    }
    Ok(Some(name))
}

fn mount(mount: &oci_spec::runtime::Mount) -> Mount {
    Mount {
        destination: mount.destination().clone(),
        kind: mount.typ().clone(),
        source: mount.source().clone(),
        options: mount.options().clone().unwrap_or_default(),
    }
}

fn terminal(process: &Process) -> Terminal {
    if !process.terminal.unwrap_or(false) {
        return Terminal::No;
    }
    let size = process.console_size.and_then(|size| {
        Some(WindowSize {
            rows: u16::try_from(size.height()).ok().filter(|n| *n > 0)?,
            columns: u16::try_from(size.width()).ok().filter(|n| *n > 0)?,
        })
    });
    Terminal::Yes(size)
}

fn no_nul(what: &'static str, values: &[String]) -> Result<(), SpecError> {
    if values.iter().any(|value| value.contains('\0')) { Err(SpecError::Nul(what)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn minimal() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["hello"]},
            "linux": {"namespaces": [{"type": "mount"}]},
        })
    }

    fn convert(spec: Value) -> Result<ContainerSpec, SpecError> {
        ContainerSpec::new(&serde_json::from_value(spec).unwrap(), Path::new("/bundle"))
    }

    #[test]
    fn a_minimal_specification_is_enough() {
        let spec = convert(minimal()).unwrap();
        assert_eq!(spec.rootfs, Path::new("/bundle/rootfs"));
        assert_eq!(spec.args, ["hello"]);
        assert_eq!((spec.memory_limit, spec.seccomp, spec.terminal), (None, None, Terminal::No));
    }

    /// B27: a legal but minimal specification is answered, not dereferenced.
    #[test]
    fn missing_sections_are_named() {
        for section in ["process", "root", "linux"] {
            let mut spec = minimal();
            spec.as_object_mut().unwrap().remove(section);
            let message = convert(spec).unwrap_err().to_string();
            assert!(message.contains(section), "{message}");
        }
    }

    #[test]
    fn a_name_never_becomes_the_hosts() {
        for field in ["hostname", "domainname"] {
            let mut spec = minimal();
            spec[field] = json!("guest");
            let message = convert(spec.clone()).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{field} is \"guest\", but")), "{message}");
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
            convert(spec.clone()).unwrap();
            spec[field] = json!("x".repeat(65));
            let message = convert(spec).unwrap_err().to_string();
            assert_eq!(message, format!("{field} is 65 bytes long; the kernel accepts 64"));
        }
    }

    /// B35: in a user namespace, what the host sees belongs to the host's ids.
    #[test]
    fn a_user_is_known_by_both_of_its_ids() {
        let mut spec = minimal();
        spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}]);
        spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        spec["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]);
        spec["process"]["user"] = json!({"uid": 3, "gid": 4, "additionalGids": [5]});
        let spec = convert(spec).unwrap();
        let host = User { uid: 100_003, gid: 200_004, groups: vec![200_005], umask: None };
        assert_eq!((spec.user.uid, spec.host_user), (3, host));
    }

    /// What Podman and Docker always set is no reason for a warning; a device that somebody passes is.
    #[test]
    fn what_a_monitor_does_not_get_is_named() {
        let mut spec = minimal();
        spec["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
        spec["process"]["capabilities"] = json!({"bounding": ["CAP_CHOWN"]});
        spec["linux"]["devices"] = json!([]);
        assert!(convert(spec.clone()).unwrap().unapplied.is_empty());
        spec["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
        spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 1});
        assert_eq!(convert(spec).unwrap().unapplied, ["linux.devices", "process.ioPriority"]);
    }

    #[test]
    fn memory_limits_are_sizes_or_absent() {
        for (limit, expected) in
            [(json!(-1), None), (json!(0), None), (json!(1), Some(1)), (json!(1i64 << 50), Some(1 << 50))]
        {
            let mut spec = minimal();
            spec["linux"]["resources"] = json!({"memory": {"limit": limit}});
            assert_eq!(convert(spec).unwrap().memory_limit, expected);
        }
        let mut spec = minimal();
        spec["linux"]["resources"] = json!({"memory": {"limit": -2}});
        assert!(convert(spec).unwrap_err().to_string().contains("-2"));
    }
}
