//! Finding and making things below a directory whose contents may be hostile: nothing leads out of it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2, readlinkat, unlinkat,
};
use rustix::io::Errno;

/// How often a resolution that raced with a rename is tried again; the kernel then says `EAGAIN`.
const RACE_RETRIES: u32 = 128;

/// As many links that lead nowhere are followed as the kernel follows of others.
const MOST_LINKS: u32 = 40;

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// What to do about a directory that is missing.
#[derive(Debug)]
pub(crate) enum Missing<'a> {
    /// Make it, and add it to these, outermost first: to this list too if a later one cannot be made.
    Make(&'a mut Vec<PathBuf>),
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

/// The directory that holds `path` below `root`.
pub(crate) fn parent(
    root: BorrowedFd<'_>,
    path: &Path,
    mut missing: Missing<'_>,
) -> rustix::io::Result<OwnedFd> {
    directory(root, path.parent().unwrap_or(Path::new("")), &mut missing, MOST_LINKS)
}

/// Removes the file or the empty directory that was made at `path` below `root`, if it is there.
pub(crate) fn remove(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    let dir = match parent(root, path, Missing::Fail) {
        Err(Errno::NOENT) => return Ok(()),
        found => found?,
    };
    let name = path.file_name().unwrap_or_default();
    let removed = match unlinkat(&dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(&dir, name, AtFlags::REMOVEDIR),
        other => other,
    };
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

/// Where `path` leads below `root` if its last component is a link to something that does not exist, and the path
/// itself otherwise: the place to make what is missing.
pub(crate) fn missing_end(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        let (dir, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (parent, name),
            _ => return Err(Errno::INVAL),
        };
        let to = match find(root, &Path::new(".").join(dir)) {
            Ok(dir) => link(&dir, name)?,
            Err(Errno::NOENT) => None,
            Err(e) => return Err(e),
        };
        match to {
            Some(to) => path = follow(dir, &to),
            None => return Ok(path),
        }
    }
    Err(Errno::LOOP)
}

/// Makes a directory that everybody may enter, whatever the umask.
pub(crate) fn make_directory(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    mkdirat(&dir, name, DIRECTORY_MODE)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(&dir, name, flags, Mode::empty())?;
    fchmod(&made, DIRECTORY_MODE)?;
    Ok(made)
}

/// The directory `path` itself; of a link that leads nowhere, what it names is made.
fn directory(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: &mut Missing<'_>,
    links: u32,
) -> rustix::io::Result<OwnedFd> {
    let mut here = PathBuf::from(".");
    let mut dir = find(root, &here)?;
    for part in path {
        let before = here.clone();
        here.push(part);
        dir = match (find(root, &here), &mut *missing) {
            (Err(Errno::NOENT), Missing::Make(made)) => match link(&dir, part)? {
                Some(_) if links == 0 => return Err(Errno::LOOP),
                Some(to) => directory(root, &follow(&before, &to), missing, links - 1)?,
                None => {
                    let new = make_directory(&dir, part)?;
                    made.push(here.clone());
                    new
                }
            },
            (found, _) => found?,
        };
    }
    Ok(dir)
}

/// What the link `name` in `dir` says, if it is one.
fn link(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<OsString>> {
    match readlinkat(dir, name, Vec::new()) {
        Ok(to) => Ok(Some(OsString::from_vec(to.into_bytes()))),
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where a link in `dir` leads, still below the root: an absolute one starts there again.
fn follow(dir: &Path, to: &OsStr) -> PathBuf {
    match Path::new(to).strip_prefix("/") {
        Ok(below) => below.to_path_buf(),
        Err(_) => dir.join(to),
    }
}
