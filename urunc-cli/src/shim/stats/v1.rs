//! Counters of cgroup v1 hierarchies.

use std::path::Path;

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, MemoryEntry, MemoryOomControl, MemoryStat, Metrics,
    NetworkStat, PidsStat, Throttle,
};
use containerd_shim_protos::protobuf::MessageField;

use super::cgroup::{Membership, device, number, rows, table};
use super::net;

/// `cpuacct.stat` counts in this many parts of a second, on every architecture (`USER_HZ`).
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

pub(super) fn read(membership: &Membership, pid: u32) -> Metrics {
    let mut metrics = Metrics::new();
    if let Some(directory) = membership.controller("pids") {
        metrics.pids = MessageField::some(PidsStat {
            current: number(&directory, "pids.current"),
            // Zero is "no limit" in this message.
            limit: Some(number(&directory, "pids.max")).filter(|max| *max != u64::MAX).unwrap_or(0),
            ..PidsStat::default()
        });
    }
    metrics.cpu = MessageField::some(cpu(membership));
    if let Some(directory) = membership.controller("memory") {
        metrics.memory = MessageField::some(memory(&directory));
        let oom = table(&directory, "memory.oom_control");
        metrics.memory_oom_control = MessageField::some(MemoryOomControl {
            oom_kill_disable: oom("oom_kill_disable"),
            under_oom: oom("under_oom"),
            oom_kill: oom("oom_kill"),
            ..MemoryOomControl::default()
        });
    }
    if let Some(directory) = membership.controller("blkio") {
        metrics.blkio = MessageField::some(BlkIOStat {
            io_service_bytes_recursive: blkio(&directory, "blkio.throttle.io_service_bytes_recursive"),
            io_serviced_recursive: blkio(&directory, "blkio.throttle.io_serviced_recursive"),
            ..BlkIOStat::default()
        });
    }
    metrics.network = net::interfaces(pid).into_iter().map(network).collect();
    metrics
}

fn cpu(membership: &Membership) -> CPUStat {
    let mut stat = CPUStat::new();
    if let Some(directory) = membership.controller("cpuacct") {
        let ticks = table(&directory, "cpuacct.stat");
        let per_cpu = rows(&directory, "cpuacct.usage_percpu").into_iter().flatten();
        stat.usage = MessageField::some(CPUUsage {
            total: number(&directory, "cpuacct.usage"),
            user: ticks("user") * NANOSECONDS_PER_TICK,
            kernel: ticks("system") * NANOSECONDS_PER_TICK,
            per_cpu: per_cpu.filter_map(|value| value.parse().ok()).collect(),
            ..CPUUsage::default()
        });
    }
    if let Some(directory) = membership.controller("cpu") {
        let throttled = table(&directory, "cpu.stat");
        stat.throttling = MessageField::some(Throttle {
            periods: throttled("nr_periods"),
            throttled_periods: throttled("nr_throttled"),
            throttled_time: throttled("throttled_time"),
            ..Throttle::default()
        });
    }
    stat
}

fn memory(directory: &Path) -> MemoryStat {
    let stat = table(directory, "memory.stat");
    let entry = |prefix: &str| {
        MessageField::some(MemoryEntry {
            usage: number(directory, &format!("{prefix}usage_in_bytes")),
            limit: number(directory, &format!("{prefix}limit_in_bytes")),
            max: number(directory, &format!("{prefix}max_usage_in_bytes")),
            failcnt: number(directory, &format!("{prefix}failcnt")),
            ..MemoryEntry::default()
        })
    };
    MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: entry("memory."),
        swap: entry("memory.memsw."),
        kernel: entry("memory.kmem."),
        kernel_tcp: entry("memory.kmem.tcp."),
        ..MemoryStat::default()
    }
}

/// Lines `major:minor operation value`.
fn blkio(directory: &Path, file: &str) -> Vec<BlkIOEntry> {
    let entry = |row: Vec<String>| {
        let [numbers, operation, value] = row.as_slice() else { return None };
        let (major, minor) = device(numbers)?;
        Some(BlkIOEntry {
            op: operation.clone(),
            major,
            minor,
            value: value.parse().ok()?,
            ..BlkIOEntry::default()
        })
    };
    rows(directory, file).into_iter().filter_map(entry).collect()
}

fn network(interface: net::Interface) -> NetworkStat {
    let (received, sent) = (interface.received, interface.sent);
    NetworkStat {
        name: interface.name,
        rx_bytes: received.bytes,
        rx_packets: received.packets,
        rx_errors: received.errors,
        rx_dropped: received.dropped,
        tx_bytes: sent.bytes,
        tx_packets: sent.packets,
        tx_errors: sent.errors,
        tx_dropped: sent.dropped,
        ..NetworkStat::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_are_counted_by_operation() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("io"), "8:0 Read 10\n8:0 Write 20\nTotal 30\n").unwrap();
        let entries = blkio(dir.path(), "io");
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[1].major, entries[1].op.as_str(), entries[1].value), (8, "Write", 20));
    }
}
