//! virtiofsd's surroundings in the container's state directory: the socket that it is handed, on which it need not be
//! waited for, and the file that its standard error goes to.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chmodat, chownat, openat};
use rustix::net::SocketType;
use urunc_rootfs::root::Owner;
use urunc_vmm::{Machine, ShareKind};

use super::DiskError;
use super::plan::DiskPlan;
use super::take::Held;
use crate::sandbox::channel::listener;
use crate::sandbox::daemon::Daemon;

const SOCKET: &str = "virtiofsd.sock";
const LOG: &str = "virtiofsd.log";
/// How much of the log is repeated in ours.
const REPEATED: u64 = 16 * 1024;

/// Bytes that virtiofsd 1.13 takes for itself: 4 MiB were measured (resident, file pages included, guest memory apart) while a
/// guest booted; the rest is room for its table of the files that the guest knows.
const DAEMON_MEMORY: u64 = 16 << 20;
/// It maps the guest's memory too, which takes page tables: 8 bytes for each 4 KiB.
const TABLES: u64 = 512;

/// Bytes that the machine's helpers take in the container's control group, besides the monitor.
pub(in crate::lifecycle) fn helpers_memory(machine: &Machine) -> u64 {
    let by_daemon = machine.shares.iter().any(|share| matches!(share.kind, ShareKind::Virtiofs { .. }));
    if by_daemon { DAEMON_MEMORY.saturating_add(machine.memory.as_bytes() / TABLES) } else { 0 }
}

/// virtiofsd, ready to be started by init, and the socket's place, to be bound into the monitor's root.
#[derive(Debug)]
pub(in crate::lifecycle) struct PreparedDaemon {
    pub(in crate::lifecycle) daemon: Daemon,
    pub(in crate::lifecycle) socket: OwnedFd,
}

impl DiskPlan {
    /// Prepares virtiofsd, if the guest's root is shared by it: everything but the process, which init makes.
    ///
    /// # Errors
    /// [`DiskError`]; what was made lies in the state directory and goes with it, but for mount points, which `held` has.
    pub(in crate::lifecycle) fn daemon(
        &self,
        state: BorrowedFd<'_>,
        owner: Owner,
        held: &mut Held,
    ) -> Result<Option<PreparedDaemon>, DiskError> {
        let Some(share) = &self.share else { return Ok(None) };
        let cannot = |what| move |errno: rustix::io::Errno| DiskError::Daemon { what, source: errno.into() };
        let listening = listener(state, SOCKET, SocketType::STREAM).map_err(DiskError::Socket)?;
        // The monitor, which runs as this user, connects.
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        chmodat(state, SOCKET, Mode::RUSR | Mode::WUSR, AtFlags::empty())
            .and_then(|()| chownat(state, SOCKET, uid, gid, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(cannot("the permissions of a socket"))?;
        let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = openat(state, SOCKET, place, Mode::empty()).map_err(cannot("a socket"))?;
        let append = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let log = openat(state, LOG, append, Mode::RUSR | Mode::WUSR).map_err(cannot("a log file"))?;
        let null = openat(rustix::fs::CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(cannot("standard streams"))?;
        let tree = share.tree.prepare(&mut held.points).map_err(DiskError::PrepareShare)?;
        let daemon = Daemon { tree, launch: share.launch.clone(), socket: listening, log, null };
        Ok(Some(PreparedDaemon { daemon, socket }))
    }
}

/// Repeats in our log what virtiofsd had to say, its errors as warnings. A container without it has no such file.
pub(in crate::lifecycle) fn report_daemon(state: BorrowedFd<'_>) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = openat(state.as_fd(), LOG, flags, Mode::empty()) else { return };
    let mut text = Vec::new();
    let read = File::from(file).take(REPEATED).read_to_end(&mut text);
    if let Err(error) = read {
        log::warn!("cannot read the log of virtiofsd: {error}");
    }
    for line in String::from_utf8_lossy(&text).lines() {
        if line.contains("ERROR") || line.contains("panicked") {
            log::warn!("virtiofsd: {line}");
        } else {
            log::debug!("virtiofsd: {line}");
        }
    }
}
