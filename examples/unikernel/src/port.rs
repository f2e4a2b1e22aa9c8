//! Ports: how x86 talks to devices, and hvt guests to their tender.

use core::arch::asm;

/// What a read of a port gives where no device is.
pub(crate) const NOBODY: u8 = 0xff;

/// Reads a byte.
pub(crate) fn in8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: the guest owns its machine; no port changes memory behind the compiler's back.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, nomem, preserves_flags)) };
    value
}

/// Writes a byte.
pub(crate) fn out8(port: u16, value: u8) {
    // SAFETY: as above.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, nomem, preserves_flags)) };
}

/// Reads two bytes.
pub(crate) fn in16(port: u16) -> u16 {
    let value: u16;
    // SAFETY: as above.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nostack, nomem, preserves_flags)) };
    value
}

/// Writes two bytes.
pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: as above.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, nomem, preserves_flags)) };
}

/// Writes four bytes. Whatever they point to may be read and changed by whoever listens.
pub(crate) fn out32(port: u16, value: u32) {
    // SAFETY: only hypercalls use it, which change nothing but the block of arguments; without `nomem` the compiler
    // takes that into account.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}
