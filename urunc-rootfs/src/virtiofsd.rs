//! How virtiofsd is started to share a directory with the guest: pure, plain data.
//!
//! The daemon gets a socket that listens already, so nobody has to wait for it. It runs as root, because it must be
//! able to act as any user of the guest, but with the few capabilities that it documents, in a mount namespace of its
//! own that holds the [shared tree](crate::root::SharedTree), and puts itself into a sandbox. Whoever starts it also
//! puts it into the container's cgroup and its standard error into the log.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the configuration says about virtiofsd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Virtiofsd {
    /// The program.
    pub program: PathBuf,
    /// Further options, one word each.
    pub options: Vec<String>,
}

/// How to start it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonLaunch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, without its own name.
    pub args: Vec<OsString>,
    /// The number under which it finds the listening Unix socket.
    pub socket: SocketNumber,
    /// The only capabilities in its bounding set, by the names that `capabilities(7)` uses.
    pub capabilities: Vec<String>,
    /// What must be its own, and is not the caller's.
    pub namespaces: Vec<DaemonNamespace>,
    /// What it gets when the process that started it ends.
    pub parent_death: ParentDeath,
}

/// A descriptor number in the daemon; above the standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SocketNumber(u8);

/// A namespace of the daemon's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonNamespace {
    /// Made by whoever starts it, with the shared tree attached. It makes process and network namespaces itself.
    Mount,
}

/// What happens to the daemon when its parent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParentDeath {
    /// It is killed (`PR_SET_PDEATHSIG`, `SIGKILL`).
    Kill,
}

/// An option that was dropped, and why that is better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedOption {
    /// The option as it was configured.
    pub option: String,
}

/// An option of virtiofsd that cannot be configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot start virtiofsd with the configured option {option:?}: urunc sets it itself; remove it")]
pub struct OptionError {
    option: String,
}

/// What virtiofsd keeps for its work, and what its sandbox takes to be built (`--sandbox namespace`: mounts, new
/// namespaces; `SETPCAP` to give up the rest).
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_SYS_ADMIN",
];

/// Options that would contradict ours, or end the daemon at once. The old `-o` could hold any of them.
const OURS: [&str; 9] = [
    "--fd",
    "--socket",
    "--socket-path",
    "--socket-group",
    "--shared-dir",
    "--print-capabilities",
    "-o",
    "-f",
    "-d",
];

impl Virtiofsd {
    /// Plans to share `directory`, with the listening socket under the number `socket`.
    ///
    /// # Errors
    /// [`OptionError`] if the configuration sets something that is not its to set.
    pub fn plan(
        &self,
        directory: PathBuf,
        socket: SocketNumber,
    ) -> Result<(DaemonLaunch, Vec<DroppedOption>), OptionError> {
        let mut args: Vec<OsString> = Vec::new();
        let mut dropped = Vec::new();
        let mut words = self.options.iter().peekable();
        while let Some(word) = words.next() {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
            if OURS.contains(&name) || (word.starts_with("-o") && !word.starts_with("--")) {
                return Err(OptionError { option: word.clone() });
            }
            if name != "--sandbox" {
                args.push(word.into());
                continue;
            }
            let value = value.or_else(|| words.next().map(String::as_str)).unwrap_or_default();
            if value != "namespace" {
                dropped.push(DroppedOption { option: format!("--sandbox {value}") });
            }
        }
        args.push("--sandbox=namespace".into());
        args.push(format!("--fd={}", socket.0).into());
        args.push("--shared-dir".into());
        args.push(directory.into());
        let launch = DaemonLaunch {
            program: self.program.clone(),
            args,
            socket,
            capabilities: CAPABILITIES.map(str::to_owned).into(),
            namespaces: vec![DaemonNamespace::Mount],
            parent_death: ParentDeath::Kill,
        };
        Ok((launch, dropped))
    }
}

impl SocketNumber {
    /// The first number after the standard streams.
    pub const FIRST: Self = Self(3);

    /// The number.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0.into()
    }
}

impl fmt::Display for DroppedOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtiofsd is started with --sandbox=namespace in place of the configured {}", self.option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(options: &str) -> Result<(DaemonLaunch, Vec<DroppedOption>), OptionError> {
        let options = options.split_whitespace().map(str::to_owned).collect();
        let virtiofsd = Virtiofsd { program: "/usr/libexec/virtiofsd".into(), options };
        virtiofsd.plan("/run/a b/rootfs".into(), SocketNumber::FIRST)
    }

    #[test]
    fn an_old_configuration_without_a_sandbox_gets_one_and_a_warning() {
        // E4: the default was `--sandbox none`, as the container's user, on a path in /tmp.
        for options in ["--cache always --sandbox none", "--sandbox=none --cache always"] {
            let (launch, dropped) = planned(options).unwrap();
            let expected =
                ["--cache", "always", "--sandbox=namespace", "--fd=3", "--shared-dir", "/run/a b/rootfs"];
            assert_eq!(launch.args, expected);
            assert_eq!(dropped.len(), 1);
            assert!(dropped[0].to_string().ends_with("configured --sandbox none"));
        }
        assert_eq!(planned("--sandbox namespace").unwrap().1, []);
        assert_eq!(planned("--sandbox").unwrap().1.len(), 1);
    }

    #[test]
    fn what_is_ours_cannot_be_configured() {
        for options in
            ["--fd=7", "--shared-dir /", "--socket-path=/tmp/vhostqemu", "-o source=/", "-osource=/", "-d"]
        {
            assert!(planned(options).is_err(), "{options}");
        }
    }
}
