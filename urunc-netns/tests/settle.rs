//! Hand-over by name: only the monitor can attach, and from then on the device dies with it.
//!
//! The monitor is this very program again, started in the namespace as another user, running one ignored test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::Pod;
use rustix::fs::{CWD, FileType, Mode as FileMode};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use urunc_netns::{Attachment, Handover, Mode, Owner, Settled, Tap, attach, detach, discover, plan, settle};

/// A monitor's user: neither root nor with any capability.
const MONITOR: u32 = 65534;

/// Attaches for hand-over by name.
fn offered(pod: &Pod, mode: Mode) -> Attachment {
    let owner = Owner::new("guest", Path::new("/run/urunc"));
    let attached = pod.inside.netns().run(|here| {
        let found = discover(here).unwrap().unwrap();
        let plan = plan(&found, &owner, mode, Handover::Name { uid: MONITOR }).unwrap();
        let tap = attach(here, &plan.attachment).unwrap();
        assert!(matches!(tap, Tap::Named));
        plan.attachment
    });
    let record = attached.unwrap();
    // A child that another thread is starting may still have a copy of the descriptor.
    lab::until("nobody is there", || {
        !pod.inside.sh(&format!("ip -o link show {}", record.tap)).contains("LOWER_UP")
    });
    record
}

/// `/dev/net/tun` as the monitor's root has it: its own node, for itself alone.
fn own_tun(directory: &Path) -> PathBuf {
    let path = directory.join("tun");
    let device = rustix::fs::makedev(10, 200);
    rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, FileMode::from_raw_mode(0o600), device)
        .unwrap();
    std::os::unix::fs::chown(&path, Some(MONITOR), Some(MONITOR)).unwrap();
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Starts the monitor of the given user. It attaches when it is told to, by the end of its standard input.
fn monitor(pod: &Pod, tap: &str, uid: u32, tun: &Path) -> Child {
    let program = std::env::current_exe().unwrap();
    pod.inside
        .command("setpriv")
        .args([&format!("--reuid={uid}"), "--clear-groups", "--inh-caps=-all", "--"])
        .arg(program)
        .args(["--ignored", "--exact", "--nocapture", "the_monitor"])
        .env("TAP", tap)
        .env("TUN", tun)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Tells the monitor to go on, and gives what it says of its attempt: 0 or an error number.
fn go(monitor: &mut Child) -> i32 {
    drop(monitor.stdin.take());
    said(monitor)
}

/// The words may follow others on their line: a test runner with one thread names the test there before it runs it.
fn said(monitor: &mut Child) -> i32 {
    let stdout = BufReader::new(monitor.stdout.as_mut().unwrap());
    let words = stdout
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.split_once("attached: ").map(|(_, code)| code.to_owned()));
    words.unwrap().parse().unwrap()
}

#[test]
#[ignore = "the monitor, started by the other tests"]
#[expect(clippy::cast_possible_truncation, reason = "flags that fit")]
fn the_monitor() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let tun = std::fs::OpenOptions::new().read(true).write(true).open(std::env::var("TUN").unwrap()).unwrap();
    let mut request = [0_u8; 40];
    let name = std::env::var("TAP").unwrap();
    request[..name.len()].copy_from_slice(name.as_bytes());
    // As Firecracker has it: no exclusive creation, for the device exists.
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which is 40 bytes.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    let error = std::io::Error::last_os_error();
    println!("attached: {}", if result == 0 { 0 } else { error.raw_os_error().unwrap() });
    // SAFETY: no arguments; comes back on a signal only.
    unsafe { libc::pause() };
}

fn pidfd(child: &Child) -> OwnedFd {
    pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap()
}

fn settled(pod: &Pod, record: &Attachment, monitor: &Child, patience: Duration) -> Settled {
    let pidfd = pidfd(monitor);
    pod.inside
        .netns()
        .run(|here| settle(here, record, pidfd.as_fd(), Instant::now() + patience))
        .unwrap()
        .unwrap()
}

fn persistent(pod: &Pod, record: &Attachment) -> bool {
    let link = pod.inside.sh(&format!("ip -j -d link show {}", record.tap));
    link.contains(r#""persist":true"#)
}

const SOON: Duration = lab::PATIENCE;

#[test]
fn the_device_dies_with_the_monitor_once_that_has_attached() {
    if !lab::ready() || !lab::needs(&[("setpriv", lab::has("setpriv"))]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tun = own_tun(directory.path());
    for mode in [Mode::Dynamic, Mode::Static] {
        let pod = Pod::new();
        let before = pod.inside.dump();
        let record = offered(&pod, mode);
        assert!(persistent(&pod, &record));
        let link = pod.inside.sh(&format!("ip -o link show {}", record.tap));
        assert!(link.contains("UP") && !link.contains("LOWER_UP"), "up, and nobody there: {link}");

        // The monitor attaches while somebody waits for it.
        let mut monitor = monitor(&pod, record.tap.as_str(), MONITOR, &tun);
        let stdin = monitor.stdin.take();
        let outcome = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| settled(&pod, &record, &monitor, SOON));
            drop(stdin);
            waiting.join().unwrap()
        });
        assert_eq!(outcome, Settled::Attached);
        assert_eq!(said(&mut monitor), 0);
        assert!(!persistent(&pod, &record));
        lab::end(monitor);
        lab::until("the device is gone", || !pod.inside.sh("ip -o link").contains(record.tap.as_str()));
        pod.inside.netns().run(|here| detach(here, &record)).unwrap().unwrap();
        lab::same(&pod.inside.dump(), &before);
    }
}

#[test]
fn a_monitor_that_has_attached_already_is_found_without_an_event() {
    if !lab::ready() || !lab::needs(&[("setpriv", lab::has("setpriv"))]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tun = own_tun(directory.path());
    let pod = Pod::new();
    let record = offered(&pod, Mode::Dynamic);
    let mut monitor = monitor(&pod, record.tap.as_str(), MONITOR, &tun);
    assert_eq!(go(&mut monitor), 0);
    assert_eq!(settled(&pod, &record, &monitor, SOON), Settled::Attached);
    assert_eq!(settled(&pod, &record, &monitor, SOON), Settled::Attached, "twice is once");
    assert!(!persistent(&pod, &record));
    lab::end(monitor);
}

/// Without an owner any process of the namespace could attach; with it, the pod's own cannot.
#[test]
fn another_user_cannot_attach() {
    if !lab::ready() || !lab::needs(&[("setpriv", lab::has("setpriv"))]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tun = own_tun(directory.path());
    std::fs::set_permissions(&tun, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let pod = Pod::new();
    let record = offered(&pod, Mode::Dynamic);
    let mut stranger = monitor(&pod, record.tap.as_str(), 1234, &tun);
    assert_eq!(go(&mut stranger), libc::EPERM);
    assert_eq!(settled(&pod, &record, &stranger, Duration::ZERO), Settled::NotYet);
    lab::end(stranger);
}

#[test]
fn waiting_ends_with_the_monitor_the_deadline_or_the_device() {
    if !lab::ready() || !lab::needs(&[("setpriv", lab::has("setpriv"))]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tun = own_tun(directory.path());
    let pod = Pod::new();
    let before = pod.inside.dump();
    let record = offered(&pod, Mode::Dynamic);
    let idle = monitor(&pod, record.tap.as_str(), MONITOR, &tun);
    assert_eq!(settled(&pod, &record, &idle, Duration::ZERO), Settled::NotYet);
    // A link event of no importance does not end it.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| settled(&pod, &record, &idle, SOON));
        pod.inside.sh("ip link set lo alias noise; ip link set lo alias ''");
        rustix::process::kill_process(Pid::from_child(&idle), rustix::process::Signal::KILL).unwrap();
        assert_eq!(waiting.join().unwrap(), Settled::MonitorGone);
    });
    lab::end(idle);
    assert!(persistent(&pod, &record), "the record is the second line");
    pod.inside.netns().run(|here| detach(here, &record)).unwrap().unwrap();
    lab::same(&pod.inside.dump(), &before);
    let other = monitor(&pod, record.tap.as_str(), MONITOR, &tun);
    assert_eq!(settled(&pod, &record, &other, SOON), Settled::TapGone);
    lab::end(other);
}
