//! Carries a plan out in the simplest way: the same namespaces, user and root as the test. Documents become memory
//! files, inherited descriptors are made on the spot, and each is put under its number before `execve`.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixListener, net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    fs::MemfdFlags,
    process::{Pid, PidfdFlags},
};
use urunc_vmm::{Control, ControlPoint, Launch, Role, control, stop};

pub(crate) const LIMIT: Duration = Duration::from_secs(100);

/// A monitor that runs, and is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) pidfd: OwnedFd,
    launch: Launch,
    dir: tempfile::TempDir,
    /// The read end of the event pipe, if the plan has one.
    pub(crate) events: Option<OwnedFd>,
    output: std::fs::File,
}

/// Executes a plan. `given` has what cannot be made here: TAP devices.
pub(crate) fn perform(launch: &Launch, given: BTreeMap<Role, OwnedFd>) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let mut events = None;
    // High numbers, so that none is in the place of another.
    let mut placed: Vec<(OwnedFd, RawFd)> = Vec::new();
    let mut place = |fd: OwnedFd, number: RawFd| {
        placed.push((rustix::io::fcntl_dupfd_cloexec(&fd, 500).unwrap(), number));
    };
    for document in &launch.documents {
        let memfd = rustix::fs::memfd_create("document", MemfdFlags::CLOEXEC).unwrap();
        std::fs::File::from(memfd.try_clone().unwrap()).write_all(&document.contents).unwrap();
        place(memfd, document.fd);
    }
    let mut given = given;
    for inherit in &launch.inherit {
        let fd = match inherit.role {
            Role::Control => UnixListener::bind(dir.path().join("control")).unwrap().into(),
            Role::Events => {
                let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
                events = Some(read);
                write
            }
            role => given.remove(&role).unwrap(),
        };
        place(fd, inherit.fd);
    }

    let output_path = dir.path().join("output");
    let output = std::fs::File::create(&output_path).unwrap();
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let open_here = inheritable();
    let numbers: Vec<(RawFd, RawFd)> = placed.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();
    let put = move || {
        for &fd in &open_here {
            // SAFETY: if it is open no longer, the call fails and does nothing.
            let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd) };
            let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
        }
        for &(from, to) in &numbers {
            // SAFETY: `from` is open in this process until after the spawn.
            let from = unsafe { rustix::fd::BorrowedFd::borrow_raw(from) };
            // SAFETY: whatever `to` is in the child, nobody else there uses it; it is not closed here.
            let mut to = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(to) });
            rustix::io::dup2(from, &mut to)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec, the closure makes system calls and nothing else.
    unsafe { command.pre_exec(put) };
    let child = command.spawn().unwrap();
    let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let output = std::fs::File::open(output_path).unwrap();
    Running { child, pidfd, launch: launch.clone(), dir, events, output }
}

/// What whoever started the tests left open.
fn inheritable() -> Vec<RawFd> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect()
}

impl Running {
    /// Waits for the end, and returns the status and all output.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let ended = stop::wait(self.pidfd.as_fd(), LIMIT).unwrap();
        let output = self.output();
        assert!(ended, "still running after {LIMIT:?}: {output}");
        (self.child.wait().unwrap(), output)
    }

    /// Waits until the output has `text` in it.
    pub(crate) fn until(&mut self, text: &str) {
        let deadline = std::time::Instant::now() + LIMIT;
        while !self.output().contains(text) {
            let ended = stop::wait(self.pidfd.as_fd(), Duration::from_millis(2)).unwrap();
            let late = std::time::Instant::now() > deadline;
            assert!(!(ended || late) || self.output().contains(text), "no {text:?} in {}", self.output());
        }
    }

    pub(crate) fn output(&self) -> String {
        let mut bytes = Vec::new();
        let mut file = std::fs::File::open(format!("/proc/self/fd/{}", self.output.as_raw_fd())).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Connects to its control interface.
    pub(crate) fn control(&self) -> Control {
        let point = self.launch.control.as_ref().unwrap();
        let stream = match point {
            ControlPoint::Qmp | ControlPoint::CloudHypervisor => {
                control::connect(&self.dir.path().join("control"), LIMIT).unwrap()
            }
            ControlPoint::Firecracker { path } => self.own_socket(path),
        };
        Control::open(stream, point.protocol(), LIMIT).unwrap()
    }

    /// Reaches a socket in the monitor's root as a runtime does, once the monitor has made it.
    fn own_socket(&self, path: &Path) -> UnixStream {
        let root = std::fs::File::open(format!("/proc/{}/root", self.child.id())).unwrap();
        let deadline = std::time::Instant::now() + LIMIT;
        loop {
            match control::connect_below(root.as_fd(), path, Pid::from_child(&self.child), LIMIT) {
                Ok(stream) => return stream,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}: {}", self.output()),
            }
            assert!(!stop::wait(self.pidfd.as_fd(), Duration::from_millis(2)).unwrap(), "{}", self.output());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(ControlPoint::Firecracker { path }) = &self.launch.control {
            let _ = std::fs::remove_file(path);
        }
    }
}
