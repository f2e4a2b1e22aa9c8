//! Running commands through `launch` of the floor crate, which is small enough not to disturb what it measures.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::error::{BenchError, Context, Result};

/// What a command has cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// On the monotonic clock.
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak_kib: u64,
}

impl Cost {
    pub(crate) fn wall(&self) -> Duration {
        self.end.saturating_sub(self.begin)
    }
}

/// A running `launch`.
#[derive(Debug)]
pub(crate) struct Launcher {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    errors: PathBuf,
}

impl Launcher {
    /// Starts one in `directory`; what its commands have to complain about goes to the file `errors`.
    pub(crate) fn start(
        program: &Path,
        directory: &Path,
        environment: &[(OsString, OsString)],
        errors: &Path,
    ) -> Result<Self> {
        let mut child = Command::new(program)
            .current_dir(directory)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .to(format!("start {}", program.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Unexpected("the launcher has no streams".to_owned()));
        };
        Ok(Self { child, input, output, errors: errors.to_owned() })
    }

    /// Runs a command that must succeed; its standard output goes to `out`, or nowhere.
    pub(crate) fn run(&mut self, out: Option<&Path>, command: &[OsString]) -> Result<Cost> {
        let mut body = Vec::new();
        let mut push = |text: &[u8]| {
            body.extend_from_slice(text);
            body.push(0);
        };
        push(out.map_or(b"", |path| path.as_os_str().as_bytes()));
        push(self.errors.as_os_str().as_bytes());
        let Some(program) = command.first() else {
            return Err(BenchError::Unexpected("a command without a program".to_owned()));
        };
        push(program.as_bytes());
        command.iter().for_each(|arg| push(arg.as_bytes()));
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut request = length.to_le_bytes().to_vec();
        request.append(&mut body);
        self.input.write_all(&request).to("send a command to the launcher")?;
        let mut answer = [0u8; 48];
        self.output.read_exact(&mut answer).to("read the launcher's answer")?;
        let mut numbers = answer.chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || numbers.next().unwrap_or(0);
        let (begin, end, user, system, peak_kib, status) = (next(), next(), next(), next(), next(), next());
        if status != 0 {
            let text = std::fs::read_to_string(&self.errors).unwrap_or_default();
            let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
            let last: Vec<_> = text.lines().rev().take(3).collect();
            return Err(BenchError::Command {
                program: words.join(" "),
                status: format!("wait status {status:#x}"),
                text: last.join(" / "),
            });
        }
        Ok(Cost {
            begin: Duration::from_nanos(begin),
            end: Duration::from_nanos(end),
            cpu: Duration::from_micros(user + system),
            peak_kib,
        })
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
