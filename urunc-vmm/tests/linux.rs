//! A real Linux under QEMU's emulation: arguments and variables reach its first process as they were given, and it ends.
//! Needs a kernel for this machine, named by `URUNC_TEST_LINUX` or unpacked by `scripts/stock-kernel`, and a statically
//! linked `busybox`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeMap, path::PathBuf};

use support::{have, host, in_path, perform};
use urunc_vmm::{Guest, Kernel, Kvm, Machine, Memory, Monitor, Root, Workload, kernel};

/// Prints what it was given, each between brackets, and resets the machine.
const INIT: &str = "#!/bin/busybox sh
exec >/dev/console 2>&1
for argument in \"$@\"; do echo \"argument [$argument]\"; done
/bin/busybox env | while read -r variable; do echo \"variable [$variable]\"; done
/bin/busybox reboot -f
";

fn linux() -> Option<PathBuf> {
    let kernel = std::env::var_os("URUNC_TEST_LINUX").map_or_else(stock_kernel, PathBuf::from);
    let kernel = Some(kernel).filter(|kernel| kernel.exists());
    let required =
        std::env::var("URUNC_REQUIRE").is_ok_and(|all| all.split(',').any(|one| one == "linux-guest"));
    assert!(kernel.is_some() || !required, "linux-guest is required, but there is no kernel");
    if kernel.is_none() {
        support::skipped("URUNC_TEST_LINUX names no kernel, and scripts/stock-kernel has unpacked none");
    }
    kernel.filter(|_| have(&["qemu-system-x86_64", "busybox"]))
}

/// Where `make test` has it unpacked.
fn stock_kernel() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("linux-guest/vmlinuz")
}

/// An archive in the format "newc" (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
fn initrd() -> Vec<u8> {
    let busybox = std::fs::read(in_path("busybox").unwrap()).unwrap();
    let mut archive = Vec::new();
    let mut entry = |name: &str, mode: u32, device: (u32, u32), contents: &[u8]| {
        let sizes = (u32::try_from(contents.len()).unwrap(), u32::try_from(name.len() + 1).unwrap());
        archive.extend(b"070701");
        let number = u32::from(mode != 0);
        for field in [number, mode, 0, 0, 1, 0, sizes.0, 0, 0, device.0, device.1, sizes.1, 0] {
            archive.extend(format!("{field:08X}").as_bytes());
        }
        archive.extend(name.as_bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(contents);
        archive.resize(archive.len().next_multiple_of(4), 0);
    };
    entry("bin", 0o40755, (0, 0), b"");
    entry("bin/busybox", 0o100755, (0, 0), &busybox);
    entry("dev", 0o40755, (0, 0), b"");
    entry("dev/console", 0o20600, (5, 1), b"");
    entry("init", 0o100755, (0, 0), INIT.as_bytes());
    entry("TRAILER!!!", 0, (0, 0), b"");
    archive
}

/// Weaknesses 4, 6 and 7 of the monitors reference, on the kernel that they were about.
#[test]
fn linux_gives_its_first_process_what_it_was_given() {
    let Some(path) = linux() else { return };
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("initrd");
    std::fs::write(&archive, initrd()).unwrap();
    let image = kernel::inspect(std::fs::File::open(&path).unwrap()).unwrap();

    let host = host(Monitor::Qemu);
    let mut machine = Machine::new(Kernel { path, image }, Memory::mib(256));
    machine.kvm = Kvm::Off;
    machine.initrd = Some(archive);
    let arguments = [
        "a",
        "b c",
        "",
        "it's",
        "k=v w",
        "=",
        "à la",
        "voilà",
        "$x `y` \\n",
        " lead",
        "trail ",
        "-- x",
        "-",
        "quiet",
    ];
    let variables = [
        "A=1",
        "B=x y",
        "C=root=/dev/sda1 -- z",
        "D=",
        "E=a=b",
        "F='q'",
        "G=à",
        "http_proxy=http://p:1/",
        "H= x ",
    ];
    let workload = Workload {
        root: Root::Initrd,
        env: variables.map(str::to_owned).to_vec(),
        ..Workload::new(
            Guest::Linux,
            [&["/init"], arguments.as_slice()].concat().iter().map(|&a| a.to_owned()).collect(),
        )
    };
    machine.boot = workload.boot(&machine, Monitor::Qemu, host.arch).unwrap();
    let launch = Monitor::Qemu.plan(&machine, &host).unwrap();
    let (status, output) = perform(&launch, BTreeMap::new()).finish();

    let output = output.replace('\r', "");
    let found = |kind: &str| -> Vec<String> {
        let lines =
            output.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(" [")?.strip_suffix(']'));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(found("argument"), arguments, "{output}");
    // "read" takes blanks off; the brackets show what is left.
    let found: Vec<String> = found("variable");
    for variable in variables {
        assert!(found.iter().any(|line| line == variable.trim()), "{variable:?} is not in {found:?}");
    }
    // The shell adds its own; nothing of a value has become a variable.
    let names: Vec<&str> = found.iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    for name in names {
        let ours = variables.iter().any(|variable| variable.starts_with(&format!("{name}=")));
        assert!(ours || ["HOME", "TERM", "PWD", "SHLVL", "PATH", "OLDPWD", "_"].contains(&name), "{name}");
    }
    assert_eq!(status.code(), Some(0), "{output}");
}
