//! QEMU's system emulator, 7.0 or newer (qemu(1), "Invocation"; docs/system/i386/microvm.rst); snapshots need 8.2.
//!
//! Nothing that QEMU would add by itself is left to it: no user configuration, no default devices. It uses KVM or
//! emulates; which, is decided here from facts. It is told to end when the guest resets, so that a container ends.

mod devices;
mod options;

use std::path::{Path, PathBuf};

use super::{
    Firmware, KernelMismatch, Monitor, PlanError,
    assemble::{self, Args, Descriptors},
};
use crate::{
    Arch, Board, Console, ControlPoint, ControlSocket, ExitPort, Host, KernelImage, Kvm, KvmAccess, Launch,
    Machine, Memory, OnReset, PowerButton, Role, Seccomp, Shutdown, Startup, Unasked, Warning,
    kernel::{Elf, ElfClass, Format},
};
use options::Options;

/// QEMU's translation cache would otherwise grow to an eighth of the host's memory (accel/tcg/region.c).
pub(super) const TRANSLATION_CACHE_MIB: u32 = 64;

/// The firmware of the small board.
const QBOOT: &str = "qboot.rom";
/// The virtio devices that the small board has room for (hw/i386/microvm.c, `virtio_num_transports` with two I/O APICs).
const MICROVM_DEVICES: usize = 24;
/// The object that the guest's memory is, where it must be shared.
const RAM: &str = "guest-ram";

/// How the guest's instructions are executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acceleration {
    Kvm,
    /// With the reason why not KVM, if that is worth a warning.
    Emulation(Option<String>),
}

impl Acceleration {
    pub(super) const fn uses_kvm(&self) -> bool {
        matches!(self, Self::Kvm)
    }
}

pub(super) fn acceleration(machine: &Machine, host: &Host) -> Result<Acceleration, PlanError> {
    match (machine.kvm, &host.kvm) {
        (Kvm::Off, _) => Ok(Acceleration::Emulation(None)),
        (_, KvmAccess::Native | KvmAccess::Nested) => Ok(Acceleration::Kvm),
        (Kvm::Auto, KvmAccess::Unusable { reason }) => Ok(Acceleration::Emulation(Some(reason.clone()))),
        (Kvm::Required, KvmAccess::Unusable { reason }) => Err(PlanError::Kvm {
            monitor: Monitor::Qemu,
            why: "the configuration requires",
            reason: reason.clone(),
        }),
    }
}

pub(super) fn accepts(kernel: &KernelImage) -> Result<(), KernelMismatch> {
    let refuse = |accepted| {
        Err(KernelMismatch::Format { monitor: Monitor::Qemu, found: kernel.format.name(), accepted })
    };
    match (kernel.arch, &kernel.format) {
        (Arch::X86_64, Format::BzImage) => Ok(()),
        (Arch::X86_64, Format::Elf(Elf { class: ElfClass::Bits32, multiboot: true, .. })) => Ok(()),
        // It looks for multiboot before PVH, and ends if it finds it there (hw/i386/multiboot.c).
        (Arch::X86_64, Format::Elf(Elf { class: ElfClass::Bits64, multiboot: true, .. })) => {
            Err(KernelMismatch::Multiboot64 { monitor: Monitor::Qemu })
        }
        (Arch::X86_64, Format::Elf(Elf { pvh: Some(_), .. })) => Ok(()),
        (Arch::X86_64, Format::Elf(Elf { class: ElfClass::Bits64, .. })) => {
            Err(KernelMismatch::NoPvhEntry { monitor: Monitor::Qemu, place: "" })
        }
        (Arch::X86_64, _) => refuse("bzImage, ELF with a PVH entry, and 32-bit ELF with a multiboot header"),
        (Arch::Aarch64, Format::Arm64Image | Format::GzippedArm64Image | Format::Elf(_)) => Ok(()),
        (Arch::Aarch64, Format::BzImage) => refuse("arm64 Image and ELF"),
    }
}

/// Returns the directories that QEMU looks for firmware in.
pub(super) fn data_dirs(host: &Host) -> Vec<PathBuf> {
    if let Some(dir) = &host.data_dir {
        return vec![dir.clone()];
    }
    let mut dirs = vec!["/usr/share/qemu".into(), "/usr/share/seabios".into()];
    // A QEMU of its own prefix brings its own.
    if let Some(prefix) = host.program.parent().and_then(Path::parent).filter(|it| *it != Path::new("/usr")) {
        dirs.insert(0, prefix.join("share/qemu"));
    }
    dirs
}

/// Where the firmware is in a configured data directory: in the directories that distributions have for it, or right there.
const PARTS: [&str; 3] = ["qemu", "seabios", ""];

/// The file without which the board does not start, and all places in which it may be.
pub(super) fn firmware(machine: &Machine, host: &Host) -> Option<Firmware> {
    let name = match (host.arch, board(machine)) {
        (Arch::X86_64, Board::Small) => QBOOT,
        (Arch::X86_64, Board::SmallWithTimers) => "bios-microvm.bin",
        (Arch::X86_64, Board::Common) => "bios-256k.bin",
        // Boots a kernel without any.
        (Arch::Aarch64, _) => return None,
    };
    let dirs = match &host.data_dir {
        Some(dir) => PARTS.iter().map(|part| dir.join(part)).collect(),
        None => data_dirs(host),
    };
    Some(Firmware { name: name.to_owned(), places: dirs })
}

pub(super) fn plan(machine: &Machine, host: &Host) -> Result<Launch, PlanError> {
    let mut warnings = Vec::new();
    let memory = assemble::check(Monitor::Qemu, machine, host, &mut warnings)?;
    let acceleration = acceleration(machine, host)?;
    if let Acceleration::Emulation(Some(reason)) = &acceleration {
        warnings.push(Warning::Emulated { reason: reason.clone() });
    }
    let board = board(machine);
    if host.arch == Arch::X86_64 && board != Board::Common {
        assemble::check_devices(Monitor::Qemu, machine, MICROVM_DEVICES)?;
    }

    let mut args = Args::default();
    for flag in ["-no-user-config", "-nodefaults", "-no-reboot"] {
        args.one(flag);
    }
    args.pair("-display", "none");
    args.pair("-machine", machine_options(board, machine, host.arch));
    args.pair("-accel", accel_options(&acceleration));
    args.pair("-cpu", cpu_options(&acceleration, host));
    args.pair("-m", memory_options(memory));
    args.pair("-smp", Options::key("cpus", machine.vcpus));
    if let Some(dir) = &host.data_dir {
        for part in PARTS {
            args.pair("-L", assemble::path("QEMU's data directory", &dir.join(part))?);
        }
    }
    if board == Board::Small && host.arch == Arch::X86_64 {
        // With ACPI on, QEMU would take SeaBIOS, which is slower by seconds under a nested KVM.
        args.pair("-bios", QBOOT);
    }
    if machine.seccomp == Seccomp::On {
        let confine = Options::bare("on").set("obsolete", "deny").set("elevateprivileges", "deny");
        args.pair("-sandbox", confine.set("spawn", "deny").set("resourcecontrol", "deny"));
    }

    args.pair("-kernel", assemble::path("the kernel's path", &machine.kernel.path)?);
    if !machine.boot.command_line.as_str().is_empty() {
        args.pair("-append", machine.boot.command_line.as_str());
    }
    let mut descriptors = Descriptors::default();
    if let Some(initrd) = assemble::initrd(machine, &mut descriptors)? {
        args.pair("-initrd", initrd);
    }

    // "signal=off": an interrupt character typed at the console is the guest's.
    args.pair("-chardev", Options::bare("stdio").set("id", "console").set("signal", "off"));
    match machine.console {
        Console::Serial => args.pair("-serial", "chardev:console"),
        Console::Virtio => devices::virtio_console(&mut args, board, machine, host.arch),
    }
    if machine.boot.platform.exit_port == ExitPort::DebugExit && host.arch == Arch::X86_64 {
        let port = Options::bare("isa-debug-exit").set("iobase", "0x501").set("iosize", "2");
        args.pair("-device", port);
    }
    devices::add(&mut args, &mut descriptors, board, machine, host.arch)?;

    if machine.startup == Startup::Restore {
        args.pair("-incoming", "defer");
    }
    let control = machine.control == ControlSocket::On;
    if control {
        let fd = descriptors.inherit(Role::Control);
        let socket = Options::bare("socket").set("id", "control").set("fd", fd);
        args.pair("-chardev", socket.set("server", "on").set("wait", "off"));
        args.pair("-mon", Options::key("chardev", "control").set("mode", "control"));
    }
    Ok(Launch {
        program: host.program.clone(),
        args: args.0,
        env: Vec::new(),
        documents: descriptors.documents,
        inherit: descriptors.inherit,
        control: control.then_some(ControlPoint::Qmp),
        shutdown: match machine.boot.platform.power_button {
            PowerButton::Acts if control => Shutdown::Control { otherwise: Unasked::Terminate },
            _ => Shutdown::Terminate,
        },
        on_reset: OnReset::Ends,
        warnings,
    })
}

/// A multiboot kernel is started by an option ROM, which the small board has no firmware for. Where there is a PVH entry
/// as well, multiboot comes first.
fn board(machine: &Machine) -> Board {
    match machine.kernel.image.format.elf() {
        Some(elf) if elf.multiboot => Board::Common,
        _ => machine.boot.platform.board,
    }
}

fn machine_options(board: Board, machine: &Machine, arch: Arch) -> Options {
    let options = match (arch, board) {
        // Power button and power off come by ACPI.
        (Arch::X86_64, Board::Small) => Options::bare("microvm").set("acpi", "on"),
        (Arch::X86_64, Board::SmallWithTimers) => {
            Options::bare("microvm").set("acpi", "on").set("pic", "on").set("pit", "on").set("rtc", "on")
        }
        (Arch::X86_64, Board::Common) => Options::bare("pc"),
        (Arch::Aarch64, _) => Options::bare("virt"),
    };
    if devices::needs_shared_memory(machine) { options.set("memory-backend", RAM) } else { options }
}

fn accel_options(acceleration: &Acceleration) -> Options {
    match acceleration {
        Acceleration::Kvm => Options::bare("kvm"),
        Acceleration::Emulation(_) => Options::bare("tcg").set("tb-size", TRANSLATION_CACHE_MIB),
    }
}

fn cpu_options(acceleration: &Acceleration, host: &Host) -> Options {
    match (acceleration, &host.kvm, host.arch) {
        // A nested KVM may refuse to set the MSR behind this feature (0x10a), and QEMU then aborts.
        (Acceleration::Kvm, KvmAccess::Nested, Arch::X86_64) => {
            Options::bare("host").set("arch-capabilities", "off")
        }
        (Acceleration::Kvm, ..) => Options::bare("host"),
        (Acceleration::Emulation(_), ..) => Options::bare("max"),
    }
}

fn memory_options(memory: Memory) -> Options {
    Options::key("size", format_args!("{}M", memory.as_mib()))
}
