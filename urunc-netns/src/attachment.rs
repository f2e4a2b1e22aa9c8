//! The plan of an attachment, which is also its record: everything that will be made, decided on plain data
//! and written down by the caller before any of it exists.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;
use crate::discover::{Discovered, Holder};
use crate::guest::{GuestNetwork, Route};
use crate::names::{IfName, Interface, Mtu};
use crate::namespace::{NsCookie, NsId};
use crate::netlink::tc;
use crate::owner::Owner;
use crate::sysctl::SwitchState;

/// The host's address on the TAP device in static mode, as Knative set-ups expect it.
pub const STATIC_HOST: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 1);
/// The guest's address in static mode.
pub const STATIC_GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 2);
/// The prefix length of both.
pub(crate) const STATIC_PREFIX: u8 = 24;
/// `RT_TABLE_MAIN` (linux/rtnetlink.h).
const MAIN_TABLE: u32 = 254;

/// How a guest reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The guest takes the container interface's place: every frame goes to it, and its frames go out there.
    Dynamic,
    /// The guest has a private address behind the container's, which its packets get on their way out; what
    /// arrives for the container stays there. For Knative, whose queue proxy must keep receiving.
    Static,
}

/// How the monitor gets the TAP device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// As an open descriptor, with which the device dies.
    Descriptor,
    /// By its name, under which a process of this user id of the host, and no other, can attach. The device
    /// is persistent until [`settle`](crate::settle) finds the monitor attached.
    Name {
        /// The user id that the monitor has in the host's eyes.
        uid: u32,
    },
}

/// Everything that [`attach`](crate::attach) makes and [`detach`](crate::detach) takes away.
///
/// It is plain data. Write it to the container's record *before* attaching, and remove it from there after
/// detaching; then a crash at any point leaves nothing that is not written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attachment {
    /// The namespace that all of it is in.
    pub namespace: NsId,
    /// Which of all namespaces that have had this identity, where the kernel tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<NsCookie>,
    /// Whose it is.
    pub owner: Owner,
    /// The TAP device's name.
    pub tap: IfName,
    /// The TAP device's MTU.
    pub mtu: Mtu,
    /// How the monitor gets it.
    pub handover: Handover,
    /// The container's interface.
    pub uplink: Interface,
    /// What connects the two.
    pub connection: Connection,
}

/// What connects a TAP device with the container's interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// A filter at each one's ingress, which sends every frame to the other.
    Redirect {
        /// Whether the container interface's ingress hook is to be made for it.
        qdisc: Qdisc,
    },
    /// Forwarding, and an nftables table that masquerades.
    Masquerade {
        /// The table.
        table: String,
        /// Whether the container's interface forwarded before.
        forwarding: SwitchState,
    },
}

/// The container interface's ingress hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Qdisc {
    /// There is none; an ingress qdisc is made with the filter, which says so, and goes with it unless others have
    /// filters there by then. If somebody else makes one first, that is used and left alone.
    Made,
    /// Somebody else's ingress or clsact qdisc is used and left alone.
    Found,
}

/// What is to be made, and what the guest is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// What is to be made, and recorded first.
    pub attachment: Attachment,
    /// The network as the guest will see it.
    pub guest: GuestNetwork,
}

/// Why a guest cannot be attached here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Another container, or an earlier start of this one, has objects in the namespace.
    #[error(
        "{interface} is held by {holder}; a network namespace has room for one guest, so stop that one first"
    )]
    Held {
        /// The container's interface.
        interface: IfName,
        /// Who has it.
        holder: Box<Holder>,
    },
    /// Somebody else uses the priority that our filters have.
    #[error(
        "{interface} has a traffic filter of priority {priority} that is not ours; remove it or give it another priority"
    )]
    ForeignFilter {
        /// The container's interface.
        interface: IfName,
        /// The priority.
        priority: u16,
    },
    /// The network of static mode is already in use here.
    #[error("static networking needs {needed}, but this namespace already has {taken}")]
    SubnetTaken {
        /// What the guest would get.
        needed: Cidr,
        /// What overlaps it.
        taken: Cidr,
    },
}

/// Decides what to make so that a guest of `owner` is on the discovered network.
///
/// # Errors
/// [`PlanError::Held`] if a container is there already, be it alive or not: only the caller can know, and
/// detaches it if it is dead. [`PlanError::ForeignFilter`] and [`PlanError::SubnetTaken`] as they say.
pub fn plan(found: &Discovered, owner: &Owner, mode: Mode, handover: Handover) -> Result<Plan, PlanError> {
    let interface = || found.network.interface.name.clone();
    if let Some(holder) = found.holders().into_iter().next() {
        return Err(PlanError::Held { interface: interface(), holder: Box::new(holder) });
    }
    let (connection, guest) = match mode {
        Mode::Dynamic => {
            if found.filters.iter().any(|filter| filter.priority == tc::PRIORITY) {
                return Err(PlanError::ForeignFilter { interface: interface(), priority: tc::PRIORITY });
            }
            let qdisc = if found.qdisc.is_none() { Qdisc::Made } else { Qdisc::Found };
            (Connection::Redirect { qdisc }, found.network.clone())
        }
        Mode::Static => {
            let needed = Cidr::v4(STATIC_GUEST, STATIC_PREFIX);
            if let Some(taken) = found.taken.iter().copied().find(|taken| taken.overlaps(needed)) {
                return Err(PlanError::SubnetTaken { needed, taken });
            }
            let masquerade =
                Connection::Masquerade { table: owner.table_name(), forwarding: found.forwarding };
            (masquerade, behind(&found.network))
        }
    };
    let attachment = Attachment {
        namespace: found.namespace,
        cookie: found.cookie,
        owner: owner.clone(),
        tap: owner.tap_name(),
        mtu: found.network.mtu,
        handover,
        uplink: found.network.interface.clone(),
        connection,
    };
    Ok(Plan { attachment, guest })
}

/// The network of a guest behind the container's address: hardware address, MTU and name servers are kept.
fn behind(network: &GuestNetwork) -> GuestNetwork {
    let route = |destination, gateway: Option<Ipv4Addr>| Route {
        destination,
        gateway: gateway.map(Into::into),
        source: None,
        metric: 0,
        table: MAIN_TABLE,
        onlink: false,
    };
    let subnet = Ipv4Addr::from_bits(STATIC_GUEST.to_bits() & !0xff);
    GuestNetwork {
        addresses: vec![Cidr::v4(STATIC_GUEST, STATIC_PREFIX)],
        routes: vec![
            route(Cidr::v4(Ipv4Addr::UNSPECIFIED, 0), Some(STATIC_HOST)),
            route(Cidr::v4(subnet, STATIC_PREFIX), None),
        ],
        ..network.clone()
    }
}
