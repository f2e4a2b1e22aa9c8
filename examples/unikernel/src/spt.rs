//! Booted by `solo5-spt`: an ordinary process that its seccomp filter leaves six system calls.
//!
//! Interface: Solo5's `include/spt_abi.h`, version 2, and the filter in `tenders/spt/spt_core.c`. There is no console
//! input, and no way to ask for a stop.

use core::arch::{asm, global_asm};
use core::mem::MaybeUninit;

use crate::manifest::{self, Net};
use crate::memory::text_at;
use crate::platform::{Input, Platform};
use crate::program;

// The tender passes its boot information in rdi.
global_asm!(
    ".section .text.spt_start, \"ax\"",
    ".global spt_start",
    "spt_start:",
    "lea rsp, [rip + stack_top]",
    "xor ebp, ebp",
    "call {main}",
    ".text",
    main = sym main,
);

/// What the tender tells its guest.
#[repr(C)]
struct BootInfo {
    memory: u64,
    kernel_end: u64,
    command_line: *const u8,
    manifest: u64,
    /// Holds the network devices and a timer.
    epoll: i32,
    timer: i32,
}

extern "C" fn main(info: &'static BootInfo) -> ! {
    // SAFETY: the tender wrote a text there before it started the guest, and writes no more.
    let command_line = unsafe { text_at(info.command_line) };
    // SAFETY: the tender put the manifest there.
    let net = unsafe { manifest::first_net(info.manifest) };
    program::run(&Spt { info, net, started: core::cell::Cell::new(0) }, command_line)
}

struct Spt {
    info: &'static BootInfo,
    net: Option<Net>,
    /// What the host's clock showed when ours was started.
    started: core::cell::Cell<u64>,
}

const READ: u64 = 0;
const WRITE: u64 = 1;
const CLOCK_GETTIME: u64 = 228;
const EXIT_GROUP: u64 = 231;
const EPOLL_PWAIT: u64 = 281;

const STDOUT: u64 = 1;
const CLOCK_MONOTONIC: u64 = 1;

/// A system call. Returns what the kernel does: a negative number is an error.
///
/// # Safety
///
/// The arguments are what the call of that number expects.
unsafe fn system_call(number: u64, first: u64, second: u64, third: u64, fourth: u64) -> i64 {
    let result;
    // SAFETY: the caller vouches for the arguments; the kernel clobbers just what is named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") 0,
            in("r9") 0,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

impl Spt {
    fn now(&self) -> u64 {
        let mut time = MaybeUninit::<[u64; 2]>::uninit();
        // SAFETY: room for the seconds and nanoseconds that the call writes.
        unsafe {
            system_call(CLOCK_GETTIME, CLOCK_MONOTONIC, time.as_mut_ptr().expose_provenance() as u64, 0, 0)
        };
        // SAFETY: this clock can always be read, so they are written.
        let [seconds, nanoseconds] = unsafe { time.assume_init() };
        seconds * 1_000_000_000 + nanoseconds
    }
}

impl Platform for Spt {
    fn booted_by(&self) -> &'static str {
        "solo5-spt"
    }

    fn memory(&self) -> u64 {
        self.info.memory
    }

    fn write(&self, text: &[u8]) {
        // SAFETY: address and length of a live text.
        unsafe { system_call(WRITE, STDOUT, text.as_ptr().expose_provenance() as u64, text.len() as u64, 0) };
    }

    fn read(&self) -> Option<u8> {
        None
    }

    fn input(&self) -> Input {
        Input::Absent
    }

    fn sleep(&self) {
        let mut event = [0_u8; 12];
        #[expect(clippy::cast_sign_loss, reason = "the tender made sure that it is a descriptor")]
        let epoll = self.info.epoll as u64;
        // SAFETY: room for one event; no timeout (-1): a frame that comes in ends it, and nothing else does.
        unsafe { system_call(EPOLL_PWAIT, epoll, (&raw mut event).expose_provenance() as u64, 1, u64::MAX) };
    }

    fn start_clock(&self) {
        self.started.set(self.now());
    }

    fn elapsed(&self) -> u64 {
        self.now().wrapping_sub(self.started.get())
    }

    fn describe_devices(&self) {
        // SAFETY: the tender put the manifest there.
        unsafe { manifest::describe(self, self.info.manifest) };
    }

    fn network(&self) -> Option<[u8; 6]> {
        self.net.map(|net| net.mac)
    }

    fn receive(&self, room: &mut [u8]) -> Option<usize> {
        let from = u64::from(self.net?.descriptor);
        let address = room.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: address and length of live memory. The descriptor does not block.
        usize::try_from(unsafe { system_call(READ, from, address, room.len() as u64, 0) }).ok()
    }

    fn send(&self, frame: &[u8]) {
        if let Some(net) = self.net {
            let address = frame.as_ptr().expose_provenance() as u64;
            // SAFETY: address and length of a live frame.
            unsafe { system_call(WRITE, u64::from(net.descriptor), address, frame.len() as u64, 0) };
        }
    }

    fn power_off(&self, status: u8) -> ! {
        loop {
            // SAFETY: ends the process.
            unsafe { system_call(EXIT_GROUP, u64::from(status), 0, 0, 0) };
        }
    }
}
