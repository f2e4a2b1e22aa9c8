//! A stream socket with a deadline for a whole call, however many exchanges and reads it takes, and a bound on what is
//! kept. What fails spends it: an answer that comes late must not be taken for that to the next request.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use super::{ControlError, error::excerpt};

/// Longer answers are not read on. Cloud Hypervisor's longest, `vm.info`, is a few KiB.
const MAX_ANSWER: usize = 1 << 20;

/// A connection, and the call that is going on.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
    request: String,
    limit: Duration,
    deadline: Instant,
    /// The request that failed, after which nothing can be asked.
    spent: Option<String>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        let now = Instant::now();
        Self {
            stream,
            received: Vec::new(),
            request: String::new(),
            limit: Duration::ZERO,
            deadline: now,
            spent: None,
        }
    }

    /// Starts a call: everything until the next one takes `limit` at most.
    pub(super) fn begin(&mut self, limit: Duration) {
        self.limit = limit;
        let now = Instant::now();
        self.deadline = now.checked_add(limit).unwrap_or(now);
    }

    /// Starts an exchange of the call.
    pub(super) fn request(&mut self, request: &str) -> Result<(), ControlError> {
        request.clone_into(&mut self.request);
        match &self.spent {
            Some(earlier) => {
                Err(ControlError::Spent { request: request.to_owned(), earlier: earlier.clone() })
            }
            None => Ok(()),
        }
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

    pub(super) fn garbled(&mut self, answer: &[u8]) -> ControlError {
        self.spend();
        ControlError::Garbled { request: self.request.clone(), answer: excerpt(answer) }
    }

    pub(super) fn refused(&self, reason: String) -> ControlError {
        ControlError::Refused { request: self.request.clone(), reason }
    }

    fn receive(&mut self) -> Result<(), ControlError> {
        if self.received.len() > MAX_ANSWER {
            let answer = std::mem::take(&mut self.received);
            return Err(self.garbled(&answer));
        }
        let left = self.left()?;
        let mut buffer = [0; 4096];
        let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut buffer));
        match read {
            Ok(0) => {
                self.spend();
                Err(ControlError::Closed { request: self.request.clone() })
            }
            Ok(size) => {
                self.received.extend(buffer.iter().take(size));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Returns the time that is left, never zero, which would mean for ever.
    fn left(&mut self) -> Result<Duration, ControlError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.silent()) } else { Ok(left) }
    }

    fn spend(&mut self) {
        self.spent.get_or_insert_with(|| self.request.clone());
    }

    fn silent(&mut self) -> ControlError {
        self.spend();
        ControlError::Silent { request: self.request.clone(), limit: self.limit }
    }

    fn failed(&mut self, source: io::Error) -> ControlError {
        self.spend();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.silent(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                ControlError::Closed { request: self.request.clone() }
            }
            _ => ControlError::Exchange { request: self.request.clone(), source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call of several exchanges had its time for each of them.
    #[test]
    fn an_exchange_is_given_no_time_of_its_own() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(ours);
        channel.begin(Duration::from_secs(60));
        let deadline = channel.deadline;
        for request in ["a", "b"] {
            channel.request(request).unwrap();
            assert_eq!(channel.deadline, deadline);
        }
    }
}
