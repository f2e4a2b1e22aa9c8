//! What `create` and init, and `start` and init, say to each other.
//!
//! ```text
//!   create                init                     start
//!     │──── Proceed ───────▶│                        │
//!     │◀─── Ready/Failed ───│                        │
//!     │──── Committed ─────▶│                        │
//!                           │◀────── Execute ────────│
//!                           │─── Executing/Failed ──▶│   then end of file: the monitor has been executed
//! ```
//!
//! End of file before `Committed` means that create failed or died, and init exits. End of file after `Executing`
//! without `Failed` in between is the proof that the monitor runs: the socket is close-on-exec.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::timestamps::Stamp;

/// From create to init.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromCreate {
    /// Everything that create does to init from outside is done.
    Proceed {
        /// The container's state, for hooks.
        state: Value,
    },
    /// The container is recorded as created.
    Committed,
}

/// From init to create.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToCreate {
    /// The monitor's root stands; only the start is missing.
    Ready {
        /// When what was done.
        stamps: Vec<Stamp>,
    },
    /// Init is about to exit.
    Failed(Failure),
}

/// From start to init. The descriptors ride along in the order of `descriptors`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Execute {
    /// The monitor's binary in its root.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// The number that each descriptor must have in the monitor.
    pub descriptors: Vec<i32>,
}

/// From init to start.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToStart {
    /// The next system calls that can fail are those for seccomp filters, and `execve`.
    Executing {
        /// When what was done.
        stamps: Vec<Stamp>,
    },
    /// Init is about to exit.
    Failed(Failure),
}

/// An error that crosses a process border: its texts, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    message: String,
    cause: Option<Box<Failure>>,
}

impl Failure {
    /// The whole chain of `error`.
    #[must_use]
    pub fn new(error: &dyn Error) -> Self {
        Self { message: error.to_string(), cause: error.source().map(|cause| Box::new(Self::new(cause))) }
    }

    /// A step of init that the system refused.
    #[must_use]
    pub fn step(message: impl Into<String>, cause: &io::Error) -> Self {
        Self { message: message.into(), cause: Some(Box::new(Self::new(cause))) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_chain_across_the_border() {
        let failure = Failure::step("cannot pivot", &io::Error::from_raw_os_error(16));
        let sent: Failure = serde_json::from_str(&serde_json::to_string(&failure).unwrap()).unwrap();
        assert_eq!(sent, failure);
        assert_eq!(sent.to_string(), "cannot pivot");
        assert!(sent.source().unwrap().to_string().contains("busy"));
    }
}
