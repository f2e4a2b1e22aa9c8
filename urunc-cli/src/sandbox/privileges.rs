//! From a root process to the monitor's identity: the spec's user and groups, and no capability at all (B36, E1, E2).
//!
//! Everything that needs a privilege has been done before: the monitor gets its devices as nodes that belong to its
//! user, or as descriptors.

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::protocol::Failure;
use crate::bundle::User;

/// What runtimes give a process whose specification says nothing, whatever their caller's own is.
const DEFAULT_UMASK: u32 = 0o22;

/// Drops to `user` for good. The process must have one thread: identities are per thread.
///
/// # Errors
/// The step that the system refused; the process must then exit.
pub fn drop_to(user: &User) -> Result<(), Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(user.umask.unwrap_or(DEFAULT_UMASK) & 0o777));
    keep_in_bounding_set(CapabilitySet::empty())?;
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups)
        .map_err(step(format!("cannot set the supplementary groups to {:?}", user.groups)))?;
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid).map_err(step(format!("cannot become group {}", user.gid)))?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid).map_err(step(format!("cannot become user {}", user.uid)))?;
    clear_ambient_capability_set().map_err(step("cannot clear the ambient capabilities"))?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(step("cannot drop the capabilities"))?;
    set_no_new_privs(true).map_err(step("cannot set no_new_privs"))
}

/// Leaves nothing but `kept` in the bounding set, which limits what `execve` may ever give back.
///
/// # Errors
/// What the system refused.
pub fn keep_in_bounding_set(kept: CapabilitySet) -> Result<(), Failure> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that the kernel does not know: there are no more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(step("cannot drop the capability bounding set")(errno)),
        }
    }
    Ok(())
}

fn step(message: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Failure {
    move |errno| Failure::step(message, &errno.into())
}
