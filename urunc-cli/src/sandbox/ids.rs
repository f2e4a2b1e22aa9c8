//! Who init is in a user namespace: the maps that create writes from outside, and becoming the namespace's root.

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use urunc_state::Process;

use super::protocol::Failure;
use crate::bundle::{IdMap, IdMappings, NamespaceKind, Namespaces};

/// Why a user namespace cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The kernel refused a map, or it cannot be read.
    #[error("cannot map the ids of the container's user namespace by {file}")]
    Map {
        /// The file below `/proc/PID`.
        file: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A joined namespace has other maps than the specification says.
    #[error(
        "the user namespace {path} maps ids otherwise than linux.{field} says; give the mappings of that namespace"
    )]
    Differs {
        /// The namespace.
        path: PathBuf,
        /// The field.
        field: &'static str,
    },
}

/// Writes the maps of a new user namespace, or compares those of a joined one. `process` waits in it.
///
/// # Errors
/// [`IdError`]
pub fn map(process: &Process, mappings: &IdMappings, namespaces: &Namespaces) -> Result<(), IdError> {
    let maps = [("gid_map", "gidMappings", &mappings.groups), ("uid_map", "uidMappings", &mappings.users)];
    for (file, field, map) in maps {
        let path = format!("/proc/{}/{file}", process.pid().get());
        let failed = |source| IdError::Map { file, source };
        match namespaces.join.get(&NamespaceKind::User) {
            None => fs::write(path, map.lines()).map_err(failed)?,
            Some(namespace) => {
                let actual = fs::read_to_string(path).map_err(failed)?;
                if !is_same(&actual, map) {
                    return Err(IdError::Differs { path: namespace.clone(), field });
                }
            }
        }
    }
    Ok(())
}

/// The kernel aligns the columns, and sorts many lines.
fn is_same(actual: &str, expected: &IdMap) -> bool {
    let normal = |text: &str| {
        let mut lines: Vec<Vec<String>> =
            text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        lines.sort();
        lines
    };
    normal(actual) == normal(&expected.lines())
}

/// Makes init the root of its user namespace, whatever its caller was: what it makes from here on belongs to that one.
///
/// # Errors
/// The step that the system refused.
pub fn become_root() -> Result<(), Failure> {
    let (gid, uid) = (Gid::from_raw(0), Uid::from_raw(0));
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .map_err(|errno| Failure::step("cannot become root of the container's user namespace", &errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_compared_by_what_they_say() {
        let map: IdMap = serde_json::from_str(
            r#"[{"container":0,"host":100000,"size":10},{"container":10,"host":5,"size":1}]"#,
        )
        .unwrap();
        assert!(is_same("        10          5          1\n         0     100000         10\n", &map));
        assert!(!is_same("         0     100000         11\n        10          5          1\n", &map));
        assert!(!is_same("         0          0 4294967295\n", &map));
        assert!(!is_same("", &map));
    }
}
