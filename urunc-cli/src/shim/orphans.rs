//! A creation whose shim was killed goes on without it, and might make its container after everything has been cleaned up. `delete` ends it first.
//!
//! Such a process is told by its command line, which names the bundle, and its pid namespace, which is ours. It is opened before it is looked at, so
//! that nobody else is killed under its number. What it had made by then, `urunc delete --force` finds.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::ShimError;

/// How long the kernel may take for a process that it has killed; containerd waits 5 s for the whole of `delete`.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Ends every `create` for `bundle` and waits until it is gone.
///
/// # Errors
/// [`ShimError::Path`] if there is no `/proc`. A process that cannot be ended is only logged: the rest has to be cleaned up all the same.
pub fn end_creations(bundle: &Path) -> Result<(), ShimError> {
    let proc = Path::new("/proc");
    for entry in fs::read_dir(proc).map_err(ShimError::path("read", proc))?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        if !creates(&entry.path(), bundle) {
            continue;
        }
        // It may end at any time.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if creates(&entry.path(), bundle) {
            log::warn!("ending process {pid}, which creates a container for a shim that is gone");
            if let Err(error) = end(&pidfd) {
                log::error!("cannot end process {pid}: {error}");
            }
        }
    }
    Ok(())
}

/// Whether the process whose directory in `/proc` this is creates a container from `bundle`.
fn creates(process: &Path, bundle: &Path) -> bool {
    let is_ours = || {
        let namespace = |of: &Path| fs::read_link(of.join("ns/pid")).ok();
        namespace(process).is_some_and(|its| namespace(Path::new("/proc/self")) == Some(its))
    };
    fs::read(process.join("cmdline")).is_ok_and(|line| names(&line, bundle)) && is_ours()
}

/// Whether a command line is `… create … --bundle BUNDLE …`.
fn names(line: &[u8], bundle: &Path) -> bool {
    let mut words = line.split(|byte| *byte == 0).skip_while(|word| *word != b"create");
    words.any(|word| word == b"--bundle") && words.next() == Some(OsStr::as_bytes(bundle.as_os_str()))
}

fn end(pidfd: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) => {}
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    // EINTR does not come: this process handles no signals.
    match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&PATIENCE))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_creation_is_told_by_its_command_line() {
        for (line, expected) in [
            ("urunc --root /r create --bundle /b --pid-file /b/init.pid c", true),
            ("/bin/sh /usr/local/bin/urunc create --no-pivot --bundle /b c", true),
            ("urunc create --bundle /b2 c", false),
            ("urunc create c /b --bundle", false),
            ("urunc delete --bundle /b c", false),
            ("containerd-shim-urunc-v2 -bundle /b delete", false),
            ("", false),
        ] {
            assert_eq!(names(line.replace(' ', "\0").as_bytes(), Path::new("/b")), expected, "{line}");
        }
    }

    #[test]
    fn a_creation_is_ended_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        // What the shell is called with stands behind its script. It waits for input that does not come.
        let waiting = |bundle: &Path| {
            let mut command = Command::new("sh");
            command.args(["-c", "read line", "urunc", "create", "--bundle"]).arg(bundle);
            command.stdin(Stdio::piped()).spawn().unwrap()
        };
        let mut ours = waiting(dir.path());
        let mut other = waiting(&dir.path().join("other"));
        // Until it has executed, it has our command line.
        while !creates(&Path::new("/proc").join(ours.id().to_string()), dir.path()) {
            std::thread::yield_now();
        }
        end_creations(dir.path()).unwrap();
        assert_eq!(ours.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
