//! Who a container is: ids, crash-safe state records, locks, process identity.
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod deadline;
mod id;
mod path;
mod timestamp;

pub use deadline::Deadline;
pub use id::{ContainerId, InvalidId};
pub use path::{AbsolutePath, InvalidPath};
pub use timestamp::{InvalidTimestamp, Timestamp};
