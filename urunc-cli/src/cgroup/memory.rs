//! How a memory limit is shared between the guest and its monitor.
//!
//! A container's limit is meant for what runs in it, but the control group counts the monitor too. `on-top`: the guest
//! gets the whole limit, and the group so much more as the monitor needs (`urunc_vmm::Monitor::overhead`, measured there). `inside`: the group gets the limit, and the
//! guest what the monitor leaves of it. `auto`: on top if the groups above leave room, else inside.

use std::path::Path;

use serde::{Deserialize, Serialize};
use urunc_vmm::Monitor;

use super::plan::Directory;
use super::resources::{Limit, MemoryLimits, Resources};
use crate::procfs;

const MIB: u64 = 1 << 20;

/// Who pays for the monitor's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accounting {
    /// `OnTop` where the groups above leave room, else `Inside`.
    #[default]
    Auto,
    /// The host: the group's limit is higher than the container's.
    OnTop,
    /// The container: the guest gets less than the limit.
    Inside,
}

/// How much memory the guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestMemory {
    /// What the configuration says: the container has no limit.
    Default,
    /// So many bytes.
    Bytes(u64),
}

/// Why the limit cannot be shared.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The limit does not even hold the monitor.
    #[error(
        "linux.resources.memory.limit is {limit} bytes, of which {monitor} itself needs {overhead}, so that less than \
         1 MiB would be left for the guest; raise the limit"
    )]
    TooLittle {
        /// The limit.
        limit: u64,
        /// The monitor.
        monitor: Monitor,
        /// What it needs.
        overhead: u64,
    },
    /// The groups above hold less than is needed.
    #[error(
        "linux.resources.memory.limit is {limit} bytes, to which {overhead} are added for {monitor}, but a cgroup above \
         allows only {room}; lower the limit, raise the one above, or set runtime.memory = \"inside\" in the configuration"
    )]
    NoRoom {
        /// The limit.
        limit: u64,
        /// The monitor.
        monitor: Monitor,
        /// What it needs.
        overhead: u64,
        /// The lowest limit above.
        room: u64,
    },
}

/// How a limit is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The guest's part.
    pub guest: GuestMemory,
    /// By how much every limit of the group is higher than the specification's.
    pub on_top: u64,
    /// By how much the guest's part is smaller than the limit.
    pub inside: u64,
}

impl MemoryPlan {
    /// Decides. `limit` is the container's, `overhead` what `monitor` itself needs for a guest with all of it, `room` the
    /// lowest limit of the groups above.
    ///
    /// # Errors
    /// [`MemoryError`]
    pub fn new(
        limit: Option<u64>,
        accounting: Accounting,
        monitor: Monitor,
        overhead: u64,
        room: Option<u64>,
    ) -> Result<Self, MemoryError> {
        let Some(limit) = limit else {
            return Ok(Self { guest: GuestMemory::Default, on_top: 0, inside: 0 });
        };
        let fits = room.is_none_or(|room| limit.saturating_add(overhead) <= room);
        let on_top = Ok(Self { guest: GuestMemory::Bytes(limit), on_top: overhead, inside: 0 });
        match (accounting, room) {
            (Accounting::OnTop | Accounting::Auto, _) if fits => on_top,
            (Accounting::OnTop, Some(room)) => Err(MemoryError::NoRoom { limit, monitor, overhead, room }),
            _ => match limit.checked_sub(overhead).filter(|guest| *guest >= MIB) {
                Some(guest) => Ok(Self { guest: GuestMemory::Bytes(guest), on_top: 0, inside: overhead }),
                None => Err(MemoryError::TooLittle { limit, monitor, overhead }),
            },
        }
    }

    /// `resources` with every amount of memory raised by what comes on top.
    #[must_use]
    pub fn raise(&self, resources: &Resources) -> Resources {
        let mut raised = resources.clone();
        if self.on_top == 0 {
            return raised;
        }
        let raise = |limit: Option<Limit>| limit.map(|limit| limit.raised(self.on_top));
        let MemoryLimits { limit, reservation, swap, .. } = resources.memory;
        raised.memory.limit = raise(limit);
        raised.memory.reservation = raise(reservation);
        // Swap counts memory too, so it rises with it and the room for swap stays.
        raised.memory.swap = raise(swap);
        for file in ["memory.max", "memory.high", "memory.low", "memory.min"] {
            if let Some(value) = raised.unified.get_mut(file)
                && let Ok(bytes) = value.parse::<u64>()
            {
                *value = bytes.saturating_add(self.on_top).to_string();
            }
        }
        raised
    }
}

/// The lowest memory limit of the groups above `places`, if there is any.
#[must_use]
pub fn room(places: &[Directory]) -> Option<u64> {
    let of_place = |place: &Directory| {
        let file = if place.has("memory") { "memory.limit_in_bytes" } else { "memory.max" };
        let above = place.path.ancestors().skip(1).take_while(|path| path.starts_with(&place.mount));
        above.filter_map(|path| limit_in(&path.join(file))).min()
    };
    places.iter().filter(|place| place.v1.is_none() || place.has("memory")).filter_map(of_place).min()
}

/// A limit file's number. Groups that do not exist yet, and the root of v2, have no such file.
fn limit_in(file: &Path) -> Option<u64> {
    /// What v1 shows without a limit: the largest multiple of any page size below 2^63 (`PAGE_COUNTER_MAX`).
    const NONE: u64 = 1 << 62;
    let text = procfs::read_to_string(file).ok()?;
    text.trim().parse().ok().filter(|bytes| *bytes < NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 256 * MIB;
    const OVERHEAD: u64 = 5 * MIB;

    fn split(accounting: Accounting, limit: u64, room: Option<u64>) -> Result<MemoryPlan, MemoryError> {
        MemoryPlan::new(Some(limit), accounting, Monitor::Solo5Spt, OVERHEAD, room)
    }

    #[test]
    fn the_monitor_is_paid_for_by_whoever_can() {
        let overhead = OVERHEAD;
        let on_top = MemoryPlan { guest: GuestMemory::Bytes(LIMIT), on_top: overhead, inside: 0 };
        let inside = MemoryPlan { guest: GuestMemory::Bytes(LIMIT - overhead), on_top: 0, inside: overhead };
        for (accounting, room, expected) in [
            (Accounting::Auto, None, Some(on_top)),
            (Accounting::Auto, Some(LIMIT + overhead), Some(on_top)),
            (Accounting::Auto, Some(LIMIT + overhead - 1), Some(inside)),
            (Accounting::Inside, None, Some(inside)),
            (Accounting::OnTop, None, Some(on_top)),
            (Accounting::OnTop, Some(LIMIT), None),
        ] {
            assert_eq!(split(accounting, LIMIT, room).ok(), expected, "{accounting:?} {room:?}");
        }
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let plan = MemoryPlan::new(None, Accounting::OnTop, Monitor::Qemu, OVERHEAD, Some(1)).unwrap();
        assert_eq!(plan, MemoryPlan { guest: GuestMemory::Default, on_top: 0, inside: 0 });
    }

    #[test]
    fn too_little_is_an_error_with_the_numbers() {
        let message = split(Accounting::Inside, 4 * MIB, None).unwrap_err().to_string();
        assert!(message.contains("4194304 bytes") && message.contains("spt"), "{message}");
        let message = split(Accounting::OnTop, LIMIT, Some(LIMIT)).unwrap_err().to_string();
        assert!(message.contains("allows only 268435456") && message.contains("inside"), "{message}");
    }

    #[test]
    fn what_comes_on_top_comes_on_everything_that_counts_memory() {
        let resources = Resources {
            memory: MemoryLimits {
                limit: Some(Limit::At(10)),
                reservation: Some(Limit::At(5)),
                swap: Some(Limit::At(20)),
                ..MemoryLimits::default()
            },
            unified: [("memory.high", "7"), ("memory.low", "max"), ("pids.max", "3")]
                .map(|(file, value)| (file.to_owned(), value.to_owned()))
                .into(),
            ..Resources::default()
        };
        let raised = MemoryPlan { guest: GuestMemory::Bytes(10), on_top: 100, inside: 0 }.raise(&resources);
        assert_eq!(raised.memory.limit, Some(Limit::At(110)));
        assert_eq!(raised.memory.reservation, Some(Limit::At(105)));
        assert_eq!(raised.memory.swap, Some(Limit::At(120)));
        assert_eq!(raised.unified.values().collect::<Vec<_>>(), ["107", "max", "3"]);
    }

    proptest! {
        /// The guest never gets more than the limit, and guest and overhead always fit the group.
        #[test]
        fn the_parts_never_exceed_the_whole(
            limit in 1..1u64 << 50,
            room in prop::option::of(1..1u64 << 50),
            which in 0..3usize,
        ) {
            let accounting = [Accounting::Auto, Accounting::OnTop, Accounting::Inside][which];
            if let Ok(MemoryPlan { guest: GuestMemory::Bytes(guest), on_top, inside }) = split(accounting, limit, room) {
                prop_assert_eq!(guest + inside, limit);
                prop_assert!(guest + OVERHEAD <= limit + on_top);
                prop_assert!(on_top == 0 || room.is_none_or(|room| limit + on_top <= room));
            }
        }
    }
}
