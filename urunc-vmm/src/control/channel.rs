//! A stream socket with a deadline for a whole exchange, however many reads it takes, and a bound on what is kept.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use super::{ControlError, error::excerpt};

/// Longer answers are not read on. Cloud Hypervisor's longest, `vm.info`, is a few KiB.
const MAX_ANSWER: usize = 1 << 20;

/// A connection, and the exchange that is going on.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
    request: String,
    limit: Duration,
    deadline: Instant,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        let now = Instant::now();
        Self { stream, received: Vec::new(), request: String::new(), limit: Duration::ZERO, deadline: now }
    }

    /// Starts an exchange: everything until the next call of this takes `limit` at most.
    pub(super) fn begin(&mut self, request: &str, limit: Duration) {
        request.clone_into(&mut self.request);
        self.limit = limit;
        let now = Instant::now();
        self.deadline = now.checked_add(limit).unwrap_or(now);
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), ControlError> {
        let left = self.left()?;
        let sent = self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write_all(bytes));
        sent.map_err(|error| self.failed(error))
    }

    /// Reads until the separator is found, and returns what is before it.
    pub(super) fn read_until(&mut self, separator: &[u8]) -> Result<Vec<u8>, ControlError> {
        // What was searched already is not searched again: the peer decides how much that is.
        let mut from = 0;
        loop {
            let unsearched = self.received.get(from..).unwrap_or_default();
            let found = unsearched.windows(separator.len()).position(|window| window == separator);
            if let Some(position) = found {
                let position = from + position;
                let mut answer = self.received.split_off(position + separator.len());
                std::mem::swap(&mut answer, &mut self.received);
                answer.truncate(position);
                return Ok(answer);
            }
            from = (self.received.len() + 1).saturating_sub(separator.len());
            self.receive()?;
        }
    }

    /// Reads exactly so many bytes.
    pub(super) fn read_exactly(&mut self, size: usize) -> Result<Vec<u8>, ControlError> {
        while self.received.len() < size {
            self.receive()?;
        }
        let mut answer = self.received.split_off(size);
        std::mem::swap(&mut answer, &mut self.received);
        Ok(answer)
    }

    pub(super) fn garbled(&self, answer: &[u8]) -> ControlError {
        ControlError::Garbled { request: self.request.clone(), answer: excerpt(answer) }
    }

    pub(super) fn refused(&self, reason: String) -> ControlError {
        ControlError::Refused { request: self.request.clone(), reason }
    }

    fn receive(&mut self) -> Result<(), ControlError> {
        if self.received.len() > MAX_ANSWER {
            return Err(self.garbled(&self.received));
        }
        let left = self.left()?;
        let mut buffer = [0; 4096];
        let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut buffer));
        match read {
            Ok(0) => Err(ControlError::Closed { request: self.request.clone() }),
            Ok(size) => {
                self.received.extend(buffer.iter().take(size));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Returns the time that is left, never zero, which would mean for ever.
    fn left(&self) -> Result<Duration, ControlError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.silent()) } else { Ok(left) }
    }

    fn silent(&self) -> ControlError {
        ControlError::Silent { request: self.request.clone(), limit: self.limit }
    }

    fn failed(&self, source: io::Error) -> ControlError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.silent(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                ControlError::Closed { request: self.request.clone() }
            }
            _ => ControlError::Exchange { request: self.request.clone(), source },
        }
    }
}
