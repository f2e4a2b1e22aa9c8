//! Knative's proxy beside a unikernel: before it is handed to the other runtime, its bundle is made to point to the guest.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;
use urunc_netns::STATIC_GUEST;

use super::{LifecycleError, Runtime};
use crate::bundle::{BundleFile, knative};

impl Runtime {
    /// Points the proxy in `bundle`, if it is one, to the guest of its pod, if there is one. Kubernetes creates a pod's
    /// containers in order, the user's before the proxy.
    pub(super) fn redirect_proxy(&self, bundle: &Path) -> Result<(), LifecycleError> {
        let file = BundleFile::read(bundle)?;
        if !file.is_queue_proxy() {
            return Ok(());
        }
        let guests = self.list()?;
        let is_guest = |annotations| knative::is_its_user_container(file.annotations(), annotations);
        if !guests.iter().any(|entry| is_guest(&entry.record.annotations)) {
            return Ok(());
        }
        let path = bundle.join("config.json");
        rewrite(&path).map_err(|source| LifecycleError::Proxy { path, source })
    }
}

fn rewrite(path: &Path) -> io::Result<()> {
    let mut spec: Value = serde_json::from_slice(&fs::read(path)?)?;
    if !knative::redirect(&mut spec, STATIC_GUEST) {
        return Ok(());
    }
    log::info!("queue-proxy is pointed to the guest at {STATIC_GUEST}");
    replace(path, &spec.to_string())
}

/// The old file or the new one, nothing between; a name of our own, and nothing left on failure (B19).
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension(format!("json.urunc-{}", std::process::id()));
    let mode = fs::metadata(path)?.permissions().mode();
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}
