//! Finding and making things below a directory whose contents may be hostile: nothing leads out of it.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2};
use rustix::io::Errno;

/// How often a resolution that raced with a rename is tried again; the kernel then says `EAGAIN`.
const RACE_RETRIES: u32 = 128;

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// What to do about a directory that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Fail,
}

/// Finds what `path` names below `root`, as if `root` were `/`, without opening it (`O_PATH`).
pub(crate) fn find(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACE_RETRIES {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            found => return found,
        }
    }
    Err(Errno::AGAIN)
}

/// The directory that holds `path` below `root`, and the directories that had to be made for it, outermost first.
pub(crate) fn parent(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: Missing,
) -> rustix::io::Result<(OwnedFd, Vec<PathBuf>)> {
    let mut here = PathBuf::from(".");
    let mut dir = find(root, &here)?;
    let mut made = Vec::new();
    for part in path.parent().into_iter().flat_map(Path::components) {
        here.push(part);
        dir = match find(root, &here) {
            Err(Errno::NOENT) if missing == Missing::Make => {
                let new = make_directory(&dir, part.as_os_str())?;
                made.push(here.clone());
                new
            }
            found => found?,
        };
    }
    Ok((dir, made))
}

/// Makes a directory that everybody may enter, whatever the umask.
pub(crate) fn make_directory(dir: impl std::os::fd::AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    mkdirat(&dir, name, DIRECTORY_MODE)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(&dir, name, flags, Mode::empty())?;
    fchmod(&made, DIRECTORY_MODE)?;
    Ok(made)
}
