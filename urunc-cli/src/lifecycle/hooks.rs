//! When which hooks run, and what they are told. How one is run is [`crate::sandbox::hooks`]'s.
//!
//! | hooks | run by | status | a failure |
//! |---|---|---|---|
//! | prestart, createRuntime | create, before init proceeds, while init lives | creating | undoes create |
//! | createContainer | init, in its namespaces, before its root | creating | undoes create |
//! | startContainer | init, confined to the container's rootfs | created | fails start |
//! | poststart | start, after the proof | running | is logged |
//! | poststop | whatever removed the container | stopped | is logged |

use std::os::fd::BorrowedFd;

use serde_json::Value;
use urunc_state::{OciState, Record, Status};

use super::LifecycleError;
use super::plan::Frozen;
use crate::bundle::{Hook, Hooks};
use crate::sandbox::hooks::{Place, run};

/// The OCI state of `record`'s container in `status`.
pub(super) fn document(record: &Record, status: Status) -> Result<Value, serde_json::Error> {
    serde_json::to_value(OciState::new(record, status))
}

/// prestart (older Docker's network is one, B31) and createRuntime. Whoever forces the container away meanwhile kills its process `init`, and a
/// hook must not keep the lock from him then.
pub(super) fn create_runtime(
    hooks: &Hooks,
    document: &Value,
    init: BorrowedFd<'_>,
) -> Result<(), LifecycleError> {
    let text = document.to_string();
    run("prestart", &hooks.prestart, text.as_bytes(), Place::Preparing(init))?;
    run("createRuntime", &hooks.create_runtime, text.as_bytes(), Place::Preparing(init))?;
    Ok(())
}

pub(super) fn poststart(record: &Record) {
    logged("poststart", record, Status::Running, |hooks| &hooks.poststart);
}

pub(super) fn poststop(record: &Record) {
    logged("poststop", record, Status::Stopped, |hooks| &hooks.poststop);
}

/// Runs hooks whose failure changes nothing any more: each runs whatever became of those before it.
fn logged(kind: &'static str, record: &Record, status: Status, which: fn(&Hooks) -> &Vec<Hook>) {
    let Ok(frozen) = Frozen::of(record) else { return };
    let Ok(document) = document(record, status) else { return };
    for hook in which(&frozen.hooks) {
        let hook = std::slice::from_ref(hook);
        if let Err(error) = run(kind, hook, document.to_string().as_bytes(), Place::Here) {
            log::warn!("container {}: {}", record.id(), crate::report::chain(&error));
        }
    }
}
