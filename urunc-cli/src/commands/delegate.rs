//! Containers that are no unikernels: handed to an ordinary runtime by `execve`, with unchanged arguments, for every
//! command. So pause containers, sidecars and `exec` into them work, and their exit status is the other runtime's.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use urunc_state::{ContainerId, StoreError};

use super::CommandError;
use crate::lifecycle::{LifecycleError, probe};

/// Where runc keeps its containers if it is given no `--root`, as we are not.
pub(super) const RUNC_ROOT: &str = "/run/runc";

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

/// Whether `error` says that the container is somebody else's. `root` is the state root, if one was given.
pub(super) fn concerns_another_runtime(error: &CommandError, root: Option<&Path>) -> bool {
    match error {
        CommandError::Lifecycle(LifecycleError::NotUnikernel { .. }) => true,
        CommandError::Lifecycle(LifecycleError::Store(StoreError::NotOurs { .. })) => true,
        CommandError::Lifecycle(LifecycleError::Store(StoreError::NotFound { id })) => {
            root.is_none() && is_runcs(id, Path::new(RUNC_ROOT))
        }
        _ => false,
    }
}

fn is_runcs(id: &ContainerId, root: &Path) -> bool {
    root.join(id.as_str()).join("state.json").exists()
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
