//! What the tests of all guests use, and what is true of all of them.

use super::*;
use crate::{
    Access, Arch, Attachment, Disk, Kernel, KernelImage, Machine, Memory, NetBackend, NetDevice, Share,
    ShareKind, kernel::Format,
};

/// A machine with one of each device.
pub(super) fn machine() -> Machine {
    let image = KernelImage { arch: Arch::X86_64, format: Format::BzImage };
    let mut machine = Machine::new(Kernel { path: "/kernel".into(), image }, Memory::mib(256));
    machine.nets.push(NetDevice {
        mac: "02:42:0a:00:00:02".parse().unwrap(),
        mtu: 1500,
        attachment: Attachment::Descriptor,
        declared_as: None,
        backend: NetBackend::Monitor,
    });
    machine.disks.push(Disk {
        id: "rootfs".parse().unwrap(),
        path: "/dev/x".into(),
        access: Access::ReadWrite,
        declared_as: None,
    });
    machine.initrd = Some("/initrd".into());
    machine.shares.push(Share {
        tag: "fs0".parse().unwrap(),
        kind: ShareKind::NineP { path: "/share".into(), access: Access::ReadWrite },
    });
    machine
}

pub(super) fn network() -> Network {
    Network {
        addresses: vec!["10.0.0.2/24".parse().unwrap()],
        gateways: vec!["10.0.0.1".parse().unwrap()],
        ..Network::default()
    }
}

/// What Firecracker makes of a command line (linux-loader `src/cmdline`, `Cmdline::try_from` and `as_cstring`).
pub(super) fn after_firecracker(line: &str) -> String {
    const SEPARATOR: &str = " -- ";
    let outside = |position: usize| line[..position].matches('"').count().is_multiple_of(2);
    let separator = line.match_indices(SEPARATOR).map(|(position, _)| position).find(|&it| outside(it));
    let (parameters, arguments) =
        separator.map_or((line, ""), |position| (&line[..position], &line[position + SEPARATOR.len()..]));
    let (parameters, arguments) = (parameters.trim(), arguments.trim());
    let mut whole = format!("{parameters} pci=off virtio_mmio.device=4K@0xc0001000:5");
    if !arguments.is_empty() {
        whole.extend([SEPARATOR, arguments]);
    }
    whole
}

#[test]
fn a_guest_is_known_by_its_name_and_nothing_else() {
    for guest in Guest::ALL {
        assert_eq!(guest.name().parse(), Ok(guest));
        assert_eq!(serde_json::to_value(guest).unwrap(), guest.name());
        assert!(!guest.monitors().is_empty());
    }
    for name in ["", "Linux", "osv", "linux "] {
        assert_eq!(name.parse::<Guest>(), Err(UnknownGuest(name.to_owned())));
    }
}

#[test]
fn a_guest_runs_on_its_monitors_only() {
    for guest in Guest::ALL {
        for monitor in Monitor::ALL {
            let workload = Workload::new(guest, vec!["/init".to_owned()]);
            let refused =
                matches!(workload.boot(&machine(), monitor, Arch::X86_64), Err(EncodeError::Pair { .. }));
            assert_eq!(refused, !guest.monitors().contains(&monitor), "{guest} on {monitor}");
        }
    }
}

#[test]
fn a_root_that_the_machine_does_not_have_is_refused() {
    let workload = Workload { root: Root::Initrd, ..Workload::new(Guest::Linux, vec!["/init".to_owned()]) };
    let mut machine = machine();
    machine.initrd = None;
    let error = workload.boot(&machine, Monitor::Qemu, Arch::X86_64).unwrap_err().to_string();
    assert!(error.contains("an initial ramdisk as root on a machine that has none"), "{error}");
}

#[test]
fn a_workload_never_shows_the_value_of_a_variable() {
    let workload = Workload { env: vec!["NAME=hush=hush".to_owned()], ..Workload::new(Guest::Linux, vec![]) };
    let shown = format!("{workload:?}");
    assert!(shown.contains("NAME") && !shown.contains("hush"), "{shown}");
}

#[test]
fn messages_never_show_the_value_of_a_variable() {
    for guest in Guest::ALL {
        for value in ["hush\nhush", "hush\"hush", "hush'\"\\hush", "hush]", "hush\u{1}"] {
            let workload = Workload {
                env: vec![format!("NAME={value}")],
                ..Workload::new(guest, vec!["/init".to_owned()])
            };
            for &monitor in guest.monitors() {
                if let Err(error) = workload.boot(&machine(), monitor, Arch::X86_64) {
                    assert!(!error.to_string().contains("hush"), "{error}");
                }
            }
        }
    }
}
