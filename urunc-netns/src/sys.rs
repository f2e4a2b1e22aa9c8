//! The crate's only unsafe code: five `ioctl`s and a socket option that no safe crate offers, and one borrow of a descriptor.
//! Each function is one kernel call; what it is for is decided elsewhere.
#![expect(unsafe_code, reason = "rustix has no TUN or namespace calls, and neli's socket is not AsFd")]

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use neli::socket::NlSocket;
use rustix::io;
use rustix::ioctl::{Getter, IntegerSetter, Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};

use crate::names::IfName;

// linux/if_tun.h declares these with an `int` argument, whatever they really take.
const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<c_int>(b'T', 203);
const TUNSETOWNER: Opcode = opcode::write::<c_int>(b'T', 204);
const TUNGETIFF: Opcode = opcode::read::<c_uint>(b'T', 210);
/// linux/nsfs.h.
const NS_GET_NSTYPE: Opcode = opcode::none(0xb7, 0x3);

/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL` (linux/if_tun.h): a layer 2 device without
/// packet-information header, with virtio-net headers, and only if the name is free.
const EXCLUSIVE_TAP: u16 = 0x0002 | 0x1000 | 0x4000 | 0x8000;

/// `struct ifreq` as TUN uses it: a name, flags, and the rest of the union (linux/if.h).
#[repr(C)]
struct IfRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes the TAP device `name` and ties it to `tun`, an open `/dev/net/tun`. EBUSY: the name is taken.
#[doc(alias = "TUNSETIFF")]
pub(crate) fn make_tap(tun: impl AsFd, name: &IfName) -> io::Result<()> {
    let mut request = IfRequest { name: name.padded(), flags: EXCLUSIVE_TAP, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `IfRequest` is in size and layout.
    let call = unsafe { Updater::<TUNSETIFF, IfRequest>::new(&mut request) };
    // SAFETY: the opcode matches its argument, which lives until the call returns.
    unsafe { ioctl(tun, call) }
}

/// The zero-padded name of the device that `tun` is tied to; EBADFD if it is tied to none.
#[doc(alias = "TUNGETIFF")]
pub(crate) fn tap_name(tun: impl AsFd) -> io::Result<[u8; 16]> {
    // SAFETY: TUNGETIFF fills a whole `struct ifreq`.
    let call = unsafe { Getter::<TUNGETIFF, IfRequest>::new() };
    // SAFETY: the opcode matches the type that it fills.
    let request: IfRequest = unsafe { ioctl(tun, call) }?;
    Ok(request.name)
}

/// Whether a TAP device outlives its last descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// It goes with its last descriptor.
    Descriptor,
    /// It stays until somebody deletes it.
    Persistent,
}

/// Sets how long the device tied to `tun` lives.
#[doc(alias = "TUNSETPERSIST")]
pub(crate) fn set_tap_lifetime(tun: impl AsFd, lifetime: Lifetime) -> io::Result<()> {
    let value = match lifetime {
        Lifetime::Descriptor => 0,
        Lifetime::Persistent => 1,
    };
    // SAFETY: TUNSETPERSIST takes 0 or 1 by value.
    let call = unsafe { IntegerSetter::<TUNSETPERSIST>::new_usize(value) };
    // SAFETY: an integer is passed; no memory is involved.
    unsafe { ioctl(tun, call) }
}

/// Lets processes of `uid`, and no others, attach to the device by its name.
#[doc(alias = "TUNSETOWNER")]
pub(crate) fn set_tap_owner(tun: impl AsFd, uid: u32) -> io::Result<()> {
    let value = usize::try_from(uid).map_err(|_| io::Errno::OVERFLOW)?;
    // SAFETY: TUNSETOWNER takes a uid by value; the kernel refuses one that it cannot map.
    let call = unsafe { IntegerSetter::<TUNSETOWNER>::new_usize(value) };
    // SAFETY: an integer is passed; no memory is involved.
    unsafe { ioctl(tun, call) }
}

/// The `CLONE_NEW…` constant of the namespace that `fd` refers to; ENOTTY if it refers to none.
#[doc(alias = "NS_GET_NSTYPE")]
pub(crate) fn namespace_type(fd: impl AsFd) -> io::Result<c_int> {
    // SAFETY: NS_GET_NSTYPE takes no argument and answers by its return value.
    unsafe { ioctl(fd, NsGetNstype) }
}

struct NsGetNstype;

// SAFETY: no pointer is passed, and the output is the call's return value.
unsafe impl Ioctl for NsGetNstype {
    type Output = c_int;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        NS_GET_NSTYPE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> io::Result<c_int> {
        Ok(out)
    }
}

/// The number of the network namespace that a socket belongs to; ENOPROTOOPT before Linux 5.14.
#[doc(alias = "SO_NETNS_COOKIE")]
pub(crate) fn namespace_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    // PROOF: eight.
    #[expect(clippy::cast_possible_truncation, reason = "the size of a u64")]
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    let (value, size) = ((&raw mut cookie).cast(), &raw mut length);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: SO_NETNS_COOKIE writes a `u64`; value and length live until the call returns, and the descriptor is open.
    let result = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, size) };
    if result == 0 { Ok(cookie) } else { Err(last_error()) }
}

/// What the last call of the C library failed with.
fn last_error() -> io::Errno {
    let error = std::io::Error::last_os_error();
    io::Errno::from_io_error(&error).unwrap_or(io::Errno::IO)
}

/// Borrows the descriptor of a netlink socket.
pub(crate) fn descriptor(socket: &NlSocket) -> BorrowedFd<'_> {
    // SAFETY: the socket owns the descriptor and outlives the borrow, as the lifetimes say.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// A socket that a test plays the kernel on the other end of.
#[cfg(test)]
pub(crate) fn socket_from(fd: std::os::fd::OwnedFd) -> NlSocket {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: the descriptor is open, and owned by nobody else from here on.
    unsafe { NlSocket::from_raw_fd(fd.into_raw_fd()) }
}
