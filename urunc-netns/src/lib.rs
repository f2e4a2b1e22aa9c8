//! A container's network: namespace executor, netlink, TAP devices, traffic redirection.
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod attach;
mod attachment;
mod discover;
#[cfg(test)]
mod faults;
mod guest;
mod names;
mod namespace;
mod netlink;
mod owner;
mod run;
mod settle;
mod sys;
mod sysctl;
mod tap;
mod traffic;

pub use attach::{
    AttachError, DetachError, PartError, ReleaseError, Released, Tap, attach, detach, detach_unrecorded,
    release,
};
pub use attachment::{
    Attachment, Connection, Handover, Mode, Plan, PlanError, Qdisc, STATIC_GUEST, STATIC_HOST, plan,
};
pub use discover::{DiscoverError, Discovered, Holder, discover};
pub use guest::{Family, GuestNetwork, Route};
pub use names::{Cidr, IfIndex, IfName, MacAddr, Mtu, NameError};
pub use namespace::{HostNetwork, NetNs, NsError, NsId};
pub use netlink::NetlinkError;
pub use netlink::link::Counters;
pub use owner::{Mark, NotAMark, Owner};
pub use run::{Here, RunError, StillThreaded, wait_single_threaded};
pub use settle::{SettleError, Settled, settle};
pub use sysctl::{State, SysctlError};
pub use traffic::{Traffic, traffic};
