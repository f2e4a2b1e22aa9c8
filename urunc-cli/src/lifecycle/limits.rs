//! A container's control group and its record: what create decides and records, what teardown and `update` find again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use urunc_rootfs::root::{DeviceKind, Entry, MonitorRoot};
use urunc_rootfs::{Access, MountTable};
use urunc_state::{AbsolutePath, InvalidPath, Json, Origin, Pid, Record, Resource};
use urunc_vmm::Monitor;

use super::create::CgroupDriver;
use super::probe;
use crate::bundle::ContainerSpec;
use crate::cgroup::systemd::{self, SystemdError, Unit, UnitError};
use crate::cgroup::{
    self, Accounting, CgroupPath, CgroupPlan, DeviceRule, Directory, Entrance, GuestMemory, Layout,
    LayoutError, Limit, MakeError, MemoryError, MemoryPlan, NodeKind, Permission, ReleaseError, Resources,
};
use crate::sandbox::placeholder::Placeholder;

/// Kind of the recorded resource.
pub(super) const KIND: &str = "cgroup";
/// Version of its data.
const SCHEMA: u32 = 1;

/// Why a container's limits cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// The host's hierarchies cannot be told.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The limits do not fit this host.
    #[error(transparent)]
    Plan(#[from] cgroup::PlanError),
    /// The memory limit cannot be shared between guest and monitor.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The group cannot be made or changed.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The path of a group cannot be recorded.
    #[error("cannot record the path of a cgroup")]
    Path(#[from] InvalidPath),
    /// The record's data cannot be written or understood.
    #[error("cannot write or understand what the record says of the container's cgroup")]
    Record(#[from] serde_json::Error),
    /// There can be no such unit.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// systemd does not make the group.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// The group cannot be removed.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The process without which systemd makes no group.
    #[error("cannot make a process to start the container's systemd unit with")]
    Placeholder(#[source] std::io::Error),
}

/// Kind of the recorded unit of systemd.
pub(super) const UNIT_KIND: &str = "systemd-unit";

/// What the record holds of a unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RecordedUnit {
    /// Its name.
    pub(super) name: String,
    /// What it is described by.
    pub(super) mark: String,
}

impl RecordedUnit {
    /// The unit of a container whose group systemd has made.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let resource = record.urunc.resources.iter().find(|resource| resource.kind == UNIT_KIND)?;
        resource.data.read().ok()
    }
}

/// What the record holds of a control group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Recorded {
    /// The group's directories.
    pub(super) directories: Vec<Directory>,
    /// What they are marked with.
    mark: String,
    /// By how much the group's memory limits are higher than the specification's.
    #[serde(default)]
    pub(super) on_top: u64,
    /// The specification's limits, with later updates.
    #[serde(default)]
    pub(super) resources: Resources,
}

impl Recorded {
    /// The control group of a container, if it has one.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let resource = record.urunc.resources.iter().find(|resource| resource.kind == KIND)?;
        Self::from_resource(resource).ok()
    }

    pub(super) fn from_resource(resource: &Resource) -> Result<Self, serde_json::Error> {
        resource.data.read()
    }

    pub(super) fn to_resource(&self) -> Result<Resource, serde_json::Error> {
        Ok(Resource { kind: KIND.to_owned(), schema: SCHEMA, data: Json::of(self)? })
    }

    pub(super) fn release(&self) -> Result<(), ReleaseError> {
        let paths: Vec<&PathBuf> = self.directories.iter().map(|directory| &directory.path).collect();
        cgroup::release(&paths, &self.mark)
    }
}

/// Puts `changed` in the place of what the record says of the control group.
pub(super) fn replace(record: &mut Record, changed: &Recorded) -> Result<(), LimitsError> {
    let resource = changed.to_resource()?;
    let recorded = record.urunc.resources.iter_mut().find(|resource| resource.kind == KIND);
    if let Some(recorded) = recorded {
        *recorded = resource;
    }
    Ok(())
}

/// Ends what runs in a container's control group, and removes it, and stops the unit that it may be, for when the record is lost.
/// `directory` is the container's state directory.
pub(super) fn release_unrecorded(origin: &Origin, directory: &Path) -> Result<(), LimitsError> {
    let mark = directory.display().to_string();
    cgroup::release(&origin.cgroups, &mark)?;
    if let Some(unit) = &origin.systemd_unit {
        systemd::stop(unit, &unit_mark(&mark))?;
    }
    Ok(())
}

/// Whether a control group that the container was to have is somebody else's, so that nothing in there is known to be the container's.
pub(super) fn has_foreign_group(origin: &Origin, directory: &Path) -> bool {
    let mark = directory.display().to_string();
    origin.cgroups.iter().any(|path| cgroup::is_foreign(path, &mark))
}

/// What people see as a unit's description.
fn unit_mark(mark: &str) -> String {
    format!("urunc container {mark}")
}

/// Everything about limits that is decided before anything is made.
#[derive(Debug)]
pub(super) struct Limits {
    mark: String,
    memory: MemoryPlan,
    resources: Resources,
    path: CgroupPath,
    layout: Layout,
    plan: CgroupPlan,
    /// systemd's unit, if it is to make the group.
    unit: Option<Unit>,
}

impl Limits {
    /// Decides where the group is, and how the memory limit is shared with `monitor`, which itself needs `overhead`.
    /// `directory` is the container's state directory.
    pub(super) fn decide(
        spec: &ContainerSpec,
        driver: CgroupDriver,
        monitor: Monitor,
        overhead: u64,
        accounting: Accounting,
        directory: &Path,
        mounts: &MountTable,
    ) -> Result<Self, LimitsError> {
        let mark = directory.display().to_string();
        let unit = match driver {
            CgroupDriver::Cgroupfs => None,
            CgroupDriver::Systemd => {
                let id = directory.file_name().unwrap_or_default().to_string_lossy();
                Some(Unit::new(spec.cgroups_path.as_deref(), &id)?)
            }
        };
        let path = match &unit {
            None => CgroupPath::new(spec.cgroups_path.as_deref(), &default_name(directory)),
            Some(unit) => CgroupPath::Absolute(systemd::root()?.join(unit.path())),
        };
        let mut layout = Layout::among(mounts)?;
        let mut plan = cgroup::plan(&path, &spec.resources, &[], &layout)?;
        if unit.is_none() && spec.cgroups_path.is_none() && spec.resources.is_empty() && !is_writable(&plan) {
            // In a container without a writable hierarchy, a monitor without limits still runs.
            layout = Layout::default();
            plan = CgroupPlan::default();
        }
        let limit = match spec.resources.memory.limit {
            Some(Limit::At(bytes)) => Some(bytes),
            Some(Limit::Unlimited) | None => None,
        };
        let room = cgroup::room(&plan.places());
        let memory = MemoryPlan::new(limit, accounting, monitor, overhead, room)?;
        if memory.inside > 0 && accounting == Accounting::Auto {
            log::warn!(
                "the guest gets {} bytes less than linux.resources.memory.limit, because the cgroups above leave no room \
                 for {monitor} itself",
                memory.inside
            );
        }
        for field in &plan.ignored {
            log::warn!("{field} has no meaning on cgroup v2 and is not applied");
        }
        Ok(Self { mark, memory, resources: spec.resources.clone(), path, layout, plan, unit })
    }

    /// What the guest gets, if that is less than the container's limit.
    pub(super) fn reduced_memory(&self) -> Option<u64> {
        match self.memory.guest {
            GuestMemory::Bytes(bytes) if self.memory.inside > 0 => Some(bytes),
            GuestMemory::Bytes(_) | GuestMemory::Default => None,
        }
    }

    /// Completes the plan with what the monitor's root needs.
    pub(super) fn complete(&mut self, root: &MonitorRoot) -> Result<(), LimitsError> {
        let raised = self.memory.raise(&self.resources);
        self.plan = cgroup::plan(&self.path, &raised, &needed(root), &self.layout)?;
        Ok(())
    }

    /// Notes what is about to be made.
    pub(super) fn note(&self, origin: &mut Origin, record: &mut Record) -> Result<(), LimitsError> {
        let directories = self.plan.places();
        if directories.is_empty() {
            return Ok(());
        }
        origin.cgroups = directories
            .iter()
            .map(|directory| AbsolutePath::new(directory.path.clone()))
            .collect::<Result<_, _>>()?;
        record.urunc.freezer = self.plan.freezer.clone().map(AbsolutePath::new).transpose()?;
        let recorded = Recorded {
            directories,
            mark: self.mark.clone(),
            on_top: self.memory.on_top,
            resources: self.resources.clone(),
        };
        if let Some(unit) = &self.unit {
            // Acquired first, released last: whatever runs in the group is gone by then.
            let data = Json::of(&RecordedUnit { name: unit.name.clone(), mark: self.unit_mark() })?;
            record.urunc.resources.push(Resource { kind: UNIT_KIND.to_owned(), schema: SCHEMA, data });
            origin.systemd_unit = Some(unit.name.clone());
        }
        record.urunc.resources.push(recorded.to_resource()?);
        Ok(())
    }

    fn unit_mark(&self) -> String {
        unit_mark(&self.mark)
    }

    /// Has systemd start the container's unit, if it is to make the group. What is returned must live until init is in there.
    pub(super) fn start_unit(&self) -> Result<Option<Placeholder>, LimitsError> {
        let Some(unit) = &self.unit else { return Ok(None) };
        let placeholder = Placeholder::spawn().map_err(LimitsError::Placeholder)?;
        let limits = unit_limits(&self.memory.raise(&self.resources), &self.layout);
        systemd::start(unit, &self.unit_mark(), placeholder.pid(), limits)?;
        Ok(Some(placeholder))
    }

    /// Makes the group, in which there may be `expected` already, and nobody else.
    pub(super) fn make(&self, expected: Option<Pid>) -> Result<Entrance, MakeError> {
        cgroup::make(&self.plan, &self.mark, expected)
    }
}

/// The properties of a unit that say the same as what is written into its group.
pub(super) fn unit_limits(raised: &Resources, layout: &Layout) -> Vec<systemd::Property> {
    let version = if layout.is_unified() { systemd::Version::V2 } else { systemd::Version::V1 };
    systemd::limits(raised, version)
}

/// Why a dead container ended, if its memory ran out. What was killed need not be the monitor, which may have ended for another reason.
pub(super) fn oom_reason(record: &Record) -> Option<String> {
    let recorded = Recorded::of(record)?;
    let kills = cgroup::oom_kills(&recorded.directories);
    let monitor = || record.open_process().ok().flatten().and_then(|process| probe::was_killed(&process));
    (kills > 0).then(|| {
        let who = if monitor() == Some(true) { "the monitor" } else { "a process of the container" };
        format!(
            "the kernel killed {who} because the container's cgroup ran out of memory; raise linux.resources.memory.limit"
        )
    })
}

/// A name that no other container has, not even one of the same id below another state root.
fn default_name(directory: &Path) -> String {
    /// A file name has at most 255 bytes, an id 1024.
    const ID_PART: usize = 200;
    let id = directory.file_name().unwrap_or_default().to_string_lossy();
    let id: String = id.chars().take(ID_PART).collect();
    // FNV-1a: short, and the same in every version.
    let hash = directory
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("urunc-{id}-{hash:08x}")
}

fn is_writable(plan: &CgroupPlan) -> bool {
    plan.directories.iter().all(|(directory, _)| {
        let existing = directory.path.ancestors().find(|path| path.exists()).unwrap_or(&directory.mount);
        rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_ok()
    })
}

/// The devices of the monitor's root, and those that everybody may use (the specification's default devices, and terminals).
fn needed(root: &MonitorRoot) -> Vec<DeviceRule> {
    const COMMON: [(u32, Option<u32>); 8] = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(2)),
        (136, None),
    ];
    let rule = |kind, major, minor, access: &str| DeviceRule {
        permission: Permission::Allow,
        kind,
        major: Some(major),
        minor,
        access: access.to_owned(),
    };
    let nodes = root.entries.iter().flat_map(|entry| match entry {
        Entry::Devices { nodes, .. } => nodes.as_slice(),
        _ => &[],
    });
    let nodes = nodes.map(|node| {
        let kind = match node.device.kind {
            DeviceKind::Block => NodeKind::Block,
            DeviceKind::Char => NodeKind::Char,
        };
        let access = match node.access {
            Access::ReadOnly => "r",
            Access::ReadWrite => "rw",
        };
        rule(kind, node.device.major, Some(node.device.minor), access)
    });
    let common = COMMON.into_iter().map(|(major, minor)| rule(NodeKind::Char, major, minor, "rw"));
    common.chain(nodes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use urunc_rootfs::root::{Device, DeviceNode, Owner, Target};

    #[test]
    fn a_disk_that_is_read_only_cannot_be_opened_for_writing() {
        let node = |minor, access| DeviceNode {
            target: Target::new(format!("/dev/{minor}")).unwrap(),
            device: Device { kind: DeviceKind::Block, major: 7, minor },
            access,
        };
        let nodes = vec![node(1, Access::ReadOnly), node(2, Access::ReadWrite)];
        let entries = vec![Entry::Devices { target: Target::new("/dev").unwrap(), nodes }];
        let rules = needed(&MonitorRoot { entries, owner: Owner { uid: 0, gid: 0 }, label: None });
        let disks = rules.iter().filter(|rule| rule.kind == NodeKind::Block);
        let seen: Vec<_> = disks.map(|rule| (rule.minor, rule.access.as_str())).collect();
        assert_eq!(seen, [(Some(1), "r"), (Some(2), "rw")]);
    }

    #[test]
    fn two_state_roots_never_share_a_default_group() {
        let (one, other) = (default_name(Path::new("/run/a/c")), default_name(Path::new("/run/b/c")));
        assert!(one.starts_with("urunc-c-") && other.starts_with("urunc-c-"));
        assert_ne!(one, other);
        assert_eq!(one, default_name(Path::new("/run/a/c")));
        assert!(default_name(&Path::new("/r").join("x".repeat(1024))).len() < 255);
    }
}
