//! The ELF notes that the Solo5 tenders read before they start a guest, and the manifest that they hand to it.
//!
//! Formats: Solo5's `include/elf_abi.h` and `include/mft_abi.h`, both version 1 of their notes. The structures are
//! packed to four bytes, the alignment of notes, with the padding of the originals spelt out.

use crate::console::Line;
use crate::memory::{text_at, value_at};
use crate::platform::Platform;

/// "ABI1".
const ABI_NOTE: u32 = 0x3149_4241;
/// "MFT1".
const MANIFEST_NOTE: u32 = 0x3154_464d;
const SOLO5: [u8; 8] = *b"Solo5\0\0\0";

const BLOCK: u32 = 1;
const NET: u32 = 2;
/// The first entry of every manifest, which the Solo5 bindings keep for themselves.
const RESERVED: u32 = 1 << 30;

/// A note: who makes it, what it is, and its contents.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug)]
pub struct Note<T: Copy> {
    name_size: u32,
    contents_size: u32,
    kind: u32,
    name: [u8; 8],
    contents: T,
}

impl<T: Copy> Note<T> {
    const fn new(kind: u32, contents: T) -> Self {
        assert!(size_of::<T>() < 1 << 16, "a note is small");
        #[expect(clippy::cast_possible_truncation, reason = "asserted above, at compile time")]
        let contents_size = size_of::<T>() as u32;
        // The size of the name counts its zero, and no padding.
        Self { name_size: 6, contents_size, kind, name: SOLO5, contents }
    }
}

/// Which tender can run a guest.
#[derive(Clone, Copy, Debug)]
pub enum Tender {
    /// `solo5-hvt`, on KVM.
    Hvt = 1,
    /// `solo5-spt`, a sandboxed process.
    Spt = 2,
}

/// The contents of the note that says which tender a guest is for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Abi {
    target: u32,
    version: u32,
    reserved: [u32; 2],
}

/// The note that says which tender a guest is for.
#[must_use]
pub const fn abi(tender: Tender) -> Note<Abi> {
    Note::new(ABI_NOTE, Abi { target: tender as u32, version: 2, reserved: [0; 2] })
}

/// One device of a manifest: in the file its name and kind; for the running guest also what the tender attached.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    name: [u8; 68],
    kind: u32,
    /// Of a block device: size in bytes (u64), size of a block (u16). Of a network device: MAC, MTU (u16).
    properties: [u8; 16],
    backing: [u8; 8],
    attached: u8,
    padding: [u8; 7],
}

impl Entry {
    const fn new(name: &str, kind: u32) -> Self {
        let name = name.as_bytes();
        assert!(name.len() < 68, "a name has at most 67 bytes");
        let mut bytes = [0; 68];
        let mut at = 0;
        while at < name.len() {
            bytes[at] = name[at];
            at += 1;
        }
        Self { name: bytes, kind, properties: [0; 16], backing: [0; 8], attached: 0, padding: [0; 7] }
    }

    /// A network device that must be attached under this name.
    #[must_use]
    pub const fn net(name: &str) -> Self {
        Self::new(name, NET)
    }

    /// A block device that must be attached under this name.
    #[must_use]
    pub const fn block(name: &str) -> Self {
        Self::new(name, BLOCK)
    }

    /// The entry that every manifest starts with.
    #[must_use]
    pub const fn reserved() -> Self {
        Self::new("", RESERVED)
    }
}

/// The contents of the note that declares a guest's devices.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug)]
pub struct Manifest<const N: usize> {
    /// Aligns what follows to eight bytes after the note's head. Counted in the note, but no part of the manifest.
    alignment: u32,
    version: u32,
    count: u32,
    entries: [Entry; N],
}

/// The note that declares a guest's devices. The first entry is [`Entry::reserved`].
#[must_use]
pub const fn manifest<const N: usize>(entries: [Entry; N]) -> Note<Manifest<N>> {
    assert!(N <= 64, "a manifest has at most 64 entries");
    #[expect(clippy::cast_possible_truncation, reason = "asserted above, at compile time")]
    let count = N as u32;
    Note::new(MANIFEST_NOTE, Manifest { alignment: 0, version: 1, count, entries })
}

/// Puts the notes of a guest into its file, and has its entry points linked.
#[macro_export]
macro_rules! unikernel {
    ($tender:ident $(, $kind:ident $name:literal)*) => {
        // Nothing else would make the linker look into the library.
        use demo_unikernel as _;

        /// Keeps the host from executing the file: it has no such interpreter.
        #[used]
        #[unsafe(link_section = ".interp")]
        static INTERPRETER: [u8; 20] = *b"/nonexistent/solo5/\0";

        #[used]
        #[unsafe(link_section = ".note.solo5.abi")]
        static ABI: $crate::manifest::Note<$crate::manifest::Abi> =
            $crate::manifest::abi($crate::manifest::Tender::$tender);

        #[used]
        #[unsafe(link_section = ".note.solo5.manifest")]
        static MANIFEST: $crate::manifest::Note<
            $crate::manifest::Manifest<{ 1 $(+ { let _: &str = $name; 1 })* }>
        > = $crate::manifest::manifest([
            $crate::manifest::Entry::reserved(),
            $($crate::manifest::Entry::$kind($name)),*
        ]);
    };
}

/// A network device that a tender attached.
#[derive(Clone, Copy)]
pub(crate) struct Net {
    /// Its place in the manifest, which is its name for hypercalls.
    pub(crate) index: u64,
    /// Its MAC address.
    pub(crate) mac: [u8; 6],
    /// The descriptor of its TAP, which a process uses itself.
    pub(crate) descriptor: u32,
}

/// The first network device.
///
/// # Safety
///
/// As for [`describe`].
pub(crate) unsafe fn first_net(address: u64) -> Option<Net> {
    // SAFETY: the caller vouches for the manifest.
    let count: u32 = unsafe { value_at(address + 4) };
    for index in 0..u64::from(count) {
        let entry = address + 8 + index * size_of::<Entry>() as u64;
        // SAFETY: as above.
        if unsafe { value_at::<u32>(entry + 68) } == NET {
            // SAFETY: as above.
            let mac = unsafe { value_at(entry + 72) };
            // SAFETY: as above.
            let descriptor = unsafe { value_at(entry + 88) };
            return Some(Net { index, mac, descriptor });
        }
    }
    None
}

/// Tells which devices a tender attached, a line each.
///
/// # Safety
///
/// At the address lies the manifest that the tender gave to the guest: version, count, entries.
pub(crate) unsafe fn describe<P: Platform>(platform: &P, address: u64) {
    // SAFETY: the caller vouches for the manifest.
    let count: u32 = unsafe { value_at(address + 4) };
    let mut line = Line::new(platform);
    for index in 0..u64::from(count) {
        let entry = address + 8 + index * size_of::<Entry>() as u64;
        // SAFETY: as above; the tender made sure that each name ends.
        let name = unsafe { text_at(entry as *const u8) };
        // SAFETY: as above.
        let kind: u32 = unsafe { value_at(entry + 68) };
        let properties = entry + 72;
        match kind {
            NET => {
                line.text(b"net ").text(name).text(b": mac ");
                for at in 0..6 {
                    if at > 0 {
                        line.text(b":");
                    }
                    // SAFETY: as above.
                    line.hex(unsafe { value_at(properties + at) });
                }
                // SAFETY: as above.
                let mtu: u16 = unsafe { value_at(properties + 6) };
                line.text(b", mtu ").number(u64::from(mtu)).end();
            }
            BLOCK => {
                // SAFETY: as above.
                let size: u64 = unsafe { value_at(properties) };
                // SAFETY: as above.
                let block: u16 = unsafe { value_at(properties + 8) };
                line.text(b"block ").text(name).text(b": ").number(size).text(b" bytes in blocks of ");
                line.number(u64::from(block)).end();
            }
            _ => {}
        }
    }
}
