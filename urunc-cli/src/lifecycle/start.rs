//! `start`: completes the plan, hands it to init and returns once the monitor has been executed.
//!
//! ```text
//!   lock · must be created ─▶ (network) ─▶ launch plan ─▶ descriptors ─▶ init.sock: Execute
//!     ─▶ Executing, end of file ─▶ record "running"
//! ```
//!
//! A start that fails leaves a stopped container with the reason, and nothing that it held.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, Gid, MemfdFlags, Mode, OFlags, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use urunc_state::{ContainerId, Event, Locked, Process, Seen, Status};
use urunc_vmm::{Document, Launch, Role};

use super::error::StartError;
use super::kill::kill_and_wait;
use super::network::Attached;
use super::plan::Frozen;
use super::{INIT_PATIENCE, LifecycleError, Runtime, probe, teardown};
use crate::sandbox::channel::Channel;
use crate::sandbox::init::START_SOCKET;
use crate::sandbox::protocol::{Execute, ToStart};
use crate::sandbox::watcher;
use crate::timestamps::{Stamp, Stamps, Step};

/// Name of the monitor's control socket in the container's state directory.
pub(super) const CONTROL_SOCKET: &str = "control.sock";

impl Runtime {
    /// Boots the guest of a created container.
    ///
    /// # Errors
    /// [`LifecycleError::Status`] if it is not in status created; [`LifecycleError::Start`] if the monitor could not be executed, and the
    /// container is then stopped.
    pub fn start(&self, id: &ContainerId) -> Result<(), LifecycleError> {
        let stamps = Stamps::new(&self.config.timestamps);
        stamps.take(Step::StartInvoked);
        let result = self.attempt_start(id, &stamps);
        stamps.write(&self.config.timestamps, id);
        result
    }

    fn attempt_start(&self, id: &ContainerId, stamps: &Stamps) -> Result<(), LifecycleError> {
        let mut locked = self.lock(id)?;
        let Seen { status, process } = locked.record().look()?;
        let (Status::Created, Some(process)) = (status, process) else {
            let remedy = "only a created container can be started";
            return Err(LifecycleError::Status { verb: "start", id: id.clone(), status, remedy });
        };
        stamps.take(Step::RecordRead);
        if let Err(source) = self.boot(&mut locked, &process, stamps) {
            let reason = crate::report::chain(&source);
            kill_and_wait(id, &process, locked.record().urunc.freezer.as_deref())?;
            if let Err(error) = teardown::release(&mut locked, Some(reason)) {
                log::warn!("{}", crate::report::chain(&error));
            }
            return Err(LifecycleError::Start { id: id.clone(), source });
        }
        // The monitor runs: from here on nothing may fail the command. The status is computed from what runs anyway.
        let saved = locked.try_update(|record| {
            record.advance(Status::Created, Event::Started).map_err(LifecycleError::from)
        });
        if let Err(error) = saved {
            let error = crate::report::chain(&error);
            log::warn!("container {id} runs, but its record could not be updated: {error}");
        }
        let record = locked.record().clone();
        // A hook may take as long as it likes, and the container must be stoppable meanwhile.
        drop(locked);
        super::hooks::poststart(&record);
        Ok(())
    }
}

impl Runtime {
    /// Everything between "created" and "the monitor runs".
    fn boot(&self, locked: &mut Locked, process: &Process, stamps: &Stamps) -> Result<(), StartError> {
        let mut frozen = Frozen::of(locked.record()).map_err(StartError::Record)?;
        stamps.take(Step::NetworkBegins);
        let network =
            if frozen.wants_network() { self.attach_network(locked, &frozen, process)? } else { None };
        if let Some(network) = &network {
            frozen.add_network(network.device.clone(), network.network.clone());
        }
        stamps.take(Step::NetworkReady);
        let executed = execute(locked, &frozen, network.as_ref(), process, stamps).and_then(|()| {
            // End of file also comes when init is killed between `Executing` and `execve`. Where nobody can tell any more, because its parent has
            // reaped it, the conversation stands as proof: a guest that was quick is far more likely than a SIGKILL in between.
            let died = probe::has_executed(process) == Some(false);
            if died { Err(StartError::Died) } else { Ok(()) }
        });
        if let Some(network) = &network {
            match executed {
                Ok(()) => network.settle(process),
                Err(_) => network.detach(),
            }
        }
        executed
    }
}

/// Hands the plan to init and waits until it has become the monitor.
fn execute(
    locked: &Locked,
    frozen: &Frozen,
    network: Option<&Attached>,
    process: &Process,
    stamps: &Stamps,
) -> Result<(), StartError> {
    let state = locked.dir();
    let launch = frozen.launch()?;
    for warning in &launch.warnings {
        log::debug!("{warning}");
    }
    // Create could not know these.
    for omission in frozen.booted()?.boot.omitted.iter().filter(|omission| omission.cuts_off()) {
        log::warn!("{omission}");
    }
    let mut descriptors = descriptors(state, &launch, frozen, network)?;
    descriptors.extend(frozen.compose_initrd(&locked.record().rootfs)?);
    let events = events(&launch, &mut descriptors)?;
    let request = Execute {
        program: launch.program,
        args: launch.args,
        env: launch.env,
        descriptors: descriptors.iter().map(|(number, _)| *number).collect(),
    };
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(|(_, fd)| fd.as_fd()).collect();
    stamps.take(Step::DiskReady);
    let channel = Channel::connect(state, START_SOCKET)?;
    // Before it is, so that it cannot have been received earlier.
    stamps.take(Step::ExecuteSent);
    channel.send(&request, &borrowed)?;
    // A copy of the events' writing end that stayed open here would keep the watcher waiting for ever.
    drop(descriptors);
    let patience = INIT_PATIENCE + crate::sandbox::hooks::patience(&frozen.hooks.start_container);
    stamps.add(wait_for_execve(&channel, patience)?);
    if let Some(events) = events {
        watcher::spawn(events, process.pidfd())
            .map_err(|source| StartError::Descriptor { what: "a watcher for resets", source })?;
    }
    Ok(())
}

/// The reading end of the monitor's events, if somebody has to end it when the guest resets.
fn events(launch: &Launch, descriptors: &mut Vec<(i32, OwnedFd)>) -> Result<Option<OwnedFd>, StartError> {
    let Some(inherit) = launch.inherit.iter().find(|inherit| inherit.role == Role::Events) else {
        return Ok(None);
    };
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| StartError::Descriptor { what: "a pipe for events", source: errno.into() })?;
    descriptors.push((inherit.fd, writer));
    Ok(Some(reader))
}

/// `executing` followed by end of file is the proof; anything else is a failure (design.md, principle 7).
fn wait_for_execve(channel: &Channel, patience: Duration) -> Result<Vec<Stamp>, StartError> {
    let stamps = match channel.receive_within::<ToStart>(patience)? {
        Some((ToStart::Executing { stamps }, _)) => stamps,
        Some((ToStart::Failed(failure), _)) => return Err(StartError::Init(failure)),
        None => return Err(StartError::Died),
    };
    match channel.receive_within::<ToStart>(INIT_PATIENCE)? {
        None => Ok(stamps),
        Some((ToStart::Failed(failure), _)) => Err(StartError::Init(failure)),
        Some((ToStart::Executing { .. }, _)) => Err(StartError::Died),
    }
}

/// What the monitor inherits, with the number that its command line names.
fn descriptors(
    state: BorrowedFd<'_>,
    launch: &Launch,
    frozen: &Frozen,
    network: Option<&Attached>,
) -> Result<Vec<(i32, OwnedFd)>, StartError> {
    let mut descriptors = Vec::new();
    for document in &launch.documents {
        let fd = memory_file(document, frozen)
            .map_err(|source| StartError::Descriptor { what: "a configuration document", source })?;
        descriptors.push((document.fd, fd));
    }
    for inherit in &launch.inherit {
        let fd = match inherit.role {
            Role::Control => control_listener(state)
                .map_err(|source| StartError::Descriptor { what: "a control socket", source })?,
            Role::Events => continue, // made by `events`
            Role::Tap(0) => network
                .and_then(|network| network.tap.as_ref())
                .ok_or_else(|| StartError::NoDescriptor("a TAP device".to_owned()))?
                .try_clone()
                .map_err(|source| StartError::Descriptor { what: "a TAP device", source })?,
            Role::VhostNet(0) => {
                rustix::fs::open(super::plan::VHOST_NET, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|errno| StartError::Descriptor {
                        what: "a vhost-net back end",
                        source: errno.into(),
                    })?
            }
            other => return Err(StartError::NoDescriptor(format!("{other:?}"))),
        };
        descriptors.push((inherit.fd, fd));
    }
    Ok(descriptors)
}

/// A document as a file in memory that the monitor's user, and nobody else, may open.
fn memory_file(document: &Document, frozen: &Frozen) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(document.name.as_str(), MemfdFlags::CLOEXEC)?;
    rustix::fs::fchmod(&fd, Mode::RUSR)?;
    rustix::fs::fchown(&fd, Some(Uid::from_raw(frozen.uid)), Some(Gid::from_raw(frozen.gid)))?;
    let mut file = File::from(fd);
    file.write_all(&document.contents)?;
    file.rewind()?;
    Ok(file.into())
}

/// A control socket that listens already, in the container's state directory: only root can connect to it.
fn control_listener(state: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // What an earlier start, killed half-way, may have left.
    match rustix::fs::unlinkat(state, CONTROL_SOCKET, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let path = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", state.as_raw_fd());
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 8)?;
    Ok(socket)
}
