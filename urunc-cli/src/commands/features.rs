//! `features`: what this build can do, as the OCI runtime specification's features document
//! (`features.md` and `features-linux.md` of the specification).

use serde_json::{Value, json};
use urunc_vmm::{Guest, Monitor};

use crate::bundle::NamespaceKind;

/// The document. Only what works is listed.
pub(super) fn document() -> Value {
    let monitors: Vec<_> = Monitor::ALL.iter().map(|monitor| monitor.name()).collect();
    let guests: Vec<_> = Guest::ALL.iter().map(|guest| guest.name()).collect();
    let mut capabilities: Vec<_> = caps::all().iter().map(ToString::to_string).collect();
    capabilities.sort();
    let mut namespaces = NamespaceKind::ALL.map(|kind| kind.to_string());
    namespaces.sort();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [],
        "linux": {
            "namespaces": namespaces,
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false},
            // For the monitor, if `runtime.seccomp = "spec"`.
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ],
                "supportedFlags": ["SECCOMP_FILTER_FLAG_LOG"],
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
        },
        "annotations": {
            "com.urunc.version": env!("CARGO_PKG_VERSION"),
            "com.urunc.monitors": monitors.join(","),
            "com.urunc.guests": guests.join(","),
        },
        "potentiallyUnsafeConfigAnnotations": ["com.urunc.unikernel."],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_create_understands_is_listed() {
        let linux = &document()["linux"];
        for kind in NamespaceKind::ALL {
            assert!(linux["namespaces"].as_array().unwrap().contains(&kind.to_string().into()), "{kind}");
        }
        assert_eq!(linux["cgroup"]["systemd"], true);
        // What `features-linux.md` names, the specification's own parser reads.
        let _: oci_spec::runtime::Features = serde_json::from_value(document()).unwrap();
    }
}
