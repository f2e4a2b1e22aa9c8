//! What a kernel file is: format, architecture, entry, notes. Reads a bounded part of it, trusts nothing in it,
//! and leaves to [`crate::Monitor`] who can boot it.

mod elf;
mod note;
pub mod solo5;

use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};

use crate::Arch;
pub use elf::{Elf, ElfClass, ElfKind, Load, Pvh};

/// A kernel, as far as booting it depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelImage {
    /// The architecture that it runs on.
    pub arch: Arch,
    /// Its format.
    pub format: Format,
}

/// The format of a kernel file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// An ELF executable.
    Elf(Elf),
    /// An x86 Linux `bzImage` (Linux, Documentation/arch/x86/boot.rst).
    BzImage,
    /// An arm64 Linux `Image` (Linux, Documentation/arch/arm64/booting.rst).
    Arm64Image,
    /// An arm64 Linux `Image` compressed by gzip, as distributions ship it.
    GzippedArm64Image,
}

impl Format {
    /// Returns a name for messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Elf(Elf { class: ElfClass::Bits32, .. }) => "32-bit ELF executable",
            Self::Elf(_) => "64-bit ELF executable",
            Self::BzImage => "Linux bzImage",
            Self::Arm64Image => "arm64 Linux Image",
            Self::GzippedArm64Image => "gzip-compressed arm64 Linux Image",
        }
    }

    /// Returns the ELF contents, if it is one.
    #[must_use]
    pub const fn elf(&self) -> Option<&Elf> {
        match self {
            Self::Elf(elf) => Some(elf),
            Self::BzImage | Self::Arm64Image | Self::GzippedArm64Image => None,
        }
    }
}

/// A file that is no kernel for any monitor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// Reading failed.
    #[error("cannot read the kernel file")]
    Read(#[source] io::Error),
    /// Nothing in it.
    #[error("the kernel file is empty")]
    Empty,
    /// The file ends too early.
    #[error("the kernel file is cut short: {what} should be {size} bytes at offset {offset}")]
    Truncated {
        /// What is missing.
        what: &'static str,
        /// Where it should be.
        offset: u64,
        /// Its size.
        size: u64,
    },
    /// None of the known formats.
    #[error(
        "the kernel file is neither an ELF executable nor a Linux bzImage or arm64 Image: it starts with {start:02x?}"
    )]
    UnknownFormat {
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// An ELF file of a kind that no monitor boots.
    #[error("the kernel's ELF header is not usable: {what} is {value}, but must be {accepted}")]
    Header {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What is accepted.
        accepted: &'static str,
    },
    /// For a processor without monitors.
    #[error("the kernel is for ELF machine {machine}; only x86 (62, 3) and aarch64 (183) can be run")]
    ForeignMachine {
        /// `e_machine`.
        machine: u16,
    },
    /// A Solo5 note that cannot be understood.
    #[error("the kernel's Solo5 notes are not usable")]
    Solo5(#[source] solo5::NoteError),
}

/// Finds out what a kernel file is.
///
/// At most about 2 MiB are read, whatever the file claims; nothing in it can make this panic.
///
/// # Errors
/// [`InspectError`] says what is wrong with the file; the reader's position is unspecified afterwards.
pub fn inspect(mut file: impl Read + Seek) -> Result<KernelImage, InspectError> {
    // The header of bzImage lies in the first 1 KiB, a multiboot header in the first 8 KiB, and small kernels' notes in the first 16.
    let start = read_up_to(&mut file, 0, ROOM)?;
    if start.is_empty() {
        return Err(InspectError::Empty);
    }
    if start.starts_with(b"\x7fELF") {
        return elf::inspect(&mut file, &start);
    }
    let (arch, format) = if start.get(0x202..0x206) == Some(b"HdrS".as_slice()) {
        (Arch::X86_64, Format::BzImage)
    } else if start.get(56..60) == Some(b"ARM\x64".as_slice()) {
        (Arch::Aarch64, Format::Arm64Image)
    } else if start.starts_with(&[0x1f, 0x8b]) {
        (Arch::Aarch64, Format::GzippedArm64Image)
    } else {
        return Err(InspectError::UnknownFormat { start: start.iter().take(8).copied().collect() });
    };
    Ok(KernelImage { arch, format })
}

#[cfg(test)]
mod tests;

/// Room that is made before anything has been read.
const ROOM: u64 = 16 * 1024;

/// Reads `size` bytes at `offset`, or fewer where the file ends.
fn read_up_to(file: &mut (impl Read + Seek), offset: u64, size: u64) -> Result<Vec<u8>, InspectError> {
    // Without room, `read_to_end` begins with many small reads; but the file's own claim of a size earns no more than this.
    let room = usize::try_from(size.min(ROOM)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(room);
    file.seek(SeekFrom::Start(offset)).map_err(InspectError::Read)?;
    file.take(size).read_to_end(&mut bytes).map_err(InspectError::Read)?;
    Ok(bytes)
}

/// Reads exactly `size` bytes at `offset`.
fn read_at(
    file: &mut (impl Read + Seek),
    what: &'static str,
    offset: u64,
    size: u64,
) -> Result<Vec<u8>, InspectError> {
    let truncated = InspectError::Truncated { what, offset, size };
    // Offsets beyond what files can have make seek fail with EINVAL; to the user they are the same defect.
    if offset > i64::MAX as u64 {
        return Err(truncated);
    }
    let bytes = read_up_to(file, offset, size)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(truncated) }
}
