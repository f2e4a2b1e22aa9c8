//! A signal by number and name. Sending it is [`Process::signal`](crate::Process::signal)'s; what a signal means
//! for a monitor is decided elsewhere.

use std::fmt;
use std::str::FromStr;

/// A signal that exists: 1 to 31 and 34 to 64.
///
/// Zero is no signal, so nothing can be "probed" with it; 32 and 33 belong to the C library's threads.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(u8);

/// Numbers by name, signal(7) for x86 and ARM; aliases last.
const NAMES: [(&str, u8); 36] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", Signal::RT_MIN),
    ("RTMAX", Signal::RT_MAX),
    ("IOT", 6),
    ("CLD", 17),
    ("POLL", 29),
];

impl Signal {
    /// Terminal hung up.
    pub const HUP: Self = Self(1);
    /// Interrupt from the keyboard.
    pub const INT: Self = Self(2);
    /// Quit from the keyboard.
    pub const QUIT: Self = Self(3);
    /// Kill; cannot be caught.
    pub const KILL: Self = Self(9);
    /// Termination request, the default of `kill`.
    pub const TERM: Self = Self(15);
    /// Continue if stopped.
    pub const CONT: Self = Self(18);
    /// Window size changed.
    pub const WINCH: Self = Self(28);
    /// Power failure.
    pub const PWR: Self = Self(30);

    const RT_MIN: u8 = 34;
    const RT_MAX: u8 = 64;

    /// The signal with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        matches!(number, 1..=31 | Self::RT_MIN..=Self::RT_MAX).then_some(Self(number))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Takes what runc, Docker and kill(1) take: a number, or a name with or without `SIG`, in any case, with
    /// an offset from RTMIN or RTMAX.
    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let unknown = || UnknownSignal { signal: text.to_owned() };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return text.parse().ok().and_then(Self::from_number).ok_or_else(unknown);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(*number));
        }
        let offset = |digits: &str| digits.parse::<u8>().ok();
        let number = if let Some(digits) = name.strip_prefix("RTMIN+") {
            offset(digits).and_then(|n| Self::RT_MIN.checked_add(n))
        } else if let Some(digits) = name.strip_prefix("RTMAX-") {
            offset(digits).and_then(|n| Self::RT_MAX.checked_sub(n))
        } else {
            None
        };
        number.filter(|n| *n >= Self::RT_MIN).and_then(Self::from_number).ok_or_else(unknown)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRTMIN+{}", self.0 - Self::RT_MIN),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal {signal:?}: give a number (1-31, 34-64) or a name such as TERM, SIGKILL or RTMIN+3")]
pub struct UnknownSignal {
    /// The text.
    pub signal: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_in_every_spelling_of_the_field() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("9", 9),
            ("KILL", 9),
            ("WINCH", 28),
            ("SIGIO", 29),
            ("SIGPOLL", 29),
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMAX", 64),
            ("64", 64),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "", "0", "-9", "+9", "65", "32", "33", "256", "SIG", "FOO", "RTMIN+31", "RTMAX-31", "RTMIN-1",
            "1x",
        ] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_signal_has_a_name_that_reads_back() {
        for signal in (0..=u8::MAX).filter_map(Signal::from_number) {
            assert_eq!(signal.to_string().parse::<Signal>(), Ok(signal));
        }
    }
}
