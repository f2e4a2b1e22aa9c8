//! `containerd-shim-urunc-v2`: the process between containerd and the containers of one pod.
//!
//! It answers containerd's task service, is the parent of the containers' processes and tells containerd how they end.
//! What is done to a container is done by the `urunc` binary beside it; the shim itself knows no monitor and no guest.
//!
//! ```text
//!   containerd ──"start"──▶ start ──spawns──▶ daemon (one per pod) ──runs──▶ urunc create, start, kill, delete …
//!        │                                      │ parent of (subreaper)
//!        ├──ttrpc──▶ service ─▶ pod ─▶ task     ├──▶ monitor, or a process of a delegated container
//!        ◀──ttrpc─── events ◀───── exits ◀──────┘    one thread per process waits for it on its pidfd
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`flags`], [`start`], [`delete`], [`info`] | what the binary does when containerd runs it |
//! | [`daemon`] | what stays: listens, until containerd sends `Shutdown` |
//! | [`service`], [`wait`] | ttrpc's side: requests in, answers out |
//! | [`pod`], [`create`], [`task`], [`process`] | the containers of a pod, the making of one, its life, each of its processes |
//! | [`children`] | how processes end |
//! | [`events`] | what containerd is told unasked |
//! | [`runtime`], [`settings`] | running `urunc` |
//! | [`stdio`], [`logger`], [`terminal`] | where a process's streams go |
//! | [`metadata`], [`grpc`], [`wire`] | annotations that only containerd knows |
//! | [`mounts`], [`stats`] | the rootfs, the counters |
//! | [`connect`], [`replace`] | sockets without waiting for ever, files without halves |

pub mod children;
pub mod connect;
pub mod create;
pub mod daemon;
pub mod delete;
mod error;
pub mod events;
pub mod flags;
pub mod grpc;
pub mod info;
pub mod logger;
pub mod metadata;
pub mod mounts;
pub mod orphans;
pub mod pod;
pub mod process;
pub mod replace;
pub mod runtime;
pub mod service;
pub mod settings;
pub mod start;
pub mod stats;
pub mod stdio;
mod sys;
pub mod task;
pub mod terminal;
pub mod wait;
pub mod wire;

use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use error::ShimError;
use flags::{Action, Flags};

use crate::report;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let flags = Flags::parse(std::env::args_os().skip(1));
    let result = flags.and_then(|flags| match flags.action {
        Action::Start => start::start(&flags),
        Action::Delete => delete::delete(&flags),
        Action::Serve => daemon::serve(&flags),
        Action::Info => info::print(),
        Action::Version => info::print_version(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", report::chain(&error));
            // containerd shows its user what `start` and `delete` say here; the daemon's goes to containerd's log.
            eprintln!("containerd-shim-urunc-v2: {}", report::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Locks. A thread that panicked ends the process in release builds, so nobody ever sees a half-changed value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
