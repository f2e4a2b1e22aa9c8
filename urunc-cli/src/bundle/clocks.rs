//! `linux.timeOffsets`: how far the clocks of a new time namespace are from the host's (time_namespaces(7)).

use std::collections::HashMap;

use oci_spec::runtime::LinuxTimeOffset;

use super::namespaces::{NamespaceKind, Namespaces};

/// What is wrong with an offset.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockError {
    /// The kernel knows two clocks that can be moved.
    #[error("linux.timeOffsets has the clock {0:?}; known ones are monotonic and boottime")]
    Unknown(String),
    /// A second has fewer.
    #[error("linux.timeOffsets gives {clock} {nanosecs} nanosecs; use a number below 1000000000")]
    Nanoseconds {
        /// The clock.
        clock: String,
        /// The value as given.
        nanosecs: u32,
    },
    /// The clocks would be the host's, or another container's.
    #[error(
        "linux.timeOffsets needs a new time namespace; add {{\"type\": \"time\"}} without a path to linux.namespaces, or \
         remove it"
    )]
    NoNamespace,
}

/// Lines for `/proc/PID/timens_offsets`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockOffsets(String);

impl ClockOffsets {
    /// The lines; empty if no clock is moved.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether no clock is moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks and converts.
pub(super) fn convert(
    offsets: &HashMap<String, LinuxTimeOffset>,
    namespaces: &Namespaces,
) -> Result<ClockOffsets, ClockError> {
    let mut lines = Vec::new();
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(ClockError::Unknown(clock.clone()));
        }
        let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanosecs >= 1_000_000_000 {
            return Err(ClockError::Nanoseconds { clock: clock.clone(), nanosecs });
        }
        lines.push(format!("{clock} {secs} {nanosecs}\n"));
    }
    if !lines.is_empty() && !namespaces.new.contains(&NamespaceKind::Time) {
        return Err(ClockError::NoNamespace);
    }
    lines.sort();
    Ok(ClockOffsets(lines.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn offsets(namespaces: serde_json::Value, json: serde_json::Value) -> Result<ClockOffsets, ClockError> {
        let namespaces = Namespaces::new(&serde_json::from_value::<Vec<_>>(namespaces).unwrap()).unwrap();
        convert(&serde_json::from_value(json).unwrap(), &namespaces)
    }

    #[test]
    fn offsets_become_the_lines_that_the_kernel_reads() {
        let own = json!([{"type": "mount"}, {"type": "time"}]);
        let got = offsets(own, json!({"monotonic": {"secs": 5, "nanosecs": 7}, "boottime": {"secs": -3}}));
        assert_eq!(got.unwrap().as_str(), "boottime -3 0\nmonotonic 5 7\n");
    }

    #[test]
    fn offsets_without_clocks_to_move_are_refused() {
        let own = json!([{"type": "mount"}, {"type": "time"}]);
        let none = json!([{"type": "mount"}]);
        let joined = json!([{"type": "mount"}, {"type": "time", "path": "/proc/1/ns/time"}]);
        assert_eq!(offsets(none.clone(), json!({})), Ok(ClockOffsets::default()));
        for namespaces in [none, joined] {
            assert_eq!(offsets(namespaces, json!({"boottime": {}})), Err(ClockError::NoNamespace));
        }
        assert_eq!(offsets(own.clone(), json!({"tai": {}})), Err(ClockError::Unknown("tai".into())));
        let wrong = ClockError::Nanoseconds { clock: "boottime".into(), nanosecs: 1_000_000_000 };
        assert_eq!(offsets(own, json!({"boottime": {"nanosecs": 1_000_000_000}})), Err(wrong));
    }
}
