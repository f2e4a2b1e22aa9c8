//! Text for people, without `core::fmt`: that is vectorised, and larger than the rest of the guest.

use core::mem::MaybeUninit;

use crate::platform::Platform;

/// What is longer goes out in several pieces.
const LIMIT: usize = 128;

/// A line under way. It goes out when it is complete, in one piece: a call to the monitor costs more than the text.
pub struct Line<'p, P: Platform> {
    platform: &'p P,
    /// The first `used` bytes are written. The others are not, not even with zeros: that would be vectorised.
    text: [MaybeUninit<u8>; LIMIT],
    used: usize,
}

impl<'p, P: Platform> Line<'p, P> {
    /// An empty line.
    pub fn new(platform: &'p P) -> Self {
        Self { platform, text: [MaybeUninit::uninit(); LIMIT], used: 0 }
    }

    /// Adds text.
    pub fn text(&mut self, text: &[u8]) -> &mut Self {
        for byte in text {
            if self.used == LIMIT {
                self.send();
            }
            if let Some(place) = self.text.get_mut(self.used) {
                place.write(*byte);
                self.used += 1;
            }
        }
        self
    }

    /// Adds a decimal number.
    pub fn number(&mut self, value: u64) -> &mut Self {
        if value >= 10 {
            self.number(value / 10);
        }
        self.text(&[b'0' + (value % 10) as u8])
    }

    /// Adds a byte as two hexadecimal digits.
    pub fn hex(&mut self, byte: u8) -> &mut Self {
        for nibble in [byte >> 4, byte & 0xf] {
            self.text(&[if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }]);
        }
        self
    }

    /// Ends the line and sends it.
    pub fn end(&mut self) {
        self.text(b"\n");
        self.send();
    }

    fn send(&mut self) {
        // SAFETY: that many bytes were written.
        let text = unsafe { core::slice::from_raw_parts(self.text.as_ptr().cast(), self.used) };
        self.platform.write(text);
        self.used = 0;
    }
}
