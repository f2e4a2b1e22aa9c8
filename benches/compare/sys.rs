//! What no safe library offers: resource usage of a child, and leaving the mount namespace.
#![expect(unsafe_code, reason = "wait4 and unshare have no safe wrapper")]

use std::io;
use std::time::Duration;

use rustix::thread::UnshareFlags;
use rustix::time::{ClockId, clock_gettime};

/// What a process has used, its waited-for children included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) peak_kib: u64,
}

/// Waits for the end of a child, adopted or not.
pub(crate) fn wait4(pid: i32) -> io::Result<Usage> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live, writable objects of the right types.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok(Usage { cpu: time(usage.ru_utime) + time(usage.ru_stime), peak_kib: usage.ru_maxrss.unsigned_abs() })
}

/// Gives this process, which must have one thread, a mount namespace of its own.
pub(crate) fn leave_mount_namespace() -> io::Result<()> {
    // SAFETY: no other thread exists yet, and no descriptor or address depends on the namespace.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?)
}

/// The monotonic clock, as the launcher reads it.
pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
