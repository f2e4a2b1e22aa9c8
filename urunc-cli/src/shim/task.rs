//! A container, as containerd sees it: a "task" with one process of its own and any number of added ones.
//!
//! No lock is held on what a container is while the runtime works for it: a containerd that was restarted asks every shim, and has one that does not
//! answer within seconds cleaned up with its containers. A process that is being started is in a stage of its own instead, and what happens to it,
//! its end above all, waits until that is over: so its end, however soon, is reported after its start.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim_protos::events::task::{
    TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::MessageField;
use rustix::process::{Pid, pidfd_send_signal};

use super::children::{Children, Exit};
use super::events::Publisher;
use super::process::{Process, Stage};
use super::runtime::{Runtime, Use};
use super::stats::Membership;
use super::terminal::{ConsoleSocket, Terminal};
use super::wait::Waiter;
use super::{ShimError, lock, mounts, stdio, sys};

/// How long a process may take to end once it has been killed.
const END: Duration = Duration::from_secs(10);

/// What a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A monitor with a guest.
    Unikernel,
    /// Processes of a delegated container, in a pid namespace of their own.
    Processes,
    /// The same without a pid namespace of their own: the kernel does not end them with the first.
    SharedProcesses,
}

/// A container.
#[derive(Debug)]
pub struct Task {
    /// The runtime for it.
    pub runtime: Runtime,
    /// What it is.
    pub kind: Kind,
    /// The number of its own process.
    pub pid: u32,
    events: Publisher,
    children: Arc<Children>,
    /// Beside which terminals are received.
    socket: PathBuf,
    namespace: String,
    /// Held while the runtime starts, freezes, thaws or removes the container: one after the other.
    commands: Mutex<()>,
    state: Mutex<State>,
    /// A process has ended, or its start is over.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    init: Process,
    execs: BTreeMap<String, Process>,
    deleted: bool,
}

impl State {
    fn get(&mut self, exec_id: &str) -> Option<&mut Process> {
        if exec_id.is_empty() { Some(&mut self.init) } else { self.execs.get_mut(exec_id) }
    }
}

/// What starting a process brings.
#[derive(Debug)]
struct Started {
    pid: u32,
    pidfd: OwnedFd,
    held: stdio::Held,
    terminal: Option<Terminal>,
}

/// What [`Task::new`] needs of its pod.
#[derive(Debug)]
pub struct Surroundings {
    /// Where events go.
    pub events: Publisher,
    /// The processes.
    pub children: Arc<Children>,
    /// The shim's own socket.
    pub socket: PathBuf,
    /// containerd's namespace.
    pub namespace: String,
}

/// A process as it is at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its number.
    pub pid: u32,
    /// How far it is.
    pub stage: Stage,
    /// Where its streams go.
    pub stdio: stdio::Request,
}

impl Task {
    /// A container whose first process exists and is not started.
    #[must_use]
    pub fn new(runtime: Runtime, kind: Kind, init: Process, around: Surroundings) -> Self {
        Self {
            runtime,
            kind,
            pid: init.pid,
            events: around.events,
            children: around.children,
            socket: around.socket,
            namespace: around.namespace,
            commands: Mutex::default(),
            state: Mutex::new(State { init, execs: BTreeMap::new(), deleted: false }),
            changed: Condvar::new(),
        }
    }

    /// Watches the first process and then calls `announce`. Its end is reported after that.
    ///
    /// # Errors
    /// [`ShimError::System`] if it cannot be watched; then `announce` is not called.
    pub fn adopt(self: &Arc<Self>, announce: impl FnOnce(u32)) -> Result<(), ShimError> {
        let mut state = lock(&self.state);
        let pidfd = self.watch("", state.init.pid)?;
        state.init.pidfd = Some(pidfd);
        state.init.cgroups = Membership::of(state.init.pid).ok();
        announce(state.init.pid);
        Ok(())
    }

    fn watch(self: &Arc<Self>, exec_id: &str, pid: u32) -> Result<OwnedFd, ShimError> {
        let gone = || std::io::Error::from_raw_os_error(libc::ESRCH);
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let (task, exec) = (Arc::clone(self), exec_id.to_owned());
        pid.ok_or_else(gone)
            .and_then(|pid| self.children.watch(pid, move |exit| task.has_ended(&exec, exit)))
            .map_err(|source| ShimError::System("watch the container's process", source))
    }

    /// A process has ended: what it held is released, and then everybody is told, once.
    fn has_ended(&self, exec_id: &str, exit: Exit) {
        if exec_id.is_empty() {
            // Nothing is told of a container whose start has not been.
            drop(self.settled(exec_id));
            self.tell_of_memory();
            self.end_the_rest();
        }
        let mut state = self.settled(exec_id);
        if exec_id.is_empty() {
            // The kernel has killed them already; they are reported first, as containerd expects.
            let running = |state: &mut State| state.execs.values().any(Process::lives);
            let waited = self.changed.wait_timeout_while(state, END, running);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let Some(process) = state.get(exec_id) else { return };
        process.stage = Stage::Stopped(exit);
        process.held.let_go();
        self.events.publish(&TaskExit {
            container_id: self.runtime.id.clone(),
            id: if exec_id.is_empty() { self.runtime.id.clone() } else { exec_id.to_owned() },
            pid: process.pid,
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.into()),
            ..TaskExit::default()
        });
        for waiter in process.waiters.drain(..) {
            waiter.answer(exit);
        }
        self.changed.notify_all();
    }

    /// Whether the container's memory was too little. Told before its end: Kubernetes shows it as the reason.
    fn tell_of_memory(&self) {
        let cgroups = lock(&self.state).init.cgroups.clone();
        if cgroups.is_some_and(|cgroups| cgroups.oom_kills() > 0) {
            self.events.publish(&TaskOOM { container_id: self.runtime.id.clone(), ..TaskOOM::default() });
        }
    }

    /// What does not end with the first process. A failure is no reason to keep the end a secret.
    fn end_the_rest(&self) {
        let arguments: &[&str] = match self.kind {
            // Releases what the monitor held, so that whoever is told of its end finds the pod's network clean.
            Kind::Unikernel => &[],
            Kind::SharedProcesses => &["--all"],
            Kind::Processes => return,
        };
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let killed =
            self.runtime.call_with(&self.children, "kill", &arguments, &["KILL".as_ref()], Use::Output);
        if let Err(error) = killed {
            log::debug!("after the end of container {}: {}", self.runtime.id, crate::report::chain(&error));
        }
    }

    /// Boots the guest, or starts an added process.
    ///
    /// # Errors
    /// [`ShimError::State`] unless it has been created, or what the runtime fails with.
    pub fn start(self: &Arc<Self>, exec_id: &str) -> Result<u32, ShimError> {
        if !exec_id.is_empty() {
            return self.start_exec(exec_id);
        }
        let _alone = lock(&self.commands);
        self.begin("")?;
        let started = self.runtime.call(&self.children, "start", &[], Use::Output);
        let mut state = lock(&self.state);
        state.init.stage = if started.is_ok() { Stage::Running } else { Stage::Created };
        if started.is_ok() {
            self.events.publish(&TaskStart {
                container_id: self.runtime.id.clone(),
                pid: self.pid,
                ..TaskStart::default()
            });
        }
        drop(state);
        self.changed.notify_all();
        started.map(|_| self.pid)
    }

    /// From now on, until it is said how that went, a process is being started. Returns what `Exec` wants to be run, and where its streams go.
    fn begin(&self, exec_id: &str) -> Result<(Option<Vec<u8>>, stdio::Request), ShimError> {
        let mut state = lock(&self.state);
        let process = self.process(&mut state, exec_id)?;
        // What an added process was to be is gone after a start that failed.
        if process.stage != Stage::Created || (process.spec.is_none() && !exec_id.is_empty()) {
            return Err(self.wrong_state("start", exec_id, process.stage));
        }
        process.stage = Stage::Starting;
        Ok((process.spec.take(), process.stdio.clone()))
    }

    fn start_exec(self: &Arc<Self>, exec_id: &str) -> Result<u32, ShimError> {
        let (spec, stdio) = self.begin(exec_id)?;
        // Until its end is watched, it is nobody's.
        let busy = self.children.busy();
        let started = self.run_exec(exec_id, &spec.unwrap_or_default(), &stdio);
        let mut state = lock(&self.state);
        let Some(process) = state.execs.get_mut(exec_id) else {
            // Nobody removes what is being started.
            return started.map(|started| started.pid);
        };
        let result = started.map(|started| {
            (process.pid, process.pidfd) = (started.pid, Some(started.pidfd));
            (process.held, process.terminal) = (started.held, started.terminal);
            self.events.publish(&TaskExecStarted {
                container_id: self.runtime.id.clone(),
                exec_id: exec_id.to_owned(),
                pid: process.pid,
                ..TaskExecStarted::default()
            });
            process.pid
        });
        process.stage = if result.is_ok() { Stage::Running } else { Stage::Created };
        drop(state);
        drop(busy);
        self.changed.notify_all();
        result
    }

    fn run_exec(
        self: &Arc<Self>,
        exec_id: &str,
        spec: &[u8],
        stdio: &stdio::Request,
    ) -> Result<Started, ShimError> {
        let file = |kind: &str| self.runtime.bundle.join(format!("exec-{exec_id}.{kind}"));
        let (spec_file, pid_file) = (file("json"), file("pid"));
        fs::write(&spec_file, spec).map_err(ShimError::path("write", &spec_file))?;
        let result = self.run_exec_from(exec_id, &spec_file, &pid_file, stdio);
        for file in [&spec_file, &pid_file] {
            // The bundle is removed with the container anyway.
            let _ = fs::remove_file(file);
        }
        result
    }

    fn run_exec_from(
        self: &Arc<Self>,
        exec_id: &str,
        spec: &Path,
        pid_file: &Path,
        stdio: &stdio::Request,
    ) -> Result<Started, ShimError> {
        let (streams, held) = stdio::open(&self.children, stdio, &self.namespace, &self.runtime.id)?;
        let console = if stdio.terminal { Some(ConsoleSocket::listen(&self.socket)?) } else { None };
        let mut arguments: Vec<&OsStr> = vec![
            "--process".as_ref(),
            spec.as_ref(),
            "--detach".as_ref(),
            "--pid-file".as_ref(),
            pid_file.as_ref(),
        ];
        let console_path = console.as_ref().map(|console| console.path().to_owned());
        if let Some(path) = &console_path {
            arguments.extend::<[&OsStr; 2]>(["--console-socket".as_ref(), path.as_ref()]);
        }
        let mut terminal = None;
        if let Some(console) = console {
            self.runtime.call(&self.children, "exec", &arguments, Use::Streams(stdio::nowhere()?))?;
            terminal = Some(Terminal::connect(console.receive()?, streams)?);
        } else {
            self.runtime.call(&self.children, "exec", &arguments, Use::Streams(streams))?;
        }
        let pid = read_pid(pid_file)?;
        Ok(Started { pid, pidfd: self.watch(exec_id, pid)?, held, terminal })
    }

    /// Announces a further process in a delegated container.
    ///
    /// # Errors
    /// [`ShimError::Unikernel`], [`ShimError::Exists`], [`ShimError::State`].
    pub fn exec(&self, exec_id: &str, spec: Vec<u8>, stdio: stdio::Request) -> Result<(), ShimError> {
        if self.kind == Kind::Unikernel {
            let reason = "no process can be run in its guest";
            return Err(ShimError::Unikernel { id: self.runtime.id.clone(), reason });
        }
        // It becomes part of file names.
        if exec_id.is_empty() || exec_id.contains('/') {
            return Err(ShimError::Invalid { what: "the id of the process", reason: format!("{exec_id:?}") });
        }
        let mut state = lock(&self.state);
        if state.init.exit().is_some() {
            return Err(self.wrong_state("run a process in", "", state.init.stage));
        }
        if state.execs.contains_key(exec_id) {
            return Err(ShimError::Exists { what: self.name(exec_id) });
        }
        let mut process = Process::new(stdio);
        process.spec = Some(spec);
        state.execs.insert(exec_id.to_owned(), process);
        self.events.publish(&TaskExecAdded {
            container_id: self.runtime.id.clone(),
            exec_id: exec_id.to_owned(),
            ..TaskExecAdded::default()
        });
        Ok(())
    }

    /// Sends a signal. The container's own process is signalled by the runtime, whatever else it does: a container whose start hangs can be killed.
    ///
    /// # Errors
    /// [`ShimError::Finished`], [`ShimError::State`] for a process that was not started, or what the runtime fails with.
    pub fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<(), ShimError> {
        if !exec_id.is_empty() {
            let mut state = self.settled(exec_id);
            let process = self.process(&mut state, exec_id)?;
            return self.signal(exec_id, process, signal);
        }
        let over = lock(&self.state).init.exit().is_some();
        if over && !all {
            return Err(ShimError::Finished { what: self.name("") });
        }
        let number = signal.to_string();
        let arguments: &[&OsStr] = if all { &["--all".as_ref()] } else { &[] };
        self.runtime.call_with(&self.children, "kill", arguments, &[number.as_ref()], Use::Output).map(drop)
    }

    fn signal(&self, exec_id: &str, process: &Process, signal: u32) -> Result<(), ShimError> {
        let finished = || ShimError::Finished { what: self.name(exec_id) };
        let pidfd = match (process.stage, &process.pidfd) {
            (Stage::Stopped(_), _) => return Err(finished()),
            (_, Some(pidfd)) => pidfd,
            (stage, None) => return Err(self.wrong_state("signal", exec_id, stage)),
        };
        let known = sys::signal(signal)
            .ok_or_else(|| ShimError::Invalid { what: "the signal", reason: signal.to_string() })?;
        match pidfd_send_signal(pidfd, known) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::SRCH) => Err(finished()),
            Err(errno) => Err(ShimError::System("signal the process", errno.into())),
        }
    }

    /// Removes a process that has ended or was never started, or the whole container.
    ///
    /// # Errors
    /// [`ShimError::State`] if it runs, or what the runtime or unmounting fails with; then the container is still there and can be deleted again.
    /// [`ShimError::NotFound`] if it has been deleted.
    pub fn delete(&self, exec_id: &str) -> Result<(u32, Exit), ShimError> {
        let never = Exit { status: 0, at: std::time::UNIX_EPOCH };
        if !exec_id.is_empty() {
            let process = self.remove_exec(exec_id)?;
            let exit = process.exit().unwrap_or(never);
            for waiter in process.waiters {
                // It was never started, and never will be.
                waiter.refuse(&ShimError::NotFound { what: self.name(exec_id) });
            }
            return Ok((process.pid, exit));
        }
        let _alone = lock(&self.commands);
        let state = lock(&self.state);
        if state.deleted {
            return Err(ShimError::NotFound { what: self.name("") });
        }
        if matches!(state.init.stage, Stage::Running | Stage::Paused) {
            return Err(self.wrong_state("delete", "", state.init.stage));
        }
        drop(state);
        self.destroy()?;
        let mut state = self.wait_for_end();
        let exit = state.init.exit().unwrap_or(never);
        let logger = state.init.held.take_logger();
        state.init.terminal = None;
        state.deleted = true;
        drop(state);
        drop(logger);
        self.events.publish(&TaskDelete {
            container_id: self.runtime.id.clone(),
            pid: self.pid,
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.into()),
            ..TaskDelete::default()
        });
        Ok((self.pid, exit))
    }

    fn remove_exec(&self, exec_id: &str) -> Result<Process, ShimError> {
        let mut state = self.settled(exec_id);
        let stage = self.process(&mut state, exec_id)?.stage;
        if matches!(stage, Stage::Running | Stage::Paused) {
            return Err(self.wrong_state("delete", exec_id, stage));
        }
        state.execs.remove(exec_id).ok_or_else(|| ShimError::NotFound { what: self.name(exec_id) })
    }

    /// The runtime's container and the rootfs go. Both may be gone already.
    fn destroy(&self) -> Result<(), ShimError> {
        match self.runtime.call(&self.children, "delete", &[], Use::Output) {
            Ok(_) => {}
            Err(ShimError::Runtime { reason, .. }) if reason.contains("does not exist") => {}
            Err(error) => {
                log::warn!("container {}: {}", self.runtime.id, crate::report::chain(&error));
                self.runtime.call(&self.children, "delete", &["--force".as_ref()], Use::Output)?;
            }
        }
        mounts::unmount_all(&self.runtime.bundle.join("rootfs"))
    }

    /// A container that was never started ends by being deleted.
    fn wait_for_end(&self) -> MutexGuard<'_, State> {
        let lives = |state: &mut State| state.init.exit().is_none();
        let waited = self.changed.wait_timeout_while(lock(&self.state), END, lives);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Freezes.
    ///
    /// # Errors
    /// What the runtime fails with.
    pub fn pause(&self) -> Result<(), ShimError> {
        let _alone = lock(&self.commands);
        self.runtime.call(&self.children, "pause", &[], Use::Output)?;
        let mut state = lock(&self.state);
        // It may have ended meanwhile.
        if state.init.stage == Stage::Running {
            state.init.stage = Stage::Paused;
            let container_id = self.runtime.id.clone();
            self.events.publish(&TaskPaused { container_id, ..TaskPaused::default() });
        }
        Ok(())
    }

    /// Thaws.
    ///
    /// # Errors
    /// What the runtime fails with.
    pub fn resume(&self) -> Result<(), ShimError> {
        let _alone = lock(&self.commands);
        self.runtime.call(&self.children, "resume", &[], Use::Output)?;
        let mut state = lock(&self.state);
        if state.init.stage == Stage::Paused {
            state.init.stage = Stage::Running;
            let container_id = self.runtime.id.clone();
            self.events.publish(&TaskResumed { container_id, ..TaskResumed::default() });
        }
        Ok(())
    }

    /// Changes the container's limits. `resources` is the specification's `linux.resources`.
    ///
    /// # Errors
    /// What the runtime fails with.
    pub fn update(&self, resources: Vec<u8>) -> Result<(), ShimError> {
        let arguments: [&OsStr; 2] = ["--resources".as_ref(), "-".as_ref()];
        self.runtime.call(&self.children, "update", &arguments, Use::Input(resources)).map(drop)
    }

    /// The numbers of the container's processes, and which of them were added. One that has ended is still named until it is deleted: containerd 1.7 and
    /// later take a shim without any process for a leaked one when they restart, and would lose how the container ended.
    ///
    /// # Errors
    /// What the runtime fails with.
    pub fn pids(&self) -> Result<Vec<(u32, Option<String>)>, ShimError> {
        let process = self.snapshot("")?;
        // A container that is being started has the runtime's lock, and is asked for by a containerd that has been restarted.
        if matches!(process.stage, Stage::Stopped(_) | Stage::Starting) {
            return Ok(vec![(process.pid, None)]);
        }
        let arguments: [&OsStr; 2] = ["--format".as_ref(), "json".as_ref()];
        let output = self.runtime.call(&self.children, "ps", &arguments, Use::Output)?;
        let pids: Vec<u32> = serde_json::from_slice(&output)
            .map_err(|source| ShimError::Json { path: "the output of ps".into(), source })?;
        let state = lock(&self.state);
        let added = |pid| state.execs.iter().find(|(_, exec)| exec.pid == pid).map(|(id, _)| id.clone());
        Ok(pids.into_iter().map(|pid| (pid, added(pid))).collect())
    }

    /// Gives a terminal another size; nothing if there is none.
    ///
    /// # Errors
    /// [`ShimError::NotFound`], [`ShimError::System`]
    pub fn resize(&self, exec_id: &str, rows: u32, columns: u32) -> Result<(), ShimError> {
        let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let mut state = self.settled(exec_id);
        let process = self.process(&mut state, exec_id)?;
        process.terminal.as_ref().map_or(Ok(()), |terminal| terminal.resize(cells(rows), cells(columns)))
    }

    /// No client will write to a process any more.
    ///
    /// # Errors
    /// [`ShimError::NotFound`]
    pub fn close_stdin(&self, exec_id: &str) -> Result<(), ShimError> {
        let mut state = self.settled(exec_id);
        self.process(&mut state, exec_id)?.held.close_stdin();
        Ok(())
    }

    /// A process as it is now.
    ///
    /// # Errors
    /// [`ShimError::NotFound`]
    pub fn snapshot(&self, exec_id: &str) -> Result<Snapshot, ShimError> {
        let mut state = lock(&self.state);
        let process = self.process(&mut state, exec_id)?;
        Ok(Snapshot { pid: process.pid, stage: process.stage, stdio: process.stdio.clone() })
    }

    /// Has `waiter` answered when a process ends, or at once if there is none.
    pub fn wait(&self, exec_id: &str, waiter: Waiter) {
        let mut state = lock(&self.state);
        match self.process(&mut state, exec_id).map(|process| (process.exit(), process)) {
            Ok((Some(exit), _)) => waiter.answer(exit),
            Ok((None, process)) => {
                process.waiters.retain(|earlier| !earlier.is_abandoned());
                process.waiters.push(waiter);
            }
            Err(error) => waiter.refuse(&error),
        }
    }

    /// What the container is, once the process `exec_id` is not being started any more: the runtime's own time for that is limited.
    fn settled(&self, exec_id: &str) -> MutexGuard<'_, State> {
        let starts =
            |state: &mut State| state.get(exec_id).is_some_and(|process| process.stage == Stage::Starting);
        self.changed.wait_while(lock(&self.state), starts).unwrap_or_else(PoisonError::into_inner)
    }

    fn process<'a>(&self, state: &'a mut State, exec_id: &str) -> Result<&'a mut Process, ShimError> {
        state.get(exec_id).ok_or_else(|| ShimError::NotFound { what: self.name(exec_id) })
    }

    fn name(&self, exec_id: &str) -> String {
        match exec_id {
            "" => format!("container {}", self.runtime.id),
            exec_id => format!("process {exec_id} of container {}", self.runtime.id),
        }
    }

    fn wrong_state(&self, verb: &'static str, exec_id: &str, stage: Stage) -> ShimError {
        ShimError::State { verb, what: self.name(exec_id), state: stage.name() }
    }
}

/// Reads a pid file.
///
/// # Errors
/// [`ShimError::Path`], [`ShimError::Invalid`]
pub fn read_pid(path: &Path) -> Result<u32, ShimError> {
    let text = fs::read_to_string(path).map_err(ShimError::path("read the pid file", path))?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| ShimError::Invalid {
        what: "the pid file",
        reason: format!("{:?} is no process", text.trim()),
    })
}
