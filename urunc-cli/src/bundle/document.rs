//! `config.json` as far as it concerns a monitor: the outermost two structures, whose parts are `oci-spec`'s.
//!
//! `oci-spec` has these two as well. But to read its `Process` is to link the regular expressions by which it checks
//! `execCPUAffinity`, which has no meaning here, and whose tables would be relocated whenever the program starts
//! (benches/README.md).
//!
//! Before that, an outline is read: a bundle for another runtime may have what nobody here has heard of.
//!
//! What is not in here is not looked at, let alone checked: parts for other systems, and capabilities, of which a monitor
//! gets none whatever their names.

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

/// What tells whose a bundle is. The rest may be whatever the other runtime understands.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Outline {
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) root: Option<RootOutline>,
    pub(super) process: Option<ProcessOutline>,
}

/// `root`
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RootOutline {
    pub(super) path: Option<PathBuf>,
}

/// `process`
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ProcessOutline {
    pub(super) env: Option<Vec<String>>,
}

/// `process`, without what makes no difference to a monitor.
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

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;
    use serde_json::{Value, json};

    use super::*;

    /// The names are the specification's: whatever is read here, `oci-spec` reads, too.
    #[test]
    fn fields_are_those_of_the_specification() {
        let whole = json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/proc", "type": "proc"}],
            "process": {
                "terminal": true, "consoleSize": {"height": 1, "width": 2}, "user": {"uid": 1, "gid": 2}, "args": ["a"], "env": ["A=b"],
                "cwd": "/", "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}], "apparmorProfile": "p", "oomScoreAdj": 3,
                "selinuxLabel": "l", "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 1}, "scheduler": {"policy": "SCHED_OTHER"},
            },
            "hostname": "h", "domainname": "d", "hooks": {}, "annotations": {"a": "b"}, "linux": {},
        });
        let theirs: Spec = serde_json::from_value(whole.clone()).unwrap();
        let theirs: Document = serde_json::from_value(serde_json::to_value(&theirs).unwrap()).unwrap();
        let ours: Document = serde_json::from_value(whole).unwrap();
        assert_eq!(format!("{theirs:?}"), format!("{ours:?}"));
        let Process {
            terminal,
            console_size,
            rlimits,
            apparmor_profile,
            oom_score_adj,
            selinux_label,
            io_priority,
            scheduler,
            ..
        } = ours.process.unwrap();
        let all = [
            terminal.is_some(),
            console_size.is_some(),
            rlimits.is_some(),
            apparmor_profile.is_some(),
            oom_score_adj.is_some(),
            selinux_label.is_some(),
            io_priority.is_some(),
            scheduler.is_some(),
            ours.root.is_some(),
            ours.mounts.is_some(),
            ours.hostname.is_some(),
            ours.domainname.is_some(),
            ours.hooks.is_some(),
            ours.annotations.is_some(),
            ours.linux.is_some(),
        ];
        assert_eq!(all, [true; 15]);
    }

    #[test]
    fn what_has_no_meaning_is_not_checked() {
        let strange: Value = json!({
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "capabilities": {"bounding": ["CAP_TOMORROW"]}, "execCPUAffinity": 7},
            "windows": "none",
        });
        assert!(serde_json::from_value::<Document>(strange).is_ok());
    }
}
