//! `events`: what a container uses, once or in intervals, and each time that its memory runs out. Only looks: no lock is
//! taken, and whoever watches can be killed at any time.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use urunc_state::{ContainerId, Deadline, Process, Seen, Status};

use super::limits::Recorded;
use super::{LifecycleError, Runtime};
use crate::cgroup::{self, OomWatch, Stats};

/// Something that is told of a container.
#[derive(Debug)]
pub enum Happening {
    /// What it uses now.
    Stats(Box<Stats>),
    /// The kernel found too little memory in its control group.
    OutOfMemory,
}

impl Runtime {
    /// What a container uses now.
    ///
    /// # Errors
    /// [`LifecycleError::Status`] if it has no process; [`LifecycleError::Stats`] if it cannot be measured.
    pub fn stats(&self, id: &ContainerId) -> Result<Stats, LifecycleError> {
        let (group, _) = self.measurable(id)?;
        Ok(cgroup::read_stats(&group.directories)?)
    }

    /// Has `tell` know what the container uses, each `interval`, and when its memory runs out; until it ends, or `tell`
    /// wants no more.
    ///
    /// # Errors
    /// As [`Self::stats`], and [`LifecycleError::Wait`].
    pub fn watch(
        &self,
        id: &ContainerId,
        interval: Duration,
        mut tell: impl FnMut(Happening) -> ControlFlow<()>,
    ) -> Result<(), LifecycleError> {
        let wait = |source: io::Error| LifecycleError::Wait { id: id.clone(), source };
        let (group, process) = self.measurable(id)?;
        let mut memory = OomWatch::new(&group.directories).map_err(wait)?;
        let mut next = Deadline::after(interval);
        loop {
            let ended = wait_for(&process, memory.as_ref(), next.remaining()).map_err(wait)?;
            // Before the end is looked at, of which this may be the cause.
            let times = memory.as_mut().map_or(0, OomWatch::times);
            for _ in 0..times {
                if tell(Happening::OutOfMemory).is_break() {
                    return Ok(());
                }
            }
            if ended {
                return Ok(());
            }
            if next.remaining().is_zero() {
                next = Deadline::after(interval);
                // One that cannot be measured any more is being removed, which is its end.
                let Ok(stats) = cgroup::read_stats(&group.directories) else { return Ok(()) };
                if tell(Happening::Stats(Box::new(stats))).is_break() {
                    return Ok(());
                }
            }
        }
    }

    fn measurable(&self, id: &ContainerId) -> Result<(Recorded, Process), LifecycleError> {
        let record = self.store.read(id)?;
        let Seen { status, process } = record.look()?;
        let (Some(process), false) = (process, status == Status::Stopped) else {
            let remedy = "what it used is not known any more";
            return Err(LifecycleError::Status { verb: "measure", id: id.clone(), status, remedy });
        };
        let group = Recorded::of(&record).ok_or_else(|| LifecycleError::NoGroup { id: id.clone() })?;
        Ok((group, process))
    }
}

/// Waits for the end of the process, for memory to run out, or for the time to pass; says whether it was the first.
fn wait_for(process: &Process, memory: Option<&OomWatch>, limit: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(limit).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let pidfd = process.pidfd();
    let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
    if let Some(memory) = memory {
        fds.push(memory.poll());
    }
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(fds.first().is_some_and(|fd| fd.revents().contains(PollFlags::IN)))
}
