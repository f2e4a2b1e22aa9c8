//! How the container's volumes reach the guest, or why one cannot.
//!
//! [`plan`] decides; the caller carries out, way by way: a [`Delivery::Share`] becomes a bind in the
//! [monitor's root](crate::root), a [`Delivery::Disk`] a [handover](crate::block::Handover), and a
//! [`Delivery::Snapshot`] is read from a [`VolumeSource`] and put into an [initrd](crate::initrd) or
//! [copied](copy_into) into the container's root file system.

mod copy;
mod plan;
mod source;

pub use copy::{Copied, CopyError, copy_into};
pub use plan::{
    Delivery, DiskId, Extent, Medium, Origin, SourceFacts, SourceKind, Undeliverable, Undelivered, Volume,
    VolumePlan, VolumesError, Weight, Why, plan,
};
pub use source::{Limits, SourceError, VolumeSource};
