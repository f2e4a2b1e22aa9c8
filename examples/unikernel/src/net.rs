//! Just enough of a network to be seen: answers to ARP requests and to pings, for one IPv4 address.
//!
//! Formats: RFC 826 (ARP), RFC 791 (IPv4), RFC 792 (ICMP echo), all over Ethernet.

/// As far as a frame is looked at: Ethernet (14 bytes) and ARP (28), or Ethernet, IPv4 (20) and ICMP (8).
const HEAD: usize = 42;

/// The largest frame that a network with the usual MTU, or a good deal more, delivers.
pub const FRAME: usize = 2048;

/// Turns a frame that asks for us into the answer, in place. Says whether there is anything to send.
#[must_use]
pub fn answer(frame: &mut [u8], mac: [u8; 6], address: [u8; 4]) -> Answer {
    let Some(head) = frame.first_chunk_mut::<HEAD>() else { return Answer::Nothing };
    match (head[12], head[13]) {
        (0x08, 0x06) => arp(head, mac, address),
        (0x08, 0x00) => ping(head, mac, address),
        _ => Answer::Nothing,
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is the answer now.
    Send,
    /// It was for somebody else, or is nothing that we answer.
    Nothing,
}

fn arp(head: &mut [u8; HEAD], mac: [u8; 6], address: [u8; 4]) -> Answer {
    // Ethernet and IPv4, of six and four bytes; a request.
    let (kind, target) = (part(head, 14), part(head, 38));
    if kind != [0, 1, 8, 0, 6, 4, 0, 1] || target != address {
        return Answer::Nothing;
    }
    head[21] = 2; // a reply
    copy(head, 22, 32, 10); // who asked is the target now,
    put(head, 22, mac); // and we are the sender
    put(head, 28, address);
    address_back(head, mac)
}

fn ping(head: &mut [u8; HEAD], mac: [u8; 6], address: [u8; 4]) -> Answer {
    let target: [u8; 4] = part(head, 30);
    // IPv4 without options, no fragment but perhaps "don't", ICMP, echo request.
    let whole = head[20] & 0xbf == 0 && head[21] == 0;
    if head[14] != 0x45 || !whole || head[23] != 1 || head[34] != 8 || target != address {
        return Answer::Nothing;
    }
    copy(head, 26, 30, 4); // the checksum of the header does not mind the order
    put(head, 26, address);
    head[34] = 0; // echo reply
    // RFC 1624: what the sum loses the checksum gains, with the carry added at the low end.
    let (sum, carry) = u16::from_be_bytes(part(head, 36)).overflowing_add(0x0800);
    put(head, 36, sum.wrapping_add(u16::from(carry)).to_be_bytes());
    address_back(head, mac)
}

fn address_back(head: &mut [u8; HEAD], mac: [u8; 6]) -> Answer {
    copy(head, 6, 0, 6);
    put(head, 6, mac);
    Answer::Send
}

fn part<const N: usize>(head: &[u8; HEAD], at: usize) -> [u8; N] {
    head.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn put<const N: usize>(head: &mut [u8; HEAD], at: usize, value: [u8; N]) {
    for (place, byte) in head.iter_mut().skip(at).zip(&value) {
        *place = *byte;
    }
}

fn copy(head: &mut [u8; HEAD], from: usize, to: usize, count: usize) {
    for at in 0..count {
        if let Some(byte) = head.get(from + at).copied()
            && let Some(place) = head.get_mut(to + at)
        {
            *place = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, answer};

    const US: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 2], [10, 0, 0, 2]);
    const THEM: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 1], [10, 0, 0, 1]);

    fn arp_request() -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(THEM.0);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(THEM.0);
        frame.extend(THEM.1);
        frame.extend([0; 6]);
        frame.extend(US.1);
        frame.resize(60, 0);
        frame
    }

    fn ping() -> Vec<u8> {
        let mut frame = Vec::from(US.0);
        frame.extend(THEM.0);
        frame.extend([8, 0, 0x45, 0, 0, 84, 0, 1, 0x40, 0, 64, 1, 0, 0]);
        frame.extend(THEM.1);
        frame.extend(US.1);
        frame.extend([8, 0, 0, 0, 0x12, 0x34, 0, 7]);
        frame.extend(0..56);
        for (at, range) in [(24, 14..34), (36, 34..98)] {
            let sum = !sum(&frame[range]);
            frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        frame
    }

    fn sum(words: &[u8]) -> u16 {
        let mut sum: u32 = words.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn who_asks_for_our_address_learns_our_mac() {
        let mut frame = arp_request();
        assert_eq!(answer(&mut frame, US.0, US.1), Answer::Send);
        assert_eq!(frame[..6], THEM.0);
        assert_eq!(frame[6..12], US.0);
        assert_eq!(frame[20..22], [0, 2]);
        assert_eq!(frame[22..32], [&US.0[..], &US.1].concat());
        assert_eq!(frame[32..42], [&THEM.0[..], &THEM.1].concat());
        assert_eq!(frame.len(), 60);
    }

    #[test]
    fn a_ping_comes_back_with_checksums_that_hold() {
        // The sequence number moves the checksum through the values where its carry matters.
        for sequence in 0..=u16::MAX {
            let mut frame = ping();
            frame[40..42].copy_from_slice(&sequence.to_be_bytes());
            frame[36..38].fill(0);
            let checksum = !sum(&frame[34..98]);
            frame[36..38].copy_from_slice(&checksum.to_be_bytes());
            let asked = frame.clone();

            assert_eq!(answer(&mut frame, US.0, US.1), Answer::Send);
            assert_eq!(sum(&frame[14..34]), 0xffff);
            assert_eq!(sum(&frame[34..98]), 0xffff, "sequence {sequence}");
            assert_eq!((frame[34], &frame[38..]), (0, &asked[38..]));
            assert_eq!((&frame[..6], &frame[6..12]), (&THEM.0[..], &US.0[..]));
            assert_eq!((&frame[26..30], &frame[30..34]), (&US.1[..], &THEM.1[..]));
        }
    }

    #[test]
    fn whatever_else_comes_is_left_alone() {
        let changed = |mut frame: Vec<u8>, at: usize, byte: u8| {
            frame[at] = byte;
            frame
        };
        let cases = [
            vec![],
            arp_request()[..41].to_vec(),
            changed(arp_request(), 41, 3),    // for somebody else
            changed(arp_request(), 21, 2),    // a reply
            changed(arp_request(), 13, 0xdd), // IPv6
            changed(ping(), 33, 3),           // for somebody else
            changed(ping(), 14, 0x46),        // options
            changed(ping(), 20, 0x20),        // a fragment
            changed(ping(), 21, 1),           // the rest of one
            changed(ping(), 23, 17),          // UDP
            changed(ping(), 34, 0),           // a reply
        ];
        for frame in cases {
            let mut seen = frame.clone();
            assert_eq!(answer(&mut seen, US.0, US.1), Answer::Nothing, "{frame:?}");
            assert_eq!(seen, frame);
        }
    }
}
