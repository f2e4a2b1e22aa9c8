//! What the kernel makes up as it is read: files of `/proc`, `/sys` and control groups, and the paths of open files.
//!
//! Such files claim to be empty, for which `std::fs::read` takes up to ten small reads where one does. Each of those makes the kernel
//! find its place in the text again.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// More than almost all of these files have.
const ROOM: usize = 8192;

/// Reads a whole file.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = rustix::fs::open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = vec![0; ROOM];
    let mut end = 0;
    loop {
        // The end is where a read gives nothing; one that gives less than there is room for may have ended at a page.
        match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut bytes[end..]))? {
            0 => break,
            count => end += count,
        }
        if end == bytes.len() {
            bytes.resize(2 * end, 0);
        }
    }
    bytes.truncate(end);
    Ok(bytes)
}

/// `path` without symbolic links: [`std::fs::canonicalize`] in three system calls.
pub(crate) fn real_path(path: &Path) -> io::Result<PathBuf> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", place.as_raw_fd()), Vec::with_capacity(256))?;
    let real = PathBuf::from(OsString::from_vec(link.into_bytes()));
    // What has no path is shown as something that looks like one (d_path in the kernel).
    if real.is_relative() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if real.as_os_str().as_bytes().ends_with(b" (deleted)") {
        let (found, named) = (rustix::fs::fstat(&place)?, rustix::fs::stat(&real)?);
        if (found.st_dev, found.st_ino) != (named.st_dev, named.st_ino) {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    Ok(real)
}

/// Reads a whole file of text.
pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_links_is_that_of_the_standard_library() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(".", directory.path().join("here")).unwrap();
        for path in
            [Path::new("/"), Path::new("/proc/self/../version"), &directory.path().join("here/here/..")]
        {
            assert_eq!(real_path(path).unwrap(), path.canonicalize().unwrap());
        }
        let missing = |path: &Path| real_path(path).unwrap_err().kind() == io::ErrorKind::NotFound;
        assert!(missing(&directory.path().join("none")));
        // What was deleted, and a directory of the name that it is shown by, which is another one.
        let gone = directory.path().join("gone");
        std::fs::create_dir(&gone).unwrap();
        let open = std::fs::File::open(&gone).unwrap();
        std::fs::remove_dir(&gone).unwrap();
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        assert!(missing(&by_descriptor));
        let lookalike = directory.path().join("gone (deleted)");
        std::fs::create_dir(&lookalike).unwrap();
        assert!(missing(&by_descriptor));
        assert_eq!(real_path(&lookalike).unwrap(), lookalike.canonicalize().unwrap());
    }

    #[test]
    fn files_of_any_size_come_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for size in [0, 1, ROOM - 1, ROOM, ROOM + 1, 5 * ROOM] {
            let text = "x".repeat(size);
            std::fs::write(file.path(), &text).unwrap();
            assert_eq!(read_to_string(file.path()).unwrap(), text);
        }
        assert_eq!(read("/proc/self/mountinfo").unwrap(), std::fs::read("/proc/self/mountinfo").unwrap());
    }
}
