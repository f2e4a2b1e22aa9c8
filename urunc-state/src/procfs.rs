//! What this crate reads from `/proc`, and how it is parsed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

/// Reads the start of a small file: as much as one `read` gives, at most 4 KiB. Files of `/proc` that are this
/// small come whole.
pub(crate) fn read_small(path: &str) -> io::Result<Vec<u8>> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = vec![0; 4096];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buffer))?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Where an open directory is: absolute, without symbolic links, `..` or doubled slashes (proc_pid_fd(5)).
pub(crate) fn path_of(directory: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::with_capacity(256))?;
    Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

/// The start time out of the contents of `/proc/PID/stat`: field 22, in clock ticks since boot (proc_pid_stat(5)).
///
/// Field 2 is the command name in parentheses. A process chooses it freely, spaces, newlines and parentheses
/// included, so the fields are counted from the *last* closing one.
pub(crate) fn start_time(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The process number out of the contents of `/proc/self/fdinfo/N` of a pidfd: positive, 0 when the process is
/// in a pid namespace that this `/proc` does not see, -1 when it has been reaped (pidfd_open(2), `Pid` field).
pub(crate) fn pid_of_pidfd(fdinfo: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(fdinfo).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AFTER_NAME: &str =
        " S 1 7 7 0 -1 4194560 4 0 0 0 0 0 0 0 20 0 1 0 8675309 2400000 100 18446744073709551615";

    #[test]
    fn the_start_time_is_field_22_whatever_the_name_holds() {
        for name in ["sh", "a b", ") S 1 2 3", "x) R 1 1 1 1", "((((", "))))", "", "a\nb)"] {
            let stat = format!("7 ({name}){AFTER_NAME}");
            assert_eq!(start_time(stat.as_bytes()), Some(8_675_309), "{name:?}");
        }
    }

    #[test]
    fn a_cut_or_foreign_text_has_no_start_time() {
        for text in
            ["", "7", "7 (sh)", "7 (sh) S 1 2", "7 (sh) S 1 7 7 0 -1 4194560 4 0 0 0 0 0 0 0 20 0 1 0 x 1"]
        {
            assert_eq!(start_time(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn fdinfo_gives_the_pid() {
        assert_eq!(pid_of_pidfd(b"pos:\t0\nflags:\t02000002\nPid:\t42\nNSpid:\t42\n"), Some(42));
        assert_eq!(pid_of_pidfd(b"pos:\t0\nPid:\t-1\n"), Some(-1));
        assert_eq!(pid_of_pidfd(b"pos:\t0\n"), None);
    }

    proptest! {
        #[test]
        fn no_name_of_any_bytes_can_forge_the_start_time(name in prop::collection::vec(any::<u8>(), 0..16)) {
            let mut stat = b"7 (".to_vec();
            stat.extend_from_slice(&name);
            stat.push(b')');
            stat.extend_from_slice(AFTER_NAME.as_bytes());
            prop_assert_eq!(start_time(&stat), Some(8_675_309));
        }
    }
}
