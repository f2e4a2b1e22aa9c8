//! As much of the D-Bus protocol (dbus.freedesktop.org, "D-Bus Specification" 0.42) as it takes to call methods of systemd
//! and to hear its answer: little endian, one conversation, one call at a time, no descriptors.
//!
//! The crates for it bring either an asynchronous executor or a second layer of system calls; what is needed of them are
//! five argument types.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use urunc_state::Deadline;

/// systemd's own socket, to which root speaks without a bus between, and the system's bus.
const SOCKETS: [(&str, Peer); 2] =
    [("/run/systemd/private", Peer::Direct), ("/run/dbus/system_bus_socket", Peer::Bus)];
/// What systemd is called on a bus.
const DESTINATION: &str = "org.freedesktop.systemd1";
/// More than anything that systemd answers with here.
const MAX_MESSAGE: usize = 1 << 20;

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Nobody listens.
    #[error("cannot reach systemd by {path}")]
    Connect {
        /// The last socket that was tried.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The conversation broke off, or took too long.
    #[error("the conversation with systemd broke off")]
    Io(#[source] io::Error),
    /// The other side speaks something else.
    #[error("systemd's answer is no D-Bus message: {0}")]
    Malformed(&'static str),
    /// It says no.
    #[error("systemd says {text:?} ({name})")]
    Refused {
        /// Name of the error.
        name: String,
        /// What it says.
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Direct,
    Bus,
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `s`
    Text(String),
    /// `b`
    Flag(bool),
    /// `t`
    Number(u64),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
}

/// A property with its name.
pub type Property = (&'static str, Value);

/// Arguments, with their signature.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    signature: String,
    bytes: Vec<u8>,
}

impl Arguments {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn put_u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn put_text(&mut self, text: &str) {
        self.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn put_signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// The length, and then from the next place for an element what `fill` puts.
    fn put_array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.put_u32(0);
        let length = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        fill(self);
        let bytes = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX).to_le_bytes();
        if let Some(place) = self.bytes.get_mut(length..length + 4) {
            place.copy_from_slice(&bytes);
        }
    }

    fn put_variant(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.put_signature("s");
                self.put_text(text);
            }
            Value::Flag(flag) => {
                self.put_signature("b");
                self.put_u32(u32::from(*flag));
            }
            Value::Number(number) => {
                self.put_signature("t");
                self.align(8);
                self.bytes.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => {
                self.put_signature("au");
                self.put_array(4, |list| numbers.iter().for_each(|number| list.put_u32(*number)));
            }
            Value::Bytes(bytes) => {
                self.put_signature("ay");
                self.put_array(1, |list| list.bytes.extend(bytes));
            }
        }
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.signature.push('s');
        self.put_text(text);
        self
    }

    pub(super) fn flag(mut self, flag: bool) -> Self {
        self.signature.push('b');
        self.put_u32(u32::from(flag));
        self
    }

    /// `a(sv)`
    pub(super) fn properties(mut self, properties: &[Property]) -> Self {
        self.signature.push_str("a(sv)");
        self.put_array(8, |list| {
            for (name, value) in properties {
                list.align(8);
                list.put_text(name);
                list.put_variant(value);
            }
        });
        self
    }

    /// `a(sa(sv))` without elements.
    pub(super) fn no_further_units(mut self) -> Self {
        self.signature.push_str("a(sa(sv))");
        self.put_array(8, |_| {});
        self
    }
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

fn encode(serial: u32, method: Method<'_>, destination: &str, arguments: &Arguments) -> Vec<u8> {
    let mut message = Arguments::default();
    message.bytes.extend([b'l', METHOD_CALL, 0, 1]);
    message.put_u32(u32::try_from(arguments.bytes.len()).unwrap_or(u32::MAX));
    message.put_u32(serial);
    message.put_array(8, |fields| {
        let texts = [
            (1, "o", method.path),
            (2, "s", method.interface),
            (3, "s", method.member),
            (6, "s", destination),
        ];
        for (code, signature, text) in texts {
            fields.align(8);
            fields.bytes.push(code);
            fields.put_signature(signature);
            fields.put_text(text);
        }
        if !arguments.signature.is_empty() {
            fields.align(8);
            fields.bytes.push(8);
            fields.put_signature("g");
            fields.put_signature(&arguments.signature);
        }
    });
    message.align(8);
    message.bytes.extend(&arguments.bytes);
    message.bytes
}

/// A message from the other side.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    kind: u8,
    reply_to: Option<u32>,
    pub(super) member: String,
    error: String,
    body: Vec<u8>,
    at: usize,
}

/// Reads values one after the other. What is not there is an error.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const SHORT: BusError = BusError::Malformed("it ends too early");

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BusError> {
        let end = self.at.checked_add(length).ok_or(SHORT)?;
        let taken = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Result<u8, BusError> {
        self.take(1)?.first().copied().ok_or(SHORT)
    }

    fn number(&mut self) -> Result<u32, BusError> {
        self.align(4);
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| SHORT)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Result<String, BusError> {
        let length = usize::try_from(self.number()?).map_err(|_| SHORT)?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn signature(&mut self) -> Result<&'a [u8], BusError> {
        let length = self.byte()?.into();
        let text = self.take(length)?;
        self.take(1)?;
        Ok(text)
    }
}

/// The first 16 bytes: how long are the fields, and how long is the body?
fn lengths(start: [u8; 16]) -> Result<(usize, usize), BusError> {
    let mut reader = Reader { bytes: &start, at: 4 };
    if start[0] != b'l' {
        return Err(BusError::Malformed("it is not little endian"));
    }
    let mut number = || usize::try_from(reader.number()?).map_err(|_| SHORT);
    let (body, _serial, fields) = (number()?, number()?, number()?);
    if fields > MAX_MESSAGE || body > MAX_MESSAGE {
        return Err(BusError::Malformed("it is too long"));
    }
    Ok((fields, body))
}

/// Understands a whole message, whose body has `body` bytes.
fn decode(bytes: &[u8], body: usize) -> Result<Message, BusError> {
    let start = bytes.len().checked_sub(body).ok_or(SHORT)?;
    let (head, body) = bytes.split_at(start);
    let mut message = Message { kind: head.get(1).copied().ok_or(SHORT)?, ..Message::default() };
    let mut reader = Reader { bytes: head, at: 12 };
    let end =
        usize::try_from(reader.number()?).ok().and_then(|length| length.checked_add(16)).ok_or(SHORT)?;
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        match (code, reader.signature()?) {
            (3, b"s") => message.member = reader.text()?,
            (4, b"s") => message.error = reader.text()?,
            (5, b"u") => message.reply_to = Some(reader.number()?),
            (_, b"s" | b"o") => drop(reader.text()?),
            (_, b"u") => drop(reader.number()?),
            (_, b"g") => drop(reader.signature()?),
            _ => return Err(BusError::Malformed("it has a header field of unknown type")),
        }
    }
    message.body = body.to_owned();
    Ok(message)
}

impl Message {
    fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: self.at }
    }

    /// The next argument, which is a text or a path.
    pub(super) fn text(&mut self) -> Result<String, BusError> {
        let mut reader = self.reader();
        let text = reader.text()?;
        self.at = reader.at;
        Ok(text)
    }

    /// The next argument, which is a number.
    pub(super) fn number(&mut self) -> Result<u32, BusError> {
        let mut reader = self.reader();
        let number = reader.number()?;
        self.at = reader.at;
        Ok(number)
    }

    /// The next argument, which is a text in a variant.
    pub(super) fn variant(&mut self) -> Result<String, BusError> {
        let mut reader = self.reader();
        if reader.signature()? != b"s" {
            return Err(BusError::Malformed("a property is no text"));
        }
        let text = reader.text()?;
        self.at = reader.at;
        Ok(text)
    }
}

/// A conversation with systemd.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    deadline: Deadline,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Message>,
}

impl Connection {
    /// Begins one, all of which must be over by `deadline`.
    pub(super) fn open(deadline: Deadline) -> Result<Self, BusError> {
        let mut last = None;
        for (path, peer) in SOCKETS {
            match UnixStream::connect(path) {
                Ok(stream) => return Self::over(stream, peer, deadline),
                Err(source) => last = last.or(Some(BusError::Connect { path: path.into(), source })),
            }
        }
        Err(last.unwrap_or(BusError::Connect {
            path: Path::new("").into(),
            source: io::ErrorKind::NotFound.into(),
        }))
    }

    fn over(stream: UnixStream, peer: Peer, deadline: Deadline) -> Result<Self, BusError> {
        let mut connection = Self { stream, deadline, serial: 0, signals: VecDeque::new() };
        connection.authenticate()?;
        if peer == Peer::Bus {
            let bus =
                |member| Method { path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus", member };
            connection.call_of("org.freedesktop.DBus", bus("Hello"), &Arguments::default())?;
            let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            connection.call_of("org.freedesktop.DBus", bus("AddMatch"), &Arguments::default().text(rule))?;
            let subscribe =
                Method { path: super::MANAGER, interface: super::MANAGER_INTERFACE, member: "Subscribe" };
            connection.call(subscribe, &Arguments::default())?;
        }
        Ok(connection)
    }

    /// As whom the kernel says that we are. `BEGIN` must not come together with the first message, which systemd (252) would then
    /// not look at before another one comes; it is sent at once, as libsystemd does.
    fn authenticate(&mut self) -> Result<(), BusError> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte)?;
            line.extend(byte);
            if line.len() > 512 {
                return Err(BusError::Malformed("its greeting does not end"));
            }
        }
        if !line.starts_with(b"OK ") {
            let text = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            return Err(BusError::Refused { name: "authentication".to_owned(), text });
        }
        Ok(())
    }

    /// Calls a method of systemd and returns its answer.
    pub(super) fn call(&mut self, method: Method<'_>, arguments: &Arguments) -> Result<Message, BusError> {
        self.call_of(DESTINATION, method, arguments)
    }

    fn call_of(
        &mut self,
        destination: &str,
        method: Method<'_>,
        arguments: &Arguments,
    ) -> Result<Message, BusError> {
        self.serial += 1;
        let message = encode(self.serial, method, destination, arguments);
        self.write(&message)?;
        loop {
            let mut message = self.receive()?;
            match message.kind {
                METHOD_RETURN if message.reply_to == Some(self.serial) => return Ok(message),
                ERROR if message.reply_to == Some(self.serial) => {
                    let text = message.text().unwrap_or_default();
                    return Err(BusError::Refused { name: message.error, text });
                }
                SIGNAL => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// The next signal.
    pub(super) fn signal(&mut self) -> Result<Message, BusError> {
        if let Some(message) = self.signals.pop_front() {
            return Ok(message);
        }
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> Result<Message, BusError> {
        let mut start = [0; 16];
        self.read(&mut start)?;
        let (fields, body) = lengths(start)?;
        let mut bytes = start.to_vec();
        bytes.resize((16 + fields).next_multiple_of(8) + body, 0);
        self.read(bytes.get_mut(16..).unwrap_or_default())?;
        decode(&bytes, body)
    }

    fn remaining(&self) -> Result<std::time::Duration, BusError> {
        Some(self.deadline.remaining())
            .filter(|left| !left.is_zero())
            .ok_or_else(|| BusError::Io(io::ErrorKind::TimedOut.into()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        let left = self.remaining()?;
        self.stream.set_write_timeout(Some(left)).map_err(BusError::Io)?;
        self.stream.write_all(bytes).map_err(BusError::Io)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), BusError> {
        let left = self.remaining()?;
        self.stream.set_read_timeout(Some(left)).map_err(BusError::Io)?;
        self.stream.read_exact(bytes).map_err(BusError::Io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METHOD: Method<'_> = Method { path: "/a", interface: "b.c", member: "D" };

    /// Worked out by hand from the specification's "Message Format".
    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let bytes = encode(7, METHOD, "e", &Arguments::default().text("hi").flag(true));
        let mut expected = vec![b'l', 1, 0, 1, 12, 0, 0, 0, 7, 0, 0, 0, 62, 0, 0, 0];
        expected.extend(*b"\x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0");
        expected.extend(*b"\x02\x01s\0\x03\0\0\0b.c\0\0\0\0\0");
        expected.extend(*b"\x03\x01s\0\x01\0\0\0D\0\0\0\0\0\0\0");
        expected.extend(*b"\x06\x01s\0\x01\0\0\0e\0\0\0\0\0\0\0");
        expected.extend(*b"\x08\x01g\0\x02sb\0");
        let fields = expected.len() - 16;
        expected[12] = u8::try_from(fields).unwrap();
        expected.extend(*b"\x02\0\0\0hi\0\0\x01\0\0\0");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn properties_are_aligned_structures() {
        let properties = [
            ("A", Value::Number(1)),
            ("B", Value::Numbers(vec![5])),
            ("C", Value::Flag(true)),
            ("D", Value::Text("x".into())),
            ("E", Value::Bytes(vec![7])),
        ];
        let arguments = Arguments::default().properties(&properties).no_further_units();
        assert_eq!(arguments.signature, "a(sv)a(sa(sv))");
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 0];
        expected.extend(*b"\x01\0\0\0A\0\x01t\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        expected.extend(*b"\x01\0\0\0B\0\x02au\0\0\0\x04\0\0\0\x05\0\0\0");
        expected.extend(*b"\0\0\0\0\x01\0\0\0C\0\x01b\0\0\0\0\x01\0\0\0");
        expected.extend(*b"\x01\0\0\0D\0\x01s\0\0\0\0\x01\0\0\0x\0\0\0\0\0\0\0");
        expected.extend(*b"\x01\0\0\0E\0\x02ay\0\0\0\x01\0\0\0\x07");
        let length = expected.len() - 8;
        expected[0] = u8::try_from(length).unwrap();
        // The second array is empty, but its first element's place is aligned all the same.
        expected.resize(expected.len().next_multiple_of(4), 0);
        expected.extend([0; 4]);
        expected.resize(expected.len().next_multiple_of(8), 0);
        assert_eq!(arguments.bytes, expected);
    }

    #[test]
    fn what_is_sent_can_be_read() {
        let bytes = encode(3, METHOD, "e", &Arguments::default().text("first").text("second"));
        let (fields, body) = lengths(bytes[..16].try_into().unwrap()).unwrap();
        assert_eq!((16 + fields).next_multiple_of(8) + body, bytes.len());
        let mut message = decode(&bytes, body).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (METHOD_CALL, "D"));
        assert_eq!((message.text().unwrap().as_str(), message.text().unwrap().as_str()), ("first", "second"));
        assert!(message.text().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 16..200), body in 0..300usize) {
            let _ = lengths(bytes[..16].try_into().unwrap());
            if let Ok(mut message) = decode(&bytes, body) {
                let _ = (message.number(), message.text(), message.variant());
            }
        }
    }
}
