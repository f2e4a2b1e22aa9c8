//! The demo unikernel: a guest without an operating system, in a few hundred lines, that every monitor boots.
//!
//! It says which way it was booted, how much memory it has and what its command line is, does what a few words of the
//! command line ask for, and powers the machine off. `README.md` tells how to run it.
//!
//! - [`program`]: what the guest does, whatever booted it; [`words`]: the command line that tells it
//! - [`platform`]: what a boot path has to offer the program; one implementation each:
//!   - `pvh`: QEMU, Firecracker, Cloud Hypervisor, and the machine that they emulate
//!   - `hvt`, `spt`: the two Solo5 tenders; [`manifest`]: the ELF notes that Solo5 wants
//! - [`net`]: answers to who asks for the guest; [`console`]: text; `port`, `memory`: the instructions below the language
//!
//! Nothing here may use the vector registers, or panic (the messages of panics are formatted with them). The compiler takes
//! those registers for every 16 bytes that it copies or zeroes in one piece: arrays stay behind references, or uninitialised.

#![cfg_attr(not(test), no_std)]

pub mod console;
#[cfg(not(test))]
mod hvt;
#[cfg(not(test))]
pub mod manifest;
#[cfg(not(test))]
mod memory;
pub mod net;
pub mod platform;
#[cfg(not(test))]
mod port;
pub mod program;
#[cfg(not(test))]
mod pvh;
#[cfg(not(test))]
mod spt;
pub mod words;

/// Where a panic would end. None can happen: `check.sh` looks that no code for it is in the files.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
