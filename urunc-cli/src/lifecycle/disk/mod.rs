//! The guest's disk: its root file system and its volumes, from the decision to the giving back.
//!
//! ```text
//!   facts ──▶ urunc_rootfs::select, volumes::plan ──▶ DiskPlan            (nothing touched)
//!   create:   DiskPlan::equip (machine), furnish (monitor's root), share (virtiofsd), take (blocks)
//!   start:    compose (initrd in memory)
//!   teardown: release (blocks), in `recorded`
//! ```
//!
//! What a way to the guest consists of is `urunc-rootfs`'s knowledge; which one this container takes, and when each step
//! is carried out, is decided here.

mod access;
mod compose;
mod error;
mod facts;
mod plan;
mod recorded;
mod share;
mod snapshot;
mod support;
mod take;

pub(super) use compose::compose;
pub use error::DiskError;
pub(super) use plan::{DiskPlan, FrozenDisk, plan};
pub(super) use recorded::{KIND, ReleaseError, release, settle};
pub(super) use share::{helpers_memory, report_daemon};
pub(super) use take::Held;
