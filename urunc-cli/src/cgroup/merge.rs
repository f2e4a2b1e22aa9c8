//! What a change of limits means: what is not given stays as it is, and what belongs together is written together.

use super::resources::{
    BlockLimits, CpuLimits, Limit, MemoryLimits, NetworkLimits, Resources, Throttle, WeightDevice,
};

impl Resources {
    /// These limits with the changes of `given`. Device rules are not a matter of changes: the running monitor has its
    /// devices.
    #[must_use]
    pub fn updated(&self, given: &Self) -> Self {
        let (old, new) = (self, given);
        // Without a limit on memory there is none on memory and swap together, as runc has it.
        let unlimited = new.memory.limit == Some(Limit::Unlimited) && old.memory.swap.is_some();
        let swap = new.memory.swap.or(unlimited.then_some(Limit::Unlimited));
        Self {
            memory: MemoryLimits {
                limit: new.memory.limit.or(old.memory.limit),
                reservation: new.memory.reservation.or(old.memory.reservation),
                swap: swap.or(old.memory.swap),
                kernel_tcp: new.memory.kernel_tcp.or(old.memory.kernel_tcp),
                swappiness: new.memory.swappiness.or(old.memory.swappiness),
                disable_oom_killer: new.memory.disable_oom_killer || old.memory.disable_oom_killer,
            },
            cpu: CpuLimits {
                shares: new.cpu.shares.or(old.cpu.shares),
                quota: new.cpu.quota.or(old.cpu.quota),
                burst: new.cpu.burst.or(old.cpu.burst),
                period: new.cpu.period.or(old.cpu.period),
                realtime_runtime: new.cpu.realtime_runtime.or(old.cpu.realtime_runtime),
                realtime_period: new.cpu.realtime_period.or(old.cpu.realtime_period),
                cpus: new.cpu.cpus.clone().or_else(|| old.cpu.cpus.clone()),
                mems: new.cpu.mems.clone().or_else(|| old.cpu.mems.clone()),
                idle: new.cpu.idle.or(old.cpu.idle),
            },
            pids: new.pids.or(old.pids),
            block: BlockLimits {
                weight: new.block.weight.or(old.block.weight),
                leaf_weight: new.block.leaf_weight.or(old.block.leaf_weight),
                devices: weights(&old.block.devices, &new.block.devices),
                read_bps: throttles(&old.block.read_bps, &new.block.read_bps),
                write_bps: throttles(&old.block.write_bps, &new.block.write_bps),
                read_iops: throttles(&old.block.read_iops, &new.block.read_iops),
                write_iops: throttles(&old.block.write_iops, &new.block.write_iops),
            },
            hugepages: old.hugepages.clone().into_iter().chain(new.hugepages.clone()).collect(),
            devices: old.devices.clone(),
            network: NetworkLimits {
                class_id: new.network.class_id.or(old.network.class_id),
                priorities: old
                    .network
                    .priorities
                    .clone()
                    .into_iter()
                    .chain(new.network.priorities.clone())
                    .collect(),
            },
            rdma: old.rdma.clone().into_iter().chain(new.rdma.clone()).collect(),
            unified: old.unified.clone().into_iter().chain(new.unified.clone()).collect(),
        }
    }

    /// What must be written when these limits become `updated` by `given`: the changes, and what the kernel or the
    /// other version's arithmetic takes together with them.
    #[must_use]
    pub fn to_write(given: &Self, updated: &Self) -> Self {
        let mut write = Self { devices: Vec::new(), ..given.clone() };
        if given.memory != MemoryLimits::default() {
            write.memory = updated.memory;
        }
        if given.cpu.quota.is_some() || given.cpu.period.is_some() {
            (write.cpu.quota, write.cpu.period) = (updated.cpu.quota, updated.cpu.period);
        }
        if given.cpu.shares.is_some() {
            // Whether a weight counts depends on it.
            write.cpu.idle = updated.cpu.idle;
        }
        write
    }
}

fn throttles(old: &[Throttle], new: &[Throttle]) -> Vec<Throttle> {
    let kept = old.iter().filter(|it| new.iter().all(|other| other.device != it.device));
    kept.chain(new).copied().collect()
}

fn weights(old: &[WeightDevice], new: &[WeightDevice]) -> Vec<WeightDevice> {
    let kept = old.iter().filter(|it| new.iter().all(|other| other.device != it.device));
    kept.chain(new).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::super::resources::{DeviceNumber, DeviceRule, NodeKind, Permission};
    use super::*;

    fn rule() -> DeviceRule {
        DeviceRule {
            permission: Permission::Deny,
            kind: NodeKind::Any,
            major: None,
            minor: None,
            access: "rwm".into(),
        }
    }

    #[test]
    fn what_is_not_given_stays() {
        let device = DeviceNumber { major: 8, minor: 0 };
        let old = Resources {
            memory: MemoryLimits {
                limit: Some(Limit::At(5)),
                swap: Some(Limit::At(9)),
                ..MemoryLimits::default()
            },
            cpu: CpuLimits {
                quota: Some(Limit::At(1)),
                period: Some(2),
                shares: Some(3),
                ..CpuLimits::default()
            },
            block: BlockLimits { read_bps: vec![Throttle { device, rate: 1 }], ..BlockLimits::default() },
            devices: vec![rule()],
            ..Resources::default()
        };
        let given = Resources {
            memory: MemoryLimits { limit: Some(Limit::At(7)), ..MemoryLimits::default() },
            cpu: CpuLimits { period: Some(20), ..CpuLimits::default() },
            block: BlockLimits { read_bps: vec![Throttle { device, rate: 4 }], ..BlockLimits::default() },
            devices: vec![rule(), rule()],
            ..Resources::default()
        };
        let updated = old.updated(&given);
        assert_eq!((updated.memory.limit, updated.memory.swap), (Some(Limit::At(7)), Some(Limit::At(9))));
        assert_eq!((updated.cpu.period, updated.cpu.shares), (Some(20), Some(3)));
        assert_eq!(updated.block.read_bps, [Throttle { device, rate: 4 }]);
        assert_eq!(updated.devices, old.devices);
        let write = Resources::to_write(&given, &updated);
        let unlimited = Resources {
            memory: MemoryLimits { limit: Some(Limit::Unlimited), ..MemoryLimits::default() },
            ..Resources::default()
        };
        assert_eq!(old.updated(&unlimited).memory.swap, Some(Limit::Unlimited));
        // Swap is counted with memory, a quota in periods; device rules are never rewritten under a running monitor.
        assert_eq!(write.memory.swap, Some(Limit::At(9)));
        assert_eq!((write.cpu.quota, write.cpu.shares), (Some(Limit::At(1)), None));
        assert!(write.devices.is_empty());
    }

    #[test]
    fn no_change_writes_nothing() {
        let old = Resources { pids: Some(Limit::At(3)), ..Resources::default() };
        let updated = old.updated(&Resources::default());
        assert_eq!(updated, old);
        assert!(Resources::to_write(&Resources::default(), &updated).is_empty());
    }
}
