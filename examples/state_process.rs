//! Who a process is, and how to signal it without ever hitting another one that got its number.
//!
//! `cargo run --example state_process`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use urunc_state::{Deadline, Delivery, Pid, Process, ProcessIdentity, Signal, Waited};

fn main() -> Result<(), Box<dyn Error>> {
    let mut child = Command::new("sleep").arg("60").spawn()?;

    // The number is the child's as long as it has not been waited for, so now is the time to take its identity.
    let process = Process::with_pid(Pid::new(child.id().into())?)?.ok_or("the child died at once")?;
    let recorded = serde_json::to_string(process.identity())?;
    println!("recorded: {recorded}");
    println!("program: {:?}", process.exe()?);
    drop(process);

    // Another command, later: the record is all that it has.
    let identity: ProcessIdentity = serde_json::from_str(&recorded)?;
    let process = Process::open(&identity)?.ok_or("gone")?;
    println!("alive: {}", process.is_alive()?);

    // Somebody else with the same number is not taken for it.
    let other = ProcessIdentity { start_time: identity.start_time + 1, ..identity.clone() };
    println!("another process with number {}: {:?}", other.pid, Process::open(&other)?);

    let signal: Signal = "SIGTERM".parse()?;
    println!("{signal}: {:?}", process.signal(signal)?);
    match process.wait(Deadline::after(Duration::from_secs(5)))? {
        Waited::Exited => println!("it exited"),
        Waited::TimedOut => println!("{:?}", process.signal(Signal::KILL)?),
    }

    // A zombie is dead, and so is a process that has been reaped. Neither is an error.
    assert_eq!(process.signal(Signal::KILL)?, Delivery::Gone);
    child.wait()?;
    println!("after it was reaped: {:?}", Process::open(&identity)?);
    Ok(())
}
