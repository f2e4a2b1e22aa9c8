//! A kernel looked at, and a plan for each monitor.

use std::hint::black_box;
use std::io::Cursor;
use std::path::PathBuf;

use criterion::Criterion;
use urunc_vmm::{Arch, Guest, Host, Kernel, KvmAccess, Machine, Memory, Monitor, Workload, kernel};

/// Program headers of the kernel below.
const HEADERS: usize = 4;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("vmm");
    let file = elf();
    group.bench_function("notes of a kernel", |bench| {
        bench.iter(|| kernel::inspect(Cursor::new(black_box(&file))).expect("a kernel"));
    });
    for monitor in Monitor::ALL {
        let host = Host {
            arch: Arch::X86_64,
            kvm: KvmAccess::Native,
            program: PathBuf::from("/usr/bin/monitor"),
            data_dir: None,
        };
        let file =
            if matches!(monitor, Monitor::Solo5Spt | Monitor::Solo5Hvt) { solo5(monitor) } else { elf() };
        let image = kernel::inspect(Cursor::new(&file)).expect("a kernel");
        let machine = Machine::new(Kernel { path: "/boot/kernel".into(), image }, Memory::mib(128));
        let workload = Workload::new(Guest::Generic, vec!["hello".into(), "exit=3".into()]);
        let plan = || {
            let mut machine = machine.clone();
            machine.boot = workload.boot(&machine, monitor, host.arch).expect("a command line");
            monitor.plan(&machine, &host).expect("a plan")
        };
        group.bench_function(format!("plan for {monitor}"), |bench| bench.iter(plan));
    }
    group.finish();
}

/// An ELF file with a PVH entry.
fn elf() -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(0x10_0000u32.to_le_bytes());
    with_notes(&[note])
}

/// An ELF file with the notes that Solo5 wants.
fn solo5(monitor: Monitor) -> Vec<u8> {
    const ABI: u32 = 0x3149_4241;
    const MANIFEST: u32 = 0x3154_464d;
    let target: u32 = if monitor == Monitor::Solo5Spt { 2 } else { 1 };
    let note = |kind: u32, contents: &[u8]| {
        let mut note = Vec::new();
        for word in [6, u32::try_from(contents.len()).expect("a short note"), kind] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"Solo5\0\0\0");
        note.extend(contents);
        note
    };
    let abi: Vec<u8> = [target, 2, 0, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    // Padding, version 1, one entry: a name of 68 bytes and the type, which is the reserved one (mft_abi.h).
    let mut manifest = vec![0u8; 12 + 104];
    manifest[4] = 1;
    manifest[8] = 1;
    manifest[12 + 68..][..4].copy_from_slice(&(1u32 << 30).to_le_bytes());
    with_notes(&[note(ABI, &abi), note(MANIFEST, &manifest)])
}

/// An ELF file for x86-64 with one segment to load and a note segment for each of `notes`.
fn with_notes(notes: &[Vec<u8>]) -> Vec<u8> {
    const HEADER: usize = 64;
    const SEGMENT: usize = 56;
    let mut file = vec![0u8; HEADER + HEADERS * SEGMENT];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(24, &0x10_0000u64.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &u16::try_from(1 + notes.len()).expect("few notes").to_le_bytes());
    let mut segment = |index: usize, kind: u32, offset: usize, address: u64, size: usize| {
        let at = HEADER + index * SEGMENT;
        put(at, &kind.to_le_bytes());
        put(at + 8, &u64::try_from(offset).expect("a small file").to_le_bytes());
        put(at + 16, &address.to_le_bytes());
        for place in [32, 40] {
            put(at + place, &u64::try_from(size).expect("a small file").to_le_bytes());
        }
    };
    segment(0, 1, 0, 0x10_0000, 4096);
    let mut offset = HEADER + HEADERS * SEGMENT;
    for (index, note) in notes.iter().enumerate() {
        segment(index + 1, 4, offset, 0, note.len());
        offset += note.len();
    }
    notes.iter().for_each(|note| file.extend(note));
    file
}
