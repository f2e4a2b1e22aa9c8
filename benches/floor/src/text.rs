//! Paths and numbers in fixed buffers.

use core::ffi::CStr;

/// A text that ends with a zero byte, of at most 511 bytes; what is longer becomes empty, which no path is.
#[derive(Debug)]
pub struct Text {
    bytes: [u8; 512],
}

impl Text {
    /// Joins parts.
    #[must_use]
    pub fn join(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; 512];
        let mut end = 0;
        for part in parts {
            match bytes.get_mut(end..end + part.len()) {
                Some(place) if end + part.len() < 512 => place.copy_from_slice(part),
                _ => return Self { bytes: [0; 512] },
            }
            end += part.len();
        }
        Self { bytes }
    }

    /// For system calls.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// A number in decimal.
#[derive(Debug)]
pub struct Decimal {
    bytes: [u8; 20],
    first: usize,
}

impl Decimal {
    /// Writes a number.
    #[must_use]
    pub fn new(mut number: u64) -> Self {
        let mut decimal = Self { bytes: [b'0'; 20], first: 20 };
        loop {
            decimal.first -= 1;
            if let Some(digit) = decimal.bytes.get_mut(decimal.first) {
                *digit = b'0' + (number % 10) as u8;
            }
            number /= 10;
            if number == 0 {
                return decimal;
            }
        }
    }

    /// Its digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.first..).unwrap_or_default()
    }
}

/// The number at the beginning of a text.
#[must_use]
pub fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}
