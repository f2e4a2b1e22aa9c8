//! Processes of the real kernel: whom a record means, and who gets the signal.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};
use support::{is_root, lacks, now, soon, wait_until};
use urunc_state::{
    Deadline, Delivery, Freezer, Liveness, Observed, Pid, Process, ProcessError, ProcessIdentity, Record,
    Signal, Status, Waited, observe, status,
};

/// A child that is killed and reaped with the value.
struct Sleeper(Child);

impl Sleeper {
    fn spawn() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::new(self.0.id().into()).unwrap()
    }

    fn process(&self) -> Process {
        Process::with_pid(self.pid()).unwrap().unwrap()
    }

    /// Kills it and leaves it a zombie.
    fn make_zombie(&mut self) {
        self.0.kill().unwrap();
        let stat = format!("/proc/{}/stat", self.pid());
        wait_until("the child is a zombie", || fs::read_to_string(&stat).unwrap().contains(") Z "));
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with(identity: &ProcessIdentity, change: impl FnOnce(&mut ProcessIdentity)) -> ProcessIdentity {
    let mut changed = identity.clone();
    change(&mut changed);
    changed
}

#[test]
fn a_recorded_process_is_found_signalled_and_waited_for() {
    let mut child = Sleeper::spawn();
    let json = serde_json::to_string(child.process().identity()).unwrap();
    let process = Process::open(&serde_json::from_str(&json).unwrap()).unwrap().unwrap();
    assert!(process.is_alive().unwrap());
    assert_eq!(process.pid(), child.pid());
    assert_eq!(process.wait(now()).unwrap(), Waited::TimedOut);
    assert_eq!(process.signal(Signal::TERM).unwrap(), Delivery::Delivered);
    assert_eq!(process.wait(soon()).unwrap(), Waited::Exited);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.0.wait().unwrap().signal(), Some(15), "waiting has left the exit status to the parent");
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let child = Sleeper::spawn();
    let (start, wait) = (Instant::now(), Duration::from_millis(30));
    assert_eq!(child.process().wait(Deadline::after(wait)).unwrap(), Waited::TimedOut);
    assert!(start.elapsed() >= wait);
}

#[test]
fn a_process_with_the_number_but_another_start_is_not_ours() {
    // B2: only the number was compared.
    let child = Sleeper::spawn();
    let identity = child.process().identity().clone();
    for delta in [-1_i64, 1, 100] {
        let forged = with(&identity, |it| it.start_time = it.start_time.checked_add_signed(delta).unwrap());
        assert!(Process::open(&forged).unwrap().is_none());
    }
    assert!(Process::open(&identity).unwrap().is_some());
}

#[test]
fn a_process_of_another_boot_is_gone_in_whichever_namespace_it_was() {
    let child = Sleeper::spawn();
    let rebooted =
        with(child.process().identity(), |it| it.boot_id = "11111111-2222-3333-4444-555555555555".into());
    assert!(Process::open(&rebooted).unwrap().is_none());
    let elsewhere = with(&rebooted, |it| it.pid_namespace += 1);
    assert!(Process::open(&elsewhere).unwrap().is_none());
}

#[test]
fn a_process_of_another_pid_namespace_is_an_error_not_gone() {
    let child = Sleeper::spawn();
    let identity = child.process().identity().clone();
    let elsewhere = with(&identity, |it| it.pid_namespace = 1);
    let error = Process::open(&elsewhere).unwrap_err();
    assert!(matches!(error, ProcessError::OtherPidNamespace { recorded: 1, .. }));
    assert!(error.to_string().contains(&format!("process {}", child.pid())), "{error}");
    let mut record = Record::new(support::id("a"), support::path("/bundle"));
    record.urunc.process = Some(elsewhere);
    assert!(record.current_status().is_err(), "never \"stopped\" by guess");
}

#[test]
fn a_proc_of_another_pid_namespace_is_noticed() {
    if lacks("root", is_root()) {
        return;
    }
    // A shell in a new pid namespace that still has our /proc: this test, run there, must refuse.
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "helper_that_sees_a_foreign_proc", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("refused"), "{text}");
}

#[test]
#[ignore = "run by a_proc_of_another_pid_namespace_is_noticed"]
fn helper_that_sees_a_foreign_proc() {
    let me = Pid::new(std::process::id().into()).unwrap();
    assert!(matches!(Process::with_pid(me), Err(ProcessError::ForeignProc)));
    eprintln!("refused");
}

#[test]
fn a_zombie_is_dead() {
    // B10: kill(pid, 0) succeeds on a zombie, so it counted as alive.
    let mut child = Sleeper::spawn();
    let process = child.process();
    child.make_zombie();
    assert!(!process.is_alive().unwrap());
    assert_eq!(process.wait(now()).unwrap(), Waited::Exited);
    assert_eq!(process.signal(Signal::TERM).unwrap(), Delivery::Gone);
    assert_eq!(process.exe().unwrap(), None);
    let opened = Process::open(process.identity()).unwrap();
    assert!(opened.is_none_or(|opened| !opened.is_alive().unwrap()));
    assert!(Process::with_pid(child.pid()).unwrap().is_none());
}

#[test]
fn a_reaped_process_is_gone_and_that_is_no_error() {
    // F3: kill returned early with ESRCH and left the network behind.
    let child = Sleeper::spawn();
    let process = child.process();
    let (pid, identity) = (child.pid(), process.identity().clone());
    drop(child);
    assert!(Process::open(&identity).unwrap().is_none());
    assert!(Process::with_pid(pid).unwrap().is_none());
    assert_eq!(process.signal(Signal::KILL).unwrap(), Delivery::Gone);
    assert_eq!(process.wait(now()).unwrap(), Waited::Exited);
}

#[test]
fn a_pidfd_tells_its_process_until_it_is_dead() {
    let mut child = Sleeper::spawn();
    let raw = RawPid::from_raw(child.pid().get()).unwrap();
    let pidfd = || pidfd_open(raw, PidfdFlags::empty()).unwrap();
    let process = Process::from_pidfd(pidfd()).unwrap().unwrap();
    assert_eq!(process.identity(), child.process().identity());
    let (early, reaped) = (pidfd(), pidfd());
    child.make_zombie();
    assert!(Process::from_pidfd(early).unwrap().is_none());
    drop(child);
    assert!(Process::from_pidfd(reaped).unwrap().is_none());
}

#[test]
fn a_descriptor_that_is_no_pidfd_is_an_error() {
    let file = fs::File::open("/dev/null").unwrap();
    assert!(matches!(Process::from_pidfd(file.into()), Err(ProcessError::Parse { .. })));
}

#[test]
fn a_name_full_of_parentheses_forges_no_start_time() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(") S 1 (9 9 9) Z");
    std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
    let child = Sleeper(Command::new(&program).arg("600").spawn().unwrap());
    let name = format!("/proc/{}/comm", child.pid());
    wait_until("the program is executed", || fs::read_to_string(&name).unwrap().starts_with(") S 1"));
    let plain = Sleeper::spawn();
    let [odd, plain] = [child.process(), plain.process()];
    let difference = odd.identity().start_time.abs_diff(plain.identity().start_time);
    assert!(difference < 100 * 60, "{difference} ticks apart, but started together");
    assert!(Process::open(odd.identity()).unwrap().is_some());
}

#[test]
fn the_number_of_a_thread_is_no_process() {
    let (send, receive) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        send.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let _ = ended.recv();
    });
    let tid = Pid::new(receive.recv().unwrap().into()).unwrap();
    assert!(Process::with_pid(tid).unwrap().is_none());
    drop(end);
    thread.join().unwrap();
}

#[test]
fn the_program_is_known_by_device_and_inode_and_changes_with_execve() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "read _; exec sleep 600"]).stdin(std::process::Stdio::piped());
    let mut child = Sleeper(shell.spawn().unwrap());
    let process = child.process();
    let file = |path: &str| {
        let found = fs::metadata(path).unwrap();
        Some((found.dev(), found.ino()))
    };
    let exe = || process.exe().unwrap().map(|exe| (exe.dev, exe.ino));
    wait_until("the child has become a shell", || exe() == file("/bin/sh"));
    let init = process.exe().unwrap();

    // The same record before and after: created, then running, without anybody having recorded it.
    let mut record = Record::new(support::id("a"), support::path("/bundle"));
    record.urunc.process = Some(process.identity().clone());
    record.urunc.exe = init;
    record.advance(Status::Creating, urunc_state::Event::Created).unwrap();
    assert_eq!(record.current_status().unwrap(), Status::Created);
    drop(child.0.stdin.take());
    wait_until("the shell has become another program", || exe() == file("/bin/sleep"));
    assert_eq!(record.current_status().unwrap(), Status::Running);

    // Frozen or not is read from the file that the record names.
    let directory = tempfile::tempdir().unwrap();
    let freezer = directory.path().join("cgroup.events");
    record.urunc.freezer = Some(support::path(&freezer));
    for (contents, expected) in [
        ("populated 1\nfrozen 0\n", Status::Running),
        ("populated 1\nfrozen 1\n", Status::Paused),
        ("THAWED\n", Status::Running),
        ("FREEZING\n", Status::Running),
        ("FROZEN\n", Status::Paused),
    ] {
        fs::write(&freezer, contents).unwrap();
        assert_eq!(record.current_status().unwrap(), expected, "{contents:?}");
    }
    fs::remove_file(&freezer).unwrap();
    assert_eq!(record.current_status().unwrap(), Status::Running);

    // One look gives both, so that what is signalled is what the status was about.
    let seen = record.look().unwrap();
    assert_eq!((seen.status, seen.process.unwrap().pid()), (Status::Running, child.pid()));
    child.make_zombie();
    assert_eq!(record.current_status().unwrap(), Status::Stopped);
}

/// Who may not see a process must not take it for gone: its container would be "stopped", and given up.
#[test]
fn a_process_that_proc_hides_is_an_error_not_gone() {
    if lacks("root", is_root()) {
        return;
    }
    let child = Sleeper::spawn();
    let identity = child.process().identity().clone();
    let [opened, found] = support::in_mount_namespace(|| {
        use rustix::mount::{MountFlags, mount};
        mount("proc", "/proc", "proc", MountFlags::empty(), Some(c"hidepid=invisible")).unwrap();
        // Members of group 0 see everything by default.
        let (uid, gid) = (rustix::process::Uid::from_raw(65534), rustix::process::Gid::from_raw(65534));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        [Process::open(&identity), Process::with_pid(identity.pid)].map(Result::unwrap_err)
    });
    for error in [opened, found] {
        assert!(matches!(error, ProcessError::Hidden { pid } if pid == child.pid()), "{error:?}");
    }
    let (pid, identity) = (child.pid(), child.process().identity().clone());
    drop(child);
    assert!(Process::open(&identity).unwrap().is_none() && Process::with_pid(pid).unwrap().is_none());
}

#[test]
fn a_container_without_a_process_yet_is_creating() {
    let record = Record::new(support::id("a"), support::path("/bundle"));
    let observed = observe(&record, None).unwrap();
    assert_eq!(observed, Observed { process: Liveness::Unborn, exe: None, freezer: Freezer::Thawed });
    assert_eq!(status(&record, &observed), Status::Creating);
}

#[test]
fn a_refused_signal_is_an_error_that_names_signal_and_process() {
    if lacks("root", is_root()) {
        return;
    }
    // As nobody, who may not signal a process of root's. Only this thread changes its user.
    let child = Sleeper::spawn();
    let process = child.process();
    let refused = std::thread::scope(|scope| {
        let nobody = scope.spawn(|| {
            let uid = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            // B10: EPERM was taken for "not running".
            assert!(process.is_alive().unwrap());
            process.signal(Signal::TERM).unwrap_err()
        });
        nobody.join().unwrap()
    });
    assert_eq!(refused.to_string(), format!("cannot send SIGTERM to process {}", child.pid()));
}
