//! The system calls that have no safe wrapper. All of this crate's `unsafe` is here.
#![allow(unsafe_code, reason = "clone3, close_range and _exit have no safe wrapper in rustix or std")]

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use urunc_state::Signal;

/// How long a thread that has been joined may take to disappear.
const THREAD_PATIENCE: Duration = Duration::from_secs(2);

/// Where [`clone_process`] returned.
#[derive(Debug)]
pub(super) enum Cloned {
    /// In the caller; this is the new process.
    Parent(OwnedFd),
    /// In the new process.
    Child,
}

/// Whose child the new process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parentage {
    /// The caller's.
    Child,
    /// The caller's parent's (`CLONE_PARENT`).
    Sibling,
}

/// Where a fork returned.
#[derive(Debug)]
pub(super) enum Forked {
    /// In the caller; this is the new process, which is its child.
    Parent {
        /// Its number, which is its own until it has been waited for.
        pid: Pid,
        /// What it is waited for by.
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child,
}

/// Forks this process.
///
/// # Errors
/// As [`clone_process`].
pub(super) fn fork() -> io::Result<Forked> {
    require_single_thread()?;
    clone_unchecked(UnshareFlags::empty(), Parentage::Child, None)
}

/// Forks init, which has one thread for all of its life, and in its root no `/proc` that could tell.
///
/// # Errors
/// What the system says.
pub(super) fn fork_from_init() -> io::Result<Forked> {
    clone_unchecked(UnshareFlags::empty(), Parentage::Child, None)
}

/// Forks this process into new `namespaces` and the cgroup v2 directory `cgroup`, as `clone3(2)` does.
///
/// # Errors
/// What the system says, or `EBUSY` if this process has more than one thread: a copy of such a process may hold locks
/// that nobody will ever release.
pub(super) fn clone_process(
    namespaces: UnshareFlags,
    parentage: Parentage,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    require_single_thread()?;
    Ok(match clone_unchecked(namespaces, parentage, cgroup)? {
        Forked::Parent { pidfd, .. } => Cloned::Parent(pidfd),
        Forked::Child => Cloned::Child,
    })
}

fn clone_unchecked(
    namespaces: UnshareFlags,
    parentage: Parentage,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Forked> {
    /// Linux 5.7 (`linux/sched.h`); `libc` has no constant that fits all 64 bits.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut flags = u64::from(namespaces.bits()) | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    let mut exit_signal = libc::SIGCHLD;
    if parentage == Parentage::Sibling {
        flags |= u64::from(libc::CLONE_PARENT.cast_unsigned());
        exit_signal = 0; // inherited from the caller; anything else is EINVAL
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` consists of integers, for which zero is valid and means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = u64::from(exit_signal.cast_unsigned());
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    let size = size_of::<libc::clone_args>();
    // SAFETY: `args` and `pidfd` live until the call returns; no CLONE_VM, so the child works on a copy of this
    // single-threaded process's memory, and returning in it is as sound as returning from fork(2).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) };
    let without_clone3 = pid == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS);
    // A new time namespace cannot be had from clone(2): its flag lies among the bits of the exit signal.
    let pid = if without_clone3 && !namespaces.contains(UnshareFlags::NEWTIME) {
        // Seccomp profiles of older container engines answer ENOSYS.
        let legacy = flags | u64::from(exit_signal.cast_unsigned());
        // SAFETY: as above; with CLONE_PIDFD the third argument is where the pidfd goes (clone(2)), the rest is unused.
        unsafe { libc::syscall(libc::SYS_clone, legacy, 0, &raw mut pidfd, 0, 0) }
    } else {
        pid
    };
    match pid {
        0 => {
            if without_clone3 && cgroup.is_some_and(|cgroup| enter_cgroup(cgroup).is_err()) {
                // Returning would let two processes go on as create.
                exit(1)
            }
            Ok(Forked::Child)
        }
        -1 => Err(io::Error::last_os_error()),
        pid => {
            // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
            Ok(Forked::Parent { pid, pidfd })
        }
    }
}

/// Moves this process into the cgroup v2 directory `cgroup`.
fn enter_cgroup(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let procs = openat(cgroup, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(procs, b"0")?;
    Ok(())
}

/// A process directory's `task` has one subdirectory, and so one link, per thread.
fn require_single_thread() -> io::Result<()> {
    const LINKS_OF_AN_EMPTY_DIRECTORY: u64 = 2;
    let threads = rustix::fs::stat("/proc/self/task")?.st_nlink.saturating_sub(LINKS_OF_AN_EMPTY_DIRECTORY);
    if threads == 1 {
        return Ok(());
    }
    // One that has been joined, as those for network namespaces are, may still be on its way out.
    urunc_netns::wait_single_threaded(Instant::now() + THREAD_PATIENCE)
        .map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))
}

/// Gives this process a cgroup namespace whose root is the cgroup that it is in.
///
/// # Errors
/// What `unshare(2)` says.
pub(super) fn unshare_cgroup_namespace() -> io::Result<()> {
    // SAFETY: only CLONE_FILES breaks assumptions of safe code, and it is not asked for.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }.map_err(io::Error::from)
}

/// Gives this process a new session keyring called `name` (keyctl(2)).
///
/// # Errors
/// What `keyctl(2)` says; `ENOSYS` from a kernel without keys.
pub(super) fn join_session_keyring(name: &str) -> io::Result<()> {
    /// `linux/keyctl.h`
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = CString::new(name)?;
    // SAFETY: the name is a string that lives until the call returns; the other arguments are not used.
    match unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr(), 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Subjects this thread to a seccomp filter.
///
/// # Errors
/// What `seccomp(2)` says.
pub(super) fn install_filter(program: &[seccompiler::sock_filter], log: bool) -> io::Result<()> {
    /// `linux/seccomp.h`
    const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut filter: Vec<libc::sock_filter> =
        program.iter().map(|it| libc::sock_filter { code: it.code, jt: it.jt, jf: it.jf, k: it.k }).collect();
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    let flags = if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    // SAFETY: the program and its instructions live until the call returns; the kernel copies and checks them.
    match unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The user namespace that owns `namespace` (ioctl_ns(2)).
///
/// # Errors
/// `EPERM` if it is neither the caller's nor below it.
pub(super) fn owner_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `_IO(NSIO, 1)` of `linux/nsfs.h`
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the request takes no argument and returns a descriptor.
    match unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just made this descriptor for us.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// What kind of namespace `namespace` is, as the flag that makes a new one (ioctl_ns(2)).
///
/// # Errors
/// `ENOTTY` if it is none.
pub(super) fn kind_of(namespace: BorrowedFd<'_>) -> io::Result<u32> {
    /// `_IO(NSIO, 3)` of `linux/nsfs.h`
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument.
    match unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind.cast_unsigned()),
    }
}

/// Gives the children of this process a time namespace, whose clocks may be set until the first of them exists.
///
/// # Errors
/// What `unshare(2)` says.
pub(super) fn unshare_time_namespace() -> io::Result<()> {
    // SAFETY: only CLONE_FILES breaks assumptions of safe code, and it is not asked for.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWTIME) }.map_err(io::Error::from)
}

/// Closes every descriptor but those in `keep`, which must be sorted.
///
/// # Errors
/// What `close_range(2)` says.
pub(super) fn close_all_except(keep: &[RawFd]) -> io::Result<()> {
    let mut from: libc::c_uint = 0;
    for fd in keep {
        let fd = fd.cast_unsigned();
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd.saturating_add(1).max(from);
    }
    close_range(from, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> io::Result<()> {
    // SAFETY: only ever called by init, on descriptors that no owner in this process will use again: init keeps what
    // it owns and never returns into the code that owned the rest.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes `number` a copy of `fd` that survives `execve`.
///
/// # Errors
/// `EINVAL` for a standard stream, else what `dup2(2)` says.
pub(super) fn inherit_as(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: only ever called by init right before `execve`, with numbers below which it owns nothing any more.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Unblocks every signal, and gives those that are ignored their default action again. Rust ignores SIGPIPE, callers ignore what they please,
/// and glibc's `posix_spawn` ignores the two signals that it keeps for itself; `execve` passes all of that on.
///
/// # Errors
/// What `/proc/self/status` or `rt_sigaction(2)` say.
pub(super) fn reset_signals() -> io::Result<()> {
    /// Room for the kernel's `struct sigaction`; all zero is SIG_DFL without flags.
    static DEFAULT_ACTION: [u64; 4] = [0; 4];
    /// Size of the kernel's signal set in bytes.
    const SIGSET_SIZE: usize = 8;
    let status = crate::procfs::read_to_string("/proc/self/status")?;
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:\t"))
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .ok_or_else(|| io::Error::other("/proc/self/status has no line SigIgn"))?;
    for signal in (1..=64).filter(|signal| ignored & (1 << (signal - 1)) != 0) {
        let (action, none) = (&raw const DEFAULT_ACTION, std::ptr::null::<u64>());
        // SAFETY: the new action is readable, and as large as the kernel's structure on every 64-bit architecture; none
        // is written back. The raw call is needed because glibc's refuses its own two signals.
        if unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action, none, SIGSET_SIZE) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: a signal set is an array of integers; all zero is the empty set on Linux (sigsetops(3)).
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid or null.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Gives SIGCHLD its default action again, whatever the caller did with it: where it is ignored, children leave nothing to be waited for.
pub fn heed_children() {
    // SAFETY: the default action is no handler of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Replaces this process by `program`, and returns only if that fails.
///
/// Unlike `execvp`, on which [`std::process::Command`] is built, it searches no `PATH` and gives no file that the kernel
/// cannot execute to a shell.
pub(super) fn execute(program: &Path, args: &[impl AsRef<OsStr>], env: &[(String, String)]) -> io::Error {
    let args = args.iter().map(AsRef::as_ref);
    let argv: Vec<&OsStr> = std::iter::once(program.as_os_str()).chain(args).collect();
    let env: Vec<String> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    execute_exactly(program, &argv, &env)
}

/// Replaces this process by `path` with all of its arguments, the first of which is its name, and returns only if that
/// fails.
pub(super) fn execute_exactly(path: &Path, args: &[impl AsRef<OsStr>], env: &[String]) -> io::Error {
    let strings = || -> Result<_, std::ffi::NulError> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let args =
            args.iter().map(|text| CString::new(text.as_ref().as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let env = env.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()?;
        Ok((path, args, env))
    };
    match strings() {
        Ok((path, args, env)) => execute_strings(&path, &args, &env),
        Err(error) => error.into(),
    }
}

fn execute_strings(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let terminated = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (terminated(args), terminated(env));
    // SAFETY: both arrays end with null, and all strings live until the call returns, if it does.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, without running what its parent registered for exit.
pub(super) fn exit(status: u8) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(i32::from(status)) }
}

/// The signals of a foreground command as a descriptor; while it lives they have no other effect.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Takes over the signals that a foreground container is to get, and the terminal's resize.
    ///
    /// # Errors
    /// What `signalfd(2)` says.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a signal set is an array of integers; all zero is the empty set on Linux (sigsetops(3)).
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        let signals = [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGHUP,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGWINCH,
        ];
        for signal in signals {
            // SAFETY: the set is initialised and the numbers are signals.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: both pointers are valid or null; blocking signals has no memory effects.
        let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        for signal in signals {
            // Callers in the background ignore the keyboard's signals, and what is ignored never reaches a descriptor.
            // SAFETY: the default action is no handler of ours, and the signal is blocked.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // SAFETY: the set is initialised.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has come, if any.
    ///
    /// # Errors
    /// What `read(2)` says.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        // `ssi_signo` is the first field of the 128 bytes of signalfd_siginfo (signalfd(2)).
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut record) {
            Ok(length) if length == record.len() => {
                let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
                Ok(u8::try_from(number).ok().and_then(Signal::from_number))
            }
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
