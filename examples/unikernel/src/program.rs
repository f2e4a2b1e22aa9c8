//! What the guest does, the same on every monitor: greet, tell what it was given, obey its words, power off.

use crate::console::Line;
use crate::net;
use crate::platform::{Input, Platform, StopRequest};
use crate::words::{Command, Words};

/// The status of a guest that did not understand its command line.
const MISUNDERSTOOD: u8 = 2;
/// Ctrl-D, which ends what is typed at a terminal.
const END_OF_INPUT: u8 = 4;

/// Runs the guest to its end.
pub fn run<P: Platform>(platform: &P, command_line: &'static [u8]) -> ! {
    greet(platform, command_line);
    let status = obey(platform, command_line);
    Line::new(platform).text(b"powering off with status ").number(u64::from(status)).end();
    platform.power_off(status)
}

fn greet<P: Platform>(platform: &P, command_line: &'static [u8]) {
    let mut line = Line::new(platform);
    line.text(b"Hello from the urunc demo unikernel, booted by ").text(platform.booted_by().as_bytes()).end();
    let memory = platform.memory();
    // Firmware and monitor keep a few pages to themselves; people think of the size that they asked for.
    line.text(b"memory: ")
        .number(memory.div_ceil(1 << 20))
        .text(b" MiB (")
        .number(memory)
        .text(b" bytes)")
        .end();
    platform.describe_devices();
    let mut count: u64 = 0;
    for word in Words::of(command_line) {
        count += 1;
        line.text(b"word ").number(count).text(b": ").text(word).end();
    }
    if count == 0 {
        line.text(b"no words").end();
    }
}

/// Carries out the words in order, and returns the status to end with. A request to stop ends `hold`, `echo`,
/// `burn` and `answer`, and what is left of the command line.
fn obey<P: Platform>(platform: &P, command_line: &'static [u8]) -> u8 {
    let mut status = 0;
    let mut address = None;
    let mut line = Line::new(platform);
    for word in Words::of(command_line) {
        match Command::of(word) {
            Command::Exit(wanted) => status = wanted,
            Command::Address(ours) => address = Some(ours),
            _ => {}
        }
    }
    for word in Words::of(command_line) {
        let stop = match Command::of(word) {
            Command::Hold => hold(platform),
            Command::Echo => echo(platform),
            Command::Burn(seconds) => burn(platform, seconds),
            Command::Print(mebibytes) => print(platform, mebibytes),
            Command::Malformed => {
                line.text(b"cannot understand ").text(word).text(b": not a number, or too large").end();
                return MISUNDERSTOOD;
            }
            Command::Answer => answer(platform, address),
            Command::Exit(_) | Command::Address(_) | Command::Other => None,
        };
        if let Some(stop) = stop {
            let by: &[u8] = match stop {
                StopRequest::PowerButton => b"the power button",
                StopRequest::CtrlAltDel => b"ctrl-alt-del",
            };
            line.text(b"asked to stop by ").text(by).end();
            break;
        }
    }
    status
}

fn hold<P: Platform>(platform: &P) -> Option<StopRequest> {
    Line::new(platform).text(b"holding until told to stop").end();
    loop {
        if let Some(stop) = platform.stop_requested() {
            return Some(stop);
        }
        platform.sleep();
    }
}

/// Prints lines of 64 characters, a page at a time, as somebody would who wants to know how fast the console is.
fn print<P: Platform>(platform: &P, mebibytes: u32) -> Option<StopRequest> {
    static PAGE: [u8; 4096] = page();
    for _ in 0..mebibytes {
        for _ in 0..256 {
            platform.write(&PAGE);
        }
        if let Some(stop) = platform.stop_requested() {
            return Some(stop);
        }
    }
    None
}

const fn page() -> [u8; 4096] {
    let mut page = [b'.'; 4096];
    let mut end = 63;
    while end < 4096 {
        page[end] = b'\n';
        end += 64;
    }
    page
}

fn echo<P: Platform>(platform: &P) -> Option<StopRequest> {
    if platform.input() == Input::Absent {
        Line::new(platform).text(b"nothing to echo: this console is for output only").end();
        return None;
    }
    Line::new(platform).text(b"echoing until ctrl-d").end();
    loop {
        while let Some(byte) = platform.read() {
            if byte == END_OF_INPUT {
                return None;
            }
            platform.write(&[byte]);
        }
        if let Some(stop) = platform.stop_requested() {
            return Some(stop);
        }
        platform.sleep();
    }
}

fn answer<P: Platform>(platform: &P, address: Option<[u8; 4]>) -> Option<StopRequest> {
    let mut line = Line::new(platform);
    let Some(mac) = platform.network() else {
        line.text(b"nothing to answer: no network device").end();
        return None;
    };
    let Some(address) = address else {
        line.text(b"nothing to answer: no address, which would be the word ip=A.B.C.D").end();
        return None;
    };
    line.text(b"answering for ");
    for (at, part) in (0..).zip(&address) {
        line.text(if at == 0 { b"" } else { b"." }).number(u64::from(*part));
    }
    line.end();
    let mut room = [0; net::FRAME];
    loop {
        while let Some(length) = platform.receive(&mut room) {
            if let Some(frame) = room.get_mut(..length)
                && net::answer(frame, mac, address) == net::Answer::Send
            {
                platform.send(frame);
            }
        }
        if let Some(stop) = platform.stop_requested() {
            return Some(stop);
        }
        platform.sleep();
    }
}

fn burn<P: Platform>(platform: &P, seconds: u32) -> Option<StopRequest> {
    Line::new(platform).text(b"burning for ").number(u64::from(seconds)).text(b" s").end();
    platform.start_clock();
    while platform.elapsed() < u64::from(seconds) * 1_000_000_000 {
        if let Some(stop) = platform.stop_requested() {
            return Some(stop);
        }
        // Long enough that the questions, which may cost a round trip to the monitor each, do not weigh in.
        for _ in 0..10_000 {
            core::hint::spin_loop();
        }
    }
    None
}
