//! Linux command lines and urunit configurations.

use proptest::prelude::*;

use super::*;
use crate::{
    Machine,
    guest::{
        ConfigPlace, Omission, Volume,
        tests::{after_firecracker, machine, network},
    },
};

fn workload(args: &[&str]) -> Workload {
    Workload {
        networks: vec![network()],
        env: vec!["A=1".to_owned()],
        root: Root::Disk { id: "rootfs".parse().unwrap(), file_system: None },
        ..Workload::new(GUEST, args.iter().map(|&arg| arg.to_owned()).collect())
    }
}

fn boot_on(workload: &Workload, machine: &Machine, monitor: Monitor) -> Result<Boot, EncodeError> {
    workload.boot(machine, monitor, Arch::X86_64)
}

fn line(workload: &Workload) -> Result<String, EncodeError> {
    Ok(boot_on(workload, &machine(), Monitor::Qemu)?.command_line.as_str().to_owned())
}

/// A pod of Calico's has an address without a network, and a gateway outside; other routes were left out silently.
#[test]
fn a_gateway_and_routes_that_do_not_reach_the_guest_are_named() {
    let mut given = workload(&["/init"]);
    let route = |destination: &str, gateway: Option<&str>| Route {
        destination: destination.parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
    };
    given.networks[0] = Network {
        addresses: vec!["10.244.1.5/32".parse().unwrap()],
        gateways: vec!["169.254.1.1".parse().unwrap()],
        routes: vec![route("0.0.0.0/0", None), route("10.96.0.0/12", Some("10.244.1.1"))],
        ..Network::default()
    };
    let omitted = |workload: &Workload| {
        let boot = boot_on(workload, &machine(), Monitor::Qemu).unwrap();
        boot.omitted.iter().filter(|it| it.cuts_off()).map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        omitted(&given),
        [
            "the route to 0.0.0.0/0 on the link does not reach the guest",
            "the route to 10.96.0.0/12 via 10.244.1.1 does not reach the guest",
            "the gateway 169.254.1.1 does not reach the guest: it is in none of its networks",
        ]
    );
    // urunit says that everything is on the link, which is enough for both.
    given.args = vec!["/urunit".to_owned()];
    assert_eq!(omitted(&given), ["the route to 10.96.0.0/12 via 10.244.1.1 does not reach the guest"]);
    given.networks[0].gateways.clear();
    assert!(line(&given).unwrap().contains(" URUNIT_DEFROUTE=1 "));
}

/// A separator with nothing behind it is none for Firecracker: its words became arguments.
#[test]
fn the_words_of_firecracker_are_parameters() {
    let on_firecracker = |args: &[&str]| {
        let workload = Workload { env: vec!["B=x -- y".to_owned()], ..workload(args) };
        boot_on(&workload, &machine(), Monitor::Firecracker).unwrap().command_line.as_str().to_owned()
    };
    let parameters = on_firecracker(&["/init"]);
    assert!(parameters.ends_with(" init=/init"), "{parameters}");
    for args in [&["/init"][..], &["/init", "a"], &["/init", ""], &["/init", "a -- b", " "]] {
        let line = on_firecracker(args);
        let arguments = line.strip_prefix(&parameters).unwrap();
        assert_eq!(
            after_firecracker(&line),
            format!("{parameters} pci=off virtio_mmio.device=4K@0xc0001000:5{arguments}")
        );
    }
}

/// Cloud Hypervisor puts a word behind everything on Arm.
#[test]
fn the_word_of_cloud_hypervisor_is_no_argument() {
    let line = |args: &[&str]| {
        let boot = workload(args).boot(&machine(), Monitor::CloudHypervisor, Arch::Aarch64).unwrap();
        boot.command_line.as_str().to_owned()
    };
    assert!(line(&["/init", "a"]).ends_with(" init=/init -- a --"));
    assert!(line(&["/init"]).ends_with(" init=/init"));
}

#[test]
fn a_plain_program_gets_its_variables_from_the_command_line() {
    assert_eq!(
        line(&workload(&["/a", "b c", ""])).unwrap(),
        "panic=-1 console=ttyS0 root=/dev/vda rw ip=10.0.0.2::10.0.0.1:255.255.255.0:urunc:eth0:off A=1 init=/a \
         -- \"b c\" \"\""
    );
}

#[test]
fn urunit_gets_its_variables_from_a_file() {
    let given = Workload { uid: 1000, cwd: "/srv".to_owned(), ..workload(&["/urunit", "a", "b c"]) };
    let boot = boot_on(&given, &machine(), Monitor::Qemu).unwrap();
    assert_eq!(
        boot.command_line.as_str(),
        "panic=-1 console=ttyS0 root=/dev/vda rw ip=10.0.0.2::10.0.0.1:255.255.255.0:urunc:eth0:off \
         retain_initrd URUNIT_CONFIG=/sys/firmware/initrd init=/urunit -- a \"b c\""
    );
    let config = boot.config.unwrap();
    assert_eq!(config.place, ConfigPlace::Initrd);
    assert_eq!(config.contents, b"UES\nA=1\nUEE\nUCS\nUID:1000\nGID:0\nWD:/srv\nUCE\nUBS\nUBE\n");
    assert_eq!(boot.omitted, []);

    let given = Workload { root: Root::Initrd, networks: vec![], ..workload(&["/urunit", "a"]) };
    let boot = boot_on(&given, &machine(), Monitor::Qemu).unwrap();
    assert_eq!(
        boot.command_line.as_str(),
        "panic=-1 console=ttyS0 root=/dev/ram0 rw URUNIT_CONFIG=/urunit.conf rdinit=/urunit -- a"
    );
    assert_eq!(boot.config.unwrap().place, ConfigPlace::InitrdFile("/urunit.conf".to_owned()));
}

/// Weakness 10 of the monitors reference: any program with "urunit" in its name counted.
#[test]
fn urunit_is_known_by_its_whole_name() {
    for (program, configured) in [
        ("/urunit", true),
        ("urunit", true),
        ("/opt/bin/urunit", true),
        ("/urunit2", false),
        ("/urunit/x", false),
    ] {
        let boot = boot_on(&workload(&[program]), &machine(), Monitor::Qemu).unwrap();
        assert_eq!(boot.config.is_some(), configured, "{program}");
    }
}

#[test]
fn a_root_may_be_any_disk_or_share() {
    let root = |root: Root, machine: &Machine| {
        let line = boot_on(&Workload { root, ..workload(&["/a"]) }, machine, Monitor::Qemu).unwrap();
        let line = line.command_line.as_str().to_owned();
        let start = line.find("root=").unwrap();
        line[start..line.find(" ip=").unwrap()].to_owned()
    };
    let mut machine = machine();
    let mut data = machine.disks[0].clone();
    (data.id, data.access) = ("data".parse().unwrap(), Access::ReadOnly);
    machine.disks.push(data);
    let disk = Root::Disk { id: "data".parse().unwrap(), file_system: Some("ext4".to_owned()) };
    assert_eq!(root(disk, &machine), "root=/dev/vdb ro rootfstype=ext4");
    let share = || Root::Share("fs0".parse().unwrap());
    assert_eq!(
        root(share(), &machine),
        "root=fs0 rw rootfstype=9p rootflags=trans=virtio,version=9p2000.L,msize=5000000,cache=mmap,posixacl"
    );
    machine.shares[0].kind = ShareKind::Virtiofs { socket: "/s".into() };
    assert_eq!(root(share(), &machine), "root=fs0 rw rootfstype=virtiofs");
    let missing = Root::Disk { id: "nope".parse().unwrap(), file_system: None };
    let error = boot_on(&Workload { root: missing, ..workload(&["/a"]) }, &machine, Monitor::Qemu);
    assert!(matches!(error, Err(EncodeError::NoSuchDevice { .. })));
}

#[test]
fn the_console_follows_machine_architecture_and_monitor() {
    for (console, arch, monitor, name) in [
        (Console::Serial, Arch::X86_64, Monitor::Qemu, "ttyS0"),
        (Console::Serial, Arch::Aarch64, Monitor::Qemu, "ttyAMA0"),
        (Console::Serial, Arch::Aarch64, Monitor::Firecracker, "ttyS0"),
        (Console::Serial, Arch::Aarch64, Monitor::CloudHypervisor, "ttyAMA0"),
        (Console::Virtio, Arch::X86_64, Monitor::Qemu, "hvc0"),
    ] {
        let machine = Machine { console, ..machine() };
        let boot = workload(&["/a"]).boot(&machine, monitor, arch).unwrap();
        assert!(boot.command_line.as_str().contains(&format!("console={name} ")), "{boot:?}");
    }
}

/// Weakness 30 of the monitors reference: no name servers, and a fixed host name.
#[test]
fn host_name_and_name_servers_are_told() {
    let mut given = Workload { hostname: "web-1".to_owned(), ..workload(&["/a"]) };
    given.networks[0].name_servers =
        ["fd00::53", "10.0.0.53", "10.0.0.54"].map(|s| s.parse().unwrap()).to_vec();
    let boot = boot_on(&given, &machine(), Monitor::Qemu).unwrap();
    let ip = "ip=10.0.0.2::10.0.0.1:255.255.255.0:web-1:eth0:off:10.0.0.53:10.0.0.54 ";
    assert!(boot.command_line.as_str().contains(ip), "{boot:?}");
    assert_eq!(boot.omitted, [Omission::NameServers]);
    given.hostname = "a:b".to_owned();
    assert!(line(&given).unwrap_err().to_string().contains("':'"));
}

/// Weakness N6: with IPv6 addresses alone the start failed; with both, the guest knew of IPv4 only.
#[test]
fn all_ipv6_addresses_are_variables() {
    let mut given = workload(&["/a"]);
    given.networks[0].addresses =
        ["10.0.0.2/24", "fd00::2/64", "fd01::2/128"].map(|s| s.parse().unwrap()).to_vec();
    given.networks[0].gateways.push("fd00::1".parse().unwrap());
    let boot = boot_on(&given, &machine(), Monitor::Qemu).unwrap();
    let words = " ip=10.0.0.2::10.0.0.1:255.255.255.0:urunc:eth0:off URUNC_IPV6=fd00::2/64,fd01::2/128 \
                 URUNC_IPV6_GATEWAY=fd00::1 A=1 ";
    assert!(boot.command_line.as_str().contains(words), "{boot:?}");
    assert_eq!(boot.omitted, []);
    given.networks[0].addresses.remove(0);
    let line = line(&given).unwrap();
    assert!(line.contains(" rw URUNC_IPV6=fd00::2/64,fd01::2/128 URUNC_IPV6_GATEWAY=fd00::1 A=1 "), "{line}");
}

#[test]
fn a_gateway_outside_the_network_is_urunits_to_reach() {
    let mut given = workload(&["/urunit", "a"]);
    given.networks[0].gateways = vec!["169.254.1.1".parse().unwrap()];
    assert!(line(&given).unwrap().contains(" URUNIT_DEFROUTE=1 init=/urunit"));
}

/// Weakness 4 of the monitors reference: `A=1 root=/dev/sda1` replaced the root device.
#[test]
fn a_variable_cannot_become_a_kernel_parameter() {
    let env = |entry: &str| line(&Workload { env: vec![entry.to_owned()], ..workload(&["/a"]) });
    let words = kernel_words(&env("A=1 root=/dev/sda1 -- x").unwrap());
    assert!(words.contains(&"A=1 root=/dev/sda1 -- x".to_owned()));
    assert_eq!(words.iter().filter(|word| word.starts_with("root=")).count(), 1);
    for refused in ["root=/dev/sda1", "quiet=", "mod.param=1", "no-proxy=x", "A=\"", "A\"=x", "A B=x", "A=\n"]
    {
        assert!(env(refused).is_err(), "{refused}");
    }
    for accepted in ["http_proxy=http://p:1", "Path=x", "A_1=", "A=b=c"] {
        assert!(env(accepted).unwrap().contains(&format!(" {accepted} ")), "{accepted}");
    }
}

#[test]
fn what_the_kernel_would_cut_off_is_refused() {
    let many = |count| (0..count).map(|n| format!("A{n}=1")).collect::<Vec<_>>();
    assert!(line(&Workload { env: many(29), ..workload(&["/a"]) }).is_ok());
    assert!(line(&Workload { env: many(30), ..workload(&["/a"]) }).is_err());
    assert!(line(&Workload { env: many(500), ..workload(&["/urunit"]) }).is_ok());
    let args = |count| [vec!["/a".to_owned()], many(count)].concat();
    assert!(line(&Workload { args: args(31), ..workload(&["/a"]) }).is_ok());
    assert!(line(&Workload { args: args(32), ..workload(&["/a"]) }).is_err());
    assert!(line(&workload(&["/a", "--"])).is_err());
    assert!(line(&workload(&["/a", "b\"c"])).is_err());
    assert!(line(&workload(&[])).is_err());
    let error = line(&workload(&["/a", &"x".repeat(2000)])).unwrap_err().to_string();
    assert!(error.contains("takes at most 2047"), "{error}");
}

/// Weaknesses 5 and 6 of the monitors reference.
#[test]
fn what_urunit_would_misread_is_refused() {
    let env = |entry: &str| line(&Workload { env: vec![entry.to_owned()], ..workload(&["/urunit", "a"]) });
    for entry in ["A=1\nUEE", "UEE=1", "UEEX=1", "novalue", "=x"] {
        assert!(env(entry).is_err(), "{entry:?}");
    }
    assert!(env("A=\"quotes\" 'and' \\ spaces").is_ok());
    assert!(line(&workload(&["/urunit", "'a", "b"])).is_err());
    assert!(line(&workload(&["/urunit", "'a'", "b"])).is_ok());
    assert!(line(&Workload { cwd: "srv".to_owned(), ..workload(&["/urunit", "a"]) }).is_err());
    assert!(line(&Workload { cwd: "/a\nUCE".to_owned(), ..workload(&["/urunit", "a"]) }).is_err());
}

#[test]
fn urunit_finds_volumes_by_serial_or_under_firecracker_by_order() {
    let mut machine = machine();
    for id in ["vol1", "vol2"] {
        let mut disk = machine.disks[0].clone();
        disk.id = id.parse().unwrap();
        machine.disks.push(disk);
    }
    let volume = |id: &str, at: &str| Volume { disk: id.parse().unwrap(), mount_point: at.to_owned() };
    let given = Workload {
        volumes: vec![volume("vol1", "/x"), volume("vol2", "/y z")],
        ..workload(&["/urunit", "a"])
    };
    for (monitor, blocks) in [
        (Monitor::Qemu, "UBS\nID:vol1\nMP:/x\nID:vol2\nMP:/y z\nUBE\n"),
        (Monitor::CloudHypervisor, "UBS\nID:vol1\nMP:/x\nID:vol2\nMP:/y z\nUBE\n"),
        (Monitor::Firecracker, "UBS\nID:FCvol1\nMP:/x\nID:FCvol2\nMP:/y z\nUBE\n"),
    ] {
        let config = boot_on(&given, &machine, monitor).unwrap().config.unwrap();
        assert!(String::from_utf8(config.contents).unwrap().ends_with(blocks), "{monitor}");
    }
    let swapped = Workload { volumes: vec![volume("vol2", "/x")], ..given.clone() };
    assert!(boot_on(&swapped, &machine, Monitor::Firecracker).is_err());
    assert!(boot_on(&swapped, &machine, Monitor::Qemu).is_ok());
    machine.disks[1].id = "volume_0001".parse().unwrap();
    let long = Workload { volumes: vec![volume("volume_0001", "/x")], ..given.clone() };
    assert!(matches!(boot_on(&long, &machine, Monitor::Qemu), Err(EncodeError::TooLong { .. })));
    let plain = Workload { args: vec!["/a".to_owned()], ..given };
    assert!(boot_on(&plain, &machine, Monitor::Qemu).is_err());
}

proptest! {
    #[test]
    fn the_kernel_reads_back_arguments_and_variables(
        args in proptest::collection::vec("[ -~éà]{0,8}", 0..5),
        env in proptest::collection::vec("[A-Z]{1,4}=[ -~]{0,8}", 0..5),
    ) {
        let given = Workload {
            args: [vec!["/a".to_owned()], args.clone()].concat(),
            env: env.clone(),
            networks: vec![],
            ..workload(&[])
        };
        if let Ok(line) = line(&given) {
            let mut expected: Vec<String> =
                ["panic=-1", "console=ttyS0", "root=/dev/vda", "rw"].map(str::to_owned).to_vec();
            expected.extend(env);
            expected.push("init=/a".to_owned());
            expected.extend((!args.is_empty()).then(|| "--".to_owned()));
            expected.extend(args);
            prop_assert_eq!(kernel_words(&line), expected);
        }
    }

    #[test]
    fn urunits_file_has_as_many_lines_as_values(
        env in proptest::collection::vec("[A-Z]{1,4}=[ -~\n]{0,8}", 0..5),
        cwd in "/[ -~\n]{0,8}",
    ) {
        let given = Workload { env: env.clone(), cwd, ..workload(&["/urunit", "a"]) };
        if let Ok(boot) = boot_on(&given, &machine(), Monitor::Qemu) {
            let text = String::from_utf8(boot.config.unwrap().contents).unwrap();
            prop_assert_eq!(text.lines().count(), env.len() + 9);
            let told: Vec<_> = text.lines().skip(1).take(env.len()).map(str::to_owned).collect();
            prop_assert_eq!(told, env);
        }
    }
}

/// Splits a line as the kernel does: at white space outside double quotes, 0xa0 included; quotes around a word or
/// around the value after its first equals sign are taken off.
fn kernel_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<Vec<u8>>, false);
    for byte in line.bytes() {
        match byte {
            b' ' | 0xa0 if !quoted => words.extend(word.take()),
            byte => {
                quoted ^= byte == b'"';
                word.get_or_insert_default().push(byte);
            }
        }
    }
    words.extend(word);
    words
        .into_iter()
        .map(|word| String::from_utf8(word).unwrap())
        .map(|word| match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
            Some(inner) => inner.to_owned(),
            None => match word.split_once('=') {
                Some((name, value)) if value.starts_with('"') => {
                    format!("{name}={}", value.trim_matches('"'))
                }
                _ => word,
            },
        })
        .collect()
}
