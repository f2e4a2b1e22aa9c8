//! System calls of x86-64 Linux, as far as they are needed. Failures are negative numbers, as the kernel returns them.

use core::arch::asm;
use core::ffi::{CStr, c_char};
use core::ptr;

/// A file descriptor, or a negated error number.
pub type Fd = isize;

/// `CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET`.
pub const FIVE_NAMESPACES: u64 = 0x0002_0000 | 0x0400_0000 | 0x0800_0000 | 0x2000_0000 | 0x4000_0000;
/// `O_RDWR`, `O_WRONLY`, `O_CREAT | O_TRUNC`, `O_APPEND`, `O_CLOEXEC`, `O_PATH | O_DIRECTORY`.
pub const READ_WRITE: usize = 2;
/// See [`READ_WRITE`].
pub const WRITE: usize = 1;
/// See [`READ_WRITE`].
pub const NEW: usize = 0o100 | 0o1000;
/// See [`READ_WRITE`].
pub const APPEND: usize = 0o100 | 0o2000;
/// See [`READ_WRITE`].
pub const CLOSE_ON_EXEC: usize = 0o2_000_000;
/// See [`READ_WRITE`].
pub const DIRECTORY: usize = 0o10_000_000 | 0o200_000;
/// `MS_BIND | MS_REC`.
pub const BIND: usize = 4096 | 16384;
/// `MS_SLAVE | MS_REC`.
pub const SLAVE: usize = (1 << 19) | 16384;
/// `MS_NOSUID | MS_NODEV | MS_NOEXEC`.
pub const HARMLESS: usize = 2 | 4 | 8;

fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the wrappers below pass what each call expects; the kernel checks pointers, and writes only to those that the
    // wrappers give it for that.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
             out("rcx") _, out("r11") _, options(nostack));
    }
    result
}

fn path(path: &CStr) -> usize {
    path.as_ptr() as usize
}

/// Ends the process.
pub fn exit(code: i32) -> ! {
    loop {
        call(231, code as usize, 0, 0, 0, 0);
    }
}

/// read(2)
pub fn read(fd: Fd, buffer: &mut [u8]) -> isize {
    call(0, fd as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0)
}

/// write(2)
pub fn write(fd: Fd, bytes: &[u8]) -> isize {
    call(1, fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0)
}

/// open(2)
pub fn open(name: &CStr, flags: usize, mode: usize) -> Fd {
    call(2, path(name), flags, mode, 0, 0)
}

/// close(2)
pub fn close(fd: Fd) {
    call(3, fd as usize, 0, 0, 0, 0);
}

/// dup2(2)
pub fn dup2(from: Fd, to: Fd) -> isize {
    call(33, from as usize, to as usize, 0, 0, 0)
}

/// pause(2)
pub fn pause() {
    call(34, 0, 0, 0, 0, 0);
}

/// fork(2)
pub fn fork() -> isize {
    call(57, 0, 0, 0, 0, 0)
}

/// execve(2); returns only on failure.
///
/// # Safety
/// Both lists end with a null pointer, and their strings with a zero byte.
pub unsafe fn execve(name: &CStr, args: *const *const c_char, environment: *const *const c_char) -> isize {
    call(59, path(name), args as usize, environment as usize, 0, 0)
}

/// What wait4(2) reports: the first fields of `struct rusage`, and the status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    /// Of the process and of the children that it waited for, in microseconds.
    pub user: u64,
    /// The kernel's time on their behalf.
    pub system: u64,
    /// Peak resident set of the largest of them, in KiB.
    pub peak: u64,
    /// As wait(2) encodes it.
    pub status: u64,
}

/// wait4(2)
pub fn wait4(pid: isize) -> Ended {
    let mut usage = [0u64; 18];
    let mut status = 0i32;
    call(61, pid as usize, &raw mut status as usize, 0, usage.as_mut_ptr() as usize, 0);
    Ended {
        user: usage[0] * 1_000_000 + usage[1],
        system: usage[2] * 1_000_000 + usage[3],
        peak: usage[4],
        status: status as u64,
    }
}

/// kill(2)
pub fn kill(pid: u64, signal: usize) -> isize {
    call(62, pid as usize, signal, 0, 0, 0)
}

/// chdir(2)
pub fn chdir(name: &CStr) -> isize {
    call(80, path(name), 0, 0, 0, 0)
}

/// mkdir(2)
pub fn mkdir(name: &CStr, mode: usize) -> isize {
    call(83, path(name), mode, 0, 0, 0)
}

/// rmdir(2)
pub fn rmdir(name: &CStr) -> isize {
    call(84, path(name), 0, 0, 0, 0)
}

/// unlink(2)
pub fn unlink(name: &CStr) -> isize {
    call(87, path(name), 0, 0, 0, 0)
}

/// setsid(2)
pub fn setsid() -> isize {
    call(112, 0, 0, 0, 0, 0)
}

/// mknod(2)
pub fn mknod(name: &CStr, mode: usize, device: usize) -> isize {
    call(133, path(name), mode, device, 0, 0)
}

/// pivot_root(2)
pub fn pivot_root(new: &CStr, old: &CStr) -> isize {
    call(155, path(new), path(old), 0, 0, 0)
}

/// mount(2)
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: usize) -> isize {
    call(165, path(source), path(target), path(kind), flags, 0)
}

/// umount2(2) with `MNT_DETACH`.
pub fn detach(target: &CStr) -> isize {
    call(166, path(target), 2, 0, 0, 0)
}

/// sethostname(2)
pub fn sethostname(name: &[u8]) -> isize {
    call(170, name.as_ptr() as usize, name.len(), 0, 0, 0)
}

/// clock_gettime(2) of `CLOCK_MONOTONIC`, in nanoseconds.
pub fn now() -> u64 {
    let mut time = [0u64; 2];
    call(228, 1, time.as_mut_ptr() as usize, 0, 0, 0);
    time[0] * 1_000_000_000 + time[1]
}

/// pipe2(2) with `O_CLOEXEC`: the reading and the writing end.
pub fn pipe() -> (Fd, Fd) {
    let mut ends = [-1i32; 2];
    call(293, ends.as_mut_ptr() as usize, CLOSE_ON_EXEC, 0, 0, 0);
    (ends[0] as Fd, ends[1] as Fd)
}

/// clone3(2): a process in namespaces of its own and, if it is given, in the cgroup v2 directory `cgroup`.
pub fn clone3(flags: u64, cgroup: Option<Fd>) -> isize {
    const SIGCHLD: u64 = 17;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let (flags, cgroup) = match cgroup {
        Some(fd) => (flags | CLONE_INTO_CGROUP, fd as u64),
        None => (flags, 0),
    };
    // struct clone_args (linux/sched.h): flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size, cgroup.
    let args: [u64; 11] = [flags, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, cgroup];
    call(435, ptr::from_ref(&args) as usize, size_of_val(&args), 0, 0, 0)
}
