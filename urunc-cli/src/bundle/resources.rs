//! `linux.resources`, as it stands in a specification and as `update` is given it.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
    LinuxThrottleDevice,
};

use crate::cgroup::{
    BlockLimits, CpuLimits, DeviceNumber, DeviceRule, Limit, MemoryLimits, NetworkLimits, NodeKind,
    Permission, RdmaLimit, Resources, Throttle, WeightDevice,
};

/// What is wrong with a resource.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResourceError {
    /// A size is negative.
    #[error("linux.resources.{field} is {value}; use a number of bytes, or -1 for no limit")]
    Size {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// No device has such a number.
    #[error(
        "linux.resources has the device number {0}; use one from 0 to 4294967295, or -1 for all where a rule permits it"
    )]
    Device(i64),
    /// A device rule has unknown letters.
    #[error("linux.resources.devices has the access {0:?}; use letters of rwm")]
    Access(String),
    /// A document with resources cannot be understood.
    #[error("the resources are no JSON as `linux.resources` of a specification has it")]
    Parse(#[from] serde_json::Error),
}

impl Resources {
    /// Reads the JSON of a `linux.resources` object.
    ///
    /// # Errors
    /// [`ResourceError`]
    pub fn from_json(json: &[u8]) -> Result<Self, ResourceError> {
        convert(&serde_json::from_slice(json)?)
    }
}

/// Checks and converts.
pub(super) fn convert(resources: &LinuxResources) -> Result<Resources, ResourceError> {
    let network = resources.network().as_ref();
    Ok(Resources {
        memory: resources.memory().as_ref().map(memory).transpose()?.unwrap_or_default(),
        cpu: resources.cpu().as_ref().map(cpu).unwrap_or_default(),
        pids: resources.pids().as_ref().and_then(|pids| limit(pids.limit())),
        block: resources.block_io().as_ref().map(block).transpose()?.unwrap_or_default(),
        hugepages: resources
            .hugepage_limits()
            .iter()
            .flatten()
            // As everywhere, -1 is no limit, which is what there is without one.
            .filter(|it| it.limit() != -1)
            .map(|it| match u64::try_from(it.limit()) {
                Ok(bytes) => Ok((it.page_size().clone(), bytes)),
                Err(_) => Err(ResourceError::Size { field: "hugepageLimits.limit", value: it.limit() }),
            })
            .collect::<Result<_, _>>()?,
        devices: resources.devices().iter().flatten().filter_map(device_rule).collect::<Result<_, _>>()?,
        network: NetworkLimits {
            class_id: network.and_then(|network| network.class_id()),
            priorities: network
                .and_then(|network| network.priorities().as_ref())
                .into_iter()
                .flatten()
                .map(|entry| (entry.name().clone(), entry.priority()))
                .collect(),
        },
        rdma: resources
            .rdma()
            .iter()
            .flatten()
            .map(|(device, it)| {
                (device.clone(), RdmaLimit { handles: it.hca_handles(), objects: it.hca_objects() })
            })
            .collect(),
        unified: resources.unified().clone().unwrap_or_default().into_iter().collect(),
    })
}

/// 0 means "not given" to the callers of runtimes, and every negative number "no limit".
fn limit(value: i64) -> Option<Limit> {
    match value {
        0 => None,
        value => Some(u64::try_from(value).map_or(Limit::Unlimited, Limit::At)),
    }
}

fn size(field: &'static str, value: Option<i64>) -> Result<Option<Limit>, ResourceError> {
    match value {
        Some(value) if value < -1 => Err(ResourceError::Size { field, value }),
        value => Ok(value.and_then(limit)),
    }
}

fn memory(memory: &LinuxMemory) -> Result<MemoryLimits, ResourceError> {
    if memory.check_before_update() == Some(true) {
        log::warn!(
            "linux.resources.memory.checkBeforeUpdate is not heeded: the kernel may end what needs more than its new limit"
        );
    }
    Ok(MemoryLimits {
        limit: size("memory.limit", memory.limit())?,
        reservation: size("memory.reservation", memory.reservation())?,
        swap: size("memory.swap", memory.swap())?,
        kernel_tcp: size("memory.kernelTCP", memory.kernel_tcp())?,
        swappiness: memory.swappiness(),
        disable_oom_killer: memory.disable_oom_killer().unwrap_or(false),
    })
}

fn cpu(cpu: &LinuxCpu) -> CpuLimits {
    let given = |value: Option<u64>| value.filter(|value| *value != 0);
    CpuLimits {
        shares: given(cpu.shares()),
        quota: cpu.quota().and_then(limit),
        burst: cpu.burst(),
        period: given(cpu.period()),
        realtime_runtime: cpu.realtime_runtime().filter(|value| *value != 0),
        realtime_period: given(cpu.realtime_period()),
        cpus: cpu.cpus().clone().filter(|cpus| !cpus.is_empty()),
        mems: cpu.mems().clone().filter(|mems| !mems.is_empty()),
        idle: cpu.idle(),
    }
}

fn block(block: &LinuxBlockIo) -> Result<BlockLimits, ResourceError> {
    let given = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
    let rates = |list: &Option<Vec<LinuxThrottleDevice>>| {
        list.iter()
            .flatten()
            .map(|it| Ok(Throttle { device: device(it.major(), it.minor())?, rate: it.rate() }))
            .collect::<Result<Vec<_>, ResourceError>>()
    };
    Ok(BlockLimits {
        weight: given(block.weight()),
        leaf_weight: given(block.leaf_weight()),
        devices: block
            .weight_device()
            .iter()
            .flatten()
            .map(|it| {
                let device = device(it.major(), it.minor())?;
                Ok(WeightDevice { device, weight: given(it.weight()), leaf_weight: given(it.leaf_weight()) })
            })
            .collect::<Result<_, ResourceError>>()?,
        read_bps: rates(block.throttle_read_bps_device())?,
        write_bps: rates(block.throttle_write_bps_device())?,
        read_iops: rates(block.throttle_read_iops_device())?,
        write_iops: rates(block.throttle_write_iops_device())?,
    })
}

fn number(value: i64) -> Result<u32, ResourceError> {
    u32::try_from(value).map_err(|_| ResourceError::Device(value))
}

fn device(major: i64, minor: i64) -> Result<DeviceNumber, ResourceError> {
    Ok(DeviceNumber { major: number(major)?, minor: number(minor)? })
}

/// Nothing for named pipes, which control groups know nothing of.
fn device_rule(rule: &LinuxDeviceCgroup) -> Option<Result<DeviceRule, ResourceError>> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => NodeKind::Any,
        Some(LinuxDeviceType::B) => NodeKind::Block,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => NodeKind::Char,
        Some(LinuxDeviceType::P) => return None,
    };
    let access =
        rule.access().clone().filter(|access| !access.is_empty()).unwrap_or_else(|| "rwm".to_owned());
    if access.chars().any(|letter| !"rwm".contains(letter)) {
        return Some(Err(ResourceError::Access(access)));
    }
    let permission = if rule.allow() { Permission::Allow } else { Permission::Deny };
    let all_or = |value: Option<i64>| value.filter(|value| *value != -1).map(number).transpose();
    let numbers = all_or(rule.major()).and_then(|major| Ok((major, all_or(rule.minor())?)));
    Some(numbers.map(|(major, minor)| DeviceRule { permission, kind, major, minor, access }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_containerd_sends_is_understood() {
        let resources = Resources::from_json(
            json!({
                "devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 136, "minor": -1, "access": "rwm"},
                    {"allow": true, "type": "p", "access": "rwm"},
                ],
                "memory": {"limit": 67_108_864, "swap": -1, "reservation": 0},
                "cpu": {"shares": 2, "quota": -1, "period": 100_000, "cpus": ""},
                "pids": {"limit": 0},
                "blockIO": {"weight": 0},
            })
            .to_string()
            .as_bytes(),
        )
        .unwrap();
        assert_eq!(resources.memory.limit, Some(Limit::At(64 << 20)));
        assert_eq!((resources.memory.swap, resources.memory.reservation), (Some(Limit::Unlimited), None));
        assert_eq!((resources.cpu.quota, resources.cpu.cpus.as_deref()), (Some(Limit::Unlimited), None));
        assert_eq!((resources.pids, resources.block.weight), (None, None));
        assert_eq!(resources.devices.len(), 3);
        assert_eq!((resources.devices[0].kind, resources.devices[2].minor), (NodeKind::Any, None));
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        for (json, says) in [
            (json!({"memory": {"limit": -2}}), "memory.limit is -2"),
            (json!({"memory": {"swap": -7}}), "memory.swap is -7"),
            (json!({"hugepageLimits": [{"pageSize": "2MB", "limit": -5}]}), "hugepageLimits.limit is -5"),
            (json!({"devices": [{"allow": true, "access": "rwx"}]}), "\"rwx\""),
            (json!({"devices": [{"allow": true, "type": "c", "major": -3}]}), "-3"),
            (json!({"blockIO": {"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}}), "-1"),
            (json!("none"), "no JSON"),
        ] {
            let message = Resources::from_json(json.to_string().as_bytes()).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
