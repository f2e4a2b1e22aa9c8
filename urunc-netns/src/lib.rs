//! A container's network, for a guest that takes the container's place: a way to work inside a network namespace
//! that cannot go wrong, and a TAP device that cannot leak.
//!
//! ```no_run
//! use std::path::Path;
//! use urunc_netns::{Handover, Mode, NetNs, Owner, attach, discover, plan, release};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pod = NetNs::open("/run/netns/pod")?;
//! let owner = Owner::new("web", Path::new("/run/urunc"));
//! if let Some(found) = pod.run(discover)?? {
//!     let plan = plan(&found, &owner, Mode::Dynamic, Handover::Descriptor)?;
//!     // … record `plan.attachment` here, tell the guest `plan.guest` …
//!     let tap = pod.run(|here| attach(here, &plan.attachment))??;
//!     // … the monitor inherits `tap`; when all is over, or after any crash:
//!     release(Some(Path::new("/run/netns/pod")), &plan.attachment)?;
//! }
//! # Ok(()) }
//! ```
//!
//! # How it is made
//!
//! - [`NetNs::run`] runs a closure on a thread that enters the namespace, makes sure of it, and ends. What
//!   depends on the thread's namespace takes the token [`Here`], which exists only there (F2).
//! - [`discover`] reads everything before anything is changed. [`plan`] decides on plain data. Its
//!   [`Attachment`] is also the record: write it down, then [`attach`].
//! - [`detach`] walks the same list of parts backwards, each whatever became of the others; what is gone is
//!   success (F3). [`attach`] undoes with the same code what it cannot finish.
//! - [`release`] is [`detach`] for who comes later: it looks for the namespace itself where a path no longer leads to
//!   it, because a namespace outlives its process if anybody has it pinned.
//! - Every object carries its owner's [`Mark`], and only what carries it is touched.
//! - A monitor that takes a descriptor holds the TAP device; for one that wants a name, [`settle`] lets the
//!   device die with it as soon as it has attached.
//!
//! # What it does not do
//!
//! It configures no guest and starts no monitor, keeps no record, reads no resolv.conf, and attaches one guest to
//! a namespace, by one interface. Two things are as they are: while a guest is attached in dynamic mode, nobody
//! else in its namespace receives anything on that interface; and in static mode, another table's chain that
//! drops forwarded packets is not overruled (nor should it be).
//!
//! Diagnostics go to the `log` facade. `neli`, beneath, logs every byte at level trace; leave its target out.
//!
//! # Weaknesses of the predecessor
//!
//! Each is a test that fails where the weakness exists, or does not apply.
//!
//! | | weakness | here |
//! |---|---|---|
//! | N1 | redirects on the host's own interface | [`RunError::HostNetwork`]; `run.rs`: `the_hosts_own_namespace_is_refused…` |
//! | N2 | a reused pid leads into a foreign namespace | [`NetNs::of_process`]; `run.rs`: `a_namespace_is_found_through_a_live_process_only` |
//! | N3 | a vanished path is replaced by a guess | `run.rs`: `a_vanished_path_is_missing`; `attach.rs`: `a_namespace_that_is_gone_is_released`, `a_pinned_namespace_is_found…` |
//! | N4 | no unwinding | `faults_tests.rs`: a failure and a crash at every change |
//! | N5 | a normal stop cleans nothing | [`detach`]; when to call it is the caller's; `attach.rs`: `what_a_dead_container_left…`, `five_hundred_starts_and_kills…` |
//! | N6 | reads after redirecting, IPv4 only | `discover.rs`: `a_pods_interface_is_read_completely`, `an_ipv6_only_pod…` |
//! | N7 | names containing "tap" block | `discover.rs`: `unusual_names_are_names` |
//! | N8 | two starts share one device | `attach.rs`: `a_device_of_the_same_name…`, `a_second_container_is_refused…` |
//! | N9 | errors leave the device | as N4: until attached, the descriptor is all that keeps it |
//! | N10 | clean-up deletes foreign filters and qdiscs | `attach.rs`: `a_foreign_clsact_or_ingress_qdisc…`, `an_empty_qdisc_of_somebody_else_stays`, `our_qdisc_stays…` |
//! | N11 | the interface is rediscovered at teardown | `attach.rs`: `detaching_does_not_need_the_network_to_be_as_it_was` |
//! | N12 | NAT rules pile up, by a program in PATH | `static_mode.rs`: one table, over netlink |
//! | N13 | static mode needs what the new root lacks | does not apply: nothing here runs in the monitor's root, and no program is run |
//! | N14 | MTU 0 in static mode | [`Mtu`] cannot be 0; `static_mode.rs`: `a_static_attachment_is_what_the_plan_says` |
//! | N15 | the private network collides silently | `static_mode.rs`: `a_network_that_is_taken_is_refused` |
//! | N16 | a failed entry keeps the monitor from being stopped | does not apply: stopping is no business of this crate, and `release` needs no process |
//! | N17 | namespace not restored, descriptor leaked | `run.rs`: ten thousand runs; `attach.rs`: `five_hundred…` counts descriptors |
//! | N18 | the gateway of any interface, metrics ignored | `discover.rs`: `of_several_default_routes…`, `an_on_link_default_route…` |
//! | N19 | several defaults, policy routing, IPv6 only | `discover.rs`: one test each |
//! | N20 | filters listed by an accident of masking | listed and made at the ingress side (`ffff:fff2`), on both kinds of qdisc; `attach.rs`, N10's tests |
//! | N21 | the host talks IPv6 into the guest | `traffic.rs`: `the_host_sends_nothing_of_its_own…`; offloads are the monitor's to turn on, for which the device has virtio-net headers; the queue is the kernel's 1000 frames |
//! | N22 | rules that cannot be told from others, dangling redirects | fixed priority and node, a mark as cookie; removed by record. `matchall` is not on every kernel |
//! | N23 | the queue proxy's config.json | does not apply: the caller's |
//! | N24 | a device name without identity | `owner.rs`: `a_tap_name_shows_which_container_it_is` |
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod attach;
mod attachment;
mod cidr;
mod discover;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod faults_tests;
mod find;
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

#[cfg(test)]
extern crate self as urunc_netns; // the laboratory, which the integration tests have too, calls it so
#[cfg(test)]
#[path = "../tests/lab/mod.rs"]
mod lab;

pub use attach::{
    AttachError, DetachError, PartError, ReleaseError, Released, Tap, attach, detach, detach_unrecorded,
    release, release_in,
};
pub use attachment::{
    Attachment, Connection, Handover, Mode, Plan, PlanError, Qdisc, STATIC_GUEST, STATIC_HOST, plan,
};
pub use cidr::Cidr;
pub use discover::{DiscoverError, Discovered, Holder, discover};
pub use guest::{Family, GuestNetwork, Route};
pub use names::{IfIndex, IfName, Interface, MacAddr, Mtu, NameError};
pub use namespace::{HostNetwork, NetNs, NsCookie, NsError, NsId};
pub use netlink::NetlinkError;
pub use netlink::link::Counters;
pub use owner::{Mark, NotAMark, Owner};
pub use run::{Here, RunError, StillThreaded, wait_single_threaded};
pub use settle::{SettleError, Settled, settle};
pub use sysctl::{SwitchState, SysctlError};
pub use traffic::{Traffic, traffic};
