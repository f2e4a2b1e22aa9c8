//! Test builds only: a counter of the changes that this thread makes, which fails after the one asked for.
//! It stands at the few places through which every change goes, so a new step is covered without being listed.

use std::cell::Cell;
use std::io;

/// What the code does once the counter has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The change seems to have failed, and whoever asked for it cleans up.
    Error,
    /// The process seems to have died: nothing cleans up.
    Crash,
}

thread_local! {
    static ARMED: Cell<Option<(Fault, usize)>> = const { Cell::new(None) };
    static CRASHED: Cell<bool> = const { Cell::new(false) };
}

/// Lets the change number `count` on this thread, counted from 1, be the last good one before `fault`.
pub(crate) fn arm(fault: Fault, count: usize) {
    ARMED.set(Some((fault, count)));
    CRASHED.set(false);
}

/// Puts the fault away; says whether it had struck.
pub(crate) fn disarm() -> bool {
    CRASHED.set(false);
    ARMED.take().is_none()
}

/// One change has been made.
pub(crate) fn point() -> io::Result<()> {
    match ARMED.take() {
        Some((fault, 1)) => {
            CRASHED.set(fault == Fault::Crash);
            Err(io::Error::other("injected"))
        }
        Some((fault, count)) => {
            ARMED.set(Some((fault, count - 1)));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Whether whoever would clean up is to be taken for dead.
pub(crate) fn crashed() -> bool {
    CRASHED.get()
}
