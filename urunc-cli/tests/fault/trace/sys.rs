//! The `ptrace(2)` requests that the tracer makes, for x86_64. A request to a tracee that has just been killed fails with
//! `ESRCH`; that is no error here, since `wait` reports the death next.
#![allow(unsafe_code, reason = "ptrace and fork have no safe interface")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::{null_mut, without_provenance_mut};

/// Why a tracee has stopped at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtCall {
    /// It is about to make the call of this number.
    Entry(u64),
    /// It has made it.
    Exit,
}

/// How far a tracee runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    NextCall,
    NextEvent,
}

/// Lets `command` stop at its execve, to be traced by the thread that spawns it.
pub(crate) fn trace_from_execve(command: &mut Command) {
    // SAFETY: PTRACE_TRACEME takes no arguments.
    let trace_me = || match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: `trace_me` makes one async-signal-safe system call.
    unsafe { command.pre_exec(trace_me) };
}

/// Follows forks, clones and execs of a stopped tracee, marks its system calls, and kills it when the tracer dies.
pub(crate) fn follow_everything(pid: libc::pid_t) {
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_EXITKILL
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC;
    request(libc::PTRACE_SETOPTIONS, pid, number(options));
}

/// Lets a stopped tracee go on, and delivers `signal` to it unless that is 0.
pub(crate) fn resume(pid: libc::pid_t, until: Until, signal: libc::c_int) {
    let how = match until {
        Until::NextCall => libc::PTRACE_SYSCALL,
        Until::NextEvent => libc::PTRACE_CONT,
    };
    request(how, pid, number(signal));
}

/// The process that an event is about.
pub(crate) fn event_pid(pid: libc::pid_t) -> libc::pid_t {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, pid, (&raw mut message).cast());
    libc::pid_t::try_from(message).unwrap()
}

/// Which call a tracee has stopped at; `None` if it is dead already.
pub(crate) fn at_call(pid: libc::pid_t) -> Option<AtCall> {
    /// `struct ptrace_syscall_info` of ptrace(2): `op` is the first byte, `entry.nr` at offset 24.
    const WORDS: usize = 11;
    let mut info = [0u64; WORDS];
    // SAFETY: the kernel writes at most as many bytes as the third argument says, which is the size of `info`.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            pid,
            size_of_val(&info),
            (&raw mut info).cast::<libc::c_void>(),
        )
    };
    match info[0] & 0xff {
        _ if result <= 0 => None,
        1 => Some(AtCall::Entry(info[3])),
        2 => Some(AtCall::Exit),
        other => panic!("a system-call stop of kind {other}"),
    }
}

/// Turns the call that a tracee is about to make into one that does nothing.
pub(crate) fn skip_call(pid: libc::pid_t) {
    change_registers(pid, |registers| registers.orig_rax = u64::MAX);
}

/// Makes the call that a tracee returns from fail with `errno`.
pub(crate) fn fail_call(pid: libc::pid_t, errno: i32) {
    change_registers(pid, |registers| registers.rax = (-i64::from(errno)).cast_unsigned());
}

/// Waits for any tracee of this thread; `None` if there is none.
pub(crate) fn wait() -> Option<(libc::pid_t, libc::c_int)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if pid > 0 {
            return Some((pid, status));
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return None,
            other => panic!("waitpid: {other:?}"),
        }
    }
}

fn change_registers(pid: libc::pid_t, change: impl FnOnce(&mut libc::user_regs_struct)) {
    // SAFETY: the structure consists of integers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    if request(libc::PTRACE_GETREGS, pid, (&raw mut registers).cast()) {
        change(&mut registers);
        request(libc::PTRACE_SETREGS, pid, (&raw mut registers).cast());
    }
}

fn number(value: libc::c_int) -> *mut libc::c_void {
    without_provenance_mut(usize::try_from(value).unwrap())
}

/// Whether the tracee was there to take the request.
fn request(request: libc::c_uint, pid: libc::pid_t, data: *mut libc::c_void) -> bool {
    // SAFETY: `data` is what the request takes: options, a signal number, or a live structure of the right type.
    let result = unsafe { libc::ptrace(request, pid, null_mut::<libc::c_void>(), data) };
    if result == 0 {
        return true;
    }
    let error = io::Error::last_os_error();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "ptrace request {request}: {error}");
    false
}
