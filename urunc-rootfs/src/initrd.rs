//! An initrd from the image with the container's own files added, composed in one pass and never in the image.
//!
//! The format is cpio "newc" (`Documentation/driver-api/early-userspace/buffer-format.rst` in the kernel's sources).
//! What is added, and where the result goes, is the caller's business.

mod compose;
mod index;
mod newc;

pub use compose::{Addition, Content, Dialect, InitrdError, compose};
