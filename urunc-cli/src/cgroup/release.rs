//! The end of a container's control group: whatever is in it is killed, and the directories go.
//!
//! Only what carries the container's mark is touched. What has no mark yet was made by a create that died before
//! anything could enter it, and is removed if it is empty.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use urunc_state::{Deadline, Pid, Process, Signal};

use super::MARK;
use super::freezer;
use super::make::write_file;
use super::plan::Directory;
use crate::procfs;

/// Why a control group is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// It cannot be looked into or changed.
    #[error("cannot clear the cgroup {path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody in it does not die, or it is refilled from outside.
    #[error("the cgroup {path} still has processes in it {} s after they were killed", .limit.as_secs())]
    Busy {
        /// The directory.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
}

/// How long the processes of a group may take to disappear.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between attempts to remove a v1 directory, for which the kernel reports no event.
const V1_INTERVAL: Duration = Duration::from_millis(2);

/// Whose a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The container's.
    Ours,
    /// Somebody else's.
    Foreign,
    /// Nobody's yet.
    Unmarked,
    /// There is no directory.
    Gone,
}

/// Kills what is in the groups at `paths` that are marked with `mark`, and removes them. What is gone already is success.
///
/// # Errors
/// The first [`ReleaseError`]; the other groups have been released all the same.
pub fn release<P: AsRef<Path>>(paths: &[P], mark: &str) -> Result<(), ReleaseError> {
    let mut first = Ok(());
    // The freezer's comes first: on v1 nothing that is frozen dies, in whichever group it is looked for.
    let (freezer, others): (Vec<&Path>, Vec<&Path>) =
        paths.iter().map(AsRef::as_ref).partition(|path| path.join("freezer.state").exists());
    for path in freezer.into_iter().chain(others) {
        let result = match owner(path, mark) {
            Ok(Owner::Ours) => remove(path),
            Ok(Owner::Unmarked) => remove_empty(path),
            Ok(Owner::Foreign | Owner::Gone) => Ok(()),
            Err(source) => Err(ReleaseError::Io { path: path.to_owned(), source }),
        };
        first = first.and(result);
    }
    first
}

/// Whether the group at `path` carries a mark other than `mark`. One that cannot be looked at is taken for such.
#[must_use]
pub fn is_foreign(path: &Path, mark: &str) -> bool {
    !matches!(owner(path, mark), Ok(Owner::Ours | Owner::Unmarked | Owner::Gone))
}

fn owner(path: &Path, mark: &str) -> io::Result<Owner> {
    // As long as any path: a mark is one.
    let mut value = vec![0u8; 8192];
    match rustix::fs::getxattr(path, MARK, value.as_mut_slice()) {
        Ok(length) if value[..length] == *mark.as_bytes() => Ok(Owner::Ours),
        Ok(_) => Ok(Owner::Foreign),
        Err(Errno::NODATA) => Ok(Owner::Unmarked),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Owner::Gone),
        Err(errno) => Err(errno.into()),
    }
}

fn remove_empty(path: &Path) -> Result<(), ReleaseError> {
    match rustix::fs::rmdir(path) {
        // Not ours, since somebody uses it.
        Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => Ok(()),
        Err(errno) => Err(ReleaseError::Io { path: path.to_owned(), source: errno.into() }),
    }
}

fn remove(path: &Path) -> Result<(), ReleaseError> {
    let deadline = Deadline::after(PATIENCE);
    let io = |source| ReleaseError::Io { path: path.to_owned(), source };
    loop {
        match remove_tree(path) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(io(errno.into())),
        }
        if deadline.remaining().is_zero() {
            return Err(ReleaseError::Busy { path: path.to_owned(), limit: PATIENCE });
        }
        kill_all(path, deadline).map_err(io)?;
    }
}

/// Removes the directory with those below it, deepest first.
fn remove_tree(path: &Path) -> Result<(), Errno> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(errno) => return Err(errno),
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Kills every process of the group and of those below it, and waits for their end or, at least, a moment.
fn kill_all(path: &Path, deadline: Deadline) -> io::Result<()> {
    let all_at_once = write_file(&path.join("cgroup.kill"), b"1").is_ok();
    if all_at_once
        && let Ok(events) = fs::File::open(path.join("cgroup.events"))
        && freezer::text(&events)?.lines().any(|line| line == "populated 1")
    {
        return freezer::wait(&events, deadline.remaining());
    }
    let victims = processes(path);
    for process in &victims {
        // One that is gone already is what we want.
        let _ = process.signal(Signal::KILL);
    }
    // On v1 a frozen process does not die before it is thawed.
    let _ = write_file(&path.join("freezer.state"), b"THAWED");
    for process in &victims {
        let _ = process.wait(deadline);
    }
    if victims.is_empty() {
        std::thread::sleep(V1_INTERVAL);
    }
    Ok(())
}

/// The processes in the group that has its directories at `places`, and in those below it.
#[must_use]
pub fn members(places: &[Directory]) -> Vec<Pid> {
    // All of them are in each hierarchy, and only one needs to be asked.
    let present = places.iter().find(|place| place.path.exists());
    present.map(|place| processes(&place.path)).unwrap_or_default().iter().map(Process::pid).collect()
}

/// The processes of the group and of those below it, verified to be there after they were opened: a number that was given
/// to another process meanwhile is not signalled.
fn processes(path: &Path) -> Vec<Process> {
    let pids = |path: &Path| -> Vec<i64> {
        let text = procfs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let opened: Vec<Process> =
        pids(path).into_iter().filter_map(|pid| Process::with_pid(Pid::new(pid).ok()?).ok()?).collect();
    let still = pids(path);
    let mut all: Vec<Process> =
        opened.into_iter().filter(|process| still.contains(&i64::from(process.pid().get()))).collect();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(processes(&entry.path()));
        }
    }
    all
}
