//! As much of HTTP/1.1 as the two APIs use: requests with a JSON body, answers with a length (RFC 9112). Both servers
//! are rust-vmm's `micro_http`, which sends neither chunks nor trailers; a client crate would bring far more.

use std::{os::unix::net::UnixStream, time::Duration};

use serde::Serialize;

use super::{ControlError, channel::Channel, error::excerpt};

/// A connection to an HTTP server.
#[derive(Debug)]
pub(super) struct Http {
    channel: Channel,
}

impl Http {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { channel: Channel::new(stream) }
    }

    /// Starts a call that takes `limit` at most.
    pub(super) fn begin(&mut self, limit: Duration) {
        self.channel.begin(limit);
    }

    pub(super) fn get(&mut self, path: &str) -> Result<Vec<u8>, ControlError> {
        self.exchange("GET", path, &[])
    }

    pub(super) fn put(&mut self, path: &str) -> Result<(), ControlError> {
        self.exchange("PUT", path, &[]).map(drop)
    }

    /// Sends a body.
    pub(super) fn send(
        &mut self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), ControlError> {
        // The bodies are our own types of strings and numbers, which always have a JSON form.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.exchange(method, path, &body).map(drop)
    }

    pub(super) fn garbled(&mut self, answer: &[u8]) -> ControlError {
        self.channel.garbled(answer)
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, ControlError> {
        self.channel.request(&format!("{method} {path}"))?;
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
        if !body.is_empty() {
            let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            request.push_str(&length);
        }
        request.push_str("\r\n");
        self.channel.send(&[request.as_bytes(), body].concat())?;

        let head = self.channel.read_until(b"\r\n\r\n")?;
        let (status, length) = parse_head(&head).ok_or_else(|| self.channel.garbled(&head))?;
        let body = self.channel.read_exactly(length)?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        Err(self.channel.refused(format!("{status} {}", excerpt(&body))))
    }
}

/// The most that an answer's body may be; more is no answer of these servers.
const MAX_BODY: usize = 1 << 20;

/// Returns status and length of the body, which is zero where none is given.
fn parse_head(head: &[u8]) -> Option<(u16, usize)> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let mut status_line = lines.next()?.split(' ');
    if !status_line.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = status_line.next()?.parse().ok()?;
    let mut length = 0;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok().filter(|&length| length <= MAX_BODY)?;
        }
        // Without a length there is no telling where the answer ends.
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
    }
    Some((status, length))
}
