//! A container's disk: confined access to its image, and the root directory that its monitor sees.
//!
//! - [`Image`]: files of an image, which is hostile input, opened below its root by the kernel itself.
//! - [`MountTable`] and [`mod@select`]: what is mounted, and which root file system the guest gets for which reasons.
//! - [`block`]: a mounted block device, taken from the host for the guest, and given back.
//! - [`initrd`]: an initrd with the container's own files added.
//! - [`volumes`]: by which way each of the container's mounts reaches the guest, or why none does.
//! - [`virtiofsd`]: the command line of the daemon that shares a directory with the guest.
//! - [`root`]: the monitor's root file system: planned as data, prepared as detached mounts, attached in
//!   the container's own mount namespace.
//!
//! Nothing here knows what a monitor or an OCI spec is, and nothing keeps a record: the caller writes down
//! what a plan says before carrying it out.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # std::fs::write(dir.path().join("urunc.json"), b"{}")?;
//! use urunc_rootfs::{Image, ImageError};
//!
//! let image = Image::open(dir.path())?;
//! // A link to `/etc/passwd` in the image would mean the image's own `/etc/passwd`, never the host's.
//! match image.read_small("/urunc.json", 64 * 1024) {
//!     Ok(json) => println!("{} bytes of configuration", json.len()),
//!     Err(ImageError::Missing { .. }) => println!("annotations only"),
//!     Err(e) => return Err(e.into()),
//! }
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod access;
pub mod block;
mod confined;
mod image;
pub mod initrd;
mod mounts;
mod probe;
pub mod root;
pub mod select;
mod sys;
pub mod virtiofsd;
pub mod volumes;

pub use access::Access;
pub use image::{FileKind, Image, ImageError, ImageFile};
pub use mounts::{DeviceNumber, Mount, MountId, MountTable, MountTableError, UnreadableLine};
pub use probe::ProbeError;
pub use select::select;
