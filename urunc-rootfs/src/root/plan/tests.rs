//! What monitors on various hosts get to see.

use super::*;
use crate::access::Access;
use crate::root::{Device, DeviceKind};

fn place(path: &str) -> Target {
    Target::new(path).unwrap()
}

fn merged_usr() -> HostLayout {
    let link =
        |name: &str| TopLevel::Link { path: format!("/{name}").into(), to: format!("usr/{name}").into() };
    HostLayout { top: vec![link("bin"), link("lib"), link("lib64")], loader_cache: None }
}

fn needs(binary: &str) -> Needs {
    Needs {
        binary: binary.into(),
        libraries: Libraries::System,
        binds: Vec::new(),
        boot_files: Vec::new(),
        devices: Vec::new(),
        scratch: Vec::new(),
        proc: Proc::Absent,
        owner: Owner { uid: 65534, gid: 65534 },
        label: None,
    }
}

fn node(path: &str, minor: u32) -> DeviceNode {
    DeviceNode {
        target: place(path),
        device: Device { kind: DeviceKind::Char, major: 10, minor },
        access: Access::ReadWrite,
    }
}

fn data(source: &str, target: &str) -> HostBind {
    HostBind { source: Source::Host(source.into()), target: place(target), access: Use::Data }
}

fn targets(root: &MonitorRoot) -> Vec<String> {
    root.entries.iter().map(|e| e.target().to_string()).collect()
}

#[test]
fn a_program_below_usr_needs_one_bind_on_a_merged_usr_host() {
    let mut needs = needs("/usr/bin/qemu-system-x86_64");
    needs.binds = vec![data("/usr/share/qemu", "/usr/share/qemu")];
    let root = plan(&needs, &merged_usr()).unwrap();
    assert_eq!(targets(&root), ["/usr", "/bin", "/lib", "/lib64"]);
    let binds = root.entries.iter().filter(|e| matches!(e, Entry::Bind { .. })).count();
    assert_eq!(binds, 1);
}

#[test]
fn a_split_usr_host_gets_its_library_directories_bound() {
    let layout = HostLayout {
        top: vec![TopLevel::Directory { path: "/lib64".into() }],
        loader_cache: Some("/etc/ld.so.cache".into()),
    };
    let root = plan(&needs("/opt/vmm/bin/monitor"), &layout).unwrap();
    assert_eq!(targets(&root), ["/usr", "/lib64", "/etc/ld.so.cache", "/opt/vmm/bin/monitor"]);
}

#[test]
fn a_static_program_sees_itself_and_nothing_else_of_the_host() {
    // E9: the whole of /lib and /usr/lib was exposed.
    let mut needs = needs("/usr/local/bin/firecracker");
    needs.libraries = Libraries::None;
    assert_eq!(targets(&plan(&needs, &merged_usr()).unwrap()), ["/usr/local/bin/firecracker"]);
}

#[test]
fn data_from_another_place_is_bound_over_what_usr_has_there() {
    let mut needs = needs("/usr/bin/qemu");
    needs.binds = vec![data("/opt/qemu-9/share", "/usr/share/qemu")];
    let root = plan(&needs, &merged_usr()).unwrap();
    assert_eq!(targets(&root).last().unwrap(), "/usr/share/qemu");
}

#[test]
fn parents_come_before_children() {
    let mut needs = needs("/usr/bin/qemu");
    needs.binds = vec![data("/a", "/share/vol/deep"), data("/b", "/share/vol"), data("/c", "/share")];
    let root = plan(&needs, &HostLayout::default()).unwrap();
    assert_eq!(targets(&root), ["/usr", "/share", "/share/vol", "/share/vol/deep"]);
}

#[test]
fn devices_are_one_file_system_and_the_same_node_is_made_once() {
    // E12: a node that was already there was fatal.
    let mut needs = needs("/usr/bin/qemu");
    needs.devices = vec![node("/dev/kvm", 232), node("/dev/net/tun", 200), node("/dev/kvm", 232)];
    let root = plan(&needs, &merged_usr()).unwrap();
    let Some(Entry::Devices { nodes, .. }) = root.entries.iter().find(|e| matches!(e, Entry::Devices { .. }))
    else {
        panic!("no devices in {root:?}")
    };
    assert_eq!(nodes, &[node("/dev/kvm", 232), node("/dev/net/tun", 200)]);
}

#[test]
fn contradictions_are_refused() {
    let refused = |change: &dyn Fn(&mut Needs)| {
        let mut needs = needs("/opt/m");
        change(&mut needs);
        plan(&needs, &merged_usr()).unwrap_err().to_string()
    };
    // E12: nodes outside /dev were made wherever the path led.
    assert!(refused(&|n| n.devices = vec![node("/tmp/kvm", 232)]).contains("/tmp/kvm"));
    assert!(refused(&|n| n.devices = vec![node("/dev/kvm", 232), node("/dev/kvm", 1)]).contains("/dev/kvm"));
    assert!(
        refused(&|n| n.devices = vec![node("/dev/net/tun", 1), node("/dev/net", 2)]).contains("/dev/net")
    );
    assert!(
        refused(&|n| n.devices = vec![node("/dev/net", 2), node("/dev/net/tun", 1)]).contains("/dev/net")
    );
    assert!(refused(&|n| n.binds = vec![data("/a", "/x"), data("/b", "/x")]).contains("/x"));
    assert!(refused(&|n| n.binds = vec![data("/a", "/lib/x")]).contains("/lib/x"));
    assert!(refused(&|n| n.binary = "relative".into()).contains("relative"));
    assert!(refused(&|n| n.binary = "/usr/../etc/m".into()).contains("/etc/m"));
}

#[test]
fn a_plan_survives_being_written_down() {
    let mut needs = needs("/usr/bin/qemu");
    needs.boot_files = vec![
        BootFile { handle: "kernel".into(), target: place("/boot/kernel"), delivery: Delivery::Bind },
        BootFile {
            handle: "initrd".into(),
            target: place("/boot/initrd,a=b\n"),
            delivery: Delivery::Copy { size: ByteSize(7) },
        },
    ];
    needs.devices = vec![node("/dev/kvm", 232)];
    needs.scratch = vec![Scratch { target: place("/tmp"), size: ByteSize(1 << 20) }];
    needs.proc = Proc::Masked;
    let root = plan(&needs, &merged_usr()).unwrap();
    let json = serde_json::to_string(&root).unwrap();
    assert_eq!(serde_json::from_str::<MonitorRoot>(&json).unwrap(), root);
    // A place outside the root cannot be smuggled in by way of the file (E13).
    assert!(serde_json::from_str::<MonitorRoot>(&json.replace("/boot/kernel", "/boot/../kernel")).is_err());
}
