//! `spec`: writes a `config.json` to start from.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Why there is no new `config.json`.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}; an existing one is not overwritten")]
pub struct SpecFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Writes a new `config.json` into `bundle`.
///
/// # Errors
/// [`SpecFileError`], also if there is one already.
pub(super) fn write(bundle: &Path) -> Result<(), SpecFileError> {
    let path = bundle.join("config.json");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        writeln!(file, "{:#}", template())
    };
    write().map_err(|source| SpecFileError { path, source })
}

/// A unikernel in namespaces of its own, with 256 MiB, as a user without rights.
fn template() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 65534, "gid": 65534}, "cwd": "/", "args": ["hello"]},
        "hostname": "urunc",
        "annotations": {
            "com.urunc.unikernel.unikernelType": "generic",
            "com.urunc.unikernel.hypervisor": "qemu",
            "com.urunc.unikernel.binary": "/boot/kernel",
        },
        "linux": {
            "resources": {"memory": {"limit": 256 << 20}},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::BundleFile;
    use crate::bundle::annotations::from_annotations;

    #[test]
    fn the_template_is_a_bundle_that_we_accept_and_never_overwrites_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let bundle = BundleFile::read(dir.path()).unwrap();
        assert!(from_annotations(bundle.annotations()).unwrap().is_some());
        bundle.check().unwrap();
        assert!(write(dir.path()).is_err());
    }
}
