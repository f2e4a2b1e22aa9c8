//! `kill`: delivers a signal and returns. The grace belongs to the caller, nothing is escalated by timer.
//!
//! | signal | running | created | stopped |
//! |---|---|---|---|
//! | TERM INT QUIT HUP PWR RTMIN+3 | asks for a shutdown as the monitor can be asked | SIGKILL | releases, succeeds |
//! | KILL | SIGKILL, waits, releases | the same | releases, succeeds |
//! | any other | delivered as it is | delivered as it is | `container not running` |
//!
//! A frozen container is thawed once SIGKILL is under way, whoever froze it: on cgroup v1 it could not die otherwise. Any other
//! signal waits, as with runc, until the container is resumed; a monitor cannot be asked for a shutdown meanwhile, so it gets SIGTERM,
//! or SIGKILL if it ignores that.
//!
//! Signals go out without the lock, which is taken only for the release: a container whose start hangs can be killed.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use urunc_state::{ContainerId, Deadline, Delivery, Process, Record, Seen, Signal, Status, Waited};
use urunc_vmm::control::{self, Control};
use urunc_vmm::{ControlPoint, Shutdown, Unasked};

use super::plan::Frozen;
use super::start::CONTROL_SOCKET;
use super::{KILL_PATIENCE, LifecycleError, Runtime, teardown};
use crate::cgroup::thaw_by_state_file;

/// How long a monitor may take to answer a request.
const CONTROL_PATIENCE: Duration = Duration::from_secs(15);

/// What a signal means for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// End in an orderly way.
    Stop,
    /// End now.
    Kill,
    /// Passed on as it is.
    Other,
}

fn meaning(signal: Signal) -> Meaning {
    /// SIGRTMIN+3, by which systemd is asked to halt.
    const RTMIN_3: u8 = 37;
    match signal {
        Signal::KILL => Meaning::Kill,
        Signal::TERM | Signal::INT | Signal::QUIT | Signal::HUP | Signal::PWR => Meaning::Stop,
        other if other.number() == RTMIN_3 => Meaning::Stop,
        _ => Meaning::Other,
    }
}

/// What is done to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Deliver(Signal),
    DeliverAndWait,
    /// By the control interface; with the signal if that fails.
    Ask {
        otherwise: Signal,
    },
}

/// Decides what a signal does to a live process. Init and some monitors ignore SIGTERM as pid 1 of their namespace.
fn decide(signal: Signal, status: Status, shutdown: Shutdown) -> Action {
    match (meaning(signal), status) {
        (Meaning::Kill, _) => Action::DeliverAndWait,
        (Meaning::Other, _) => Action::Deliver(signal),
        (Meaning::Stop, Status::Creating | Status::Created | Status::Stopped) => {
            Action::Deliver(Signal::KILL)
        }
        (Meaning::Stop, Status::Running) if matches!(shutdown, Shutdown::Control { .. }) => {
            Action::Ask { otherwise: unasked(shutdown) }
        }
        (Meaning::Stop, Status::Running | Status::Paused) => Action::Deliver(unasked(shutdown)),
    }
}

/// What ends a monitor that is not asked.
fn unasked(shutdown: Shutdown) -> Signal {
    match shutdown.unasked() {
        Unasked::Terminate => Signal::TERM,
        Unasked::Kill => Signal::KILL,
    }
}

impl Runtime {
    /// Sends `signal` to a container.
    ///
    /// # Errors
    /// [`LifecycleError::NotRunning`] for a signal that is no request to end, if there is no process; [`LifecycleError::Store`] if there is
    /// no container; [`LifecycleError::Immortal`] if SIGKILL has no effect.
    pub fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), LifecycleError> {
        // A second time only if, while we waited for the lock, its holder made a process.
        for _ in 0..2 {
            let record = self.store.read(id)?;
            let Seen { status, process } = record.look()?;
            // One that has ended and that nobody has waited for yet would take any signal, to no effect.
            if let Some(process) = process.filter(|_| status != Status::Stopped) {
                match decide(signal, status, shutdown_of(&record)) {
                    Action::Deliver(signal) => {
                        let delivery = process.signal(signal)?;
                        if signal == Signal::KILL {
                            thaw_by_state_file(record.urunc.freezer.as_deref());
                        }
                        if delivery == Delivery::Delivered {
                            return Ok(());
                        }
                    }
                    Action::DeliverAndWait => kill_and_wait(id, &process, record.urunc.freezer.as_deref())?,
                    Action::Ask { otherwise } => {
                        if self.ask(id, &record, &process, otherwise)? == Delivery::Delivered {
                            return Ok(());
                        }
                    }
                }
            }
            if meaning(signal) == Meaning::Other {
                break;
            }
            if self.release_dead(id)? {
                return Ok(());
            }
        }
        Err(LifecycleError::NotRunning { signal, id: id.clone() })
    }

    /// Asks the guest to shut down. A monitor that cannot be asked is ended by `otherwise`: the caller wants an end.
    fn ask(
        &self,
        id: &ContainerId,
        record: &Record,
        process: &Process,
        otherwise: Signal,
    ) -> Result<Delivery, LifecycleError> {
        let asked = Frozen::of(record).map_err(|error| error.to_string()).and_then(|frozen| {
            let mut control =
                self.control(id, &frozen, process).map_err(|error| crate::report::chain(&error))?;
            urunc_vmm::stop::request_shutdown(process.pidfd(), frozen.shutdown, Some(&mut control))
                .map_err(|error| crate::report::chain(&error))
        });
        match asked {
            Ok(urunc_vmm::stop::Delivery::Delivered) => Ok(Delivery::Delivered),
            Ok(urunc_vmm::stop::Delivery::Gone) => Ok(Delivery::Gone),
            Err(error) => {
                log::warn!(
                    "cannot ask the guest of container {id} to shut down, so its monitor is ended: {error}"
                );
                Ok(process.signal(otherwise)?)
            }
        }
    }

    /// A conversation with a running monitor.
    fn control(
        &self,
        id: &ContainerId,
        frozen: &Frozen,
        process: &Process,
    ) -> Result<Control, LifecycleError> {
        let point = frozen.control.as_ref().ok_or_else(|| LifecycleError::NoControl { id: id.clone() })?;
        let stream = match point {
            ControlPoint::Qmp | ControlPoint::CloudHypervisor => {
                let directory = self.store.directory(id)?;
                let path = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", directory.as_raw_fd());
                control::connect(Path::new(&path), CONTROL_PATIENCE)?
            }
            ControlPoint::Firecracker { path } => {
                let root = format!("/proc/{}/root", process.pid());
                let root =
                    rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                        .map_err(|errno| LifecycleError::Wait { id: id.clone(), source: errno.into() })?;
                let pid = rustix::process::Pid::from_raw(process.pid().get())
                    .ok_or_else(|| LifecycleError::NoControl { id: id.clone() })?;
                control::connect_below(root.as_fd(), path, pid, CONTROL_PATIENCE)?
            }
        };
        Ok(Control::open(stream, point.protocol(), CONTROL_PATIENCE)?)
    }

    /// Releases what a dead container holds, and says whether it was dead. Another command may have removed it meanwhile:
    /// then there is nothing to do.
    fn release_dead(&self, id: &ContainerId) -> Result<bool, LifecycleError> {
        let mut locked = match self.lock(id) {
            Err(LifecycleError::Store(urunc_state::StoreError::NotFound { .. })) => return Ok(true),
            result => result?,
        };
        let record = locked.record();
        let Seen { status, process } = record.look()?;
        // A record without a process and without a command that holds the lock is what a killed create leaves.
        if process.is_some() && status != Status::Stopped {
            return Ok(false);
        }
        if record.recorded_status() != Status::Stopped || !record.urunc.resources.is_empty() {
            teardown::release(&mut locked, None)?;
        }
        Ok(true)
    }
}

/// Kills `process`, thaws it by the file `freezer`, and waits until it is gone.
pub(super) fn kill_and_wait(
    id: &ContainerId,
    process: &Process,
    freezer: Option<&Path>,
) -> Result<(), LifecycleError> {
    if process.signal(Signal::KILL)? == Delivery::Gone {
        return Ok(());
    }
    // Not earlier: what is thawed with the signal pending runs no instruction of its own any more.
    thaw_by_state_file(freezer);
    match process.wait(Deadline::after(KILL_PATIENCE))? {
        Waited::Exited => Ok(()),
        Waited::TimedOut => {
            Err(LifecycleError::Immortal { id: id.clone(), seconds: KILL_PATIENCE.as_secs() })
        }
    }
}

fn shutdown_of(record: &Record) -> Shutdown {
    // A record without a readable plan still must be stoppable.
    Frozen::of(record).map_or(Shutdown::Kill, |frozen| frozen.shutdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_does_what_it_means() {
        let winch = Signal::WINCH;
        let control = |otherwise| Shutdown::Control { otherwise };
        let ask = |otherwise| Action::Ask { otherwise };
        for (signal, status, shutdown, action) in [
            (Signal::TERM, Status::Running, Shutdown::Terminate, Action::Deliver(Signal::TERM)),
            (Signal::TERM, Status::Running, control(Unasked::Terminate), ask(Signal::TERM)),
            // Firecracker, if it does not answer.
            (Signal::TERM, Status::Running, control(Unasked::Kill), ask(Signal::KILL)),
            // Monitors section 9, number 23: spt and Firecracker ignore TERM as pid 1.
            (Signal::TERM, Status::Running, Shutdown::Kill, Action::Deliver(Signal::KILL)),
            (Signal::HUP, Status::Paused, Shutdown::Kill, Action::Deliver(Signal::KILL)),
            // A frozen monitor answers nobody.
            (Signal::TERM, Status::Paused, control(Unasked::Terminate), Action::Deliver(Signal::TERM)),
            (Signal::TERM, Status::Paused, control(Unasked::Kill), Action::Deliver(Signal::KILL)),
            (Signal::TERM, Status::Created, Shutdown::Terminate, Action::Deliver(Signal::KILL)),
            (Signal::KILL, Status::Created, Shutdown::Terminate, Action::DeliverAndWait),
            (Signal::KILL, Status::Running, Shutdown::Terminate, Action::DeliverAndWait),
            // Upstream issue 594: a resize is not a stop.
            (winch, Status::Running, Shutdown::Kill, Action::Deliver(winch)),
        ] {
            assert_eq!(decide(signal, status, shutdown), action, "{signal} {status} {shutdown:?}");
        }
    }
}
