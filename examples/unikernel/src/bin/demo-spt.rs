//! The guest for solo5-spt, without devices.

#![no_std]
#![no_main]

demo_unikernel::unikernel!(Spt);
