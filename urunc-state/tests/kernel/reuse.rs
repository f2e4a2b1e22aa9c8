//! B2: a number that was used again passed for our process.

use std::fs;
use std::process::{Child, Command};

use urunc_state::{Delivery, Pid, Process, Signal};

use crate::support::{is_root, lacks, wait_until};

pub(crate) fn a_number_used_again() {
    if lacks("root", is_root()) {
        return;
    }
    // In a pid namespace of its own, where the next number can be chosen without disturbing anybody.
    let status = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["helper", "reuse"])
        .status()
        .unwrap();
    assert!(status.success());
}

pub(crate) fn in_a_fresh_pid_namespace() {
    let mut first = sleeper();
    let pid = Pid::new(first.id().into()).unwrap();
    let ours = Process::with_pid(pid).unwrap().unwrap();
    let identity = ours.identity().clone();
    assert!(Process::open(&identity).unwrap().is_some());
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(Process::open(&identity).unwrap().is_none());

    // Start times have a resolution of 10 ms, so the first new holder of the number may share it.
    let mut second = None;
    wait_until("another process has the number and a later start time", || {
        if let Some(mut previous) = second.take() {
            Child::kill(&mut previous).unwrap();
            previous.wait().unwrap();
        }
        fs::write("/proc/sys/kernel/ns_last_pid", (pid.get() - 1).to_string()).unwrap();
        let next = second.insert(sleeper());
        assert_eq!(i64::from(next.id()), i64::from(pid), "the number is used again");
        let holder = Process::with_pid(pid).unwrap().unwrap();
        holder.identity().start_time != identity.start_time
    });
    assert!(Process::open(&identity).unwrap().is_none());
    // Nor does the handle of the old process reach the new one.
    assert_eq!(ours.signal(Signal::KILL).unwrap(), Delivery::Gone);
    assert!(!ours.is_alive().unwrap());
    assert_eq!(ours.exe().unwrap(), None);
    let mut second = second.unwrap();
    assert!(second.try_wait().unwrap().is_none(), "the new holder of the number is unharmed");
    second.kill().unwrap();
    second.wait().unwrap();
}

fn sleeper() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}
