//! `create`: everything is checked, prepared and recorded; the container's process waits for `start`.
//!
//! ```text
//!   read, plan (nothing touched) ─▶ record "creating" ─▶ root, terminal, init.sock ─▶ clone init ─▶ proceed
//!     ─▶ ready ─▶ pid file ─▶ record "created" ─▶ committed
//! ```
//!
//! Whatever fails after the record exists is undone by the one teardown before the error is returned.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::OpenTreeFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{isatty, tcgetwinsize};
use urunc_rootfs::root::{Handle, Owner};
use urunc_rootfs::{Image, MountTable};
use urunc_state::{AbsolutePath, ContainerId, Event, Json, Locked, Origin, PidFile, Process, Record, Status};
use urunc_vmm::Warning;

use super::disk::{self, Held};
use super::kill::kill_and_wait;
use super::limits::{Limits, LimitsError};
use super::plan::{self, BootSource, ContainerPlan};
use super::{INIT_PATIENCE, LifecycleError, Runtime, teardown};
use crate::bundle::annotations::{self, FILE};
use crate::bundle::{Bundle, BundleFile, ContainerSpec, GuestConfig, NamespaceKind, Terminal, WindowSize};
use crate::config::Config;
use crate::sandbox::channel::{Channel, Listener};
use crate::sandbox::console::Console as Pty;
use crate::sandbox::foreground::Streams;
use crate::sandbox::init::{self, START_SOCKET, Setup};
use crate::sandbox::labels::Modules;
use crate::sandbox::placeholder::Placeholder;
use crate::sandbox::protocol::{FromCreate, ToCreate};
use crate::sandbox::settings::{self, Keyring, Settings};
use crate::sandbox::spawn::{self, Spawned};
use crate::timestamps::{Stamps, Step};

/// Largest `urunc.json` that is read.
const MAX_CONFIG: u64 = 64 * 1024;

/// Who gets the container's terminal, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Console {
    /// Whoever listens on this Unix socket.
    Socket(PathBuf),
    /// The calling process, which stays in the foreground.
    Foreground,
    /// Nobody.
    None,
}

/// Who makes control groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// We do.
    #[default]
    Cgroupfs,
    /// systemd makes a scope, which is then ours (`--systemd-cgroup`).
    Systemd,
}

/// What to create.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// The new container.
    pub id: ContainerId,
    /// Directory of its bundle.
    pub bundle: PathBuf,
    /// Who gets its terminal.
    pub console: Console,
    /// File that its process id is written to.
    pub pid_file: Option<PathBuf>,
    /// Unix socket that its pidfd is sent to.
    pub pidfd_socket: Option<PathBuf>,
    /// Who makes its control group.
    pub cgroups: CgroupDriver,
    /// Whether it gets a session keyring of its own.
    pub keyring: Keyring,
}

/// A created container, as its parent process sees it.
#[derive(Debug)]
pub struct Created {
    /// Init, which is this process's child.
    pub process: Process,
    /// Our ends of its standard streams, if it is in the foreground.
    pub streams: Streams,
}

impl Runtime {
    /// Creates a container.
    ///
    /// # Errors
    /// [`LifecycleError`]; nothing is left behind then.
    pub fn create(&self, request: &CreateRequest) -> Result<Created, LifecycleError> {
        let stamps = Stamps::new(&self.config.timestamps);
        stamps.take(Step::CreateInvoked);
        let result = self.attempt(request, &stamps);
        stamps.write(&self.config.timestamps, &request.id);
        result
    }

    fn attempt(&self, request: &CreateRequest, stamps: &Stamps) -> Result<Created, LifecycleError> {
        let opened = open_bundle(&request.bundle);
        if let Err(LifecycleError::NotUnikernel { bundle }) = &opened {
            self.redirect_proxy(bundle)?;
        }
        let opened = opened?;
        stamps.take(Step::BundleRead);
        check_console(&opened.0, &request.console)?;
        let directory = self.store.path().join(request.id.as_str());
        let Decision { bundle, image, guest, plan, limits } =
            decide(opened, request.cgroups, &directory, &self.config)?;
        for text in self.config.without_effect() {
            log::info!("the configuration has a key without effect: {text}");
        }
        for warning in &plan.warnings {
            match warning {
                // Stricter than asked for is nothing to worry anybody about.
                Warning::SeccompStays => log::debug!("{warning}"),
                _ => log::warn!("{warning}"),
            }
        }
        plan.disk.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        // Every container has a host name, a user and variables, which most kinds of guests know nothing of.
        plan.omitted.iter().for_each(|omission| log::debug!("{omission}"));
        let (mut origin, mut record) = self.describe(request, &bundle, &guest, &plan)?;
        limits.note(&mut origin, &mut record)?;
        origin.resources = plan.disk.owed()?;
        let pid_file = origin.pid_file.clone();
        let mut locked = self.store.create(&origin, record)?;
        // Nothing of the image may be open while its file system is unmounted for the guest.
        drop(image);
        stamps.take(Step::Planned);
        let mut held = Held::new(bundle.spec.rootfs.clone());
        let given = Given { bundle: &bundle, limits: &limits, request, pid_file: pid_file.as_ref(), stamps };
        let result = bring_up(&mut locked, plan, &mut held, given);
        let error = match result {
            Ok(created) => return Ok(created),
            Err(error) => error,
        };
        let undoing = held.let_go();
        let destroyed = teardown::destroy(&self.store, locked);
        undoing.finish();
        match destroyed {
            Ok(()) => Err(error),
            Err(LifecycleError::Teardown(undo)) => {
                Err(LifecycleError::Undo { undo, source: Box::new(error) })
            }
            Err(other) => {
                log::warn!("{}", crate::report::chain(&other));
                Err(error)
            }
        }
    }

    fn describe(
        &self,
        request: &CreateRequest,
        bundle: &Bundle,
        guest: &GuestConfig,
        plan: &ContainerPlan,
    ) -> Result<(Origin, Record), LifecycleError> {
        let path = AbsolutePath::new(bundle.path.clone())?;
        let network_namespace = bundle
            .spec
            .namespaces
            .join
            .get(&NamespaceKind::Network)
            .cloned()
            .map(AbsolutePath::new)
            .transpose()?;
        let mut origin = Origin::new(request.id.clone(), path.clone());
        origin.network_namespace.clone_from(&network_namespace);
        if let Some(file) = &request.pid_file {
            let file = std::path::absolute(file)
                .map_err(|source| LifecycleError::PidFilePath { path: file.clone(), source })?;
            origin.pid_file = Some(PidFile::new(AbsolutePath::new(file)?)?);
        }
        let mut record = Record::new(request.id.clone(), path);
        record.oci_version.clone_from(&bundle.spec.version);
        record.rootfs = AbsolutePath::new(bundle.spec.rootfs.clone())?;
        record.annotations.clone_from(&bundle.spec.annotations);
        record.urunc.monitor = guest.monitor.name().to_owned();
        record.urunc.guest = guest.guest.name().to_owned();
        record.urunc.network_namespace = network_namespace;
        record.urunc.config = Json::of(&self.config)?;
        record.urunc.machine = Json::of(&plan.frozen)?;
        Ok((origin, record))
    }
}

fn check_console(bundle: &Bundle, console: &Console) -> Result<(), LifecycleError> {
    match (bundle.spec.terminal, console) {
        (Terminal::Yes(_), Console::None) => Err(LifecycleError::TerminalWithoutSocket),
        (Terminal::No, Console::Socket(_)) => Err(LifecycleError::SocketWithoutTerminal),
        _ => Ok(()),
    }
}

/// Whether a bundle is a unikernel.
///
/// # Errors
/// [`LifecycleError`] if that cannot be told.
pub(crate) fn is_unikernel(directory: &Path) -> Result<bool, LifecycleError> {
    match open_bundle(directory) {
        Ok(_) => Ok(true),
        Err(LifecycleError::NotUnikernel { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a bundle and decides whether it is a unikernel: by the spec's annotations, or else by `urunc.json` in the image.
/// Only a unikernel's specification is held to our rules; another runtime has its own.
pub(super) fn open_bundle(directory: &Path) -> Result<(Bundle, Image, GuestConfig), LifecycleError> {
    let file = BundleFile::read(directory)?;
    let not_unikernel = || LifecycleError::NotUnikernel { bundle: file.path().to_owned() };
    // In a pod whose annotations all of its containers get, they are not meant for these.
    if annotations::is_sandbox(file.annotations()) || file.is_queue_proxy() {
        return Err(not_unikernel());
    }
    let annotated = annotations::from_annotations(file.annotations())?;
    let guest = match (annotated, file.rootfs()) {
        (Some(guest), _) => guest,
        (None, None) => return Err(not_unikernel()),
        (None, Some(rootfs)) => match Image::open(&rootfs)?.read_small(FILE, MAX_CONFIG) {
            Ok(contents) => annotations::from_file(&contents)?,
            Err(urunc_rootfs::ImageError::Missing { .. }) => return Err(not_unikernel()),
            Err(error) => return Err(error.into()),
        },
    };
    let bundle = file.check()?;
    let image = Image::open(&bundle.spec.rootfs)?;
    Ok((bundle, image, guest))
}

/// All that is decided before anything is touched.
pub(super) struct Decision {
    pub(super) bundle: Bundle,
    pub(super) image: Image,
    pub(super) guest: GuestConfig,
    pub(super) plan: ContainerPlan,
    pub(super) limits: Limits,
}

/// Decides what becomes of a bundle: for `create`, and for `check`, which goes no further. `directory` is the container's state directory.
///
/// # Errors
/// [`LifecycleError`], if it cannot be on this host.
pub(super) fn decide(
    opened: (Bundle, Image, GuestConfig),
    driver: CgroupDriver,
    directory: &Path,
    config: &Config,
) -> Result<Decision, LifecycleError> {
    let (mut bundle, image, guest) = opened;
    settings::check(&bundle.spec.sysctls, &bundle.spec.namespaces)?;
    Modules::of_host().check(&bundle.spec.labels)?;
    let mounts = MountTable::read()?;
    let mut plan = plan::plan(&bundle, &guest, &image, config, &mounts)?;
    let (accounting, overhead) = (config.runtime.memory, plan.frozen.overhead());
    let mut limits =
        Limits::decide(&bundle.spec, driver, guest.monitor, overhead, accounting, directory, &mounts)?;
    if let Some(less) = limits.reduced_memory() {
        bundle.spec.memory_limit = Some(less);
        plan = plan::plan(&bundle, &guest, &image, config, &mounts)?;
    }
    limits.complete(&plan.root)?;
    Ok(Decision { bundle, image, guest, plan, limits })
}

/// What is known before anything is acquired.
#[derive(Clone, Copy)]
struct Given<'a> {
    bundle: &'a Bundle,
    limits: &'a Limits,
    request: &'a CreateRequest,
    pid_file: Option<&'a PidFile>,
    stamps: &'a Stamps,
}

/// Acquires everything. On failure the caller destroys the record; the process is already gone then.
fn bring_up(
    locked: &mut Locked,
    plan: ContainerPlan,
    held: &mut Held,
    given: Given<'_>,
) -> Result<Created, LifecycleError> {
    let Given { bundle, limits, request, pid_file, stamps } = given;
    let console = &request.console;
    let ContainerPlan { boot, root, mut disk, frozen, filters, .. } = plan;
    let daemon = disk.daemon(locked.dir(), Owner { uid: frozen.uid, gid: frozen.gid }, held)?;
    let handles: Vec<Handle<'_>> = boot
        .iter()
        .map(|BootSource { name, file }| Handle { name, fd: file.as_fd() })
        .chain(disk.handles(daemon.as_ref()))
        .collect();
    let root = root.prepare_noting(&handles, &mut held.points)?;
    drop(handles);
    drop(boot);
    disk.take(locked, held)?;
    let (ours, theirs) = streams(&bundle.spec, console)?;
    let listener = Listener::bind(locked.dir(), START_SOCKET)?;
    let (channel, init_channel) = Channel::pair()?;
    // Leaves at the end of this function, when init is where it was.
    let placeholder = limits.start_unit()?;
    let cgroup = limits.make(placeholder.as_ref().map(Placeholder::pid)).map_err(LimitsError::from)?;
    let setup = Setup {
        create: init_channel,
        listener,
        streams: theirs,
        cgroup,
        hooks: bundle.spec.hooks.clone(),
        rootfs: hook_root(&bundle.spec)?,
        root,
        daemon: daemon.map(|prepared| prepared.daemon),
        kept: held.descriptors()?,
        namespaces: bundle.spec.namespaces.clone(),
        settings: Settings {
            hostname: bundle.spec.hostname.clone(),
            domainname: bundle.spec.domainname.clone(),
            sysctls: bundle.spec.sysctls.clone(),
            keyring: (request.keyring == Keyring::New).then(|| format!("_ses.{}", request.id)),
        },
        labels: bundle.spec.labels.clone(),
        filters,
        user: bundle.spec.user.clone(),
        stamps: stamps.another(),
    };
    stamps.take(Step::Cloning);
    let child = match spawn::spawn(&bundle.spec.namespaces, &bundle.spec.clocks, setup.cgroup.unified())? {
        Spawned::Init => init::run(setup),
        Spawned::Parent(child) => child,
    };
    // As long as a copy of the listener is open here, a dead init's start socket would still accept.
    setup.let_go();
    let process = child.identify()?.ok_or_else(|| LifecycleError::InitDied("at once".to_owned()))?;
    stamps.take(Step::InitKnown);
    match commit(locked, &process, &channel, &ours, given) {
        Ok(()) => Ok(Created { process, streams: ours }),
        Err(error) => {
            // Init exits by itself when the conversation ends; to be sure, and to leave no zombie:
            kill_and_wait(locked.id(), &process, locked.record().urunc.freezer.as_deref())?;
            let error = match error {
                // Whatever broke the conversation: how init ended says more.
                LifecycleError::Channel(_) => LifecycleError::InitDied(how_it_ended(&process)),
                error => error,
            };
            let _ = waitid(WaitId::PidFd(process.pidfd()), WaitIdOptions::EXITED);
            if let Some(pid_file) = pid_file {
                // The number in it, if it has been written, is nobody's now.
                let _ = std::fs::remove_file(pid_file.path());
            }
            Err(error)
        }
    }
}

/// Both ends of the container's standard streams, ours first.
fn streams(spec: &ContainerSpec, console: &Console) -> Result<(Streams, init::Streams), LifecycleError> {
    match spec.terminal {
        Terminal::Yes(size) => {
            // In the foreground it is our own terminal that shows it, so that one's size counts, and before the guest runs.
            let ours = tcgetwinsize(std::io::stdin()).ok().filter(|_| *console == Console::Foreground);
            let ours = ours.map(|size| WindowSize { rows: size.ws_row, columns: size.ws_col });
            let Pty { master, slave } = Pty::open(spec.host_user.uid, ours.or(size))?;
            Ok((Streams::Terminal(master), init::Streams::Terminal(slave)))
        }
        Terminal::No if *console == Console::Foreground && isatty(std::io::stdin()) => {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)
                .map_err(|errno| LifecycleError::Pipe { source: errno.into() })?;
            Ok((Streams::Input(writer), init::Streams::Input(reader)))
        }
        Terminal::No => Ok((Streams::Inherited, init::Streams::Inherited)),
    }
}

/// The container's own root file system as a mount of its own, if a hook runs in it: init will not see the host's any more.
fn hook_root(spec: &ContainerSpec) -> Result<Option<OwnedFd>, LifecycleError> {
    if spec.hooks.start_container.is_empty() {
        return Ok(None);
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(rustix::fs::CWD, &spec.rootfs, flags)
        .map(Some)
        .map_err(|errno| LifecycleError::HookRoot { path: spec.rootfs.clone(), source: errno.into() })
}

fn commit(
    locked: &mut Locked,
    process: &Process,
    channel: &Channel,
    streams: &Streams,
    given: Given<'_>,
) -> Result<(), LifecycleError> {
    let Given {
        bundle: Bundle { spec, .. },
        request: CreateRequest { console, pidfd_socket, .. },
        pid_file,
        stamps,
        ..
    } = given;
    // Before anything that could take time: whoever wants to force the container away finds its process.
    let exe = process.exe()?;
    locked.update(|record| {
        record.urunc.process = Some(process.identity().clone());
        record.urunc.exe = exe;
    })?;
    let state = super::hooks::document(locked.record(), Status::Creating)?;
    if let Some(mappings) = &spec.mappings {
        crate::sandbox::ids::map(process, mappings, &spec.namespaces)?;
    }
    crate::sandbox::limits::apply(process, &spec.rlimits, spec.oom_score_adj)?;
    if let Err(error) = super::hooks::create_runtime(&spec.hooks, &state, process.pidfd()) {
        // If init has ended by itself, why that was says more.
        return match channel.receive_within::<ToCreate>(Duration::ZERO) {
            Ok(Some((ToCreate::Failed(failure), _))) => Err(LifecycleError::Init(failure)),
            _ => Err(error),
        };
    }
    stamps.take(Step::HooksRun);
    // Before it is, so that it cannot have been received earlier.
    stamps.take(Step::ProceedSent);
    channel.send(&FromCreate::Proceed { state }, &[])?;
    let patience = INIT_PATIENCE + crate::sandbox::hooks::patience(&spec.hooks.create_container);
    match channel.receive_within::<ToCreate>(patience)? {
        Some((ToCreate::Ready { stamps: its }, _)) => stamps.add(its),
        Some((ToCreate::Failed(failure), _)) => return Err(LifecycleError::Init(failure)),
        None => return Err(LifecycleError::InitDied(how_it_ended(process))),
    }
    if let (Streams::Terminal(master), Console::Socket(path)) = (streams, console) {
        crate::sandbox::console::send_master(master, path)?;
    }
    if let Some(path) = pidfd_socket {
        crate::sandbox::console::send_pidfd(process.pidfd(), path)?;
    }
    if let Some(pid_file) = pid_file {
        pid_file.write(process.pid())?;
    }
    locked.try_update(|record| {
        disk::settle(record);
        record.advance(Status::Creating, Event::Created).map_err(LifecycleError::from)
    })?;
    channel.send(&FromCreate::Committed, &[])?;
    stamps.take(Step::Created);
    Ok(())
}

/// How a dead child ended, in words.
fn how_it_ended(process: &Process) -> String {
    match waitid(WaitId::PidFd(process.pidfd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "for an unknown reason".to_owned(),
        },
        _ => "for an unknown reason".to_owned(),
    }
}
