//! The functions that the compiler takes for granted.

use core::arch::asm;

/// Copies `size` bytes that do not overlap.
///
/// # Safety
/// As memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both ranges; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rcx") size => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

/// Fills `size` bytes.
///
/// # Safety
/// As memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, size: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the range; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep stosb", inout("rcx") size => _, inout("rdi") to => _, in("al") value as u8, options(nostack, preserves_flags));
    }
    to
}

/// Compares `size` bytes.
///
/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, size: usize) -> i32 {
    for at in 0..size {
        // SAFETY: the caller vouches for the range.
        let left = unsafe { left.wrapping_add(at).read_volatile() };
        // SAFETY: as above.
        let right = unsafe { right.wrapping_add(at).read_volatile() };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// The same; some compilers call it where only equality counts.
///
/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, size: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, size) }
}

/// Length of a string.
///
/// # Safety
/// As strlen(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller vouches for a terminating zero. Volatile, or the loop is turned into a call of itself.
    while unsafe { text.wrapping_add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
