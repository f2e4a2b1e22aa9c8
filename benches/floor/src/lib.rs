//! What the programs share: system calls, memory functions that the compiler calls, the way in, and text.
//!
//! There is no C library, no allocator and no unwinding here: the floor is to show what the kernel needs, and nothing else.
#![no_std]

pub mod start;
pub mod sys;
pub mod text;

mod memory;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(101)
}
