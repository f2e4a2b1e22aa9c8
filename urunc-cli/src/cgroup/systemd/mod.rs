//! Having systemd make a container's control group: a transient scope, delegated to us (`--systemd-cgroup`, as kubelet's `cgroupDriver: systemd`
//! asks for it).
//!
//! ```text
//!   cgroupsPath ──Unit──▶ StartTransientUnit(scope, one member) ─▶ JobRemoved "done" ─▶ the group exists, and is ours:
//!   marked, limited, entered and released like any other (make, release) ─▶ StopUnit
//! ```
//!
//! systemd makes no scope without a process in it. Ours is a placeholder that leaves when init is there, so that init is in its group
//! from its first moment, as without systemd.

mod dbus;
mod unit;

use std::path::PathBuf;
use std::time::Duration;

use urunc_state::{Deadline, Pid};

use dbus::{Arguments, Connection, Method};
pub use dbus::{BusError, Property, Value};
pub use unit::{Unit, UnitError, Version, limits, taken_back};

/// Path of systemd's manager object.
const MANAGER: &str = "/org/freedesktop/systemd1";
/// What it can do.
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// What is asked for properties.
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// What systemd says of a unit that there is not.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(25);

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemdError {
    /// It does not say where its groups are.
    #[error(
        "cannot ask systemd for its cgroup; without systemd, leave --systemd-cgroup out (SystemdCgroup = false in containerd's \
         configuration)"
    )]
    Root(#[source] BusError),
    /// It does not make the unit.
    #[error("cannot have systemd start the unit {unit}")]
    Start {
        /// Its name.
        unit: String,
        /// What went wrong.
        #[source]
        source: BusError,
    },
    /// The unit was not started.
    #[error("cannot have systemd start the unit {unit}: its job ended with {result:?}")]
    Job {
        /// Its name.
        unit: String,
        /// What systemd calls that.
        result: String,
    },
    /// It does not change its limits.
    #[error("cannot have systemd change the limits of the unit {unit}")]
    Set {
        /// Its name.
        unit: String,
        /// What went wrong.
        #[source]
        source: BusError,
    },
    /// It does not stop the unit.
    #[error("cannot have systemd stop the unit {unit}: {}", crate::report::chain(.source))]
    Stop {
        /// Its name.
        unit: String,
        /// What went wrong.
        source: BusError,
    },
}

fn manager(member: &str) -> Method<'_> {
    Method { path: MANAGER, interface: MANAGER_INTERFACE, member }
}

/// The group that systemd's own units are below, relative to the hierarchy.
///
/// # Errors
/// [`SystemdError::Root`] if it is not running, or not for us.
pub fn root() -> Result<PathBuf, SystemdError> {
    let ask = || {
        let get = Method { path: MANAGER, interface: PROPERTIES, member: "Get" };
        let arguments = Arguments::default().text(MANAGER_INTERFACE).text("ControlGroup");
        Connection::open(Deadline::after(PATIENCE))?.call(get, &arguments)?.variant()
    };
    let path = ask().map_err(SystemdError::Root)?;
    Ok(PathBuf::from(path.trim_start_matches('/')))
}

/// Starts `unit`, marked with `mark`, with `member` in it, and waits until its group exists.
///
/// # Errors
/// [`SystemdError::Start`], [`SystemdError::Job`]
pub fn start(unit: &Unit, mark: &str, member: Pid, limits: Vec<Property>) -> Result<(), SystemdError> {
    let start = || -> Result<String, BusError> {
        let mut systemd = Connection::open(Deadline::after(PATIENCE))?;
        let limits = known(&mut systemd, limits)?;
        let member = u32::try_from(member.get()).unwrap_or_default();
        let arguments = Arguments::default()
            .text(&unit.name)
            .text("replace")
            .properties(&unit.properties(mark, member, limits))
            .no_further_units();
        let job = systemd.call(manager("StartTransientUnit"), &arguments)?.text()?;
        wait(&mut systemd, &job)
    };
    match start() {
        Ok(result) if result == "done" => Ok(()),
        Ok(result) => Err(SystemdError::Job { unit: unit.name.clone(), result }),
        Err(source) => Err(SystemdError::Start { unit: unit.name.clone(), source }),
    }
}

/// Changes limits of the unit `name` until it ends.
///
/// # Errors
/// [`SystemdError::Set`]
pub fn set(name: &str, limits: &[Property]) -> Result<(), SystemdError> {
    if limits.is_empty() {
        return Ok(());
    }
    let set = || -> Result<(), BusError> {
        let mut systemd = Connection::open(Deadline::after(PATIENCE))?;
        let limits = known(&mut systemd, limits.to_vec())?;
        let arguments = Arguments::default().text(name).flag(true).properties(&limits);
        systemd.call(manager("SetUnitProperties"), &arguments).map(drop)
    };
    set().map_err(|source| SystemdError::Set { unit: name.to_owned(), source })
}

/// Ends the unit `name`, if it is marked with `mark`, so that its name is free again. One that has ended already is success, and so is systemd's absence: its units
/// have gone with it.
///
/// # Errors
/// [`SystemdError::Stop`]
pub fn stop(name: &str, mark: &str) -> Result<(), SystemdError> {
    let stop = || -> Result<(), BusError> {
        let mut systemd = Connection::open(Deadline::after(PATIENCE))?;
        let path = systemd.call(manager("GetUnit"), &Arguments::default().text(name))?.text()?;
        let get = Method { path: &path, interface: PROPERTIES, member: "Get" };
        let description = Arguments::default().text("org.freedesktop.systemd1.Unit").text("Description");
        if systemd.call(get, &description)?.variant()? != mark {
            return Ok(());
        }
        let arguments = Arguments::default().text(name).text("replace");
        let job = systemd.call(manager("StopUnit"), &arguments)?.text()?;
        wait(&mut systemd, &job).map(drop)
    };
    match stop() {
        Ok(()) => Ok(()),
        Err(BusError::Refused { name, .. }) if name == NO_SUCH_UNIT => Ok(()),
        Err(BusError::Connect { .. }) => Ok(()),
        Err(source) => Err(SystemdError::Stop { unit: name.to_owned(), source }),
    }
}

/// Those of `limits` that this systemd knows. It refuses all together otherwise.
fn known(systemd: &mut Connection, limits: Vec<Property>) -> Result<Vec<Property>, BusError> {
    if limits.iter().all(|(name, _)| unit::since(name) == 0) {
        return Ok(limits);
    }
    let get = Method { path: MANAGER, interface: PROPERTIES, member: "Get" };
    let arguments = Arguments::default().text(MANAGER_INTERFACE).text("Version");
    let version = unit::number_of(&systemd.call(get, &arguments)?.variant()?);
    Ok(limits.into_iter().filter(|(name, _)| unit::since(name) <= version).collect())
}

/// Waits for the end of a job, and returns how it ended.
fn wait(systemd: &mut Connection, job: &str) -> Result<String, BusError> {
    loop {
        let mut signal = systemd.signal()?;
        if signal.member != "JobRemoved" {
            continue;
        }
        let (_id, path, _unit, result) = (signal.number()?, signal.text()?, signal.text()?, signal.text()?);
        if path == job {
            return Ok(result);
        }
    }
}
