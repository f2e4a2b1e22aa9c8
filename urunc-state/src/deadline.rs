//! A point in time at which a wait gives up. Every wait of this crate takes one; there is no unbounded wait.

use std::time::{Duration, Instant};

/// When to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `duration` from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let now = Instant::now();
        // A duration that the clock cannot add is taken for a year: a bound still, as promised.
        Self(now.checked_add(duration).unwrap_or(now + Duration::from_secs(365 * 24 * 3600)))
    }

    /// What is left until then; zero once it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_remains_of_a_deadline_that_has_passed() {
        assert_eq!(Deadline::after(Duration::ZERO).remaining(), Duration::ZERO);
    }

    #[test]
    fn an_endless_duration_is_still_bounded() {
        let left = Deadline::after(Duration::MAX).remaining();
        assert!(left > Duration::from_secs(3600) && left < Duration::from_secs(366 * 24 * 3600));
    }
}
