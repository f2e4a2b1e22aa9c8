//! The parts of an ELF executable that decide who can boot it (gABI chapters 4 and 5). Every number in the file
//! is taken as a claim: sizes are bounded before anything is read, sums are checked.

use std::io::{Read, Seek};

use serde::{Deserialize, Serialize};

use super::{
    Format, InspectError, KernelImage,
    note::notes,
    read_at,
    solo5::{Collector, Solo5},
};
use crate::Arch;

/// More program headers than any kernel has; Linux has five.
const MAX_HEADERS: u16 = 128;
/// Larger note segments are looked at only so far; together with `MAX_HEADERS` this bounds what is read.
const MAX_NOTES: u64 = 16 << 10;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY` (xen/interface/elfnote.h).
const PHYS32_ENTRY: u32 = 18;

/// An ELF executable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elf {
    /// 32 or 64 bit.
    pub class: ElfClass,
    /// Fixed or position independent.
    pub kind: ElfKind,
    /// The entry address.
    pub entry: u64,
    /// What is loaded into the guest's memory.
    pub loads: Vec<Load>,
    /// Whether it names an interpreter. A program with one is dynamically linked; a Solo5 kernel names one
    /// that does not exist, so that nobody executes it by mistake.
    pub interpreter: bool,
    /// The entry for Xen's PVH boot protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvh: Option<Pvh>,
    /// Whether it has a multiboot (version 1) header.
    pub multiboot: bool,
    /// Solo5's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solo5: Option<Solo5>,
}

/// The width of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ElfClass {
    /// `ELFCLASS32`.
    Bits32,
    /// `ELFCLASS64`.
    Bits64,
}

/// The type of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ElfKind {
    /// `ET_EXEC`.
    Fixed,
    /// `ET_DYN`.
    PositionIndependent,
}

/// A segment that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Its physical address.
    pub address: u64,
    /// Its size in memory.
    pub size: u64,
}

/// A PVH entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pvh {
    /// The 32-bit entry address.
    pub entry: u64,
    /// Whether its note is in the last note segment, the only one that Firecracker and Cloud Hypervisor look at.
    pub in_last_segment: bool,
}

impl Elf {
    /// Returns the first address above everything that is loaded.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.loads.iter().map(|load| load.address.saturating_add(load.size)).max().unwrap_or(0)
    }
}

/// Reads an ELF file whose first bytes are `start`.
pub(super) fn inspect(file: &mut (impl Read + Seek), start: &[u8]) -> Result<KernelImage, InspectError> {
    let header = Header::parse(start)?;
    let arch = match (header.machine, header.class) {
        (62, ElfClass::Bits64) | (3, ElfClass::Bits32) => Arch::X86_64,
        (183, ElfClass::Bits64) => Arch::Aarch64,
        (machine, _) => return Err(InspectError::ForeignMachine { machine }),
    };
    let size = u64::from(header.segment_count) * header.class.segment_size();
    let mut bytes_at = |what, offset, size| match within(start, offset, size) {
        Some(bytes) => Ok(bytes.to_vec()),
        None => read_at(file, what, offset, size),
    };
    let table = bytes_at("the program header table", header.segments, size)?;
    let segments: Vec<Segment> = table
        .chunks_exact(header.class.segment_size_usize())
        .filter_map(|bytes| Segment::parse(header.class, bytes))
        .collect();

    let mut elf = Elf {
        class: header.class,
        kind: header.kind,
        entry: header.entry,
        loads: loads(&segments)?,
        interpreter: segments.iter().any(|segment| segment.kind == PT_INTERP),
        pvh: None,
        multiboot: has_multiboot_header(start),
        solo5: None,
    };
    let mut collector = Collector::default();
    let last = segments.iter().rposition(|segment| segment.kind == PT_NOTE);
    for (index, segment) in segments.iter().enumerate().filter(|(_, segment)| segment.kind == PT_NOTE) {
        let bytes = bytes_at("a note segment", segment.offset, segment.file_size.min(MAX_NOTES))?;
        for note in notes(&bytes) {
            if note.owner == b"Xen\0" && note.kind == PHYS32_ENTRY {
                // The first entry found counts; a linker that merged several would be broken.
                let in_last_segment = Some(index) == last;
                elf.pvh = elf.pvh.or_else(|| {
                    let entry = little_endian(note.contents)?;
                    Some(Pvh { entry, in_last_segment })
                });
            }
            collector.note(&note).map_err(InspectError::Solo5)?;
        }
    }
    elf.solo5 = collector.finish().map_err(InspectError::Solo5)?;
    Ok(KernelImage { arch, format: Format::Elf(elf) })
}

/// A part of what has been read already.
fn within(start: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let from = usize::try_from(offset).ok()?;
    start.get(from..from.checked_add(usize::try_from(size).ok()?)?)
}

fn loads(segments: &[Segment]) -> Result<Vec<Load>, InspectError> {
    let loads: Vec<Load> = segments
        .iter()
        .filter(|segment| segment.kind == PT_LOAD && segment.memory_size > 0)
        .map(|segment| Load { address: segment.address, size: segment.memory_size })
        .collect();
    if loads.is_empty() {
        let what = "the number of loaded segments";
        return Err(InspectError::Header { what, value: 0, accepted: "at least 1" });
    }
    if let Some(load) = loads.iter().find(|load| load.address.checked_add(load.size).is_none()) {
        let (what, accepted) = ("the size of a segment", "so small that its end is an address");
        return Err(InspectError::Header { what, value: load.size, accepted });
    }
    Ok(loads)
}

/// Looks for a multiboot header: magic, flags and a checksum that makes their sum zero, within the first 8 KiB
/// (Multiboot specification 0.6.96, 3.1).
fn has_multiboot_header(start: &[u8]) -> bool {
    let (words, _) = start.get(..8192).unwrap_or(start).as_chunks::<4>();
    words.windows(3).any(|window| {
        let [magic, flags, checksum] = [window[0], window[1], window[2]].map(u32::from_le_bytes);
        magic == 0x1bad_b002 && magic.wrapping_add(flags).wrapping_add(checksum) == 0
    })
}

/// Reads a number of 4 or 8 bytes, the two widths that a PVH note is seen with.
fn little_endian(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => bytes.try_into().ok().map(|bytes| u64::from(u32::from_le_bytes(bytes))),
        8 => bytes.try_into().ok().map(u64::from_le_bytes),
        _ => None,
    }
}

impl ElfClass {
    const fn segment_size_usize(self) -> usize {
        match self {
            Self::Bits32 => 32,
            Self::Bits64 => 56,
        }
    }

    const fn segment_size(self) -> u64 {
        self.segment_size_usize() as u64
    }
}

/// Reads numbers of known width at known offsets; `None` past the end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&self, offset: usize) -> Option<u16> {
        self.0.get(offset..)?.first_chunk().copied().map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Option<u32> {
        self.0.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Option<u64> {
        self.0.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
    }
}

/// The ELF header.
struct Header {
    class: ElfClass,
    kind: ElfKind,
    machine: u16,
    entry: u64,
    segments: u64,
    segment_count: u16,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, InspectError> {
        let truncated = || InspectError::Truncated { what: "the ELF header", offset: 0, size: 64 };
        let refuse = |what, value: u64, accepted| Err(InspectError::Header { what, value, accepted });
        let byte = |index: usize| bytes.get(index).copied().ok_or_else(truncated);
        let class = match byte(4)? {
            1 => ElfClass::Bits32,
            2 => ElfClass::Bits64,
            other => return refuse("the class", other.into(), "1 or 2 (32 or 64 bit)"),
        };
        if byte(5)? != 1 {
            return refuse("the byte order", byte(5)?.into(), "1 (little-endian)");
        }
        let fields = Fields(bytes);
        let read = || {
            let (entry, segments, entry_size, count) = match class {
                ElfClass::Bits32 => {
                    (fields.u32(24)?.into(), fields.u32(28)?.into(), fields.u16(42)?, fields.u16(44)?)
                }
                ElfClass::Bits64 => (fields.u64(24)?, fields.u64(32)?, fields.u16(54)?, fields.u16(56)?),
            };
            Some((fields.u16(16)?, fields.u16(18)?, entry, segments, entry_size, count))
        };
        let (kind, machine, entry, segments, entry_size, segment_count) = read().ok_or_else(truncated)?;
        let kind = match kind {
            2 => ElfKind::Fixed,
            3 => ElfKind::PositionIndependent,
            other => return refuse("the type", other.into(), "2 or 3 (an executable)"),
        };
        if usize::from(entry_size) != class.segment_size_usize() {
            return refuse("the size of a program header", entry_size.into(), "32 or 56, as in its class");
        }
        if !(1..=MAX_HEADERS).contains(&segment_count) {
            return refuse("the number of program headers", segment_count.into(), "1 to 128");
        }
        Ok(Self { class, kind, machine, entry, segments, segment_count })
    }
}

/// A program header.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

impl Segment {
    fn parse(class: ElfClass, bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes);
        let kind = fields.u32(0)?;
        Some(match class {
            ElfClass::Bits32 => Self {
                kind,
                offset: fields.u32(4)?.into(),
                address: fields.u32(12)?.into(),
                file_size: fields.u32(16)?.into(),
                memory_size: fields.u32(20)?.into(),
            },
            ElfClass::Bits64 => Self {
                kind,
                offset: fields.u64(8)?,
                address: fields.u64(24)?,
                file_size: fields.u64(32)?,
                memory_size: fields.u64(40)?,
            },
        })
    }
}
