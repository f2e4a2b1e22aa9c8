//! Runs the `urunc` binary for one container. What it does and decides is its own business; here is only how it is called, how long it may
//! take, and where its error message is found.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use super::ShimError;
use super::children::Children;
use super::settings::Settings;

/// A command that creates or starts something may run hooks, whose own time limits are in the specification.
const LONG: Duration = Duration::from_secs(600);
/// Every other command.
const SHORT: Duration = Duration::from_secs(120);

/// The runtime, for one container.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// How it is run.
    pub settings: Settings,
    /// The container.
    pub id: String,
    /// Its bundle, where the runtime's log is.
    pub bundle: PathBuf,
}

/// Standard streams for a process that a command makes.
#[derive(Debug)]
pub struct Streams {
    /// To read from.
    pub stdin: OwnedFd,
    /// To write to.
    pub stdout: OwnedFd,
    /// To write to.
    pub stderr: OwnedFd,
}

/// What a command reads and where its own output goes.
#[derive(Debug)]
pub enum Use {
    /// Nothing to read; what it prints is returned.
    Output,
    /// This is what it reads; what it prints is returned.
    Input(Vec<u8>),
    /// It hands the streams to the process that it makes.
    Streams(Streams),
}

impl Runtime {
    /// Runs `urunc VERB ARGUMENTS… ID`.
    ///
    /// # Errors
    /// [`ShimError::Runtime`] with the runtime's own words, [`ShimError::RuntimeHangs`], or [`ShimError::Path`] if it cannot be run.
    pub fn call(
        &self,
        children: &Children,
        verb: &'static str,
        arguments: &[&OsStr],
        usage: Use,
    ) -> Result<Vec<u8>, ShimError> {
        self.call_with(children, verb, arguments, &[], usage)
    }

    /// Runs `urunc VERB ARGUMENTS… ID LAST…`.
    ///
    /// # Errors
    /// As [`Runtime::call`].
    pub fn call_with(
        &self,
        children: &Children,
        verb: &'static str,
        arguments: &[&OsStr],
        last: &[&OsStr],
        usage: Use,
    ) -> Result<Vec<u8>, ShimError> {
        let log = self.bundle.join("log.json");
        let logged = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut command = Command::new(&self.settings.binary);
        command.arg("--root").arg(&self.settings.root).arg("--log").arg(&log).args(["--log-format", "json"]);
        if self.settings.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(verb).args(arguments).arg(&self.id).args(last);
        command.current_dir("/");
        // containerd's own, if it is a service that systemd waits for: runc would wait until the container says that it is ready.
        command.env_remove("NOTIFY_SOCKET");
        let mut output = scratch()?;
        let mut said = scratch()?;
        match usage {
            Use::Streams(streams) => {
                command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
            }
            Use::Output => {
                command.stdin(Stdio::null()).stdout(clone(&output)?).stderr(clone(&said)?);
            }
            Use::Input(input) => {
                let mut stdin = scratch()?;
                let write = |file: &mut File| file.write_all(&input).and_then(|()| file.rewind());
                write(&mut stdin).map_err(|source| ShimError::System("pass input to the runtime", source))?;
                command.stdin(stdin).stdout(clone(&output)?).stderr(clone(&said)?);
            }
        }
        let _busy = children.busy();
        let child = command.spawn().map_err(ShimError::path("run", &self.settings.binary))?;
        // The command still holds the streams; the container's reader would never see their end.
        drop(command);
        let limit = if matches!(verb, "create" | "start" | "exec") { LONG } else { SHORT };
        let status = wait(child, verb, limit)?;
        if status.success() {
            return Ok(read_all(&mut output));
        }
        let reason = fs::read(&log)
            .ok()
            .and_then(|text| last_error(text.get(usize::try_from(logged).unwrap_or(0)..)?))
            .or_else(|| {
                Some(String::from_utf8_lossy(&read_all(&mut said)).trim().to_owned())
                    .filter(|s| !s.is_empty())
            })
            .unwrap_or_else(|| status.to_string());
        Err(ShimError::Runtime { verb, reason })
    }

    /// Whether the container is a unikernel, and not handed on to another runtime: then the state directory has an origin.
    #[must_use]
    pub fn has_unikernel(&self) -> bool {
        self.settings.root.join(&self.id).join("origin.json").exists()
    }
}

fn wait(child: Child, verb: &'static str, limit: Duration) -> Result<ExitStatus, ShimError> {
    let ended =
        wait_at_most(child, limit).map_err(|source| ShimError::System("wait for the runtime", source))?;
    ended.ok_or(ShimError::RuntimeHangs { verb, seconds: limit.as_secs() })
}

/// Waits for a command, and kills it when its time is over. `None` if it had to be killed.
pub(super) fn wait_at_most(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(pidfd)) => {
            let timeout = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            // EINTR does not come: this process handles no signals.
            poll(&mut fds, Some(&timeout))? > 0
        }
        // Gone already, or a kernel without pidfds: just wait.
        _ => true,
    };
    if !ended {
        // It may have ended in this very moment.
        let _ = child.kill();
    }
    let status = child.wait()?;
    Ok(ended.then_some(status))
}

/// A file in memory: unlike a pipe it never blocks the command that writes.
pub(super) fn scratch() -> Result<File, ShimError> {
    memfd_create("urunc-shim", MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|errno| ShimError::System("make a file in memory", errno.into()))
}

pub(super) fn clone(file: &File) -> Result<OwnedFd, ShimError> {
    file.as_fd().try_clone_to_owned().map_err(|source| ShimError::System("duplicate a descriptor", source))
}

pub(super) fn read_all(file: &mut File) -> Vec<u8> {
    let mut text = Vec::new();
    if let Err(error) = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut text)) {
        log::warn!("cannot read what a command printed: {error}");
    }
    text
}

/// The last record of level `error` in a log, as containerd's own shims look for it.
fn last_error(log: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Record {
        level: String,
        msg: String,
    }
    let records = log.split(|byte| *byte == b'\n').rev();
    let mut records = records.filter_map(|line| serde_json::from_slice::<Record>(line).ok());
    records.find(|record| record.level == "error").map(|record| record.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(bundle: &std::path::Path, script: &str) -> Runtime {
        let (text, binary) = (bundle.join("script"), bundle.join("runtime"));
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // By another process: a descriptor open for writing, inherited by what another test runs, would make it "busy".
        let installed = Command::new("install").arg(&text).arg(&binary).status().unwrap();
        assert!(installed.success());
        let settings = Settings { binary, ..Settings::new("n", None).unwrap() };
        Runtime { settings, id: "c".into(), bundle: bundle.into() }
    }

    #[test]
    fn the_last_error_of_this_call_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log.json"), "{\"level\":\"error\",\"msg\":\"of an earlier call\"}\n")
            .unwrap();
        let script = r#"echo '{"level":"error","msg":"first"}' >>"$4"; echo '{"level":"error","msg":"second"}' >>"$4"; echo '{"level":"info","msg":"x"}' >>"$4"; exit 1"#;
        let failing = runtime(dir.path(), script);
        let error = failing.call(&Children::default(), "start", &[], Use::Output).unwrap_err();
        assert!(
            matches!(error, ShimError::Runtime { verb: "start", ref reason } if reason == "second"),
            "{error}"
        );
        let silent = runtime(dir.path(), "exit 3");
        let error = silent.call(&Children::default(), "start", &[], Use::Output).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        let dir = tempfile::tempdir().unwrap();
        let echo = runtime(dir.path(), "cat; echo $*");
        let output = echo
            .call(&Children::default(), "update", &["-r".as_ref()], Use::Input(b"{}\n".to_vec()))
            .unwrap();
        let text = String::from_utf8(output).unwrap();
        assert!(text.starts_with("{}\n--root ") && text.ends_with("update -r c\n"), "{text}");
    }
}
