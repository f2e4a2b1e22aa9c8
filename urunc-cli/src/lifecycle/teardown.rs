//! The one teardown: replays the record in reverse, whatever is left of the container.
//!
//! *Release* gives back what the record lists and leaves a stopped container; *destroy* also removes the container.
//! Both are idempotent: what is gone already is success, each step runs whatever the earlier ones returned, and the
//! errors are reported together (F3).

use urunc_state::{Event, Lock, Locked, Origin, Record, Resource, Status, Store};

use super::limits::{self, LimitsError, Recorded, RecordedUnit};
use super::network::{self, NetworkReleaseError};
use super::{LifecycleError, disk};
use crate::cgroup::ReleaseError;
use crate::cgroup::systemd::{self, SystemdError};

/// Everything that could not be released.
#[derive(Debug, thiserror::Error)]
#[error("cannot release everything that the container held: {}", list(.0))]
pub struct TeardownError(Vec<ResourceError>);

fn list(errors: &[ResourceError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why one resource could not be released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ResourceError {
    /// This version does not know what the record lists.
    #[error(
        "{kind} (schema {schema}) is of a kind that this version does not know; use the version that recorded it"
    )]
    Unknown {
        /// The resource's kind.
        kind: String,
        /// Version of its data.
        schema: u32,
    },
    /// The network attachment.
    #[error("{}", crate::report::chain(.0))]
    Network(#[from] NetworkReleaseError),
    /// What the record lists cannot be understood.
    #[error("{kind}, because the record's data for it cannot be understood: {source}")]
    Data {
        /// The resource's kind.
        kind: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// The control group.
    #[error(transparent)]
    Cgroup(#[from] ReleaseError),
    /// systemd's unit.
    #[error(transparent)]
    Unit(#[from] SystemdError),
    /// The control group or the unit of a container without a record.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// A block device.
    #[error(transparent)]
    Block(#[from] disk::ReleaseError),
}

/// Releases what the record lists, last acquired first. The process must be dead. `reason` is kept for `state`.
///
/// # Errors
/// [`LifecycleError::Teardown`] lists what is left, which stays in the record; [`LifecycleError::Store`] if the record cannot be written.
pub(super) fn release(locked: &mut Locked, reason: Option<String>) -> Result<(), LifecycleError> {
    disk::report_daemon(locked.dir());
    // Before the control group goes, which alone knows.
    let reason = reason.or_else(|| {
        let reason = limits::oom_reason(locked.record())?;
        log::warn!("container {} has ended: {reason}", locked.id());
        Some(reason)
    });
    let mut errors = Vec::new();
    locked.try_update(|record| {
        let mut left = Vec::new();
        while let Some(resource) = record.urunc.resources.pop() {
            if let Err(error) = release_one(&resource, record) {
                errors.push(error);
                left.push(resource);
            }
        }
        left.reverse();
        record.urunc.resources = left;
        if reason.is_some() {
            record.urunc.reason = reason;
        }
        record.advance(Status::Stopped, Event::Exited).map_err(LifecycleError::from)
    })?;
    if errors.is_empty() { Ok(()) } else { Err(TeardownError(errors).into()) }
}

/// Releases everything and removes the container. The process must be dead.
///
/// # Errors
/// As [`release`]; the container then stays, so that a later attempt can finish.
pub(super) fn destroy(store: &Store, mut locked: Locked) -> Result<(), LifecycleError> {
    if !locked.record().urunc.resources.is_empty() {
        release(&mut locked, None)?;
    }
    let origin = locked.origin()?;
    let record = locked.record().clone();
    remove(store, locked, &origin)?;
    super::hooks::poststop(&record);
    Ok(())
}

/// What [`destroy`] does, for a container whose record is lost: from its origin, and by the marks on what it had.
///
/// # Errors
/// As [`destroy`].
pub(super) fn destroy_without_record(
    store: &Store,
    lock: Lock,
    origin: &Origin,
) -> Result<(), LifecycleError> {
    let id = lock.id();
    // First of all: whatever the container still has that runs, runs in there.
    limits::release_unrecorded(origin, &store.path().join(id.as_str()))
        .map_err(|error| TeardownError(vec![error.into()]))?;
    if let Some(path) = origin.network_namespace.as_deref() {
        network::release_unrecorded(path, id, store.path());
    }
    // Each of them may never have been taken, or have been given back: both are looked at.
    let disks = origin.resources.iter().rev().filter(|resource| resource.kind == disk::KIND);
    let errors: Vec<_> = disks.filter_map(|resource| disk::release(resource).err()).map(Into::into).collect();
    if !errors.is_empty() {
        return Err(TeardownError(errors).into());
    }
    remove(store, lock, origin)
}

fn remove(store: &Store, lock: impl Into<Lock>, origin: &Origin) -> Result<(), LifecycleError> {
    if let Some(pid_file) = &origin.pid_file {
        // Only the temporary file of an interrupted write; the pid file itself is the caller's.
        if let Err(error) = pid_file.remove_leftover() {
            log::warn!("{error}");
        }
    }
    store.remove(lock)?;
    Ok(())
}

/// Gives one resource back. What is gone already is success.
fn release_one(resource: &Resource, record: &Record) -> Result<(), ResourceError> {
    // Each library that acquires something adds its kind here.
    if network::is_network(resource) {
        return Ok(network::release(resource, record.urunc.network_namespace.as_deref())?);
    }
    if resource.kind == limits::KIND {
        let recorded = Recorded::from_resource(resource)
            .map_err(|source| ResourceError::Data { kind: resource.kind.clone(), source })?;
        return Ok(recorded.release()?);
    }
    if resource.kind == limits::UNIT_KIND {
        let recorded: RecordedUnit = resource
            .data
            .read()
            .map_err(|source| ResourceError::Data { kind: resource.kind.clone(), source })?;
        return Ok(systemd::stop(&recorded.name, &recorded.mark)?);
    }
    if resource.kind == disk::KIND {
        return Ok(disk::release(resource)?);
    }
    Err(ResourceError::Unknown { kind: resource.kind.clone(), schema: resource.schema })
}
