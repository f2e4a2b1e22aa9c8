//! The conversation itself: what the kernel does rarely, played by the test on a socket pair, and a real table
//! that is too large for the buffer.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use neli::consts::rtnl::Rtm;
use proptest::prelude::*;

use super::link::Link;
use super::*;
use crate::lab::{self, Lab};

const NLM_F_MULTI: u16 = 2;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const THING: u16 = 20;

/// A message as the kernel lays it out, in answer to a socket's first request.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap().to_ne_bytes();
    let numbers = [1_u32, 0].map(u32::to_ne_bytes).concat();
    let mut bytes = [&length[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &numbers, body].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The same messages in answer to another request.
fn answering(request: u32, mut datagram: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while at < datagram.len() {
        let length = u32::from_ne_bytes(*datagram[at..].first_chunk().unwrap());
        datagram[at + 8..at + 12].copy_from_slice(&request.to_ne_bytes());
        at += usize::try_from(length).unwrap().next_multiple_of(4);
    }
    datagram
}

fn thing(number: u32, flags: u16) -> Vec<u8> {
    message(THING, NLM_F_MULTI | flags, &number.to_ne_bytes())
}

fn done(code: i32) -> Vec<u8> {
    message(NLMSG_DONE, NLM_F_MULTI, &code.to_ne_bytes())
}

/// The verdict on a request, which is quoted, and the kernel's words about it.
fn verdict(code: i32, quoted: &[u8], words: &str) -> Vec<u8> {
    let text = Payload::default().text(1_u16, words).into_bytes();
    message(NLMSG_ERROR, NLM_F_ACK_TLVS, &[&code.to_ne_bytes()[..], quoted, &text].concat())
}

/// A socket whose kernel has already answered.
fn with_answers(answers: &[Vec<u8>]) -> (Socket, UnixDatagram) {
    let (ours, kernel) = UnixDatagram::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for answer in answers {
        kernel.send(answer).unwrap();
    }
    let inner = sys::socket_from(OwnedFd::from(ours));
    (Socket { inner, buffer: vec![0; 256], sequence: 0 }, kernel)
}

fn things(socket: &mut Socket) -> Result<Vec<u32>, NetlinkError> {
    socket.dump(format_args!("list the things"), THING, &Payload::default(), wire::u32_at)
}

fn requests(kernel: &UnixDatagram) -> usize {
    kernel.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| kernel.recv(&mut [0; 64]).ok()).count()
}

#[test]
fn a_dump_is_what_all_its_chunks_say() {
    let (mut socket, kernel) = with_answers(&[[thing(1, 0), thing(2, 0)].concat(), thing(3, 0), done(0)]);
    assert_eq!(things(&mut socket).unwrap(), [1, 2, 3]);
    assert_eq!(requests(&kernel), 1);
}

#[test]
fn an_interrupted_dump_is_thrown_away_and_asked_for_again() {
    let interrupted = [thing(1, 0), thing(2, NLM_F_DUMP_INTR), done(0)].concat();
    let in_the_end = [thing(1, 0), message(NLMSG_DONE, NLM_F_MULTI | NLM_F_DUMP_INTR, &[0; 4])].concat();
    let good = [thing(7, 0), done(0)].concat();
    let (mut socket, kernel) = with_answers(&[interrupted, answering(2, in_the_end), answering(3, good)]);
    assert_eq!(things(&mut socket).unwrap(), [7]);
    assert_eq!(requests(&kernel), 3);
}

#[test]
fn a_table_that_never_holds_still_is_an_error() {
    let interrupted = [thing(1, NLM_F_DUMP_INTR), done(0)].concat();
    let each = (1..).take(DUMP_ATTEMPTS).map(|request| answering(request, interrupted.clone()));
    let (mut socket, _kernel) = with_answers(&each.collect::<Vec<_>>());
    let error = things(&mut socket).unwrap_err();
    assert_eq!(error.to_string(), "cannot list the things: it changed during each of 16 attempts");
}

#[test]
fn a_chunk_that_does_not_fit_the_buffer_is_not_cut_off() {
    let large: Vec<u8> = (0..100).flat_map(|number| thing(number, 0)).collect();
    let (mut socket, kernel) = with_answers(&[[large, done(0)].concat()]);
    assert_eq!(things(&mut socket).unwrap(), (0..100).collect::<Vec<_>>());
    assert_eq!(requests(&kernel), 1);
}

#[test]
fn a_real_table_that_does_not_fit_is_read_whole() {
    if !lab::ready() {
        return;
    }
    let lab = Lab::new();
    lab.sh("for i in $(seq 20); do ip link add a$i type veth peer name b$i; done");
    let links: Vec<Link> = lab
        .netns()
        .run(|here| {
            let mut socket = Socket::route(here).unwrap();
            socket.buffer = vec![0; 64];
            socket.links().unwrap()
        })
        .unwrap();
    assert_eq!(links.len(), 41);
}

#[test]
fn a_dump_that_fails_at_its_end_has_failed() {
    let (mut socket, _kernel) = with_answers(&[thing(1, 0), done(-95)]);
    let error = things(&mut socket).unwrap_err();
    assert_eq!(error.errno(), Some(95));
}

#[test]
fn a_refusal_says_what_was_attempted_the_errno_and_the_kernels_words() {
    let quoted = message(THING, 5, &[1, 2, 3, 4]);
    let (mut socket, _kernel) = with_answers(&[verdict(-17, &quoted, "Exclusivity flag on, cannot modify")]);
    let error =
        socket.change(format_args!("add a thing"), THING, NlmF::empty(), Payload::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot add a thing (kernel: Exclusivity flag on, cannot modify)");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "File exists (os error 17)");
    assert_eq!(error.errno(), Some(17));
}

/// The kernel may have something to say about a success, too; neli's reader stumbles over it.
#[test]
fn an_acknowledgement_with_words_is_a_success() {
    let header = &message(THING, 5, &[])[..16];
    let warned = verdict(0, header, "this is deprecated");
    let second = answering(2, [warned.clone(), thing(1, 0)].concat());
    let (mut socket, _kernel) = with_answers(&[warned, second]);
    for _ in 0..2 {
        socket.change(format_args!("add a thing"), THING, NlmF::empty(), Payload::default()).unwrap();
    }
}

#[test]
fn an_answer_that_does_not_come_ends_the_wait() {
    let (ours, _kernel) = UnixDatagram::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut socket = Socket { inner: sys::socket_from(ours.into()), buffer: vec![0; 64], sequence: 0 };
    let error = things(&mut socket).unwrap_err();
    assert_eq!(error.to_string(), "cannot list the things: no answer over netlink");
    assert!(error.is_uncertain());
}

/// What a request that was given up is answered late must not pass for the answer to the next one.
#[test]
fn what_answers_another_request_is_passed_over() {
    let refused = verdict(-1, &message(THING, 5, &[]), "");
    let stray = [thing(9, 0), done(0)].concat();
    let (mut socket, _kernel) = with_answers(&[
        answering(7, refused),
        answering(0, stray.clone()),
        [answering(7, stray), thing(1, 0)].concat(),
        done(0),
    ]);
    assert_eq!(things(&mut socket).unwrap(), [1]);
}

#[test]
fn strays_without_end_are_no_answer() {
    let (mut socket, kernel) = with_answers(&[]);
    let (socket, kernel) = (&mut socket, &kernel);
    let error = std::thread::scope(|scope| {
        // A socket takes a few datagrams only, so they come while they are read.
        scope.spawn(|| {
            for _ in 0..STRAYS {
                kernel.send(&answering(7, done(0))).unwrap();
            }
        });
        things(socket).unwrap_err()
    });
    assert_eq!(error.to_string(), "cannot list the things: no answer over netlink");
    assert!(error.is_uncertain());
}

/// Two changes in one datagram have two verdicts.
#[test]
fn each_of_two_changes_is_answered_for_itself() {
    let change = |what: &str| (what.to_owned(), THING, NlmF::empty(), Payload::default());
    let quoted = message(THING, 5, &[]);
    let refused = verdict(-17, &quoted, "there is one");
    let made = verdict(0, &quoted[..16], "");
    let (mut socket, kernel) = with_answers(&[refused, answering(2, made)]);
    let verdicts = socket.both([change("add a thing"), change("add another")]).unwrap();
    assert_eq!(verdicts[0].as_ref().unwrap_err().to_string(), "cannot add a thing (kernel: there is one)");
    assert!(verdicts[1].is_ok());
    assert_eq!(requests(&kernel), 1);
}

/// Another process with the right number has no say, on real sockets.
#[test]
fn what_another_process_sends_is_passed_over() {
    if !lab::ready() {
        return;
    }
    let found = Lab::new().netns().run(|here| {
        let mut socket = Socket::route(here).unwrap();
        let other = Socket::route(here).unwrap();
        let address = rustix::net::getsockname(sys::descriptor(&socket.inner)).unwrap();
        let forged = [thing(9, 0), done(0)].concat();
        rustix::net::sendto(
            sys::descriptor(&other.inner),
            &forged,
            rustix::net::SendFlags::empty(),
            &address,
        )
        .unwrap();
        socket.links().map(|links| links.len())
    });
    assert_eq!(found.unwrap().unwrap(), 1, "the loopback device");
}

/// A refusal by the real kernel, with its own words.
#[test]
fn the_kernels_words_arrive() {
    if !lab::ready() {
        return;
    }
    let refused = Lab::new().netns().run(|here| {
        let kind = |p: Payload| p.text(neli::consts::rtnl::IflaInfo::Kind, "none-such");
        let request = Payload::new(&[0; 16]).nest(neli::consts::rtnl::Ifla::Linkinfo, kind);
        let mut socket = Socket::route(here).unwrap();
        socket.change(format_args!("add a link"), Rtm::Newlink, NlmF::CREATE, request)
    });
    let error = refused.unwrap().unwrap_err();
    assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error:?}");
    assert_eq!(error.to_string(), "cannot add a link (kernel: Unknown device type)");
}

proptest! {
    /// Whatever a datagram holds as its objects, reading it neither fails loudly nor reads beyond it.
    #[test]
    fn no_object_makes_the_readers_fail(body in prop::collection::vec(any::<u8>(), 0..120)) {
        let datagram = message(THING, NLM_F_MULTI, &body);
        prop_assert_eq!(take_apart(&datagram).unwrap().len(), 1);
        prop_assert!(take_apart(&datagram[..datagram.len() - 1]).is_none());
        let _ = (Link::read(&body), tc::read_filter(&body), route::read_route(&body), link::read_address(&body));
    }
}
