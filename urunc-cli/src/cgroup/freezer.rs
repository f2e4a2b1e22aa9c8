//! Freezing all of a container: its virtual CPUs stop where they are, and so does everything beside them.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use urunc_state::Deadline;

use super::make::write_file;

/// Why a container was not frozen or thawed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// The freezer's file cannot be used.
    #[error("cannot use the freezer {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something in the group cannot be stopped.
    #[error("the cgroup of {path} did not freeze within {} s; it runs on", .limit.as_secs())]
    TimedOut {
        /// The file.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
}

/// How long a group may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);
/// v1 has no event for "frozen"; between two looks a processor gets time to get there.
const V1_INTERVAL: Duration = Duration::from_millis(1);

/// Freezes the group whose state `state_file` shows, and waits until all of it stands still.
///
/// # Errors
/// [`FreezeError`]; the group then runs.
pub fn freeze(state_file: &Path) -> Result<(), FreezeError> {
    let deadline = Deadline::after(PATIENCE);
    let io = |source| FreezeError::Io { path: state_file.to_owned(), source };
    let unified = is_unified(state_file);
    set(state_file, unified, true).map_err(io)?;
    let events = fs::File::open(state_file).map_err(io)?;
    loop {
        if is_frozen(&events, unified).map_err(io)? {
            return Ok(());
        }
        let left = deadline.remaining();
        if left.is_zero() {
            set(state_file, unified, false).map_err(io)?;
            return Err(FreezeError::TimedOut { path: state_file.to_owned(), limit: PATIENCE });
        }
        if unified {
            // The kernel reports a change of `cgroup.events` as an exceptional condition.
            wait(&events, left).map_err(io)?;
        } else {
            std::thread::sleep(V1_INTERVAL);
            // A task that was forked meanwhile may have escaped; writing again catches it.
            set(state_file, unified, true).map_err(io)?;
        }
    }
}

/// Lets the group whose state `state_file` shows run on. One that is gone runs no more, which is no error.
///
/// # Errors
/// [`FreezeError::Io`]
pub fn thaw(state_file: &Path) -> Result<(), FreezeError> {
    match set(state_file, is_unified(state_file), false) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FreezeError::Io { path: state_file.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// [`thaw`], for a container that is on its way out: a failure only means that the kernel takes longer.
pub fn thaw_by_state_file(state_file: Option<&Path>) {
    if let Some(Err(error)) = state_file.map(thaw) {
        log::warn!("{}", crate::report::chain(&error));
    }
}

fn is_unified(state_file: &Path) -> bool {
    state_file.ends_with("cgroup.events")
}

fn set(state_file: &Path, unified: bool, frozen: bool) -> io::Result<()> {
    match (unified, frozen) {
        (true, true) => write_file(&state_file.with_file_name("cgroup.freeze"), b"1"),
        (true, false) => write_file(&state_file.with_file_name("cgroup.freeze"), b"0"),
        (false, true) => write_file(state_file, b"FROZEN"),
        (false, false) => write_file(state_file, b"THAWED"),
    }
}

fn is_frozen(file: &fs::File, unified: bool) -> io::Result<bool> {
    let word = if unified { "frozen 1" } else { "FROZEN" };
    Ok(text(file)?.lines().any(|line| line == word))
}

/// All of a small file, from its start. Reading arms the event that [`wait`] waits for, on this very descriptor.
pub(super) fn text(file: &fs::File) -> io::Result<String> {
    let mut buffer = [0u8; 256];
    let length = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Waits until `events` has changed since it was read.
pub(super) fn wait(events: &fs::File, limit: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(limit).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
