//! What the commands do to containers. Each file is one verb; [`Runtime`] is what they share.
//!
//! ```text
//!   create ─▶ start ─▶ kill ─▶ delete          run = create, start, wait, delete
//!       └───────┴─────────┴───────┴──▶ teardown: the one way in which anything is ever released
//! ```

mod create;
mod delete;
mod disk;
mod error;
mod events;
mod hooks;
mod kill;
mod knative;
mod limits;
mod list;
mod network;
mod pause;
mod plan;
pub mod probe;
mod run;
mod salvage;
mod start;
mod state;
mod teardown;
mod update;

use std::path::{Path, PathBuf};
use std::time::Duration;

use urunc_state::{ContainerId, Deadline, Locked, Store};

use crate::config::Config;

pub use crate::sandbox::settings::Keyring;
pub(crate) use create::is_unikernel;
pub use create::{CgroupDriver, Console, CreateRequest, Created};
pub use delete::Force;
pub use disk::DiskError;
pub use error::{LifecycleError, StartError};
pub use events::Happening;
pub use limits::LimitsError;
pub use list::Entry;
pub use network::NetworkError;
pub use plan::{PlanError, Rehearsal, find_monitor, rehearse};
pub use run::{RunRequest, Waiting};
pub use teardown::TeardownError;

/// How long a command waits for another one that works on the same container.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
/// How long init may take for one of its steps; each is a few system calls.
const INIT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a process may take to disappear after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// The state root when root runs us.
const SYSTEM_ROOT: &str = "/run/urunc";

/// A state root and a configuration: all that the verbs need besides their arguments.
#[derive(Debug)]
pub struct Runtime {
    store: Store,
    config: Config,
}

impl Runtime {
    /// Opens the state root `root`, or the default one.
    ///
    /// # Errors
    /// [`LifecycleError::Store`] if the directory cannot be made or used.
    pub fn open(root: Option<&Path>, config: Config) -> Result<Self, LifecycleError> {
        let root = root.map_or_else(default_root, Path::to_owned);
        let root =
            std::path::absolute(&root).map_err(|source| LifecycleError::StateRoot { path: root, source })?;
        Ok(Self { store: Store::open(&root)?, config })
    }

    fn lock(&self, id: &ContainerId) -> Result<Locked, LifecycleError> {
        Ok(self.store.lock(id, Deadline::after(LOCK_PATIENCE))?)
    }
}

/// The state root if none is given.
pub(crate) fn default_root() -> PathBuf {
    let runtime_directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    match runtime_directory {
        Some(directory) if !rustix::process::geteuid().is_root() => Path::new(&directory).join("urunc"),
        _ => PathBuf::from(SYSTEM_ROOT),
    }
}
