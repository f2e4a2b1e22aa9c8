//! Kernels as descriptions, for plans that are not carried out.

use urunc_vmm::{
    Arch, KernelImage, Monitor,
    kernel::{
        Elf, ElfClass, ElfKind, Format, Load, Pvh,
        solo5::{Abi, Device, DeviceKind, Solo5},
    },
};

/// A kernel that the monitor accepts; for Solo5's tenders it declares the given devices.
pub(crate) fn kernel_for(monitor: Monitor, arch: Arch, declared: &[(&str, DeviceKind)]) -> KernelImage {
    let target = match monitor {
        Monitor::Solo5Hvt => Some(1),
        Monitor::Solo5Spt => Some(2),
        _ if arch == Arch::Aarch64 => return KernelImage { arch, format: Format::Arm64Image },
        _ => None,
    };
    let devices = declared.iter().map(|&(name, kind)| Device { name: name.to_owned(), kind }).collect();
    let elf = Elf {
        class: ElfClass::Bits64,
        kind: ElfKind::Fixed,
        entry: 0x10_0000,
        loads: vec![Load { address: 0x10_0000, size: 0x1000 }],
        interpreter: false,
        pvh: Some(Pvh { entry: 0x10_0000, in_last_segment: true }),
        multiboot: false,
        solo5: target.map(|target| Solo5 { abi: Abi { target, version: 2 }, devices }),
    };
    KernelImage { arch, format: Format::Elf(elf) }
}
