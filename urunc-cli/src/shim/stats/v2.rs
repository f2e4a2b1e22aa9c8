//! Counters of the cgroup v2 hierarchy.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, NetworkStat, PidsStat,
};
use containerd_shim_protos::protobuf::MessageField;

use super::cgroup::{device, number, rows, table};
use super::net;

pub(super) fn read(directory: &Path, pid: u32) -> Metrics {
    Metrics {
        pids: MessageField::some(PidsStat {
            current: number(directory, "pids.current"),
            limit: number(directory, "pids.max"),
            ..PidsStat::default()
        }),
        cpu: MessageField::some(cpu(directory)),
        memory: MessageField::some(memory(directory)),
        memory_events: MessageField::some(memory_events(directory)),
        io: MessageField::some(IOStat { usage: io(directory), ..IOStat::default() }),
        network: net::interfaces(pid).into_iter().map(network).collect(),
        ..Metrics::default()
    }
}

fn cpu(directory: &Path) -> CPUStat {
    let stat = table(directory, "cpu.stat");
    CPUStat {
        usage_usec: stat("usage_usec"),
        user_usec: stat("user_usec"),
        system_usec: stat("system_usec"),
        nr_periods: stat("nr_periods"),
        nr_throttled: stat("nr_throttled"),
        throttled_usec: stat("throttled_usec"),
        nr_bursts: stat("nr_bursts"),
        burst_usec: stat("burst_usec"),
        ..CPUStat::default()
    }
}

fn memory(directory: &Path) -> MemoryStat {
    let stat = table(directory, "memory.stat");
    MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        usage: number(directory, "memory.current"),
        usage_limit: number(directory, "memory.max"),
        max_usage: number(directory, "memory.peak"),
        swap_usage: number(directory, "memory.swap.current"),
        swap_limit: number(directory, "memory.swap.max"),
        ..MemoryStat::default()
    }
}

fn memory_events(directory: &Path) -> MemoryEvents {
    let events = table(directory, "memory.events");
    MemoryEvents {
        low: events("low"),
        high: events("high"),
        max: events("max"),
        oom: events("oom"),
        oom_kill: events("oom_kill"),
        oom_group_kill: events("oom_group_kill"),
        ..MemoryEvents::default()
    }
}

/// Lines `major:minor rbytes=… wbytes=… rios=… wios=… …`.
fn io(directory: &Path) -> Vec<IOEntry> {
    let entry = |row: Vec<String>| {
        let (major, minor) = device(row.first()?)?;
        let value = |name: &str| {
            let value = row.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
            value.unwrap_or(0)
        };
        Some(IOEntry {
            major,
            minor,
            rbytes: value("rbytes"),
            wbytes: value("wbytes"),
            rios: value("rios"),
            wios: value("wios"),
            ..IOEntry::default()
        })
    };
    rows(directory, "io.stat").into_iter().filter_map(entry).collect()
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
    fn a_directory_becomes_a_message() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("memory.current", "4096\n");
        write("memory.max", "max\n");
        write("memory.events", "low 0\noom_kill 2\n");
        write("cpu.stat", "usage_usec 9\nuser_usec 5\n");
        write("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n");
        let metrics = read(dir.path(), std::process::id());
        assert_eq!((metrics.memory.usage, metrics.memory.usage_limit), (4096, u64::MAX));
        assert_eq!(metrics.memory_events.oom_kill, 2);
        assert_eq!((metrics.cpu.usage_usec, metrics.cpu.user_usec), (9, 5));
        assert_eq!((metrics.io.usage[0].minor, metrics.io.usage[0].wios), (0, 4));
    }
}
