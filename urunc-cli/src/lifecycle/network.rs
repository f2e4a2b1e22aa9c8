//! The container's network, between `urunc-netns` (what there is, what to make) and `urunc-vmm` (what the guest and the
//! monitor are told). Attached by start, because engines set the network up between create and start; detached by the
//! teardown, from the record.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use urunc_netns::{
    AttachError, Attachment, Cidr, DetachError, DiscoverError, Family, GuestNetwork, Handover, Holder, Mode,
    NetNs, NsError, Owner, PlanError, ReleaseError, Route, RunError, Settled, Tap,
};
use urunc_state::{ContainerId, Deadline, Json, Locked, Process, Resource, Status, StoreError};
use urunc_vmm::{Attachment as TapAccess, InterfaceAddress, NetDevice, Network};

use super::plan::Frozen;
use super::{Runtime, teardown};

/// What the record calls an attachment, and the version of its data.
const KIND: &str = "network";
const SCHEMA: u32 = 1;

/// How long start waits for a monitor to take a TAP device that it was given by name. The device is recorded, so nothing
/// is lost if it takes longer.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
/// How long start waits for a command that works on the dead container whose network is in the way.
const RECLAIM_PATIENCE: Duration = Duration::from_secs(2);
/// How often start releases what is in the way and looks again. Once is enough but for what comes back.
const RECLAIM_ROUNDS: usize = 4;

/// Why a container gets no network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Its namespace cannot be opened.
    #[error(transparent)]
    Namespace(#[from] NsError),
    /// Its namespace cannot be entered.
    #[error(transparent)]
    Enter(#[from] RunError),
    /// What is in the namespace cannot be understood.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// What is in the namespace leaves no room for a guest.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The guest was not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Leftovers of a dead container are in the way.
    #[error("cannot remove what a dead container left in the network namespace")]
    Reclaim(#[from] DetachError),
    /// The attachment cannot be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The interface's address is one that no guest can have.
    #[error(transparent)]
    Device(#[from] urunc_vmm::DeviceError),
}

/// A guest's attachment to the container's network.
#[derive(Debug)]
pub(super) struct Attached {
    namespace: NetNs,
    attachment: Attachment,
    /// What the monitor is told.
    pub(super) device: NetDevice,
    /// What the guest is told.
    pub(super) network: Network,
    /// The TAP device, if it is handed over as a descriptor.
    pub(super) tap: Option<OwnedFd>,
}

impl Runtime {
    /// Attaches the guest to the network of `process`'s namespace. `None` if there is no interface in it.
    pub(super) fn attach_network(
        &self,
        locked: &mut Locked,
        frozen: &Frozen,
        process: &Process,
    ) -> Result<Option<Attached>, NetworkError> {
        let owner = Owner::new(locked.id().as_str(), self.store.path());
        let namespace = NetNs::of_process(process.pidfd())?;
        let Some(plan) =
            self.plan_network(&namespace, &owner, frozen.network_mode(), frozen.tap_handover())?
        else {
            log::debug!("the network namespace of container {} has no interface", locked.id());
            return Ok(None);
        };
        let access = match plan.attachment.handover {
            Handover::Descriptor => TapAccess::Descriptor,
            Handover::Name { .. } => TapAccess::Name(plan.attachment.tap.as_str().parse()?),
        };
        let device = NetDevice {
            mac: urunc_vmm::MacAddr::new(plan.guest.mac.octets())?,
            mtu: u16::try_from(plan.guest.mtu.get()).unwrap_or(u16::MAX),
            attachment: access,
            declared_as: frozen.declared_net().map(str::to_owned),
            backend: frozen.backend,
        };
        let network = guest_network(&plan.guest, frozen.name_servers());
        let resource = resource(&plan.attachment);
        locked.update(|record| record.urunc.resources.push(resource))?;
        let tap = namespace.run(|here| urunc_netns::attach(here, &plan.attachment))??;
        let tap = match tap {
            Tap::Descriptor(tap) => Some(tap),
            Tap::Named => None,
        };
        Ok(Some(Attached { namespace, attachment: plan.attachment, device, network, tap }))
    }

    /// Discovers and plans; what a dead container left in the way is released first.
    fn plan_network(
        &self,
        namespace: &NetNs,
        owner: &Owner,
        mode: Mode,
        handover: Handover,
    ) -> Result<Option<urunc_netns::Plan>, NetworkError> {
        let mut rounds = 0;
        loop {
            let Some(found) = namespace.run(urunc_netns::discover)?? else { return Ok(None) };
            match urunc_netns::plan(&found, owner, mode, handover) {
                Err(PlanError::Held { holder, .. })
                    if rounds < RECLAIM_ROUNDS && self.reclaim(namespace, owner, &holder)? =>
                {
                    rounds += 1;
                }
                result => return Ok(Some(result?)),
            }
        }
    }

    /// Releases what `holder` has in the namespace if it is dead, and ours to judge. Says whether it did.
    fn reclaim(&self, namespace: &NetNs, owner: &Owner, holder: &Holder) -> Result<bool, NetworkError> {
        let detach = |owner: &Owner| namespace.run(|here| urunc_netns::detach_unrecorded(here, owner));
        if holder.mark == owner.mark() {
            // An earlier start of this very container; its record has been released already.
            detach(owner)??;
            return Ok(true);
        }
        let Some((id, other)) = self.find_owner(holder)? else { return Ok(false) };
        match self.store.lock(&id, Deadline::after(RECLAIM_PATIENCE)) {
            Err(StoreError::NotFound { .. }) => {}
            Ok(mut locked) if matches!(locked.record().current_status(), Ok(Status::Stopped)) => {
                if let Err(error) = teardown::release(&mut locked, None) {
                    log::warn!("{}", crate::report::chain(&error));
                }
            }
            Ok(_) | Err(_) => return Ok(false),
        }
        log::info!("released the network of container {id}, which is dead");
        detach(&other)??;
        Ok(true)
    }

    /// Whose mark `holder` is, among our containers and the one that it names; `None` if it belongs to another state root.
    fn find_owner(&self, holder: &Holder) -> Result<Option<(ContainerId, Owner)>, StoreError> {
        let named = holder.container.as_deref().and_then(|id| ContainerId::new(id).ok());
        // Without a TAP device only the mark is left, from which no id can be read.
        let known = if named.is_none() { self.store.list()? } else { Vec::new() };
        Ok(named
            .into_iter()
            .chain(known)
            .map(|id| (Owner::new(id.as_str(), self.store.path()), id))
            .find(|(owner, _)| owner.mark() == holder.mark)
            .map(|(owner, id)| (id, owner)))
    }
}

impl Attached {
    /// Makes a TAP device that was handed over by name end with the monitor. Best effort: the record is the second line.
    pub(super) fn settle(&self, process: &Process) {
        if self.tap.is_some() {
            return;
        }
        let deadline = Instant::now() + SETTLE_PATIENCE;
        let settled =
            self.namespace.run(|here| urunc_netns::settle(here, &self.attachment, process.pidfd(), deadline));
        match settled {
            Ok(Ok(Settled::Attached)) => {}
            Ok(Ok(other)) => log::debug!("the monitor has not taken {}: {other:?}", self.attachment.tap),
            Ok(Err(error)) => log::warn!("{}", crate::report::chain(&error)),
            Err(error) => log::warn!("{}", crate::report::chain(&error)),
        }
    }

    /// Takes everything back at once, through the open namespace. The teardown does it again from the record.
    pub(super) fn detach(&self) {
        match self.namespace.run(|here| urunc_netns::detach(here, &self.attachment)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("{}", crate::report::chain(&error)),
            Err(error) => log::warn!("{}", crate::report::chain(&error)),
        }
    }
}

/// Why a recorded attachment cannot be released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum NetworkReleaseError {
    /// The record's data cannot be understood.
    #[error("cannot understand the network attachment in the record")]
    Data(#[from] serde_json::Error),
    /// Something could not be removed.
    #[error(transparent)]
    Release(#[from] ReleaseError),
}

/// Whether a recorded resource is a network attachment.
pub(super) fn is_network(resource: &Resource) -> bool {
    resource.kind == KIND && resource.schema == SCHEMA
}

/// Releases a recorded attachment. `namespace` is the path of the joined namespace; one that the container made itself has
/// none, and has not necessarily gone with its process.
pub(super) fn release(resource: &Resource, namespace: Option<&Path>) -> Result<(), NetworkReleaseError> {
    let attachment: Attachment = resource.data.read()?;
    let released = urunc_netns::release(namespace, &attachment)?;
    log::debug!("{}: {released:?}", attachment.tap);
    Ok(())
}

/// Releases whatever bears the container's mark in the namespace at `path`, for when the record is lost. Best effort: what
/// is left is found by the next start in that namespace.
pub(super) fn release_unrecorded(path: &Path, id: &ContainerId, root: &Path) {
    let owner = Owner::new(id.as_str(), root);
    let namespace = match NetNs::open(path) {
        Ok(namespace) => namespace,
        Err(NsError::Missing { .. } | NsError::NotNetwork { .. }) => return,
        Err(error) => return log::warn!("{}", crate::report::chain(&error)),
    };
    match namespace.run(|here| urunc_netns::detach_unrecorded(here, &owner)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::warn!("{}", crate::report::chain(&error)),
        Err(error) => log::warn!("{}", crate::report::chain(&error)),
    }
}

fn resource(attachment: &Attachment) -> Resource {
    // PROOF: an attachment consists of strings, numbers and enumerations, which JSON can always carry.
    let data = Json::of(attachment).unwrap_or_default();
    Resource { kind: KIND.to_owned(), schema: SCHEMA, data }
}

/// What the guest is to configure. Link-local addresses are its own affair.
fn guest_network(found: &GuestNetwork, name_servers: Vec<IpAddr>) -> Network {
    let link_local = |address: IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let addresses = found.addresses.iter().filter(|cidr| !link_local(cidr.address()));
    let gateways: Vec<IpAddr> =
        [Family::V4, Family::V6].into_iter().filter_map(|family| found.gateway(family)).collect();
    // What follows from addresses and gateways, which includes the way to a gateway that is in no network of the interface's.
    let follows = |route: &Route| {
        let destination = route.destination;
        match route.gateway {
            Some(gateway) => route.is_default() && gateways.contains(&gateway),
            None => {
                let network_of = |it: &Cidr| it.prefix() == destination.prefix() && it.overlaps(destination);
                let is_gateway = gateways.contains(&destination.address()) && !route.is_default();
                is_gateway || found.addresses.iter().any(network_of) || link_local(destination.address())
            }
        }
    };
    let interface = |cidr: Cidr| InterfaceAddress::new(cidr.address(), cidr.prefix()).ok();
    let routes = found.routes.iter().filter(|route| !follows(route));
    Network {
        addresses: addresses.filter_map(|cidr| interface(*cidr)).collect(),
        routes: routes
            .filter_map(|route| {
                Some(urunc_vmm::Route { destination: interface(route.destination)?, gateway: route.gateway })
            })
            .collect(),
        gateways,
        name_servers,
    }
}

/// The name servers of a `resolv.conf` (resolv.conf(5)), loopback ones apart: the guest's loopback is another. What is no
/// address is given back, too: a guest cannot have it.
pub(super) fn parse_resolv_conf(text: &str) -> (Vec<IpAddr>, Vec<&str>) {
    let mut unusable = Vec::new();
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let word = (words.next() == Some("nameserver")).then(|| words.next())??;
        // `fe80::1%eth0` is an address of a link, and the guest's links have other names, if any.
        word.parse::<IpAddr>().inspect_err(|_| unusable.push(word)).ok()
    });
    let servers = servers.filter(|address| !address.is_loopback()).collect();
    (servers, unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All but default gateways were thrown away, and nobody was told.
    #[test]
    fn routes_that_follow_from_nothing_else_are_kept() {
        let route = |destination: &str, gateway: Option<&str>| serde_json::json!({"destination": destination, "gateway": gateway, "metric": 0, "table": 254});
        let found: GuestNetwork = serde_json::from_value(serde_json::json!({
            "interface": {"index": 2, "name": "eth0"},
            "mac": "02:42:0a:00:00:02",
            "mtu": 1500,
            "addresses": ["10.0.0.2/24", "fe80::1/64", "10.9.0.1/32"],
            "routes": [
                route("0.0.0.0/0", Some("169.254.1.1")),
                route("169.254.1.1/32", None),
                route("10.0.0.0/24", None),
                route("fe80::/64", None),
                route("10.0.0.0/16", None),
                route("10.96.0.0/12", Some("10.0.0.1")),
                route("0.0.0.0/0", Some("10.0.0.1")),
            ],
        }))
        .unwrap();
        let routes = guest_network(&found, Vec::new()).routes;
        let kept: Vec<String> = routes.iter().map(ToString::to_string).collect();
        assert_eq!(kept, ["10.0.0.0/16 on the link", "10.96.0.0/12 via 10.0.0.1", "0.0.0.0/0 via 10.0.0.1"]);
    }

    #[test]
    fn name_servers_are_taken_from_resolv_conf() {
        let text = "# made by docker\nnameserver 127.0.0.11\nnameserver 10.0.0.53\nsearch x\n nameserver\tfd00::53\nnameserver x\n\
            nameserver fe80::1%eth0\nnameserver\n";
        let expected: Vec<IpAddr> = vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()];
        assert_eq!(parse_resolv_conf(text), (expected, vec!["x", "fe80::1%eth0"]));
    }
}
