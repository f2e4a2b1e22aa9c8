//! Who a container is: ids, crash-safe state records, locks, process identity.
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod atomic;
mod deadline;
mod document;
mod error;
mod id;
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
pub use lock::{Lock, Locked};
pub use observe::{Freezer, Liveness, Observed, observe, status};
pub use oci_state::OciState;
pub use origin::Origin;
pub use path::{AbsolutePath, InvalidPath};
pub use pid::{InvalidPid, Pid};
pub use pid_file::{PidFile, PidFileError};
pub use process::{Delivery, ExeIdentity, Process, ProcessError, ProcessIdentity, Waited};
pub use record::{Details, Record, Resource};
pub use schema::SchemaError;
pub use signal::{Signal, UnknownSignal};
pub use status::{Event, IllegalTransition, Status};
pub use store::Store;
pub use sweep::Swept;
pub use timestamp::{InvalidTimestamp, Timestamp};

pub(crate) use schema::Schema;
