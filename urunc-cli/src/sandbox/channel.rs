//! A conversation over a `SOCK_SEQPACKET` Unix socket: each message is one packet of JSON, descriptors may ride along.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, recvmsg, sendmsg, socket_with, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most descriptors in one message (`SCM_MAX_FD`, unix(7)).
const MAX_DESCRIPTORS: usize = 253;

/// What went wrong in a conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The socket failed.
    #[error("cannot {attempt} the internal socket")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A message could not be encoded or decoded.
    #[error("cannot understand a message on the internal socket")]
    Message(#[from] serde_json::Error),
    /// Nothing came in time.
    #[error("there was no answer on the internal socket within {} s", .0.as_secs())]
    TimedOut(Duration),
}

fn io_error(attempt: &'static str) -> impl FnOnce(Errno) -> ChannelError {
    move |errno| ChannelError::Io { attempt, source: errno.into() }
}

/// One end of a conversation.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Two connected ends, both close-on-exec.
    ///
    /// # Errors
    /// [`ChannelError::Io`]
    pub fn pair() -> Result<(Self, Self), ChannelError> {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map(|(a, b)| (Self(a), Self(b)))
            .map_err(io_error("make"))
    }

    /// Connects to the listener called `name` in `directory`.
    ///
    /// # Errors
    /// [`ChannelError::Io`]; `ECONNREFUSED` if no process holds the listener any more.
    pub fn connect(directory: BorrowedFd<'_>, name: &str) -> Result<Self, ChannelError> {
        let socket = unix_socket().map_err(io_error("make"))?;
        connect(&socket, &address(directory, name).map_err(io_error("address"))?)
            .map_err(io_error("connect to"))?;
        Ok(Self(socket))
    }

    /// The same end under a number of at least `floor`.
    ///
    /// # Errors
    /// [`ChannelError::Io`]
    pub fn moved_above(self, floor: RawFd) -> Result<Self, ChannelError> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, floor).map(Self).map_err(io_error("move"))
    }

    /// Sends `message` and copies of `descriptors` as one packet.
    ///
    /// # Errors
    /// [`ChannelError::Io`]; `EPIPE` if the other end is gone.
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let packet = serde_json::to_vec(message)?;
        let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(descriptors).size()];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(&self.0, &[IoSlice::new(&packet)], &mut ancillary, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(io_error("send on"))
    }

    /// Receives the next message and its descriptors (close-on-exec); `None` once the other end is gone.
    ///
    /// # Errors
    /// [`ChannelError`]
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
        let Some(length) = self.next_length()? else { return Ok(None) };
        let mut packet = vec![0; length];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        retry(|| {
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut packet)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })
        .map_err(io_error("receive from"))?;
        let descriptors = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        Ok(Some((serde_json::from_slice(&packet)?, descriptors)))
    }

    /// Like [`Self::receive`], but waits no longer than `limit`.
    ///
    /// # Errors
    /// [`ChannelError::TimedOut`] and those of [`Self::receive`].
    pub fn receive_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
        match wait_readable(self.as_fd(), limit) {
            Ok(true) => self.receive(),
            Ok(false) => Err(ChannelError::TimedOut(limit)),
            Err(errno) => Err(io_error("wait for")(errno)),
        }
    }

    /// Length of the next packet; a packet is never empty, so 0 is the end of the conversation.
    fn next_length(&self) -> Result<Option<usize>, ChannelError> {
        let mut nothing = [0u8; 0];
        let peeked = retry(|| recv(&self.0, &mut nothing, RecvFlags::PEEK | RecvFlags::TRUNC));
        match peeked {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(None),
            Ok((_, length)) => Ok(Some(length)),
            Err(errno) => Err(io_error("receive from")(errno)),
        }
    }
}

/// A socket that waits for conversations.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Listens as `name` in `directory`, whatever the length of the directory's path (B22).
    ///
    /// # Errors
    /// [`ChannelError::Io`]
    pub fn bind(directory: BorrowedFd<'_>, name: &str) -> Result<Self, ChannelError> {
        listener(directory, name, SocketType::SEQPACKET).map(Self)
    }

    /// Waits for the next conversation.
    ///
    /// # Errors
    /// [`ChannelError::Io`]
    pub fn accept(&self) -> Result<Channel, ChannelError> {
        loop {
            match accept_with(&self.0, SocketFlags::CLOEXEC) {
                // The caller was gone before we could answer.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                result => return result.map(Channel).map_err(io_error("accept on")),
            }
        }
    }
}

/// A socket of the given type that listens as `name` in `directory`.
///
/// # Errors
/// [`ChannelError::Io`]
pub fn listener(directory: BorrowedFd<'_>, name: &str, kind: SocketType) -> Result<OwnedFd, ChannelError> {
    let socket =
        socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(io_error("make"))?;
    bind(&socket, &address(directory, name).map_err(io_error("address"))?).map_err(io_error("bind"))?;
    listen(&socket, 8).map_err(io_error("listen on"))?;
    Ok(socket)
}

fn unix_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A socket's path is limited to 107 bytes (unix(7)); through the directory's descriptor it is always short.
fn address(directory: BorrowedFd<'_>, name: &str) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// Waits until `fd` is readable or its other end is gone; `false` if that takes longer than `limit`.
///
/// # Errors
/// What `poll(2)` says.
pub fn wait_readable(fd: BorrowedFd<'_>, limit: Duration) -> rustix::io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            result => return result.map(|ready| ready > 0),
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    #[test]
    fn messages_keep_their_borders_and_carry_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        a.send(&"first", &[]).unwrap();
        a.send(&"second", &[file.as_fd()]).unwrap();
        let (first, none) = b.receive::<String>().unwrap().unwrap();
        let (second, one) = b.receive::<String>().unwrap().unwrap();
        assert_eq!((first.as_str(), none.len(), second.as_str(), one.len()), ("first", 0, "second", 1));
        drop(a);
        assert!(b.receive::<String>().unwrap().is_none());
    }

    #[test]
    fn a_large_message_arrives_whole() {
        let (a, b) = Channel::pair().unwrap();
        let text = "x".repeat(150_000);
        a.send(&text, &[]).unwrap();
        assert_eq!(b.receive::<String>().unwrap().unwrap().0, text);
    }

    #[test]
    fn silence_is_bounded() {
        let (_a, b) = Channel::pair().unwrap();
        assert!(matches!(
            b.receive_within::<String>(Duration::from_millis(1)),
            Err(ChannelError::TimedOut(_))
        ));
    }

    /// B22: 107 bytes are the limit of a socket's path, not of ours.
    #[test]
    fn a_listener_works_below_a_path_of_any_length() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("d".repeat(200)).join("e".repeat(200));
        std::fs::create_dir_all(&deep).unwrap();
        let directory = rustix::fs::open(&deep, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let listener = Listener::bind(directory.as_fd(), "init.sock").unwrap();
        let client = Channel::connect(directory.as_fd(), "init.sock").unwrap();
        let server = listener.accept().unwrap();
        client.send(&1, &[]).unwrap();
        assert_eq!(server.receive::<i32>().unwrap().unwrap().0, 1);
        drop((listener, server));
        assert!(Channel::connect(directory.as_fd(), "init.sock").is_err());
    }
}
