//! The parts of an OCI runtime specification that concern a monitor, as plain data, checked for presence and range.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use urunc_rootfs::Access;

use super::hooks::{self, HookSpecError, Hooks};
use super::namespaces::{NamespaceError, Namespaces};
use super::resources::{self, ResourceError};
use super::rlimits::{self, Rlimit, RlimitError};
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
    /// The host name is too long for the kernel (`uname(2)`).
    #[error("hostname is {0} bytes long; the kernel accepts 64")]
    HostName(usize),
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
    /// `process.terminal`
    pub terminal: Terminal,
    /// `mounts`
    pub mounts: Vec<Mount>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `linux.namespaces`
    pub namespaces: Namespaces,
    /// `linux.cgroupsPath`
    pub cgroups_path: Option<PathBuf>,
    /// `linux.resources`
    pub resources: Resources,
    /// Memory for the guest in bytes: at first `linux.resources.memory.limit`, if there is one, and then what the monitor
    /// leaves of it.
    pub memory_limit: Option<u64>,
    /// Whether `linux.seccomp` is there; without it the monitor's own filter is off (design.md section 8).
    pub seccomp: bool,
    /// `process.rlimits`
    pub rlimits: Vec<Rlimit>,
    /// `process.oomScoreAdj`
    pub oom_score_adj: Option<i32>,
    /// `hooks`
    pub hooks: Hooks,
    /// `annotations`
    pub annotations: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// Checks and converts `spec`, whose relative paths are below `bundle`.
    ///
    /// # Errors
    /// [`SpecError`]
    pub fn new(spec: &Spec, bundle: &Path) -> Result<Self, SpecError> {
        let process = spec.process().as_ref().ok_or(SpecError::Missing("process"))?;
        let root = spec.root().as_ref().ok_or(SpecError::Missing("root"))?;
        let linux = spec.linux().as_ref().ok_or(SpecError::Missing("linux"))?;
        if root.path().as_os_str().is_empty() {
            return Err(SpecError::EmptyRoot);
        }
        let args = process.args().clone().unwrap_or_default();
        let env = process.env().clone().unwrap_or_default();
        no_nul("process.args", &args)?;
        no_nul("process.env", &env)?;
        let resources = linux.resources().as_ref().map(resources::convert).transpose()?.unwrap_or_default();
        let memory_limit = match resources.memory.limit {
            Some(Limit::At(bytes)) => Some(bytes),
            Some(Limit::Unlimited) | None => None,
        };
        let hostname = spec.hostname().clone().filter(|name| !name.is_empty());
        if let Some(name) = &hostname
            && name.len() > 64
        {
            return Err(SpecError::HostName(name.len()));
        }
        Ok(Self {
            version: spec.version().clone(),
            rootfs: bundle.join(root.path()),
            root_access: if root.readonly() == Some(true) { Access::ReadOnly } else { Access::ReadWrite },
            args,
            env,
            cwd: process.cwd().clone(),
            user: User {
                uid: process.user().uid(),
                gid: process.user().gid(),
                groups: process.user().additional_gids().clone().unwrap_or_default(),
                umask: process.user().umask(),
            },
            terminal: terminal(process),
            mounts: spec.mounts().iter().flatten().map(mount).collect(),
            hostname,
            namespaces: Namespaces::new(linux.namespaces().as_deref().unwrap_or_default())?,
            cgroups_path: linux.cgroups_path().clone(),
            resources,
            memory_limit,
            seccomp: linux.seccomp().is_some(),
            rlimits: rlimits::convert(process.rlimits().as_deref().unwrap_or_default())?,
            oom_score_adj: process.oom_score_adj(),
            hooks: spec.hooks().as_ref().map(hooks::convert).transpose()?.unwrap_or_default(),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        })
    }
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
    if !process.terminal().unwrap_or(false) {
        return Terminal::No;
    }
    let size = process.console_size().and_then(|size| {
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
        assert_eq!((spec.memory_limit, spec.seccomp, spec.terminal), (None, false, Terminal::No));
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
