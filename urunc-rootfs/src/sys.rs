//! System calls that `rustix` does not wrap; the only unsafe code of the crate.
#![expect(
    unsafe_code,
    reason = "mount_setattr(2), close_range(2), file handles and the loop ioctls are in neither std nor rustix 1.1"
)]

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

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

/// A file as the file system itself knows it (`open_by_handle_at(2)`), whatever its names, and beyond an unmount.
#[repr(C)]
#[derive(Clone)]
pub(crate) struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; LARGEST_HANDLE],
}

/// `MAX_HANDLE_SZ`.
const LARGEST_HANDLE: usize = 128;

impl std::fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileHandle({}, {} bytes)", self.kind, self.bytes)
    }
}

/// The handle of the file `name` in `dir`; a link is not followed.
pub(crate) fn handle_of(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<FileHandle> {
    let name = CString::new(name.as_bytes())?;
    let mut handle = FileHandle { bytes: 128, kind: 0, handle: [0; LARGEST_HANDLE] };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: `dir` is open; the name is a C string; `handle` has the layout of `struct file_handle` with as much room as its
    // first field says; the last pointer is to a live integer. The kernel keeps none of them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            0,
        )
    };
    if result == 0 { Ok(handle) } else { Err(io::Error::last_os_error()) }
}

/// Opens the place (`O_PATH`) of the file with this handle in the file system that `inside`, itself no mere place, is in.
pub(crate) fn open_by_handle(inside: BorrowedFd<'_>, handle: &FileHandle) -> io::Result<OwnedFd> {
    // SAFETY: `inside` is open; `handle` is a whole `struct file_handle`, which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            inside.as_raw_fd(),
            std::ptr::from_ref(handle),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
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
