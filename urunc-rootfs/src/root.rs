//! The monitor's root file system: a tmpfs that holds just what the monitor needs and vanishes with it.
//!
//! ```text
//!   Needs + HostLayout ──plan()──▶ MonitorRoot ──prepare()──▶ PreparedRoot ──attach()──▶ (this is `/`)
//!        facts                     plain data     `create`, host    `init`, own mount
//!                                                 mount namespace   namespace, one thread
//! ```
//!
//! `prepare` does everything that can fail for a reason that the user can mend: it opens every host path,
//! fills the tmpfs trees and keeps them as *detached* mounts, which no path leads to and which die with the
//! process. `attach` only moves them into place and pivots. The host's disk is not touched, so nothing is left to
//! delete, with one exception: what a shared directory lacks to mount something on is made there ([`MountPoint`]).

mod attach;
mod error;
mod layout;
mod needs;
mod plan;
mod prepare;
mod share;
mod target;
mod tree;

pub use attach::AttachError;
pub use error::PrepareError;
pub use layout::{HostLayout, TopLevel};
pub use needs::{
    Below, Binding, BootFile, ByteSize, Delivery, Device, DeviceKind, DeviceNode, HostBind, Later, Libraries,
    Needs, Owner, Proc, Scratch, Source, Tmpfs, Use,
};
pub use plan::{Entry, MonitorRoot, PlanError, plan};
pub use prepare::{Handle, MountPoint, PreparedRoot};
pub use share::{PreparedShare, SharedTree};
pub use target::{BadTarget, Target};
