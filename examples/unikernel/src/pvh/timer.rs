//! Sleep and time from the local interrupt controller, the one timer that all these machines have.
//!
//! Its timer counts nanoseconds: 1 GHz is what KVM (`APIC_BUS_CYCLE_NS_DEFAULT`, arch/x86/kvm/lapic.h) and QEMU
//! (hw/intc/apic_common.c) emulate, undivided. Registers: Intel SDM volume 3, "Local APIC Register Address Map".

use core::arch::{asm, global_asm};
use core::cell::Cell;

use crate::port::out8;

/// How often `sleep` returns.
pub(super) const SLEEPS_PER_SECOND: u32 = 50;

const REGISTERS: u64 = 0xfee0_0000;
const SPURIOUS: u64 = 0xf0;
const TIMER_VECTOR: u64 = 0x320;
const INITIAL_COUNT: u64 = 0x380;
const CURRENT_COUNT: u64 = 0x390;
const DIVIDER: u64 = 0x3e0;
const UNDIVIDED: u32 = 0b1011;
const MASKED: u32 = 1 << 16;

/// Vectors of our two interrupts; the ones below 32 belong to the processor.
const TICK: u32 = 0x20;
const STRAY: u32 = 0x2f;

global_asm!(
    ".section .text.interrupts, \"ax\"",
    ".global interrupt_tick, interrupt_stray",
    "interrupt_tick:",
    "push rax",
    "mov eax, 0xfee000b0", // end of interrupt
    "mov dword ptr [rax], 0",
    "pop rax",
    "interrupt_stray:",
    "iretq",
    ".section .bss.interrupts, \"aw\", @nobits",
    ".global interrupts",
    ".balign 16",
    "interrupts: .skip 0x300", // up to and with the vector 0x2f
    ".section .rodata.interrupts, \"a\"",
    ".global interrupts_pointer",
    "interrupts_pointer:",
    ".word 0x2ff",
    ".quad interrupts",
    ".text",
);

unsafe extern "C" {
    safe fn interrupt_tick();
    safe fn interrupt_stray();
    static mut interrupts: [[u64; 2]; 0x30];
    static interrupts_pointer: [u8; 10];
}

pub(super) struct Timer {
    /// Nanoseconds that have passed since the clock was started, and what the counter showed then.
    elapsed: Cell<u64>,
    seen: Cell<u32>,
}

impl Timer {
    /// Sets up the interrupts of which `sleep` waits for one.
    pub(super) fn start() -> Self {
        // The interrupt controllers of old would deliver on the processor's own vectors.
        out8(0x21, 0xff);
        out8(0xa1, 0xff);
        set_handler(TICK, interrupt_tick);
        set_handler(STRAY, interrupt_stray);
        // SAFETY: the table was just filled, and stays.
        unsafe {
            asm!("lidt [{}]", in(reg) &raw const interrupts_pointer, options(nostack, preserves_flags))
        };
        write(SPURIOUS, 0x100 | STRAY); // enabled
        write(DIVIDER, UNDIVIDED);
        Self { elapsed: Cell::new(0), seen: Cell::new(0) }
    }

    /// Halts the processor until the timer fires.
    pub(super) fn sleep(&self) {
        write(TIMER_VECTOR, TICK);
        write(INITIAL_COUNT, 1_000_000_000 / SLEEPS_PER_SECOND);
        // SAFETY: interrupts are on for the duration of the halt only. The handlers preserve everything; as `nostack`
        // is not promised, the compiler has nothing below the stack pointer when they run.
        unsafe { asm!("sti", "hlt", "cli") };
    }

    /// Starts counting time. Not to be mixed with `sleep`.
    pub(super) fn start_clock(&self) {
        write(TIMER_VECTOR, MASKED | TICK);
        write(INITIAL_COUNT, u32::MAX);
        self.elapsed.set(0);
        self.seen.set(u32::MAX);
    }

    /// Nanoseconds since then; to be asked at least every 4 seconds.
    pub(super) fn elapsed(&self) -> u64 {
        let now = read(CURRENT_COUNT);
        let seen = self.seen.replace(now);
        if now < seen {
            self.elapsed.set(self.elapsed.get() + u64::from(seen - now));
        }
        // Not periodic, so that it also works where the counter stops at nought: start the next round in time.
        if now < u32::MAX / 2 {
            write(INITIAL_COUNT, u32::MAX);
            self.seen.set(u32::MAX);
        }
        self.elapsed.get()
    }
}

/// Enters a handler into the table: an interrupt gate of the code segment (Intel SDM volume 3, "64-Bit Mode IDT").
fn set_handler(vector: u32, handler: extern "C" fn()) {
    let address = handler as usize as u64;
    let low = address & 0xffff | 8 << 16 | 0x8e00 << 32 | (address >> 16 & 0xffff) << 48;
    let entry = (&raw mut interrupts).cast::<u64>().wrapping_add(2 * vector as usize);
    // SAFETY: within the table, to which nobody else refers. Volatile, or the two halves could become one write through
    // a vector register.
    unsafe { entry.write_volatile(low) };
    // SAFETY: as above.
    unsafe { entry.wrapping_add(1).write_volatile(address >> 32) };
}

fn read(register: u64) -> u32 {
    // SAFETY: mapped, and nothing but the controller is there.
    unsafe { ((REGISTERS + register) as *const u32).read_volatile() }
}

fn write(register: u64, value: u32) {
    // SAFETY: as above.
    unsafe { ((REGISTERS + register) as *mut u32).write_volatile(value) }
}
