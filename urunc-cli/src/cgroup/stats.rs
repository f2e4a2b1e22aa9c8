//! What a container uses, in the JSON shape of `runc events --stats`.
//!
//! Reading and shaping are apart: the numbers come from the files of either version, and what a version does not have is
//! zero or absent, as runc's readers expect.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::plan::Directory;

/// Why usage cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// There is no group.
    #[error("the container has no cgroup any more, so nothing is known about its usage")]
    Gone,
}

/// All counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Placement.
    pub cpuset: Cpuset,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices.
    pub blkio: BlockIo,
    /// Huge pages; not counted.
    pub hugetlb: BTreeMap<String, u64>,
    /// Intel RDT; not supported.
    pub intel_rdt: BTreeMap<String, u64>,
    /// Network interfaces; the host's tools show them.
    pub network_interfaces: Option<()>,
}

/// Processor time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Used.
    pub usage: CpuUsage,
    /// Held back.
    pub throttling: Throttling,
}

/// Used processor time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// All.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// By processor (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// By processor, in the kernel (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// By processor, outside of it (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel; a guest's is in `user`.
    pub kernel: u64,
    /// Outside of it.
    pub user: u64,
}

/// How often the quota held the group back.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Those in which the quota was used up.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Nanoseconds that were waited.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Where the group may run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpuset {
    /// Processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// v1's other settings, under the kernel's names for them; 0 on v2.
    #[serde(flatten)]
    pub settings: CpusetSettings,
}

/// Settings of a v1 cpuset.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpusetSettings {
    pub cpu_exclusive: u64,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory alone.
    pub usage: MemoryUsage,
    /// Memory and swap.
    pub swap: MemoryUsage,
    /// The kernel's own (v1).
    pub kernel: MemoryUsage,
    /// TCP buffers (v1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryUsage,
    /// The kernel's file of single counters.
    pub raw: BTreeMap<String, u64>,
}

/// A counter with its limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryUsage {
    /// The limit; the largest number if there is none.
    pub limit: u64,
    /// Used now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Used at most.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Number of tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// At most; absent without a limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Transfers by device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockIo {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockEntry>,
}

/// One counter of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlockEntry {
    /// Its driver.
    pub major: u64,
    /// Which one.
    pub minor: u64,
    /// `Read` or `Write`.
    pub op: String,
    /// The number.
    pub value: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Reads the counters of a container's groups.
///
/// # Errors
/// [`StatsError::Gone`]
pub fn read(places: &[Directory]) -> Result<Stats, StatsError> {
    let present: Vec<&Directory> = places.iter().filter(|place| place.path.exists()).collect();
    if present.is_empty() {
        return Err(StatsError::Gone);
    }
    let mut stats = Stats::default();
    for place in present {
        let files = Files(&place.path);
        match &place.v1 {
            None => unified(&mut stats, &files),
            Some(controllers) => {
                for controller in controllers {
                    legacy(&mut stats, controller, &files);
                }
            }
        }
    }
    Ok(stats)
}

/// The files of one directory. What is not there, or not a number, counts as absent.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<u64> {
        number(&self.text(name))
    }

    fn pairs(&self, name: &str) -> BTreeMap<String, u64> {
        pairs(&self.text(name))
    }
}

fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// Lines of a word and a number.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// `0-2,5` as 0, 1, 2, 5.
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse().ok()?..=to.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn unified(stats: &mut Stats, files: &Files<'_>) {
    let cpu = files.pairs("cpu.stat");
    let microseconds = |key: &str| cpu.get(key).map(|n| n.saturating_mul(1000));
    let count = |key: &str| cpu.get(key).copied();
    // In a hybrid set-up this is the only file with numbers; v1's are better there.
    let set = |place: &mut u64, value: Option<u64>| *place = (*place).max(value.unwrap_or(0));
    set(&mut stats.cpu.usage.total, microseconds("usage_usec"));
    set(&mut stats.cpu.usage.user, microseconds("user_usec"));
    set(&mut stats.cpu.usage.kernel, microseconds("system_usec"));
    set(&mut stats.cpu.throttling.periods, count("nr_periods"));
    set(&mut stats.cpu.throttling.throttled_periods, count("nr_throttled"));
    set(&mut stats.cpu.throttling.throttled_time, microseconds("throttled_usec"));
    if let Some(usage) = files.number("memory.current") {
        let raw = files.pairs("memory.stat");
        let events = files.pairs("memory.events");
        let limit = files.number("memory.max").unwrap_or(u64::MAX);
        stats.memory.cache = raw.get("file").copied().unwrap_or(0);
        stats.memory.usage = MemoryUsage {
            limit,
            usage,
            max: files.number("memory.peak").unwrap_or(0),
            failcnt: events.get("max").copied().unwrap_or(0),
        };
        stats.memory.swap = MemoryUsage {
            limit: files.number("memory.swap.max").unwrap_or(u64::MAX).saturating_add(limit),
            usage: files.number("memory.swap.current").unwrap_or(0).saturating_add(usage),
            ..MemoryUsage::default()
        };
        stats.memory.raw = raw;
    }
    pids(stats, files);
    cpuset(stats, files, "cpuset.cpus.effective", "cpuset.mems.effective");
    for line in files.text("io.stat").lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(device) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            let entry = |op: &str| BlockEntry { major: device.0, minor: device.1, op: op.to_owned(), value };
            match key {
                "rbytes" => stats.blkio.io_service_bytes_recursive.push(entry("Read")),
                "wbytes" => stats.blkio.io_service_bytes_recursive.push(entry("Write")),
                "rios" => stats.blkio.io_serviced_recursive.push(entry("Read")),
                "wios" => stats.blkio.io_serviced_recursive.push(entry("Write")),
                _ => {}
            }
        }
    }
}

fn legacy(stats: &mut Stats, controller: &str, files: &Files<'_>) {
    match controller {
        "cpuacct" => {
            /// `USER_HZ`, in which `cpuacct.stat` counts, is 100 on every architecture that we run on.
            const NANOSECONDS_PER_TICK: u64 = 10_000_000;
            let ticks = files.pairs("cpuacct.stat");
            let time = |key: &str| ticks.get(key).map_or(0, |n| n.saturating_mul(NANOSECONDS_PER_TICK));
            stats.cpu.usage.total = files.number("cpuacct.usage").unwrap_or(0);
            stats.cpu.usage.user = time("user");
            stats.cpu.usage.kernel = time("system");
            let text = files.text("cpuacct.usage_percpu");
            stats.cpu.usage.percpu = text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
            // `cpu user system` and a line for each.
            for line in files.text("cpuacct.usage_all").lines().skip(1) {
                let mut columns = line.split_ascii_whitespace().skip(1).map(|n| n.parse().unwrap_or(0));
                stats.cpu.usage.percpu_user.push(columns.next().unwrap_or(0));
                stats.cpu.usage.percpu_kernel.push(columns.next().unwrap_or(0));
            }
        }
        "cpu" => {
            let stat = files.pairs("cpu.stat");
            let count = |key: &str| stat.get(key).copied().unwrap_or(0);
            stats.cpu.throttling = Throttling {
                periods: count("nr_periods"),
                throttled_periods: count("nr_throttled"),
                throttled_time: count("throttled_time"),
            };
        }
        "memory" => {
            let usage = |prefix: &str| MemoryUsage {
                limit: files.number(&format!("{prefix}limit_in_bytes")).unwrap_or(0),
                usage: files.number(&format!("{prefix}usage_in_bytes")).unwrap_or(0),
                max: files.number(&format!("{prefix}max_usage_in_bytes")).unwrap_or(0),
                failcnt: files.number(&format!("{prefix}failcnt")).unwrap_or(0),
            };
            stats.memory.usage = usage("memory.");
            stats.memory.swap = usage("memory.memsw.");
            stats.memory.kernel = usage("memory.kmem.");
            stats.memory.kernel_tcp = usage("memory.kmem.tcp.");
            stats.memory.raw = files.pairs("memory.stat");
            stats.memory.cache = stats.memory.raw.get("cache").copied().unwrap_or(0);
        }
        "pids" => pids(stats, files),
        "cpuset" => {
            cpuset(stats, files, "cpuset.cpus", "cpuset.mems");
            let setting = |name: &str| files.number(&format!("cpuset.{name}")).unwrap_or(0);
            let level = files.text("cpuset.sched_relax_domain_level");
            stats.cpuset.settings = CpusetSettings {
                cpu_exclusive: setting("cpu_exclusive"),
                mem_hardwall: setting("mem_hardwall"),
                mem_exclusive: setting("mem_exclusive"),
                memory_migrate: setting("memory_migrate"),
                memory_spread_page: setting("memory_spread_page"),
                memory_spread_slab: setting("memory_spread_slab"),
                memory_pressure: setting("memory_pressure"),
                sched_load_balance: setting("sched_load_balance"),
                sched_relax_domain_level: level.trim().parse().unwrap_or(0),
            };
        }
        "blkio" => {
            let entries = |name: &str| files.text(name).lines().filter_map(block_line).collect();
            stats.blkio.io_service_bytes_recursive = entries("blkio.throttle.io_service_bytes_recursive");
            stats.blkio.io_serviced_recursive = entries("blkio.throttle.io_serviced_recursive");
        }
        _ => {}
    }
}

fn pids(stats: &mut Stats, files: &Files<'_>) {
    if let Some(current) = files.number("pids.current") {
        let limit = files.number("pids.max").filter(|limit| *limit != u64::MAX).unwrap_or(0);
        stats.pids = Pids { current, limit };
    }
}

fn cpuset(stats: &mut Stats, files: &Files<'_>, cpus: &str, mems: &str) {
    let (cpus, mems) = (list(&files.text(cpus)), list(&files.text(mems)));
    if !cpus.is_empty() {
        (stats.cpuset.cpus, stats.cpuset.mems) = (cpus, mems);
    }
}

/// `8:0 Read 4096`
fn block_line(line: &str) -> Option<BlockEntry> {
    let mut words = line.split_ascii_whitespace();
    let (major, minor) = device(words.next()?)?;
    Some(BlockEntry { major, minor, op: words.next()?.to_owned(), value: words.next()?.parse().ok()? })
}

fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &Path, v1: Option<&[&str]>) -> Directory {
        let v1 = v1.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        Directory { path: path.to_owned(), mount: path.to_owned(), v1 }
    }

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn v2_counters_have_runcs_shape() {
        let dir = directory(&[
            (
                "cpu.stat",
                "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 0\nthrottled_usec 0\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1024\nfile 2048\n"),
            ("memory.events", "low 0\nhigh 0\nmax 7\noom 0\noom_kill 0\n"),
            ("pids.current", "3\n"),
            ("pids.max", "10\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ("cpuset.cpus.effective", "0-1,3\n"),
            ("cpuset.mems.effective", "0\n"),
        ]);
        let stats = read(&[place(dir.path(), None)]).unwrap();
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(json["cpu"]["usage"]["total"], 5000);
        assert_eq!(
            json["memory"]["usage"],
            serde_json::json!({"limit": u64::MAX, "usage": 4096, "failcnt": 7})
        );
        assert_eq!(json["memory"]["cache"], 2048);
        assert_eq!(json["pids"], serde_json::json!({"current": 3, "limit": 10}));
        assert_eq!(json["cpuset"]["cpus"], serde_json::json!([0, 1, 3]));
        assert_eq!(
            stats.blkio.io_serviced_recursive[1],
            BlockEntry { major: 8, minor: 0, op: "Write".into(), value: 4 }
        );
    }

    #[test]
    fn v1_counters_have_the_same_shape() {
        let dir = directory(&[
            ("cpuacct.usage", "9\n"),
            ("cpuacct.usage_percpu", "4 5 \n"),
            ("cpuacct.stat", "user 1\nsystem 2\n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.limit_in_bytes", "8192\n"),
            ("memory.failcnt", "1\n"),
            ("memory.stat", "cache 10\nrss 20\n"),
            ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
        ]);
        let stats = read(&[place(dir.path(), Some(&["cpuacct", "memory", "blkio"]))]).unwrap();
        assert_eq!((stats.cpu.usage.total, stats.cpu.usage.user), (9, 10_000_000));
        assert_eq!(stats.cpu.usage.percpu, [4, 5]);
        assert_eq!((stats.memory.usage.limit, stats.memory.usage.failcnt, stats.memory.cache), (8192, 1, 10));
        assert_eq!(stats.blkio.io_service_bytes_recursive.len(), 2);
    }

    #[test]
    fn without_a_group_there_is_nothing_to_tell() {
        assert!(matches!(read(&[place(Path::new("/nonexistent"), None)]), Err(StatsError::Gone)));
    }
}
