//! `features`: what this build can do, as the OCI runtime specification's features document
//! (`features.md` and `features-linux.md` of the specification).

use serde_json::{Value, json};
use urunc_vmm::{Guest, Monitor};

/// The document. Only what works is listed.
pub(super) fn document() -> Value {
    let monitors: Vec<_> = Monitor::ALL.iter().map(|monitor| monitor.name()).collect();
    let guests: Vec<_> = Guest::ALL.iter().map(|guest| guest.name()).collect();
    let mut capabilities: Vec<_> = caps::all().iter().map(ToString::to_string).collect();
    capabilities.sort();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false},
            "seccomp": {"enabled": false},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
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
