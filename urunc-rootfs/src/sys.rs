//! System calls that `rustix` does not wrap; the only unsafe code of the crate.
#![expect(unsafe_code, reason = "mount_setattr(2) is in neither std nor rustix 1.1")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
