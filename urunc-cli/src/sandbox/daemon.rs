//! virtiofsd, started by init before its root changes: in a mount namespace of its own, on a socket that listens
//! already, in the container's cgroup because init is, and dying with the process that init becomes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use rustix::thread::{CapabilitySet, UnshareFlags, set_thread_groups};
use urunc_rootfs::root::PreparedShare;
use urunc_rootfs::virtiofsd::DaemonLaunch;

use super::channel::Channel;
use super::privileges;
use super::protocol::Failure;
use super::sys::{self, Cloned, Parentage};

/// A daemon that is ready to be started.
#[derive(Debug)]
pub struct Daemon {
    /// What it shares.
    pub tree: PreparedShare,
    /// How it is executed.
    pub launch: DaemonLaunch,
    /// The socket that it serves.
    pub socket: OwnedFd,
    /// Where its standard error goes.
    pub log: OwnedFd,
    /// `/dev/null`.
    pub null: OwnedFd,
}

/// The process, as its parent sees it.
#[derive(Debug)]
pub struct Running(OwnedFd);

impl Daemon {
    /// Every descriptor that must stay open until [`Daemon::start`].
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.socket.as_fd(), self.log.as_fd(), self.null.as_fd()].into_iter().chain(self.tree.fds())
    }

    /// Starts it; returns once it has been executed. The calling process keeps nothing of it, so that the socket is dead
    /// when the daemon is.
    ///
    /// # Errors
    /// The step that failed; no process is left then.
    pub fn start(self) -> Result<Running, Failure> {
        let (ours, theirs) = Channel::pair().map_err(|error| Failure::new(&error))?;
        let parent = rustix::process::getpid();
        let cloned = sys::clone_process(UnshareFlags::NEWNS, Parentage::Child, None)
            .map_err(|error| Failure::step("cannot clone a process for virtiofsd", &error))?;
        match cloned {
            Cloned::Child => {
                drop(ours);
                self.become_daemon(parent, theirs)
            }
            Cloned::Parent(pidfd) => {
                drop(theirs);
                match ours.receive::<Failure>() {
                    Ok(None) => Ok(Running(pidfd)),
                    Ok(Some((failure, _))) => Err(failure),
                    Err(error) => Err(Failure::new(&error)),
                }
            }
        }
    }

    /// Never returns: what it owns has been closed behind its back by then.
    fn become_daemon(self, parent: Pid, start: Channel) -> ! {
        let Self { tree, launch, socket, log, null } = self;
        let number: RawFd = launch.socket.get();
        let Ok(start) = start.moved_above(number.saturating_add(1)) else { sys::exit(1) };
        let prepared = die_with(parent)
            .and_then(|()| tree.attach().map_err(|error| Failure::new(&error)))
            .and_then(|()| {
                rustix::process::chdir("/").map_err(step("cannot change to the root directory"))?;
                rustix::process::setsid().map(drop).map_err(step("cannot start a session"))?;
                rustix::stdio::dup2_stdin(&null)
                    .and_then(|()| rustix::stdio::dup2_stdout(&null))
                    .and_then(|()| rustix::stdio::dup2_stderr(&log))
                    .map_err(step("cannot set the standard streams"))
            })
            .and_then(|()| set_thread_groups(&[]).map_err(step("cannot drop the supplementary groups")))
            .and_then(|()| privileges::keep_in_bounding_set(capabilities(&launch)))
            .and_then(|()| {
                sys::inherit_as(socket.as_fd(), number)
                    .and_then(|()| {
                        let mut keep = [0, 1, 2, number, start.as_fd().as_raw_fd()];
                        keep.sort_unstable();
                        sys::close_all_except(&keep)
                    })
                    .map_err(|error| Failure::step("cannot arrange the descriptors", &error))
            });
        let failure = match prepared {
            Err(failure) => failure,
            Ok(()) => Failure::step(
                format!("cannot execute {}", launch.program.display()),
                &sys::execute(&launch.program, &launch.args, &[]),
            ),
        };
        // The other end may be gone already.
        let _ = start.send(&failure, &[]);
        sys::exit(1)
    }
}

impl Running {
    /// Whether it has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::PidFd(self.0.as_fd()), look), Ok(None))
    }
}

/// The kernel kills this process when its parent ends, also after it has become another program.
fn die_with(parent: Pid) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(step("cannot tie virtiofsd's life to the monitor's"))?;
    // It may have ended before.
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { sys::exit(1) }
}

fn capabilities(launch: &DaemonLaunch) -> CapabilitySet {
    let names = launch.capabilities.iter().filter_map(|name| name.strip_prefix("CAP_"));
    names.filter_map(CapabilitySet::from_name).fold(CapabilitySet::empty(), |all, one| all | one)
}

fn step(message: &'static str) -> impl FnOnce(rustix::io::Errno) -> Failure {
    move |errno| Failure::step(message, &errno.into())
}
