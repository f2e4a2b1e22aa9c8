//! Limits in the words of cgroup v2 (the kernel's `Documentation/admin-guide/cgroup-v2.rst`).

use super::plan::{PlanError, Write};
use super::resources::{Limit, Resources, Throttle};
use super::v1;

/// What is written for `controller`.
pub(super) fn writes(controller: &str, resources: &Resources) -> Result<Vec<Write>, PlanError> {
    Ok(match controller {
        "memory" => memory(resources)?,
        "cpu" => cpu(resources)?,
        "cpuset" => v1::cpuset(resources),
        "pids" => {
            let write = |limit| Write::new("pids.max", v1::max(limit), "linux.resources.pids");
            resources.pids.map(write).into_iter().collect()
        }
        "io" => io(resources),
        "hugetlb" => v1::huge_pages(resources, "max"),
        "rdma" => v1::rdma(resources),
        _ => Vec::new(),
    })
}

/// Fields that v2 has no words for, and that only tune.
pub(super) fn ignored(resources: &Resources) -> Vec<&'static str> {
    let network = resources.network.class_id.is_some() || !resources.network.priorities.is_empty();
    [
        (resources.memory.swappiness.is_some(), "linux.resources.memory.swappiness"),
        (resources.memory.disable_oom_killer, "linux.resources.memory.disableOOMKiller"),
        (resources.memory.kernel_tcp.is_some(), "linux.resources.memory.kernelTCP"),
        (resources.block.leaf_weight.is_some(), "linux.resources.blockIO.leafWeight"),
        (network, "linux.resources.network"),
    ]
    .into_iter()
    .filter_map(|(given, field)| given.then_some(field))
    .collect()
}

fn memory(resources: &Resources) -> Result<Vec<Write>, PlanError> {
    let memory = resources.memory;
    let mut writes = Vec::new();
    if let Some(limit) = memory.limit {
        writes.push(Write::new("memory.max", v1::max(limit), "linux.resources.memory.limit"));
    }
    // The specification counts memory and swap together, the kernel swap alone.
    let swap = match (memory.swap, memory.limit) {
        (None, _) => None,
        (Some(Limit::Unlimited), _) => Some(Limit::Unlimited),
        (Some(Limit::At(both)), Some(Limit::At(limit))) => {
            Some(Limit::At(both.checked_sub(limit).ok_or(PlanError::Swap)?))
        }
        (Some(Limit::At(_)), None | Some(Limit::Unlimited)) => return Err(PlanError::Swap),
    };
    if let Some(swap) = swap {
        writes.push(Write::new("memory.swap.max", v1::max(swap), "linux.resources.memory.swap"));
    }
    if let Some(reservation) = memory.reservation {
        writes.push(Write::new("memory.low", v1::max(reservation), "linux.resources.memory.reservation"));
    }
    Ok(writes)
}

fn cpu(resources: &Resources) -> Result<Vec<Write>, PlanError> {
    let cpu = &resources.cpu;
    let field = "linux.resources.cpu";
    if cpu.realtime_period.is_some() || cpu.realtime_runtime.is_some() {
        return Err(PlanError::Version { field: "linux.resources.cpu.realtimeRuntime", host: "v2" });
    }
    let mut writes = Vec::new();
    // An idle group has no weight, and a written one would end its being idle.
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", idle, field));
    }
    if let Some(shares) = cpu.shares.filter(|_| cpu.idle.unwrap_or(0) == 0) {
        writes.push(Write::new("cpu.weight", weight_of(shares), field));
    }
    if cpu.quota.is_some() || cpu.period.is_some() {
        let quota = cpu.quota.map_or_else(|| "max".to_owned(), v1::max);
        let period = cpu.period.map_or_else(String::new, |period| format!(" {period}"));
        writes.push(Write::new("cpu.max", quota + &period, field));
    }
    if let Some(burst) = cpu.burst {
        writes.push(Write::new("cpu.max.burst", burst, field));
    }
    Ok(writes)
}

/// From v1's 2…262144 to v2's 1…10000, as systemd and runc have it, so that neighbours keep their proportions.
pub(super) fn weight_of(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// From the specification's 10…1000 to v2's 1…10000.
pub(super) fn io_weight_of(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

fn io(resources: &Resources) -> Vec<Write> {
    let block = &resources.block;
    let field = "linux.resources.blockIO";
    let mut writes = Vec::new();
    if let Some(weight) = block.weight {
        writes.push(Write::new("io.bfq.weight", weight, field).or("io.weight", io_weight_of(weight)));
    }
    for device in &block.devices {
        if let Some(weight) = device.weight {
            writes.push(Write::new(
                "io.weight",
                format!("{} {}", device.device, io_weight_of(weight)),
                field,
            ));
        }
    }
    let mut throttle = |key: &str, list: &[Throttle]| {
        let value = |throttle: &Throttle| format!("{} {key}={}", throttle.device, throttle.rate);
        writes.extend(list.iter().map(|it| Write::new("io.max", value(it), field)));
    };
    throttle("rbps", &block.read_bps);
    throttle("wbps", &block.write_bps);
    throttle("riops", &block.read_iops);
    throttle("wiops", &block.write_iops);
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_limited_where_they_are_reserved_too() {
        let resources = Resources { hugepages: [("2MB".into(), 1 << 21)].into(), ..Resources::default() };
        let files: Vec<_> =
            writes("hugetlb", &resources).unwrap().into_iter().map(|write| write.options).collect();
        let option = |file: &str| (file.to_owned(), "2097152".to_owned());
        let used = option("hugetlb.2MB.max");
        // Where a kernel has no such file, the other one is written again.
        assert_eq!(files, [vec![used.clone()], vec![option("hugetlb.2MB.rsvd.max"), used]]);
    }

    #[test]
    fn weights_keep_their_ends_and_their_order() {
        assert_eq!((weight_of(0), weight_of(2), weight_of(1024), weight_of(262_144)), (1, 1, 39, 10_000));
        assert_eq!((io_weight_of(10), io_weight_of(1000)), (1, 10_000));
    }
}
