//! Kernel files made by hand, and what is found in them.

use std::io::Cursor;

use proptest::prelude::*;

use super::{solo5::tests::manifest, *};

/// Appends a note with its padding.
fn note(owner: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [u32::try_from(owner.len()).unwrap(), u32::try_from(contents.len()).unwrap(), kind] {
        bytes.extend(word.to_le_bytes());
    }
    for field in [owner, contents] {
        bytes.extend(field);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn pvh_note() -> Vec<u8> {
    note(b"Xen\0", 18, &0x10_0000_u32.to_le_bytes())
}

fn solo5_notes(target: u32, devices: &[(&str, u32)]) -> [Vec<u8>; 2] {
    let abi: Vec<u8> = [target, 2, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    [note(b"Solo5\0", 0x3149_4241, &abi), note(b"Solo5\0", 0x3154_464d, &manifest(devices))]
}

/// A 64-bit executable with one load at 1 MiB and the given note segments.
fn elf(machine: u16, segments: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(segments.len()).unwrap() + 1;
    let mut header = Vec::new();
    header.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    header.extend(2_u16.to_le_bytes());
    header.extend(machine.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    header.extend(0x10_0000_u64.to_le_bytes());
    header.extend(64_u64.to_le_bytes());
    header.extend([0; 14]);
    header.extend(56_u16.to_le_bytes());
    header.extend(count.to_le_bytes());
    header.extend([0; 6]);
    assert_eq!(header.len(), 64);
    let mut offset = 64 + 56 * u64::from(count);
    let mut contents: Vec<u8> = Vec::new();
    let mut segment = |kind: u32, offset: u64, address: u64, size: u64| {
        header.extend(kind.to_le_bytes());
        header.extend(4_u32.to_le_bytes());
        for word in [offset, address, address, size, size, 0x1000] {
            header.extend(word.to_le_bytes());
        }
    };
    segment(1, 0, 0x10_0000, 0x2000);
    for notes in segments {
        segment(4, offset, 0, notes.len() as u64);
        offset += notes.len() as u64;
        contents.extend(notes);
    }
    header.extend(contents);
    header
}

fn inspect_bytes(bytes: &[u8]) -> Result<KernelImage, String> {
    inspect(Cursor::new(bytes)).map_err(|error| error.to_string())
}

#[test]
fn a_pvh_kernel_is_found_with_its_entry_and_the_place_of_its_note() {
    let other = note(b"GNU\0", 3, b"id");
    let image = inspect_bytes(&elf(62, &[other.clone(), pvh_note()])).unwrap();
    assert_eq!(image.arch, Arch::X86_64);
    let elf_ = image.format.elf().unwrap();
    assert_eq!(elf_.pvh, Some(Pvh { entry: 0x10_0000, in_last_segment: true }));
    assert_eq!((elf_.class, elf_.kind, elf_.end()), (ElfClass::Bits64, ElfKind::Fixed, 0x10_2000));
    let image = inspect_bytes(&elf(62, &[pvh_note(), other])).unwrap();
    assert_eq!(image.format.elf().unwrap().pvh, Some(Pvh { entry: 0x10_0000, in_last_segment: false }));
}

/// Weakness 11 of the monitors reference: the manifest was never read.
#[test]
fn a_solo5_kernel_is_found_with_its_target_and_devices() {
    let image = inspect_bytes(&elf(183, &solo5_notes(1, &[("service", 2), ("storage", 1)]))).unwrap();
    assert_eq!(image.arch, Arch::Aarch64);
    let notes = image.format.elf().unwrap().solo5.clone().unwrap();
    assert_eq!(notes.abi.to_string(), "hvt (ABI target 1, version 2)");
    let names: Vec<_> = notes.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["service", "storage"]);
    let [abi, _] = solo5_notes(2, &[]);
    let error = inspect(Cursor::new(elf(62, &[abi]))).unwrap_err();
    assert!(matches!(error, InspectError::Solo5(solo5::NoteError::NoManifest)));
}

#[test]
fn linux_kernels_are_known_by_their_headers() {
    let mut file = vec![0; 1024];
    file[0x202..0x206].copy_from_slice(b"HdrS");
    assert_eq!(inspect_bytes(&file).unwrap().format, Format::BzImage);
    let mut file = vec![0; 64];
    file[56..60].copy_from_slice(b"ARM\x64");
    assert_eq!(inspect_bytes(&file).unwrap().format, Format::Arm64Image);
    assert_eq!(inspect_bytes(&[0x1f, 0x8b, 8, 0]).unwrap().format, Format::GzippedArm64Image);
}

#[test]
fn a_multiboot_header_counts_only_with_its_checksum() {
    for (checksum, multiboot) in [(0x1bad_b002_u32.wrapping_neg(), true), (0, false)] {
        let words: Vec<u8> = [0x1bad_b002_u32, 0, checksum].into_iter().flat_map(u32::to_le_bytes).collect();
        let image = inspect_bytes(&elf(62, &[note(b"x\0\0\0", 0, &words)])).unwrap();
        assert_eq!(image.format.elf().unwrap().multiboot, multiboot);
    }
}

#[test]
fn what_is_no_kernel_is_refused_with_what_it_is() {
    let whole = elf(62, &[pvh_note()]);
    let patched = |offset: usize, byte: u8| {
        let mut file = whole.clone();
        file[offset] = byte;
        file
    };
    let mut endless = whole.clone();
    endless[104..112].fill(0xff);
    for (file, message) in [
        (vec![], "the kernel file is empty"),
        (b"#!/bin/sh\n".to_vec(), "neither an ELF executable nor a Linux bzImage"),
        (whole[..63].to_vec(), "cut short: the program header table should be 112 bytes at offset 64"),
        (whole[..40].to_vec(), "cut short: the ELF header"),
        (whole[..whole.len() - 1].to_vec(), "cut short: a note segment should be 20 bytes at offset 176"),
        (patched(4, 3), "the class is 3"),
        (patched(5, 2), "the byte order is 2"),
        (patched(16, 1), "the type is 1"),
        (patched(18, 243), "for ELF machine 243"),
        (patched(54, 32), "the size of a program header is 32"),
        (patched(56, 0), "the number of program headers is 0"),
        (patched(57, 1), "the number of program headers is 258"),
        (patched(64, 6), "the number of loaded segments is 0"),
        (endless, "the size of a segment is"),
        (patched(39, 0xff), "cut short: the program header table"),
    ] {
        let error = inspect_bytes(&file).unwrap_err();
        assert!(error.contains(message), "{error:?} should contain {message:?}");
    }
}

/// A reader that counts what is read, to see that a file's claims do not make us read without bound.
struct Counting<R>(R, u64);

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1 += read as u64;
        Ok(read)
    }
}

impl<R: Seek> Seek for Counting<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

#[test]
fn a_bounded_part_is_read_whatever_the_file_claims() {
    // 128 note segments of 1 MiB each, all at offset 0 of a file of 2 MiB.
    let mut file = elf(62, &vec![vec![]; 127]);
    for index in 1..128 {
        let size = 64 + 56 * index + 32;
        file[size..size + 8].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        let offset = 64 + 56 * index + 8;
        file[offset..offset + 8].copy_from_slice(&0_u64.to_le_bytes());
    }
    file.resize(2 << 20, 0);
    let mut reader = Counting(Cursor::new(file), 0);
    inspect(&mut reader).unwrap();
    assert!(reader.1 < 3 << 20, "{} bytes were read", reader.1);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = inspect(Cursor::new(bytes));
    }

    #[test]
    fn a_damaged_kernel_never_panics(damage in proptest::collection::vec((0_usize..700, any::<u8>()), 0..8), cut in 0_usize..700) {
        let [abi, manifest] = solo5_notes(1, &[("service", 2)]);
        let mut file = elf(62, &[abi, manifest, pvh_note()]);
        for (offset, byte) in damage {
            if let Some(place) = file.get_mut(offset) {
                *place = byte;
            }
        }
        file.truncate(cut.max(4));
        let _ = inspect(Cursor::new(file));
    }
}
