//! Reading files that the kernel makes up as they are read: of `/proc`, `/sys` and control groups.
//!
//! They claim to be empty, for which `std::fs::read` takes up to ten small reads where one does. Each of those makes the kernel
//! find its place in the text again.

use std::io;
use std::path::Path;

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

/// Reads a whole file of text.
pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

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
