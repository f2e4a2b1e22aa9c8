//! Amounts of guest memory. Everything inside counts bytes; monitors count MiB, and the conversion happens
//! here and nowhere else. Leaves to [`crate::Monitor`] what each monitor accepts.

use std::fmt;

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory(u64);

impl Memory {
    /// Makes an amount from bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Makes an amount from MiB; more than fits in 64 bits of bytes becomes the largest amount.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib.saturating_mul(MIB))
    }

    /// Returns the amount in bytes.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// Returns the amount in whole MiB, rounded down.
    #[must_use]
    pub const fn as_mib(self) -> u64 {
        self.0 / MIB
    }
}

impl fmt::Display for Memory {
    /// Prints MiB where the amount is whole MiB, and bytes otherwise, so that no value is shown rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 != 0 && self.0.is_multiple_of(MIB) {
            write!(f, "{} MiB", self.0 / MIB)
        } else {
            write!(f, "{} bytes", self.0)
        }
    }
}

/// The amounts of guest memory that a monitor accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBounds {
    /// The smallest amount.
    pub min: Memory,
    /// The largest amount.
    pub max: Memory,
    /// Amounts are multiples of this; others are rounded down to one.
    pub step: Memory,
}

/// More or less memory was asked for than the monitor can give a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot give the guest {asked} of memory: {monitor} accepts {} to {}", bounds.min, bounds.max)]
pub struct MemoryError {
    /// What was asked for.
    pub asked: Memory,
    /// The monitor's name.
    pub monitor: &'static str,
    /// What the monitor accepts.
    pub bounds: MemoryBounds,
}

impl MemoryBounds {
    /// Rounds `asked` down to what is accepted; `None` if it is below or above the bounds.
    #[must_use]
    pub const fn fit(self, asked: Memory) -> Option<Memory> {
        if asked.0 < self.min.0 || asked.0 > self.max.0 {
            return None;
        }
        Some(Memory(asked.0 - asked.0 % self.step.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: MemoryBounds =
        MemoryBounds { min: Memory::mib(2), max: Memory::mib(4096), step: Memory::mib(2) };

    #[test]
    fn amounts_are_rounded_down_never_up() {
        for (asked, given) in [
            (Memory::mib(2), Some(2)),
            (Memory::bytes(3 * MIB + 5), Some(2)),
            (Memory::mib(256), Some(256)),
            (Memory::mib(257), Some(256)),
            (Memory::mib(4096), Some(4096)),
            (Memory::bytes(1), None),
            (Memory::bytes(2 * MIB - 1), None),
            (Memory::bytes(4096 * MIB + 1), None),
            (Memory::mib(1 << 30), None),
        ] {
            assert_eq!(BOUNDS.fit(asked), given.map(Memory::mib), "{asked}");
        }
    }

    /// Weakness 1 of the monitors reference: 256 MiB became "268".
    #[test]
    fn a_mib_is_two_to_the_twentieth_bytes() {
        assert_eq!(Memory::bytes(268_435_456).as_mib(), 256);
        assert_eq!(Memory::mib(256).to_string(), "256 MiB");
        assert_eq!(Memory::bytes(1).to_string(), "1 bytes");
    }
}
