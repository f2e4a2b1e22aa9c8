//! How the runtime is run for one container: from the options that containerd sends with `Create`, and kept in the bundle for the
//! `delete` that cleans up after a killed shim and gets no options.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options;
use serde::{Deserialize, Serialize};

use super::ShimError;

/// Name of the file in the bundle.
const FILE: &str = "urunc-shim.json";
/// Below it, one state root per containerd namespace.
const STATE_ROOT: &str = "/run/containerd/urunc";
/// What `runc`'s options are called; containerd sends them to every runtime whose section has `options`.
const OPTIONS: &str = "containerd.runc.v1.Options";

/// How the runtime is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The runtime's binary: a path, or a name to be found in `PATH`.
    pub binary: PathBuf,
    /// The state root (`--root`).
    pub root: PathBuf,
    /// Whether systemd manages the cgroups.
    pub systemd_cgroup: bool,
    /// Passed on as `--no-pivot`.
    pub no_pivot: bool,
    /// Passed on as `--no-new-keyring`.
    pub no_new_keyring: bool,
}

impl Settings {
    /// Settings of a container in `namespace`, with the options that containerd sent.
    ///
    /// # Errors
    /// [`ShimError::Message`] if runc's options are announced and something else is there. Options of another kind are
    /// none of ours.
    pub fn new(namespace: &str, options: Option<&Any>) -> Result<Self, ShimError> {
        let options = of_runc(options)?;
        let root = if options.root.is_empty() { STATE_ROOT } else { &options.root };
        Ok(Self {
            binary: if options.binary_name.is_empty() { beside_us() } else { options.binary_name.into() },
            root: Path::new(root).join(namespace),
            systemd_cgroup: options.systemd_cgroup,
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        })
    }

    /// Keeps the settings in the bundle.
    ///
    /// # Errors
    /// [`ShimError::Path`]
    pub fn save(&self, bundle: &Path) -> Result<(), ShimError> {
        let path = bundle.join(FILE);
        let text =
            serde_json::to_vec(self).map_err(|source| ShimError::Json { path: path.clone(), source })?;
        fs::write(&path, text).map_err(ShimError::path("write", path))
    }

    /// The settings in a bundle; the usual ones if `Create` had not come to the point of keeping them.
    ///
    /// # Errors
    /// [`ShimError::Path`], [`ShimError::Json`]
    pub fn load(bundle: &Path, namespace: &str) -> Result<Self, ShimError> {
        let path = bundle.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| ShimError::Json { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::new(namespace, None),
            Err(error) => Err(ShimError::path("read", path)(error)),
        }
    }
}

/// What containerd sent, if it is runc's options; else empty ones.
///
/// # Errors
/// [`ShimError::Message`]
pub(super) fn of_runc(options: Option<&Any>) -> Result<Options, ShimError> {
    match options {
        Some(any) if any.type_url.ends_with(OPTIONS) => Options::parse_from_bytes(&any.value)
            .map_err(|source| ShimError::Message { what: "the runtime options", source }),
        _ => Ok(Options::new()),
    }
}

/// The `urunc` in our own directory, or whichever is in `PATH`.
fn beside_us() -> PathBuf {
    let own = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("urunc")));
    own.filter(|path| path.is_file()).unwrap_or_else(|| "urunc".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_runc_are_followed() {
        let options = Options {
            binary_name: "/opt/urunc".into(),
            root: "/run/r".into(),
            systemd_cgroup: true,
            ..Options::default()
        };
        let any = Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        };
        let settings = Settings::new("k8s.io", Some(&any)).unwrap();
        assert_eq!(settings.binary, Path::new("/opt/urunc"));
        assert_eq!(settings.root, Path::new("/run/r/k8s.io"));
        assert!(settings.systemd_cgroup);
    }

    #[test]
    fn options_of_somebody_else_change_nothing() {
        let any = Any { type_url: "other".into(), value: vec![255; 9], ..Any::default() };
        assert_eq!(Settings::new("n", Some(&any)).unwrap(), Settings::new("n", None).unwrap());
    }

    #[test]
    fn what_create_kept_is_what_delete_reads() {
        let bundle = tempfile::tempdir().unwrap();
        let mut settings = Settings::load(bundle.path(), "n").unwrap();
        settings.root = "/elsewhere".into();
        settings.save(bundle.path()).unwrap();
        assert_eq!(Settings::load(bundle.path(), "n").unwrap(), settings);
    }
}
