//! The events that Cloud Hypervisor writes, as far as they matter here: that it is about to boot a guest again that
//! has reset itself (cloud-hypervisor `event_monitor/src/lib.rs`; one JSON object after the other).
//!
//! A monitor that its guest has taken over writes what it likes, for as long as it likes: an event has a largest size, and
//! each byte is looked at a fixed number of times.

use std::io::{self, BufReader, Read};

use serde::Deserialize;

/// Events have a few hundred bytes.
const MAX_EVENT: usize = 64 << 10;

/// How a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The guest has reset itself. Cloud Hypervisor should be ended by SIGTERM now (its status is then 0), or it boots
    /// the guest again.
    Reset,
    /// The monitor has ended.
    Ended,
}

#[derive(Deserialize)]
struct Event {
    source: String,
    event: String,
}

/// Reads events until the guest resets or the monitor ends. The reader is the other end of
/// [`Role::Events`](crate::Role::Events); nobody but the monitor may hold that one open.
///
/// The guest does run again for some milliseconds: the monitor does not wait for its event to be read.
///
/// # Errors
/// What reading returns; `InvalidData` where something else than events is read, or one of more than 64 KiB;
/// `UnexpectedEof` where the last one is not whole. Nobody watches a monitor that goes on after that: kill it.
pub fn watch(events: impl Read) -> io::Result<Watched> {
    let mut event = Vec::new();
    let mut nesting = Nesting::default();
    for byte in BufReader::with_capacity(4096, events).bytes() {
        let byte = byte?;
        if event.is_empty() && byte.is_ascii_whitespace() {
            continue;
        }
        if event.len() == MAX_EVENT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an event is too long"));
        }
        event.push(byte);
        if nesting.ends_with(byte) {
            let Event { source, event: name } = serde_json::from_slice(&event)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if source == "vm" && name == "rebooting" {
                return Ok(Watched::Reset);
            }
            event.clear();
        }
    }
    if event.is_empty() { Ok(Watched::Ended) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Where in an object the last byte was: enough to find its end, and no more.
#[derive(Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Takes the next byte, and tells whether the object ends with it.
    fn ends_with(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            b'{' if !self.in_string => self.depth += 1,
            b'}' if !self.in_string => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth == 0 && !self.in_string
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOOTED: &str = r#"{
  "timestamp": { "secs": 0, "nanos": 13013225 },
  "source": "vm",
  "event": "booted",
  "properties": { "id": "}\" \\{" }
}

"#;

    #[test]
    fn a_reset_is_told_from_an_end() {
        let rebooting = BOOTED.replace("booted", "rebooting");
        assert_eq!(watch(BOOTED.as_bytes()).unwrap(), Watched::Ended);
        assert_eq!(watch("".as_bytes()).unwrap(), Watched::Ended);
        assert_eq!(watch(format!("{BOOTED}{rebooting}{BOOTED}").as_bytes()).unwrap(), Watched::Reset);
        let rest = watch("{\"source\":".as_bytes()).unwrap_err();
        assert_eq!(rest.kind(), io::ErrorKind::UnexpectedEof);
        for wrong in ["x", "\"x\"", "}", "{}", "[]", "{\"source\": 1}"] {
            assert_eq!(watch(wrong.as_bytes()).unwrap_err().kind(), io::ErrorKind::InvalidData, "{wrong}");
        }
    }

    /// It was collected until the host's memory was used up.
    #[test]
    fn an_event_without_an_end_is_given_up() {
        for start in ["{\"source\": \"", "{", "{\"source\": {\"x\": ["] {
            // Endless, and counted: a few buffers of it are read.
            let mut endless = start.as_bytes().chain(io::repeat(b'{')).take(1 << 30);
            assert_eq!(watch(&mut endless).unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert!((1 << 30) - endless.limit() < 2 * MAX_EVENT as u64, "{start}");
        }
    }

    proptest! {
        #[test]
        fn an_event_ends_where_its_object_does(source: String, event: String, other: String) {
            let object = serde_json::json!({ "source": source, "x": [{ &other: other }], "event": event });
            let mut text = object.to_string();
            text.push_str(&BOOTED.replace("booted", "rebooting"));
            prop_assert_eq!(watch(text.as_bytes()).unwrap(), Watched::Reset);
        }
    }
}
