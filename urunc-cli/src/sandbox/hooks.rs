//! Running hooks: one after the other, each with exactly its arguments and environment, the state document on its
//! standard input, and a limit on its time.
//!
//! Input and output are files in memory: a hook that reads or closes nothing, or leaves a process behind that keeps its
//! output open, blocks nobody.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, getppid, kill_process_group,
    set_parent_process_death_signal, waitid,
};

use super::privileges;
use super::protocol::Failure;
use super::sys::{self, Forked};
use crate::bundle::{Hook, User};

/// How much of what a hook printed is quoted when it fails.
const TAIL: u64 = 1024;
/// What "no limit" is taken for: nothing here waits without one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);

/// A hook failed.
#[derive(Debug, thiserror::Error)]
#[error("the {kind} hook {path} {how}{}", said(.output))]
pub struct HookError {
    /// Which hooks.
    kind: &'static str,
    /// The program.
    path: PathBuf,
    /// What happened.
    how: String,
    /// The end of what it printed.
    output: String,
    /// What the system said, if it could not be run.
    #[source]
    source: Option<io::Error>,
}

fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(" and said {output:?}") }
}

/// Where a hook runs.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// Where the caller is.
    Here,
    /// Where the caller is, to prepare the container with this process: the hook ends with either of the two.
    Preparing(BorrowedFd<'a>),
    /// Where the caller is, which is the container's process: the hook ends with it.
    Inside,
    /// In this root, as this user, without any capability.
    Confined {
        /// The container's root file system.
        root: BorrowedFd<'a>,
        /// The container's user.
        user: &'a User,
    },
}

/// How long all of `hooks` may take.
#[must_use]
pub fn patience(hooks: &[Hook]) -> Duration {
    hooks.iter().map(|hook| hook.timeout.unwrap_or(DEFAULT_TIMEOUT)).sum()
}

/// Runs `hooks` in their order; the first that fails is the last.
///
/// # Errors
/// [`HookError`]
pub fn run(kind: &'static str, hooks: &[Hook], document: &[u8], place: Place<'_>) -> Result<(), HookError> {
    hooks.iter().try_for_each(|hook| run_one(kind, hook, document, place))
}

fn run_one(kind: &'static str, hook: &Hook, document: &[u8], place: Place<'_>) -> Result<(), HookError> {
    let failed = |how: String, output: String, source: Option<io::Error>| HookError {
        kind,
        path: hook.path.clone(),
        how,
        output,
        source,
    };
    let cannot_run = |source| failed("cannot be run".to_owned(), String::new(), Some(source));
    let mut output = memory_file("output").map_err(cannot_run)?;
    let child = spawn(hook, document, &output, place).map_err(cannot_run)?;
    let limit = hook.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let container = match place {
        Place::Preparing(process) => Some(process),
        Place::Here | Place::Inside | Place::Confined { .. } => None,
    };
    let first = first_end(child.pidfd.as_fd(), container, limit).map_err(|errno| cannot_run(errno.into()))?;
    if first != End::Hook {
        // With everything that it started, which has not left its group.
        let _ = kill_process_group(child.pid, Signal::KILL);
    }
    let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)
        .map_err(|errno| cannot_run(errno.into()))?;
    let how = match first {
        End::Hook => match how_it_failed(status.as_ref()) {
            None => return Ok(()),
            Some(how) => how,
        },
        End::Container => "was killed, because the container's process has ended".to_owned(),
        End::Time => format!("did not end within {} s and was killed", limit.as_secs()),
    };
    Err(failed(how, tail(&mut output), None))
}

/// What ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Hook,
    Container,
    Time,
}

/// Waits for the end of `hook` or of `container`, for at most `limit`.
fn first_end(
    hook: BorrowedFd<'_>,
    container: Option<BorrowedFd<'_>>,
    limit: Duration,
) -> rustix::io::Result<End> {
    let deadline = Instant::now() + limit;
    let mut fds: Vec<PollFd<'_>> = [Some(hook), container]
        .into_iter()
        .flatten()
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) => return Ok(End::Time),
            // A hook that has done its work has done it, whatever else has happened.
            Ok(_) if fds.first().is_some_and(|hook| !hook.revents().is_empty()) => return Ok(End::Hook),
            Ok(_) => return Ok(End::Container),
        }
    }
}

fn how_it_failed(status: Option<&WaitIdStatus>) -> Option<String> {
    let status = status?;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("ended with exit status {code}")),
        (None, signal) => Some(format!("was ended by signal {}", signal.unwrap_or(0))),
    }
}

struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

fn spawn(hook: &Hook, document: &[u8], output: &File, place: Place<'_>) -> io::Result<Child> {
    let mut input = memory_file("state")?;
    input.write_all(document)?;
    input.rewind()?;
    // Init can fork, but has no /proc any more in which to look its threads up; it never has more than one.
    let parent = getpid();
    let forked = match place {
        Place::Here | Place::Preparing(_) | Place::Inside => sys::fork()?,
        Place::Confined { .. } => sys::fork_from_init()?,
    };
    match forked {
        Forked::Parent { pid, pidfd } => {
            // Both do it, so that it is done when either needs it.
            let _ = rustix::process::setpgid(Some(pid), Some(pid));
            Ok(Child { pid, pidfd })
        }
        Forked::Child => {
            let error = become_hook(hook, &input, output, place, parent);
            let _ = writeln!(&mut &*output, "{}", crate::report::chain(&error));
            sys::exit(127)
        }
    }
}

/// Returns only on failure.
fn become_hook(hook: &Hook, input: &File, output: &File, place: Place<'_>, parent: Pid) -> Failure {
    let step = |what: &'static str| move |errno: rustix::io::Errno| Failure::step(what, &errno.into());
    let prepare = || -> Result<(), Failure> {
        rustix::process::setpgid(None, None).map_err(step("cannot make a process group"))?;
        match place {
            Place::Here | Place::Preparing(_) | Place::Inside => {
                sys::reset_signals().map_err(|error| Failure::step("cannot reset the signals", &error))?;
            }
            // Init has reset its signals already.
            Place::Confined { root, user } => {
                rustix::process::fchdir(root)
                    .and_then(|()| rustix::process::chroot("."))
                    .and_then(|()| rustix::process::chdir("/"))
                    .map_err(step("cannot enter the container's root file system"))?;
                privileges::drop_to(user)?;
            }
        }
        // Nobody else would end it, or wait for it, when what it belongs to is gone. A change of user would take this back, so it is last.
        if !matches!(place, Place::Here) {
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(step("cannot be tied to its parent"))?;
            if getppid() != Some(parent) {
                sys::exit(127) // it died before
            }
        }
        rustix::stdio::dup2_stdin(input)
            .and_then(|()| rustix::stdio::dup2_stdout(output))
            .and_then(|()| rustix::stdio::dup2_stderr(output))
            .map_err(step("cannot set the standard streams"))
    };
    match prepare() {
        Err(failure) => failure,
        Ok(()) => {
            Failure::step("cannot execute it", &sys::execute_exactly(&hook.path, &hook.args, &hook.env))
        }
    }
}

fn memory_file(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// The end of what a hook printed, on one line.
fn tail(output: &mut File) -> String {
    let mut read = || -> io::Result<Vec<u8>> {
        let length = output.seek(SeekFrom::End(0))?;
        output.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        output.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
}
