//! The exclusive hold on one container. Whoever has it, and nobody else, may change or remove the container.
//!
//! It is `flock` on the container's directory. The kernel releases it when the holder dies, and there is no lock
//! file that could be left behind. It belongs to the open file, so a forked child shares it: a child that lives
//! on must close its copy (`execve` does that, the descriptor is close-on-exec).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::atomic::{self, Access};
use crate::files::{self, STATE};
use crate::unique::{Purpose, UniqueName};
use crate::{ContainerId, Deadline, Origin, Record, StoreError, WriteError};

/// A container that is held, whatever state its record is in. Enough to remove it.
#[derive(Debug)]
pub struct Lock {
    pub(crate) id: ContainerId,
    pub(crate) directory: OwnedFd,
}

impl Lock {
    /// The container.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The container's directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Reads the container's origin: for a forced delete all that may be known.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Document`].
    pub fn origin(&self) -> Result<Origin, StoreError> {
        files::read_origin(&self.id, self.dir())
    }

    /// Reads the bytes of the container's record, whatever they are: for saving what can be saved of one that is unusable.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn read_raw(&self) -> Result<Vec<u8>, StoreError> {
        files::read_file(&self.id, self.dir(), STATE)
    }
}

/// A container that is held and whose record is known. The record can be changed only through this.
#[derive(Debug)]
pub struct Locked {
    pub(crate) lock: Lock,
    pub(crate) record: Record,
}

impl Locked {
    /// The container.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        self.lock.id()
    }

    /// The container's directory, for sockets and the like. What is in it goes with the container.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.lock.dir()
    }

    /// Reads the container's origin.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Document`].
    pub fn origin(&self) -> Result<Origin, StoreError> {
        self.lock.origin()
    }

    /// The record as it is on disk.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Replaces the record, on disk and here. Once this returns, the record survives a crash of the machine.
    ///
    /// # Errors
    /// [`StoreError::Write`]; the earlier record is then still in place, unless its cause is
    /// [`WriteError::Unsynced`]: then it is the new one. [`StoreError::OtherContainer`] when the record is
    /// another container's.
    pub fn save(&mut self, record: Record) -> Result<(), StoreError> {
        let id = || self.lock.id.clone();
        if record.id() != self.id() {
            return Err(StoreError::OtherContainer { id: id(), record: record.id().clone() });
        }
        let json =
            record.to_json().map_err(|source| StoreError::Document { id: id(), file: STATE, source })?;
        let written = UniqueName::new(Purpose::File)
            .map_err(|errno| WriteError::Create { name: STATE.to_owned(), source: errno.into() })
            .and_then(|temporary| atomic::replace(self.dir(), STATE, &temporary, Access::Private, &json))
            .map_err(|source| StoreError::Write { id: id(), source });
        if matches!(written, Ok(()) | Err(StoreError::Write { source: WriteError::Unsynced { .. }, .. })) {
            self.record = record;
        }
        written
    }

    /// Changes a copy of the record and [saves](Self::save) it.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn update(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), StoreError> {
        self.try_update(|record| {
            change(record);
            Ok(())
        })
    }

    /// Changes a copy of the record, [saves](Self::save) it and gives back what `change` returned. If `change` fails, the
    /// record is as before, on disk and here.
    ///
    /// # Errors
    /// That of `change`, or as [`save`](Self::save).
    pub fn try_update<T, E: From<StoreError>>(
        &mut self,
        change: impl FnOnce(&mut Record) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut record = self.record.clone();
        let value = change(&mut record)?;
        self.save(record)?;
        Ok(value)
    }
}

impl From<Locked> for Lock {
    fn from(locked: Locked) -> Self {
        locked.lock
    }
}

/// What became of an attempt to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Obtained,
    Held,
}

/// Locks the directory if nobody holds it.
pub(crate) fn try_lock(directory: BorrowedFd<'_>) -> Result<Attempt, Errno> {
    match flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Attempt::Obtained),
        Err(Errno::WOULDBLOCK) => Ok(Attempt::Held),
        Err(errno) => Err(errno),
    }
}

/// Locks the directory, waiting until `deadline` at most.
///
/// `flock` knows no time limit. The ways to give it one are a signal handler (global), a thread (forbidden
/// here: whoever enters namespaces must be single-threaded) or a child to wait in, all worse than asking again:
/// two commands for the same container at the same time are rare, and then the pause is at first shorter, and
/// never longer than a command takes.
pub(crate) fn lock_until(directory: BorrowedFd<'_>, deadline: Deadline) -> Result<Attempt, Errno> {
    const LONGEST: Duration = Duration::from_millis(8);
    let mut pause = Duration::from_micros(125);
    loop {
        let attempt = try_lock(directory)?;
        let left = deadline.remaining();
        if attempt == Attempt::Obtained || left.is_zero() {
            return Ok(attempt);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST);
    }
}
