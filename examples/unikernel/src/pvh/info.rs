//! The start info of a PVH boot: command line, memory map, where the ACPI tables begin.
//!
//! Layout: `struct hvm_start_info`, xen/include/public/arch-x86/hvm/start_info.h.

use crate::memory::{text_at, value_at};

/// What the loader left for the guest.
#[repr(C)]
pub(super) struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    acpi: u64,
    /// From here on in version 1 and later.
    memory_map: u64,
    memory_map_entries: u32,
}

/// Size of an entry of the memory map: address (u64), size (u64), kind (u32), padding.
const ENTRY: u64 = 24;
/// The kind of memory that a guest may use (`XEN_HVM_MEMMAP_TYPE_RAM`).
const USABLE: u32 = 1;

impl StartInfo {
    /// The command line; empty if there is none.
    pub(super) fn command_line(&self) -> &'static [u8] {
        // SAFETY: the loader put a text there, outside of the guest's image.
        unsafe { text_at(self.command_line as *const u8) }
    }

    /// Where the root of the ACPI tables is, or 0.
    pub(super) fn acpi(&self) -> u64 {
        self.acpi
    }

    /// The sum of the memory that the guest may use.
    pub(super) fn memory(&self) -> u64 {
        let mut sum = 0;
        if self.version > 0 {
            for index in 0..u64::from(self.memory_map_entries) {
                let entry = self.memory_map + index * ENTRY;
                // SAFETY: the loader vouches for that many entries.
                let size: u64 = unsafe { value_at(entry + 8) };
                // SAFETY: as above.
                let kind: u32 = unsafe { value_at(entry + 16) };
                if kind == USABLE {
                    sum += size;
                }
            }
        }
        sum
    }
}
