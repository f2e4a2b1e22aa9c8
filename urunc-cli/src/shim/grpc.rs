//! As much of gRPC as it takes to ask containerd three questions over its Unix socket: one call at a time, no compression, no TLS.
//!
//! A full client brings an async runtime and some hundred crates; what is needed of HTTP/2 (RFC 9113) is nine bytes of frame header, and of its header
//! compression (RFC 7541) the literals, which need no table. The answer's headers are not read at all: a message has arrived, or the call has failed.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::connect::connect;

/// Largest answer that is taken: a manifest is some kilobytes.
const LIMIT: usize = 4 << 20;
/// Largest frame that a peer may send to someone who has not asked for more (RFC 9113 section 4.2).
const FRAME: usize = 16384;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcError {
    /// The connection.
    #[error("cannot talk to containerd")]
    Connection(#[from] io::Error),
    /// containerd says no; why stands in headers that are not read.
    #[error("containerd does not answer {0}")]
    Refused(&'static str),
    /// Something that is not HTTP/2, or more of it than fits.
    #[error("cannot understand containerd's answer: {0}")]
    Answer(&'static str),
}

/// A connection, for a limited time.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    namespace: String,
    until: Instant,
    next_stream: u32,
}

mod frame {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    /// Of SETTINGS and PING.
    pub(super) const ACK: u8 = 1;
    /// Of DATA and HEADERS.
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const PADDED: u8 = 8;
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Connection {
    /// Connects to containerd's socket; everything together may take `limit`.
    ///
    /// # Errors
    /// [`GrpcError::Connection`]
    pub fn open(socket: &Path, namespace: &str, limit: Duration) -> Result<Self, GrpcError> {
        let stream = connect(socket, limit)?;
        stream.set_write_timeout(Some(limit))?;
        let until = Instant::now() + limit;
        let mut connection = Self { stream, namespace: namespace.to_owned(), until, next_stream: 1 };
        let window = u32::try_from(LIMIT).unwrap_or(u32::MAX).to_be_bytes();
        // ENABLE_PUSH off and INITIAL_WINDOW_SIZE (sections 6.5.2), so that no answer has to be waited for in parts.
        let settings = [&[0, 2, 0, 0, 0, 0, 0, 4], window.as_slice()].concat();
        connection.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        connection.send(frame::SETTINGS, 0, 0, &settings)?;
        connection.send(frame::WINDOW_UPDATE, 0, 0, &window)?;
        Ok(connection)
    }

    /// Calls the method at `path` and returns the messages that come back, at least one.
    ///
    /// # Errors
    /// [`GrpcError`]
    pub fn call(&mut self, path: &'static str, request: &[u8]) -> Result<Vec<Vec<u8>>, GrpcError> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let headers = headers(path, &self.namespace)?;
        self.send(frame::HEADERS, frame::END_HEADERS, stream, &headers)?;
        let length =
            u32::try_from(request.len()).map_err(|_| GrpcError::Answer("the request is too long"))?;
        let message = [&[0], length.to_be_bytes().as_slice(), request].concat();
        self.send(frame::DATA, frame::END_STREAM, stream, &message)?;
        let messages = messages(&self.receive(stream)?)?;
        if messages.is_empty() { Err(GrpcError::Refused(path)) } else { Ok(messages) }
    }

    /// All data of a stream.
    fn receive(&mut self, stream: u32) -> Result<Vec<u8>, GrpcError> {
        let mut data = Vec::new();
        loop {
            let frame = self.next_frame()?;
            match frame.kind {
                frame::SETTINGS if frame.flags & frame::ACK == 0 => {
                    self.send(frame::SETTINGS, frame::ACK, 0, &[])?;
                }
                frame::PING if frame.flags & frame::ACK == 0 => {
                    self.send(frame::PING, frame::ACK, 0, &frame.payload)?;
                }
                frame::GOAWAY => return Err(GrpcError::Answer("it ends the connection")),
                frame::RST_STREAM if frame.stream == stream => return Ok(Vec::new()),
                frame::DATA if frame.stream == stream => {
                    data.extend_from_slice(content(&frame)?);
                    if data.len() > LIMIT {
                        return Err(GrpcError::Answer("it is too long"));
                    }
                }
                _ => {}
            }
            let ends =
                matches!(frame.kind, frame::DATA | frame::HEADERS) && frame.flags & frame::END_STREAM != 0;
            if ends && frame.stream == stream {
                return Ok(data);
            }
        }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), GrpcError> {
        if payload.len() > FRAME {
            return Err(GrpcError::Answer("the request is too long"));
        }
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        Ok(self.stream.write_all(&[head.as_slice(), payload].concat())?)
    }

    fn next_frame(&mut self) -> Result<Frame, GrpcError> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if length > FRAME {
            return Err(GrpcError::Answer("a frame is too long"));
        }
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let mut frame = Frame { kind: head[3], flags: head[4], stream, payload: vec![0; length] };
        self.read(&mut frame.payload)?;
        Ok(frame)
    }

    /// Reads exactly so much, until time is over, however slowly it comes.
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), GrpcError> {
        let mut done = 0;
        while done < buffer.len() {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer[done..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A DATA frame without its padding.
fn content(frame: &Frame) -> Result<&[u8], GrpcError> {
    if frame.flags & frame::PADDED == 0 {
        return Ok(&frame.payload);
    }
    let padded = frame.payload.split_first().and_then(|(padding, rest)| {
        let length = rest.len().checked_sub(usize::from(*padding))?;
        rest.get(..length)
    });
    padded.ok_or(GrpcError::Answer("a frame is padded with more than it holds"))
}

/// The header block of a call (gRPC over HTTP/2, "Requests"), as literals and entries of the static table (RFC 7541 appendix A).
fn headers(path: &str, namespace: &str) -> Result<Vec<u8>, GrpcError> {
    const POST: u8 = 0x80 | 3;
    const HTTP: u8 = 0x80 | 6;
    const PATH: u8 = 4;
    const AUTHORITY: u8 = 1;
    /// Index 31, which does not fit the four bits: 15, and the rest.
    const CONTENT_TYPE: [u8; 2] = [15, 31 - 15];
    const NEW_NAME: u8 = 0;
    let mut block = vec![POST, HTTP, PATH];
    literal(&mut block, path)?;
    block.push(AUTHORITY);
    literal(&mut block, "localhost")?;
    block.extend(CONTENT_TYPE);
    literal(&mut block, "application/grpc")?;
    for (name, value) in [("te", "trailers"), ("containerd-namespace", namespace)] {
        block.push(NEW_NAME);
        literal(&mut block, name)?;
        literal(&mut block, value)?;
    }
    Ok(block)
}

/// A string of less than 127 bytes, not Huffman-coded.
fn literal(block: &mut Vec<u8>, text: &str) -> Result<(), GrpcError> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
    block.push(length.ok_or(GrpcError::Answer("a header is too long"))?);
    block.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Splits a stream's data into messages: a byte that says whether it is compressed, the length, the message.
fn messages(mut data: &[u8]) -> Result<Vec<Vec<u8>>, GrpcError> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = data.split_at_checked(5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let message = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let Some((message, after)) = message.filter(|_| head[0] == 0) else {
            return Err(GrpcError::Answer("a message is compressed or not complete"));
        };
        messages.push(message.to_vec());
        data = after;
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_are_as_the_specification_has_them() {
        let block = headers("/p", "n").unwrap();
        assert_eq!(block[..5], [0x83, 0x86, 0x04, 2, b'/']);
        // RFC 7541 C.2.2 has the shape for :path, and 0x0f 0x10 is index 31.
        assert!(block.windows(3).any(|window| window == [0x0f, 0x10, 16]));
        assert!(headers(&"x".repeat(200), "n").is_err());
    }

    #[test]
    fn padding_is_taken_off() {
        let frame =
            |payload: &[u8]| Frame { kind: 0, flags: frame::PADDED, stream: 1, payload: payload.to_vec() };
        assert_eq!(content(&frame(&[2, b'a', 0, 0])).unwrap(), b"a");
        assert!(content(&frame(&[9, b'a'])).is_err());
        assert!(content(&frame(&[])).is_err());
    }

    #[test]
    fn a_server_that_says_nothing_does_not_hold_us_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut connection = Connection::open(&path, "n", Duration::from_millis(20)).unwrap();
        assert!(matches!(connection.call("/x", &[]), Err(GrpcError::Connection(_))));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5)) {
            let mut data = Vec::new();
            for message in &sent {
                data.push(0);
                data.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
                data.extend(message);
            }
            prop_assert_eq!(messages(&data).unwrap(), sent);
        }

        #[test]
        fn no_data_is_too_strange(data in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = messages(&data);
        }
    }
}
