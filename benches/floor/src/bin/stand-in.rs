//! What stands in for a monitor where none is installed: says that it is there, and, told to hold, waits to be killed.
#![no_std]
#![no_main]

use bench_floor::start::Start;
use bench_floor::sys;

bench_floor::program!(main);

fn main(start: Start) -> i32 {
    sys::write(1, b"here\n");
    // As the demo unikernel does with that word at the end of its command line.
    while start.last().is_some_and(|word| word == c"hold") {
        sys::pause();
    }
    0
}
