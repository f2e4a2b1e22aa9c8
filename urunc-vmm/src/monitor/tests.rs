//! Plans that are refused or given with a warning. What plans look like is in `tests/golden.rs`.

use super::*;
use crate::{
    Boot, CommandLine, ControlSocket, Kernel, Kvm, KvmAccess, Memory, OnReset, PowerButton, Shutdown,
    TapHandover, Unasked, Warning,
    kernel::{
        Elf, ElfClass, ElfKind, Format, Load, Pvh,
        solo5::{Abi, Device, DeviceKind, Solo5},
    },
};

fn elf() -> Elf {
    Elf {
        class: ElfClass::Bits64,
        kind: ElfKind::Fixed,
        entry: 0x10_0000,
        loads: vec![Load { address: 0x10_0000, size: 0x2000 }],
        interpreter: false,
        pvh: Some(Pvh { entry: 0x10_0000, in_last_segment: true }),
        multiboot: false,
        solo5: None,
    }
}

fn image(elf: Elf) -> KernelImage {
    KernelImage { arch: Arch::X86_64, format: Format::Elf(elf) }
}

fn solo5_image(target: u32, devices: &[(&str, DeviceKind)]) -> KernelImage {
    let devices = devices.iter().map(|&(name, kind)| Device { name: name.to_owned(), kind }).collect();
    image(Elf { solo5: Some(Solo5 { abi: Abi { target, version: 2 }, devices }), ..elf() })
}

fn machine(image: KernelImage) -> Machine {
    Machine::new(Kernel { path: "/kernel".into(), image }, Memory::mib(64))
}

fn host() -> Host {
    Host { arch: Arch::X86_64, kvm: KvmAccess::Native, program: "/bin/monitor".into(), data_dir: None }
}

/// A machine that the monitor can run.
fn fitting(monitor: Monitor) -> Machine {
    machine(match monitor {
        Monitor::Solo5Spt => solo5_image(2, &[]),
        _ => solo5_image(1, &[]),
    })
}

#[test]
fn a_solo5_kernel_runs_only_on_its_own_tender_and_the_message_says_which() {
    for (monitor, image, message) in [
        (
            Monitor::Solo5Spt,
            solo5_image(1, &[]),
            "the kernel is a Solo5 binary for hvt (ABI target 1, version 2); spt needs ABI target 2 version 2",
        ),
        (
            Monitor::Solo5Hvt,
            solo5_image(2, &[]),
            "the kernel is a Solo5 binary for spt (ABI target 2, version 2); hvt needs ABI target 1 version 2",
        ),
        (
            Monitor::Solo5Hvt,
            image(elf()),
            "the kernel is no Solo5 binary: hvt needs one with ABI target 1 version 2",
        ),
        (
            Monitor::Qemu,
            image(Elf { pvh: None, ..elf() }),
            "the kernel has no PVH entry (a note of owner Xen, type 18); qemu does not boot it",
        ),
        (
            Monitor::Qemu,
            image(Elf { multiboot: true, ..elf() }),
            "the kernel is a 64-bit ELF with a multiboot header, by which qemu boots 32-bit ones only; leave the header \
             out, or convert the file to elf32-i386",
        ),
        (
            Monitor::CloudHypervisor,
            image(Elf { pvh: None, ..elf() }),
            "the kernel has no PVH entry (a note of owner Xen, type 18); cloud-hypervisor does not boot it",
        ),
        (
            Monitor::Firecracker,
            image(Elf { pvh: Some(Pvh { entry: 0, in_last_segment: false }), ..elf() }),
            "the kernel has no PVH entry (a note of owner Xen, type 18) in its last note segment; firecracker does \
             not boot it",
        ),
        (
            Monitor::Firecracker,
            KernelImage { arch: Arch::X86_64, format: Format::BzImage },
            "the kernel is a Linux bzImage; firecracker boots 64-bit ELF (for Linux: vmlinux)",
        ),
        (
            Monitor::Qemu,
            KernelImage { arch: Arch::Aarch64, format: Format::Arm64Image },
            "the kernel is for aarch64, but this host is x86_64",
        ),
    ] {
        assert_eq!(monitor.accepts(&image, Arch::X86_64).unwrap_err().to_string(), message);
    }
}

/// Weaknesses 2, 3 and 33 of the monitors reference.
#[test]
fn memory_out_of_bounds_is_refused_with_the_bounds_and_the_value() {
    for monitor in Monitor::ALL {
        for asked in [Memory::bytes(1), Memory::bytes(1 << 50)] {
            let machine = Machine { memory: asked, ..fitting(monitor) };
            let message = monitor.plan(&machine, &host()).unwrap_err().to_string();
            let bounds = monitor.capabilities(Arch::X86_64).memory;
            for part in
                [asked.to_string(), bounds.min.to_string(), bounds.max.to_string(), monitor.to_string()]
            {
                assert!(message.contains(&part), "{message:?} lacks {part:?}");
            }
        }
    }
    let machine = Machine { memory: Memory::mib(4097), ..fitting(Monitor::Solo5Hvt) };
    assert!(matches!(Monitor::Solo5Hvt.plan(&machine, &host()), Err(PlanError::Memory(_))));
}

#[test]
fn memory_that_is_rounded_gives_a_warning() {
    let asked = Memory::bytes((65 << 20) + 1);
    let machine = Machine { memory: asked, ..fitting(Monitor::Solo5Hvt) };
    let launch = Monitor::Solo5Hvt.plan(&machine, &host()).unwrap();
    assert_eq!(launch.args[0], "--mem=64");
    assert_eq!(launch.warnings, [Warning::MemoryRounded { asked, given: Memory::mib(64) }]);
}

#[test]
fn a_multiboot_kernel_gets_the_board_that_has_a_loader_for_it() {
    for pvh in [None, elf().pvh] {
        let small = Elf { class: ElfClass::Bits32, multiboot: true, pvh, ..elf() };
        let launch = Monitor::Qemu.plan(&machine(image(small)), &host()).unwrap();
        assert!(launch.args.windows(2).any(|pair| pair == ["-machine", "pc"]), "{:?}", launch.args);
    }
}

#[test]
fn a_kernel_that_does_not_fit_in_the_memory_is_refused() {
    let big = Elf { loads: vec![Load { address: 0x10_0000, size: 64 << 20 }], ..elf() };
    let error = Monitor::Qemu.plan(&machine(image(big)), &host()).unwrap_err();
    assert_eq!(error, PlanError::KernelTooLarge { end: 65 << 20, memory: Memory::mib(64) });
}

/// Memory begins at 1 GiB there, and so do kernels: every one was refused to a guest with less.
#[test]
fn a_kernel_for_arm_is_measured_from_where_memory_begins() {
    let host = Host { arch: Arch::Aarch64, ..host() };
    let plan = |size| {
        let elf = Elf { loads: vec![Load { address: 0x4010_0000, size }], pvh: None, ..elf() };
        let image = KernelImage { arch: Arch::Aarch64, format: Format::Elf(elf) };
        Monitor::Qemu.plan(&machine(image), &host)
    };
    plan(63 << 20).unwrap();
    let end = (64 << 20) + 1;
    assert_eq!(plan((63 << 20) + 1).unwrap_err(), PlanError::KernelTooLarge { end, memory: Memory::mib(64) });
}

#[test]
fn qemu_uses_kvm_emulates_with_a_warning_or_fails_as_configured() {
    let reason = "there is no /dev/kvm".to_owned();
    let without = Host { kvm: KvmAccess::Unusable { reason: reason.clone() }, ..host() };
    let emulated = vec![Warning::Emulated { reason: reason.clone() }];
    for (kvm, host, accel, warnings) in [
        (Kvm::Auto, host(), "kvm", vec![]),
        (Kvm::Required, host(), "kvm", vec![]),
        (Kvm::Off, host(), "tcg,tb-size=64", vec![]),
        (Kvm::Auto, without.clone(), "tcg,tb-size=64", emulated),
        (Kvm::Off, without.clone(), "tcg,tb-size=64", vec![]),
    ] {
        let machine = Machine { kvm, ..fitting(Monitor::Qemu) };
        let launch = Monitor::Qemu.plan(&machine, &host).unwrap();
        assert!(launch.args.windows(2).any(|pair| pair == ["-accel", accel]), "{:?}", launch.args);
        assert_eq!(launch.warnings, warnings);
        let has_node = Monitor::Qemu.device_nodes(&machine, &host).unwrap().contains(&DeviceNode::Kvm);
        assert_eq!(has_node, accel == "kvm");
    }
    let machine = Machine { kvm: Kvm::Required, ..fitting(Monitor::Qemu) };
    assert_eq!(
        Monitor::Qemu.plan(&machine, &without).unwrap_err().to_string(),
        "qemu cannot use KVM, which the configuration requires: there is no /dev/kvm"
    );
    for monitor in [Monitor::Solo5Hvt, Monitor::Firecracker, Monitor::CloudHypervisor] {
        let message = format!("{monitor} cannot use KVM, which it cannot do without: there is no /dev/kvm");
        assert_eq!(monitor.plan(&fitting(monitor), &without).unwrap_err().to_string(), message);
        assert_eq!(monitor.device_nodes(&fitting(monitor), &without).unwrap_err().to_string(), message);
    }
    Monitor::Solo5Spt.plan(&fitting(Monitor::Solo5Spt), &without).unwrap();
}

/// Weakness 18 of the monitors reference: QEMU aborts where the MSR cannot be set.
#[test]
fn a_nested_kvm_is_not_asked_for_what_it_cannot_do() {
    let nested = Host { kvm: KvmAccess::Nested, ..host() };
    for (host, cpu) in [(host(), "host"), (nested, "host,arch-capabilities=off")] {
        let launch = Monitor::Qemu.plan(&fitting(Monitor::Qemu), &host).unwrap();
        assert!(launch.args.windows(2).any(|pair| pair == ["-cpu", cpu]), "{:?}", launch.args);
    }
}

/// Weakness 23 of the monitors reference: spt ignores SIGTERM as the first process of its namespace.
#[test]
fn a_monitor_is_asked_to_end_in_a_way_that_it_heeds() {
    let mut machine = fitting(Monitor::Qemu);
    let plan = |machine: &Machine| Monitor::Qemu.plan(machine, &host()).unwrap().shutdown;
    assert_eq!(plan(&machine), Shutdown::Control { otherwise: Unasked::Terminate });
    machine.boot.platform.power_button = PowerButton::Ignored;
    assert_eq!(plan(&machine), Shutdown::Terminate);
    let hvt = Monitor::Solo5Hvt.plan(&fitting(Monitor::Solo5Hvt), &host()).unwrap();
    assert_eq!(hvt.shutdown, Shutdown::Terminate);
    let spt = Monitor::Solo5Spt.plan(&fitting(Monitor::Solo5Spt), &host()).unwrap();
    assert_eq!(spt.shutdown, Shutdown::Kill);
    let firecracker = |machine: &Machine| Monitor::Firecracker.plan(machine, &host()).unwrap().shutdown;
    assert_eq!(firecracker(&machine), Shutdown::Kill);
    machine.boot.platform.power_button = PowerButton::Acts;
    // If it does not answer, either.
    assert_eq!(firecracker(&machine), Shutdown::Control { otherwise: Unasked::Kill });
    machine.control = ControlSocket::Off;
    assert_eq!(firecracker(&machine), Shutdown::Kill);
    let cloud_hypervisor = Monitor::CloudHypervisor.plan(&machine, &host()).unwrap();
    assert_eq!(cloud_hypervisor.shutdown, Shutdown::Terminate);
    assert_eq!(cloud_hypervisor.on_reset, OnReset::BootsAgain);
}

#[test]
fn a_command_line_longer_than_the_monitor_takes_is_refused() {
    let arm = || machine(KernelImage { arch: Arch::Aarch64, format: Format::Arm64Image });
    let both = Monitor::ALL.into_iter().flat_map(|it| [(it, Arch::X86_64), (it, Arch::Aarch64)]);
    for (monitor, arch) in both {
        let max = monitor.capabilities(arch).max_command_line;
        // Firecracker adds words of its own.
        let added = if monitor == Monitor::Firecracker { 48 } else { 0 };
        for (size, fits) in [(max - added, true), (max + 1 - added, false)] {
            let fitting = match (monitor, arch) {
                (_, Arch::X86_64) => fitting(monitor),
                (Monitor::Solo5Hvt | Monitor::Solo5Spt, _) => continue,
                _ => arm(),
            };
            let command_line = CommandLine::new("x".repeat(size)).unwrap();
            let machine = Machine { boot: Boot { command_line, ..Boot::default() }, ..fitting };
            let host = Host { arch, ..host() };
            assert_eq!(monitor.plan(&machine, &host).is_ok(), fits, "{monitor} {arch} {size}");
        }
    }
    // It adds 31 bytes on Arm.
    assert_eq!(Monitor::CloudHypervisor.capabilities(Arch::Aarch64).max_command_line, 2016);
}

#[test]
fn a_machine_and_its_launch_survive_being_stored() {
    for monitor in Monitor::ALL {
        let machine = fitting(monitor);
        let text = serde_json::to_string(&machine).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), machine);
        let launch = monitor.plan(&machine, &host()).unwrap();
        let text = serde_json::to_string(&launch).unwrap();
        assert_eq!(serde_json::from_str::<Launch>(&text).unwrap(), launch);
    }
}

#[test]
fn tap_devices_are_handed_over_by_descriptor_where_a_monitor_takes_one() {
    let by_descriptor: Vec<_> = Monitor::ALL
        .into_iter()
        .filter(|monitor| monitor.capabilities(Arch::X86_64).tap == TapHandover::Descriptor)
        .collect();
    assert_eq!(by_descriptor, [Monitor::Qemu, Monitor::CloudHypervisor]);
}

#[test]
fn a_monitor_is_known_by_its_name() {
    for monitor in Monitor::ALL {
        assert_eq!(monitor.name().parse(), Ok(monitor));
        assert_eq!(serde_json::to_value(monitor).unwrap(), monitor.name());
    }
    assert!(matches!("QEMU".parse::<Monitor>(), Err(UnknownMonitor::Unknown(_))));
    for name in ["hyperlight", "hyperlight-unikraft", "hedge"] {
        let error = name.parse::<Monitor>().unwrap_err();
        assert!(matches!(error, UnknownMonitor::Unsupported { name: known, .. } if known == name), "{error}");
    }
}

#[test]
fn a_monitor_needs_more_memory_for_larger_guests_and_for_emulation() {
    let overhead = |kvm, memory| {
        let machine = Machine { kvm, memory, ..fitting(Monitor::Qemu) };
        Monitor::Qemu.overhead(&machine, &host()).as_mib()
    };
    assert_eq!(overhead(Kvm::Auto, Memory::mib(256)), 64 + 1 + 1);
    assert_eq!(overhead(Kvm::Off, Memory::mib(256)), 64 + 64 + 1 + 1);
    assert_eq!(overhead(Kvm::Auto, Memory::mib(4096)), 64 + 1 + 16);
    for monitor in Monitor::ALL {
        let huge = Machine { memory: Memory::bytes(u64::MAX), ..fitting(monitor) };
        assert!(monitor.overhead(&huge, &host()) > monitor.overhead(&fitting(monitor), &host()));
    }
}

#[test]
fn numbers_that_a_device_cannot_have_are_refused() {
    for monitor in [Monitor::Qemu, Monitor::CloudHypervisor] {
        let mut machine = fitting(monitor);
        machine.nets.push(crate::NetDevice {
            mac: "02:42:0a:00:00:02".parse().unwrap(),
            mtu: 67,
            attachment: crate::Attachment::Descriptor,
            declared_as: None,
            backend: crate::NetBackend::Monitor,
        });
        assert!(matches!(monitor.plan(&machine, &host()), Err(PlanError::Mtu { asked: 67, .. })));
        machine.nets[0].mtu = monitor.capabilities(Arch::X86_64).min_mtu;
        monitor.plan(&machine, &host()).unwrap();
        for (cid, accepted) in [(0, false), (2, false), (3, true), (u32::MAX - 1, true), (u32::MAX, false)] {
            machine.vsock = Some(crate::Vsock { cid, socket: "/run/vsock".into() });
            assert_eq!(monitor.plan(&machine, &host()).is_ok(), accepted, "{cid}");
        }
    }
}

#[test]
fn two_disks_of_one_name_or_two_ramdisks_are_refused() {
    let mut machine = fitting(Monitor::Qemu);
    let disk = crate::Disk {
        id: "rootfs".parse().unwrap(),
        path: "/dev/x".into(),
        access: crate::Access::ReadWrite,
        declared_as: None,
    };
    machine.disks = vec![disk.clone(), disk];
    assert!(matches!(Monitor::Qemu.plan(&machine, &host()), Err(PlanError::Duplicate { .. })));
    machine.disks.clear();
    // Weakness 13 of the monitors reference.
    machine.initrd = Some("/initrd".into());
    machine.boot.config = Some(crate::GuestConfig { contents: vec![], place: crate::ConfigPlace::Initrd });
    for monitor in [Monitor::Qemu, Monitor::Firecracker, Monitor::CloudHypervisor] {
        assert_eq!(monitor.plan(&machine, &host()), Err(PlanError::TwoInitrds));
    }
}

#[test]
fn a_configuration_that_nobody_has_placed_is_refused() {
    for monitor in Monitor::ALL {
        let mut machine = fitting(monitor);
        let place = crate::ConfigPlace::InitrdFile("/urunit.conf".to_owned());
        machine.boot.config = Some(crate::GuestConfig { contents: vec![], place });
        let error = monitor.plan(&machine, &host()).unwrap_err();
        assert_eq!(error, PlanError::ConfigNotPlaced { path: "/urunit.conf".to_owned() });
    }
}

/// They failed to start, with a sentence about interrupts or buses.
#[test]
fn more_devices_than_there_is_room_for_are_refused() {
    for (monitor, board, max) in [
        (Monitor::Qemu, crate::Board::Small, 24),
        (Monitor::Qemu, crate::Board::SmallWithTimers, 24),
        (Monitor::Qemu, crate::Board::Common, 30),
        (Monitor::Firecracker, crate::Board::Small, 17),
        (Monitor::CloudHypervisor, crate::Board::Small, 30),
    ] {
        let mut machine = fitting(monitor);
        machine.boot.platform.board = board;
        machine.vsock = Some(crate::Vsock { cid: 3, socket: "/run/vsock".into() });
        let disk = |number| crate::Disk {
            id: format!("disk{number}").parse().unwrap(),
            path: "/dev/x".into(),
            access: crate::Access::ReadWrite,
            declared_as: None,
        };
        machine.disks = (1..max).map(disk).collect();
        monitor.plan(&machine, &host()).unwrap();
        machine.disks.push(disk(max));
        let error = monitor.plan(&machine, &host()).unwrap_err();
        assert_eq!(error, PlanError::TooManyDevices { monitor, asked: max + 1, max });
    }
}

/// The first device of a name that the image gives is taken first, the others in order.
#[test]
fn solo5_devices_are_attached_by_name_then_in_order() {
    let declared = [("wan", DeviceKind::Net), ("lan", DeviceKind::Net), ("dmz", DeviceKind::Net)];
    let mut machine = machine(solo5_image(2, &declared));
    let net = |last: u8, name: Option<&str>| crate::NetDevice {
        mac: crate::MacAddr::new([2, 0, 0, 0, 0, last]).unwrap(),
        mtu: 1500,
        attachment: crate::Attachment::Name(format!("tap{last}").parse().unwrap()),
        declared_as: name.map(str::to_owned),
        backend: crate::NetBackend::Monitor,
    };
    machine.nets = vec![net(1, None), net(2, Some("wan")), net(3, None)];
    let plan = |machine: &Machine| Monitor::Solo5Spt.plan(machine, &host());
    let attached: Vec<String> =
        plan(&machine).unwrap().args.into_iter().filter(|arg| arg.starts_with("--net:")).collect();
    assert_eq!(attached, ["--net:lan=tap1", "--net:wan=tap2", "--net:dmz=tap3"]);
    for (nets, message) in [
        (
            vec![net(1, Some("eth0"))],
            "the kernel has no use for network device \"eth0\": it declares wan, lan, dmz",
        ),
        (vec![net(1, Some("wan")), net(2, Some("wan"))], "the kernel has no use for network device \"wan\""),
        (
            vec![net(1, None), net(2, None)],
            "the kernel declares network device \"dmz\", but the container has none",
        ),
        (
            vec![net(1, None), net(2, None), net(3, None), net(4, None)],
            "the kernel has no use for network device 02:00:00:00:00:04",
        ),
    ] {
        machine.nets = nets;
        let error = plan(&machine).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
