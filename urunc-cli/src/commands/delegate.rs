//! Containers that are no unikernels: handed to an ordinary runtime by `execve`, with unchanged arguments, for every
//! command. So pause containers, sidecars and `exec` into them work, and their exit status is the other runtime's.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use urunc_state::{ContainerId, StoreError};

use super::CommandError;
use crate::lifecycle::{LifecycleError, probe};

/// Runtimes that keep their containers in a directory of their name if they are given no `--root`, as we are not.
const KNOWN: [&str; 3] = ["runc", "crun", "youki"];

/// Why a container cannot be handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DelegateError {
    /// The other runtime cannot be executed.
    #[error(
        "cannot hand over a container that is no unikernel: {program} cannot be executed; install it, or set \
         runtime.delegate in the configuration"
    )]
    Execute {
        /// The other runtime.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is this program.
    #[error(
        "cannot hand over a container that is no unikernel: {0} is urunc itself; correct runtime.delegate"
    )]
    Ourselves(PathBuf),
}

/// Whether `error` says that the container is somebody else's. `root` is the state root, if one was given, and `delegate` the other runtime.
pub(super) fn concerns_another_runtime(error: &CommandError, root: Option<&Path>, delegate: &Path) -> bool {
    match error {
        CommandError::Lifecycle(LifecycleError::NotUnikernel { .. }) => true,
        CommandError::Lifecycle(LifecycleError::Store(StoreError::NotOurs { .. })) => true,
        CommandError::Lifecycle(LifecycleError::Store(StoreError::NotFound { id })) => {
            root.is_none() && may_have(delegate, id)
        }
        _ => false,
    }
}

/// Whether the container `id`, which is not ours, may be one of `delegate`'s, who is given no `--root` either.
pub(super) fn may_have(delegate: &Path, id: &ContainerId) -> bool {
    let program = resolve(delegate);
    let known: Vec<PathBuf> = [Some(delegate.to_owned()), program.canonicalize().ok()]
        .iter()
        .flatten()
        .filter_map(|path| root_of(path))
        .collect();
    if known.is_empty() {
        // Who knows where? It does.
        return program.is_file();
    }
    known.iter().any(|root| root.join(id.as_str()).is_dir())
}

/// Where `runtime` keeps its containers, if that is known.
fn root_of(runtime: &Path) -> Option<PathBuf> {
    let name = runtime.file_name()?.to_str().filter(|name| KNOWN.contains(name))?;
    Some(crate::lifecycle::default_root().with_file_name(name))
}

/// Becomes `program` (a path, or a name to be searched in `PATH`), and returns only if that fails.
pub(super) fn execute(program: &Path) -> DelegateError {
    let identity = |path: &Path| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let found = resolve(program);
    if identity(&found).is_some_and(|it| Some(it) == identity(Path::new("/proc/self/exe"))) {
        return DelegateError::Ourselves(found);
    }
    log::debug!("handing over to {}", found.display());
    let source = Command::new(&found).arg0(program).args(std::env::args_os().skip(1)).exec();
    DelegateError::Execute { program: program.to_owned(), source }
}

/// Where `program` is, if it is only a name.
pub(super) fn resolve(program: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match program.to_str().filter(|name| !name.contains('/')) {
        Some(name) => probe::find_program(name, &path).unwrap_or_else(|| program.to_owned()),
        None => program.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_runtime_is_asked_for_what_it_has_and_an_unknown_one_for_everything() {
        let id = ContainerId::new("urunc-test-nobodys").unwrap();
        for known in KNOWN {
            assert_eq!(root_of(Path::new(known)), root_of(&Path::new("/usr/bin").join(known)));
            assert!(root_of(Path::new(known)).unwrap().ends_with(known), "{known}");
            assert!(!may_have(Path::new(known), &id), "{known}");
        }
        assert!(may_have(Path::new("/bin/sh"), &id));
        assert!(!may_have(Path::new("/nonexistent/runtime"), &id));
    }
}
