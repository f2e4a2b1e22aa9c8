//! Counters of the network interfaces that a process sees: the pod's interface and the monitor's TAP (`/proc/PID/net/dev`, proc_pid_net(5)).

use std::fs;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) received: Counters,
    pub(super) sent: Counters,
}

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) errors: u64,
    pub(super) dropped: u64,
}

/// All interfaces but loopback.
pub(super) fn interfaces(pid: u32) -> Vec<Interface> {
    parse(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

fn parse(text: &str) -> Vec<Interface> {
    let heads = 2;
    text.lines().skip(heads).filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

fn interface(line: &str) -> Option<Interface> {
    let (name, values) = line.split_once(':')?;
    let values: Vec<u64> = values.split_whitespace().map_while(|value| value.parse().ok()).collect();
    // bytes packets errs drop fifo frame compressed multicast, and the same for sending
    let counters = |at: usize| {
        let part = values.get(at..at + 4)?;
        Some(Counters { bytes: part[0], packets: part[1], errors: part[2], dropped: part[3] })
    };
    Some(Interface { name: name.trim().to_owned(), received: counters(0)?, sent: counters(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_but_loopback_is_counted() {
        let text = "Inter-|   Receive    |  Transmit\n face |bytes  ...\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:     100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n";
        let found = parse(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "eth0");
        assert_eq!(found[0].received, Counters { bytes: 100, packets: 2, errors: 3, dropped: 4 });
        assert_eq!(found[0].sent, Counters { bytes: 500, packets: 6, errors: 7, dropped: 8 });
    }
}
