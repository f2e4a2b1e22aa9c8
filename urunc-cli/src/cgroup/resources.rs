//! `linux.resources` of a specification, as plain data that a record can hold. What a value means to the kernel is
//! decided in [`super::v1`] and [`super::v2`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All limits of a container. What is absent is left as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory of guest and monitor.
    pub memory: MemoryLimits,
    /// Processor time and placement.
    pub cpu: CpuLimits,
    /// Number of tasks.
    pub pids: Option<Limit>,
    /// Block devices.
    pub block: BlockLimits,
    /// Bytes of huge pages, by page size as the kernel spells it (`2MB`).
    pub hugepages: BTreeMap<String, u64>,
    /// Which devices may be opened, in order; a later rule wins.
    pub devices: Vec<DeviceRule>,
    /// Marks on network packets.
    pub network: NetworkLimits,
    /// RDMA, by device.
    pub rdma: BTreeMap<String, RdmaLimit>,
    /// Files of cgroup v2 and what to write to them.
    pub unified: BTreeMap<String, String>,
}

impl Resources {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An amount, or explicitly none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// So many, or so many bytes.
    At(u64),
    /// No limit; an earlier one is taken off.
    Unlimited,
}

impl Limit {
    /// This limit, `more` higher.
    #[must_use]
    pub fn raised(self, more: u64) -> Self {
        match self {
            Self::At(bytes) => Self::At(bytes.saturating_add(more)),
            Self::Unlimited => Self::Unlimited,
        }
    }
}

/// `linux.resources.memory`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryLimits {
    /// Bytes of memory.
    pub limit: Option<Limit>,
    /// Bytes that reclaim should leave.
    pub reservation: Option<Limit>,
    /// Bytes of memory and swap together.
    pub swap: Option<Limit>,
    /// Bytes of TCP buffers (v1).
    pub kernel_tcp: Option<Limit>,
    /// How readily to swap (v1).
    pub swappiness: Option<u64>,
    /// Whether tasks wait instead of being killed when memory runs out (v1).
    pub disable_oom_killer: bool,
}

/// `linux.resources.cpu`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuLimits {
    /// Relative weight, 2 to 262144.
    pub shares: Option<u64>,
    /// Microseconds of processor time in each period.
    pub quota: Option<Limit>,
    /// Microseconds that a burst may take on top.
    pub burst: Option<u64>,
    /// Length of a period in microseconds.
    pub period: Option<u64>,
    /// Microseconds of real-time scheduling in each real-time period (v1).
    pub realtime_runtime: Option<i64>,
    /// Length of a real-time period in microseconds (v1).
    pub realtime_period: Option<u64>,
    /// Processors, such as `0-3,7`.
    pub cpus: Option<String>,
    /// Memory nodes.
    pub mems: Option<String>,
    /// 1 for the idle scheduling class.
    pub idle: Option<i64>,
}

/// Number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceNumber {
    /// Its driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// `linux.resources.blockIO`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockLimits {
    /// Relative weight, 10 to 1000.
    pub weight: Option<u16>,
    /// The same against tasks of the group's own children (v1).
    pub leaf_weight: Option<u16>,
    /// Weights for single devices.
    pub devices: Vec<WeightDevice>,
    /// Bytes read a second.
    pub read_bps: Vec<Throttle>,
    /// Bytes written a second.
    pub write_bps: Vec<Throttle>,
    /// Reads a second.
    pub read_iops: Vec<Throttle>,
    /// Writes a second.
    pub write_iops: Vec<Throttle>,
}

/// A weight for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightDevice {
    /// The device.
    pub device: DeviceNumber,
    /// Relative weight.
    pub weight: Option<u16>,
    /// Weight against the group's children (v1).
    pub leaf_weight: Option<u16>,
}

/// A rate for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// The device.
    pub device: DeviceNumber,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// `linux.resources.network` (v1)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkLimits {
    /// Class of the packets.
    pub class_id: Option<u32>,
    /// Priority by interface.
    pub priorities: BTreeMap<String, u32>,
}

/// `linux.resources.rdma`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdmaLimit {
    /// Handles.
    pub handles: Option<u32>,
    /// Objects.
    pub objects: Option<u32>,
}

/// Whether a device rule permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// It permits.
    Allow,
    /// It forbids.
    Deny,
}

/// What kind of device a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// Every device, of whatever number and for whatever access.
    Any,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// An entry of `linux.resources.devices`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Whether it permits.
    pub permission: Permission,
    /// Which kind of device.
    pub kind: NodeKind,
    /// Which driver; all if absent.
    pub major: Option<u32>,
    /// Which of its devices; all if absent.
    pub minor: Option<u32>,
    /// `r`, `w` and `m` (for `mknod`) in any combination.
    pub access: String,
}
