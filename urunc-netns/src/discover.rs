//! What a namespace's network looks like before anything is changed. Reading is done first and completely
//! (N6); which interface is the container's is then decided on plain data.

use crate::cidr::Cidr;
use crate::guest::{Family, GuestNetwork, Route};
use crate::names::{IfIndex, IfName, Mtu, NameError};
use crate::namespace::{NsCookie, NsId};
use crate::netlink::link::Link;
use crate::netlink::tc::{self, Filter, IngressQdisc};
use crate::netlink::{NetlinkError, Socket, nft};
use crate::owner::{Mark, read_alias, read_table_name};
use crate::run::Here;
use crate::sysctl::SwitchState;

/// Why a namespace's network cannot be understood. "There is no interface" is not among these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// A table could not be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Several interfaces could be the container's, and no default route decides.
    #[error(
        "cannot tell which interface is the container's: {}; give one of them the default route",
        list(candidates)
    )]
    Ambiguous {
        /// The interfaces.
        candidates: Vec<IfName>,
    },
    /// The interface carries no Ethernet frames, so no guest can stand in for it.
    #[error("the container's interface {interface} has no Ethernet address")]
    NoEthernet {
        /// The interface.
        interface: IfName,
    },
    /// The interface has an MTU that no guest can have.
    #[error("cannot use the container's interface {interface}")]
    Mtu {
        /// The interface.
        interface: IfName,
        /// What is wrong with it.
        source: NameError,
    },
}

fn list(names: &[IfName]) -> String {
    names.iter().map(IfName::as_str).collect::<Vec<_>>().join(", ")
}

/// A namespace's network: what the guest is to be told, and what there is to be careful about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// The container interface's configuration.
    pub network: GuestNetwork,
    pub(crate) namespace: NsId,
    pub(crate) cookie: Option<NsCookie>,
    pub(crate) qdisc: Option<IngressQdisc>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) forwarding: SwitchState,
    /// TAP devices in the namespace that are marked as a container's.
    pub(crate) taps: Vec<Holder>,
    /// Owners of nftables tables of static mode.
    pub(crate) tables: Vec<Mark>,
    /// Networks that are already somebody's here.
    pub(crate) taken: Vec<Cidr>,
}

/// A container that has network objects in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its mark, which is equal to [`Owner::mark`](crate::Owner::mark) of the container whose objects these are.
    pub mark: Mark,
    /// Its id (its first part, if that is very long), as long as its TAP device exists.
    pub container: Option<String>,
    /// Its TAP device, as long as that exists.
    pub tap: Option<IfName>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.container, &self.tap) {
            (Some(container), Some(tap)) => write!(f, "container {container} with its TAP device {tap}"),
            _ => write!(f, "a container whose TAP device is gone (mark {})", self.mark),
        }
    }
}

impl Discovered {
    /// Every container that has objects here, whether it lives or left them behind. Who of them is dead, the
    /// caller knows, and can then [`detach`](crate::detach) it by its record.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        let mut holders = self.taps.clone();
        let filters = self.filters.iter().filter(|f| f.priority == tc::PRIORITY).filter_map(|f| f.mark);
        for mark in filters.chain(self.tables.iter().copied()) {
            if !holders.iter().any(|holder| holder.mark == mark) {
                holders.push(Holder { mark, container: None, tap: None });
            }
        }
        holders
    }
}

/// Reads the network of the namespace that the calling thread is in, and changes nothing. `None`: it has no
/// interface that could be the container's, so the guest runs without network.
///
/// The container's interface is the one that holds the default route with the lowest metric: the main table's
/// IPv4 route, else its IPv6 route, else one of another table (policy routing) if all those lead through one
/// interface; else the only interface that is up, loopback and our own TAP devices apart. Its name does not
/// matter (N7, N19).
///
/// # Errors
/// [`DiscoverError::Ambiguous`] if several interfaces are as good; the other variants as they say. All of them
/// mean that the guest must not be started as if there were no network.
pub fn discover(here: &Here) -> Result<Option<Discovered>, DiscoverError> {
    let mut socket = Socket::route(here)?;
    let links = socket.links()?;
    let addresses = socket.addresses()?;
    let routes = socket.routes()?;
    let Some(link) = choose(&links, &routes)? else { return Ok(None) };
    let network = describe(link, &addresses, &routes)?;
    let taken = addresses.iter().map(|(_, cidr)| *cidr);
    let taken = taken.chain(routes.iter().map(|(_, r)| r.destination).filter(|d| !d.is_everything()));
    Ok(Some(Discovered {
        network,
        namespace: here.id(),
        cookie: socket.cookie(),
        qdisc: socket.ingress_qdisc(&link.interface)?,
        filters: socket.ingress_filters(&link.interface)?,
        forwarding: link.forwarding,
        taps: links.iter().filter_map(our_tap).collect(),
        tables: if link.forwarding == SwitchState::On { our_tables(here) } else { Vec::new() },
        taken: taken.collect(),
    }))
}

/// Whose tables of static mode are there: a dead container's table has no TAP device to be seen by, and as long as it is
/// not released, the interface's forwarding looks as if it had always been on. Where it is off, nobody is asked, because
/// the question alone would load a kernel module.
fn our_tables(here: &Here) -> Vec<Mark> {
    let tables = nft::tables(here).unwrap_or_else(|error| {
        // A kernel without nf_tables has none of ours either.
        log::debug!("{error}");
        Vec::new()
    });
    tables.iter().filter_map(|table| read_table_name(table)).collect()
}

/// A link that carries our alias, as a holder.
fn our_tap(link: &Link) -> Option<Holder> {
    let (mark, container) = read_alias(link.alias.as_deref()?)?;
    Some(Holder { mark, container: Some(container), tap: Some(link.interface.name.clone()) })
}

/// Finds the container's interface.
fn choose<'a>(links: &'a [Link], routes: &[(IfIndex, Route)]) -> Result<Option<&'a Link>, DiscoverError> {
    let candidates: Vec<&Link> =
        links.iter().filter(|link| !link.is_loopback() && our_tap(link).is_none()).collect();
    let link_of = |index: IfIndex| candidates.iter().find(|link| link.interface.index == index).copied();
    let defaults = || {
        let through = routes.iter().filter(|(_, route)| route.is_default());
        through.filter_map(|(index, route)| Some((link_of(*index)?, route)))
    };
    for family in [Family::V4, Family::V6] {
        let of_family = |route: &Route| Family::of(route.destination.address()) == family;
        let main = defaults().filter(|(_, route)| route.is_main() && of_family(route));
        if let Some((link, _)) = main.min_by_key(|(_, route)| route.metric) {
            return Ok(Some(link));
        }
    }
    let mut left: Vec<&Link> = defaults().map(|(link, _)| link).collect();
    if left.is_empty() {
        left = candidates.iter().filter(|link| link.is_up()).copied().collect();
    }
    left.sort_by_key(|link| link.interface.index);
    left.dedup_by_key(|link| link.interface.index);
    match left[..] {
        [] => Ok(None),
        [link] => Ok(Some(link)),
        _ => Err(DiscoverError::Ambiguous {
            candidates: left.iter().map(|l| l.interface.name.clone()).collect(),
        }),
    }
}

/// Everything about the interface that a guest must know.
fn describe(
    link: &Link,
    addresses: &[(IfIndex, Cidr)],
    routes: &[(IfIndex, Route)],
) -> Result<GuestNetwork, DiscoverError> {
    let interface = || link.interface.name.clone();
    let mac = link.mac.ok_or_else(|| DiscoverError::NoEthernet { interface: interface() })?;
    let mtu = Mtu::try_from(link.mtu);
    let mtu = mtu.map_err(|source| DiscoverError::Mtu { interface: interface(), source })?;
    let addresses =
        addresses.iter().filter(|(index, _)| *index == link.interface.index).map(|(_, cidr)| *cidr);
    let through = routes.iter().filter(|(index, _)| *index == link.interface.index);
    let mut routes: Vec<Route> = through.map(|(_, route)| route.clone()).collect();
    routes.sort_by_key(Route::rank);
    Ok(GuestNetwork {
        interface: link.interface.clone(),
        mac,
        mtu,
        addresses: addresses.collect(),
        routes,
        dns: Vec::new(),
    })
}
