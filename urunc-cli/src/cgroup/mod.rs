//! The container's control group: where it is, what it limits, who is in it, and its end.
//!
//! ```text
//!   Resources + Layout + path ──plan()──▶ CgroupPlan ──make()──▶ directories with limits, an entrance for init
//!        spec     host facts              plain data              release(): kills what is in them, removes them
//! ```
//!
//! cgroup v1, v2 and both at once (hybrid). Nothing here reads the specification or the container's record: the
//! former is [`crate::bundle`]'s, the latter [`crate::lifecycle`]'s.

mod devices;
mod freezer;
mod layout;
mod make;
mod memory;
mod merge;
mod oom;
mod plan;
mod release;
mod resources;
mod stats;
mod sys;
pub mod systemd;
mod v1;
mod v2;

pub use freezer::{FreezeError, freeze, thaw, thaw_by_state_file};
pub use layout::{Hierarchy, HierarchyKind, Layout, LayoutError};
pub use make::{Before, Entrance, MakeError, before, make, update};
pub use memory::{Accounting, GuestMemory, MemoryError, MemoryPlan, room};
pub use oom::{OomWatch, oom_kills};
pub use plan::{CgroupPath, CgroupPlan, Directory, PlanError, Write, plan, plan_update};
pub use release::{ReleaseError, is_foreign, members, release};
pub use resources::{
    BlockLimits, CpuLimits, DeviceNumber, DeviceRule, Limit, MemoryLimits, NetworkLimits, NodeKind,
    Permission, RdmaLimit, Resources, Throttle, WeightDevice,
};
pub use stats::{Stats, StatsError, read as read_stats};

/// Name of the extended attribute that says whose a control group is. `user.` attributes exist on cgroup v1 and v2
/// since Linux 5.7 (`kernfs_iop_setxattr` in `fs/kernfs/inode.c`), and only the owner of the directory can set them.
const MARK: &str = "user.urunc";
