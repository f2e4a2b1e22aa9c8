//! The demo unikernel under the real monitors, as far as they are installed: what it is told, how it ends, and how it is
//! asked to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeMap,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    time::Duration,
};

use support::{Running, have, host, machine, perform};
use urunc_vmm::{
    Board, ControlError, ControlSocket, Guest, Kvm, Launch, Machine, Monitor, OnReset, Shutdown, Workload,
    control::{State, Watched, watch},
    stop::{self, Ended},
};

const GRACE: Duration = Duration::from_secs(100);

fn needs(monitor: Monitor) -> Vec<&'static str> {
    match monitor {
        Monitor::Solo5Hvt => vec!["demo", "solo5-hvt", "kvm"],
        Monitor::Solo5Spt => vec!["demo", "solo5-spt"],
        Monitor::Qemu => vec!["demo", "qemu-system-x86_64"],
        Monitor::Firecracker => vec!["demo", "firecracker", "kvm"],
        Monitor::CloudHypervisor => vec!["demo", "cloud-hypervisor", "kvm"],
    }
}

fn kernel(monitor: Monitor) -> &'static str {
    if monitor == Monitor::Solo5Spt { "demo-spt" } else { "demo" }
}

/// Plans the demo for a monitor; QEMU emulates, since not every KVM can run it.
fn plan(monitor: Monitor, args: &[&str], change: impl FnOnce(&mut Machine)) -> Launch {
    let host = host(monitor);
    let mut machine = machine(kernel(monitor));
    machine.kvm = Kvm::Off;
    let workload = Workload::new(Guest::Generic, args.iter().map(|&arg| arg.to_owned()).collect());
    machine.boot = workload.boot(&machine, monitor, host.arch).unwrap();
    change(&mut machine);
    let mut launch = monitor.plan(&machine, &host).unwrap();
    own_socket(&mut launch);
    launch
}

/// Gives a Firecracker that shares the test's root a socket of its own.
fn own_socket(launch: &mut Launch) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    if let Some(urunc_vmm::ControlPoint::Firecracker { path }) = &mut launch.control {
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let own = std::env::temp_dir().join(format!("urunc-vmm-{}-{count}.sock", std::process::id()));
        let old = path.to_str().unwrap().to_owned();
        for arg in launch.args.iter_mut().filter(|arg| **arg == old) {
            *arg = own.to_str().unwrap().to_owned();
        }
        *path = own;
    }
}

fn run(launch: &Launch) -> Running {
    perform(launch, BTreeMap::new())
}

#[test]
fn the_guest_is_told_its_arguments_and_its_status_is_the_monitors() {
    for (monitor, status) in [
        (Monitor::Qemu, 7),
        (Monitor::Solo5Hvt, 3),
        (Monitor::Solo5Spt, 3),
        // These have no way to pass a status on.
        (Monitor::Firecracker, 0),
        (Monitor::CloudHypervisor, 0),
    ] {
        if !have(&needs(monitor)) {
            continue;
        }
        let launch = plan(monitor, &["one", "t,w=o", "exit=3"], |_| {});
        let (ended, output) = run(&launch).finish();
        let words = output.replace('\r', "");
        assert!(words.contains("word 1: one\nword 2: t,w=o\nword 3: exit=3\n"), "{monitor}: {output}");
        assert!(output.contains("memory: 64 MiB"), "{monitor}: {output}");
        assert_eq!(ended.code(), Some(status), "{monitor}: {output}");
        // Nothing that a guest is told is taken for an option of its monitor.
        let launch = plan(monitor, &["--help"], |machine| machine.control = ControlSocket::Off);
        let (ended, output) = run(&launch).finish();
        assert!(output.contains("word 1: --help"), "{monitor}: {output}");
        assert_eq!(ended.code(), Some(0), "{monitor}: {output}");
        let launch = plan(monitor, &[], |_| {});
        let (ended, output) = run(&launch).finish();
        assert_eq!(ended.code(), Some(0), "{monitor}: {output}");
    }
}

#[test]
fn the_smallest_accepted_memory_is_accepted() {
    for monitor in Monitor::ALL {
        if have(&needs(monitor)) {
            let min = monitor.capabilities(host(monitor).arch).memory.min;
            let launch = plan(monitor, &["one"], |machine| machine.memory = min);
            let (ended, output) = run(&launch).finish();
            assert!(output.contains("word 1: one"), "{monitor}: {output}");
            assert_eq!(ended.code(), Some(0), "{monitor}: {output}");
        }
    }
}

/// Weaknesses 21 and 32 of the monitors reference.
#[test]
fn a_guest_that_can_be_asked_ends_itself() {
    for monitor in [Monitor::Qemu, Monitor::Firecracker, Monitor::CloudHypervisor] {
        if !have(&needs(monitor)) {
            continue;
        }
        let launch = plan(monitor, &["hold"], |_| {});
        assert!(matches!(launch.shutdown, Shutdown::Control { .. }));
        let mut running = run(&launch);
        running.until("holding");
        let mut control = running.control();
        assert_eq!(control.info().unwrap().state, State::Running, "{monitor}");
        control.pause().unwrap();
        assert_eq!(control.info().unwrap().state, State::Paused, "{monitor}");
        control.resume().unwrap();
        assert_eq!(control.info().unwrap().state, State::Running, "{monitor}");
        let ended = stop::stop(running.pidfd.as_fd(), launch.shutdown, Some(&mut control), GRACE).unwrap();
        assert_eq!(ended, Ended::InTime, "{monitor}: {}", running.output());
        let (status, output) = running.finish();
        assert!(output.contains("asked to stop by"), "{monitor}: {output}");
        assert_eq!(status.code(), Some(0), "{monitor}: {output}");
        // The socket outlives the monitor; nobody answers.
        assert!(control.info().is_err());
    }
}

#[test]
fn a_monitor_that_cannot_ask_its_guest_ends_by_signal() {
    for (monitor, code, signal) in [
        (Monitor::Qemu, Some(0), None),
        (Monitor::CloudHypervisor, Some(0), None),
        (Monitor::Solo5Hvt, Some(1), None),
        (Monitor::Solo5Spt, None, Some(9)),
        (Monitor::Firecracker, None, Some(9)),
    ] {
        if !have(&needs(monitor)) {
            continue;
        }
        let launch = plan(monitor, &["hold"], |machine| machine.control = ControlSocket::Off);
        let mut running = run(&launch);
        running.until("holding");
        let ended = stop::stop(running.pidfd.as_fd(), launch.shutdown, None, GRACE).unwrap();
        assert_eq!(ended, Ended::InTime, "{monitor}");
        let (status, output) = running.finish();
        assert_eq!((status.code(), status.signal()), (code, signal), "{monitor}: {output}");
    }
}

#[test]
fn a_machine_goes_on_from_its_snapshot() {
    for monitor in [Monitor::Qemu, Monitor::Firecracker, Monitor::CloudHypervisor] {
        if !have(&needs(monitor)) {
            continue;
        }
        let launch = plan(monitor, &["hold"], |_| {});
        let mut first = run(&launch);
        first.until("holding");
        let directory = tempfile::tempdir().unwrap();
        let mut control = first.control();
        control.pause().unwrap();
        match control.snapshot(directory.path(), GRACE) {
            Err(ControlError::Refused { reason, .. }) if reason.contains("GetNestedState") => {
                support::skipped(&format!("this KVM cannot tell {monitor} the state of its processors"));
                continue;
            }
            result => result.unwrap(),
        }
        drop((control, first));

        let machine = machine(kernel(monitor));
        let launch = plan(monitor, &["hold"], |machine| machine.startup = urunc_vmm::Startup::Restore);
        let second = run(&launch);
        let mut control = second.control();
        assert_eq!(control.info().unwrap().state, State::NotStarted, "{monitor}");
        control.restore(directory.path(), &machine, GRACE).unwrap();
        assert_eq!(control.info().unwrap().state, State::Paused, "{monitor}");
        control.resume().unwrap();
        control.request_shutdown().unwrap();
        let (status, output) = second.finish();
        assert!(output.contains("asked to stop by"), "{monitor}: {output}");
        assert!(!output.contains("Hello"), "{monitor}: {output}");
        assert_eq!(status.code(), Some(0), "{monitor}: {output}");
    }
}

/// Weakness 13 of the monitors reference, issue C1: the guest rebooted for ever.
#[test]
fn a_reset_ends_the_container() {
    for monitor in [Monitor::Qemu, Monitor::Firecracker, Monitor::CloudHypervisor] {
        if !have(&needs(monitor)) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reset");
        std::fs::write(&path, resetting_kernel()).unwrap();
        let image = urunc_vmm::kernel::inspect(std::fs::File::open(&path).unwrap()).unwrap();
        let kernel = urunc_vmm::Kernel { path, image };
        let launch = plan(monitor, &[], |machine| {
            machine.kernel = kernel;
            // QEMU's small board has no keyboard controller.
            machine.boot.platform.board = Board::Common;
        });
        let mut running = run(&launch);
        if launch.on_reset == OnReset::BootsAgain {
            let events = std::fs::File::from(running.events.take().unwrap());
            assert_eq!(watch(events).unwrap(), Watched::Reset);
            stop::signal(running.pidfd.as_fd(), rustix::process::Signal::TERM).unwrap();
        }
        let (status, output) = running.finish();
        assert!(output.contains('R'), "{monitor}: {output}");
        assert_eq!(status.code(), Some(0), "{monitor}: {output}");
    }
}

/// A PVH kernel that writes `R` to the serial port and resets by the keyboard controller.
fn resetting_kernel() -> Vec<u8> {
    const CODE: [u8; 17] = [
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'R', 0xee, // out dx, 'R'
        0xb0, b'\n', 0xee, // out dx, '\n'
        0xb0, 0xfe, 0xe6, 0x64, // out 0x64, 0xfe
        0xf4, 0xeb, 0xfd, // hlt, again
    ];
    const AT: u64 = 0x10_0000;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    for word in [AT, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0; 4]);
    for half in [64_u16, 56, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut segment = |kind: u32, flags: u32, offset: u64, address: u64, size: u64, align: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in [offset, address, address, size, size, align] {
            file.extend(word.to_le_bytes());
        }
    };
    segment(1, 5, 0x1000, AT, CODE.len() as u64, 0x1000);
    segment(4, 4, 176, 0, 20, 4);
    for word in [4_u32, 4, 18] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"Xen\0");
    file.extend(u32::try_from(AT).unwrap().to_le_bytes());
    file.resize(0x1000, 0);
    file.extend(CODE);
    file
}
