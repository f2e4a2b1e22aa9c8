//! From `create` to the monitor: the process that becomes it, and how it is told what to do.
//!
//! ```text
//!   create ── clone3, gated ──▶ init: gate · root · pivot · ready ──▶ waits on init.sock ── start's request ──▶ execve
//! ```
//!
//! [`spawn`] makes the process, [`child`] guards it until somebody answers for it, [`init`] is what runs in it, [`daemon`] is virtiofsd beside it, [`channel`] and [`protocol`] are the two conversations.

pub mod channel;
pub mod child;
pub mod console;
pub mod daemon;
pub mod foreground;
pub mod hooks;
pub mod ids;
pub mod init;
pub mod labels;
pub mod limits;
pub mod placeholder;
pub mod privileges;
pub mod protocol;
pub mod seccomp;
pub mod settings;
pub mod spawn;
mod sys;
pub use sys::heed_children;
pub mod watcher;

pub use sys::SignalFd;
