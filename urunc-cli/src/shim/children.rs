//! How processes end. The shim is a subreaper: what `urunc create` leaves behind becomes its child.
//!
//! Nothing here waits for "any child and takes its status": that steals exit statuses from whoever runs a command at the
//! same time. Every process of a container is waited for on its own pidfd by a thread of its own. What else the pod's containers
//! orphan is looked at without being taken, and reaped by its number once it is clear that nobody waits for it.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::{lock, sys};

/// Stack of a thread that only waits.
const SMALL_STACK: usize = 128 << 10;
/// How long a stranger may stay a zombie if the news of an unrelated event never comes.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status, or 128 plus the signal.
    pub status: u32,
    /// When we learnt of it.
    pub at: SystemTime,
}

/// All children of the shim.
#[derive(Debug, Default)]
pub struct Children {
    /// Read-locked while a command runs whose own children may become ours, with numbers that nobody knows yet.
    commands: RwLock<()>,
    watched: Mutex<HashSet<Pid>>,
    news: (Mutex<u64>, Condvar),
}

/// While it lives, no stranger is reaped.
#[derive(Debug)]
pub struct Busy<'a> {
    guard: Option<RwLockReadGuard<'a, ()>>,
    children: &'a Children,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.guard = None;
        self.children.tell();
    }
}

impl Children {
    /// To be held while a command runs, until the processes that it left behind are watched.
    pub fn busy(&self) -> Busy<'_> {
        let guard = self.commands.read().unwrap_or_else(PoisonError::into_inner);
        self.tell();
        Busy { guard: Some(guard), children: self }
    }

    /// Calls `then` once, in a thread of its own, when our child `pid` has ended.
    ///
    /// # Errors
    /// What the system says, if the process cannot be opened or the thread cannot be made.
    pub fn watch(
        self: &Arc<Self>,
        pid: Pid,
        then: impl FnOnce(Exit) + Send + 'static,
    ) -> io::Result<OwnedFd> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let waited = pidfd.try_clone()?;
        lock(&self.watched).insert(pid);
        let children = Arc::clone(self);
        let spawned =
            thread::Builder::new().name(format!("wait {pid}")).stack_size(SMALL_STACK).spawn(move || {
                let exit = wait(&waited);
                lock(&children.watched).remove(&pid);
                children.tell();
                then(exit);
            });
        if let Err(error) = spawned {
            lock(&self.watched).remove(&pid);
            return Err(error);
        }
        Ok(pidfd)
    }

    /// Reaps orphans for ever.
    pub fn reap_strangers(&self) {
        loop {
            let seen = *lock(&self.news.0);
            // Not found means that there is no child at all.
            let Some(pid) = sys::first_zombie() else {
                self.wait_for_news(seen);
                continue;
            };
            if !self.reap(pid) {
                self.wait_for_news(seen);
            }
        }
    }

    /// Reaps a zombie if it is a stranger. `false` if it belongs to somebody, who will take care of it.
    fn reap(&self, pid: Pid) -> bool {
        let _no_commands = match self.commands.try_write() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if lock(&self.watched).contains(&pid) {
            return false;
        }
        // Should it have been reaped since it was seen, its number cannot be that of another child: only commands make children.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        true
    }

    fn tell(&self) {
        *lock(&self.news.0) += 1;
        self.news.1.notify_all();
    }

    fn wait_for_news(&self, seen: u64) {
        let told = lock(&self.news.0);
        // A timeout is as good as news, and so is a poisoned lock.
        let _ = self.news.1.wait_timeout_while(told, LOOK_AGAIN, |now| *now == seen);
    }
}

fn wait(pidfd: &OwnedFd) -> Exit {
    let ended = loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => break Some(status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => {
                log::error!("cannot learn how a process ended: {errno}");
                break None;
            }
        }
    };
    let status = ended.and_then(|status| {
        let signal = status.terminating_signal().map(|signal| 128 + signal);
        u32::try_from(status.exit_status().or(signal)?).ok()
    });
    // 255 is what containerd itself assumes where nothing is known.
    Exit { status: status.unwrap_or(255), at: SystemTime::now() }
}
