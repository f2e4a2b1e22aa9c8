//! A process number that can only be that of one process: greater than zero (B1).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process number > 0. By itself it cannot be signalled; see [`Process`](crate::Process).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Pid(rustix::process::Pid);

impl Pid {
    /// Checks `pid`.
    ///
    /// # Errors
    /// [`InvalidPid`] for 0 and negative numbers, which mean process groups to the kernel, and for numbers that
    /// the kernel cannot have.
    pub fn new(pid: i64) -> Result<Self, InvalidPid> {
        let number = i32::try_from(pid).ok().filter(|&number| number > 0);
        number.and_then(rustix::process::Pid::from_raw).map(Self).ok_or(InvalidPid { pid })
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// The number as rustix takes it.
    pub(crate) fn raw(self) -> rustix::process::Pid {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl TryFrom<i64> for Pid {
    type Error = InvalidPid;

    fn try_from(pid: i64) -> Result<Self, InvalidPid> {
        Self::new(pid)
    }
}

impl From<Pid> for i64 {
    fn from(pid: Pid) -> Self {
        pid.get().into()
    }
}

/// A number that is no process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{pid} is not a process id: it must be greater than 0")]
pub struct InvalidPid {
    /// The number.
    pub pid: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_zero_nor_minus_one_is_a_pid() {
        // B1: kill(-1) reached every process of the host.
        for bad in [0, -1, i64::MIN, i64::from(i32::MAX) + 1, 1 << 32, (1 << 32) + 7] {
            assert!(Pid::new(bad).is_err(), "{bad}");
            assert!(serde_json::from_str::<Pid>(&bad.to_string()).is_err(), "{bad}");
        }
        assert_eq!(Pid::new(42).unwrap().get(), 42);
        assert!(serde_json::from_str::<Pid>("1.5").is_err());
    }
}
