//! Limits in the words of cgroup v1 (the kernel's `Documentation/admin-guide/cgroup-v1/`).

use super::plan::{PlanError, Write};
use super::resources::{DeviceRule, Limit, NodeKind, Permission, Resources, Throttle};

/// What is written into the directory of `controller`.
pub(super) fn writes(controller: &str, resources: &Resources) -> Result<Vec<Write>, PlanError> {
    Ok(match controller {
        "memory" => memory(resources)?,
        "cpu" => cpu(resources),
        "cpuset" => cpuset(resources),
        "pids" => resources
            .pids
            .map(|limit| Write::new("pids.max", max(limit), "linux.resources.pids"))
            .into_iter()
            .collect(),
        "blkio" => block(resources),
        "hugetlb" => huge_pages(resources, "limit_in_bytes"),
        "rdma" => rdma(resources),
        "net_cls" => {
            let field = "linux.resources.network";
            let class = resources.network.class_id.filter(|id| *id != 0);
            class.map(|id| Write::new("net_cls.classid", id, field)).into_iter().collect()
        }
        "net_prio" => {
            let write = |(name, priority)| {
                Write::new("net_prio.ifpriomap", format!("{name} {priority}"), "linux.resources.network")
            };
            resources.network.priorities.iter().map(write).collect()
        }
        _ => Vec::new(),
    })
}

fn memory(resources: &Resources) -> Result<Vec<Write>, PlanError> {
    let memory = resources.memory;
    if let (Some(Limit::At(swap)), limit) = (memory.swap, memory.limit) {
        match limit {
            Some(Limit::At(limit)) if swap >= limit => {}
            _ => return Err(PlanError::Swap),
        }
    }
    let bytes = |file: &str, limit: Option<Limit>, field| {
        limit.map(|limit| Write::new(file, minus_one(limit), field))
    };
    let mut writes: Vec<Write> = [
        bytes("memory.limit_in_bytes", memory.limit, "linux.resources.memory.limit"),
        bytes("memory.memsw.limit_in_bytes", memory.swap, "linux.resources.memory.swap"),
        bytes("memory.soft_limit_in_bytes", memory.reservation, "linux.resources.memory.reservation"),
        bytes("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp, "linux.resources.memory.kernelTCP"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(swappiness) = memory.swappiness {
        writes.push(Write::new("memory.swappiness", swappiness, "linux.resources.memory.swappiness"));
    }
    if memory.disable_oom_killer {
        writes.push(Write::new("memory.oom_control", 1, "linux.resources.memory.disableOOMKiller"));
    }
    Ok(writes)
}

fn cpu(resources: &Resources) -> Vec<Write> {
    let cpu = &resources.cpu;
    let field = "linux.resources.cpu";
    let mut writes = Vec::new();
    let mut add = |file: &str, value: Option<String>| {
        writes.extend(value.map(|value| Write::new(file, value, field)));
    };
    add("cpu.shares", cpu.shares.map(|shares| shares.to_string()));
    add("cpu.rt_period_us", cpu.realtime_period.map(|period| period.to_string()));
    add("cpu.rt_runtime_us", cpu.realtime_runtime.map(|runtime| runtime.to_string()));
    add("cpu.cfs_period_us", cpu.period.map(|period| period.to_string()));
    add("cpu.cfs_quota_us", cpu.quota.map(minus_one));
    add("cpu.cfs_burst_us", cpu.burst.map(|burst| burst.to_string()));
    add("cpu.idle", cpu.idle.map(|idle| idle.to_string()));
    writes
}

pub(super) fn cpuset(resources: &Resources) -> Vec<Write> {
    let cpu = &resources.cpu;
    let write =
        |file, value: &Option<String>, field| value.as_ref().map(|value| Write::new(file, value, field));
    [
        write("cpuset.cpus", &cpu.cpus, "linux.resources.cpu.cpus"),
        write("cpuset.mems", &cpu.mems, "linux.resources.cpu.mems"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn block(resources: &Resources) -> Vec<Write> {
    let block = &resources.block;
    let field = "linux.resources.blockIO";
    let mut writes = Vec::new();
    if let Some(weight) = block.weight {
        writes.push(Write::new("blkio.weight", weight, field).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = block.leaf_weight {
        writes.push(Write::new("blkio.leaf_weight", weight, field));
    }
    for device in &block.devices {
        if let Some(weight) = device.weight {
            let value = format!("{} {weight}", device.device);
            writes
                .push(Write::new("blkio.weight_device", &value, field).or("blkio.bfq.weight_device", &value));
        }
        if let Some(weight) = device.leaf_weight {
            writes.push(Write::new("blkio.leaf_weight_device", format!("{} {weight}", device.device), field));
        }
    }
    let mut throttle = |file: &str, list: &[Throttle]| {
        let value = |throttle: &Throttle| format!("{} {}", throttle.device, throttle.rate);
        writes.extend(list.iter().map(|it| Write::new(file, value(it), field)));
    };
    throttle("blkio.throttle.read_bps_device", &block.read_bps);
    throttle("blkio.throttle.write_bps_device", &block.write_bps);
    throttle("blkio.throttle.read_iops_device", &block.read_iops);
    throttle("blkio.throttle.write_iops_device", &block.write_iops);
    writes
}

/// What is used, and, by kernels that tell the two apart, what is reserved: who maps more than the latter is told so, and who uses more than the former
/// is killed.
pub(super) fn huge_pages(resources: &Resources, suffix: &str) -> Vec<Write> {
    let writes = |(size, bytes): (&String, &u64)| {
        let used = format!("hugetlb.{size}.{suffix}");
        let field = "linux.resources.hugepageLimits";
        let reserved =
            Write::new(format!("hugetlb.{size}.rsvd.{suffix}"), bytes, field).or(used.as_str(), bytes);
        [Write::new(used, bytes, field), reserved]
    };
    resources.hugepages.iter().flat_map(writes).collect()
}

pub(super) fn rdma(resources: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
    for (device, limit) in &resources.rdma {
        let mut value = device.clone();
        if let Some(handles) = limit.handles {
            value += &format!(" hca_handle={handles}");
        }
        if let Some(objects) = limit.objects {
            value += &format!(" hca_object={objects}");
        }
        writes.push(Write::new("rdma.max", value, "linux.resources.rdma"));
    }
    writes
}

/// The specification's rules in order, then what the monitor needs: the kernel lets a later one win.
pub(super) fn device_rules(rules: &[DeviceRule], needed: &[DeviceRule]) -> Result<Vec<Write>, PlanError> {
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    rules.iter().chain(needed).map(device_rule).collect()
}

fn device_rule(rule: &DeviceRule) -> Result<Write, PlanError> {
    let field = "linux.resources.devices";
    let file = match rule.permission {
        Permission::Allow => "devices.allow",
        Permission::Deny => "devices.deny",
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let letter = match rule.kind {
        // The kernel reads no further than the letter.
        NodeKind::Any if rule.major.is_none() && rule.minor.is_none() && covers_everything(&rule.access) => {
            return Ok(Write::new(file, "a", field));
        }
        NodeKind::Any => return Err(PlanError::DeviceRule),
        NodeKind::Block => 'b',
        NodeKind::Char => 'c',
    };
    let value = format!("{letter} {}:{} {}", number(rule.major), number(rule.minor), rule.access);
    Ok(Write::new(file, value, field))
}

fn covers_everything(access: &str) -> bool {
    access.is_empty() || "rwm".chars().all(|letter| access.contains(letter))
}

fn minus_one(limit: Limit) -> String {
    match limit {
        Limit::At(amount) => amount.to_string(),
        Limit::Unlimited => "-1".to_owned(),
    }
}

pub(super) fn max(limit: Limit) -> String {
    match limit {
        Limit::At(amount) => amount.to_string(),
        Limit::Unlimited => "max".to_owned(),
    }
}
