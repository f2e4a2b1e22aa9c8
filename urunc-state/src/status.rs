//! The lifecycle of one container, as a table of legal steps. Knows no files and no processes.
//!
//! ```text
//!   creating ──created──▶ created ──started──▶ running ──exited──▶ stopped
//!       │                    │                 │    ▲                ▲  ▲
//!       │                    │            paused    resumed          │  │
//!       │                    │                 ▼    │                │  │
//!       │                    │                 paused ────exited─────┘  │
//!       └────────────────────┴───────────────────exited─────────────────┘
//! ```
//!
//! `exited` is legal everywhere, in `stopped` too: "already gone" is success (F3). What deleting means for each
//! status (destroy, kill first, refuse) is for the caller to decide.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a container is in its life (OCI runtime specification, "State"; `paused` is runc's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work, or died at it.
    Creating,
    /// The container's init waits for `start`.
    Created,
    /// The monitor has been executed.
    Running,
    /// Running, but its cgroup is frozen.
    Paused,
    /// There is no process, or none any more.
    Stopped,
}

/// What happens to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `create` has committed.
    Created,
    /// init has executed the monitor.
    Started,
    /// The cgroup was frozen.
    Paused,
    /// The cgroup was thawed.
    Resumed,
    /// The process is gone.
    Exited,
}

impl Status {
    /// Every status, in the order of a container's life.
    pub const ALL: [Self; 5] = [Self::Creating, Self::Created, Self::Running, Self::Paused, Self::Stopped];

    /// The status after `event`.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the event cannot happen in this status.
    pub fn after(self, event: Event) -> Result<Self, IllegalTransition> {
        use Event as E;
        use Status as S;
        match (self, event) {
            (S::Creating, E::Created) => Ok(S::Created),
            (S::Created, E::Started) => Ok(S::Running),
            (S::Running, E::Paused) => Ok(S::Paused),
            (S::Paused, E::Resumed) => Ok(S::Running),
            (S::Creating | S::Created | S::Running | S::Paused | S::Stopped, E::Exited) => Ok(S::Stopped),
            (S::Created | S::Running | S::Paused | S::Stopped, E::Created)
            | (S::Creating | S::Running | S::Paused | S::Stopped, E::Started)
            | (S::Creating | S::Created | S::Paused | S::Stopped, E::Paused)
            | (S::Creating | S::Created | S::Running | S::Stopped, E::Resumed) => {
                Err(IllegalTransition { status: self, event })
            }
        }
    }

    /// The word of the OCI state document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 5] = [Self::Created, Self::Started, Self::Paused, Self::Resumed, Self::Exited];

    /// The participle for messages: "cannot be …".
    fn participle(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Exited => "stopped",
        }
    }
}

/// An event that cannot happen in this status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {status} cannot be {}", event.participle())]
pub struct IllegalTransition {
    /// Where the container is.
    pub status: Status,
    /// What was to happen.
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The table of the design, row by row, kept apart from the code on purpose.
    /// B23: start on a running or stopped container must be refused by status.
    #[test]
    fn the_table_is_the_design() {
        use Status as S;
        let table: [(S, [Option<S>; 5]); 5] = [
            // status       created           started           paused           resumed           exited
            (S::Creating, [Some(S::Created), None, None, None, Some(S::Stopped)]),
            (S::Created, [None, Some(S::Running), None, None, Some(S::Stopped)]),
            (S::Running, [None, None, Some(S::Paused), None, Some(S::Stopped)]),
            (S::Paused, [None, None, None, Some(S::Running), Some(S::Stopped)]),
            (S::Stopped, [None, None, None, None, Some(S::Stopped)]),
        ];
        for (status, row) in table {
            for (event, expected) in Event::ALL.into_iter().zip(row) {
                assert_eq!(status.after(event).ok(), expected, "{status} {event:?}");
            }
        }
    }

    #[test]
    fn a_refusal_names_both_sides() {
        let refusal = Status::Running.after(Event::Started).unwrap_err();
        assert_eq!(refusal.to_string(), "a container that is running cannot be started");
    }

    #[test]
    fn the_words_are_those_of_the_oci_document() {
        for status in Status::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    proptest! {
        #[test]
        fn any_walk_ends_in_stopped_for_good_once_the_process_is_gone(
            before in prop::collection::vec(0..5_usize, 0..20),
            after in prop::collection::vec(0..5_usize, 0..20),
        ) {
            let walk = |from: Status, steps: &[usize]| {
                steps.iter().fold(from, |at, &step| at.after(Event::ALL[step]).unwrap_or(at))
            };
            let stopped = walk(Status::Creating, &before).after(Event::Exited).unwrap();
            prop_assert_eq!(stopped, Status::Stopped);
            prop_assert_eq!(walk(stopped, &after), Status::Stopped);
        }

        #[test]
        fn no_walk_runs_without_having_been_created_and_started(
            steps in prop::collection::vec(0..5_usize, 0..20),
        ) {
            let (mut at, mut seen) = (Status::Creating, vec![]);
            for step in steps {
                if let Ok(next) = at.after(Event::ALL[step]) {
                    at = next;
                    seen.push(Event::ALL[step]);
                }
            }
            if matches!(at, Status::Running | Status::Paused) {
                prop_assert_eq!(&seen[..2], &[Event::Created, Event::Started]);
            }
        }
    }
}
