//! From where a PVH loader leaves the processor (32-bit, no paging) to Rust in 64-bit mode.
//!
//! Interface: Xen's `docs/misc/pvh.pandoc`. ebx has the address of the start info, segments are flat, interrupts off.

use core::arch::{asm, global_asm};

global_asm!(
    // XEN_ELFNOTE_PHYS32_ENTRY (18, xen/include/public/elfnote.h) tells the loader where to start.
    ".section .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long pvh_start",

    ".section .text.pvh_start, \"ax\"",
    ".code32",
    "pvh_start:",
    "cli",
    "cld",
    "mov eax, cr4",
    "or eax, 0x20", // PAE
    "mov cr4, eax",
    "mov eax, offset page_map",
    "mov cr3, eax",
    "mov ecx, 0xc0000080", // EFER
    "rdmsr",
    "or eax, 0x100", // long mode enable
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80000001", // paging, protection
    "mov cr0, eax",
    "lgdt [gdt_pointer]",
    // A far jump, which this assembler has no Intel spelling for.
    ".byte 0xea",
    ".long 2f",
    ".word 8",
    ".code64",
    "2:",
    "mov eax, 16",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "lea rsp, [rip + stack_top]",
    "xor ebp, ebp",
    "mov edi, ebx",
    "call {main}",

    ".section .data.pvh, \"aw\"",
    // The low 4 GiB, one to one in pages of 2 MiB: memory, tables and devices of a small guest lie there.
    // Written by the assembler, because a loop takes long where the guest is interpreted.
    ".balign 4096",
    "page_map:",
    ".quad page_pointers + 3, device_pointers + 3", // present, writable
    ".fill 510, 8, 0",
    "page_pointers:",
    ".quad pages + 0x0003, pages + 0x1003, pages + 0x2003, pages + 0x3003",
    ".fill 508, 8, 0",
    "pages:",
    ".set address, 0",
    ".rept 2048",
    ".quad address + 0x83", // present, writable, large
    ".set address, address + 0x200000",
    ".endr",
    // Null, 64-bit code, data; marked as accessed, or the processor would write that.
    "gdt:",
    ".quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "gdt_pointer:",
    ".word 23",
    ".long gdt",
    // One page above those 512 GiB, for `map_device`.
    ".balign 4096",
    "device_pointers:",
    ".quad device_page + 3",
    ".fill 511, 8, 0",
    ".section .bss.pvh, \"aw\", @nobits",
    ".global device_page",
    ".balign 4096",
    "device_page:",
    ".skip 4096",
    ".text",
    main = sym super::main,
);

/// The end of the part of memory that can be reached.
pub(super) const MAPPED: u64 = 1 << 32;

/// Where `map_device` puts its page.
const DEVICE_WINDOW: u64 = 1 << 39;
const LARGE_PAGE: u64 = 1 << 21;

unsafe extern "C" {
    static mut device_page: u64;
}

/// Makes a device reachable and returns where. There is room for one that lies above 4 GiB.
pub(super) fn map_device(address: u64) -> u64 {
    if address < MAPPED {
        return address;
    }
    let page = address & !(LARGE_PAGE - 1);
    let entry = &raw mut device_page;
    // SAFETY: nobody else refers to the entry, and nobody has used the window yet. Present, writable, not cached, large.
    unsafe { entry.write_volatile(page | 0x93) };
    DEVICE_WINDOW + (address - page)
}

/// Resets the machine by an exception that cannot be delivered.
pub(super) fn triple_fault() -> ! {
    static NOTHING: [u8; 10] = [0; 10];
    // SAFETY: does not come back.
    unsafe { asm!("lidt [{}]", "int3", "2: hlt", "jmp 2b", in(reg) &raw const NOTHING, options(noreturn)) }
}
