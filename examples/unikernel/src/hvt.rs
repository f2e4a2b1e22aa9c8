//! Booted by `solo5-hvt`: 64-bit mode, memory mapped one to one, everything else by hypercall.
//!
//! Interface: Solo5's `include/hvt_abi.h`, version 2. There is no console input, and no way to ask for a stop.

use core::arch::{asm, global_asm};

use crate::manifest::{self, Net};
use crate::memory::text_at;
use crate::platform::{Input, Platform};
use crate::port::out32;
use crate::program;

// The tender passes its boot information in rdi. The stack is ours, as on every other boot path.
global_asm!(
    ".section .text.hvt_start, \"ax\"",
    ".global hvt_start",
    "hvt_start:",
    "lea rsp, [rip + stack_top]",
    "xor ebp, ebp",
    "call {main}",
    ".section .bss.stack, \"aw\", @nobits",
    ".global stack_top",
    ".balign 16",
    ".skip 16384",
    "stack_top:",
    ".text",
    main = sym main,
);

/// What the tender tells its guest.
#[repr(C)]
struct BootInfo {
    memory: u64,
    kernel_end: u64,
    cycles_per_second: u64,
    command_line: *const u8,
    manifest: u64,
}

extern "C" fn main(info: &'static BootInfo) -> ! {
    // SAFETY: the tender wrote a text there before it started the guest, and writes no more.
    let command_line = unsafe { text_at(info.command_line) };
    // SAFETY: the tender put the manifest there.
    let net = unsafe { manifest::first_net(info.manifest) };
    program::run(&Hvt { info, net, started: core::cell::Cell::new(0) }, command_line)
}

struct Hvt {
    info: &'static BootInfo,
    net: Option<Net>,
    /// The cycle counter when the clock was started.
    started: core::cell::Cell<u64>,
}

/// Hypercall numbers, which are ports from here on.
const HYPERCALLS: u16 = 0x500;
const PUTS: u16 = 2;
const POLL: u16 = 3;
const NET_WRITE: u16 = 6;
const NET_READ: u16 = 7;
const HALT: u16 = 8;

/// Calls the tender. It gets the address of the arguments; guests lie below 4 GiB.
fn hypercall<T>(number: u16, arguments: &mut T) {
    #[expect(clippy::cast_possible_truncation, reason = "hvt gives no guest more than 4 GiB of memory")]
    out32(HYPERCALLS + number, core::ptr::from_mut(arguments).expose_provenance() as u32);
}

#[repr(C)]
struct Puts {
    text: *const u8,
    length: usize,
}

#[repr(C)]
struct Poll {
    nanoseconds: u64,
    ready: u64,
    result: i32,
}

/// Of both directions. The tender writes the length of what it read.
#[repr(C)]
struct Frame {
    device: u64,
    data: *const u8,
    length: usize,
    /// 0 is success, 1 that there is nothing to read.
    result: i32,
}

#[repr(C)]
struct Halt {
    cookie: u64,
    status: i32,
}

impl Platform for Hvt {
    fn booted_by(&self) -> &'static str {
        "solo5-hvt"
    }

    fn memory(&self) -> u64 {
        self.info.memory
    }

    fn write(&self, text: &[u8]) {
        hypercall(PUTS, &mut Puts { text: text.as_ptr(), length: text.len() });
    }

    fn read(&self) -> Option<u8> {
        None
    }

    fn input(&self) -> Input {
        Input::Absent
    }

    fn sleep(&self) {
        // A frame that comes in ends it earlier, and nothing else does.
        hypercall(POLL, &mut Poll { nanoseconds: 3_600_000_000_000, ready: 0, result: 0 });
    }

    fn start_clock(&self) {
        self.started.set(cycles());
    }

    fn elapsed(&self) -> u64 {
        let cycles = cycles().wrapping_sub(self.started.get());
        // Millions first, so that nothing overflows within hours.
        let per_microsecond = (self.info.cycles_per_second / 1_000_000).max(1);
        cycles.checked_div(per_microsecond).unwrap_or(0).saturating_mul(1000)
    }

    fn describe_devices(&self) {
        // SAFETY: the tender put the manifest there.
        unsafe { manifest::describe(self, self.info.manifest) };
    }

    fn network(&self) -> Option<[u8; 6]> {
        self.net.map(|net| net.mac)
    }

    fn receive(&self, room: &mut [u8]) -> Option<usize> {
        let device = self.net?.index;
        let mut frame = Frame { device, data: room.as_mut_ptr(), length: room.len(), result: 0 };
        hypercall(NET_READ, &mut frame);
        if frame.result == 0 { Some(frame.length) } else { None }
    }

    fn send(&self, frame: &[u8]) {
        if let Some(net) = self.net {
            let (data, length) = (frame.as_ptr(), frame.len());
            hypercall(NET_WRITE, &mut Frame { device: net.index, data, length, result: 0 });
        }
    }

    fn power_off(&self, status: u8) -> ! {
        loop {
            hypercall(HALT, &mut Halt { cookie: 0, status: i32::from(status) });
        }
    }
}

fn cycles() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nostack, nomem, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}
