//! A container's counters, from its cgroups and its network namespace, as containerd's metrics messages. Files that are not there leave their
//! counters at zero: which controllers exist is the host's business.

mod cgroup;
mod net;
mod v1;
mod v2;

pub use cgroup::Membership;

use containerd_shim_protos::protobuf::well_known_types::any::Any;

use super::ShimError;
use super::service::pack;

/// The counters of the container whose first process is `pid`.
///
/// # Errors
/// [`ShimError::Path`] if the process is gone.
pub fn read(pid: u32) -> Result<Any, ShimError> {
    let membership = Membership::of(pid)?;
    match membership.unified() {
        Some(directory) => pack("io.containerd.cgroups.v2.Metrics", &v2::read(&directory, pid)),
        None => pack("io.containerd.cgroups.v1.Metrics", &v1::read(&membership, pid)),
    }
}
