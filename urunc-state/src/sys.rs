//! The one unsafe call of this crate. Everything else goes through rustix's safe functions.
#![expect(unsafe_code, reason = "rustix offers real-time signals only through an unchecked constructor")]

use crate::signal::Signal;

/// The signal as rustix takes it.
pub(crate) fn raw_signal(signal: Signal) -> rustix::process::Signal {
    // SAFETY: the number is that of a signal which no C library reserves: `Signal` cannot hold 0, 32 or 33.
    unsafe { rustix::process::Signal::from_raw_unchecked(i32::from(signal.number())) }
}
