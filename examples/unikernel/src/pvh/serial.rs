//! The first serial port (16550), which is every monitor's console. It needs no setting up where it is emulated.

use crate::port::{NOBODY, in8, out8};

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = DATA + 5;
/// Line status: a byte has come in; the last one sent is gone.
const RECEIVED: u8 = 1;
const SENT: u8 = 0x20;

/// Writes all of the text. Without a serial port it is gone without a trace.
pub(super) fn write(text: &[u8]) {
    for byte in text {
        while in8(LINE_STATUS) & SENT == 0 {
            core::hint::spin_loop();
        }
        out8(DATA, *byte);
    }
}

/// A byte that came in.
pub(super) fn read() -> Option<u8> {
    let status = in8(LINE_STATUS);
    if status == NOBODY || status & RECEIVED == 0 { None } else { Some(in8(DATA)) }
}
