//! `config.json` as far as it concerns a monitor: the outermost two structures, whose parts are `oci-spec`'s.
//!
//! `oci-spec` has these two as well. But to read its `Process` is to link the regular expressions by which it checks
//! `execCPUAffinity`, which has no meaning here; they are a third of the program, and their tables are relocated
//! whenever it starts (benches/README.md).

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    Box as ConsoleSize, Hooks, Linux, LinuxIOPriority, Mount, PosixRlimit, Root, Scheduler, User,
};
use serde::Deserialize;

/// The whole of it. Each part may be absent; [`ContainerSpec`](super::ContainerSpec) says what must not be.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    #[serde(default)]
    pub(super) oci_version: String,
    pub(super) root: Option<Root>,
    pub(super) mounts: Option<Vec<Mount>>,
    pub(super) process: Option<Process>,
    pub(super) hostname: Option<String>,
    pub(super) domainname: Option<String>,
    pub(super) hooks: Option<Hooks>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) linux: Option<Linux>,
}

/// `process`, without what a monitor never gets (capabilities) or always does (`noNewPrivileges`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    pub(super) terminal: Option<bool>,
    pub(super) console_size: Option<ConsoleSize>,
    pub(super) user: User,
    pub(super) args: Option<Vec<String>>,
    pub(super) env: Option<Vec<String>>,
    pub(super) cwd: PathBuf,
    pub(super) rlimits: Option<Vec<PosixRlimit>>,
    pub(super) apparmor_profile: Option<String>,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) selinux_label: Option<String>,
    pub(super) io_priority: Option<LinuxIOPriority>,
    pub(super) scheduler: Option<Scheduler>,
}
