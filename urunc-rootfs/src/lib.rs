//! a container's disk: confined image access, rootfs selection, the monitor's root
#![deny(missing_docs)]
