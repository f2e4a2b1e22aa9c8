//! A tracer that runs commands with all of their descendants and lets one system call of one process go wrong: the
//! process is killed before or after it, or the call fails.
//!
//! Processes are numbered in the order of their birth, over all commands of one tracer. A process's calls are counted
//! until it executes another program: what the monitor does is not ours. `strace` counts per call *name*, so it cannot
//! reach most of these points.

pub(crate) mod sys;
mod watchdog;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use sys::{AtCall, Until};
use watchdog::Watchdog;

/// When a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Kill(Moment),
    /// The call fails with this error; except for `close`, nothing comes of it.
    Fail(i32),
    /// The process stands still before the call until it is told to go on.
    Pause,
}

/// What goes wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) process: usize,
    pub(crate) call: usize,
    /// The number of the call that is expected there. Another one is not let fail, but the next of this number: where a
    /// command waits, it makes more or fewer calls from run to run.
    pub(crate) number: u64,
    pub(crate) act: Act,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code, or the signal that killed it.
    pub(crate) status: Result<i32, i32>,
    /// What it wrote to its standard error.
    pub(crate) said: String,
}

impl Ended {
    pub(crate) fn succeeded(&self) -> bool {
        self.status == Ok(0)
    }
}

/// A command that has been begun.
#[derive(Debug)]
pub(crate) struct Running {
    pid: libc::pid_t,
    number: usize,
    output: File,
}

#[derive(Debug)]
struct Tracee {
    number: usize,
    /// It has executed another program: nothing of it is counted any more.
    is_monitor: bool,
    /// How the call that it is in is to fail.
    failing: Option<i32>,
}

/// Runs commands and follows all of their descendants.
#[derive(Debug)]
pub(crate) struct Tracer {
    alive: HashMap<libc::pid_t, Tracee>,
    /// Stopped at their birth, which their parents have not reported yet.
    unborn: HashSet<libc::pid_t>,
    ended: HashMap<libc::pid_t, Result<i32, i32>>,
    /// The numbers of the calls of each process.
    calls: Vec<Vec<u64>>,
    fault: Option<Fault>,
    fired: bool,
    paused: Option<libc::pid_t>,
    /// A process whose calls are followed besides those of the fault's.
    followed: Option<usize>,
    watchdog: Watchdog,
}

impl Tracer {
    /// With a fault, only the calls of its process are followed; without one, those of all processes.
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self {
            alive: HashMap::new(),
            unborn: HashSet::new(),
            ended: HashMap::new(),
            calls: Vec::new(),
            fault,
            fired: false,
            paused: None,
            followed: None,
            watchdog: Watchdog::new(),
        }
    }

    /// Whether the fault has happened.
    pub(crate) fn has_fired(&self) -> bool {
        self.fired
    }

    /// How many processes there have been: the number that the next one gets.
    pub(crate) fn processes(&self) -> usize {
        self.calls.len()
    }

    /// The numbers of the system calls of each process so far.
    pub(crate) fn into_calls(self) -> Vec<Vec<u64>> {
        self.calls
    }

    /// Runs a command until it ends. Its descendants may live on.
    pub(crate) fn run(&mut self, command: Command) -> Ended {
        let running = self.begin(command);
        self.end(running)
    }

    /// Begins a command.
    pub(crate) fn begin(&mut self, mut command: Command) -> Running {
        let output = tempfile::tempfile().unwrap();
        // What cargo sets for tests makes the dynamic loader search in many places: more calls that are not ours.
        command.env("RUST_BACKTRACE", "0").env_remove("LD_LIBRARY_PATH");
        command.stdout(File::open("/dev/null").unwrap()).stderr(output.try_clone().unwrap());
        sys::trace_from_execve(&mut command);
        #[expect(clippy::zombie_processes, reason = "waited for by `drive`, as a tracer must")]
        let child = command.spawn().unwrap();
        let pid = libc::pid_t::try_from(child.id()).unwrap();
        let number = self.processes();
        self.adopt(pid);
        Running { pid, number, output }
    }

    /// Waits until a command has ended.
    pub(crate) fn end(&mut self, running: Running) -> Ended {
        let Running { pid, mut output, .. } = running;
        self.drive(|tracer| tracer.ended.contains_key(&pid));
        let mut said = String::new();
        output.rewind().unwrap();
        output.read_to_string(&mut said).unwrap();
        Ended { status: self.ended[&pid], said }
    }

    /// Lets a command run until something stands still, or it has ended.
    pub(crate) fn run_until_paused(&mut self, running: &Running) {
        self.drive(|tracer| tracer.paused.is_some() || tracer.ended.contains_key(&running.pid));
    }

    /// Lets a command run until it waits for another one that holds the container, or has ended: whoever waits for a
    /// lock sleeps between two attempts.
    pub(crate) fn run_until_blocked(&mut self, running: &Running) {
        let sleep = libc::SYS_clock_nanosleep.cast_unsigned();
        self.followed = Some(running.number);
        self.drive(|tracer| {
            tracer.calls[running.number].last() == Some(&sleep) || tracer.ended.contains_key(&running.pid)
        });
        self.followed = None;
    }

    /// Lets what stands still go on.
    pub(crate) fn go_on_from_pause(&mut self) {
        if let Some(pid) = self.paused.take() {
            self.go_on(pid, 0);
        }
    }

    /// Waits until no process is left. Fails if some had to be killed for that.
    pub(crate) fn drain(&mut self) -> Result<(), String> {
        self.drive(|_| false);
        if self.watchdog.has_expired() { Err("something hangs".to_owned()) } else { Ok(()) }
    }

    fn adopt(&mut self, pid: libc::pid_t) {
        self.watchdog.watch(pid);
        self.alive.insert(pid, Tracee { number: self.calls.len(), is_monitor: false, failing: None });
        self.calls.push(Vec::new());
    }

    /// Handles what tracees report until `done`, or until none is left.
    fn drive(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let Some((pid, status)) = sys::wait() else { return };
            if libc::WIFEXITED(status) {
                self.bury(pid, Ok(libc::WEXITSTATUS(status)));
            } else if libc::WIFSIGNALED(status) {
                self.bury(pid, Err(libc::WTERMSIG(status)));
            } else {
                self.stopped(pid, libc::WSTOPSIG(status), status >> 16);
            }
        }
    }

    fn bury(&mut self, pid: libc::pid_t, status: Result<i32, i32>) {
        self.watchdog.forget(pid);
        self.alive.remove(&pid);
        self.unborn.remove(&pid);
        self.ended.insert(pid, status);
    }

    fn stopped(&mut self, pid: libc::pid_t, signal: i32, event: i32) {
        if !self.alive.contains_key(&pid) {
            self.unborn.insert(pid);
            return;
        }
        match (signal, event) {
            (_, libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE) => {
                let child = sys::event_pid(pid);
                self.adopt(child);
                if self.unborn.remove(&child) {
                    sys::resume(child, self.until(child), 0);
                }
                self.go_on(pid, 0);
            }
            (_, libc::PTRACE_EVENT_EXEC) => {
                if self.is_due(pid, Moment::After) {
                    self.kill(pid);
                } else {
                    self.tracee(pid).is_monitor = true;
                    self.go_on(pid, 0);
                }
            }
            // The first stop of a new process, and that of a command at its execve.
            (libc::SIGSTOP, 0) => self.go_on(pid, 0),
            (libc::SIGTRAP, 0) => {
                sys::follow_everything(pid);
                self.go_on(pid, 0);
            }
            (signal, 0) if signal == libc::SIGTRAP | 0x80 => match sys::at_call(pid) {
                Some(AtCall::Entry(call)) => self.entering(pid, call),
                Some(AtCall::Exit) => self.leaving(pid),
                None => {}
            },
            (signal, _) => self.go_on(pid, signal),
        }
    }

    fn entering(&mut self, pid: libc::pid_t, call: u64) {
        let number = self.tracee(pid).number;
        self.calls[number].push(call);
        if self.is_due(pid, Moment::Before) {
            return self.kill(pid);
        }
        let index = self.calls[number].len() - 1;
        if let Some(Fault { process, call: from, number: expected, act }) = self.fault
            && process == number
            && (index == from || index > from && matches!(act, Act::Fail(_)))
            && !self.fired
        {
            match act {
                // After it.
                Act::Kill(_) => {}
                Act::Fail(_) if call != expected => {}
                Act::Fail(errno) => {
                    // The kernel closes in any case, and then says what went wrong.
                    if call != libc::SYS_close.cast_unsigned() {
                        sys::skip_call(pid);
                    }
                    self.tracee(pid).failing = Some(errno);
                    self.fired = true;
                }
                Act::Pause => {
                    self.fired = true;
                    self.paused = Some(pid);
                    return;
                }
            }
        }
        self.go_on(pid, 0);
    }

    fn leaving(&mut self, pid: libc::pid_t) {
        if self.is_due(pid, Moment::After) {
            return self.kill(pid);
        }
        if let Some(errno) = self.tracee(pid).failing.take() {
            sys::fail_call(pid, errno);
        }
        self.go_on(pid, 0);
    }

    /// Whether the process is to be killed at this side of its latest call.
    fn is_due(&mut self, pid: libc::pid_t, now: Moment) -> bool {
        let number = self.tracee(pid).number;
        let latest = self.calls[number].len().checked_sub(1);
        matches!(self.fault, Some(Fault { process, call, act: Act::Kill(moment), .. })
            if !self.fired && process == number && Some(call) == latest && moment == now)
    }

    fn kill(&mut self, pid: libc::pid_t) {
        self.fired = true;
        // Not waited for yet, so the number is its own.
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    fn go_on(&mut self, pid: libc::pid_t, signal: i32) {
        sys::resume(pid, self.until(pid), signal);
    }

    /// Stopping at each call takes time, so it is done only where calls matter.
    fn until(&self, pid: libc::pid_t) -> Until {
        let tracee = &self.alive[&pid];
        let counts = match self.fault {
            None => true,
            Some(_) if self.followed == Some(tracee.number) => true,
            Some(fault) => fault.process == tracee.number && (!self.fired || tracee.failing.is_some()),
        };
        if counts && !tracee.is_monitor { Until::NextCall } else { Until::NextEvent }
    }

    fn tracee(&mut self, pid: libc::pid_t) -> &mut Tracee {
        self.alive.get_mut(&pid).unwrap()
    }
}
