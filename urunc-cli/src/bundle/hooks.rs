//! `hooks` of a specification: programs that are run at fixed points of a container's life.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is wrong with a hook.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HookSpecError {
    /// The specification demands an absolute path.
    #[error("hooks.{kind} has the path {path}; use an absolute one")]
    Relative {
        /// Which hooks.
        kind: &'static str,
        /// The path as given.
        path: PathBuf,
    },
    /// A timeout is not positive.
    #[error("hooks.{kind} has the timeout {seconds}; use a number of seconds greater than 0")]
    Timeout {
        /// Which hooks.
        kind: &'static str,
        /// The timeout as given.
        seconds: i64,
    },
    /// A text contains a NUL byte.
    #[error("hooks.{kind} has an argument or a variable with a NUL character")]
    Nul {
        /// Which hooks.
        kind: &'static str,
    },
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program.
    pub path: PathBuf,
    /// All of its arguments, the first of which is its name; the path alone if there are none.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// All hooks, each kind in the order in which it is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Before `create_runtime`; the older name of the same.
    pub prestart: Vec<Hook>,
    /// By create, in its own namespaces.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before its root is changed.
    pub create_container: Vec<Hook>,
    /// In the container's root, before the monitor is executed.
    pub start_container: Vec<Hook>,
    /// By start, after the monitor has been executed.
    pub poststart: Vec<Hook>,
    /// By delete, after the container has been removed.
    pub poststop: Vec<Hook>,
}

/// Checks and converts.
pub(super) fn convert(hooks: &oci_spec::runtime::Hooks) -> Result<Hooks, HookSpecError> {
    Ok(Hooks {
        prestart: list("prestart", hooks.prestart())?,
        create_runtime: list("createRuntime", hooks.create_runtime())?,
        create_container: list("createContainer", hooks.create_container())?,
        start_container: list("startContainer", hooks.start_container())?,
        poststart: list("poststart", hooks.poststart())?,
        poststop: list("poststop", hooks.poststop())?,
    })
}

fn list(
    kind: &'static str,
    hooks: &Option<Vec<oci_spec::runtime::Hook>>,
) -> Result<Vec<Hook>, HookSpecError> {
    hooks.iter().flatten().map(|hook| one(kind, hook)).collect()
}

fn one(kind: &'static str, hook: &oci_spec::runtime::Hook) -> Result<Hook, HookSpecError> {
    let path = hook.path().clone();
    if path.is_relative() {
        return Err(HookSpecError::Relative { kind, path });
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(positive @ 1..) => Some(Duration::from_secs(positive)),
            _ => return Err(HookSpecError::Timeout { kind, seconds }),
        },
    };
    let mut args = hook.args().clone().unwrap_or_default();
    if args.is_empty() {
        args.push(path.display().to_string());
    }
    let env = hook.env().clone().unwrap_or_default();
    if args.iter().chain(&env).any(|text| text.contains('\0')) {
        return Err(HookSpecError::Nul { kind });
    }
    Ok(Hook { path, args, env, timeout })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hooks(json: serde_json::Value) -> Result<Hooks, HookSpecError> {
        convert(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn arguments_and_order_stay_as_they_are() {
        let hooks = hooks(json!({
            "prestart": [{"path": "/a"}, {"path": "/bin/busybox", "args": ["ls", "-l"], "env": ["A=1"], "timeout": 3}],
        }))
        .unwrap();
        let paths: Vec<_> = hooks.prestart.iter().map(|hook| hook.path.display().to_string()).collect();
        assert_eq!(paths, ["/a", "/bin/busybox"]);
        assert_eq!(hooks.prestart[0].args, ["/a"]);
        // B30: the first argument is the caller's.
        assert_eq!(hooks.prestart[1].args, ["ls", "-l"]);
        assert_eq!(hooks.prestart[1].timeout, Some(Duration::from_secs(3)));
    }

    #[test]
    fn nonsense_is_refused() {
        for (json, says) in [
            (json!({"poststop": [{"path": "x"}]}), "hooks.poststop has the path x"),
            (json!({"poststart": [{"path": "/x", "timeout": 0}]}), "timeout 0"),
            (json!({"prestart": [{"path": "/x", "timeout": -1}]}), "timeout -1"),
            (json!({"prestart": [{"path": "/x", "args": ["a\0b"]}]}), "NUL"),
        ] {
            let message = hooks(json).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
