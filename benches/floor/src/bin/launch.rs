//! Starts programs for the bench and says what each has cost. It exists because it is small: the kernel counts the memory of the
//! process that forks towards the peak of the one that is forked, which the bench itself would spoil, and copying
//! a large process takes time.
//!
//! A request on standard input is its length (4 bytes, little endian) and that many bytes: texts that each end with a zero byte, namely
//! the file for standard output (none: nowhere), the file for standard error, the program's path, and its arguments from number 0 on.
//! The answer on standard output is six numbers of 8 bytes: begin and end (nanoseconds of the monotonic clock), user and system time
//! (microseconds), peak memory (KiB) and the status of wait(2).
#![no_std]
#![no_main]

use core::ffi::{CStr, c_char};
use core::ptr;

use bench_floor::start::Start;
use bench_floor::sys;

bench_floor::program!(main);

const REQUEST: usize = 8192;
const ARGUMENTS: usize = 128;

fn main(start: Start) -> i32 {
    let mut request = [0u8; REQUEST];
    loop {
        let mut length = [0u8; 4];
        if !fill(&mut length) {
            return 0;
        }
        let length = u32::from_le_bytes(length) as usize;
        let Some(body) = request.get_mut(..length) else { return 1 };
        if !fill(body) {
            return 1;
        }
        let begin = sys::now();
        let child = sys::fork();
        if child == 0 {
            return execute(&start, body);
        }
        let ended = sys::wait4(child);
        let end = sys::now();
        for number in [begin, end, ended.user, ended.system, ended.peak, ended.status] {
            sys::write(1, &number.to_le_bytes());
        }
    }
}

fn fill(buffer: &mut [u8]) -> bool {
    let mut at = 0;
    while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match sys::read(0, rest) {
            count @ 1.. => at += count as usize,
            _ => return false,
        }
    }
    true
}

fn execute(start: &Start, body: &[u8]) -> i32 {
    let mut rest = body;
    let mut texts: [*const c_char; ARGUMENTS] = [ptr::null(); ARGUMENTS];
    let (mut head, mut count) = ([c""; 3], 0);
    while let Ok(text) = CStr::from_bytes_until_nul(rest) {
        match head.get_mut(count) {
            Some(place) => *place = text,
            None => match texts.get_mut(count - 3) {
                Some(place) if count - 3 < ARGUMENTS - 1 => *place = text.as_ptr(),
                _ => return 126,
            },
        }
        count += 1;
        rest = rest.get(text.to_bytes_with_nul().len()..).unwrap_or_default();
    }
    let [out, err, program] = head;
    let nowhere = sys::open(c"/dev/null", sys::READ_WRITE, 0);
    let out = if out.is_empty() { nowhere } else { sys::open(out, sys::WRITE | sys::APPEND, 0o600) };
    let err = sys::open(err, sys::WRITE | sys::APPEND, 0o600);
    sys::dup2(nowhere, 0);
    sys::dup2(out, 1);
    sys::dup2(err, 2);
    for spare in [nowhere, out, err] {
        if spare > 2 {
            sys::close(spare);
        }
    }
    // SAFETY: the list was filled with nulls, and its last place is never used; the environment is the kernel's.
    unsafe { sys::execve(program, texts.as_ptr(), start.environment()) };
    127
}
