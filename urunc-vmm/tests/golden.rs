//! The whole matrix: every guest on every monitor that it runs on, without a device and with each kind of device. The
//! files in `tests/golden` are what users and reviewers read; `URUNC_BLESS=1` writes them anew.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeSet, fmt::Write, fs, num::NonZeroU32, path::PathBuf};

use support::kernel_for;
use urunc_vmm::{
    Access, Arch, Attachment, ConfigPlace, Console, Disk, EncodeError, Guest, GuestConfig, Host, Kernel,
    KernelImage, Kvm, KvmAccess, Launch, Machine, Memory, Monitor, NetBackend, NetDevice, Network, Root,
    Seccomp, Share, ShareKind, TapHandover, Volume, Vsock, Workload,
    kernel::{Elf, ElfClass, ElfKind, Format, Load, solo5::DeviceKind},
};

/// What a row of the matrix adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With {
    Nothing,
    Net,
    Disk,
    Initrd,
    NineP,
    Virtiofs,
}

const ALL: [With; 6] = [With::Nothing, With::Net, With::Disk, With::Initrd, With::NineP, With::Virtiofs];

fn image(guest: Guest, monitor: Monitor, arch: Arch, with: With) -> KernelImage {
    let (net, block) = if guest == Guest::Rumprun { ("tap", "rootfs") } else { ("service", "storage") };
    if guest == Guest::Unikraft && arch == Arch::Aarch64 {
        return arm_elf();
    }
    match with {
        With::Net => kernel_for(monitor, arch, &[(net, DeviceKind::Net)]),
        With::Disk => kernel_for(monitor, arch, &[(block, DeviceKind::Block)]),
        _ => kernel_for(monitor, arch, &[]),
    }
}

/// Unikraft for Arm is an ELF that begins where QEMU's memory does.
fn arm_elf() -> KernelImage {
    let elf = Elf {
        class: ElfClass::Bits64,
        kind: ElfKind::Fixed,
        entry: 0x4010_0000,
        loads: vec![Load { address: 0x4010_0000, size: 0x1000 }],
        interpreter: false,
        pvh: None,
        multiboot: false,
        solo5: None,
    };
    KernelImage { arch: Arch::Aarch64, format: Format::Elf(elf) }
}

/// The inputs of the reference's golden vectors, as far as the guest takes them.
fn workload(guest: Guest, args: &[&str], with: With) -> Workload {
    let root = match with {
        With::Disk => Root::Disk { id: "rootfs".parse().unwrap(), file_system: file_system(guest) },
        With::Initrd => Root::Initrd,
        With::NineP | With::Virtiofs => Root::Share("fs0".parse().unwrap()),
        // FreeBSD has no other way.
        _ if guest == Guest::Freebsd => {
            Root::Disk { id: "rootfs".parse().unwrap(), file_system: file_system(guest) }
        }
        _ => Root::None,
    };
    let network = Network {
        addresses: vec!["10.0.0.2/24".parse().unwrap()],
        gateways: vec!["10.0.0.1".parse().unwrap()],
        name_servers: vec!["8.8.8.8".parse().unwrap()],
        ..Network::default()
    };
    Workload {
        env: vec!["A=1".to_owned()],
        root,
        networks: if with == With::Net { vec![network] } else { vec![] },
        ..Workload::new(guest, args.iter().map(|&arg| arg.to_owned()).collect())
    }
}

fn file_system(guest: Guest) -> Option<String> {
    (guest == Guest::Freebsd).then(|| "ext4".to_owned())
}

fn machine(guest: Guest, monitor: Monitor, arch: Arch, with: With) -> Machine {
    let kernel = Kernel { path: "/unikernel/app".into(), image: image(guest, monitor, arch, with) };
    let mut machine = Machine::new(kernel, Memory::bytes(268_435_456));
    match with {
        With::Nothing => {}
        With::Net => machine.nets.push(net(monitor, arch)),
        With::Disk => {}
        With::Initrd => machine.initrd = Some("/boot/initrd".into()),
        With::NineP => machine.shares.push(Share {
            tag: "fs0".parse().unwrap(),
            kind: ShareKind::NineP { path: "/cntrRootfs".into(), access: Access::ReadWrite },
        }),
        With::Virtiofs => machine.shares.push(Share {
            tag: "fs0".parse().unwrap(),
            kind: ShareKind::Virtiofs { socket: "/run/virtiofs.sock".into() },
        }),
    }
    if with == With::Disk || guest == Guest::Freebsd && machine.shares.is_empty() {
        machine.disks.push(Disk {
            id: "rootfs".parse().unwrap(),
            path: "/dev/x".into(),
            access: Access::ReadWrite,
            declared_as: None,
        });
    }
    machine
}

fn net(monitor: Monitor, arch: Arch) -> NetDevice {
    NetDevice {
        mac: "02:42:0a:00:00:02".parse().unwrap(),
        mtu: 1450,
        attachment: match monitor.capabilities(arch).tap {
            TapHandover::Descriptor => Attachment::Descriptor,
            TapHandover::Name => Attachment::Name("tap0_urunc".parse().unwrap()),
        },
        declared_as: None,
        backend: NetBackend::Monitor,
    }
}

fn disk(id: &str, access: Access) -> Disk {
    Disk { id: id.parse().unwrap(), path: format!("/dev/{id}").into(), access, declared_as: None }
}

fn host(monitor: Monitor, arch: Arch) -> Host {
    Host {
        arch,
        kvm: KvmAccess::Native,
        program: format!("/usr/bin/{}", monitor.binary_names(arch)[0]).into(),
        data_dir: None,
    }
}

/// The arguments that the guest can carry: those of the vectors, or without the space.
fn args(guest: Guest) -> Vec<&'static [&'static str]> {
    match guest {
        Guest::Generic => vec![&["a", "b"]],
        Guest::Linux => vec![&["/a", "b c"], &["/a"], &["/urunit", "a", "b c"]],
        Guest::Freebsd => vec![&["/urunit", "/bin/sh", "b c"]],
        _ => vec![&["a", "b c"]],
    }
}

fn plan(
    guest: Guest,
    monitor: Monitor,
    arch: Arch,
    args: &[&str],
    with: With,
) -> Result<(Machine, Launch), String> {
    let mut machine = machine(guest, monitor, arch, with);
    machine.boot =
        workload(guest, args, with).boot(&machine, monitor, arch).map_err(|error| error.to_string())?;
    // Whoever composes the initrd takes it out.
    let in_initrd = |config: &GuestConfig| matches!(config.place, ConfigPlace::InitrdFile(_));
    let config = machine.boot.config.take_if(|config| in_initrd(config));
    let launch = monitor.plan(&machine, &host(monitor, arch)).map_err(|error| error.to_string())?;
    if config.is_some() {
        machine.boot.config = config;
    }
    Ok((machine, launch))
}

/// One line for each option, so that a difference shows where it is.
fn describe(result: Result<(Machine, Launch), String>) -> String {
    let mut text = String::new();
    let (machine, launch) = match result {
        Ok(planned) => planned,
        Err(error) => return format!("  refused: {error}\n"),
    };
    let mut line = String::new();
    for arg in &launch.args {
        if arg.starts_with('-') && !line.is_empty() {
            writeln!(text, "  {line}").unwrap();
            line.clear();
        }
        let quoted = if arg.contains([' ', '"']) { format!("{arg:?}") } else { arg.clone() };
        write!(line, "{}{quoted}", if line.is_empty() { "" } else { " " }).unwrap();
    }
    writeln!(text, "  {line}").unwrap();
    for inherit in &launch.inherit {
        writeln!(text, "  descriptor {}: {:?}", inherit.fd, inherit.role).unwrap();
    }
    for document in &launch.documents {
        let contents = readable(&document.contents);
        writeln!(text, "  descriptor {}: {} {contents}", document.fd, document.name).unwrap();
    }
    // Elsewhere it is a document.
    if let Some(GuestConfig { contents, place: ConfigPlace::InitrdFile(path) }) = &machine.boot.config {
        writeln!(text, "  {path} in the initrd: {}", readable(contents)).unwrap();
    }
    writeln!(text, "  shutdown: {:?}, on reset: {:?}", launch.shutdown, launch.on_reset).unwrap();
    for omission in &machine.boot.omitted {
        writeln!(text, "  note: {omission}").unwrap();
    }
    text
}

/// Text as it would be in a program, but for the newlines that fill a sector.
fn readable(contents: &[u8]) -> String {
    let text = String::from_utf8_lossy(contents);
    let trimmed = text.trim_end_matches('\n');
    match text.len() - trimmed.len() {
        0 | 1 => format!("{text:?}"),
        newlines => format!("{trimmed:?} and {newlines} newlines"),
    }
}

fn golden(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("URUNC_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{} differs from:\n{found}\nURUNC_BLESS=1 writes it anew", path.display());
}

#[test]
fn every_guest_on_every_monitor_with_every_device_is_as_written_down() {
    for guest in Guest::ALL {
        for &monitor in guest.monitors() {
            let mut text = String::new();
            for arch in [Arch::X86_64, Arch::Aarch64] {
                // One more architecture where the monitor's arguments depend on it.
                if arch == Arch::Aarch64 && monitor != Monitor::Qemu {
                    continue;
                }
                for with in ALL {
                    for args in args(guest) {
                        let result = plan(guest, monitor, arch, args, with);
                        writeln!(text, "{arch} {with:?} {args:?}\n{}", describe(result)).unwrap();
                    }
                }
            }
            golden(&format!("{guest}-{monitor}.txt"), &text);
        }
    }
}

/// What else a machine can have, with the devices that a Solo5 kernel declares for it.
type Change = (&'static str, &'static [(&'static str, DeviceKind)], fn(&mut Machine, Monitor));

const CHANGES: [Change; 8] = [
    ("several disks", &[("one", DeviceKind::Block), ("two", DeviceKind::Block)], |machine, _| {
        machine.disks.extend(["vol1", "vol2"].map(|id| disk(id, Access::ReadWrite)));
    }),
    ("a read-only disk", &[("one", DeviceKind::Block)], |machine, _| {
        machine.disks.push(disk("vol1", Access::ReadOnly));
    }),
    ("vhost-net", &[("service", DeviceKind::Net)], |machine, monitor| {
        let mut net = net(monitor, Arch::X86_64);
        net.backend = NetBackend::Vhost;
        machine.nets.push(net);
    }),
    ("vsock", &[], |machine, _| machine.vsock = Some(Vsock { cid: 3, socket: "/run/vsock".into() })),
    ("virtio console", &[], |machine, _| machine.console = Console::Virtio),
    ("4 virtual CPUs", &[], |machine, _| machine.vcpus = NonZeroU32::new(4).unwrap()),
    ("300 virtual CPUs", &[], |machine, _| machine.vcpus = NonZeroU32::new(300).unwrap()),
    ("no system call filter", &[], |machine, _| machine.seccomp = Seccomp::Off),
];

#[test]
fn every_monitor_with_whatever_else_a_machine_can_have_is_as_written_down() {
    for monitor in Monitor::ALL {
        let mut text = String::new();
        for (what, declared, change) in CHANGES {
            let image = kernel_for(monitor, Arch::X86_64, declared);
            let kernel = Kernel { path: "/unikernel/app".into(), image };
            let mut machine = Machine::new(kernel, Memory::mib(256));
            change(&mut machine, monitor);
            let launch = monitor.plan(&machine, &host(monitor, Arch::X86_64));
            let warnings: Vec<String> =
                launch.iter().flat_map(|it| &it.warnings).map(ToString::to_string).collect();
            let described = describe(launch.map(|it| (machine, it)).map_err(|error| error.to_string()));
            writeln!(text, "{what}\n{described}").unwrap();
            for warning in warnings {
                writeln!(text, "  warning: {warning}\n").unwrap();
            }
        }
        golden(&format!("machine-{monitor}.txt"), &text);
    }
}

/// No file is left over from a pair that is no more.
#[test]
fn there_is_a_file_for_each_pair_and_no_other() {
    let expected: BTreeSet<String> = Guest::ALL
        .into_iter()
        .flat_map(|guest| guest.monitors().iter().map(move |monitor| format!("{guest}-{monitor}.txt")))
        .chain(Monitor::ALL.map(|monitor| format!("machine-{monitor}.txt")))
        .collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let found: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}

/// The table of the documentation is made from what plans, so that it cannot say anything else.
#[test]
fn the_table_of_what_is_supported_is_true() {
    const END: &str = "<!-- end of the table -->";
    let mut text = String::from(
        "| guest | monitor | network | disk | initrd | 9p | virtiofs | several disks | environment |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for guest in Guest::ALL {
        for &monitor in guest.monitors() {
            write!(text, "| {guest} | {monitor} |").unwrap();
            for with in ALL.into_iter().skip(1) {
                let planned = args(guest)
                    .into_iter()
                    .any(|args| plan(guest, monitor, Arch::X86_64, args, with).is_ok());
                text.push_str(if planned { " yes |" } else { " – |" });
            }
            let environment = plan(guest, monitor, Arch::X86_64, args(guest)[0], With::Nothing)
                .is_ok_and(|(machine, _)| !machine.boot.omitted.contains(&urunc_vmm::Omission::Environment));
            let disks = if several_disks(guest, monitor) { "yes" } else { "–" };
            writeln!(text, " {disks} | {} |", if environment { "yes" } else { "–" }).unwrap();
        }
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("GUESTS.md");
    let document = fs::read_to_string(&path).unwrap();
    let start = document.find("| guest | monitor |").unwrap();
    let end = document.find(END).unwrap();
    if std::env::var_os("URUNC_BLESS").is_some() {
        fs::write(&path, [&document[..start], &text, &document[end..]].concat()).unwrap();
    }
    let written = &fs::read_to_string(&path).unwrap()[start..];
    assert!(written.starts_with(&text), "GUESTS.md should say:\n{text}\nURUNC_BLESS=1 writes it anew");
}

/// Whether a volume can be mounted beside the root.
fn several_disks(guest: Guest, monitor: Monitor) -> bool {
    let mut machine = machine(guest, monitor, Arch::X86_64, With::Disk);
    let mut second = machine.disks[0].clone();
    second.id = "vol1".parse().unwrap();
    machine.disks.push(second);
    args(guest).into_iter().any(|args| {
        let volumes = vec![Volume { disk: "vol1".parse().unwrap(), mount_point: "/v".to_owned() }];
        let workload = Workload { volumes, ..workload(guest, args, With::Disk) };
        workload.boot(&machine, monitor, Arch::X86_64).is_ok()
    })
}

#[test]
fn a_pair_that_does_not_exist_is_refused() {
    for guest in Guest::ALL {
        for monitor in Monitor::ALL.into_iter().filter(|monitor| !guest.monitors().contains(monitor)) {
            let machine = machine(guest, monitor, Arch::X86_64, With::Nothing);
            let error = workload(guest, &["/a"], With::Nothing).boot(&machine, monitor, Arch::X86_64);
            assert_eq!(error, Err(EncodeError::Pair { guest, monitor }));
        }
    }
}

#[test]
fn emulation_changes_what_the_processor_is() {
    let mut machine = machine(Guest::Linux, Monitor::Qemu, Arch::X86_64, With::Nothing);
    machine.kvm = Kvm::Off;
    let host = Host {
        arch: Arch::X86_64,
        kvm: KvmAccess::Nested,
        program: "/usr/bin/qemu-system-x86_64".into(),
        data_dir: Some("/opt/share".into()),
    };
    let args = Monitor::Qemu.plan(&machine, &host).unwrap().args.join(" ");
    assert!(args.contains("-accel tcg,tb-size=64 -cpu max "), "{args}");
    // As in the Go implementation, a directory with `qemu` and `seabios` in it; or with the files themselves.
    assert!(args.contains(" -L /opt/share/qemu -L /opt/share/seabios -L /opt/share"), "{args}");
    let firmware = Monitor::Qemu.host_files(&machine, &host).firmware.unwrap();
    assert!(firmware.places.contains(&"/opt/share/qemu".into()), "{firmware:?}");
    // A QEMU of its own prefix finds its files there.
    let own = Host { program: "/opt/qemu/bin/qemu-system-x86_64".into(), data_dir: None, ..host };
    let files = Monitor::Qemu.host_files(&machine, &own);
    assert_eq!(files.data.first(), Some(&PathBuf::from("/opt/qemu/share/qemu")));
    assert_eq!(files.firmware.unwrap().places, files.data);
}
