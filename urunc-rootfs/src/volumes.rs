//! How the container's volumes reach the guest, or why one cannot.
//!
//! [`plan`] decides; the caller carries out, way by way: a [`Delivery::Share`] becomes a bind in the
//! [monitor's root](crate::root), a [`Delivery::Disk`] a [handover](crate::block::Handover), and a
//! [`Delivery::Snapshot`] is read from a [`VolumeSource`] and put into an [initrd](crate::initrd) or
//! [copied](copy_into) into the container's root file system.

mod copy;
mod facts;
mod outcome;
mod plan;
mod source;

pub use copy::{Copied, CopyError, copy_into};
pub use facts::{Extent, Origin, SourceFacts, SourceKind, Volume};
pub use outcome::{
    Delivery, DiskId, Medium, Undeliverable, Undelivered, VolumePlan, VolumesError, Weight, Why,
};
pub use plan::{plan, weight};
pub use source::{Limits, SourceError, VolumeSource};
