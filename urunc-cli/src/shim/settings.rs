//! How the runtime is run for one container: from the options that containerd sends with `Create`, and kept in the bundle for the
//! `delete` that cleans up after a killed shim and gets no options.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options;
use serde::{Deserialize, Serialize};

use super::replace::replace;
use super::{ShimError, wire};

/// Name of the file in the bundle.
const FILE: &str = "urunc-shim.json";
/// Below it, one state root per containerd namespace.
const STATE_ROOT: &str = "/run/containerd/urunc";
/// What `runc`'s options are called. `ctr` sends them to every runtime, CRI only to those of runc's own type.
const OF_RUNC: &str = "containerd.runc.v1.Options";
/// What CRI sends to every other runtime whose section has `options`: the section as TOML, or a file with one. containerd 1.6 sends nothing of a
/// section but the file's path.
const OF_ANY: &str = "runtimeoptions.v1.Options";

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
    /// [`ShimError::Message`], [`ShimError::Invalid`] or [`ShimError::Path`] if the options are not what they are said to be. Options of another kind are
    /// none of ours.
    pub fn new(namespace: &str, options: Option<&Any>) -> Result<Self, ShimError> {
        let options = self::options(options)?;
        let root = if options.root.is_empty() { STATE_ROOT } else { &options.root };
        Ok(Self {
            binary: if options.binary_name.is_empty() { beside_us() } else { options.binary_name.into() },
            root: Path::new(root).join(namespace),
            systemd_cgroup: options.systemd_cgroup,
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        })
    }

    /// The settings for a container in this cgroup. `SLICE:PREFIX:NAME` is a unit of systemd and no path: kubelet names cgroups so whose driver is
    /// systemd, whatever the options say.
    #[must_use]
    pub fn for_cgroup(mut self, path: &str) -> Self {
        let mut parts = path.split(':');
        let is_unit = parts.next().is_some_and(|slice| slice.ends_with(".slice")) && parts.count() == 2;
        self.systemd_cgroup |= is_unit;
        self
    }

    /// Keeps the settings in the bundle.
    ///
    /// # Errors
    /// [`ShimError::Path`]
    pub fn save(&self, bundle: &Path) -> Result<(), ShimError> {
        let path = bundle.join(FILE);
        let text =
            serde_json::to_vec(self).map_err(|source| ShimError::Json { path: path.clone(), source })?;
        replace(&path, &text).map_err(ShimError::path("write", path))
    }

    /// The settings in a bundle; the usual ones if `Create` had not come to the point of keeping them, or if they cannot be read: what cleans up must
    /// not give up because of that.
    ///
    /// # Errors
    /// What [`Settings::new`] fails with.
    pub fn load(bundle: &Path, namespace: &str) -> Result<Self, ShimError> {
        let path = bundle.join(FILE);
        let kept = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::new(namespace, None),
            Err(error) => Err(error.to_string()),
        };
        kept.or_else(|reason| {
            log::warn!("cannot read {}, so the usual settings are taken: {reason}", path.display());
            Self::new(namespace, None)
        })
    }
}

/// What containerd sent: runc's options, or a section of its configuration with the same names. Options of another kind are none of ours.
///
/// # Errors
/// [`ShimError::Message`], [`ShimError::Invalid`] or [`ShimError::Path`] if they are not what they are said to be.
pub(super) fn options(options: Option<&Any>) -> Result<Options, ShimError> {
    const CONFIG_PATH: u32 = 2;
    const CONFIG_BODY: u32 = 3;
    let wrong = |source| ShimError::Message { what: "the runtime options", source };
    match options {
        Some(any) if any.type_url.ends_with(OF_RUNC) => Options::parse_from_bytes(&any.value).map_err(wrong),
        Some(any) if any.type_url.ends_with(OF_ANY) => {
            let path = wire::text(&any.value, CONFIG_PATH).map_err(wrong)?.unwrap_or_default();
            let body = wire::text(&any.value, CONFIG_BODY).map_err(wrong)?.unwrap_or_default();
            if path.is_empty() {
                section(&body)
            } else {
                section(
                    &fs::read_to_string(&path).map_err(ShimError::path("read the runtime options", path))?,
                )
            }
        }
        _ => Ok(Options::new()),
    }
}

/// Reads `options` of a runtime as they stand in containerd's configuration. What is not runc's is left alone.
fn section(text: &str) -> Result<Options, ShimError> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Section {
        no_pivot_root: bool,
        no_new_keyring: bool,
        shim_cgroup: String,
        binary_name: String,
        root: String,
        systemd_cgroup: bool,
    }
    let section: Section = toml::from_str(text).map_err(|error| ShimError::Invalid {
        what: "the runtime options",
        reason: error.to_string().trim().to_owned(),
    })?;
    Ok(Options {
        no_pivot_root: section.no_pivot_root,
        no_new_keyring: section.no_new_keyring,
        shim_cgroup: section.shim_cgroup,
        binary_name: section.binary_name,
        root: section.root,
        systemd_cgroup: section.systemd_cgroup,
        ..Options::default()
    })
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

    /// CRI sends these, for this is not runc's runtime.
    #[test]
    fn a_section_of_containerds_configuration_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("options.toml");
        let text = "SystemdCgroup = true\nBinaryName = \"/opt/urunc\"\nRoot = \"/run/r\"\nShimCgroup = \"/shims\"\nElse = 1\n";
        fs::write(&file, text).unwrap();
        let field = |number: u8, value: &str| {
            [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
        };
        let any = |value| Any { type_url: "runtimeoptions.v1.Options".into(), value, ..Any::default() };
        for sent in [field(3, text), field(2, file.to_str().unwrap())] {
            let any = any([field(1, "type"), sent].concat());
            let settings = Settings::new("k8s.io", Some(&any)).unwrap();
            assert_eq!(settings.binary, Path::new("/opt/urunc"));
            assert_eq!(settings.root, Path::new("/run/r/k8s.io"));
            assert!(settings.systemd_cgroup);
            assert_eq!(options(Some(&any)).unwrap().shim_cgroup, "/shims");
        }
        assert_eq!(Settings::new("n", Some(&any(Vec::new()))).unwrap(), Settings::new("n", None).unwrap());
        let error = Settings::new("n", Some(&any(field(3, "Root = 7")))).unwrap_err().to_string();
        assert!(error.contains("cannot understand the runtime options") && error.contains("Root"), "{error}");
        let error = Settings::new("n", Some(&any(field(2, "/nonexistent/o")))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/o"), "{error}");
    }

    /// Else kubelet's pods would be accounted for outside their slices.
    #[test]
    fn a_unit_of_systemd_is_made_by_systemd() {
        for (path, expected) in [
            ("kubepods-burstable-pod1.slice:cri-containerd:c1", true),
            ("/kubepods/burstable/pod1/c1", false),
            ("/kubepods.slice/c1", false),
            ("system:docker:c1", false),
            ("", false),
        ] {
            let settings = Settings::new("n", None).unwrap().for_cgroup(path);
            assert_eq!(settings.systemd_cgroup, expected, "{path}");
        }
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
        // F5: half a file was no reason to leave a container.
        fs::write(bundle.path().join(FILE), "{\"binary").unwrap();
        assert_eq!(Settings::load(bundle.path(), "n").unwrap(), Settings::new("n", None).unwrap());
    }
}
