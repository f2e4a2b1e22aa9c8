//! The two files of a container, and reading them.

use std::os::fd::BorrowedFd;

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, read, retry_on_intr};

use crate::{ContainerId, Origin, Record, StoreError};

/// The record.
pub(crate) const STATE: &str = "state.json";

/// The origin. That it exists makes a container ours.
pub(crate) const ORIGIN: &str = "origin.json";

/// More than any document has: 16 MiB.
const LARGEST: usize = 16 << 20;

pub(crate) fn read_record(id: &ContainerId, directory: BorrowedFd<'_>) -> Result<Record, StoreError> {
    let json = read_file(id, directory, STATE)?;
    let unusable = |source| StoreError::Document { id: id.clone(), file: STATE, source };
    let record = Record::from_json(&json).map_err(unusable)?;
    same_container(id, record.id())?;
    Ok(record)
}

pub(crate) fn read_origin(id: &ContainerId, directory: BorrowedFd<'_>) -> Result<Origin, StoreError> {
    let json = read_file(id, directory, ORIGIN)?;
    let unusable = |source| StoreError::Document { id: id.clone(), file: ORIGIN, source };
    let origin = Origin::from_json(&json).map_err(unusable)?;
    same_container(id, origin.id())?;
    Ok(origin)
}

/// A document that names another container was copied here by somebody: acting on it would hit the other one.
fn same_container(id: &ContainerId, found: &ContainerId) -> Result<(), StoreError> {
    if id == found {
        return Ok(());
    }
    Err(StoreError::OtherContainer { id: id.clone(), record: found.clone() })
}

pub(crate) fn read_file(
    id: &ContainerId,
    directory: BorrowedFd<'_>,
    file: &'static str,
) -> Result<Vec<u8>, StoreError> {
    // NONBLOCK, so that nobody waits at a fifo that was put there; it means nothing to a file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let read_all = || {
        let fd = openat(directory, file, flags, Mode::empty())?;
        let mut contents = Vec::with_capacity(16 * 1024);
        while retry_on_intr(|| read(&fd, spare_capacity(&mut contents)))? > 0 {
            if contents.len() > LARGEST {
                return Err(Errno::FBIG);
            }
            contents.reserve(1024);
        }
        Ok(contents)
    };
    read_all().map_err(|errno: Errno| StoreError::Read { id: id.clone(), file, source: errno.into() })
}
