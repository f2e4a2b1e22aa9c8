//! Runs a helper under `ptrace`, counts the system calls that it makes between two marks, and kills it before
//! one of them or lets one of them fail.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Called by a helper where the counting begins and where it ends: a system call that nothing else makes.
pub(crate) fn mark() {
    let _ = rustix::process::getppid();
}

/// What is to happen to the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// SIGKILL when the call of this index begins.
    Kill(usize),
    /// The call of this index is not made, but fails with this error.
    Fail(usize, i32),
}

/// How the helper fared.
#[derive(Debug)]
pub(crate) struct Traced {
    /// Numbers of the system calls between the marks.
    pub(crate) calls: Vec<i64>,
    /// Exit code; `None` if it was killed.
    pub(crate) code: Option<u8>,
}

/// Calls that are not the operation's: for memory, what the standard library's debug build checks on close, and the
/// time, which is a call only where the kernel's clock cannot be read without one.
pub(crate) fn is_noise(call: i64) -> bool {
    [
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_fcntl,
        libc::SYS_clock_gettime,
    ]
    .contains(&call)
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn available() -> bool {
    true
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn available() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn run(_helper: &str, _root: &Path, _fault: Fault) -> Traced {
    unreachable!("registers are read as on x86_64")
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn run(helper: &str, root: &Path, fault: Fault) -> Traced {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["helper", helper]).arg(root);
    // SAFETY: PTRACE_TRACEME takes no arguments.
    let trace_me = || match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: `trace_me` makes one async-signal-safe system call.
    unsafe { command.pre_exec(trace_me) };
    #[expect(clippy::zombie_processes, reason = "waited for by `follow`, as a tracer must")]
    let child = command.spawn().unwrap();
    follow(libc::pid_t::try_from(child.id()).unwrap(), fault)
}

#[cfg(target_arch = "x86_64")]
fn follow(pid: libc::pid_t, fault: Fault) -> Traced {
    use std::ptr::null_mut;

    fn request(request: libc::c_uint, pid: libc::pid_t, data: *mut libc::c_void) {
        // SAFETY: `data` is what the request takes: options, a signal number or a live `user_regs_struct`.
        let result = unsafe { libc::ptrace(request, pid, std::ptr::null_mut::<libc::c_void>(), data) };
        assert_eq!(result, 0, "ptrace: {}", std::io::Error::last_os_error());
    }
    let wait = || {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) }, pid);
        status
    };
    let registers = || {
        // SAFETY: the structure consists of integers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETREGS, pid, (&raw mut registers).cast());
        registers
    };
    let set = |mut registers: libc::user_regs_struct| {
        request(libc::PTRACE_SETREGS, pid, (&raw mut registers).cast());
    };

    assert!(libc::WIFSTOPPED(wait()), "the helper stops at execve");
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    request(
        libc::PTRACE_SETOPTIONS,
        pid,
        std::ptr::without_provenance_mut(usize::try_from(options).unwrap()),
    );
    let (mut calls, mut marks, mut entering) = (vec![], 0, true);
    let mut failing = None;
    loop {
        request(libc::PTRACE_SYSCALL, pid, null_mut());
        let status = wait();
        if libc::WIFEXITED(status) {
            return Traced { calls, code: u8::try_from(libc::WEXITSTATUS(status)).ok() };
        }
        if libc::WIFSIGNALED(status) {
            return Traced { calls, code: None };
        }
        assert_eq!(libc::WSTOPSIG(status), libc::SIGTRAP | 0x80, "the helper gets no signals");
        if entering {
            let mut now = registers();
            let call = i64::try_from(now.orig_rax).unwrap();
            if call == libc::SYS_getppid {
                marks += 1;
            } else if marks == 1 {
                let index = calls.len();
                calls.push(call);
                match fault {
                    Fault::Kill(at) if at == index => {
                        // Not waited for yet, so the number is its own.
                        let helper = rustix::process::Pid::from_raw(pid).unwrap();
                        rustix::process::kill_process(helper, rustix::process::Signal::KILL).unwrap();
                        while !libc::WIFSIGNALED(wait()) {}
                        return Traced { calls, code: None };
                    }
                    Fault::Fail(at, errno) if at == index && !is_noise(call) => {
                        now.orig_rax = u64::MAX;
                        set(now);
                        failing = Some(errno);
                    }
                    _ => {}
                }
            }
        } else if let Some(errno) = failing.take() {
            let mut now = registers();
            now.rax = (-i64::from(errno)).cast_unsigned();
            set(now);
        }
        entering = !entering;
    }
}
