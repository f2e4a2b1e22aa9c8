//! The system call that BPF programs are loaded by, which has no safe wrapper.
#![allow(unsafe_code, reason = "bpf(2) has no safe wrapper in rustix or std")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::devices::Instruction;

/// `bpf(2)` commands and constants (`linux/bpf.h`).
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The fields of `union bpf_attr` that `BPF_PROG_LOAD` needs.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The fields of `union bpf_attr` that `BPF_PROG_ATTACH` needs.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads `program` and attaches it to the cgroup v2 directory `group`, in addition to what is attached above. It lives as
/// long as the group.
///
/// # Errors
/// What `bpf(2)` says.
pub(super) fn attach_device_program(group: &OwnedFd, program: &[Instruction]) -> io::Result<()> {
    let license = c"Apache-2.0";
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the structure, the instructions and the license live until the call returns; the kernel only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = Attach {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the structure lives until the call returns, and both descriptors are open.
    match unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
