//! Solo5's own test guests, as far as `URUNC_TEST_SOLO5` names a folder with them: what is found in each file agrees with
//! what its tender says, and those with devices run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use support::{
    Running, have, host,
    network::{in_namespace, ip},
    perform,
};
use urunc_vmm::{
    Access, Arch, Attachment, CommandLine, Disk, Kernel, KernelMismatch, Machine, Memory, Monitor,
    NetBackend, NetDevice, kernel,
};

/// The folder of the guests.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("URUNC_TEST_SOLO5").map(PathBuf::from);
    let required =
        std::env::var("URUNC_REQUIRE").is_ok_and(|all| all.split(',').any(|one| one == "solo5-tests"));
    assert!(folder.is_some() || !required, "solo5-tests is required, but URUNC_TEST_SOLO5 names no folder");
    if folder.is_none() {
        support::skipped("URUNC_TEST_SOLO5 names no folder");
    }
    folder
}

/// The guests of the given name, each with its tender.
fn guests(name: &str) -> Vec<(Monitor, PathBuf)> {
    let Some(folder) = folder() else { return Vec::new() };
    [(Monitor::Solo5Hvt, "hvt", &["solo5-hvt", "kvm"][..]), (Monitor::Solo5Spt, "spt", &["solo5-spt"])]
        .into_iter()
        .filter(|(_, _, needs)| have(needs))
        .map(|(monitor, suffix, _)| (monitor, folder.join(format!("{name}.{suffix}"))))
        .collect()
}

fn machine(path: &Path) -> Machine {
    let image = kernel::inspect(std::fs::File::open(path).unwrap()).unwrap();
    Machine::new(Kernel { path: path.to_owned(), image }, Memory::mib(64))
}

fn run(monitor: Monitor, machine: &Machine) -> Running {
    perform(&monitor.plan(machine, &host(monitor)).unwrap(), BTreeMap::new())
}

fn net(tap: &str, last: u8) -> NetDevice {
    NetDevice {
        mac: format!("02:00:00:00:00:{last:02x}").parse().unwrap(),
        mtu: 1500,
        attachment: Attachment::Name(tap.parse().unwrap()),
        declared_as: None,
        backend: NetBackend::Monitor,
    }
}

fn tap(name: &str, address: &str) {
    ip(&format!("tuntap add dev {name} mode tap"));
    ip(&format!("link set {name} up"));
    ip(&format!("addr add {address}/24 dev {name}"));
}

fn ping(address: &str) -> bool {
    Command::new("ping").args(["-c", "1", "-W", "5", address]).output().unwrap().status.success()
}

#[test]
fn every_guest_is_read_and_is_for_its_own_tender_alone() {
    let Some(folder) = folder() else { return };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let own = match path.extension().and_then(|extension| extension.to_str()) {
            Some("hvt") => Monitor::Solo5Hvt,
            Some("spt") => Monitor::Solo5Spt,
            _ => continue,
        };
        let found = kernel::inspect(std::fs::File::open(&path).unwrap());
        // A file that is broken on purpose.
        if name.starts_with("buggyelf") {
            assert!(found.is_err(), "{found:?}");
            continue;
        }
        let image = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        for monitor in [Monitor::Solo5Hvt, Monitor::Solo5Spt] {
            let accepted = monitor.accepts(&image, Arch::X86_64);
            if monitor == own {
                accepted.unwrap();
            } else {
                assert!(matches!(accepted, Err(KernelMismatch::Solo5Abi { .. })), "{name}: {accepted:?}");
            }
        }
    }
}

#[test]
fn guests_without_devices_run() {
    for (monitor, path) in guests("test_hello") {
        let mut machine = machine(&path);
        machine.boot.command_line = CommandLine::new("Hello_Solo5").unwrap();
        let (status, output) = run(monitor, &machine).finish();
        assert!(output.contains("SUCCESS"), "{output}");
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn a_guest_reads_and_writes_its_disk() {
    for (monitor, path) in guests("test_blk") {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk");
        std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let mut machine = machine(&path);
        machine.disks.push(Disk {
            id: "rootfs".parse().unwrap(),
            path: image.clone(),
            access: Access::ReadWrite,
            declared_as: None,
        });
        let (status, output) = run(monitor, &machine).finish();
        assert!(output.contains("SUCCESS"), "{output}");
        assert_eq!(status.code(), Some(0));
        assert!(std::fs::read(&image).unwrap().iter().any(|byte| *byte != 0));
    }
}

/// Weakness 11 of the monitors reference: a kernel with a second device could not start.
#[test]
fn a_guest_answers_on_both_of_its_networks() {
    for (monitor, path) in guests("test_net_2if") {
        if !have(&["root", "ip", "ping"]) {
            continue;
        }
        in_namespace(|| {
            tap("tap100", "10.0.0.1");
            tap("tap101", "10.1.0.1");
            let mut machine = machine(&path);
            machine.nets = vec![net("tap100", 1)];
            let missing = monitor.plan(&machine, &host(monitor)).unwrap_err();
            assert_eq!(
                missing.to_string(),
                "the kernel declares network device \"service1\", but the container has none for it"
            );
            machine.nets.push(net("tap101", 2));
            let mut running = run(monitor, &machine);
            running.until("Serving ping on 10.1.0.2");
            assert!(ping("10.0.0.2"), "{}", running.output());
            assert!(ping("10.1.0.2"), "{}", running.output());
        });
    }
}
