//! Firecracker, 1.4 or newer (1.12 to restore a network, 1.16 for an MTU other than 1500): one JSON document for the machine (Firecracker
//! `src/vmm/src/vmm_config`, `resources.rs`, `VmmConfig`), and few arguments.
//!
//! The guest finds disks in their order: Firecracker shows it no name. It adds words of its own to the command line
//! (`pci=off`, one for each device), which count towards its limit.

use serde::Serialize;

use super::{
    KernelMismatch, Monitor, PlanError,
    assemble::{self, Descriptors},
    host_needs::need_kvm,
};
use crate::{
    Access, Arch, Attachment, Console, ControlPoint, ControlSocket, Host, KernelImage, Launch, Machine,
    Memory, NetBackend, OnReset, PowerButton, Seccomp, Shutdown, Startup, Unasked,
    kernel::{Elf, ElfClass, Format, Pvh},
};

const MONITOR: Monitor = Monitor::Firecracker;
/// Where it makes its control socket, in its own root.
pub(super) const SOCKET: &str = "/run/firecracker.sock";
/// Longer than any [`DeviceId`](crate::DeviceId), so that no disk has it.
const CONFIG_DRIVE: &str = "urunc_guest_configuration";
/// What every version takes without being told.
const DEFAULT_MTU: u16 = 1500;
/// ` pci=off`, and ` virtio_mmio.device=4K@0xc0001000:5` with room for larger numbers. On Arm devices are in a tree, and
/// the console has a word, ` earlycon=uart,mmio,0x40002000`.
const ADDED_WORD: usize = 8;
const ADDED_DEVICE_WORD: usize = 40;
const ADDED_CONSOLE_WORD: usize = 40;

pub(super) fn accepts(kernel: &KernelImage) -> Result<(), KernelMismatch> {
    match (kernel.arch, &kernel.format) {
        // Without a PVH entry it enters the kernel in 64-bit mode, as Linux's boot protocol has it.
        (Arch::X86_64, Format::Elf(Elf { class: ElfClass::Bits64, pvh, .. })) => match pvh {
            Some(Pvh { in_last_segment: false, .. }) => {
                Err(KernelMismatch::NoPvhEntry { monitor: MONITOR, place: " in its last note segment" })
            }
            _ => Ok(()),
        },
        (Arch::Aarch64, Format::Arm64Image) => Ok(()),
        (arch, format) => Err(KernelMismatch::Format {
            monitor: MONITOR,
            found: format.name(),
            accepted: match arch {
                Arch::X86_64 => "64-bit ELF (for Linux: vmlinux)",
                Arch::Aarch64 => "arm64 Image, not compressed",
            },
        }),
    }
}

pub(super) fn plan(machine: &Machine, host: &Host) -> Result<Launch, PlanError> {
    need_kvm(MONITOR, host)?;
    let mut warnings = Vec::new();
    let memory = assemble::check(MONITOR, machine, host, &mut warnings)?;
    refuse_absent_devices(machine)?;
    check_line_with_additions(machine, host)?;

    let mut descriptors = Descriptors::default();
    let control = machine.control == ControlSocket::On;
    let mut args = if control { vec!["--api-sock", SOCKET] } else { vec!["--no-api"] };
    // Its log shares standard output with the console.
    args.extend(["--level", "Error"]);
    let document = match machine.startup {
        Startup::Boot => Some(document(machine, memory, &mut descriptors)?),
        Startup::Restore => None,
    };
    if let Some(document) = &document {
        args.extend(["--config-file", document]);
    }
    if machine.seccomp == Seccomp::Off {
        args.push("--no-seccomp");
    }
    Ok(Launch {
        program: host.program.clone(),
        args: args.into_iter().map(str::to_owned).collect(),
        env: Vec::new(),
        documents: descriptors.documents,
        inherit: descriptors.inherit,
        control: control.then(|| ControlPoint::Firecracker { path: SOCKET.into() }),
        shutdown: match machine.boot.platform.power_button {
            // Its one key combination is the keyboard controller's, which Arm has not.
            // It has no handler for SIGTERM, and so ignores it as the first process of its namespace.
            PowerButton::Acts if control && host.arch == Arch::X86_64 => {
                Shutdown::Control { otherwise: Unasked::Kill }
            }
            _ => Shutdown::Kill,
        },
        on_reset: OnReset::Ends,
        warnings,
    })
}

/// Writes the machine down, and returns the document's path.
fn document(machine: &Machine, memory: Memory, descriptors: &mut Descriptors) -> Result<String, PlanError> {
    let initrd = assemble::initrd(machine, descriptors)?;
    let config = Config {
        boot_source: BootSource {
            kernel_image_path: assemble::path("the kernel's path", &machine.kernel.path)?,
            boot_args: assemble::ascii_command_line(MONITOR, machine)?,
            initrd_path: initrd.as_deref(),
        },
        machine_config: MachineConfig {
            vcpu_count: machine.vcpus.get(),
            mem_size_mib: memory.as_mib(),
            smt: false,
            track_dirty_pages: false,
        },
        drives: drives(machine, descriptors)?,
        network_interfaces: interfaces(machine)?,
        vsock: match &machine.vsock {
            Some(vsock) => Some(VsockConfig {
                guest_cid: vsock.cid,
                uds_path: assemble::path("the vsock socket's path", &vsock.socket)?,
            }),
            None => None,
        },
    };
    // The types above hold strings and numbers only, which always have a JSON form.
    let document = serde_json::to_vec(&config).unwrap_or_default();
    Ok(descriptors.document("machine configuration", document))
}

fn refuse_absent_devices(machine: &Machine) -> Result<(), PlanError> {
    let refuse = |what, remedy| Err(PlanError::NoSuchDevice { monitor: MONITOR, what, remedy });
    if !machine.shares.is_empty() {
        return refuse("shared directories", "use a disk or an initrd");
    }
    if machine.console != Console::Serial {
        return refuse("virtio console", "use the serial one");
    }
    if machine.nets.iter().any(|net| net.backend == NetBackend::Vhost) {
        return refuse("vhost network back end", "let it move the packets itself");
    }
    Ok(())
}

/// Its limit holds for the line with the words that it adds.
fn check_line_with_additions(machine: &Machine, host: &Host) -> Result<(), PlanError> {
    let size = machine.boot.command_line.as_str().len();
    let devices = machine.nets.len() + machine.disks.len() + usize::from(machine.vsock.is_some()) + 1;
    let added = match host.arch {
        Arch::X86_64 => ADDED_WORD + devices * ADDED_DEVICE_WORD,
        Arch::Aarch64 => ADDED_WORD + ADDED_CONSOLE_WORD,
    };
    let max = MONITOR.capabilities(host.arch).max_command_line.saturating_sub(added);
    if size > max {
        return Err(PlanError::CommandLineTooLong { monitor: MONITOR, size, max });
    }
    Ok(())
}

fn drives<'a>(machine: &'a Machine, descriptors: &mut Descriptors) -> Result<Vec<Drive<'a>>, PlanError> {
    let mut drives = Vec::new();
    for disk in &machine.disks {
        drives.push(Drive {
            drive_id: disk.id.as_str(),
            path_on_host: assemble::path("a disk's path", &disk.path)?.to_owned(),
            is_read_only: disk.access == Access::ReadOnly,
            // The root file system is on the command line; true would say it a second time.
            is_root_device: false,
        });
    }
    drives.extend(assemble::config_disk(machine, descriptors).map(|path_on_host| Drive {
        drive_id: CONFIG_DRIVE,
        path_on_host,
        is_read_only: true,
        is_root_device: false,
    }));
    Ok(drives)
}

fn interfaces(machine: &Machine) -> Result<Vec<Interface>, PlanError> {
    let mut interfaces = Vec::new();
    for (number, net) in (1..).zip(&machine.nets) {
        let Attachment::Name(name) = &net.attachment else {
            return Err(PlanError::TapHandover { monitor: MONITOR, accepted: "by name" });
        };
        interfaces.push(Interface {
            iface_id: format!("net{number}"),
            guest_mac: net.mac.to_string(),
            host_dev_name: name.to_string(),
            mtu: Some(net.mtu).filter(|&mtu| mtu != DEFAULT_MTU),
        });
    }
    Ok(interfaces)
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Config<'a> {
    boot_source: BootSource<'a>,
    machine_config: MachineConfig,
    drives: Vec<Drive<'a>>,
    network_interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsock: Option<VsockConfig<'a>>,
}

#[derive(Serialize)]
struct BootSource<'a> {
    kernel_image_path: &'a str,
    /// Always there: Firecracker has a line of its own for when it is not.
    boot_args: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd_path: Option<&'a str>,
}

#[derive(Serialize)]
struct MachineConfig {
    vcpu_count: u32,
    mem_size_mib: u64,
    smt: bool,
    track_dirty_pages: bool,
}

#[derive(Serialize)]
struct Drive<'a> {
    drive_id: &'a str,
    path_on_host: String,
    is_read_only: bool,
    is_root_device: bool,
}

#[derive(Serialize)]
struct Interface {
    iface_id: String,
    guest_mac: String,
    host_dev_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
}

#[derive(Serialize)]
struct VsockConfig<'a> {
    guest_cid: u32,
    uds_path: &'a str,
}
