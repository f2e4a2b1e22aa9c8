//! Solo5's ELF notes: which tender a kernel was linked for, and the devices that it declares
//! (Solo5 `include/elf_abi.h` and `include/mft_abi.h`, ABI note `ABI1`, manifest note `MFT1`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::note::{Note, u32_le};

const OWNER: &[u8] = b"Solo5\0";
const ABI_NOTE: u32 = 0x3149_4241;
const MANIFEST_NOTE: u32 = 0x3154_464d;
/// `struct mft_entry`: name 68, type 4, two unions of 16 and 8, a bool padded to 8.
const ENTRY_SIZE: usize = 104;
const NAME_SIZE: usize = 68;
const MAX_ENTRIES: u32 = 64;
const RESERVED: u32 = 1 << 30;
/// The contents follow a 20-byte header in a structure aligned to 8.
const MANIFEST_PADDING: usize = 4;

/// What the notes of a Solo5 kernel say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solo5 {
    /// The tender that it was linked for.
    pub abi: Abi,
    /// The devices that it declares, in its order.
    pub devices: Vec<Device>,
}

/// A tender interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abi {
    /// The target (`enum abi_target`): 1 is hvt, 2 is spt.
    pub target: u32,
    /// Its version.
    pub version: u32,
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.target {
            1 => "hvt",
            2 => "spt",
            3 => "virtio",
            4 => "muen",
            5 => "genode",
            6 => "xen",
            _ => "unknown",
        };
        write!(f, "{name} (ABI target {}, version {})", self.target, self.version)
    }
}

/// A device that the kernel insists on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name, one to 67 ASCII letters and digits.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
}

/// The kind of a declared device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// `BLOCK_BASIC`.
    Block,
    /// `NET_BASIC`.
    Net,
}

/// A Solo5 note that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The ABI note has another size than any tender expects.
    #[error("the ABI note is {0} bytes long, not 16")]
    AbiSize(usize),
    /// A Solo5 kernel must have both notes.
    #[error("there is a Solo5 ABI note but no manifest")]
    NoManifest,
    /// The other half alone.
    #[error("there is a Solo5 manifest but no ABI note")]
    NoAbi,
    /// The manifest's format.
    #[error("the manifest has version {0}, not 1")]
    Version(u32),
    /// More entries than tenders support, or none at all.
    #[error("the manifest has {0} entries, not 1 to 64")]
    Entries(u32),
    /// The size does not agree with the number of entries.
    #[error("the manifest note is {found} bytes long, not {expected}")]
    Size {
        /// Its size.
        found: usize,
        /// The size that its entries need.
        expected: usize,
    },
    /// Entry 0 is always the reserved one.
    #[error("the manifest's first entry is not the reserved one")]
    NotReserved,
    /// A device name that no tender's command line could carry.
    #[error("the name of manifest entry {0} is not 1 to 67 letters and digits")]
    Name(usize),
    /// A device type that tenders do not know.
    #[error("manifest entry {entry} has the unknown device type {kind}")]
    Kind {
        /// The entry's index.
        entry: usize,
        /// Its type.
        kind: u32,
    },
    /// Two devices of one name cannot both be attached.
    #[error("the manifest declares {0} twice")]
    Duplicate(String),
}

/// Collects the Solo5 notes met while walking a file; the first of each type counts, as in the tenders.
#[derive(Debug, Default)]
pub(super) struct Collector {
    abi: Option<Abi>,
    devices: Option<Vec<Device>>,
}

impl Collector {
    /// Looks at one note.
    pub(super) fn note(&mut self, note: &Note<'_>) -> Result<(), NoteError> {
        if note.owner != OWNER {
            return Ok(());
        }
        match note.kind {
            ABI_NOTE if self.abi.is_none() => self.abi = Some(parse_abi(note.contents)?),
            MANIFEST_NOTE if self.devices.is_none() => self.devices = Some(parse_manifest(note.contents)?),
            _ => {}
        }
        Ok(())
    }

    /// Joins what was found.
    pub(super) fn finish(self) -> Result<Option<Solo5>, NoteError> {
        match (self.abi, self.devices) {
            (Some(abi), Some(devices)) => Ok(Some(Solo5 { abi, devices })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(NoteError::NoManifest),
            (None, Some(_)) => Err(NoteError::NoAbi),
        }
    }
}

fn parse_abi(contents: &[u8]) -> Result<Abi, NoteError> {
    let parse = || {
        let (target, rest) = u32_le(contents)?;
        let (version, reserved) = u32_le(rest)?;
        (reserved.len() == 8).then_some(Abi { target, version })
    };
    parse().ok_or(NoteError::AbiSize(contents.len()))
}

fn parse_manifest(contents: &[u8]) -> Result<Vec<Device>, NoteError> {
    let header = || {
        let (version, rest) = u32_le(contents.get(MANIFEST_PADDING..)?)?;
        let (entries, rest) = u32_le(rest)?;
        Some((version, entries, rest))
    };
    let empty = MANIFEST_PADDING + 8;
    let (version, count, entries) =
        header().ok_or(NoteError::Size { found: contents.len(), expected: empty })?;
    if version != 1 {
        return Err(NoteError::Version(version));
    }
    if !(1..=MAX_ENTRIES).contains(&count) {
        return Err(NoteError::Entries(count));
    }
    let (entries, rest) = entries.as_chunks::<ENTRY_SIZE>();
    if entries.len() != count as usize || !rest.is_empty() {
        return Err(NoteError::Size { found: contents.len(), expected: empty + count as usize * ENTRY_SIZE });
    }
    let mut devices: Vec<Device> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let (name, rest) = entry.split_at(NAME_SIZE);
        let kind = u32_le(rest).map_or(0, |(kind, _)| kind);
        if index == 0 {
            if kind != RESERVED || name[0] != 0 {
                return Err(NoteError::NotReserved);
            }
            continue;
        }
        // The tenders skip reserved entries wherever they are.
        if kind >= RESERVED {
            continue;
        }
        let device = Device {
            name: parse_name(name).ok_or(NoteError::Name(index))?,
            kind: match kind {
                1 => DeviceKind::Block,
                2 => DeviceKind::Net,
                kind => return Err(NoteError::Kind { entry: index, kind }),
            },
        };
        if devices.iter().any(|other| other.name == device.name) {
            return Err(NoteError::Duplicate(device.name));
        }
        devices.push(device);
    }
    Ok(devices)
}

fn parse_name(field: &[u8]) -> Option<String> {
    let name = std::ffi::CStr::from_bytes_until_nul(field).ok()?.to_str().ok()?;
    let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    valid.then(|| name.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The contents of a manifest note with the reserved entry and the given ones.
    pub(crate) fn manifest(devices: &[(&str, u32)]) -> Vec<u8> {
        let mut bytes = vec![0; MANIFEST_PADDING];
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend((u32::try_from(devices.len()).unwrap() + 1).to_le_bytes());
        for (name, kind) in [("", RESERVED)].iter().chain(devices) {
            let mut entry = [0; ENTRY_SIZE];
            entry[..name.len()].copy_from_slice(name.as_bytes());
            entry[NAME_SIZE..NAME_SIZE + 4].copy_from_slice(&kind.to_le_bytes());
            bytes.extend(entry);
        }
        bytes
    }

    #[test]
    fn devices_are_found_in_the_manifests_order() {
        let devices = parse_manifest(&manifest(&[("service", 2), ("storage", 1), ("net1", 2)])).unwrap();
        let found: Vec<_> = devices.iter().map(|d| (d.name.as_str(), d.kind)).collect();
        assert_eq!(
            found,
            [("service", DeviceKind::Net), ("storage", DeviceKind::Block), ("net1", DeviceKind::Net)]
        );
        assert_eq!(parse_manifest(&manifest(&[])).unwrap(), []);
    }

    #[test]
    fn a_manifest_that_a_tender_would_refuse_is_refused_here() {
        let long = "x".repeat(NAME_SIZE);
        for (bytes, error) in [
            (vec![], NoteError::Size { found: 0, expected: 12 }),
            (manifest(&[("a b", 1)]), NoteError::Name(1)),
            (manifest(&[("", 1)]), NoteError::Name(1)),
            (manifest(&[(&long, 1)]), NoteError::Name(1)),
            (manifest(&[("a", 3)]), NoteError::Kind { entry: 1, kind: 3 }),
            (manifest(&[("a", 1), ("a", 2)]), NoteError::Duplicate("a".to_owned())),
            (manifest(&[])[..115].to_vec(), NoteError::Size { found: 115, expected: 116 }),
        ] {
            assert_eq!(parse_manifest(&bytes), Err(error));
        }
        let many: Vec<_> = (0..64).map(|_| ("a", 1)).collect();
        assert_eq!(parse_manifest(&manifest(&many)), Err(NoteError::Entries(65)));
    }
}
