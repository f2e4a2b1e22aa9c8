//! What each monitor's process really gets, seen by a program in its place (`examples/fake-monitor.rs`): arguments as
//! planned, no environment, the planned descriptors and no other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;
use support::{kernel_for, perform};
use urunc_vmm::{
    Access, Arch, Attachment, ConfigPlace, Disk, GuestConfig, Host, Kernel, KvmAccess, Launch, Machine,
    Memory, Monitor, NetBackend, NetDevice, Role, TapHandover, kernel::solo5::DeviceKind,
};

/// Cargo builds a package's examples before its tests, beside them, unless it is told which test to build.
fn fake_monitor() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples/fake-monitor");
    assert!(path.exists(), "first: cargo build -p urunc-vmm --example fake-monitor");
    path
}

/// A machine with a network, a disk and a secret configuration, as far as the monitor has them.
fn plan(monitor: Monitor) -> Launch {
    let declared = [("net0", DeviceKind::Net), ("disk0", DeviceKind::Block)];
    let image = kernel_for(monitor, Arch::X86_64, &declared);
    let is_solo5 = matches!(monitor, Monitor::Solo5Hvt | Monitor::Solo5Spt);
    let mut machine = Machine::new(Kernel { path: "/kernel".into(), image }, Memory::mib(64));
    machine.nets.push(NetDevice {
        mac: "02:42:0a:00:00:02".parse().unwrap(),
        mtu: 1500,
        attachment: match monitor.capabilities(Arch::X86_64).tap {
            TapHandover::Descriptor => Attachment::Descriptor,
            TapHandover::Name => Attachment::Name("tap0".parse().unwrap()),
        },
        declared_as: None,
        backend: if monitor == Monitor::Qemu { NetBackend::Vhost } else { NetBackend::Monitor },
    });
    machine.disks.push(Disk {
        id: "rootfs".parse().unwrap(),
        path: "/dev/x".into(),
        access: Access::ReadWrite,
        declared_as: None,
    });
    if !is_solo5 {
        let contents = b"PASSWORD=hush\n".to_vec();
        machine.boot.config = Some(GuestConfig { contents, place: ConfigPlace::Initrd });
    }
    let host = Host { arch: Arch::X86_64, kvm: KvmAccess::Native, program: fake_monitor(), data_dir: None };
    monitor.plan(&machine, &host).unwrap()
}

fn seen(launch: &Launch) -> Value {
    let file = || std::fs::File::open("/dev/null").unwrap().into();
    let given = launch.inherit.iter().map(|inherit| (inherit.role, file())).collect::<BTreeMap<Role, _>>();
    let (status, output) = perform(launch, given).finish();
    assert!(status.success(), "{output}");
    serde_json::from_str(&output).unwrap()
}

#[test]
fn a_process_gets_what_is_planned_and_nothing_else() {
    for monitor in Monitor::ALL {
        let launch = plan(monitor);
        let seen = seen(&launch);
        assert_eq!(seen["args"], serde_json::to_value(&launch.args).unwrap(), "{monitor}");
        assert_eq!(seen["env"], serde_json::json!({}), "{monitor}");

        let open: BTreeSet<i32> =
            seen["descriptors"].as_object().unwrap().keys().map(|fd| fd.parse().unwrap()).collect();
        let mut planned: BTreeSet<i32> = [0, 1, 2].into();
        planned.extend(launch.documents.iter().map(|document| document.fd));
        planned.extend(launch.inherit.iter().map(|inherit| inherit.fd));
        assert_eq!(open, planned, "{monitor}");
        for document in &launch.documents {
            let contents = seen["descriptors"][document.fd.to_string()]["contents"].as_str().unwrap();
            assert_eq!(contents.as_bytes(), document.contents, "{monitor}");
        }
    }
}

/// Weakness 8 of the monitors reference: secrets were in world-readable files and in the argument vector.
#[test]
fn a_secret_configuration_is_in_a_descriptor_only() {
    for monitor in [Monitor::Qemu, Monitor::Firecracker, Monitor::CloudHypervisor] {
        let launch = plan(monitor);
        assert!(launch.args.iter().all(|arg| !arg.contains("hush")));
        assert!(launch.documents.iter().any(|document| document.contents == b"PASSWORD=hush\n"));
        assert!(!format!("{launch:?}").contains("hush"), "a debug print must not show it");
    }
}

/// A descriptor has one number, and each number one descriptor.
#[test]
fn descriptors_are_numbered_without_gap_from_three() {
    for monitor in Monitor::ALL {
        let launch = plan(monitor);
        let documents = launch.documents.iter().map(|document| document.fd);
        let mut numbers: Vec<i32> =
            documents.chain(launch.inherit.iter().map(|inherit| inherit.fd)).collect();
        numbers.sort_unstable();
        let expected: Vec<i32> = (3..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "{monitor}");
    }
}
