//! The command line: words between blanks, and the few that are commands.

/// The words of a command line, in order. A blank always separates; there is no quoting.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    rest: &'static [u8],
}

impl Words {
    /// The words of the given text.
    #[must_use]
    pub fn of(text: &'static [u8]) -> Self {
        Self { rest: text }
    }
}

impl Iterator for Words {
    type Item = &'static [u8];

    fn next(&mut self) -> Option<&'static [u8]> {
        let mut rest = self.rest;
        while let [b' ' | b'\t' | b'\n', after @ ..] = rest {
            rest = after;
        }
        let end = rest.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\n')).unwrap_or(rest.len());
        let (word, after) = rest.split_at_checked(end)?;
        self.rest = after;
        if word.is_empty() { None } else { Some(word) }
    }
}

/// What one word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `exit=N`: end with this status.
    Exit(u8),
    /// `burn=SECONDS`: keep the processor busy.
    Burn(u32),
    /// `print=MIB`: print so many mebibytes.
    Print(u32),
    /// `hold`: stay until told to stop.
    Hold,
    /// `echo`: repeat what comes in on the console.
    Echo,
    /// `ip=A.B.C.D`, also as urunc tells it to guests of type mewz (`ip=`) and mirage (`--ipv4=`): the address to answer for.
    Address([u8; 4]),
    /// `answer`: answer to who asks for that address.
    Answer,
    /// A command whose number is none, or too large.
    Malformed,
    /// Any other word; monitors add theirs, so they are no error.
    Other,
}

impl Command {
    /// What this word asks for.
    #[must_use]
    pub fn of(word: &[u8]) -> Self {
        if let Some(value) = word.strip_prefix(b"exit=") {
            return match number(value) {
                Some(status @ 0..=255) => Self::Exit((status & 0xff) as u8),
                _ => Self::Malformed,
            };
        }
        if let Some(value) = word.strip_prefix(b"burn=") {
            return match number(value) {
                Some(seconds) => Self::Burn(seconds),
                None => Self::Malformed,
            };
        }
        if let Some(value) = word.strip_prefix(b"print=") {
            return match number(value) {
                Some(mebibytes) => Self::Print(mebibytes),
                None => Self::Malformed,
            };
        }
        if let Some(value) = word.strip_prefix(b"ip=").or_else(|| word.strip_prefix(b"--ipv4=")) {
            // Other guests have other uses for such words.
            return address(value).map_or(Self::Other, Self::Address);
        }
        match word {
            b"answer" => Self::Answer,
            b"hold" => Self::Hold,
            b"echo" => Self::Echo,
            _ => Self::Other,
        }
    }
}

/// An IPv4 address, with or without the length of its prefix.
fn address(text: &[u8]) -> Option<[u8; 4]> {
    let text = text.split(|byte| *byte == b'/').next()?;
    let mut parts = text.split(|byte| *byte == b'.');
    let mut address = [0; 4];
    for place in &mut address {
        *place = u8::try_from(number(parts.next()?)?).ok()?;
    }
    if parts.next().is_some() { None } else { Some(address) }
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    let mut value: u32 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u32::from(digit))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::{Command, Words};

    #[test]
    fn blanks_separate_words_and_nothing_else_does() {
        let cases: [(&[u8], &[&[u8]]); 5] = [
            (b"", &[]),
            (b"  \t\n ", &[]),
            (b"one", &[b"one"]),
            (b" one  two ", &[b"one", b"two"]),
            // As Firecracker adds to it.
            (b"a=\"b c\" pci=off", &[b"a=\"b", b"c\"", b"pci=off"]),
        ];
        for (line, words) in cases {
            assert!(Words::of(line).eq(words.iter().copied()), "{:?}", str::from_utf8(line));
        }
    }

    #[test]
    fn a_word_is_a_command_or_none_of_our_business() {
        let cases: [(&[u8], Command); 22] = [
            (b"hold", Command::Hold),
            (b"echo", Command::Echo),
            (b"exit=0", Command::Exit(0)),
            (b"exit=255", Command::Exit(255)),
            (b"exit=256", Command::Malformed),
            (b"exit=", Command::Malformed),
            (b"exit=-1", Command::Malformed),
            (b"exit=3x", Command::Malformed),
            (b"burn=10", Command::Burn(10)),
            (b"burn=4294967295", Command::Burn(u32::MAX)),
            (b"burn=4294967296", Command::Malformed),
            (b"print=100", Command::Print(100)),
            (b"print=", Command::Malformed),
            (b"answer", Command::Answer),
            (b"ip=10.0.0.2", Command::Address([10, 0, 0, 2])),
            (b"--ipv4=192.168.255.1/24", Command::Address([192, 168, 255, 1])),
            (b"ip=dhcp", Command::Other),
            (b"ip=1.2.3", Command::Other),
            (b"ip=1.2.3.4.5", Command::Other),
            (b"holding", Command::Other),
            (b"Hold", Command::Other),
            (b"exit", Command::Other),
        ];
        for (word, command) in cases {
            assert_eq!(Command::of(word), command, "{:?}", str::from_utf8(word));
        }
    }
}
