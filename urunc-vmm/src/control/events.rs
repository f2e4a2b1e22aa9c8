//! The events that Cloud Hypervisor writes, as far as they matter here: that it is about to boot a guest again that
//! has reset itself (cloud-hypervisor `event_monitor/src/lib.rs`; one JSON object after the other).

use std::io::{self, Read};

use serde::Deserialize;

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
/// What reading returns, or `InvalidData` where something else than events is read.
pub fn watch(events: impl Read) -> io::Result<Watched> {
    for event in serde_json::Deserializer::from_reader(events).into_iter::<Event>() {
        let event = event.map_err(io::Error::from)?;
        if event.source == "vm" && event.event == "rebooting" {
            return Ok(Watched::Reset);
        }
    }
    Ok(Watched::Ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTED: &str = r#"{
  "timestamp": { "secs": 0, "nanos": 13013225 },
  "source": "vm",
  "event": "booted",
  "properties": null
}

"#;

    #[test]
    fn a_reset_is_told_from_an_end() {
        let rebooting = BOOTED.replace("booted", "rebooting");
        assert_eq!(watch(BOOTED.as_bytes()).unwrap(), Watched::Ended);
        assert_eq!(watch("".as_bytes()).unwrap(), Watched::Ended);
        assert_eq!(watch(format!("{BOOTED}{rebooting}{BOOTED}").as_bytes()).unwrap(), Watched::Reset);
        assert!(watch("{\"source\":".as_bytes()).is_err());
    }
}
