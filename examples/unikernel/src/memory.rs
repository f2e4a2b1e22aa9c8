//! Memory below the language: reading what others have put somewhere, and the functions that compilers call unasked.

use core::arch::global_asm;

// The compiler turns loops over bytes into calls of these, wherever it likes. As assembly they cannot become calls to
// themselves.
global_asm!(
    ".section .text.memcpy, \"ax\"",
    ".global memcpy, memmove, memset, memcmp, bcmp, strlen",
    "memcpy:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    "memmove:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "sub rdi, rsi",
    "cmp rdi, rdx",
    "mov rdi, rax",
    "jb 2f",
    "rep movsb",
    "ret",
    "2:",
    "lea rdi, [rdi + rcx - 1]",
    "lea rsi, [rsi + rcx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    "memset:",
    "mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    "memcmp:",
    "bcmp:",
    "xor eax, eax",
    "mov rcx, rdx",
    "cmp rcx, rcx",
    "repe cmpsb",
    "je 2f",
    "movzx eax, byte ptr [rdi - 1]",
    "movzx ecx, byte ptr [rsi - 1]",
    "sub eax, ecx",
    "2:",
    "ret",
    "strlen:",
    "xor eax, eax",
    "2:",
    "cmp byte ptr [rdi + rax], 0",
    "je 3f",
    "inc rax",
    "jmp 2b",
    "3:",
    "ret",
    ".text",
);

/// The text at an address, up to the zero that ends it. A null pointer is an empty text.
///
/// # Safety
///
/// A text that ends lies there and does not change any more.
pub(crate) unsafe fn text_at(address: *const u8) -> &'static [u8] {
    if address.is_null() {
        return &[];
    }
    let mut length = 0;
    // SAFETY: the caller vouches for every byte up to the zero.
    while unsafe { address.wrapping_add(length).read_volatile() } != 0 {
        length += 1;
    }
    // SAFETY: these bytes were just read, and do not change.
    unsafe { core::slice::from_raw_parts(address, length) }
}

/// Reads a value at an address that need not be aligned for it.
///
/// # Safety
///
/// Memory or a device is there, and every pattern of bits is a `T`.
pub(crate) unsafe fn value_at<T: Copy>(address: u64) -> T {
    // SAFETY: the caller vouches for it; x86 reads unaligned values, and no reference is made.
    unsafe { (address as *const T).read_unaligned() }
}
