//! The guest for PVH or solo5-hvt, without devices.

#![no_std]
#![no_main]

demo_unikernel::unikernel!(Hvt);
