//! What a process is known by, and where the kernel says it.

use std::sync::OnceLock;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{Pid, ProcessError, procfs};

/// What tells one process from every other that had or will have its number.
///
/// The start time is as seen in the recorder's time namespace (time_namespaces(7)): commands for one container
/// must be run in the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    /// Its number in the recorder's pid namespace.
    pub pid: Pid,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// The boot that `start_time` counts from.
    pub boot_id: String,
    /// The recorder's pid namespace (inode), in which `pid` means something.
    pub pid_namespace: u64,
}

/// A program file: what `/proc/PID/exe` leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExeIdentity {
    /// Device of its file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// Start time of whoever has the number; `None` when nobody has.
pub(crate) fn start_time(pid: Pid) -> Result<Option<u64>, ProcessError> {
    let path = format!("/proc/{pid}/stat");
    match procfs::read_small(&path) {
        Ok(stat) => match procfs::start_time(&stat) {
            Some(ticks) => Ok(Some(ticks)),
            None => Err(ProcessError::Parse { path: path.into() }),
        },
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::SRCH)) => Ok(None),
        Err(source) => Err(ProcessError::Read { path: path.into(), source }),
    }
}

/// Random, new at each boot (random(4)), and the same as long as we run.
pub(crate) fn boot_id() -> Result<String, ProcessError> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let contents =
        procfs::read_small(path).map_err(|source| ProcessError::Read { path: path.into(), source })?;
    let text = String::from_utf8(contents).map_err(|_| ProcessError::Parse { path: path.into() })?;
    Ok(KNOWN.get_or_init(|| text.trim_end().to_owned()).clone())
}

/// Inode of our pid namespace, provided that `/proc` shows the same one. It need not: in a fresh pid namespace
/// with the old `/proc` still mounted, `/proc/PID` is about other processes.
pub(crate) fn current_pid_namespace() -> Result<u64, ProcessError> {
    let read = |path: &str, errno: Errno| ProcessError::Read { path: path.into(), source: errno.into() };
    let link = rustix::fs::readlink("/proc/self", vec![]).map_err(|errno| read("/proc/self", errno))?;
    if link.to_bytes() != rustix::process::getpid().as_raw_nonzero().to_string().as_bytes() {
        return Err(ProcessError::ForeignProc);
    }
    let path = "/proc/self/ns/pid";
    Ok(rustix::fs::stat(path).map_err(|errno| read(path, errno))?.st_ino)
}
