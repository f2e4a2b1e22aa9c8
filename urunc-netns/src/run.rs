//! Work inside a network namespace, on an operating-system thread of its own.
//!
//! ```text
//!   caller ── spawn ──▶ thread: setns ──▶ verify by inode ──▶ closure with the token ──▶ exit
//!      ◀──────────────────────────────── value, error or panic ────────────────────────────┘
//! ```
//! The thread is never handed back to anybody, so there is nothing to restore and nothing to get wrong (F2,
//! N17). What the closure does is `discover.rs`, `attach.rs` and the rest.

use std::any::Any;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::namespace::{HostNetwork, NetNs, NsId};
use std::os::fd::AsFd;

/// Proof that this very thread is inside a certain network namespace.
///
/// Whatever depends on the calling thread's namespace asks for it. It exists only while the closure given to
/// [`NetNs::run`] runs, and can be neither kept nor sent to another thread:
///
/// ```compile_fail,E0521
/// # fn f(ns: &urunc_netns::NetNs) {
/// let mut kept = None;
/// ns.run(|here| kept = Some(here));
/// # }
/// ```
/// ```compile_fail
/// # fn f(ns: &urunc_netns::NetNs) {
/// let kept = ns.run(|here| here);
/// # }
/// ```
/// ```compile_fail,E0277
/// # fn f(ns: &urunc_netns::NetNs) {
/// ns.run(|here| std::thread::scope(|s| { s.spawn(|| urunc_netns::discover(here)); }));
/// # }
/// ```
/// ```compile_fail,E0277
/// # fn f(ns: &urunc_netns::NetNs) {
/// let (sender, receiver) = std::sync::mpsc::channel::<&urunc_netns::Here>();
/// std::thread::spawn(move || receiver.recv());
/// # }
/// ```
#[derive(Debug)]
pub struct Here {
    id: NsId,
    /// Neither `Send` nor `Sync`: what is true of this thread is not true of another.
    _this_thread: PhantomData<*const ()>,
}

impl Here {
    /// The identity of the namespace that this thread is in.
    #[must_use]
    pub fn id(&self) -> NsId {
        self.id
    }
}

/// Why a closure did not run, or did not end well, inside a namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The namespace is the host's own, and nobody said that this is wanted.
    #[error("{id} is the host's own network namespace; a guest needs one of its own")]
    HostNetwork {
        /// The namespace.
        id: NsId,
    },
    /// No thread could be started.
    #[error("cannot start a thread to enter a network namespace")]
    Thread {
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread could not enter.
    #[error("cannot enter network namespace {id}")]
    Enter {
        /// The namespace.
        id: NsId,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread entered and is not where it should be; nothing was done there.
    #[error("entered network namespace {found} instead of {expected}")]
    Elsewhere {
        /// Where the thread should be.
        expected: NsId,
        /// Where it is.
        found: NsId,
    },
    /// The closure panicked. The panic ended its thread and nothing else.
    #[error("the work inside a network namespace panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
}

impl NetNs {
    /// Runs `work` inside this namespace and gives back what it returns.
    ///
    /// It runs on a thread of its own, which ends before this returns; the caller's namespace is not touched,
    /// whatever happens. Sockets and TAP devices opened there belong to the namespace for good and may be
    /// carried out. Three things to know inside:
    ///
    /// - `/proc/net` and `/proc/self/net` show the namespace of the process's *first* thread: use
    ///   `/proc/thread-self/net`, or better, netlink. `/proc/sys/net` does follow the thread.
    /// - A child process started there is in the namespace too; if it asked for a parent-death signal, that
    ///   comes when the thread ends.
    /// - After the return the thread may linger in the process for a moment, see
    ///   [`wait_single_threaded`](crate::wait_single_threaded).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let ns = urunc_netns::NetNs::open("/run/netns/pod")?;
    /// let found = ns.run(|here| urunc_netns::discover(here))??;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RunError::HostNetwork`] unless [`NetNs::with_host`] allowed it; the other variants of [`RunError`]
    /// say which step failed. Only with [`RunError::Panicked`] has any of `work` been done.
    pub fn run<T, F>(&self, work: F) -> Result<T, RunError>
    where
        F: FnOnce(&Here) -> T + Send,
        T: Send,
    {
        if self.host == HostNetwork::Refuse && self.is_hosts() {
            return Err(RunError::HostNetwork { id: self.id() });
        }
        self.run_anywhere(work)
    }

    /// As [`NetNs::run`], be it the host's own or not.
    pub(crate) fn run_anywhere<T, F>(&self, work: F) -> Result<T, RunError>
    where
        F: FnOnce(&Here) -> T + Send,
        T: Send,
    {
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, || self.enter().map(|here| work(&here)))
                .map_err(|source| RunError::Thread { source })?;
            thread.join().unwrap_or_else(|panic| Err(RunError::Panicked { message: message(&*panic) }))
        })
    }

    /// Moves the calling thread, for good, and makes sure of it.
    fn enter(&self) -> Result<Here, RunError> {
        let id = self.id();
        let failed = |source: io::Error| RunError::Enter { id, source };
        move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| failed(errno.into()))?;
        let found = NsId::at("/proc/thread-self/ns/net").map_err(failed)?;
        if found != id {
            return Err(RunError::Elsewhere { expected: id, found });
        }
        Ok(Here { id, _this_thread: PhantomData })
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

/// The process did not become single-threaded in time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StillThreaded {
    /// Others are still there.
    #[error("this process still has {threads} threads")]
    Others {
        /// How many threads there are, the caller included.
        threads: usize,
    },
    /// Nobody can tell.
    #[error("cannot count this process's threads in /proc/self/task")]
    Count {
        /// What the kernel said.
        source: io::Error,
    },
}

/// Waits until the calling thread is its process's only one.
///
/// `join` returns when the kernel has cleared the thread's id, a moment before the thread leaves the thread
/// group. In that moment `unshare(CLONE_NEWUSER)` and `setns` into a mount namespace fail with EINVAL: 28 and
/// 6 times in 10,000. So call this after [`NetNs::run`] and before such a call, or a fork that leads to one.
/// Better still, make such calls in a process that never had a second thread.
///
/// # Errors
/// [`StillThreaded::Others`] if at `deadline` there is more than one thread.
pub fn wait_single_threaded(deadline: Instant) -> Result<(), StillThreaded> {
    loop {
        let threads =
            fs::read_dir("/proc/self/task").map_err(|source| StillThreaded::Count { source })?.count();
        if threads == 1 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(StillThreaded::Others { threads });
        }
        // The kernel offers no event for "a thread has left the group" before pidfds of threads (Linux 6.9).
        thread::sleep(Duration::from_micros(20));
    }
}
