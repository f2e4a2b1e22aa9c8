//! What can go wrong in the life of a container. One sentence each: what could not be done, to which container, and
//! what would help; the cause is chained.

use std::io;
use std::path::PathBuf;

use urunc_rootfs::MountTableError;
use urunc_state::{ContainerId, PidFileError, ProcessError, Status, StoreError};

use super::disk::DiskError;
use super::limits::LimitsError;
use super::network::NetworkError;
use super::plan::PlanError;
use super::teardown::TeardownError;
use crate::bundle::BundleError;
use crate::bundle::annotations::AnnotationError;
use crate::sandbox::channel::ChannelError;
use crate::sandbox::child::ChildError;
use crate::sandbox::console::ConsoleError;
use crate::sandbox::hooks::HookError;
use crate::sandbox::protocol::Failure;
use crate::sandbox::spawn::SpawnError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LifecycleError {
    /// The state root cannot be made absolute.
    #[error("cannot use {path} as the state root")]
    StateRoot {
        /// The directory as given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A step that the container's life does not have.
    #[error(transparent)]
    Transition(#[from] urunc_state::IllegalTransition),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The annotations or `urunc.json`.
    #[error(transparent)]
    Annotations(#[from] AnnotationError),
    /// The image.
    #[error(transparent)]
    Image(#[from] urunc_rootfs::ImageError),
    /// Neither annotations nor `urunc.json`.
    #[error(
        "the bundle {bundle} holds no unikernel: neither its annotations nor urunc.json in its image say \
         com.urunc.unikernel.unikernelType"
    )]
    NotUnikernel {
        /// The bundle.
        bundle: PathBuf,
    },
    /// Knative's proxy cannot be told of its guest.
    #[error("cannot point Knative's queue-proxy in {path} to the guest")]
    Proxy {
        /// Its specification.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The container cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The process cannot be limited as the specification says.
    #[error(transparent)]
    ProcessLimit(#[from] crate::sandbox::limits::ProcessLimitError),
    /// A kernel setting would be the host's.
    #[error(transparent)]
    Sysctl(#[from] crate::sandbox::settings::HostNamespace),
    /// A security module is not there.
    #[error(transparent)]
    Label(#[from] crate::sandbox::labels::LabelHostError),
    /// The user namespace cannot be used.
    #[error(transparent)]
    Ids(#[from] crate::sandbox::ids::IdError),
    /// A control group is still there.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::ReleaseError),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The container's root file system cannot be kept for hooks.
    #[error("cannot open the container's root file system {path} for its startContainer hooks")]
    HookRoot {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The limits cannot be applied.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The host's mounts cannot be told.
    #[error(transparent)]
    Mounts(#[from] MountTableError),
    /// The guest's disk cannot be had.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The pid file.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// The pid file's path cannot be made absolute.
    #[error("cannot use {path} as the pid file")]
    PidFilePath {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No pipe for the container's input.
    #[error("cannot make a pipe for the container's input")]
    Pipe {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A path that must be recorded cannot be.
    #[error("cannot record a path")]
    Path(#[from] urunc_state::InvalidPath),
    /// Something to be recorded or printed is no JSON: a path that is not UTF-8.
    #[error("cannot write the container's plan or state as JSON")]
    Json(#[from] serde_json::Error),
    /// A terminal without anybody to give it to.
    #[error("process.terminal is true, but there is no --console-socket to send the terminal to")]
    TerminalWithoutSocket,
    /// The reverse.
    #[error("--console-socket is given, but process.terminal is not true in config.json")]
    SocketWithoutTerminal,
    /// The terminal.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The monitor's root.
    #[error("cannot prepare the monitor's root")]
    Root(#[from] urunc_rootfs::root::PrepareError),
    /// The internal sockets.
    #[error("cannot talk to the container's process")]
    Channel(#[from] ChannelError),
    /// Cloning init.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The container's process cannot be identified.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// Init failed before it was ready.
    #[error("the container's process cannot be set up")]
    Init(#[source] Failure),
    /// Init died before it was ready.
    #[error("the container's process died while it was set up ({0})")]
    InitDied(String),
    /// The container's process cannot be seen or reached.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Something that needs another status.
    #[error("cannot {verb} container {id}: it is {status}; {remedy}")]
    Status {
        /// What was to be done.
        verb: &'static str,
        /// The container.
        id: ContainerId,
        /// The status that it has.
        status: Status,
        /// What would help.
        remedy: &'static str,
    },
    /// There is nothing to freeze it by.
    #[error(
        "cannot pause or resume container {id}: it has no cgroup with a freezer; mount the freezer controller or cgroup v2, \
         and create it again"
    )]
    NoFreezer {
        /// The container.
        id: ContainerId,
    },
    /// There is nothing to limit it by.
    #[error(
        "cannot change or measure what container {id} uses: it has no cgroup; give it one that can be written to, and create it \
         again"
    )]
    NoGroup {
        /// The container.
        id: ContainerId,
    },
    /// What it uses cannot be told.
    #[error(transparent)]
    Stats(#[from] crate::cgroup::StatsError),
    /// The freezer of its control group.
    #[error(transparent)]
    Freeze(#[from] crate::cgroup::FreezeError),
    /// The caller sends a signal to a container without a process. containerd matches the text.
    #[error("cannot send {signal} to container {id}: container not running")]
    NotRunning {
        /// The signal.
        signal: urunc_state::Signal,
        /// The container.
        id: ContainerId,
    },
    /// The monitor does not go away after SIGKILL.
    #[error(
        "the monitor of container {id} is still there {seconds} s after SIGKILL; it may hang in the kernel"
    )]
    Immortal {
        /// The container.
        id: ContainerId,
        /// How long was waited.
        seconds: u64,
    },
    /// The monitor could not be started.
    #[error("cannot start container {id}")]
    Start {
        /// The container.
        id: ContainerId,
        /// Why.
        #[source]
        source: StartError,
    },
    /// The monitor has no control interface.
    #[error("the monitor of container {id} has no control interface")]
    NoControl {
        /// The container.
        id: ContainerId,
    },
    /// The monitor's control interface.
    #[error(transparent)]
    Control(#[from] urunc_vmm::control::ControlError),
    /// Some resources could not be released.
    #[error(transparent)]
    Teardown(#[from] TeardownError),
    /// An operation failed, and then its undoing did.
    #[error("{undo}, after the following failed")]
    Undo {
        /// The later failure.
        undo: TeardownError,
        /// The first failure.
        #[source]
        source: Box<LifecycleError>,
    },
    /// The record is lost, and nothing else says which process the container is.
    #[error(
        "cannot tell which process container {id} is, as its record is unusable; end its monitor, then remove {path}"
    )]
    Unsalvageable {
        /// The container.
        id: ContainerId,
        /// Its state directory.
        path: PathBuf,
        /// What is wrong with the record.
        #[source]
        source: StoreError,
    },
    /// Waiting for a container in the foreground failed.
    #[error("cannot wait for container {id}")]
    Wait {
        /// The container.
        id: ContainerId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a created container could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What create recorded cannot be understood.
    #[error("the plan in its record cannot be understood")]
    Record(#[source] serde_json::Error),
    /// The monitor cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The guest cannot be attached to the network.
    #[error("cannot attach the guest to the container's network")]
    Network(#[from] NetworkError),
    /// A descriptor for the monitor cannot be made.
    #[error("cannot make {what} for the monitor")]
    Descriptor {
        /// What it is.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The guest's initrd cannot be composed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The plan wants a descriptor that there is none for.
    #[error("the monitor's plan wants a descriptor that start has none for ({0})")]
    NoDescriptor(String),
    /// Init cannot be reached or does not answer.
    #[error("the container's process does not answer")]
    Channel(#[from] ChannelError),
    /// Init could not become the monitor.
    #[error(transparent)]
    Init(Failure),
    /// Init died.
    #[error("the container's process died before it became the monitor")]
    Died,
}
