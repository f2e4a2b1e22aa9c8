//! Network, disks and the rest under the real monitors: each accepts what its plan says, and Solo5's guests see it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use support::{
    Running, have, host, machine,
    network::{in_namespace, ip, make_tap, open_tap},
    perform,
};
use urunc_vmm::{
    Access, Attachment, Board, ConfigPlace, Console, ControlSocket, Disk, Guest, GuestConfig, Kvm, Machine,
    Monitor, NetBackend, NetDevice, Network, PlanError, Role, Share, ShareKind, TapHandover, Vsock, Workload,
};

const TAP: &str = "tap-test";

/// Plans, and runs, what the workload makes of the machine; a TAP that is needed as a descriptor is opened.
fn run(monitor: Monitor, machine: &mut Machine, workload: &Workload) -> Running {
    let host = host(monitor);
    machine.kvm = Kvm::Off;
    machine.control = ControlSocket::Off;
    let config = machine.boot.config.take();
    machine.boot = workload.boot(machine, monitor, host.arch).unwrap();
    machine.boot.config = config;
    let launch = monitor.plan(machine, &host).unwrap();
    let taps = launch.inherit.iter().filter(|inherit| matches!(inherit.role, Role::Tap(_)));
    let given: BTreeMap<Role, OwnedFd> = taps.map(|inherit| (inherit.role, open_tap(TAP))).collect();
    perform(&launch, given)
}

fn net(monitor: Monitor) -> NetDevice {
    NetDevice {
        mac: "02:42:0a:00:00:02".parse().unwrap(),
        mtu: 1400,
        attachment: match monitor.capabilities(host(monitor).arch).tap {
            TapHandover::Descriptor => Attachment::Descriptor,
            TapHandover::Name => Attachment::Name(TAP.parse().unwrap()),
        },
        declared_as: None,
        backend: NetBackend::Monitor,
    }
}

fn disk(id: &str, path: &Path, access: Access) -> Disk {
    Disk { id: id.parse().unwrap(), path: path.to_owned(), access, declared_as: None }
}

/// A file of 1 MiB.
fn image(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    path
}

fn generic(args: &[&str]) -> Workload {
    Workload::new(Guest::Generic, args.iter().map(|&arg| arg.to_owned()).collect())
}

#[test]
fn a_solo5_guest_answers_on_the_device_that_its_manifest_declares() {
    for (monitor, kernel, program) in
        [(Monitor::Solo5Hvt, "demo-net", "solo5-hvt"), (Monitor::Solo5Spt, "demo-net-spt", "solo5-spt")]
    {
        if !have(&["root", "demo", "ip", program]) || monitor == Monitor::Solo5Hvt && !have(&["kvm"]) {
            continue;
        }
        in_namespace(|| {
            make_tap(TAP);
            let mut machine = machine(kernel);
            machine.nets.push(net(monitor));
            let network = Network { addresses: vec!["10.0.0.2/24".parse().unwrap()], ..Network::default() };
            let workload = Workload {
                networks: vec![network],
                ..Workload::new(Guest::Mirage, vec!["answer".to_owned()])
            };
            let mut running = run(monitor, &mut machine, &workload);
            running.until("word 2: answer");
            assert!(
                running.output().contains("net service: mac 02:42:0a:00:00:02, mtu 1400"),
                "{}",
                running.output()
            );
            // The host asks who has the address as soon as it has something to say to it.
            let socket = std::net::UdpSocket::bind("10.0.0.1:0").unwrap();
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            while !ip("neigh show").contains("10.0.0.2 dev tap-test lladdr 02:42:0a:00:00:02") {
                let _ = socket.send_to(b"x", "10.0.0.2:9");
                assert!(std::time::Instant::now() < deadline, "{} {}", ip("neigh show"), running.output());
                std::thread::yield_now();
            }
        });
    }
}

#[test]
fn a_solo5_guest_sees_the_disk_that_its_manifest_declares() {
    for (monitor, kernel, program) in
        [(Monitor::Solo5Hvt, "demo-block", "solo5-hvt"), (Monitor::Solo5Spt, "demo-block-spt", "solo5-spt")]
    {
        if !have(&["demo", program]) || monitor == Monitor::Solo5Hvt && !have(&["kvm"]) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut machine = machine(kernel);
        let refused = monitor.plan(&machine, &host(monitor)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the kernel declares block device \"storage\", but the container has none for it"
        );

        machine.disks.push(disk("rootfs", &image(directory.path(), "disk"), Access::ReadWrite));
        let (status, output) = run(monitor, &mut machine, &generic(&["one"])).finish();
        assert!(output.contains("block storage: 1048576 bytes"), "{output}");
        assert_eq!(status.code(), Some(0), "{output}");

        machine.disks.push(disk("more", &image(directory.path(), "more"), Access::ReadWrite));
        let refused = monitor.plan(&machine, &host(monitor)).unwrap_err();
        assert!(matches!(refused, PlanError::DeviceSurplus { .. }), "{refused}");
    }
}

#[test]
fn every_other_monitor_starts_with_a_network_and_attaches_to_it() {
    for (monitor, program) in [
        (Monitor::Qemu, "qemu-system-x86_64"),
        (Monitor::Firecracker, "firecracker"),
        (Monitor::CloudHypervisor, "cloud-hypervisor"),
    ] {
        if !have(&["root", "demo", "ip", program]) || monitor != Monitor::Qemu && !have(&["kvm"]) {
            continue;
        }
        in_namespace(|| {
            make_tap(TAP);
            assert!(!ip("link show tap-test").contains("LOWER_UP"));
            let mut machine = machine("demo");
            machine.nets.push(net(monitor));
            let mut running = run(monitor, &mut machine, &generic(&["hold"]));
            running.until("holding");
            assert!(ip("link show tap-test").contains("LOWER_UP"), "{monitor}");
        });
    }
}

#[test]
fn every_other_monitor_starts_with_all_that_it_can_have() {
    for (monitor, program) in [
        (Monitor::Qemu, "qemu-system-x86_64"),
        (Monitor::Firecracker, "firecracker"),
        (Monitor::CloudHypervisor, "cloud-hypervisor"),
    ] {
        if !have(&["demo", program]) || monitor != Monitor::Qemu && !have(&["kvm"]) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let able = monitor.capabilities(host(monitor).arch);
        let mut machine = machine("demo");
        machine.vcpus = std::num::NonZeroU32::new(2).unwrap();
        machine.initrd = Some(image(directory.path(), "initrd"));
        machine.disks.push(disk("rootfs", &image(directory.path(), "a"), Access::ReadWrite));
        machine.disks.push(disk("vol1", &image(directory.path(), "b"), Access::ReadOnly));
        if able.nine_p {
            let kind = ShareKind::NineP { path: directory.path().to_owned(), access: Access::ReadOnly };
            machine.shares.push(Share { tag: "fs0".parse().unwrap(), kind });
        }
        if able.vsock && monitor != Monitor::Qemu {
            machine.vsock = Some(Vsock { cid: 3, socket: directory.path().join("vsock") });
        }
        let mut running = run(monitor, &mut machine, &generic(&["hold"]));
        running.until("holding");
        drop(running);

        if able.virtio_console {
            // The demo writes to the UART only, so its words are lost; that it ends shows that it ran.
            (machine.console, machine.vsock) = (Console::Virtio, None);
            let (status, output) = run(monitor, &mut machine, &generic(&["exit=0"])).finish();
            assert_eq!(status.code(), Some(0), "{monitor}: {output}");
        }
    }
}

#[test]
fn every_other_monitor_starts_with_as_many_devices_as_a_plan_may_have() {
    for (monitor, program, board) in [
        (Monitor::Qemu, "qemu-system-x86_64", Board::Small),
        (Monitor::Qemu, "qemu-system-x86_64", Board::SmallWithTimers),
        (Monitor::Qemu, "qemu-system-x86_64", Board::Common),
        (Monitor::Firecracker, "firecracker", Board::Small),
        (Monitor::CloudHypervisor, "cloud-hypervisor", Board::Small),
    ] {
        if !have(&["demo", program]) || monitor != Monitor::Qemu && !have(&["kvm"]) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut machine = machine("demo");
        machine.boot = generic(&["one"]).boot(&machine, monitor, host(monitor).arch).unwrap();
        machine.boot.platform.board = board;
        (machine.kvm, machine.control) = (Kvm::Off, ControlSocket::Off);
        let launch = loop {
            let id = format!("disk{}", machine.disks.len());
            machine.disks.push(disk(&id, &image(directory.path(), &id), Access::ReadWrite));
            let more = monitor.plan(&machine, &host(monitor));
            if let Err(PlanError::TooManyDevices { .. }) = more {
                machine.disks.pop();
                break monitor.plan(&machine, &host(monitor)).unwrap();
            }
        };
        let (status, output) = perform(&launch, BTreeMap::new()).finish();
        assert!(output.contains("word 1: one"), "{monitor}: {output}");
        assert_eq!(status.code(), Some(0), "{monitor} {board:?}: {output}");
    }
}

/// Weakness 8 of the monitors reference: the configuration was a file that anybody could read.
#[test]
fn every_other_monitor_reads_a_guests_configuration_from_a_descriptor() {
    for (monitor, program) in [
        (Monitor::Qemu, "qemu-system-x86_64"),
        (Monitor::Firecracker, "firecracker"),
        (Monitor::CloudHypervisor, "cloud-hypervisor"),
    ] {
        if !have(&["demo", program]) || monitor != Monitor::Qemu && !have(&["kvm"]) {
            continue;
        }
        for place in [ConfigPlace::Initrd, ConfigPlace::LastDisk] {
            let mut machine = machine("demo");
            machine.boot.config = Some(GuestConfig { contents: vec![b'x'; 512], place });
            let (status, output) = run(monitor, &mut machine, &generic(&["one"])).finish();
            assert!(output.contains("word 1: one"), "{monitor}: {output}");
            assert_eq!(status.code(), Some(0), "{monitor}: {output}");
        }
    }
}
