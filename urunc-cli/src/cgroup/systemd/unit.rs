//! Which unit a container is, where in the hierarchy that unit's group is, and which of its properties limit it: decided from
//! the specification, nothing asked and nothing touched.
//!
//! kubelet and containerd write `linux.cgroupsPath` as `slice:prefix:name`, which becomes the scope `prefix-name.scope` in that slice
//! (runc's `docs/systemd.md`).

use std::path::{Path, PathBuf};

use super::dbus::{Property, Value};
use crate::cgroup::resources::{Limit, Resources};

/// Why there is no such unit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnitError {
    /// Not three parts.
    #[error(
        "linux.cgroupsPath is {0:?}; with --systemd-cgroup it must have the form slice:prefix:name, such as \
         system.slice:urunc:c1"
    )]
    Form(String),
    /// Not a slice.
    #[error(
        "linux.cgroupsPath names the slice {0:?}; a slice's name ends in .slice and has no slash, no double dash and no dash \
         at either end"
    )]
    Slice(String),
    /// Not a unit.
    #[error(
        "linux.cgroupsPath makes the unit {0:?}; a unit's name has at most 255 characters of A-Z a-z 0-9 : - _ . @ and \\"
    )]
    Name(String),
}

/// A transient unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
}

impl Unit {
    /// The unit that `linux.cgroupsPath` asks for, or one of its own for the container `id`.
    ///
    /// # Errors
    /// [`UnitError`]
    pub fn new(given: Option<&Path>, id: &str) -> Result<Self, UnitError> {
        let given = given.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let (slice, name) = if given.is_empty() {
            (String::new(), format!("urunc-{}", escape(id)))
        } else {
            let parts: Vec<&str> = given.split(':').collect();
            let [slice, prefix, name] = parts[..] else { return Err(UnitError::Form(given)) };
            if name.is_empty() {
                return Err(UnitError::Form(given));
            }
            let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
            (slice.to_owned(), name)
        };
        let slice = if slice.is_empty() { "system.slice".to_owned() } else { slice };
        let unit = Self { name: format!("{name}.scope"), slice };
        unit.ancestors().ok_or_else(|| UnitError::Slice(unit.slice.clone()))?;
        let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.@\\".contains(c);
        if unit.name.len() > 255 || !unit.name.chars().all(valid) {
            return Err(UnitError::Name(unit.name));
        }
        Ok(unit)
    }

    /// Where its group is, below systemd's own root.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.ancestors().unwrap_or_default().into_iter().collect::<PathBuf>().join(&self.name)
    }

    /// `a-b.slice` is in `a.slice` (systemd.slice(5)).
    fn ancestors(&self) -> Option<Vec<String>> {
        let name = self.slice.strip_suffix(".slice")?;
        if name == "-" {
            return Some(Vec::new());
        }
        let valid = |c: char| c.is_ascii_alphanumeric() || ":_.@\\".contains(c);
        let parts: Vec<&str> = name.split('-').collect();
        if parts.iter().any(|part| part.is_empty() || !part.chars().all(valid)) {
            return None;
        }
        Some((1..=parts.len()).filter_map(|end| Some(parts.get(..end)?.join("-") + ".slice")).collect())
    }

    /// How it is made: its own group, which is handed over to us, with `member` in it from the beginning. It is described by `mark`, so that
    /// nobody else's unit of that name is ever taken for it.
    #[must_use]
    pub fn properties(&self, mark: &str, member: u32, limits: Vec<Property>) -> Vec<Property> {
        let mut all = vec![
            ("Description", Value::Text(mark.to_owned())),
            ("Slice", Value::Text(self.slice.clone())),
            ("PIDs", Value::Numbers(vec![member])),
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            // It must not stay behind when its last process was killed.
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
            ("MemoryAccounting", Value::Flag(true)),
            ("CPUAccounting", Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
            ("IOAccounting", Value::Flag(true)),
        ];
        all.extend(limits);
        all
    }
}

/// As systemd-escape(1) does with what a unit's name cannot have.
fn escape(id: &str) -> String {
    let valid = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    id.chars()
        .map(|c| if valid(c) || c == '-' { c.to_string() } else { format!("\\x{:02x}", u32::from(c)) })
        .collect()
}

/// Limits in the words of systemd.resource-control(5): whenever systemd reloads, it writes what it knows of into the group's files again,
/// and what it has not been told, it takes back. It has no words for the others, and leaves them alone.
#[must_use]
pub fn limits(resources: &Resources, version: Version) -> Vec<Property> {
    let mut all = Vec::new();
    let memory = &resources.memory;
    let mut add = |name, value: Option<Value>| all.extend(value.map(|value| (name, value)));
    match version {
        Version::V1 => {
            add("MemoryLimit", memory.limit.map(amount));
            add("CPUShares", resources.cpu.shares.map(Value::Number));
            add("BlockIOWeight", resources.block.weight.map(|weight| Value::Number(weight.into())));
        }
        Version::V2 => {
            add("MemoryMax", memory.limit.map(amount));
            add("MemoryLow", memory.reservation.map(amount));
            let swap = match (memory.swap, memory.limit) {
                (Some(Limit::At(both)), Some(Limit::At(limit))) => {
                    Some(Limit::At(both.saturating_sub(limit)))
                }
                (Some(Limit::Unlimited), _) => Some(Limit::Unlimited),
                _ => None,
            };
            add("MemorySwapMax", swap.map(amount));
            let shares = resources.cpu.shares.filter(|_| resources.cpu.idle.unwrap_or(0) == 0);
            add("CPUWeight", shares.map(|shares| Value::Number(crate::cgroup::v2::weight_of(shares))));
            add(
                "IOWeight",
                resources.block.weight.map(|weight| Value::Number(crate::cgroup::v2::io_weight_of(weight))),
            );
            add("AllowedCPUs", resources.cpu.cpus.as_deref().and_then(set).map(Value::Bytes));
            add("AllowedMemoryNodes", resources.cpu.mems.as_deref().and_then(set).map(Value::Bytes));
        }
    }
    let cpu = &resources.cpu;
    add("CPUQuotaPeriodUSec", cpu.period.filter(|period| *period > 0).map(Value::Number));
    add("CPUQuotaPerSecUSec", cpu.quota.map(|quota| Value::Number(per_second(quota, cpu.period))));
    add("TasksMax", resources.pids.map(amount));
    if version == Version::V2 {
        // Written last, so they win.
        for property in resources.unified.iter().flat_map(|(file, value)| of_file(file, value.trim())) {
            all.retain(|(name, _)| *name != property.0);
            all.push(property);
        }
    }
    all
}

fn amount(limit: Limit) -> Value {
    match limit {
        Limit::At(amount) => Value::Number(amount),
        Limit::Unlimited => Value::Number(u64::MAX),
    }
}

/// What writing `value` to a file of cgroup v2 is in systemd's words, if it has any.
fn of_file(file: &str, value: &str) -> Vec<Property> {
    let limit = |text: &str| match text {
        "max" => Some(Limit::Unlimited),
        number => number.parse().ok().map(Limit::At),
    };
    let name = match file {
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "cpu.weight" => "CPUWeight",
        "pids.max" => "TasksMax",
        "cpuset.cpus" => {
            return set(value).map(|set| ("AllowedCPUs", Value::Bytes(set))).into_iter().collect();
        }
        "cpuset.mems" => {
            return set(value).map(|set| ("AllowedMemoryNodes", Value::Bytes(set))).into_iter().collect();
        }
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
            let period = period.trim().parse().ok().filter(|period| *period > 0);
            let quota = limit(quota).map(|quota| Value::Number(per_second(quota, period)));
            return [("CPUQuotaPeriodUSec", period.map(Value::Number)), ("CPUQuotaPerSecUSec", quota)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
        }
        _ => return Vec::new(),
    };
    limit(value).map(|limit| (name, amount(limit))).into_iter().collect()
}

/// Processors or memory nodes such as `0-3,7`, as a bit for each, the lowest first.
fn set(list: &str) -> Option<Vec<u8>> {
    /// More than any kernel has (`CONFIG_NR_CPUS`).
    const MOST: usize = 1 << 16;
    let mut bits = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        for number in first..=last.min(MOST) {
            if bits.len() <= number / 8 {
                bits.resize(number / 8 + 1, 0);
            }
            *bits.get_mut(number / 8)? |= 1 << (number % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

/// What takes `set` back: the properties as they are recorded, or else as a unit has them that was told nothing.
#[must_use]
pub fn taken_back(set: &[Property], recorded: &[Property]) -> Vec<Property> {
    let nothing = |name: &str, value: &Value| match (name, value) {
        ("MemoryLow" | "MemoryMin", _) => Value::Number(0),
        (_, Value::Bytes(_)) => Value::Bytes(Vec::new()),
        _ => Value::Number(u64::MAX),
    };
    let before =
        |wanted: &str| recorded.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone());
    set.iter().map(|(name, value)| (*name, before(name).unwrap_or_else(|| nothing(name, value)))).collect()
}

/// The version of systemd that brought a property, if it is one that a version in use may not have (systemd's NEWS).
pub(super) fn since(property: &str) -> u32 {
    match property {
        "CPUQuotaPeriodUSec" => 242,
        "AllowedCPUs" | "AllowedMemoryNodes" => 244,
        _ => 0,
    }
}

/// The number of a version such as `v245.4-4ubuntu3` or `252 (252.39-1)`; 0 if it has none.
pub(super) fn number_of(version: &str) -> u32 {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Which words systemd has for the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Hierarchies of version 1 hold the controllers.
    V1,
    /// There is only version 2.
    V2,
}

/// Microseconds of processor time a second, in the steps of 1 % that systemd counts in, rounded up so that it never has less.
fn per_second(quota: Limit, period: Option<u64>) -> u64 {
    /// The kernel's default.
    const PERIOD: u64 = 100_000;
    const STEP: u64 = 10_000;
    match quota {
        Limit::Unlimited => u64::MAX,
        Limit::At(quota) => {
            let exact =
                quota.saturating_mul(1_000_000) / period.filter(|period| *period > 0).unwrap_or(PERIOD);
            exact.checked_next_multiple_of(STEP).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::resources::{CpuLimits, MemoryLimits};
    use super::*;

    fn unit(given: &str) -> Result<Unit, UnitError> {
        Unit::new(Some(Path::new(given)), "id")
    }

    #[test]
    fn what_kubelet_writes_is_a_scope_in_its_slice() {
        for (given, path) in [
            (
                "kubepods-besteffort-pod1_2.slice:cri-containerd:c1",
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/cri-containerd-c1.scope",
            ),
            ("system.slice:docker:c1", "system.slice/docker-c1.scope"),
            (":runc:c1", "system.slice/runc-c1.scope"),
            ("machine.slice::libpod-c1", "machine.slice/libpod-c1.scope"),
            ("-.slice:a:b", "a-b.scope"),
        ] {
            assert_eq!(unit(given).unwrap().path(), Path::new(path), "{given}");
        }
        let own = Unit::new(None, "a+b").unwrap();
        assert_eq!(own.path(), Path::new("system.slice/urunc-a\\x2bb.scope"));
    }

    #[test]
    fn what_systemd_would_refuse_is_refused_with_its_name() {
        for (given, says) in [
            ("/kubepods/pod1/c1", "slice:prefix:name"),
            ("a.slice:b", "slice:prefix:name"),
            ("a.slice:b:", "slice:prefix:name"),
            ("a.slice:b:c:d", "slice:prefix:name"),
            ("a:b:c", "the slice \"a\""),
            ("a--b.slice:c:d", "a--b.slice"),
            ("-a.slice:c:d", "-a.slice"),
            ("../a.slice:c:d", "../a.slice"),
            ("a.slice:c:d/e", "c-d/e.scope"),
            ("a.slice:c:d+e", "c-d+e.scope"),
        ] {
            let message = unit(given).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn limits_are_said_in_the_words_of_each_version() {
        let resources = Resources {
            memory: MemoryLimits {
                limit: Some(Limit::At(100)),
                swap: Some(Limit::At(150)),
                reservation: Some(Limit::At(50)),
                ..MemoryLimits::default()
            },
            cpu: CpuLimits {
                shares: Some(1024),
                quota: Some(Limit::At(12_345)),
                period: Some(100_000),
                cpus: Some("0-2,9".into()),
                mems: Some("1".into()),
                ..CpuLimits::default()
            },
            pids: Some(Limit::Unlimited),
            ..Resources::default()
        };
        let number = Value::Number;
        assert_eq!(
            limits(&resources, Version::V2),
            [
                ("MemoryMax", number(100)),
                ("MemoryLow", number(50)),
                ("MemorySwapMax", number(50)),
                ("CPUWeight", number(39)),
                ("AllowedCPUs", Value::Bytes(vec![0b111, 0b10])),
                ("AllowedMemoryNodes", Value::Bytes(vec![0b10])),
                ("CPUQuotaPeriodUSec", number(100_000)),
                ("CPUQuotaPerSecUSec", number(130_000)),
                ("TasksMax", number(u64::MAX)),
            ]
        );
        assert_eq!(
            limits(&resources, Version::V1),
            [
                ("MemoryLimit", number(100)),
                ("CPUShares", number(1024)),
                ("CPUQuotaPeriodUSec", number(100_000)),
                ("CPUQuotaPerSecUSec", number(130_000)),
                ("TasksMax", number(u64::MAX)),
            ]
        );
        assert!(limits(&Resources::default(), Version::V2).is_empty());
    }

    #[test]
    fn files_of_v2_are_said_in_its_words_too_and_win() {
        let files = [
            ("memory.high", "100"),
            ("memory.max", "max"),
            ("cpu.max", "max 50000"),
            ("cpuset.cpus", "8"),
            ("pids.max", "7"),
            ("memory.oom.group", "1"),
            ("cgroup.max.depth", "5"),
        ];
        let resources = Resources {
            pids: Some(Limit::At(3)),
            unified: files.into_iter().map(|(file, value)| (file.to_owned(), value.to_owned())).collect(),
            ..Resources::default()
        };
        let number = Value::Number;
        assert_eq!(
            limits(&resources, Version::V2),
            [
                ("CPUQuotaPeriodUSec", number(50_000)),
                ("CPUQuotaPerSecUSec", number(u64::MAX)),
                ("AllowedCPUs", Value::Bytes(vec![0, 1])),
                ("MemoryHigh", number(100)),
                ("MemoryMax", number(u64::MAX)),
                ("TasksMax", number(7)),
            ]
        );
        for nonsense in ["", "x", "1-", "3-1"] {
            assert_eq!(set(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_was_set_is_taken_back_to_what_was_recorded() {
        let set = [
            ("MemoryMax", Value::Number(5)),
            ("MemoryLow", Value::Number(2)),
            ("AllowedCPUs", Value::Bytes(vec![1])),
            ("TasksMax", Value::Number(9)),
        ];
        let recorded = [("MemoryMax", Value::Number(4)), ("CPUShares", Value::Number(8))];
        assert_eq!(
            taken_back(&set, &recorded),
            [
                ("MemoryMax", Value::Number(4)),
                ("MemoryLow", Value::Number(0)),
                ("AllowedCPUs", Value::Bytes(vec![])),
                ("TasksMax", Value::Number(u64::MAX)),
            ]
        );
    }

    #[test]
    fn an_older_systemd_is_told_what_it_knows() {
        for (text, number) in [("v245.4-4ubuntu3", 245), ("239 (239-82.el8)", 239), ("252", 252), ("", 0)] {
            assert_eq!(number_of(text), number);
        }
        assert!(since("CPUQuotaPeriodUSec") > 239 && since("MemoryMax") == 0);
    }

    #[test]
    fn a_quota_is_never_rounded_down() {
        assert_eq!(per_second(Limit::At(50_000), Some(100_000)), 500_000);
        assert_eq!(per_second(Limit::At(1), Some(1_000_000)), 10_000);
        assert_eq!(per_second(Limit::At(200_000), None), 2_000_000);
        assert_eq!(per_second(Limit::Unlimited, None), u64::MAX);
    }
}
