//! `update`: other limits for a container that exists.
//!
//! Memory follows the rule of create ([`cgroup::MemoryPlan`]): the group gets what the monitor needs on top, if that was
//! or is possible. The guest itself keeps the memory that it was booted with.

use serde::Deserialize;
use urunc_state::{ContainerId, Record, Status};

use super::limits::{self, Recorded, RecordedUnit};
use super::plan::Frozen;
use super::{LifecycleError, LimitsError, Runtime};
use crate::cgroup::systemd;
use crate::cgroup::{self, Accounting, Layout, Limit, MemoryPlan, Resources};

impl Runtime {
    /// Changes the limits that `given` names, and leaves the others.
    ///
    /// # Errors
    /// [`LifecycleError::Status`] if the container does not run and is not about to; [`LifecycleError::Limits`] if a limit is refused, and
    /// all are then as before.
    pub fn update(&self, id: &ContainerId, given: &Resources) -> Result<(), LifecycleError> {
        let mut locked = self.lock(id)?;
        let status = locked.record().current_status()?;
        if matches!(status, Status::Creating | Status::Stopped) {
            let remedy = "only what exists in the kernel has limits";
            return Err(LifecycleError::Status { verb: "update", id: id.clone(), status, remedy });
        }
        let mut record = locked.record().clone();
        let recorded = Recorded::of(&record).ok_or_else(|| LifecycleError::NoGroup { id: id.clone() })?;
        let changed = change(&record, recorded, given)?;
        limits::replace(&mut record, &changed)?;
        locked.save(record)?;
        Ok(())
    }
}

/// Writes the limits, and returns what is to be recorded.
fn change(record: &Record, mut recorded: Recorded, given: &Resources) -> Result<Recorded, LimitsError> {
    if !given.devices.is_empty() {
        log::debug!("device rules cannot be changed and are not");
    }
    let updated = recorded.resources.updated(given);
    let unraised = std::mem::take(&mut recorded.resources);
    let raised = MemoryPlan { guest: cgroup::GuestMemory::Default, on_top: recorded.on_top, inside: 0 }
        .raise(&unraised);
    let layout = Layout::probe()?;
    let memory = match updated.memory.limit {
        Some(Limit::At(limit)) if given.memory.limit.is_some() => {
            let plan = share(record, limit, &recorded)?;
            recorded.on_top = plan.on_top;
            plan
        }
        _ => MemoryPlan { guest: cgroup::GuestMemory::Default, on_top: recorded.on_top, inside: 0 },
    };
    let write = memory.raise(&Resources::to_write(given, &updated));
    let plan = cgroup::plan_update(&recorded.directories, &write, &layout)?;
    for field in &plan.ignored {
        log::warn!("{field} has no meaning on cgroup v2 and is not applied");
    }
    let unit = RecordedUnit::of(record);
    let properties = limits::unit_limits(&write, &layout);
    let before = cgroup::before(&plan);
    // systemd first, because what we write then is more exact than what it makes of it.
    let set = unit.as_ref().map_or(Ok(()), |unit| systemd::set(&unit.name, &properties));
    let result = set.map_err(LimitsError::from).and_then(|()| Ok(cgroup::update(&plan)?));
    if let Err(error) = result {
        if let Some(unit) = &unit {
            let recorded = limits::unit_limits(&raised, &layout);
            if let Err(error) = systemd::set(&unit.name, &systemd::taken_back(&properties, &recorded)) {
                log::warn!("{}", crate::report::chain(&error));
            }
        }
        before.write_back();
        return Err(error);
    }
    recorded.resources = updated;
    Ok(recorded)
}

/// How the new limit is shared, by the accounting that the container was created with.
fn share(record: &Record, limit: u64, recorded: &Recorded) -> Result<MemoryPlan, LimitsError> {
    let frozen = Frozen::of(record)?;
    let config: serde_json::Value = record.urunc.config.read()?;
    let accounting = Accounting::deserialize(&config["runtime"]["memory"]).unwrap_or_default();
    let room = cgroup::room(&recorded.directories);
    let plan = MemoryPlan::new(Some(limit), accounting, frozen.monitor(), frozen.overhead(), room)?;
    let (guest, overhead) = (frozen.guest_memory(), frozen.overhead());
    if limit.saturating_add(plan.on_top) < guest.saturating_add(overhead) {
        log::warn!(
            "the guest of container {} was booted with {guest} bytes of memory and keeps them, so a limit of {limit} bytes may \
             have the kernel kill its monitor",
            record.id()
        );
    }
    Ok(plan)
}
