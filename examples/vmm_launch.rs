//! Boots a kernel in QEMU from a program of one's own, with nothing of urunc but `urunc-vmm`: what is it, plan, execute,
//! talk, stop. With the demo unikernel:
//!
//!     cargo build --release --manifest-path examples/unikernel/Cargo.toml
//!     cargo run --example vmm_launch examples/unikernel/target/release/demo hello hold
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    error::Error,
    fs::File,
    mem::ManuallyDrop,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixListener, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags};
use urunc_vmm::{
    Arch, Control, Guest, Host, Kernel, Kvm, KvmAccess, Launch, Machine, Memory, Monitor, Role, Workload,
    control, kernel, stop,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = PathBuf::from(args.next().ok_or("usage: vmm_launch KERNEL [ARGUMENT]...")?).canonicalize()?;

    // What is it? A file that no monitor boots, or another one than this, is found out here.
    let image = kernel::inspect(File::open(&path)?)?;
    println!("{} is a {} for {}", path.display(), image.format.name(), image.arch);

    // What is wanted, and what there is to do it with.
    let host = Host {
        arch: Arch::current().ok_or("no monitor runs on this architecture")?,
        kvm: KvmAccess::Unusable { reason: "this example does not look for it".to_owned() },
        program: PathBuf::from("/usr/bin/qemu-system-x86_64"),
        data_dir: None,
    };
    let mut machine = Machine::new(Kernel { path, image }, Memory::mib(64));
    machine.kvm = Kvm::Off;
    let workload = Workload::new(Guest::Generic, args.collect());
    machine.boot = workload.boot(&machine, Monitor::Qemu, host.arch)?;

    // The plan is data: it can be looked at, stored, sent.
    let launch = Monitor::Qemu.plan(&machine, &host)?;
    println!("{} {}", launch.program.display(), launch.args.join(" "));

    let socket = std::env::temp_dir().join(format!("vmm_launch-{}.sock", std::process::id()));
    let mut child = execute(&launch, &socket)?;
    let monitor = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;

    // Talk to it, if it is still there; then give it two seconds to end by itself, and ask.
    let limit = Duration::from_secs(5);
    let mut control = control::connect(&socket, limit)
        .and_then(|stream| Control::open(stream, control::Protocol::Qmp, limit))
        .ok();
    std::fs::remove_file(&socket)?;
    if let Some(control) = &mut control {
        println!("{:?}", control.info());
    }
    if !stop::wait(monitor.as_fd(), Duration::from_secs(2))? {
        let ended = stop::stop(monitor.as_fd(), launch.shutdown, control.as_mut(), limit)?;
        println!("asked to end: {ended:?}");
    }
    println!("{}", child.wait()?);
    Ok(())
}

/// Executes a plan: each descriptor under its number, no environment. A container runtime would confine the process too.
fn execute(launch: &Launch, socket: &Path) -> Result<Child, Box<dyn Error>> {
    let listener = UnixListener::bind(socket)?;
    // Out of the way of the numbers that the plan gives.
    let listener = rustix::io::fcntl_dupfd_cloexec(&listener, 100)?;
    let mut placed: Vec<(RawFd, RawFd)> = Vec::new();
    for inherit in &launch.inherit {
        match inherit.role {
            Role::Control => placed.push((listener.as_raw_fd(), inherit.fd)),
            role => return Err(format!("this example has no {role:?} to give").into()),
        }
    }
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear();
    let place = move || {
        for &(from, to) in &placed {
            // SAFETY: the listener is open in this process until the function returns.
            let from = unsafe { rustix::fd::BorrowedFd::borrow_raw(from) };
            // SAFETY: nobody else in the child uses this number; it stays open.
            let mut to = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(to) });
            rustix::io::dup2(from, &mut to)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec, the closure makes system calls and nothing else.
    unsafe { command.pre_exec(place) };
    Ok(command.spawn()?)
}
