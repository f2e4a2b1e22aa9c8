//! The least that any runtime must do, as four commands: no parsing, no state, no checks.
//!
//!     floor create DIRECTORY ROOTFS CGROUP PID-FILE PROGRAM ARGUMENT...
//!     floor start DIRECTORY
//!     floor kill DIRECTORY
//!     floor delete DIRECTORY CGROUP
//!
//! CGROUP is a directory of the v2 hierarchy to be made, or `-`. The container's process waits at a fifo for `start`.
#![no_std]
#![no_main]

use core::ffi::CStr;

use bench_floor::start::Start;
use bench_floor::sys::{self, Fd};
use bench_floor::text::{Decimal, Text, number};

bench_floor::program!(main);

const FAILED: i32 = 1;

fn main(start: Start) -> i32 {
    let Some(directory) = start.arg(2) else { return 2 };
    match start.arg(1).map(CStr::to_bytes) {
        Some(b"create") => create(&start, directory),
        Some(b"start") => start_it(directory),
        Some(b"kill") => kill(directory),
        Some(b"delete") => delete(&start, directory),
        _ => 2,
    }
}

fn below(directory: &CStr, name: &[u8]) -> Text {
    Text::join(&[directory.to_bytes(), b"/", name])
}

fn create(start: &Start, directory: &CStr) -> i32 {
    const FIFO: usize = 0o010_600;
    let (Some(rootfs), Some(cgroup), Some(pid_file), Some(program)) =
        (start.arg(3), start.arg(4), start.arg(5), start.arg(6))
    else {
        return 2;
    };
    if sys::mkdir(directory, 0o700) < 0 {
        return FAILED;
    }
    let gate = below(directory, b"gate");
    sys::mknod(gate.as_c_str(), FIFO, 0);
    let gate = sys::open(gate.as_c_str(), sys::READ_WRITE | sys::CLOSE_ON_EXEC, 0);
    let (ready, tell) = sys::pipe();
    let group = if cgroup == c"-" {
        None
    } else {
        sys::mkdir(cgroup, 0o755);
        Some(sys::open(cgroup, sys::DIRECTORY | sys::CLOSE_ON_EXEC, 0))
    };
    let pid = sys::clone3(sys::FIVE_NAMESPACES, group);
    if pid == 0 {
        sys::close(ready);
        return init(start, rootfs, program, gate, tell);
    }
    sys::close(tell);
    if pid < 0 || sys::read(ready, &mut [0]) != 1 {
        return FAILED;
    }
    let pid = Decimal::new(pid as u64);
    let own = below(directory, b"pid");
    for name in [own.as_c_str(), pid_file] {
        let file = sys::open(name, sys::WRITE | sys::NEW, 0o600);
        if sys::write(file, pid.as_bytes()) < 0 {
            return FAILED;
        }
        sys::close(file);
    }
    0
}

/// The container's process, until it becomes the program.
fn init(start: &Start, rootfs: &CStr, program: &CStr, gate: Fd, tell: Fd) -> i32 {
    const DEVICES: [(&[u8], usize); 6] = [
        (b"/dev/null", 0x103),
        (b"/dev/zero", 0x105),
        (b"/dev/full", 0x107),
        (b"/dev/random", 0x108),
        (b"/dev/urandom", 0x109),
        (b"/dev/tty", 0x500),
    ];
    const CHARACTER: usize = 0o020_666;
    sys::setsid();
    sys::sethostname(b"demo");
    sys::mount(c"", c"/", c"", sys::SLAVE);
    sys::mount(rootfs, rootfs, c"", sys::BIND);
    let proc = Text::join(&[rootfs.to_bytes(), b"/proc"]);
    sys::mount(c"proc", proc.as_c_str(), c"proc", sys::HARMLESS);
    let dev = Text::join(&[rootfs.to_bytes(), b"/dev"]);
    sys::mount(c"tmpfs", dev.as_c_str(), c"tmpfs", 2);
    for (name, number) in DEVICES {
        let node = Text::join(&[rootfs.to_bytes(), name]);
        sys::mknod(node.as_c_str(), CHARACTER, number);
    }
    if sys::chdir(rootfs) < 0 || sys::pivot_root(c".", c".") < 0 || sys::detach(c".") < 0 {
        return FAILED;
    }
    sys::write(tell, b"r");
    if sys::read(gate, &mut [0]) != 1 {
        return FAILED;
    }
    // SAFETY: both lists are the kernel's own.
    unsafe { sys::execve(program, start.args_from(6), start.environment()) };
    FAILED
}

fn start_it(directory: &CStr) -> i32 {
    let gate = sys::open(below(directory, b"gate").as_c_str(), sys::WRITE, 0);
    i32::from(sys::write(gate, b"g") != 1)
}

fn kill(directory: &CStr) -> i32 {
    const SIGKILL: usize = 9;
    let mut digits = [0; 20];
    let file = sys::open(below(directory, b"pid").as_c_str(), 0, 0);
    if sys::read(file, &mut digits) < 1 {
        return FAILED;
    }
    i32::from(sys::kill(number(&digits), SIGKILL) != 0)
}

fn delete(start: &Start, directory: &CStr) -> i32 {
    if let Some(cgroup) = start.arg(3).filter(|cgroup| *cgroup != c"-") {
        sys::rmdir(cgroup);
    }
    sys::unlink(below(directory, b"pid").as_c_str());
    sys::unlink(below(directory, b"gate").as_c_str());
    i32::from(sys::rmdir(directory) != 0)
}
