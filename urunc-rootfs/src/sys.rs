//! System calls that `rustix` does not wrap; the only unsafe code of the crate.
#![expect(
    unsafe_code,
    reason = "mount_setattr(2), close_range(2) and the loop ioctls are in neither std nor rustix 1.1"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use rustix::mount::{MountAttrFlags, MountPropagationFlags};

/// `struct mount_attr` of `linux/mount.h`, version 0 (Linux 5.12).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets flags and propagation of the mount behind `mount` and of every mount below it.
///
/// Fails with `ENOSYS` before Linux 5.12.
pub(crate) fn mount_setattr_recursive(
    mount: BorrowedFd<'_>,
    set: MountAttrFlags,
    propagation: MountPropagationFlags,
) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: u64::from(set.bits()),
        attr_clr: 0,
        propagation: u64::from(propagation.bits()),
        userns_fd: 0,
    };
    // SAFETY: `mount` is open for the whole call; the path is an empty C string, as AT_EMPTY_PATH wants;
    // `attr` is a live `struct mount_attr` of exactly the size passed, and the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes many descriptors in few system calls: those with numbers in a row together.
pub(crate) fn close_together(fds: impl IntoIterator<Item = OwnedFd>) {
    let mut numbers: Vec<RawFd> = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
    numbers.sort_unstable();
    for row in numbers.chunk_by(|before, after| before + 1 == *after) {
        let (Some(first), Some(last)) = (row.first(), row.last()) else { continue };
        // SAFETY: all of these numbers were owned until now, and none is used again.
        if unsafe { libc::syscall(libc::SYS_close_range, *first, *last, 0) } == 0 {
            continue;
        }
        // Before Linux 5.9, or where a filter does not know the call.
        for number in row {
            // SAFETY: as above.
            unsafe { libc::close(*number) };
        }
    }
}

/// `struct loop_info64` of `linux/loop.h`. Only the flags matter here; the rest is given back as it was read.
#[repr(C)]
pub(crate) struct LoopInfo {
    numbers: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    pub(crate) flags: u32,
    names: [u8; 64 + 64 + 32],
    init: [u64; 2],
}

const _: () = assert!(size_of::<LoopInfo>() == 232);

/// `LO_FLAGS_AUTOCLEAR`: the loop device lets go of its file when nobody has it open any more.
pub(crate) const LO_FLAGS_AUTOCLEAR: u32 = 4;

const LOOP_SET_STATUS64: libc::Ioctl = 0x4C04;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;

/// What the loop device `device` is set to.
pub(crate) fn loop_info(device: BorrowedFd<'_>) -> io::Result<LoopInfo> {
    let mut info =
        LoopInfo { numbers: [0; 5], number: 0, encryption: [0; 2], flags: 0, names: [0; 160], init: [0; 2] };
    // SAFETY: `device` is open; the opcode writes one `struct loop_info64`, which `info` is (see the assertion).
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// Changes the settings of the loop device `device`.
pub(crate) fn set_loop_info(device: BorrowedFd<'_>, info: &LoopInfo) -> io::Result<()> {
    // SAFETY: `device` is open; the opcode reads one `struct loop_info64`, which `info` is.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64, std::ptr::from_ref(info)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
