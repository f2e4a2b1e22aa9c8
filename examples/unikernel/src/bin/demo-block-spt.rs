//! The guest for solo5-spt, with a block device named `storage`.

#![no_std]
#![no_main]

demo_unikernel::unikernel!(Spt, block "storage");
