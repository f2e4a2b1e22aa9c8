//! Why a machine cannot be run: every variant names the thing, its value, and what would be accepted.

use std::path::PathBuf;

use super::Monitor;
use crate::{Arch, Character, DeviceId, Memory, MemoryError, kernel::solo5};

/// A machine that a monitor cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The kernel is not for this monitor.
    #[error(transparent)]
    Kernel(#[from] KernelMismatch),
    /// Too much or too little memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel does not fit in the memory.
    #[error("the kernel needs memory up to {} bytes, but the guest has {memory}", end)]
    KernelTooLarge {
        /// Where the kernel ends, counted from the start of the memory.
        end: u64,
        /// The guest's memory.
        memory: Memory,
    },
    /// Too many virtual CPUs.
    #[error("{monitor} gives a guest at most {max} virtual CPUs, not {asked}")]
    Vcpus {
        /// The monitor.
        monitor: Monitor,
        /// What was asked for.
        asked: u32,
        /// The largest number.
        max: u32,
    },
    /// Too many devices.
    #[error(
        "{monitor} gives this guest at most {max} devices (disks, network interfaces and others), not {asked}"
    )]
    TooManyDevices {
        /// The monitor.
        monitor: Monitor,
        /// What was asked for.
        asked: usize,
        /// The largest number.
        max: usize,
    },
    /// A smaller MTU than the monitor's network device can have.
    #[error("{monitor} gives a guest an MTU of at least {min}, not {asked}")]
    Mtu {
        /// The monitor.
        monitor: Monitor,
        /// What was asked for.
        asked: u16,
        /// The smallest.
        min: u16,
    },
    /// A vsock address that is not a guest's.
    #[error("a guest cannot have the vsock context id {asked}: it must be 3 to 4294967294")]
    VsockCid {
        /// What was asked for.
        asked: u32,
    },
    /// KVM is needed and not to be had.
    #[error("{monitor} cannot use KVM, which {why}: {reason}")]
    Kvm {
        /// The monitor.
        monitor: Monitor,
        /// Who asks for it.
        why: &'static str,
        /// Why the host has none.
        reason: String,
    },
    /// The command line is too long.
    #[error("the guest's command line is {size} bytes long, but {monitor} takes at most {max}")]
    CommandLineTooLong {
        /// The monitor.
        monitor: Monitor,
        /// Its size in bytes.
        size: usize,
        /// The largest size.
        max: usize,
    },
    /// The command line holds a character that the monitor refuses.
    #[error(
        "the guest's command line contains {character}, which {monitor} does not pass on: it takes ASCII only"
    )]
    CommandLineCharacter {
        /// The monitor.
        monitor: Monitor,
        /// The character.
        character: Character,
    },
    /// A device that the monitor does not have.
    #[error("{monitor} has no {what}: {remedy}")]
    NoSuchDevice {
        /// The monitor.
        monitor: Monitor,
        /// What it lacks.
        what: &'static str,
        /// What would work.
        remedy: &'static str,
    },
    /// An initial ramdisk and a configuration that must be one.
    #[error("the guest's configuration must be its initial ramdisk, but it has one already")]
    TwoInitrds,
    /// A configuration in a file of the initial ramdisk, which no monitor puts there.
    #[error(
        "the guest's configuration must be written into its initial ramdisk as {path} before there is a plan"
    )]
    ConfigNotPlaced {
        /// The file.
        path: String,
    },
    /// Two devices of one name.
    #[error("two {what} have the name {id}")]
    Duplicate {
        /// What they are.
        what: &'static str,
        /// Their name.
        id: DeviceId,
    },
    /// A TAP that is to be handed over in a way that the monitor does not know.
    #[error("{monitor} takes a TAP device {accepted}")]
    TapHandover {
        /// The monitor.
        monitor: Monitor,
        /// The way that it knows.
        accepted: &'static str,
    },
    /// A path that is no text, where the monitor's syntax is text.
    #[error("{what} {} is not UTF-8", path.display())]
    NotUtf8 {
        /// What the path is.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A path that a monitor could take for something else.
    #[error("{what} {} is not an absolute path in the monitor's root", path.display())]
    RelativePath {
        /// What the path is.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A character that the monitor's syntax cannot carry.
    #[error("{what} {value:?} contains {character}, which {monitor} cannot be given")]
    Unencodable {
        /// The monitor.
        monitor: Monitor,
        /// What the value is.
        what: &'static str,
        /// The value.
        value: String,
        /// The character.
        character: Character,
    },
    /// An element of the argument vector with a NUL byte in it.
    #[error("argument {argument:?} contains a NUL byte, which no program can be given")]
    Nul {
        /// The element.
        argument: String,
    },
    /// The kernel declares a device that the machine does not have.
    #[error("the kernel declares {kind} {name:?}, but the container has none for it")]
    DeviceMissing {
        /// What it declares.
        kind: &'static str,
        /// The declared name.
        name: String,
    },
    /// The machine has a device that the kernel does not declare.
    #[error("the kernel has no use for {kind} {device}: it declares {declared}")]
    DeviceSurplus {
        /// What it is.
        kind: &'static str,
        /// Which one it is.
        device: String,
        /// What the kernel declares of this kind.
        declared: String,
    },
}

/// A kernel that a monitor cannot boot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelMismatch {
    /// For another processor.
    #[error("the kernel is for {kernel}, but this host is {host}")]
    Architecture {
        /// The kernel's.
        kernel: Arch,
        /// The host's.
        host: Arch,
    },
    /// Another format.
    #[error("the kernel is a {found}; {monitor} boots {accepted}")]
    Format {
        /// The monitor.
        monitor: Monitor,
        /// What it is.
        found: &'static str,
        /// What the monitor boots.
        accepted: &'static str,
    },
    /// An ELF file without Solo5's notes.
    #[error("the kernel is no Solo5 binary: {monitor} needs one with ABI target {target} version 2")]
    NoSolo5Notes {
        /// The monitor.
        monitor: Monitor,
        /// The ABI target that it needs.
        target: u32,
    },
    /// A Solo5 kernel of another target or version.
    #[error("the kernel is a Solo5 binary for {found}; {monitor} needs ABI target {target} version 2")]
    Solo5Abi {
        /// The monitor.
        monitor: Monitor,
        /// What the kernel is for.
        found: solo5::Abi,
        /// The ABI target that the monitor needs.
        target: u32,
    },
    /// A 64-bit ELF kernel that asks for a loader that knows 32-bit ones only.
    #[error(
        "the kernel is a 64-bit ELF with a multiboot header, by which {monitor} boots 32-bit ones only; leave the header out, \
         or convert the file to elf32-i386"
    )]
    Multiboot64 {
        /// The monitor.
        monitor: Monitor,
    },
    /// An ELF kernel without an entry that the monitor knows.
    #[error(
        "the kernel has no PVH entry (a note of owner Xen, type 18){}; {monitor} does not boot it",
        place
    )]
    NoPvhEntry {
        /// The monitor.
        monitor: Monitor,
        /// Where it must be, if there is one elsewhere.
        place: &'static str,
    },
}
