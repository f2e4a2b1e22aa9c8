//! Making init: one `clone3` into new namespaces, or, where namespaces are to be joined, an intermediate process that
//! joins them and clones init as its sibling.
//!
//! `create` itself enters no namespace: its hooks run where it runs.
//!
//! ```text
//!   create ──clone3(new namespaces)──────────────────────▶ init
//!   create ──clone3──▶ intermediate ──setns…──clone3(new namespaces | CLONE_PARENT)──▶ init
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal, WaitId, WaitIdOptions, waitid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::channel::{Channel, ChannelError};
use super::child::Child;
use super::protocol::Failure;
use super::sys::{self, Cloned, Parentage};
use crate::bundle::{ClockOffsets, NamespaceKind, Namespaces};

/// Why there is no init.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A namespace to join cannot be opened.
    #[error("cannot open the {kind} namespace {path}; it must exist while a container joins it")]
    Open {
        /// Its kind.
        kind: NamespaceKind,
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process could not be cloned.
    #[error("cannot clone the container's process into its namespaces")]
    Clone(#[source] io::Error),
    /// The conversation with the intermediate process failed.
    #[error("cannot talk to the process that joins the namespaces")]
    Channel(#[from] ChannelError),
    /// The intermediate process failed.
    #[error("cannot make the container's namespaces")]
    Join(#[source] Failure),
    /// The intermediate process died.
    #[error("the process that joins the namespaces died")]
    Died,
}

/// Where [`spawn`] returned.
#[derive(Debug)]
pub enum Spawned {
    /// In the caller; this is init, which has not been told to proceed.
    Parent(Child),
    /// In init, which must never return into the caller's code.
    Init,
}

/// How long joining namespaces may take. It is a few system calls.
const PATIENCE: Duration = Duration::from_secs(60);

/// Clones init into `namespaces`, with `clocks` in its time namespace, and the cgroup v2 directory `cgroup`.
///
/// # Errors
/// [`SpawnError`]; no process is left behind then.
pub fn spawn(
    namespaces: &Namespaces,
    clocks: &ClockOffsets,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Spawned, SpawnError> {
    let flags = namespaces.clone_flags();
    if namespaces.join.is_empty() && clocks.is_empty() {
        return match sys::clone_process(flags, Parentage::Child, cgroup).map_err(SpawnError::Clone)? {
            Cloned::Child => Ok(Spawned::Init),
            Cloned::Parent(pidfd) => Ok(Spawned::Parent(Child::new(pidfd))),
        };
    }
    let targets = open_targets(namespaces)?;
    let (ours, theirs) = Channel::pair()?;
    match sys::clone_process(UnshareFlags::empty(), Parentage::Child, None).map_err(SpawnError::Clone)? {
        Cloned::Child => {
            drop(ours);
            match join_and_clone(namespaces, targets, clocks, cgroup) {
                Ok(Cloned::Child) => Ok(Spawned::Init),
                Ok(Cloned::Parent(pidfd)) => {
                    // If create is gone, init notices by itself: its own conversation with create has ended too.
                    let _ = theirs.send(&Answer::Init, &[pidfd.as_fd()]);
                    sys::exit(0)
                }
                Err(failure) => {
                    let _ = theirs.send(&Answer::Failed(failure), &[]);
                    sys::exit(1)
                }
            }
        }
        Cloned::Parent(intermediate) => {
            drop(theirs);
            let answer = ours.receive_within(PATIENCE);
            if answer.is_err() {
                let _ = rustix::process::pidfd_send_signal(&intermediate, Signal::KILL);
            }
            let _ = waitid(WaitId::PidFd(intermediate.as_fd()), WaitIdOptions::EXITED);
            match answer? {
                Some((Answer::Init, descriptors)) => {
                    let pidfd = descriptors.into_iter().next().ok_or(SpawnError::Died)?;
                    Ok(Spawned::Parent(Child::new(pidfd)))
                }
                Some((Answer::Failed(failure), _)) => Err(SpawnError::Join(failure)),
                None => Err(SpawnError::Died),
            }
        }
    }
}

/// From the intermediate process to create.
#[derive(Serialize, Deserialize)]
enum Answer {
    Init,
    Failed(Failure),
}

/// Whether the namespaces that are to be joined are there.
///
/// # Errors
/// What [`spawn`] would say otherwise.
pub fn check(namespaces: &Namespaces) -> Result<(), SpawnError> {
    open_targets(namespaces)?.into_iter().try_for_each(|(kind, fd)| match sys::kind_of(fd.as_fd()) {
        Ok(found) if found == link_type(kind) as u32 => Ok(()),
        Ok(_) | Err(_) => Err(SpawnError::Join(not_joined(namespaces, kind, Errno::INVAL))),
    })
}

fn not_joined(namespaces: &Namespaces, kind: NamespaceKind, errno: Errno) -> Failure {
    let path = namespaces.join.get(&kind).map(|path| path.display().to_string()).unwrap_or_default();
    Failure::step(
        format!("cannot join the {kind} namespace {path}; the path must lead to one"),
        &errno.into(),
    )
}

/// Opened before anything is cloned, so that a missing one is create's plain error.
fn open_targets(namespaces: &Namespaces) -> Result<Vec<(NamespaceKind, OwnedFd)>, SpawnError> {
    namespaces
        .join
        .iter()
        .map(|(kind, path)| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
                .map(|fd| (*kind, fd))
                .map_err(|errno| SpawnError::Open { kind: *kind, path: path.clone(), source: errno.into() })
        })
        .collect()
}

fn join_and_clone(
    namespaces: &Namespaces,
    targets: Vec<(NamespaceKind, OwnedFd)>,
    clocks: &ClockOffsets,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Cloned, Failure> {
    let mut flags = namespaces.clone_flags();
    // Inherited by init, which others in a joined pid namespace can see from its first moment on.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| Failure::step("cannot become undumpable", &errno.into()))?;
    if !clocks.is_empty() {
        // Clocks can be moved only while nobody is in their namespace: init enters it by being cloned (time_namespaces(7)).
        sys::unshare_time_namespace()
            .and_then(|()| std::fs::write("/proc/self/timens_offsets", clocks.as_str()))
            .map_err(|error| {
                Failure::step(
                    "cannot set the clocks as linux.timeOffsets says; none may be before its beginning",
                    &error,
                )
            })?;
        flags -= UnshareFlags::NEWTIME;
    }
    for (kind, fd) in in_order(targets) {
        move_into_link_name_space(fd.as_fd(), Some(link_type(kind)))
            .map_err(|errno| not_joined(namespaces, kind, errno))?;
    }
    sys::clone_process(flags, Parentage::Sibling, cgroup)
        .map_err(|error| Failure::step("cannot clone the container's process", &error))
}

/// In the order in which namespaces can be joined: those that the host owns while we still are its root, then the user
/// namespace, then what that one owns.
fn in_order(targets: Vec<(NamespaceKind, OwnedFd)>) -> Vec<(NamespaceKind, OwnedFd)> {
    let user = targets.iter().position(|(kind, _)| *kind == NamespaceKind::User);
    let Some(user) = user.and_then(|at| targets.get(at)).and_then(|(_, fd)| identity(fd.as_fd())) else {
        return targets;
    };
    let mut ordered: Vec<(u8, (NamespaceKind, OwnedFd))> = targets
        .into_iter()
        .map(|(kind, fd)| {
            let owner = sys::owner_of(fd.as_fd()).ok().and_then(|owner| identity(owner.as_fd()));
            let rank = match kind {
                NamespaceKind::User => 1,
                _ if owner == Some(user) => 2,
                _ => 0,
            };
            (rank, (kind, fd))
        })
        .collect();
    ordered.sort_by_key(|(rank, _)| *rank);
    ordered.into_iter().map(|(_, target)| target).collect()
}

fn identity(namespace: BorrowedFd<'_>) -> Option<(u64, u64)> {
    rustix::fs::fstat(namespace).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

fn link_type(kind: NamespaceKind) -> LinkNameSpaceType {
    match kind {
        NamespaceKind::Ipc => LinkNameSpaceType::InterProcessCommunication,
        NamespaceKind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        NamespaceKind::Network => LinkNameSpaceType::Network,
        NamespaceKind::Pid => LinkNameSpaceType::ProcessID,
        NamespaceKind::Cgroup => LinkNameSpaceType::ControlGroup,
        NamespaceKind::Time => LinkNameSpaceType::Time,
        NamespaceKind::Mount => LinkNameSpaceType::Mount,
        NamespaceKind::User => LinkNameSpaceType::User,
    }
}
