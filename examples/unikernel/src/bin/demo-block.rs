//! The guest for PVH or solo5-hvt, with a block device named `storage`.

#![no_std]
#![no_main]

demo_unikernel::unikernel!(Hvt, block "storage");
