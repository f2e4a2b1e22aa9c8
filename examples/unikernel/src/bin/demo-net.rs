//! The guest for PVH or solo5-hvt, with a network device named `service`.

#![no_std]
#![no_main]

demo_unikernel::unikernel!(Hvt, net "service");
