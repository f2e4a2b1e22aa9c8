//! Cloud Hypervisor, 51 or newer (cloud-hypervisor `src/main.rs`, `vmm/src/config.rs`, `docs/`).
//!
//! Older ones guess the format of a disk from its contents, which a guest can write: a hole that 51 has an option
//! against. When the guest resets, it boots again; the plan says so, and makes it report its events.

use super::{
    KernelMismatch, Monitor, PlanError,
    assemble::{self, Args, Descriptors},
    host_needs::need_kvm,
};
use crate::{
    Access, Arch, Attachment, Character, Console, ControlPoint, ControlSocket, Host, KernelImage, Launch,
    Machine, Memory, NetBackend, OnReset, PowerButton, Role, Seccomp, ShareKind, Shutdown, Startup, Unasked,
    kernel::{Elf, ElfClass, Format, Pvh},
};

const MONITOR: Monitor = Monitor::CloudHypervisor;

pub(super) fn accepts(kernel: &KernelImage) -> Result<(), KernelMismatch> {
    match (kernel.arch, &kernel.format) {
        (Arch::X86_64, Format::BzImage) | (Arch::Aarch64, Format::Arm64Image) => Ok(()),
        (Arch::X86_64, Format::Elf(Elf { class: ElfClass::Bits64, pvh, .. })) => match pvh {
            Some(Pvh { in_last_segment: true, .. }) => Ok(()),
            Some(_) => {
                Err(KernelMismatch::NoPvhEntry { monitor: MONITOR, place: " in its last note segment" })
            }
            None => Err(KernelMismatch::NoPvhEntry { monitor: MONITOR, place: "" }),
        },
        (arch, format) => Err(KernelMismatch::Format {
            monitor: MONITOR,
            found: format.name(),
            accepted: match arch {
                Arch::X86_64 => "bzImage and 64-bit ELF with a PVH entry",
                Arch::Aarch64 => "arm64 Image, not compressed",
            },
        }),
    }
}

pub(super) fn plan(machine: &Machine, host: &Host) -> Result<Launch, PlanError> {
    need_kvm(MONITOR, host)?;
    let mut warnings = Vec::new();
    let memory = assemble::check(MONITOR, machine, host, &mut warnings)?;
    let mut descriptors = Descriptors::default();
    let mut args = Args::default();
    args.pair("--seccomp", if machine.seccomp == Seccomp::On { "true" } else { "false" });
    // A machine that is to be restored is described by its snapshot.
    if machine.startup == Startup::Boot {
        add_machine(&mut args, &mut descriptors, machine, memory)?;
        add_devices(&mut args, &mut descriptors, machine)?;
    }
    let control = machine.control == ControlSocket::On;
    if control {
        args.pair("--api-socket", format!("fd={}", descriptors.inherit(Role::Control)));
    }
    args.pair("--event-monitor", format!("fd={}", descriptors.inherit(Role::Events)));
    Ok(Launch {
        program: host.program.clone(),
        args: args.0,
        env: Vec::new(),
        documents: descriptors.documents,
        inherit: descriptors.inherit,
        control: control.then_some(ControlPoint::CloudHypervisor),
        shutdown: match machine.boot.platform.power_button {
            PowerButton::Acts if control => Shutdown::Control { otherwise: Unasked::Terminate },
            _ => Shutdown::Terminate,
        },
        on_reset: OnReset::BootsAgain,
        warnings,
    })
}

fn add_machine(
    args: &mut Args,
    descriptors: &mut Descriptors,
    machine: &Machine,
    memory: Memory,
) -> Result<(), PlanError> {
    // A virtiofsd maps the guest's memory.
    let shared = if machine.shares.is_empty() { "" } else { ",shared=on" };
    args.pair("--memory", format!("size={}M{shared}", memory.as_mib()));
    args.pair("--cpus", format!("boot={}", machine.vcpus));
    args.pair("--kernel", assemble::path("the kernel's path", &machine.kernel.path)?);
    let line = assemble::ascii_command_line(MONITOR, machine)?;
    if !line.is_empty() {
        // One element: a value that starts with a dash would be taken for an option.
        args.one(format!("--cmdline={line}"));
    }
    if let Some(initrd) = assemble::initrd(machine, descriptors)? {
        args.pair("--initramfs", initrd);
    }
    let (serial, console) = match machine.console {
        Console::Serial => ("tty", "off"),
        Console::Virtio => ("off", "tty"),
    };
    args.pair("--serial", serial);
    args.pair("--console", console);
    Ok(())
}

fn add_devices(args: &mut Args, descriptors: &mut Descriptors, machine: &Machine) -> Result<(), PlanError> {
    let refuse = |what, remedy| Err(PlanError::NoSuchDevice { monitor: MONITOR, what, remedy });
    for (index, net) in machine.nets.iter().enumerate() {
        if net.attachment != Attachment::Descriptor {
            return Err(PlanError::TapHandover { monitor: MONITOR, accepted: "by descriptor" });
        }
        if net.backend == NetBackend::Vhost {
            return refuse("vhost network back end", "let it move the packets itself");
        }
        let fd = descriptors.inherit(Role::Tap(index));
        // Without "mtu=", which would make it set the TAP's, and so need CAP_NET_ADMIN. It tells the guest the MTU that
        // the TAP has (virtio-devices/src/net.rs). No disk can have a name with a dash in it.
        args.pair("--net", format!("id=net-{},fd={fd},mac={}", index + 1, net.mac));
    }
    for disk in &machine.disks {
        let (id, path) = (&disk.id, option_path("a disk's path", &disk.path)?);
        args.pair("--disk", disk_options(&format!("id={id},serial={id}"), path, disk.access));
    }
    if let Some(path) = assemble::config_disk(machine, descriptors) {
        args.pair("--disk", disk_options("id=guest-config", &path, Access::ReadOnly));
    }
    for share in &machine.shares {
        let ShareKind::Virtiofs { socket } = &share.kind else {
            return refuse("shared directories by 9p", "use virtiofs");
        };
        let socket = option_path("virtiofsd's socket", socket)?;
        args.pair("--fs", format!("tag={},socket={socket}", share.tag));
    }
    if let Some(vsock) = &machine.vsock {
        let socket = option_path("the vsock socket's path", &vsock.socket)?;
        args.pair("--vsock", format!("cid={},socket={socket}", vsock.cid));
    }
    Ok(())
}

fn disk_options(names: &str, path: &str, access: Access) -> String {
    let readonly = if access == Access::ReadOnly { ",readonly=on" } else { "" };
    format!("path={path},{names},image_type=raw{readonly}")
}

/// Its option syntax gives these characters a meaning, and takes quotes off in some versions only.
fn option_path<'a>(what: &'static str, path: &'a std::path::Path) -> Result<&'a str, PlanError> {
    let path = assemble::path(what, path)?;
    match path.chars().find(|c| matches!(c, ',' | '"' | '[' | ']')) {
        Some(character) => Err(PlanError::Unencodable {
            monitor: MONITOR,
            what,
            value: path.to_owned(),
            character: Character(character),
        }),
        None => Ok(path),
    }
}
