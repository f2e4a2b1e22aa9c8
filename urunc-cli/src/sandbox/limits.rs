//! The limits of the container's process itself, set by create from outside while init waits: what create may not raise
//! is create's plain error.

use std::fs;
use std::io;

use rustix::process::{Pid, prlimit};
use urunc_state::Process;

use crate::bundle::Rlimit;

/// Why a limit was not set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessLimitError {
    /// A resource limit.
    #[error(
        "cannot set process.rlimits {name} to {soft}:{hard}; raising a hard limit needs CAP_SYS_RESOURCE, which this host \
         may not give"
    )]
    Rlimit {
        /// Its name.
        name: &'static str,
        /// What is enforced.
        soft: u64,
        /// How far the process may raise it.
        hard: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The adjustment for when memory runs out.
    #[error(
        "cannot set process.oomScoreAdj to {value}; lowering it needs CAP_SYS_RESOURCE, which this host may not give"
    )]
    OomScore {
        /// Its value.
        value: i32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Sets the limits of `process`, which must be a child that has not been waited for.
///
/// # Errors
/// [`ProcessLimitError`]
pub fn apply(
    process: &Process,
    rlimits: &[Rlimit],
    oom_score_adj: Option<i32>,
) -> Result<(), ProcessLimitError> {
    let number = process.pid().get();
    for Rlimit { resource, name, soft, hard } in rlimits {
        let finite = |limit: u64| (limit != u64::MAX).then_some(limit);
        let limit = rustix::process::Rlimit { current: finite(*soft), maximum: finite(*hard) };
        prlimit(Pid::from_raw(number), *resource, limit).map_err(|errno| ProcessLimitError::Rlimit {
            name,
            soft: *soft,
            hard: *hard,
            source: errno.into(),
        })?;
    }
    if let Some(value) = oom_score_adj {
        fs::write(format!("/proc/{number}/oom_score_adj"), value.to_string())
            .map_err(|source| ProcessLimitError::OomScore { value, source })?;
    }
    Ok(())
}
