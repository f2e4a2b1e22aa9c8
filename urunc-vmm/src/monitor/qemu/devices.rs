//! QEMU's virtio devices, as `-device`, `-netdev`, `-drive`, `-fsdev` and `-object` options.

use super::Options;
use crate::{
    Access, Arch, Attachment, Board, Machine, Monitor, NetBackend, NetDevice, PlanError, Role, Share,
    ShareKind, VirtioPci, Vsock,
    monitor::assemble::{self, Args, Descriptors},
};

/// Our own names have a dash in them, so that no [`DeviceId`](crate::DeviceId) can be one of them.
const CONFIG_DISK: &str = "guest-config";

/// The host kernel's vsock needs shared memory no more than a TAP does; a `virtiofsd` maps the guest's memory.
pub(super) fn needs_shared_memory(machine: &Machine) -> bool {
    machine.shares.iter().any(|share| matches!(share.kind, ShareKind::Virtiofs { .. }))
}

/// Adds all devices of the machine but its console.
pub(super) fn add(
    args: &mut Args,
    descriptors: &mut Descriptors,
    board: Board,
    machine: &Machine,
    arch: Arch,
) -> Result<(), PlanError> {
    let bus = Bus { board, arch, age: machine.boot.platform.virtio_pci };
    if needs_shared_memory(machine) {
        let size = Monitor::Qemu.capabilities(arch).fit_memory(Monitor::Qemu, machine.memory)?;
        let memory = Options::bare("memory-backend-memfd").set("id", super::RAM).set("share", "on");
        args.pair("-object", memory.set("size", format_args!("{}M", size.as_mib())));
    }
    for (index, net) in machine.nets.iter().enumerate() {
        add_net(args, descriptors, bus, index, net)?;
    }
    for disk in &machine.disks {
        let path = assemble::path("a disk's path", &disk.path)?;
        add_disk(args, bus, disk.id.as_str(), path, disk.access);
    }
    if let Some(path) = assemble::config_disk(machine, descriptors) {
        add_disk(args, bus, CONFIG_DISK, &path, Access::ReadOnly);
    }
    for share in &machine.shares {
        add_share(args, bus, share)?;
    }
    if let Some(vsock) = &machine.vsock {
        add_vsock(args, descriptors, bus, vsock);
    }
    Ok(())
}

/// Connects the chardev `console` to a virtio console.
pub(super) fn virtio_console(args: &mut Args, board: Board, machine: &Machine, arch: Arch) {
    let bus = Bus { board, arch, age: machine.boot.platform.virtio_pci };
    args.pair("-device", bus.device("virtio-serial"));
    args.pair("-device", Options::bare("virtconsole").set("chardev", "console"));
}

/// Where virtio devices are plugged in.
#[derive(Clone, Copy)]
struct Bus {
    board: Board,
    arch: Arch,
    age: VirtioPci,
}

impl Bus {
    fn is_pci(self) -> bool {
        // Arm's `virt` has both; PCI gives devices an order that does not depend on the command line's.
        self.board == Board::Common || self.arch == Arch::Aarch64
    }

    fn device(self, kind: &str) -> Options {
        if !self.is_pci() {
            // Their addresses descend, but ACPI lists them in the order of the command line (seen with Linux 6.1).
            return Options::bare(&format!("{kind}-device"));
        }
        let device = Options::bare(&format!("{kind}-pci"));
        match self.age {
            VirtioPci::Transitional => device,
            VirtioPci::Modern => device.set("disable-legacy", "on"),
        }
    }
}

fn add_net(
    args: &mut Args,
    descriptors: &mut Descriptors,
    bus: Bus,
    index: usize,
    net: &NetDevice,
) -> Result<(), PlanError> {
    if net.attachment != Attachment::Descriptor {
        return Err(PlanError::TapHandover { monitor: Monitor::Qemu, accepted: "by descriptor" });
    }
    let id = format!("net-{index}");
    let tap = Options::bare("tap").set("id", &id).set("fd", descriptors.inherit(Role::Tap(index)));
    args.pair(
        "-netdev",
        match net.backend {
            NetBackend::Monitor => tap,
            NetBackend::Vhost => {
                tap.set("vhost", "on").set("vhostfd", descriptors.inherit(Role::VhostNet(index)))
            }
        },
    );
    // Unikernels on Arm's `virt` look for their network on MMIO.
    let on_pci = bus.is_pci() && bus.arch == Arch::X86_64;
    let device = if on_pci { bus.device("virtio-net") } else { Options::bare("virtio-net-device") };
    let device = device.set("netdev", &id).set("mac", net.mac).set("host_mtu", net.mtu);
    // Nothing boots from the network; without this, QEMU wants a boot ROM for it.
    args.pair("-device", if on_pci { device.set("romfile", "") } else { device });
    Ok(())
}

fn add_disk(args: &mut Args, bus: Bus, id: &str, path: &str, access: Access) {
    let drive = Options::key("if", "none").set("id", id).set("format", "raw").set("file", path);
    args.pair(
        "-drive",
        match access {
            Access::ReadOnly => drive.set("readonly", "on"),
            Access::ReadWrite => drive,
        },
    );
    args.pair("-device", bus.device("virtio-blk").set("drive", id).set("serial", id));
}

fn add_share(args: &mut Args, bus: Bus, share: &Share) -> Result<(), PlanError> {
    let tag = &share.tag;
    match &share.kind {
        ShareKind::NineP { path, access } => {
            let path = assemble::path("a shared directory's path", path)?;
            let fsdev = Options::bare("local").set("id", tag).set("path", path);
            // Ownership is passed through as far as QEMU's user may; files of several file systems stay distinct.
            let fsdev = fsdev.set("security_model", "none").set("multidevs", "remap");
            args.pair(
                "-fsdev",
                match access {
                    Access::ReadOnly => fsdev.set("readonly", "on"),
                    Access::ReadWrite => fsdev,
                },
            );
            args.pair("-device", bus.device("virtio-9p").set("fsdev", tag).set("mount_tag", tag));
        }
        ShareKind::Virtiofs { socket } => {
            let path = assemble::path("virtiofsd's socket", socket)?;
            let chardev = format!("virtiofs-{tag}");
            args.pair("-chardev", Options::bare("socket").set("id", &chardev).set("path", path));
            let device = bus.device("vhost-user-fs").set("chardev", chardev).set("tag", tag);
            args.pair("-device", device.set("queue-size", 1024));
        }
    }
    Ok(())
}

fn add_vsock(args: &mut Args, descriptors: &mut Descriptors, bus: Bus, vsock: &Vsock) {
    let fd = descriptors.inherit(Role::VhostVsock);
    args.pair("-device", bus.device("vhost-vsock").set("guest-cid", vsock.cid).set("vhostfd", fd));
}
