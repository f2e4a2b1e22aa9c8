//! What each monitor can do, as one table.

use super::Monitor;
use crate::{Arch, Memory, MemoryBounds, MemoryError, Protocol};

/// What a monitor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The guest's memory.
    pub memory: MemoryBounds,
    /// The largest number of virtual CPUs.
    pub max_vcpus: u32,
    /// The longest command line in bytes.
    pub max_command_line: usize,
    /// The largest number of devices, each disk, network interface, share, vsock, virtio console and configuration disk
    /// being one. QEMU has it on its common board; see [`Monitor::plan`].
    pub max_devices: usize,
    /// The smallest MTU of a network device.
    pub min_mtu: u16,
    /// Whether it needs KVM.
    pub kvm: KvmNeed,
    /// How a TAP device is handed to it.
    pub tap: TapHandover,
    /// Whether it takes an initial ramdisk.
    pub initrd: bool,
    /// Whether it serves directories by 9p.
    pub nine_p: bool,
    /// Whether it can be connected to a `virtiofsd`.
    pub virtiofs: bool,
    /// Whether it has a vsock device.
    pub vsock: bool,
    /// Whether it has a virtio console.
    pub virtio_console: bool,
    /// Whether the guest can read a disk's name from the device.
    pub disk_serials: bool,
    /// Whether its own system call filter can be turned off.
    pub seccomp_switch: bool,
    /// Its control interface, if it has one.
    pub control: Option<Protocol>,
}

/// Whether a monitor needs KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmNeed {
    /// It does not run without.
    Required,
    /// It emulates without.
    Optional,
    /// It does not use it.
    Unused,
}

/// How a TAP device is handed to a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapHandover {
    /// As an open descriptor.
    Descriptor,
    /// By name.
    Name,
}

impl Capabilities {
    /// Rounds memory down to what the monitor accepts.
    ///
    /// # Errors
    /// [`MemoryError`] carries the amount and the bounds.
    pub fn fit_memory(&self, monitor: Monitor, asked: Memory) -> Result<Memory, MemoryError> {
        let error = MemoryError { asked, monitor: monitor.name(), bounds: self.memory };
        self.memory.fit(asked).ok_or(error)
    }
}

/// The largest memory of a guest under monitors without a limit of their own: half of what the 40 address bits
/// hold that KVM and QEMU's emulation give a guest at least.
const LARGE: Memory = Memory::mib(512 << 10);

/// What IPv4 and virtio need (RFC 791; virtio 1.2, 5.1.4).
const MIN_MTU: u16 = 68;

/// What the boards leave of a PCI bus with 32 slots, by trying (QEMU's `pc`, Cloud Hypervisor; on x86).
const PCI_SLOTS: usize = 30;

const fn mib(min: u64, max: Memory, step: u64) -> MemoryBounds {
    MemoryBounds { min: Memory::mib(min), max, step: Memory::mib(step) }
}

pub(super) const fn of(monitor: Monitor, arch: Arch) -> Capabilities {
    match monitor {
        // Solo5 tenders/hvt/hvt_cpu_x86_64.c: X86_GUEST_PAGE_SIZE, X86_GUEST_MAX_MEM_SIZE;
        // tenders/common: MAX command line HVT_CMDLINE_SIZE = 8192 with its NUL.
        Monitor::Solo5Hvt => Capabilities {
            memory: mib(2, Memory::mib(4096), 2),
            max_vcpus: 1,
            max_command_line: 8191,
            // Solo5 include/mft_abi.h: MFT_MAX_ENTRIES, of which the first is reserved.
            max_devices: 63,
            min_mtu: MIN_MTU,
            kvm: KvmNeed::Required,
            tap: TapHandover::Name,
            initrd: false,
            nine_p: false,
            virtiofs: false,
            vsock: false,
            virtio_console: false,
            disk_serials: false,
            seccomp_switch: false,
            control: None,
        },
        Monitor::Solo5Spt => {
            Capabilities { memory: mib(2, LARGE, 1), kvm: KvmNeed::Unused, ..of(Monitor::Solo5Hvt, arch) }
        }
        Monitor::Qemu => Capabilities {
            memory: mib(2, LARGE, 1),
            max_vcpus: 255,
            // x86: one argument of execve(2), MAX_ARG_STRLEN = 128 KiB with its NUL; QEMU has no smaller limit.
            max_command_line: (128 << 10) - 1,
            max_devices: PCI_SLOTS,
            min_mtu: MIN_MTU,
            kvm: KvmNeed::Optional,
            tap: TapHandover::Descriptor,
            initrd: true,
            nine_p: true,
            virtiofs: true,
            vsock: true,
            virtio_console: true,
            disk_serials: true,
            seccomp_switch: true,
            control: Some(Protocol::Qmp),
        },
        // Firecracker: MAX_SUPPORTED_VCPUS; the line of 2048 bytes with its NUL (src/vmm/src/arch).
        Monitor::Firecracker => Capabilities {
            memory: mib(2, LARGE, 1),
            max_vcpus: 32,
            max_command_line: 2047,
            // Each has an interrupt; those of x86 are 5 to 23, of which it takes two for itself (1.17).
            max_devices: match arch {
                Arch::X86_64 => 17,
                Arch::Aarch64 => 64,
            },
            min_mtu: MIN_MTU,
            kvm: KvmNeed::Required,
            tap: TapHandover::Name,
            initrd: true,
            nine_p: false,
            virtiofs: false,
            vsock: true,
            virtio_console: false,
            disk_serials: false,
            seccomp_switch: true,
            control: Some(Protocol::Firecracker),
        },
        Monitor::CloudHypervisor => Capabilities {
            memory: mib(2, LARGE, 1),
            max_vcpus: 255,
            max_command_line: match arch {
                Arch::X86_64 => (64 << 10) - 1,
                // Less ` earlycon=pl011,mmio,0x09000000`, which it adds (vmm/src/device_manager.rs).
                Arch::Aarch64 => 2047 - 31,
            },
            max_devices: PCI_SLOTS,
            min_mtu: MIN_MTU,
            kvm: KvmNeed::Required,
            tap: TapHandover::Descriptor,
            initrd: true,
            nine_p: false,
            virtiofs: true,
            vsock: true,
            virtio_console: true,
            disk_serials: true,
            seccomp_switch: true,
            control: Some(Protocol::CloudHypervisor),
        },
    }
}
