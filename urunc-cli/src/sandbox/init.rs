//! The container's process from its birth to the moment when it becomes the monitor.
//!
//! It is a fork of `create`, has one thread, and never returns. It holds no descriptor but its standard streams, its
//! two sockets and the parts of its root. Errors before `Committed` go to create, later ones to `start`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::process::DumpableBehavior;
use serde_json::Value;
use urunc_rootfs::root::PreparedRoot;
use urunc_state::Status;

use super::channel::{Channel, Listener};
use super::daemon::{Daemon, Running};
use super::hooks::{self, Place};
use super::ids;
use super::labels::{self, ExecLabel};
use super::privileges;
use super::protocol::{Execute, Failure, FromCreate, ToCreate, ToStart};
use super::seccomp::Filters;
use super::settings::Settings;
use super::sys;
use crate::bundle::{Hook, Hooks, Labels, NamespaceKind, Namespaces, User};
use crate::cgroup::Entrance;
use crate::timestamps::{Stamps, Step};

/// Name of the start socket in the container's state directory.
pub const START_SOCKET: &str = "init.sock";

/// How long a connection may take to say what it wants. Start sends at once.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Everything that init needs, handed over by being in memory when `create` clones.
#[derive(Debug)]
pub struct Setup {
    /// The conversation with create.
    pub create: Channel,
    /// Where start will call.
    pub listener: Listener,
    /// What the container's standard streams are.
    pub streams: Streams,
    /// The way into the container's control group.
    pub cgroup: Entrance,
    /// The container's hooks.
    pub hooks: Hooks,
    /// The container's own root file system, if hooks need it.
    pub rootfs: Option<OwnedFd>,
    /// The monitor's root, opened in create's mount namespace.
    pub root: PreparedRoot,
    /// virtiofsd, if the guest's files are shared by it.
    pub daemon: Option<Daemon>,
    /// Descriptors that the monitor keeps open without knowing: those of block devices that are its guest's.
    pub kept: Vec<OwnedFd>,
    /// The container's namespaces.
    pub namespaces: Namespaces,
    /// What is set in them.
    pub settings: Settings,
    /// What security modules are to do with the monitor.
    pub labels: Labels,
    /// The specification's seccomp profile, if it is to be applied.
    pub filters: Option<Filters>,
    /// Who the monitor runs as.
    pub user: User,
    /// When what was done.
    pub stamps: Stamps,
}

impl Setup {
    /// Closes everything, in the parent of the process that has it now.
    pub fn let_go(self) {
        self.root.close();
    }
}

/// What the container's standard streams are.
#[derive(Debug)]
pub enum Streams {
    /// Create's own.
    Inherited,
    /// Create's own, but for the input, which is the reading end of this pipe.
    Input(OwnedFd),
    /// The slave of this terminal.
    Terminal(OwnedFd),
}

impl Streams {
    fn descriptor(&self) -> Option<&OwnedFd> {
        match self {
            Self::Inherited => None,
            Self::Input(fd) | Self::Terminal(fd) => Some(fd),
        }
    }
}

/// Runs init. On every failure the process exits after having said why.
pub fn run(setup: Setup) -> ! {
    let Setup {
        create,
        listener,
        streams,
        cgroup,
        hooks,
        rootfs,
        root,
        daemon,
        kept,
        namespaces,
        settings,
        labels,
        filters,
        user,
        stamps,
    } = setup;
    stamps.take(Step::InitBegins);
    let (mut running, mut state, mut exec_labels) = (None, Value::Null, Vec::new());
    let others: Vec<RawFd> = kept.iter().chain(&rootfs).map(AsRawFd::as_raw_fd).collect();
    let ready = isolate(&create, &listener, &streams, &cgroup, &root, daemon.as_ref(), &others)
        .and_then(|()| take_streams(streams))
        .and_then(|()| {
            stamps.take(Step::InitIsolated);
            state = wait_for_proceed(&create)?;
            stamps.take(Step::ProceedReceived);
            Ok(())
        })
        .and_then(|()| settle_in(&namespaces, &settings))
        .and_then(|()| run_hooks("createContainer", &hooks.create_container, &state, Place::Inside))
        .and_then(|()| {
            // Before the root changes: in the new one the shared tree's own mounts would be lost.
            running = daemon.map(Daemon::start).transpose()?;
            exec_labels = labels::open(&labels)?;
            Ok(())
        })
        .and_then(|()| root.attach().map_err(|error| Failure::new(&error)));
    if let Err(failure) = ready {
        let _ = create.send(&ToCreate::Failed(failure), &[]);
        sys::exit(1)
    }
    if create.send(&ToCreate::Ready { stamps: stamps.drain() }, &[]).is_err() {
        sys::exit(1)
    }
    match create.receive::<FromCreate>() {
        Ok(Some((FromCreate::Committed, _))) => drop(create),
        // Create failed or died before the container was recorded: there is no container.
        _ => sys::exit(1),
    }
    let (start, request, descriptors) = wait_for_start(&listener);
    stamps.take(Step::ExecuteReceived);
    drop(listener);
    // Above every number that the monitor's descriptors will have, so that placing them cannot overwrite it.
    let floor = request.descriptors.iter().copied().max().unwrap_or(2).saturating_add(1);
    let Ok(start) = start.moved_above(floor) else { sys::exit(1) };
    let exec_labels =
        exec_labels.into_iter().map(|label| label.moved_above(floor)).collect::<Result<Vec<_>, _>>();
    state["status"] = Status::Created.as_str().into();
    let prepared = alive(running.as_ref())
        .and_then(|()| start_container(&hooks.start_container, &state, rootfs, &user))
        .and_then(|()| keep_open(&kept, floor))
        .and(exec_labels);
    let failure = match prepared {
        Ok(exec_labels) => {
            become_monitor(&start, request, descriptors, &user, &exec_labels, filters.as_ref(), &stamps)
        }
        Err(failure) => failure,
    };
    let _ = start.send(&ToStart::Failed(failure), &[]);
    sys::exit(1)
}

/// Leaves create's descriptors, session and signal habits behind.
fn isolate(
    create: &Channel,
    listener: &Listener,
    streams: &Streams,
    cgroup: &Entrance,
    root: &PreparedRoot,
    daemon: Option<&Daemon>,
    others: &[RawFd],
) -> Result<(), Failure> {
    // The log file is among what is closed; its number will be somebody else's.
    log::set_max_level(log::LevelFilter::Off);
    // Before anything else is done, so that nothing of this process is counted elsewhere.
    cgroup.enter().map_err(|error| Failure::step("cannot enter the container's cgroup", &error))?;
    // Not dumpable: other processes of a joined pid namespace cannot ptrace init while it is privileged.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("cannot become undumpable"))?;
    sys::reset_signals().map_err(|error| Failure::step("cannot reset the signals", &error))?;
    let mut keep: Vec<RawFd> = vec![0, 1, 2, create.as_fd().as_raw_fd(), listener.as_fd().as_raw_fd()];
    keep.extend(streams.descriptor().map(AsRawFd::as_raw_fd));
    keep.extend(root.fds().map(|fd| fd.as_raw_fd()));
    keep.extend(daemon.into_iter().flat_map(Daemon::fds).map(|fd| fd.as_raw_fd()));
    keep.extend(others);
    keep.sort_unstable();
    sys::close_all_except(&keep)
        .map_err(|error| Failure::step("cannot close create's descriptors", &error))?;
    rustix::process::setsid().map(drop).map_err(step("cannot start a session"))
}

/// Makes the standard streams what they are to be.
fn take_streams(streams: Streams) -> Result<(), Failure> {
    match streams {
        Streams::Inherited => Ok(()),
        Streams::Input(input) => {
            rustix::stdio::dup2_stdin(&input).map_err(step("cannot make the pipe the standard input"))
        }
        Streams::Terminal(slave) => {
            rustix::process::ioctl_tiocsctty(&slave)
                .map_err(step("cannot make the terminal the controlling one"))?;
            rustix::stdio::dup2_stdin(&slave)
                .and_then(|()| rustix::stdio::dup2_stdout(&slave))
                .and_then(|()| rustix::stdio::dup2_stderr(&slave))
                .map_err(step("cannot make the terminal the standard streams"))
        }
    }
}

fn wait_for_proceed(create: &Channel) -> Result<Value, Failure> {
    match create.receive::<FromCreate>() {
        Ok(Some((FromCreate::Proceed { state }, _))) => Ok(state),
        Ok(Some((FromCreate::Committed, _)) | None) => sys::exit(1),
        Err(error) => Err(Failure::new(&error)),
    }
}

/// Makes the container's namespaces what the specification says, as root of them.
fn settle_in(namespaces: &Namespaces, settings: &Settings) -> Result<(), Failure> {
    if namespaces.has(NamespaceKind::User) {
        ids::become_root()?;
    }
    if namespaces.new.contains(&NamespaceKind::Cgroup) {
        sys::unshare_cgroup_namespace()
            .map_err(|error| Failure::step("cannot make a cgroup namespace", &error))?;
    }
    settings.apply(namespaces)
}

/// Waits for a start that says all that it has to say; one that dies half-way, or says nothing, does not use up the
/// container (B25).
fn wait_for_start(listener: &Listener) -> (Channel, Execute, Vec<OwnedFd>) {
    loop {
        // Without a listener nobody can ever start this container.
        let Ok(start) = listener.accept() else { sys::exit(1) };
        if let Ok(Some((request, descriptors))) = start.receive_within::<Execute>(START_PATIENCE)
            && request.descriptors.len() == descriptors.len()
        {
            return (start, request, descriptors);
        }
    }
}

fn start_container(
    hooks: &[Hook],
    state: &Value,
    rootfs: Option<OwnedFd>,
    user: &User,
) -> Result<(), Failure> {
    let Some(rootfs) = rootfs else { return Ok(()) };
    run_hooks("startContainer", hooks, state, Place::Confined { root: rootfs.as_fd(), user })
}

fn run_hooks(kind: &'static str, list: &[Hook], state: &Value, place: Place<'_>) -> Result<(), Failure> {
    hooks::run(kind, list, state.to_string().as_bytes(), place).map_err(|error| Failure::new(&error))
}

/// Returns only on failure.
fn become_monitor(
    start: &Channel,
    request: Execute,
    descriptors: Vec<OwnedFd>,
    user: &User,
    labels: &[ExecLabel],
    filters: Option<&Filters>,
    stamps: &Stamps,
) -> Failure {
    let Execute { program, args, env, descriptors: numbers } = request;
    let prepared = place(descriptors, &numbers, start.as_fd().as_raw_fd())
        .and_then(|()| labels.iter().try_for_each(ExecLabel::apply))
        .and_then(|()| privileges::drop_to(user))
        .and_then(|()| {
            stamps.take(Step::Executing);
            let executing = ToStart::Executing { stamps: stamps.drain() };
            start.send(&executing, &[]).map_err(|error| Failure::new(&error))
        })
        // Last, so that a profile need not allow more than the monitor itself and its execution need.
        .and_then(|()| filters.map_or(Ok(()), Filters::install));
    if let Err(failure) = prepared {
        return failure;
    }
    Failure::step(
        format!("cannot execute the monitor {}", program.display()),
        &sys::execute(&program, &args, &env),
    )
}

/// A guest whose virtiofsd is gone would wait for it forever.
fn alive(daemon: Option<&Running>) -> Result<(), Failure> {
    if daemon.is_none_or(Running::is_alive) {
        return Ok(());
    }
    let gone = std::io::Error::from_raw_os_error(libc::ESRCH);
    Err(Failure::step("virtiofsd, which shares the guest's root file system, has ended", &gone))
}

/// Makes copies that survive `execve`, out of the way of the numbers below `floor`.
fn keep_open(kept: &[OwnedFd], floor: RawFd) -> Result<(), Failure> {
    for fd in kept {
        let copy = rustix::io::fcntl_dupfd_cloexec(fd, floor)
            .map_err(step("cannot keep a block device for the guest"))?;
        rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty())
            .map_err(step("cannot keep a block device for the guest"))?;
        // Init's successor owns it.
        std::mem::forget(copy);
    }
    Ok(())
}

/// Gives each descriptor the number that the monitor's command line names, and takes close-on-exec off it.
fn place(descriptors: Vec<OwnedFd>, numbers: &[i32], floor: RawFd) -> Result<(), Failure> {
    // First out of the way of all numbers, then into place, so that no target is somebody else's source.
    let parked = descriptors
        .into_iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(&fd, floor))
        .collect::<Result<Vec<_>, _>>()
        .map_err(step("cannot move the monitor's descriptors"))?;
    for (fd, number) in parked.iter().zip(numbers) {
        sys::inherit_as(fd.as_fd(), *number).map_err(|error| {
            Failure::step(format!("cannot give the monitor a descriptor with the number {number}"), &error)
        })?;
    }
    Ok(())
}

fn step(message: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Failure {
    move |errno| Failure::step(message, &errno.into())
}
