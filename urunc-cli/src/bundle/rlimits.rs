//! `process.rlimits` of a specification.

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rustix::process::Resource;

/// What is wrong with a limit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RlimitError {
    /// One is listed twice.
    #[error("process.rlimits lists {0} twice; list it once")]
    Twice(&'static str),
    /// The soft limit is the higher one.
    #[error("process.rlimits has {name} with the soft limit {soft} above the hard limit {hard}")]
    Order {
        /// Its name.
        name: &'static str,
        /// What is enforced.
        soft: u64,
        /// How far the process may raise it.
        hard: u64,
    },
}

/// A limit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// Its name in specifications.
    pub name: &'static str,
    /// What is enforced.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// Checks and converts.
pub(super) fn convert(list: &[PosixRlimit]) -> Result<Vec<Rlimit>, RlimitError> {
    let mut limits: Vec<Rlimit> = Vec::with_capacity(list.len());
    for entry in list {
        let (resource, name) = resource(entry.typ());
        let (soft, hard) = (entry.soft(), entry.hard());
        if limits.iter().any(|limit| limit.name == name) {
            return Err(RlimitError::Twice(name));
        }
        if soft > hard {
            return Err(RlimitError::Order { name, soft, hard });
        }
        limits.push(Rlimit { resource, name, soft, hard });
    }
    Ok(limits)
}

fn resource(kind: PosixRlimitType) -> (Resource, &'static str) {
    match kind {
        PosixRlimitType::RlimitCpu => (Resource::Cpu, "RLIMIT_CPU"),
        PosixRlimitType::RlimitFsize => (Resource::Fsize, "RLIMIT_FSIZE"),
        PosixRlimitType::RlimitData => (Resource::Data, "RLIMIT_DATA"),
        PosixRlimitType::RlimitStack => (Resource::Stack, "RLIMIT_STACK"),
        PosixRlimitType::RlimitCore => (Resource::Core, "RLIMIT_CORE"),
        PosixRlimitType::RlimitRss => (Resource::Rss, "RLIMIT_RSS"),
        PosixRlimitType::RlimitNproc => (Resource::Nproc, "RLIMIT_NPROC"),
        PosixRlimitType::RlimitNofile => (Resource::Nofile, "RLIMIT_NOFILE"),
        PosixRlimitType::RlimitMemlock => (Resource::Memlock, "RLIMIT_MEMLOCK"),
        PosixRlimitType::RlimitAs => (Resource::As, "RLIMIT_AS"),
        PosixRlimitType::RlimitLocks => (Resource::Locks, "RLIMIT_LOCKS"),
        PosixRlimitType::RlimitSigpending => (Resource::Sigpending, "RLIMIT_SIGPENDING"),
        PosixRlimitType::RlimitMsgqueue => (Resource::Msgqueue, "RLIMIT_MSGQUEUE"),
        PosixRlimitType::RlimitNice => (Resource::Nice, "RLIMIT_NICE"),
        PosixRlimitType::RlimitRtprio => (Resource::Rtprio, "RLIMIT_RTPRIO"),
        PosixRlimitType::RlimitRttime => (Resource::Rttime, "RLIMIT_RTTIME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limits(json: serde_json::Value) -> Result<Vec<Rlimit>, RlimitError> {
        convert(&serde_json::from_value::<Vec<PosixRlimit>>(json).unwrap())
    }

    #[test]
    fn limits_are_checked() {
        let one = json!({"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6});
        let expected = Rlimit { resource: Resource::Nofile, name: "RLIMIT_NOFILE", soft: 5, hard: 6 };
        assert_eq!(limits(json!([one])), Ok(vec![expected]));
        assert_eq!(limits(json!([one, one])), Err(RlimitError::Twice("RLIMIT_NOFILE")));
        let wrong = limits(json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}])).unwrap_err().to_string();
        assert!(wrong.contains("RLIMIT_CPU") && wrong.contains("2 above the hard limit 1"), "{wrong}");
    }
}
