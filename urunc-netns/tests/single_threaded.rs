//! A process is single-threaded again after waiting. The process under test may have one thread, and the usual
//! test runner has several, so this test is a program of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Instant;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use urunc_netns::{StillThreaded, wait_single_threaded};

fn main() {
    if !lab::ready() {
        return;
    }
    let soon = || Instant::now() + lab::PATIENCE;
    let (lab, own) = (lab::Lab::new(), File::open("/proc/self/ns/mnt").unwrap());
    let ns = lab.netns();
    for _ in 0..1000 {
        ns.run(|_| ()).unwrap();
        wait_single_threaded(soon()).unwrap();
        // Refused with EINVAL to any but the only thread of its process (setns(2)).
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount)).unwrap();
    }
    let (release, held) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || held.recv());
    let error = wait_single_threaded(Instant::now()).unwrap_err();
    assert!(matches!(error, StillThreaded::Others { threads: 2 }), "{error}");
    drop(release);
    assert!(other.join().unwrap().is_err(), "nothing was sent");
    wait_single_threaded(soon()).unwrap();
}
