//! Ends what hangs: the tracer waits without a limit, so that waiting costs nothing, and this thread limits it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Longer than any command takes that has nothing to wait for, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Watched {
    processes: Mutex<HashMap<libc::pid_t, OwnedFd>>,
    expired: AtomicBool,
}

/// Kills the processes that it watches when they are still there after a while. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    watched: Arc<Watched>,
    _alive: Sender<()>,
}

impl Watchdog {
    pub(super) fn new() -> Self {
        let (alive, ended) = mpsc::channel::<()>();
        let watched = Arc::new(Watched::default());
        let theirs = Arc::clone(&watched);
        std::thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                theirs.expired.store(true, Ordering::Relaxed);
                for process in theirs.processes.lock().unwrap().values() {
                    let _ = pidfd_send_signal(process, Signal::KILL);
                }
            }
        });
        Self { watched, _alive: alive }
    }

    pub(super) fn watch(&self, pid: libc::pid_t) {
        // A process that is dead already needs no watching.
        if let Ok(process) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
            self.watched.processes.lock().unwrap().insert(pid, process);
        }
    }

    pub(super) fn forget(&self, pid: libc::pid_t) {
        self.watched.processes.lock().unwrap().remove(&pid);
    }

    pub(super) fn has_expired(&self) -> bool {
        self.watched.expired.load(Ordering::Relaxed)
    }
}
