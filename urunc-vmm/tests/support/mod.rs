//! What several test programs use: what a machine has to offer, and a performer that carries a plan out.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

mod kernels;
pub(crate) mod network;
mod perform;

use std::path::{Path, PathBuf};

pub(crate) use kernels::kernel_for;
pub(crate) use perform::{Running, perform};
use urunc_vmm::{Arch, Host, Kernel, KvmAccess, Machine, Memory, Monitor, kernel};

/// Finds a program in `PATH`.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// One of the demo unikernel's files, as `make guest` builds them.
pub(crate) fn demo(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/unikernel");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
    target.join("release").join(name)
}

/// Says that a test does not run, past the test harness, which keeps the output of tests that pass to itself.
pub(crate) fn skipped(why: &str) {
    use std::io::Write;
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped: {why}").unwrap();
}

/// Tells whether a test can run; says so if not, and fails if it is required to.
pub(crate) fn have(needs: &[&str]) -> bool {
    for need in needs {
        let met = match *need {
            "demo" => demo("demo").exists(),
            "root" => rustix::process::geteuid().is_root(),
            "kvm" => std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok(),
            program => in_path(program).is_some(),
        };
        if met {
            continue;
        }
        let required = std::env::var("URUNC_REQUIRE").is_ok_and(|all| all.split(',').any(|one| one == *need));
        assert!(!required, "{need} is required, but not there");
        skipped(&format!("needs {need}"));
        return false;
    }
    true
}

/// The host as it is.
pub(crate) fn host(monitor: Monitor) -> Host {
    let arch = Arch::current().unwrap();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kvm = match std::fs::File::options().read(true).write(true).open("/dev/kvm") {
        Err(error) => KvmAccess::Unusable { reason: error.to_string() },
        Ok(_) if cpuinfo.contains(" hypervisor") => KvmAccess::Nested,
        Ok(_) => KvmAccess::Native,
    };
    let program = in_path(monitor.binary_names(arch)[0]).unwrap_or_else(|| "/nonexistent".into());
    Host { arch, kvm, program, data_dir: None }
}

/// A machine of 64 MiB that boots one of the demo kernels.
pub(crate) fn machine(kernel: &str) -> Machine {
    let path = demo(kernel);
    let image = kernel::inspect(std::fs::File::open(&path).unwrap()).unwrap();
    Machine::new(Kernel { path, image }, Memory::mib(64))
}
