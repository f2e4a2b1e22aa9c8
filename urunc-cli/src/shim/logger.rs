//! `binary://` loggers: a program that gets what a container prints on its descriptors 3 and 4 and closes descriptor 5 once it is
//! ready (containerd, `docs/runtime-v2.md` "Container Level Shim / Logging"; `pkg/process/io_util.go`). The container writes straight into the
//! logger's pipes.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::children::Children;
use super::{ShimError, sys};

/// How long a logger may take to say that it is ready, and to end after the container.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running logger.
#[derive(Debug)]
pub struct Logger {
    pidfd: OwnedFd,
}

/// What a container's process writes to.
#[derive(Debug)]
pub struct Pipes {
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
}

impl Logger {
    /// Starts the logger that `uri` (`binary:///path?argument&argument=value`) names and waits until it is ready.
    ///
    /// # Errors
    /// [`ShimError::Path`] if it cannot be run, [`ShimError::System`], or [`ShimError::Invalid`] if it does not get ready.
    pub fn start(
        children: &Arc<Children>,
        uri: &str,
        namespace: &str,
        id: &str,
    ) -> Result<(Self, Pipes), ShimError> {
        let (program, arguments) = command_line(uri);
        let pipe =
            || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| ShimError::System("make a pipe", errno.into()));
        let (output, errors, ready) = (pipe()?, pipe()?, pipe()?);
        let mut command = Command::new(&program);
        command.args(arguments).env("CONTAINER_ID", id).env("CONTAINER_NAMESPACE", namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::place(&mut command, &[output.0, errors.0, ready.1])
            .map_err(|source| ShimError::System("pass pipes to the logger", source))?;
        let busy = children.busy();
        let child = command.spawn().map_err(ShimError::path("run the logger", &program))?;
        // The command has copies of the pipes; the readiness pipe would never end.
        drop(command);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| {
            ShimError::System("watch the logger", io::Error::from_raw_os_error(libc::ESRCH))
        })?;
        let pidfd = children
            .watch(pid, |exit| log::debug!("a logger ended with status {}", exit.status))
            .map_err(|source| ShimError::System("watch the logger", source))?;
        drop(busy);
        let logger = Self { pidfd };
        if !is_ready(ready.0)? {
            return Err(ShimError::Invalid {
                what: "the logger",
                reason: format!("{program} does not say within {} s that it is ready", PATIENCE.as_secs()),
            });
        }
        Ok((logger, Pipes { stdout: output.1, stderr: errors.1 }))
    }
}

impl Drop for Logger {
    /// The container is gone, and with it the writers; the logger reads what is left and ends. One that does not is told to.
    fn drop(&mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            if is_readable(self.pidfd.as_fd(), PATIENCE) {
                return;
            }
            // If it is gone, this is what was wanted.
            let _ = pidfd_send_signal(&self.pidfd, signal);
        }
    }
}

/// Ready is end of file, or any byte.
fn is_ready(pipe: OwnedFd) -> Result<bool, ShimError> {
    if !is_readable(pipe.as_fd(), PATIENCE) {
        return Ok(false);
    }
    let mut byte = [0];
    std::fs::File::from(pipe)
        .read(&mut byte)
        .map_err(|source| ShimError::System("hear from the logger", source))?;
    Ok(true)
}

fn is_readable(descriptor: std::os::fd::BorrowedFd<'_>, limit: Duration) -> bool {
    let timeout = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Program and arguments of a URI: each query parameter is one argument for its name and, if it has one, one for its value.
fn command_line(uri: &str) -> (String, Vec<String>) {
    let rest = uri.strip_prefix("binary://").unwrap_or(uri);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut arguments = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        arguments.push(decode(name));
        if !value.is_empty() {
            arguments.push(decode(value));
        }
    }
    (decode(path), arguments)
}

/// Undoes percent encoding (RFC 3986 section 2.1) and `+` for a space, as Go's `url.ParseQuery` does.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let hex =
            tail.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_a_command_line() {
        let (program, arguments) =
            command_line("binary:///usr/bin/my%20logger?--to=%2Fvar%2Flog&-v&text=a+b%");
        assert_eq!(program, "/usr/bin/my logger");
        assert_eq!(arguments, ["--to", "/var/log", "-v", "text", "a b%"]);
        assert_eq!(command_line("binary:///logger"), ("/logger".into(), Vec::new()));
    }
}
