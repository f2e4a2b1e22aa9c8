//! One container's life, measured from outside: create, start, first byte of output, kill, end, delete.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use crate::error::{BenchError, Context, Result};
use crate::launcher::{Cost, Launcher};
use crate::runtime::{Runtime, Step};
use crate::sys;

/// How long a guest may take to print.
const PATIENCE: u64 = 60;

/// What a life has cost.
#[derive(Debug)]
pub(crate) struct Life {
    /// In the order of [`Step::ALL`].
    pub(crate) steps: [Cost; 4],
    /// From the beginning of create.
    pub(crate) first_byte: Duration,
    /// When create began.
    pub(crate) begin: Duration,
    /// When delete ended.
    pub(crate) end: Duration,
    /// Of all commands and the container.
    pub(crate) cpu: Duration,
}

impl Life {
    /// From the beginning of create to the end of delete.
    pub(crate) fn whole(&self) -> Duration {
        self.end.saturating_sub(self.begin)
    }

    /// Leads one. A container that fails half-way is removed by force, as well as it goes.
    pub(crate) fn lead(runtime: &Runtime, launcher: &mut Launcher, id: &str) -> Result<Self> {
        let fifo = runtime.pid_file(id).with_extension("out");
        let output = Output::open(&fifo)?;
        let life = lead(runtime, launcher, id, &output);
        let _ = std::fs::remove_file(&fifo);
        let _ = std::fs::remove_file(runtime.pid_file(id));
        if life.is_err() {
            for step in [Step::Kill, Step::Delete] {
                let _ = launcher.run(None, &runtime.command(step, id));
            }
        }
        life
    }
}

fn lead(runtime: &Runtime, launcher: &mut Launcher, id: &str, output: &Output) -> Result<Life> {
    let mut run = |step, out: Option<&Path>| launcher.run(out, &runtime.command(step, id));
    let create = run(Step::Create, Some(&output.path))?;
    let (start, first) = std::thread::scope(|scope| {
        // Its own thread: the guest may be faster than the end of `start` is noticed.
        let reader = scope.spawn(|| output.first_byte());
        let start = run(Step::Start, None);
        (start, reader.join().ok().flatten())
    });
    let start = start?;
    let first = first.ok_or(BenchError::Silent { runtime: runtime.kind.name(), seconds: PATIENCE })?;
    let pid = pid_of(&runtime.pid_file(id))?;
    let kill = run(Step::Kill, None)?;
    let container = sys::wait4(pid).to("wait for the container's end")?;
    let delete = run(Step::Delete, None)?;
    let steps = [create, start, kill, delete];
    Ok(Life {
        steps,
        first_byte: first.saturating_sub(create.begin),
        begin: create.begin,
        end: delete.end,
        cpu: steps.iter().map(|cost| cost.cpu).sum::<Duration>() + container.cpu,
    })
}

/// The number in a pid file.
pub(crate) fn pid_of(file: &Path) -> Result<i32> {
    let text = std::fs::read_to_string(file).to(format!("read {}", file.display()))?;
    text.trim().parse().map_err(|_| BenchError::Unexpected(format!("{} holds {text:?}", file.display())))
}

/// A fifo that a container's output goes to.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) path: PathBuf,
    pub(crate) reader: rustix::fd::OwnedFd,
}

impl Output {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let _ = std::fs::remove_file(path);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .to(format!("make the fifo {}", path.display()))?;
        let reader =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
                .to(format!("open the fifo {}", path.display()))?;
        Ok(Self { path: path.to_owned(), reader })
    }

    /// When the first byte came, if it came in time.
    pub(crate) fn first_byte(&self) -> Option<Duration> {
        let mut fds = [PollFd::new(&self.reader, PollFlags::IN)];
        let seconds = Timespec { tv_sec: i64::try_from(PATIENCE).ok()?, tv_nsec: 0 };
        poll(&mut fds, Some(&seconds)).ok()?;
        let now = sys::now();
        fds.first().is_some_and(|fd| fd.revents().contains(PollFlags::IN)).then_some(now)
    }
}
