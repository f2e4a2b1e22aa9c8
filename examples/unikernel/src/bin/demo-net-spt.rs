//! The guest for solo5-spt, with a network device named `service`.

#![no_std]
#![no_main]

demo_unikernel::unikernel!(Spt, net "service");
