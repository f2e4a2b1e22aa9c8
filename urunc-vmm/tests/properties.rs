//! No path, argument or variable adds, drops or splits an element of an argument vector, an option within one, or a field
//! of a document: a plan for any value has the shape of the plan for a harmless one, or is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;
use support::kernel_for;
use urunc_vmm::{
    Access, Arch, Attachment, Disk, Guest, Host, Kernel, KvmAccess, Launch, Machine, Memory, Monitor,
    NetBackend, NetDevice, Network, Root, Share, ShareKind, TapHandover, Vsock, Workload,
    kernel::solo5::DeviceKind,
};

/// Everything that a caller can choose freely.
#[derive(Clone, Debug)]
struct Values {
    kernel: String,
    initrd: String,
    disk: String,
    share: String,
    vsock: String,
    data_dir: String,
    args: Vec<String>,
    env: Vec<String>,
    hostname: String,
    cwd: String,
}

fn harmless(like: &Values) -> Values {
    Values {
        kernel: "/k".to_owned(),
        initrd: "/i".to_owned(),
        disk: "/d".to_owned(),
        share: "/s".to_owned(),
        vsock: "/v".to_owned(),
        data_dir: "/q".to_owned(),
        args: like.args.iter().map(|_| "x".to_owned()).collect(),
        env: like.env.iter().map(|_| "X=x".to_owned()).collect(),
        hostname: if like.hostname.is_empty() { String::new() } else { "h".to_owned() },
        cwd: "/".to_owned(),
    }
}

fn machine(monitor: Monitor, values: &Values) -> Machine {
    let declared = [("net0", DeviceKind::Net), ("disk0", DeviceKind::Block)];
    let image = kernel_for(monitor, Arch::X86_64, &declared);
    let mut machine = Machine::new(Kernel { path: PathBuf::from(&values.kernel), image }, Memory::mib(64));
    let able = monitor.capabilities(Arch::X86_64);
    machine.nets.push(NetDevice {
        mac: "02:42:0a:00:00:02".parse().unwrap(),
        mtu: 1500,
        attachment: match able.tap {
            TapHandover::Descriptor => Attachment::Descriptor,
            TapHandover::Name => Attachment::Name("tap0".parse().unwrap()),
        },
        declared_as: None,
        backend: NetBackend::Monitor,
    });
    machine.disks.push(Disk {
        id: "rootfs".parse().unwrap(),
        path: PathBuf::from(&values.disk),
        access: Access::ReadWrite,
        declared_as: None,
    });
    if able.initrd {
        machine.initrd = Some(PathBuf::from(&values.initrd));
    }
    if able.virtiofs {
        let kind = ShareKind::Virtiofs { socket: PathBuf::from(&values.share) };
        machine.shares.push(Share { tag: "fs0".parse().unwrap(), kind });
    }
    if able.nine_p {
        let kind = ShareKind::NineP { path: PathBuf::from(&values.share), access: Access::ReadWrite };
        machine.shares.push(Share { tag: "fs1".parse().unwrap(), kind });
    }
    if able.vsock {
        machine.vsock = Some(Vsock { cid: 3, socket: PathBuf::from(&values.vsock) });
    }
    machine
}

/// What is the first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Init {
    /// The first of the arguments.
    Given,
    /// urunit, which Linux and FreeBSD have another format for.
    Urunit,
}

/// All guests on all of their monitors, with all of their formats.
fn pairs() -> impl Iterator<Item = (Guest, Monitor, Init)> {
    let inits = |guest| match guest {
        Guest::Linux => &[Init::Given, Init::Urunit][..],
        // Another first process can be told nothing.
        Guest::Freebsd => &[Init::Urunit],
        _ => &[Init::Given],
    };
    Guest::ALL.into_iter().flat_map(move |guest| {
        let monitors = guest.monitors().iter();
        monitors.flat_map(move |&monitor| inits(guest).iter().map(move |&init| (guest, monitor, init)))
    })
}

fn root(guest: Guest, monitor: Monitor) -> Root {
    let id = "rootfs".parse().unwrap();
    match guest {
        Guest::Linux => Root::Disk { id, file_system: None },
        Guest::Freebsd => Root::Disk { id, file_system: Some("ext4".to_owned()) },
        Guest::Rumprun => Root::Disk { id, file_system: None },
        Guest::Unikraft | Guest::Hermit if monitor.capabilities(Arch::X86_64).initrd => Root::Initrd,
        _ => Root::None,
    }
}

fn plan(guest: Guest, monitor: Monitor, init: Init, values: &Values) -> Option<Launch> {
    let mut machine = machine(monitor, values);
    let mut args = values.args.clone();
    if init == Init::Urunit {
        "/urunit".clone_into(&mut args[0]);
        // Its configuration is the initrd.
        machine.initrd = None;
    }
    let network = Network {
        addresses: vec!["10.0.0.2/24".parse().unwrap()],
        gateways: vec!["10.0.0.1".parse().unwrap()],
        ..Network::default()
    };
    let workload = Workload {
        env: values.env.clone(),
        hostname: values.hostname.clone(),
        cwd: values.cwd.clone(),
        root: root(guest, monitor),
        networks: vec![network],
        ..Workload::new(guest, args)
    };
    machine.boot = workload.boot(&machine, monitor, Arch::X86_64).ok()?;
    let host = Host {
        arch: Arch::X86_64,
        kvm: KvmAccess::Native,
        program: "/monitor".into(),
        data_dir: Some(PathBuf::from(&values.data_dir)),
    };
    monitor.plan(&machine, &host).ok()
}

/// What must not depend on a value: how many elements there are, and in each the names of the options and how many
/// they are; the keys of each document.
fn shape(launch: &Launch, monitor: Monitor) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    // The values of these are taken as a whole.
    const WHOLE: [&str; 6] = ["-kernel", "-initrd", "-append", "-L", "--kernel", "--initramfs"];
    let mut elements: Vec<Vec<String>> = Vec::new();
    for (index, arg) in launch.args.iter().enumerate() {
        let after = index.checked_sub(1).map_or("", |before| launch.args[before].as_str());
        // Solo5's kernel and command line follow the separator.
        let solo5 = matches!(monitor, Monitor::Solo5Hvt | Monitor::Solo5Spt);
        let operand = solo5 && launch.args[..index].iter().any(|arg| arg == "--");
        let whole = WHOLE.contains(&after) || operand || arg.starts_with("--cmdline=");
        elements.push(if whole { vec![] } else { option_names(arg, monitor) });
    }
    let documents = launch
        .documents
        .iter()
        .map(|document| {
            serde_json::from_slice(&document.contents).map(|json| keys("", &json)).unwrap_or_default()
        })
        .collect();
    (elements, documents)
}

fn option_names(arg: &str, monitor: Monitor) -> Vec<String> {
    let separated: Vec<String> = match monitor {
        // A doubled comma is one within a value.
        Monitor::Qemu => arg.replace(",,", "\u{0}").split(',').map(str::to_owned).collect(),
        Monitor::CloudHypervisor => arg.split(',').map(str::to_owned).collect(),
        _ => vec![arg.to_owned()],
    };
    separated.iter().map(|option| option.split('=').next().unwrap_or_default().to_owned()).collect()
}

fn keys(at: &str, json: &Value) -> Vec<String> {
    match json {
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| keys(&format!("{at}.{key}"), value)).collect()
        }
        Value::Array(items) => items.iter().flat_map(|item| keys(&format!("{at}[]"), item)).collect(),
        _ => vec![at.to_owned()],
    }
}

/// Strings with more of what has a meaning to somebody than chance would give.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => "[a-z/]{1,4}",
        3 => proptest::sample::select(
            [
                ",", ",,", "=", " ", "\"", "'", "\\", "\n", "\t", "\0", "--", "-", "[", "]", "{", "}", ":", ";", "%s",
                "$x", "`", "#", "é", "à", "\u{a0}", "\u{85}", "/../", "file=/etc/shadow", ",readonly=off", "root=/dev/sda",
                "UEE", "UES\n", "\r\n", "@3", "//", "",
            ]
            .map(str::to_owned)
            .to_vec()
        ),
        1 => any::<String>(),
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![4 => nasty().prop_map(|rest| format!("/{rest}")), 1 => nasty()]
}

prop_compose! {
    fn values()(
        paths in proptest::collection::vec(path(), 6),
        which in 0_usize..12,
        args in proptest::collection::vec(nasty(), 1..4),
        env in proptest::collection::vec(nasty().prop_map(|rest| format!("A{rest}=b")), 0..3),
        values in proptest::collection::vec(nasty().prop_map(|rest| format!("A={rest}")), 0..3),
        hostname in nasty(),
        cwd in path(),
    ) -> Values {
        // One kind of value is nasty at a time, or few combinations would not be refused for another reason.
        let all = Values {
            kernel: paths[0].clone(), initrd: paths[1].clone(), disk: paths[2].clone(), share: paths[3].clone(),
            vsock: paths[4].clone(), data_dir: paths[5].clone(), args, env: [env, values].concat(), hostname, cwd,
        };
        let mut chosen = harmless(&all);
        match which {
            0 => chosen.kernel = all.kernel,
            1 => chosen.initrd = all.initrd,
            2 => chosen.disk = all.disk,
            3 => chosen.share = all.share,
            4 => chosen.vsock = all.vsock,
            5 => chosen.data_dir = all.data_dir,
            6 | 7 => chosen.args = all.args,
            8 | 9 => chosen.env = all.env,
            10 => chosen.hostname = all.hostname,
            _ => chosen.cwd = all.cwd,
        }
        chosen
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_value_changes_the_shape_of_a_plan(values in values()) {
        let harmless = harmless(&values);
        for (guest, monitor, init) in pairs() {
            // How a guest's own format keeps values apart is tested beside its encoder; here the line is one element.
            let Some(launch) = plan(guest, monitor, init, &values) else { continue };
            let expected = plan(guest, monitor, init, &harmless).unwrap();
            prop_assert!(launch.args.iter().all(|arg| !arg.contains('\0')));
            let (found, expected) = (shape(&launch, monitor), shape(&expected, monitor));
            prop_assert_eq!(found, expected, "{} on {}: {:?}", guest, monitor, launch.args);
        }
    }
}

/// Or the law above would say nothing about it.
#[test]
fn every_pair_has_a_plan_for_harmless_values() {
    let values = Values {
        kernel: String::new(),
        initrd: String::new(),
        disk: String::new(),
        share: String::new(),
        vsock: String::new(),
        data_dir: String::new(),
        args: vec![String::new(); 3],
        env: vec![String::new(); 2],
        hostname: "h".to_owned(),
        cwd: String::new(),
    };
    for (guest, monitor, init) in pairs() {
        assert!(plan(guest, monitor, init, &harmless(&values)).is_some(), "{guest} on {monitor}, {init:?}");
    }
}
