//! Where a container's control groups are and what is written into them: decided from the specification and the host's
//! layout, nothing touched.
//!
//! The path means what it means to runc, because kubelet, Docker and Podman rely on it: an absolute one is below each
//! hierarchy's mount; a relative one is below the caller's own group (v1), or beside it (v2, where a group with
//! processes cannot have limited children).

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::{Hierarchy, HierarchyKind, Layout};
use super::resources::{DeviceRule, Resources};
use super::{v1, v2};

/// Why there can be no control group as asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// The host's root group is nobody's.
    #[error("linux.cgroupsPath {0:?} is the root of the host's cgroups; give the container one of its own")]
    Root(PathBuf),
    /// The host has no controller for a limit.
    #[error(
        "{field} cannot be applied: this host has no cgroup controller {controller}; mount it, or leave the limit out"
    )]
    NoController {
        /// The specification's field.
        field: &'static str,
        /// What is missing.
        controller: &'static str,
    },
    /// A field of the other cgroup version.
    #[error("{field} cannot be applied: this host has cgroup {host}")]
    Version {
        /// The specification's field.
        field: &'static str,
        /// What the host has.
        host: &'static str,
    },
    /// Swap without or below memory.
    #[error(
        "linux.resources.memory.swap is memory and swap together, so it must be at least memory.limit, which must be given"
    )]
    Swap,
    /// A name that is no file of a control group.
    #[error("linux.resources.unified has {0:?}, which is no file name of a cgroup")]
    UnifiedName(String),
    /// A device rule that cgroup v1 cannot express.
    #[error(
        "linux.resources.devices has a rule for all kinds of devices with a number or less access than rwm, which cgroup v1 does \
         not know; give its type"
    )]
    DeviceRule,
}

/// Where, in each hierarchy, the group is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupPath {
    /// Below the hierarchy's mount.
    Absolute(PathBuf),
    /// Below or beside the caller's own group.
    Relative(PathBuf),
}

impl CgroupPath {
    /// `linux.cgroupsPath` as it is meant, or else `default` beside the caller. `..` never leads out of the hierarchy.
    #[must_use]
    pub fn new(given: Option<&Path>, default: &str) -> Self {
        match given.filter(|path| !path.as_os_str().is_empty()) {
            None => Self::Relative(default.into()),
            Some(path) if path.is_absolute() => Self::Absolute(clean(path)),
            Some(path) => Self::Relative(clean(path)),
        }
    }

    fn below(&self, hierarchy: &Hierarchy) -> Option<PathBuf> {
        let (base, path) = match (self, &hierarchy.kind) {
            (Self::Absolute(path), _) => (Path::new(""), path),
            (Self::Relative(path), HierarchyKind::V1(_)) => (hierarchy.own.as_path(), path),
            (Self::Relative(path), HierarchyKind::V2(_)) => {
                (hierarchy.own.parent().unwrap_or(Path::new("")), path)
            }
        };
        (!path.as_os_str().is_empty()).then(|| hierarchy.mount.join(base).join(path))
    }
}

/// Without `.`, `..` and a leading slash.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// Something to be written into a file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// A file and what to write to it. Kernels have one or the other; the first that exists is taken.
    pub options: Vec<(String, String)>,
    /// The specification's field that wants it, for messages.
    pub field: &'static str,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "numbers and owned texts alike, without a sign at each call"
)]
impl Write {
    pub(super) fn new(file: impl Into<String>, value: impl ToString, field: &'static str) -> Self {
        Self { options: vec![(file.into(), value.to_string())], field }
    }

    pub(super) fn or(mut self, file: impl Into<String>, value: impl ToString) -> Self {
        self.options.push((file.into(), value.to_string()));
        self
    }
}

/// One directory of a container's control group, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// Where its hierarchy is mounted.
    pub mount: PathBuf,
    /// The v1 controllers of its hierarchy; `None` for v2.
    pub v1: Option<Vec<String>>,
}

impl Directory {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.v1.as_ref().is_some_and(|list| list.iter().any(|name| name == controller))
    }
}

/// What is done to make a container's control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupPlan {
    /// One directory a hierarchy, each with what is written into it.
    pub directories: Vec<(Directory, Vec<Write>)>,
    /// v2 controllers that the limits need.
    pub controllers: Vec<&'static str>,
    /// Device rules, where they are a program instead of files (v2).
    pub devices: Vec<DeviceRule>,
    /// The file that tells whether the group is frozen.
    pub freezer: Option<PathBuf>,
    /// Fields that mean nothing on this host's version.
    pub ignored: Vec<&'static str>,
}

impl CgroupPlan {
    /// The directories alone.
    #[must_use]
    pub fn places(&self) -> Vec<Directory> {
        self.directories.iter().map(|(directory, _)| directory.clone()).collect()
    }
}

/// Decides. `needed` are rules for the devices that the monitor must open, whatever the specification says.
///
/// # Errors
/// [`PlanError`]
pub fn plan(
    path: &CgroupPath,
    resources: &Resources,
    needed: &[DeviceRule],
    layout: &Layout,
) -> Result<CgroupPlan, PlanError> {
    let mut plan = CgroupPlan::default();
    for hierarchy in &layout.hierarchies {
        let base = match path {
            CgroupPath::Absolute(_) => "/",
            CgroupPath::Relative(_) => ".",
        };
        // It has no more components than that.
        let path = path.below(hierarchy).ok_or_else(|| PlanError::Root(base.into()))?;
        let v1 = match &hierarchy.kind {
            HierarchyKind::V1(controllers) => Some(controllers.clone()),
            HierarchyKind::V2(_) => None,
        };
        plan.directories.push((Directory { path, mount: hierarchy.mount.clone(), v1 }, Vec::new()));
    }
    plan.freezer = freezer(&plan.places());
    fill(&mut plan, resources, needed, layout)?;
    Ok(plan)
}

/// Decides what is written into groups that exist already.
///
/// # Errors
/// [`PlanError`]
pub fn plan_update(
    places: &[Directory],
    resources: &Resources,
    layout: &Layout,
) -> Result<CgroupPlan, PlanError> {
    let directories = places.iter().map(|place| (place.clone(), Vec::new())).collect();
    let mut plan = CgroupPlan { directories, freezer: freezer(places), ..CgroupPlan::default() };
    fill(&mut plan, resources, &[], layout)?;
    Ok(plan)
}

fn freezer(places: &[Directory]) -> Option<PathBuf> {
    let v1 = places.iter().find(|place| place.has("freezer")).map(|place| place.path.join("freezer.state"));
    v1.or_else(|| {
        places.iter().find(|place| place.v1.is_none()).map(|place| place.path.join("cgroup.events"))
    })
}

/// A controller in the words of both versions.
const CONTROLLERS: [(&str, &str); 9] = [
    ("memory", "memory"),
    ("cpu", "cpu"),
    ("cpuset", "cpuset"),
    ("pids", "pids"),
    ("blkio", "io"),
    ("hugetlb", "hugetlb"),
    ("rdma", "rdma"),
    ("net_cls", ""),
    ("net_prio", ""),
];

fn fill(
    plan: &mut CgroupPlan,
    resources: &Resources,
    needed: &[DeviceRule],
    layout: &Layout,
) -> Result<(), PlanError> {
    let unified = layout.is_unified();
    for (old, new) in CONTROLLERS {
        if let Some((_, writes)) = plan.directories.iter_mut().find(|(directory, _)| directory.has(old)) {
            writes.extend(v1::writes(old, resources)?);
            continue;
        }
        let wanted = v2::writes(new, resources)?;
        let other = if unified { Vec::new() } else { v1::writes(old, resources)? };
        let Some(first) = wanted.first().or(other.first()) else { continue };
        let on_v2 = layout
            .hierarchies
            .iter()
            .any(|hierarchy| matches!(hierarchy.kind, HierarchyKind::V2(_)) && hierarchy.has(new));
        match plan.directories.iter_mut().find(|(directory, _)| directory.v1.is_none()) {
            Some((_, writes)) if on_v2 => {
                writes.extend(wanted);
                plan.controllers.push(new);
            }
            _ => {
                let controller = if unified { new } else { old };
                return Err(PlanError::NoController { field: first.field, controller });
            }
        }
    }
    if let Some((_, writes)) = plan.directories.iter_mut().find(|(directory, _)| directory.has("devices")) {
        writes.extend(v1::device_rules(&resources.devices, needed)?);
    } else if !resources.devices.is_empty() {
        plan.devices = [resources.devices.as_slice(), needed].concat();
    }
    if unified {
        plan.ignored = v2::ignored(resources);
    }
    for (file, value) in &resources.unified {
        let field = "linux.resources.unified";
        if file.is_empty() || file.contains('/') || !file.contains('.') {
            return Err(PlanError::UnifiedName(file.clone()));
        }
        let v2 = plan.directories.iter_mut().find(|(directory, _)| directory.v1.is_none());
        match v2 {
            Some((_, writes)) if unified => writes.push(Write::new(file.as_str(), value, field)),
            _ => return Err(PlanError::Version { field, host: "v1" }),
        }
        let controller =
            CONTROLLERS.into_iter().map(|(_, new)| new).find(|new| file.split('.').next() == Some(new));
        plan.controllers.extend(controller.filter(|new| !plan.controllers.contains(new)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::{hybrid, unified};
    use super::super::resources::{
        BlockLimits, CpuLimits, Limit, MemoryLimits, NodeKind, Permission, Throttle,
    };
    use super::super::{DeviceNumber, NetworkLimits};
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;

    fn everything() -> Resources {
        let disk = DeviceNumber { major: 8, minor: 0 };
        let rule = |permission, kind, major, minor, access: &str| DeviceRule {
            permission,
            kind,
            major,
            minor,
            access: access.into(),
        };
        Resources {
            memory: MemoryLimits {
                limit: Some(Limit::At(64 << 20)),
                reservation: Some(Limit::At(32 << 20)),
                swap: Some(Limit::At(96 << 20)),
                ..MemoryLimits::default()
            },
            cpu: CpuLimits {
                shares: Some(512),
                quota: Some(Limit::At(50_000)),
                period: Some(100_000),
                cpus: Some("0-1".into()),
                mems: Some("0".into()),
                ..CpuLimits::default()
            },
            pids: Some(Limit::At(32)),
            block: BlockLimits {
                weight: Some(500),
                read_bps: vec![Throttle { device: disk, rate: 1 << 20 }],
                write_iops: vec![Throttle { device: disk, rate: 100 }],
                ..BlockLimits::default()
            },
            devices: vec![
                rule(Permission::Deny, NodeKind::Any, None, None, "rwm"),
                rule(Permission::Allow, NodeKind::Char, Some(1), Some(3), "rwm"),
                rule(Permission::Allow, NodeKind::Char, Some(136), None, "rw"),
            ],
            ..Resources::default()
        }
    }

    fn kvm() -> DeviceRule {
        DeviceRule {
            permission: Permission::Allow,
            kind: NodeKind::Char,
            major: Some(10),
            minor: Some(232),
            access: "rw".into(),
        }
    }

    fn written(plan: &CgroupPlan) -> String {
        let mut text = String::new();
        for (directory, writes) in &plan.directories {
            writeln!(text, "{}", directory.path.display()).unwrap();
            for write in writes {
                let options: Vec<_> =
                    write.options.iter().map(|(file, value)| format!("{file} = {value}")).collect();
                writeln!(text, "  {}", options.join(" | ")).unwrap();
            }
        }
        text
    }

    #[test]
    fn everything_on_v2() {
        let path = CgroupPath::new(Some(Path::new("/kubepods/pod1/c")), "x");
        let plan = plan(&path, &everything(), &[kvm()], &unified()).unwrap();
        assert_eq!(
            written(&plan),
            "/sys/fs/cgroup/kubepods/pod1/c
  memory.max = 67108864
  memory.swap.max = 33554432
  memory.low = 33554432
  cpu.weight = 20
  cpu.max = 50000 100000
  cpuset.cpus = 0-1
  cpuset.mems = 0
  pids.max = 32
  io.bfq.weight = 500 | io.weight = 4950
  io.max = 8:0 rbps=1048576
  io.max = 8:0 wiops=100
"
        );
        assert_eq!(plan.controllers, ["memory", "cpu", "cpuset", "pids", "io"]);
        assert_eq!(plan.devices.last(), Some(&kvm()));
        assert_eq!(plan.freezer, Some("/sys/fs/cgroup/kubepods/pod1/c/cgroup.events".into()));
    }

    #[test]
    fn everything_on_v1() {
        let plan = plan(&CgroupPath::new(None, "c"), &everything(), &[kvm()], &hybrid()).unwrap();
        assert_eq!(
            written(&plan),
            "/sys/fs/cgroup/memory/own/c
  memory.limit_in_bytes = 67108864
  memory.memsw.limit_in_bytes = 100663296
  memory.soft_limit_in_bytes = 33554432
/sys/fs/cgroup/cpu,cpuacct/c
  cpu.shares = 512
  cpu.cfs_period_us = 100000
  cpu.cfs_quota_us = 50000
/sys/fs/cgroup/cpuset/c
  cpuset.cpus = 0-1
  cpuset.mems = 0
/sys/fs/cgroup/devices/c
  devices.deny = a
  devices.allow = c 1:3 rwm
  devices.allow = c 136:* rw
  devices.allow = c 10:232 rw
/sys/fs/cgroup/freezer/c
/sys/fs/cgroup/blkio/c
  blkio.weight = 500 | blkio.bfq.weight = 500
  blkio.throttle.read_bps_device = 8:0 1048576
  blkio.throttle.write_iops_device = 8:0 100
/sys/fs/cgroup/pids/c
  pids.max = 32
/sys/fs/cgroup/systemd/c
/sys/fs/cgroup/unified/c
"
        );
        assert_eq!(plan.freezer, Some("/sys/fs/cgroup/freezer/c/freezer.state".into()));
    }

    #[test]
    fn relative_paths_are_below_the_own_group_on_v1_and_beside_it_on_v2() {
        let path = CgroupPath::new(Some(Path::new("a/../b/./c")), "x");
        let at = |layout: &Layout| {
            plan(&path, &Resources::default(), &[], layout).unwrap().directories[0].0.path.clone()
        };
        assert_eq!(at(&hybrid()), Path::new("/sys/fs/cgroup/memory/own/b/c"));
        assert_eq!(at(&unified()), Path::new("/sys/fs/cgroup/system.slice/b/c"));
    }

    #[test]
    fn the_root_group_is_refused() {
        for path in ["/", "/..", "..", "a/..", "/./"] {
            let path = CgroupPath::new(Some(Path::new(path)), "x");
            let refused = plan(&path, &Resources::default(), &[], &unified());
            let shown = if matches!(path, CgroupPath::Absolute(_)) { "/" } else { "." };
            assert_eq!(refused, Err(PlanError::Root(shown.into())), "{path:?}");
        }
    }

    #[test]
    fn a_limit_that_this_host_cannot_apply_is_an_error_and_never_ignored() {
        let path = CgroupPath::new(None, "c");
        let classes = Resources {
            network: NetworkLimits { class_id: Some(1), ..NetworkLimits::default() },
            ..Resources::default()
        };
        let huge = Resources { hugepages: [("2MB".into(), 1 << 21)].into(), ..Resources::default() };
        let unified_files =
            Resources { unified: [("memory.high".into(), "1".into())].into(), ..Resources::default() };
        let swap = Resources {
            memory: MemoryLimits { swap: Some(Limit::At(1)), ..MemoryLimits::default() },
            ..Resources::default()
        };
        let names = Resources { unified: [("../x.y".into(), "1".into())].into(), ..Resources::default() };
        for (resources, layout, says) in [
            (&classes, hybrid(), "net_cls"),
            (&huge, hybrid(), "hugetlb"),
            (&huge, Layout::default(), "hugetlb"),
            (&unified_files, hybrid(), "cgroup v1"),
            (&swap, unified(), "memory.swap"),
            (&names, unified(), "../x.y"),
        ] {
            let message = plan(&path, resources, &[], &layout).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
        assert_eq!(plan(&path, &classes, &[], &unified()).unwrap().ignored, ["linux.resources.network"]);
    }

    #[test]
    fn a_rule_for_all_kinds_with_less_than_all_access_is_for_v2_alone() {
        let rule = DeviceRule {
            permission: Permission::Deny,
            kind: NodeKind::Any,
            major: None,
            minor: None,
            access: "rw".into(),
        };
        let resources = Resources { devices: vec![rule.clone()], ..Resources::default() };
        let path = CgroupPath::new(None, "c");
        assert_eq!(plan(&path, &resources, &[], &unified()).unwrap().devices, [rule]);
        assert_eq!(plan(&path, &resources, &[], &hybrid()), Err(PlanError::DeviceRule));
    }

    #[test]
    fn files_of_the_unified_hierarchy_are_written_as_they_are() {
        let resources =
            Resources { unified: [("memory.high".into(), "max".into())].into(), ..Resources::default() };
        let plan = plan(&CgroupPath::new(None, "c"), &resources, &[], &unified()).unwrap();
        assert_eq!(written(&plan), "/sys/fs/cgroup/system.slice/c\n  memory.high = max\n");
        assert_eq!(plan.controllers, ["memory"]);
    }

    proptest! {
        /// Whatever the path, the group is below the mount and never the mount itself.
        #[test]
        fn no_path_leads_out_of_the_hierarchy(path in "[./a-c]{0,12}") {
            for layout in [unified(), hybrid()] {
                let path = CgroupPath::new(Some(Path::new(&path)), "x");
                if let Ok(plan) = plan(&path, &Resources::default(), &[], &layout) {
                    for (directory, _) in plan.directories {
                        prop_assert!(directory.path.starts_with(&directory.mount));
                        prop_assert_ne!(&directory.path, &directory.mount);
                        prop_assert!(directory.path.components().all(|c| c != Component::ParentDir));
                    }
                }
            }
        }
    }
}
