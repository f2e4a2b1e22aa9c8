//! Who a container is: ids, crash-safe state records, locks, process identity.
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod deadline;
mod id;
mod path;
mod pid;
mod process;
mod procfs;
mod signal;
mod sys;
mod timestamp;

pub use deadline::Deadline;
pub use id::{ContainerId, InvalidId};
pub use path::{AbsolutePath, InvalidPath};
pub use pid::{InvalidPid, Pid};
pub use process::{Delivery, ExeIdentity, Process, ProcessError, ProcessIdentity, Waited};
pub use signal::{Signal, UnknownSignal};
pub use timestamp::{InvalidTimestamp, Timestamp};
