//! The Solo5 tenders, hvt and spt: `solo5-hvt [OPTIONS] -- KERNEL [ARGS]` (Solo5 `tenders/*/?vt_main.c`, 0.12).
//!
//! A tender refuses to start unless exactly the devices that the kernel's manifest declares are attached, each by
//! its declared name. The manifest is known here, so that is checked, and reported by name, before anything runs.

use super::{KernelMismatch, Monitor, PlanError, assemble, host_needs::need_kvm};
use crate::{
    Access, Attachment, Character, Disk, Host, KernelImage, Launch, Machine, NetDevice, OnReset, Seccomp,
    Shutdown, Startup, TapName, Warning,
    kernel::solo5::{Device, DeviceKind, Solo5},
};

/// The ABI version that tenders since 0.6 implement.
const ABI_VERSION: u32 = 2;

pub(super) fn accepts(monitor: Monitor, kernel: &KernelImage) -> Result<(), KernelMismatch> {
    let target = abi_target(monitor);
    match notes(kernel) {
        None => Err(KernelMismatch::NoSolo5Notes { monitor, target }),
        Some(Solo5 { abi, .. }) if abi.target == target && abi.version == ABI_VERSION => Ok(()),
        Some(Solo5 { abi, .. }) => Err(KernelMismatch::Solo5Abi { monitor, found: *abi, target }),
    }
}

/// Tells whether the kernel insists on a network device.
pub(super) fn declares_network(machine: &Machine) -> bool {
    declared(machine).iter().any(|device| device.kind == DeviceKind::Net)
}

pub(super) fn plan(monitor: Monitor, machine: &Machine, host: &Host) -> Result<Launch, PlanError> {
    let mut warnings = Vec::new();
    if monitor == Monitor::Solo5Hvt {
        need_kvm(monitor, host)?;
    }
    refuse_absent_devices(monitor, machine)?;
    if machine.seccomp == Seccomp::Off {
        warnings.push(Warning::SeccompStays);
    }
    let memory = assemble::check(monitor, machine, host, &mut warnings)?;

    let mut args = vec![format!("--mem={}", memory.as_mib())];
    for (net, device) in attach(machine, DeviceKind::Net, &machine.nets)? {
        let tap = tap_name(monitor, net)?;
        args.push(format!("--net:{}={tap}", device.name));
        args.push(format!("--net-mac:{}={}", device.name, net.mac));
    }
    for (disk, device) in attach(machine, DeviceKind::Block, &machine.disks)? {
        args.push(format!("--block:{}={}", device.name, disk_path(monitor, disk)?));
    }
    // Without the separator a kernel path or an argument that starts with a dash would be taken for an option.
    args.push("--".to_owned());
    args.push(assemble::path("the kernel's path", &machine.kernel.path)?.to_owned());
    // The tender joins its arguments with single spaces, so one element reaches the guest as it is.
    if !machine.boot.command_line.as_str().is_empty() {
        args.push(machine.boot.command_line.as_str().to_owned());
    }
    Ok(Launch {
        program: host.program.clone(),
        args,
        env: Vec::new(),
        documents: Vec::new(),
        inherit: Vec::new(),
        control: None,
        shutdown: match monitor {
            // hvt installs a handler for SIGTERM; spt has none, and so ignores it as the first process.
            Monitor::Solo5Hvt => Shutdown::Terminate,
            _ => Shutdown::Kill,
        },
        on_reset: OnReset::Ends,
        warnings,
    })
}

const fn abi_target(monitor: Monitor) -> u32 {
    match monitor {
        Monitor::Solo5Spt => 2,
        _ => 1,
    }
}

fn notes(kernel: &KernelImage) -> Option<&Solo5> {
    kernel.format.elf()?.solo5.as_ref()
}

fn declared(machine: &Machine) -> &[Device] {
    notes(&machine.kernel.image).map_or(&[], |notes| &notes.devices)
}

fn refuse_absent_devices(monitor: Monitor, machine: &Machine) -> Result<(), PlanError> {
    let refuse = |what, remedy| Err(PlanError::NoSuchDevice { monitor, what, remedy });
    if machine.initrd.is_some() || machine.boot.config.is_some() {
        return refuse("initial ramdisk", "put the files on a disk or into the kernel");
    }
    if machine.startup == Startup::Restore {
        return refuse("snapshots", "use qemu, firecracker or cloud-hypervisor");
    }
    if !machine.shares.is_empty() {
        return refuse("shared directories", "use a disk");
    }
    if machine.vsock.is_some() {
        return refuse("vsock device", "use qemu, firecracker or cloud-hypervisor");
    }
    if machine.nets.iter().any(|net| net.backend == crate::NetBackend::Vhost) {
        return refuse("vhost network back end", "let it move the packets itself");
    }
    if machine.console != crate::Console::Serial {
        return refuse("virtio console", "use the serial one, which is the tender's own");
    }
    Ok(())
}

/// A device of the machine that is to be attached under a declared name.
trait Declared {
    const KIND: &'static str;
    fn declared_as(&self) -> Option<&str>;
    fn describe(&self) -> String;
}

impl Declared for NetDevice {
    const KIND: &'static str = "network device";

    fn declared_as(&self) -> Option<&str> {
        self.declared_as.as_deref()
    }

    fn describe(&self) -> String {
        self.mac.to_string()
    }
}

impl Declared for Disk {
    const KIND: &'static str = "block device";

    fn declared_as(&self) -> Option<&str> {
        self.declared_as.as_deref()
    }

    fn describe(&self) -> String {
        self.id.to_string()
    }
}

/// Pairs what the machine has with what the kernel declares: by name where the image gives one, the rest in order.
fn attach<'a, D: Declared>(
    machine: &'a Machine,
    kind: DeviceKind,
    present: &'a [D],
) -> Result<Vec<(&'a D, &'a Device)>, PlanError> {
    let mut free: Vec<&Device> = declared(machine).iter().filter(|device| device.kind == kind).collect();
    let names = || {
        let of_kind = declared(machine).iter().filter(|device| device.kind == kind);
        let names: Vec<_> = of_kind.map(|device| device.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let surplus = |device: String| PlanError::DeviceSurplus { kind: D::KIND, device, declared: names() };

    let mut pairs: Vec<(usize, &Device)> = Vec::new();
    for (index, device) in present.iter().enumerate() {
        if let Some(name) = device.declared_as() {
            let slot = free.iter().position(|declared| declared.name == name);
            let slot = slot.ok_or_else(|| surplus(format!("{name:?}")))?;
            pairs.push((index, free.remove(slot)));
        }
    }
    let mut free = free.into_iter();
    for (index, device) in present.iter().enumerate().filter(|(_, device)| device.declared_as().is_none()) {
        pairs.push((index, free.next().ok_or_else(|| surplus(device.describe()))?));
    }
    if let Some(device) = free.next() {
        return Err(PlanError::DeviceMissing { kind: D::KIND, name: device.name.clone() });
    }
    pairs.sort_by_key(|(index, _)| *index);
    Ok(pairs.into_iter().filter_map(|(index, device)| Some((present.get(index)?, device))).collect())
}

fn tap_name(monitor: Monitor, net: &NetDevice) -> Result<&TapName, PlanError> {
    match &net.attachment {
        Attachment::Name(name) => Ok(name),
        // `--net:NAME=@FD` exists, but the tender then learns no MTU and refuses (0.12.1).
        Attachment::Descriptor => Err(PlanError::TapHandover { monitor, accepted: "by name" }),
    }
}

/// The tender scans the path up to white space, and always opens it for writing.
fn disk_path(monitor: Monitor, disk: &Disk) -> Result<&str, PlanError> {
    if disk.access == Access::ReadOnly {
        let remedy = "make the disk writable, or a copy of it";
        return Err(PlanError::NoSuchDevice { monitor, what: "read-only disks", remedy });
    }
    let path = assemble::path("a disk's path", &disk.path)?;
    match path.chars().find(char::is_ascii_whitespace) {
        Some(character) => Err(PlanError::Unencodable {
            monitor,
            what: "a disk's path",
            value: path.to_owned(),
            character: Character(character),
        }),
        None => Ok(path),
    }
}
