//! Conversation with the kernel over netlink sockets. This file asks and listens; what is asked is in `link`,
//! `route`, `tc` and `nft`, how attributes are laid out in `wire`.
//!
//! `neli` brings the socket and the message frame. Its lowest socket type is used, for three reasons: its
//! router starts a thread, which is forbidden here; its `NlSocketHandle` cannot tell a truncated answer
//! from a complete one; and it sends one message at a time, while nf_tables wants
//! a batch in one datagram.

mod error;
pub(crate) mod link;
pub(crate) mod nft;
pub(crate) mod route;
pub(crate) mod tc;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::fmt::Arguments;
use std::io::{self, Cursor};
use std::ops::RangeInclusive;
use std::time::Duration;

use neli::attr::Attribute;
use neli::consts::nl::{NlmF, Nlmsg, NlmsgerrAttr};
use neli::consts::socket::{Msg, NlFamily};
use neli::err::{Nlmsgerr, SocketError};
use neli::nl::{NlPayload, Nlmsghdr, NlmsghdrBuilder};
use neli::socket::NlSocket;
use neli::types::Buffer;
use neli::utils::Groups;
use neli::{FromBytes, ToBytes};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SocketAddrAny, recvfrom, sockopt};

pub use self::error::NetlinkError;
use self::wire::Payload;
use crate::namespace::NsCookie;
use crate::run::Here;
use crate::sys;

/// What the kernel offers for a dump at once, at most (`netlink_dump`, net/netlink/af_netlink.c).
const DUMP_CHUNK: usize = 32 * 1024;
/// How often a dump that the kernel could not take in one piece is asked for again.
const DUMP_ATTEMPTS: usize = 16;
/// The kernel answers before `send` returns; an answer that is not there after this long never comes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many datagrams that answer nothing asked for are passed over.
const STRAYS: usize = 64;

/// One netlink socket, which speaks to the namespace that it was opened in wherever it is used.
pub(crate) struct Socket {
    inner: NlSocket,
    buffer: Vec<u8>,
    sequence: u32,
}

/// One received message: its type, its flags and its payload.
type Answer = Nlmsghdr<u16, Buffer>;

/// A request in bytes, and the numbers of its messages, which the answers carry.
struct Request {
    bytes: Vec<u8>,
    numbers: RangeInclusive<u32>,
}

/// A change to ask for: what it is, its message's type, flags and payload.
pub(crate) type Change = (String, u16, NlmF, Payload);

impl Socket {
    /// Opens a socket in the namespace that the calling thread is in, as `here` proves.
    pub(crate) fn open(_here: &Here, family: NlFamily) -> Result<Self, NetlinkError> {
        let open = || -> io::Result<NlSocket> {
            let inner = NlSocket::connect(family, None, Groups::empty())?;
            inner.enable_ext_ack(true)?;
            sockopt::set_socket_timeout(sys::descriptor(&inner), sockopt::Timeout::Recv, Some(PATIENCE))?;
            Ok(inner)
        };
        let inner = open().map_err(|source| NetlinkError::Open { source })?;
        Ok(Socket { inner, buffer: vec![0; DUMP_CHUNK], sequence: 0 })
    }

    /// Opens a routing socket (rtnetlink(7)).
    pub(crate) fn route(here: &Here) -> Result<Self, NetlinkError> {
        Socket::open(here, NlFamily::Route)
    }

    /// The namespace that it speaks to.
    pub(crate) fn cookie(&self) -> Option<NsCookie> {
        NsCookie::of_socket(sys::descriptor(&self.inner))
    }

    /// The socket beneath, to subscribe to groups and to poll.
    pub(crate) fn inner(&self) -> &NlSocket {
        &self.inner
    }

    /// Asks for a change and waits until the kernel has made it.
    pub(crate) fn change(
        &mut self,
        attempt: Arguments<'_>,
        kind: impl Into<u16>,
        flags: NlmF,
        payload: Payload,
    ) -> Result<(), NetlinkError> {
        let request = self.frame(vec![(kind.into(), NlmF::ACK | flags, payload)]);
        self.carry_out(attempt, request)
    }

    /// Sends several messages in one datagram and waits for the verdict on all of them: the last one asks for
    /// an acknowledgement, and the first that fails is answered before that.
    pub(crate) fn batch(
        &mut self,
        attempt: Arguments<'_>,
        messages: Vec<(u16, NlmF, Payload)>,
    ) -> Result<(), NetlinkError> {
        let request = self.frame(messages);
        self.carry_out(attempt, request)
    }

    /// Asks for two changes in one datagram: the kernel makes them before `send` returns, so nobody is killed in between.
    /// Each has its own verdict, and a refused one does not keep the other from being made.
    pub(crate) fn both(
        &mut self,
        changes: [Change; 2],
    ) -> Result<[Result<(), NetlinkError>; 2], NetlinkError> {
        let [(first, kind, flags, payload), (second, other_kind, other_flags, other_payload)] = changes;
        let request = self.frame(vec![
            (kind, NlmF::ACK | flags, payload),
            (other_kind, NlmF::ACK | other_flags, other_payload),
        ]);
        #[cfg(test)]
        crate::faults::point().map_err(|source| NetlinkError::Open { source })?;
        let numbers = self.send(format_args!("{first}"), request)?;
        let mut verdict = |attempt: &str, number: u32| {
            let attempt = format_args!("{attempt}");
            match self.first_answer(attempt, &(number..=number)) {
                Err(error) if error.is_uncertain() => Err(error),
                verdict => Ok(verdict.map(drop)),
            }
        };
        let verdicts = [verdict(&first, *numbers.start())?, verdict(&second, *numbers.end())?];
        #[cfg(test)]
        crate::faults::point().map_err(|source| NetlinkError::Exchange { attempt: second, source })?;
        Ok(verdicts)
    }

    /// Asks for one object and gives its payload to `read`.
    pub(crate) fn get<T>(
        &mut self,
        attempt: Arguments<'_>,
        kind: impl Into<u16>,
        payload: Payload,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, NetlinkError> {
        let request = self.frame(vec![(kind.into(), NlmF::empty(), payload)]);
        let numbers = self.send(attempt, request)?;
        let answer = self.first_answer(attempt, &numbers)?;
        let body = answer.get_payload().and_then(|body| read(body.as_ref()));
        body.ok_or_else(|| NetlinkError::malformed(attempt))
    }

    /// Asks for a table of objects and gives each one's payload to `read`, which may pass it over.
    ///
    /// The kernel hands a table out in chunks and says if it changed in between (`NLM_F_DUMP_INTR`). Such a
    /// dump is thrown away and asked for again.
    pub(crate) fn dump<T>(
        &mut self,
        attempt: Arguments<'_>,
        kind: impl Into<u16>,
        payload: &Payload,
        mut read: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let kind = kind.into();
        for _ in 0..DUMP_ATTEMPTS {
            let request = self.frame(vec![(kind, NlmF::DUMP, payload.clone())]);
            let numbers = self.send(attempt, request)?;
            let mut found = Vec::new();
            let mut whole = true;
            let mut done = false;
            while !done {
                for answer in self.answers(attempt, &numbers)? {
                    whole &= !answer.nl_flags().contains(NlmF::DUMP_INTR);
                    done |= *answer.nl_type() == u16::from(Nlmsg::Done);
                    found.extend(answer.get_payload().and_then(|body| read(body.as_ref())));
                }
            }
            if whole {
                return Ok(found);
            }
            log::debug!("{attempt}: the table changed while it was read; reading it again");
        }
        Err(NetlinkError::Unsteady { attempt: attempt.to_string(), attempts: DUMP_ATTEMPTS })
    }

    /// Sends a change and waits for the verdict.
    fn carry_out(
        &mut self,
        attempt: Arguments<'_>,
        request: Result<Request, SocketError>,
    ) -> Result<(), NetlinkError> {
        #[cfg(test)]
        crate::faults::point().map_err(|source| NetlinkError::Open { source })?;
        let numbers = self.send(attempt, request)?;
        self.first_answer(attempt, &numbers)?;
        #[cfg(test)]
        crate::faults::point()
            .map_err(|source| NetlinkError::Exchange { attempt: attempt.to_string(), source })?;
        Ok(())
    }

    fn frame(&mut self, messages: Vec<(u16, NlmF, Payload)>) -> Result<Request, SocketError> {
        let first = self.sequence + 1;
        let mut bytes = Cursor::new(Vec::new());
        for (kind, flags, payload) in messages {
            self.sequence += 1;
            let message = NlmsghdrBuilder::default()
                .nl_type(kind)
                .nl_flags(NlmF::REQUEST | flags)
                .nl_seq(self.sequence)
                .nl_payload(NlPayload::Payload(Buffer::from(payload.into_bytes())))
                .build()?;
            message.to_bytes(&mut bytes)?;
        }
        Ok(Request { bytes: bytes.into_inner(), numbers: first..=self.sequence })
    }

    fn send(
        &self,
        attempt: Arguments<'_>,
        request: Result<Request, SocketError>,
    ) -> Result<RangeInclusive<u32>, NetlinkError> {
        let request =
            request.map_err(|source| NetlinkError::Encode { attempt: attempt.to_string(), source })?;
        match self.inner.send(&request.bytes, Msg::empty()) {
            Ok(_) => Ok(request.numbers),
            Err(source) => Err(NetlinkError::Exchange { attempt: attempt.to_string(), source }),
        }
    }

    fn first_answer(
        &mut self,
        attempt: Arguments<'_>,
        numbers: &RangeInclusive<u32>,
    ) -> Result<Answer, NetlinkError> {
        let answers = self.answers(attempt, numbers)?;
        answers.into_iter().next().ok_or_else(|| NetlinkError::malformed(attempt))
    }

    /// Waits for a datagram with answers to the messages of these numbers. Others, such as the answer to a request that
    /// was given up, are passed over: what they say is not about this one.
    fn answers(
        &mut self,
        attempt: Arguments<'_>,
        numbers: &RangeInclusive<u32>,
    ) -> Result<Vec<Answer>, NetlinkError> {
        for _ in 0..STRAYS {
            let mut answers = self.receive(attempt)?;
            answers.retain(|answer| numbers.contains(answer.nl_seq()));
            if !answers.is_empty() {
                return answers.into_iter().map(|answer| refusal(attempt, answer)).collect();
            }
            log::debug!("{attempt}: passed over what answers something else");
        }
        Err(NetlinkError::Exchange { attempt: attempt.to_string(), source: io::ErrorKind::TimedOut.into() })
    }

    /// Waits for one datagram of the kernel's and takes it apart. It is looked at first, so that it is never cut off.
    /// One that a process has sent is empty: whoever administers the namespace can send here.
    pub(crate) fn receive(&mut self, attempt: Arguments<'_>) -> Result<Vec<Answer>, NetlinkError> {
        let (length, _) = self.read(attempt, RecvFlags::PEEK | RecvFlags::TRUNC)?;
        if length > self.buffer.len() {
            self.buffer.resize(length, 0);
        }
        let (length, sender) = self.read(attempt, RecvFlags::empty())?;
        if !is_kernel(sender) {
            return Ok(Vec::new());
        }
        take_apart(&self.buffer[..length]).ok_or_else(|| NetlinkError::malformed(attempt))
    }

    fn read(
        &mut self,
        attempt: Arguments<'_>,
        flags: RecvFlags,
    ) -> Result<(usize, Option<SocketAddrAny>), NetlinkError> {
        loop {
            match recvfrom(sys::descriptor(&self.inner), &mut self.buffer[..], flags) {
                Ok((_, length, sender)) => return Ok((length, sender)),
                Err(Errno::INTR) => (),
                Err(errno) => {
                    let attempt = attempt.to_string();
                    return Err(NetlinkError::Exchange { attempt, source: errno.into() });
                }
            }
        }
    }
}

/// Whether a datagram came from the kernel, whose port is 0 (netlink(7)). Only netlink has other senders.
fn is_kernel(sender: Option<SocketAddrAny>) -> bool {
    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
    sender.is_none_or(|sender| sender.pid() == 0)
}

/// Splits a datagram into messages. Each is read on its own, up to where its header says that it ends, because
/// neli's reader leaves the attributes of an acknowledgement lying.
fn take_apart(mut datagram: &[u8]) -> Option<Vec<Answer>> {
    let mut messages = Vec::new();
    while !datagram.is_empty() {
        let length = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
        // The padding is part of the datagram; neli wants to see it.
        let (message, rest) = datagram.split_at_checked(length.checked_next_multiple_of(4)?)?;
        if length < 16 {
            return None;
        }
        messages.push(Answer::from_bytes(&mut Cursor::new(message)).ok()?);
        datagram = rest;
    }
    Some(messages)
}

/// Turns an answer that says "no" into an error: an error message, or the end of a dump that failed.
fn refusal(attempt: Arguments<'_>, mut answer: Answer) -> Result<Answer, NetlinkError> {
    if let NlPayload::DumpExtAck(end) = answer.nl_payload()
        && *end.error() != 0
    {
        return Err(NetlinkError::refused(attempt, *end.error(), text(end)));
    }
    match answer.get_err() {
        Some(error) => Err(NetlinkError::refused(attempt, *error.error(), text(&error))),
        None => Ok(answer),
    }
}

/// The kernel's own words, where it has some (`NLMSGERR_ATTR_MSG`, linux/netlink.h).
fn text<M>(error: &Nlmsgerr<M>) -> Option<String> {
    let attributes = error.ext_ack().get_attr_handle();
    let message = attributes.get_attribute(NlmsgerrAttr::Msg)?;
    let bytes = message.payload().as_ref();
    let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    Some(String::from_utf8_lossy(text).into_owned())
}
