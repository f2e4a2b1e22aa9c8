//! A mounted block device that goes to the guest: never while the host, or anybody else, still has it mounted.
//!
//! ```text
//!   plan ──take()──▶ unmounted on the host, held exclusively ──▶ the guest
//!    │                        │ failed: mounted again
//!    └─(recorded)─ give_back() ◀── when the guest is gone (volumes only)
//! ```
//!
//! The [`Handover`] is plain data: record it before [`Handover::take`], then [`Handover::give_back`] can be called in
//! any state of completion, by anybody, any number of times.

mod device;
mod give_back;
mod handover;
mod holders;

pub use device::BlockDevice;
pub use give_back::{GiveBackError, GivenBack};
pub use handover::{Afterwards, BlockError, Handover};
pub use holders::{Holder, HolderList};
