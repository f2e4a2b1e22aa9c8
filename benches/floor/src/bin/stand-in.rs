//! What stands in for a monitor where none is installed: says that it is there, and waits to be killed.
#![no_std]
#![no_main]

use bench_floor::start::Start;
use bench_floor::sys;

bench_floor::program!(main);

fn main(_: Start) -> i32 {
    sys::write(1, b"here\n");
    loop {
        sys::pause();
    }
}
