//! Who a container is: ids, crash-safe state records, locks, process identity.
//!
//! A [`Store`] is a directory of containers. Each has an [`Origin`], written once before the container appears,
//! and a [`Record`], replaced as a whole by whoever holds the container ([`Locked`]). A crash at any instant
//! leaves the old record or the new one, and leaves no lock behind. A [`Process`] is the recorded one or none at
//! all, never another with the same number. [`status()`] says what a container is doing, from what the kernel
//! says rather than from what was written down.
//!
//! ```
//! use std::time::Duration;
//! use urunc_state::{AbsolutePath, ContainerId, Deadline, Origin, Record, Status, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let root = directory.path();
//! let store = Store::open(root)?;
//! let id = ContainerId::new("web-1")?;
//! let bundle = AbsolutePath::new("/run/bundles/web-1")?;
//!
//! let mut held = store.create(&Origin::new(id.clone(), bundle.clone()), Record::new(id.clone(), bundle))?;
//! held.update(|record| record.urunc.monitor = "qemu".to_owned())?;
//! drop(held);
//!
//! assert_eq!(store.read(&id)?.urunc.monitor, "qemu");
//! assert_eq!(store.read(&id)?.current_status()?, Status::Creating);
//!
//! store.remove(store.lock(&id, Deadline::after(Duration::from_secs(10)))?)?;
//! assert!(store.list()?.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It knows no bundle, no monitor and no network: what they need recorded goes into [`Details`] and
//! [`Resource`] as their own [`Json`]. It releases nothing but its own files; which resource needs what is known to
//! whoever made it. It decides nothing about a container's life beyond the table in [`Status::after`].
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod atomic;
mod create;
mod deadline;
mod document;
mod error;
mod files;
mod id;
mod identity;
mod json;
mod lock;
mod observe;
mod oci_state;
mod origin;
mod path;
mod pid;
mod pid_file;
mod process;
mod procfs;
mod record;
mod remove;
mod schema;
mod signal;
mod status;
mod store;
mod sweep;
mod sys;
mod timestamp;
mod tree;
mod unique;

pub use atomic::WriteError;
pub use deadline::Deadline;
pub use document::DocumentError;
pub use error::StoreError;
pub use id::{ContainerId, InvalidId};
pub use identity::{ExeIdentity, ProcessIdentity};
pub use json::Json;
pub use lock::{Lock, Locked};
pub use observe::{Freezer, Liveness, Observed, Seen, observe, status};
pub use oci_state::OciState;
pub use origin::Origin;
pub use path::{AbsolutePath, InvalidPath};
pub use pid::{InvalidPid, Pid};
pub use pid_file::{PidFile, PidFileError};
pub use process::{Delivery, Process, ProcessError, Waited};
pub use record::{Details, Record, Resource};
pub use schema::SchemaError;
pub use signal::{Signal, UnknownSignal};
pub use status::{Event, IllegalTransition, Status};
pub use store::Store;
pub use sweep::Swept;
pub use timestamp::{InvalidTimestamp, Timestamp};

pub(crate) use schema::Schema;
