//! The administrator's configuration, `/etc/urunc/config.toml`: trusted, unlike annotations, and never mixed with them.
//!
//! Keys are those of the Go implementation plus ours. A file that cannot be understood is an error with line and
//! reason, never silently replaced by defaults; a missing file means defaults. What a container was created with is
//! frozen into its record, so that editing the file never changes a running container.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use urunc_vmm::{Kvm, Monitor};

use crate::cgroup::Accounting;

/// Where the configuration is read from unless [`PATH_VARIABLE`] names another file.
pub const DEFAULT_PATH: &str = "/etc/urunc/config.toml";
/// Environment variable that names another configuration file.
pub const PATH_VARIABLE: &str = "URUNC_CONFIG_FILE";

/// Why the configuration could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file exists but cannot be read, or the file that the environment names does not exist.
    #[error("cannot read the configuration file {path}; make it readable, or correct {PATH_VARIABLE}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration file {path} is wrong in line {line}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
}

/// Sections that the Go implementation's files may have for monitors that we do not drive.
const FOREIGN_MONITORS: [&str; 3] = ["hedge", "hvi", "hyperlight-unikraft"];

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[runtime]`
    pub runtime: Runtime,
    /// `[log]`
    pub log: Logging,
    /// `[timestamps]`
    pub timestamps: Timestamps,
    /// `[monitors.NAME]`, by the name that annotations use.
    pub monitors: BTreeMap<String, MonitorConfig>,
    /// `[extra_binaries.NAME]`
    pub extra_binaries: BTreeMap<String, ExtraBinary>,
}

/// `[runtime]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Whether QEMU may, must or must not use KVM.
    pub kvm: Kvm,
    /// What a container in the host's own network namespace gets.
    pub host_network: HostNetwork,
    /// Whether a monitor's own memory comes on top of a container's limit or out of it.
    pub memory: Accounting,
    /// Which seccomp filter monitors get.
    pub seccomp: Seccomp,
    /// What to do about a volume that cannot reach the guest.
    pub undeliverable: Undeliverable,
    /// The runtime that gets the containers that are no unikernels: a path, or a name to be searched in `PATH`.
    pub delegate: PathBuf,
    /// Go urunc's switch to its libcontainer mode; there is one mode here.
    pub libcontainer: bool,
    /// Go urunc's switch for vAccel.
    #[serde(rename = "vAccel")]
    pub vaccel: bool,
}

/// What a container in the host's own network namespace gets. Never a redirect of the host's interface (N1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostNetwork {
    /// An error at create.
    #[default]
    Refuse,
    /// A guest without network.
    None,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            kvm: Kvm::default(),
            host_network: HostNetwork::default(),
            memory: Accounting::default(),
            seccomp: Seccomp::default(),
            undeliverable: Undeliverable::default(),
            delegate: "runc".into(),
            libcontainer: false,
            vaccel: false,
        }
    }
}

/// Which seccomp filter monitors get, unless the specification has none: then they get none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// The monitor's own, which knows what it needs.
    #[default]
    Monitor,
    /// The specification's besides. Profiles for ordinary containers may forbid what a monitor needs.
    Spec,
}

/// What to do about a volume that somebody asked for and that cannot reach the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undeliverable {
    /// The container is refused.
    #[default]
    Error,
    /// The container runs without it, with a warning.
    Warn,
}

impl From<Undeliverable> for urunc_rootfs::volumes::Undeliverable {
    fn from(policy: Undeliverable) -> Self {
        match policy {
            Undeliverable::Error => Self::Refuse,
            Undeliverable::Warn => Self::Warn,
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logging {
    /// Least severe level that is logged.
    pub level: LogLevel,
    /// Whether records also go to syslog.
    pub syslog: bool,
}

/// Level names of the configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// Values and decisions.
    Debug,
    /// One line per lifecycle step.
    #[default]
    Info,
    /// What is odd but worked.
    #[serde(alias = "warning")]
    Warn,
    /// What the user asked for and did not get.
    #[serde(alias = "fatal", alias = "panic")]
    Error,
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::Trace,
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
        }
    }
}

/// `[timestamps]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timestamps {
    /// Whether lifecycle timestamps are written.
    pub enabled: bool,
    /// The file that they are appended to.
    pub destination: PathBuf,
}

impl Default for Timestamps {
    fn default() -> Self {
        Self { enabled: false, destination: "/var/log/urunc/timestamps.log".into() }
    }
}

/// `[monitors.NAME]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitorConfig {
    /// Guest memory in MiB for containers without a memory limit.
    pub default_memory_mb: NonZeroU32,
    /// Virtual CPUs.
    pub default_vcpus: NonZeroU32,
    /// The binary; empty means a search of `PATH`.
    pub path: PathBuf,
    /// Directory that holds QEMU's data files, in `qemu/` and `seabios/` or directly; empty means the usual places.
    pub data_path: PathBuf,
    /// Whether QEMU uses vhost-net.
    pub vhost: bool,
    /// Go urunc's opt-in control socket; ours is always there and needs no path.
    pub socket_path: PathBuf,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            // PROOF: the literals are not zero, so the fallbacks are never used.
            default_memory_mb: NonZeroU32::new(256).unwrap_or(NonZeroU32::MIN),
            default_vcpus: NonZeroU32::MIN,
            path: PathBuf::new(),
            data_path: PathBuf::new(),
            vhost: false,
            socket_path: PathBuf::new(),
        }
    }
}

/// `[extra_binaries.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtraBinary {
    /// The binary.
    pub path: PathBuf,
    /// Its options, separated by white space.
    pub options: String,
}

impl Config {
    /// Reads the configuration that `variable` (the value of [`PATH_VARIABLE`]) or else [`DEFAULT_PATH`] names.
    ///
    /// # Errors
    /// [`ConfigError`]; a missing default file is not an error.
    pub fn load(variable: Option<PathBuf>) -> Result<Self, ConfigError> {
        let explicit = variable.filter(|path| !path.as_os_str().is_empty());
        let path = explicit.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(e) if e.kind() == io::ErrorKind::NotFound && explicit.is_none() => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError::Parse { path: path.to_owned(), line, reason: error.message().replace('\n', " ") }
        })?;
        match config.contradiction() {
            None => Ok(config),
            Some((section, key, reason)) => {
                Err(ConfigError::Parse { path: path.to_owned(), line: line_of(text, &section, key), reason })
            }
        }
    }

    /// What is well-formed and yet cannot be: its section, its key, and why.
    fn contradiction(&self) -> Option<(String, &'static str, String)> {
        let relative = |path: &Path| !path.as_os_str().is_empty() && path.is_relative();
        let known =
            |name: &str| Monitor::ALL.iter().any(|it| it.name() == name) || FOREIGN_MONITORS.contains(&name);
        let absolute = |key: &str, path: &Path| {
            format!("{key} is the relative path {}; use an absolute one", path.display())
        };
        for (name, monitor) in &self.monitors {
            let section = format!("monitors.{name}");
            if !known(name) {
                let all = Monitor::ALL.map(Monitor::name).join(", ");
                return Some((section, "", format!("there is no monitor {name}; known ones are {all}")));
            }
            for (key, path) in [("path", &monitor.path), ("data_path", &monitor.data_path)] {
                if relative(path) {
                    return Some((section, key, absolute(key, path)));
                }
            }
        }
        for (name, binary) in &self.extra_binaries {
            if relative(&binary.path) {
                return Some((format!("extra_binaries.{name}"), "path", absolute("path", &binary.path)));
            }
        }
        let destination = &self.timestamps.destination;
        if !destination.is_absolute() {
            let reason = absolute("destination", destination);
            return Some(("timestamps".to_owned(), "destination", reason));
        }
        if self.runtime.delegate.as_os_str().is_empty() {
            let reason = "delegate is empty; use the name or the path of a runtime, such as runc";
            return Some(("runtime".to_owned(), "delegate", reason.to_owned()));
        }
        None
    }

    /// What is there, in the Go implementation's files mostly, and changes nothing here.
    #[must_use]
    pub fn without_effect(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.runtime.libcontainer {
            found.push(
                "runtime.libcontainer: there is one mode, which applies all of the specification".into(),
            );
        }
        if self.runtime.vaccel {
            found.push("runtime.vAccel: vAccel is not supported".into());
        }
        for (name, monitor) in &self.monitors {
            if FOREIGN_MONITORS.contains(&name.as_str()) {
                found.push(format!("monitors.{name}: this monitor is not supported"));
                continue;
            }
            if !monitor.socket_path.as_os_str().is_empty() {
                found.push(format!(
                    "monitors.{name}.socket_path: there is always a control socket where urunc can use one"
                ));
            }
            let only_qemu =
                [("vhost", monitor.vhost), ("data_path", !monitor.data_path.as_os_str().is_empty())];
            for (key, _) in only_qemu.iter().filter(|(_, set)| *set && name != Monitor::Qemu.name()) {
                found.push(format!("monitors.{name}.{key}: only QEMU has use for it"));
            }
        }
        let others = self.extra_binaries.keys().filter(|name| *name != "virtiofsd");
        found.extend(others.map(|name| format!("extra_binaries.{name}: only virtiofsd is ever executed")));
        found
    }

    /// What is configured for `monitor`, or the defaults.
    #[must_use]
    pub fn monitor(&self, monitor: Monitor) -> MonitorConfig {
        self.monitors.get(monitor.name()).cloned().unwrap_or_default()
    }
}

/// The line with `key` of `section`, else that of the section, else the first one.
fn line_of(text: &str, section: &str, key: &str) -> usize {
    let plain = |line: &str| line.replace(['"', '\'', ' '], "");
    let (mut current, mut found) = (String::new(), 1);
    for (number, line) in (1..).zip(text.lines()) {
        let line = plain(line);
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            current = name.to_owned();
            if current == section {
                found = number;
            }
        } else if current == section && !key.is_empty() && line.split('=').next() == Some(key) {
            return number;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_go_implementations_keys_are_understood() {
        let config = Config::parse(
            r#"
            [runtime]
            libcontainer = false
            vAccel = true
            [log]
            level = "debug"
            syslog = false
            [timestamps]
            enabled = true
            [monitors.qemu]
            default_memory_mb = 512
            default_vcpus = 2
            path = "/opt/qemu"
            data_path = "/opt/share"
            vhost = true
            [extra_binaries.virtiofsd]
            path = "/usr/libexec/virtiofsd"
            options = "--cache always --sandbox none"
            "#,
            Path::new("config.toml"),
        )
        .unwrap();
        assert_eq!(config.monitor(Monitor::Qemu).default_memory_mb.get(), 512);
        assert_eq!(config.monitor(Monitor::Solo5Spt), MonitorConfig::default());
        // B46: a partial section keeps the other defaults.
        assert_eq!(config.timestamps.destination, Path::new("/var/log/urunc/timestamps.log"));
    }

    #[test]
    fn keys_without_effect_are_named() {
        let config = Config::parse(
            r#"
            [runtime]
            libcontainer = true
            vAccel = true
            [monitors.hyperlight-unikraft]
            path = "/x"
            [monitors.qemu]
            vhost = true
            socket_path = "/run/qmp.sock"
            [monitors.firecracker]
            vhost = true
            [extra_binaries.other]
            path = "/y"
            "#,
            Path::new("config.toml"),
        )
        .unwrap();
        let keys: Vec<String> = config.without_effect();
        let keys: Vec<&str> = keys.iter().filter_map(|line| line.split(':').next()).collect();
        let expected = [
            "runtime.libcontainer",
            "runtime.vAccel",
            "monitors.firecracker.vhost",
            "monitors.hyperlight-unikraft",
            "monitors.qemu.socket_path",
            "extra_binaries.other",
        ];
        assert_eq!(keys, expected);
        assert!(Config::default().without_effect().is_empty());
    }

    /// B43, B46: a mistake is never silently replaced by defaults.
    #[test]
    fn a_wrong_file_is_an_error_that_names_the_line() {
        for (text, expected) in [
            ("[runtime]\nkwm = \"off\"\n", "line 2"),
            ("[monitors.qemu]\ndefault_memory_mb = 0\n", "line 2"),
            ("[monitors.qemu]\ndefault_memory_mb = \"lots\"\n", "line 2"),
            ("[log]\nlevel = \"loud\"\n", "line 2"),
            ("[log\n", "line 1"),
            ("[log]\n\n[monitors.\"qmeu\"]\n", "line 3: there is no monitor qmeu; known ones are"),
            (
                "[monitors.spt]\n[monitors.qemu]\nvhost = true\npath = 'qemu'\n",
                "line 4: path is the relative path qemu",
            ),
            ("[monitors.qemu]\ndata_path = \"share\"\n", "line 2: data_path is the relative path share"),
            (
                "[timestamps]\nenabled = true\ndestination = \"\"\n",
                "line 3: destination is the relative path",
            ),
            (
                "[extra_binaries.virtiofsd]\npath = \"virtiofsd\"\n",
                "line 2: path is the relative path virtiofsd",
            ),
            ("[runtime]\n\n\ndelegate = \"\"", "line 4: delegate is empty"),
            ("runtime = { delegate = \"\" }", "line 1: delegate is empty"),
        ] {
            let message = Config::parse(text, Path::new("config.toml")).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?} gave {message:?}");
        }
    }
}
