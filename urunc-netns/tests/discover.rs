//! Which interface is the container's, and what is known about it, on networks as the kernel reports them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use lab::{Lab, Pod};
use urunc_netns::{DiscoverError, Discovered, Family, GuestNetwork, discover};

fn found(lab: &Lab) -> Result<Option<Discovered>, DiscoverError> {
    lab.netns().run(discover).unwrap()
}

fn network(lab: &Lab) -> GuestNetwork {
    found(lab).unwrap().unwrap().network
}

/// Interfaces of the given names, up, each with a peer in the same namespace that stays down.
fn with(names: &[&str]) -> Lab {
    let lab = Lab::new();
    for (number, name) in names.iter().enumerate() {
        lab.sh(&format!(
            "ip link add {name} type veth peer name far{number}; ip link set {name} up
             ip addr add 10.{number}.0.2/24 dev {name}; ip addr add fd0{number}::2/64 dev {name} nodad"
        ));
    }
    lab
}

#[test]
fn a_pods_interface_is_read_completely() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::with_mtu(9000);
    let before = pod.inside.dump();
    let network = network(&pod.inside);
    assert_eq!(network.interface.name.as_str(), "eth0");
    assert_eq!(network.mac.to_string(), "02:00:00:00:09:02");
    assert_eq!(network.mtu.get(), 9000);
    let addresses: Vec<String> = network.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.9.0.2/24", "fd09::2/64"]);
    assert_eq!(network.gateway(Family::V4), Some("10.9.0.1".parse().unwrap()));
    assert_eq!(network.gateway(Family::V6), Some("fd09::1".parse().unwrap()));
    assert_eq!(network.primary(Family::V4).unwrap().to_string(), "10.9.0.2/24");
    assert_eq!(network.primary(Family::V6).unwrap().to_string(), "fd09::2/64");
    let onlink: Vec<String> =
        network.routes.iter().filter(|r| r.gateway.is_none()).map(|r| r.destination.to_string()).collect();
    assert_eq!(onlink, ["10.9.0.0/24", "fd09::/64"]);
    assert_eq!(network.routes.iter().find(|r| !r.is_default()).unwrap().source, "10.9.0.2".parse().ok());
    lab::same(&pod.inside.dump(), &before);
    let json = serde_json::to_string_pretty(&network).unwrap();
    assert_eq!(serde_json::from_str::<GuestNetwork>(&json).unwrap(), network, "{json}");
}

/// No interface is not an error; the guest runs without network (#417 made every error look like this).
#[test]
fn a_namespace_with_nothing_but_loopback_has_no_interface() {
    if !lab::ready() {
        return;
    }
    assert!(matches!(found(&Lab::new()), Ok(None)));
    let down = Lab::new();
    down.sh("ip link add eth0 type veth peer name far; ip addr add 10.0.0.2/24 dev eth0");
    assert!(matches!(found(&down), Ok(None)), "an interface that is down is none");
}

/// N18, N19: not the first one in the kernel's order, but the best.
#[test]
fn of_several_default_routes_the_lowest_metric_wins() {
    if !lab::ready() {
        return;
    }
    let lab = with(&["nic0", "nic1", "nic2"]);
    lab.sh("ip route add default via 10.0.0.1 metric 300
         ip route add default via 10.1.0.1 metric 100
         ip route add default via 10.2.0.1 metric 200
         ip route add default via 10.1.0.9 metric 400
         ip -6 route add default via fd00::1 metric 1");
    let network = network(&lab);
    assert_eq!(network.interface.name.as_str(), "nic1");
    assert_eq!(network.gateway(Family::V4), Some("10.1.0.1".parse().unwrap()));
    assert_eq!(network.gateway(Family::V6), None, "the IPv6 default route is another interface's");
}

/// N6, N19: an IPv6-only pod is a pod like any other.
#[test]
fn an_ipv6_only_pod_is_found_by_its_ipv6_default_route() {
    if !lab::ready() {
        return;
    }
    let lab = Lab::new();
    lab.sh(
        "for i in nic0 nic1; do ip link add $i type veth peer name far$i; ip link set $i up; ip link set far$i up; done
         ip addr add fd00::2/64 dev nic0 nodad; ip addr add fd01::2/64 dev nic1 nodad; ip addr add fe80::2/64 dev nic1 nodad
         ip -6 route add default via fe80::1 dev nic1 metric 512; ip -6 route add default via fd00::1 metric 1024",
    );
    let network = network(&lab);
    assert_eq!(network.interface.name.as_str(), "nic1");
    assert_eq!(network.gateway(Family::V6), Some("fe80::1".parse().unwrap()));
    assert_eq!(network.primary(Family::V6).unwrap().to_string(), "fd01::2/64", "not the link-local one");
    assert_eq!(network.addresses.len(), 2);
    assert_eq!((network.primary(Family::V4), network.gateway(Family::V4)), (None, None));
}

/// N19: the default route is in another table.
#[test]
fn policy_routing_alone_decides_if_it_points_to_one_interface() {
    if !lab::ready() {
        return;
    }
    let lab = with(&["nic0", "nic1"]);
    lab.sh("ip route add default via 10.1.0.1 table 100; ip -6 route add default via fd01::1 table 100
         ip route add default via 10.1.0.7 table 101 metric 7; ip rule add from all lookup 100");
    let network = network(&lab);
    assert_eq!(network.interface.name.as_str(), "nic1");
    assert_eq!(network.gateway(Family::V4), Some("10.1.0.1".parse().unwrap()));
    assert_eq!(network.gateway(Family::V6), Some("fd01::1".parse().unwrap()));
    lab.sh("ip route add default via 10.0.0.1 table 102");
    assert!(matches!(found(&lab), Err(DiscoverError::Ambiguous { .. })));
    lab.sh("ip route add default via 10.0.0.1 metric 4000");
    assert_eq!(name_of(&lab), "nic0", "the main table goes first, whatever the metric");
}

fn name_of(lab: &Lab) -> String {
    network(lab).interface.to_string()
}

/// N7: neither the name of an interface nor that of its neighbours matters.
#[test]
fn unusual_names_are_names() {
    if !lab::ready() {
        return;
    }
    for name in ["net1", "ens5", "tapestry", "datapath0", "tap0", "eth0.100", "wlan@roof", "ur-000000000000"]
    {
        let lab = Lab::new();
        lab.sh(&format!(
            "ip link add '{name}' type veth peer name far; ip link set far up; ip link set '{name}' up
             ip link add link far macvtap0 type macvtap; ip addr add 10.0.0.2/24 dev '{name}'
             ip route add default via 10.0.0.1"
        ));
        assert_eq!(name_of(&lab), name);
    }
}

/// A name that is no text must not end the reading of the others.
#[test]
fn a_neighbour_whose_name_is_no_utf_8_is_no_obstacle() {
    if !lab::ready() {
        return;
    }
    let lab = with(&["eth0"]);
    lab.sh("ip link add \"$(printf 'x\\377y')\" type veth peer name far9; ip route add default via 10.0.0.1");
    assert_eq!(name_of(&lab), "eth0");
}

#[test]
fn without_a_default_route_the_only_interface_that_is_up_is_taken() {
    if !lab::ready() {
        return;
    }
    let lab = with(&["net1"]);
    let network = network(&lab);
    assert_eq!(network.interface.name.as_str(), "net1");
    assert_eq!((network.gateway(Family::V4), network.gateway(Family::V6)), (None, None));
    lab.sh("ip link add net2 type veth peer name far2; ip link set net2 up");
    let error = found(&lab).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot tell which interface is the container's: net1, net2; give one of them the default route"
    );
}

/// As some clouds and Calico have it: a host address, and a gateway that only a link route makes reachable.
#[test]
fn a_gateway_outside_every_prefix_comes_with_its_link_route() {
    if !lab::ready() {
        return;
    }
    let lab = Lab::new();
    lab.sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip addr add 10.0.0.5/32 dev eth0
         ip route add 169.254.1.1 dev eth0 scope link; ip route add default via 169.254.1.1
         ip route add 10.8.0.0/16 via 203.0.113.1 dev eth0 onlink");
    let network = network(&lab);
    assert_eq!(network.gateway(Family::V4), Some("169.254.1.1".parse().unwrap()));
    let to = |destination: &str| {
        network.routes.iter().find(|r| r.destination.to_string() == destination).unwrap().clone()
    };
    assert_eq!(to("169.254.1.1/32").gateway, None);
    assert!(to("10.8.0.0/16").onlink && !to("0.0.0.0/0").onlink);
}

/// N18: an on-link default route used to become the gateway 0.0.0.0.
#[test]
fn an_on_link_default_route_has_no_gateway() {
    if !lab::ready() {
        return;
    }
    let lab = with(&["eth0"]);
    lab.sh("ip route add default dev eth0");
    let network = network(&lab);
    assert!(network.default_route(Family::V4).is_some());
    assert_eq!(network.gateway(Family::V4), None);
}

#[test]
fn next_hops_of_a_multipath_route_are_routes() {
    if !lab::ready() {
        return;
    }
    let lab = with(&["nic0", "nic1"]);
    lab.sh("ip link set far0 up; ip link set far1 up
         ip route add default metric 5 nexthop via 10.1.0.1 weight 2 nexthop via 10.1.0.3
         ip route add 10.7.0.0/16 via inet6 fd01::9 dev nic1");
    let network = network(&lab);
    assert_eq!(network.interface.name.as_str(), "nic1");
    let gateways: Vec<String> =
        network.routes.iter().filter(|r| r.is_default()).map(|r| r.gateway.unwrap().to_string()).collect();
    assert_eq!(gateways, ["10.1.0.1", "10.1.0.3"]);
    let crossed = network.routes.iter().find(|r| r.destination.to_string() == "10.7.0.0/16").unwrap();
    assert_eq!(
        crossed.gateway,
        Some("fd01::9".parse().unwrap()),
        "an IPv4 route by way of an IPv6 neighbour"
    );
}

/// What leads nowhere is not a way out: the kernel itself has an `unreachable` default route for IPv6.
#[test]
fn unreachable_and_blackhole_routes_do_not_count() {
    if !lab::ready() {
        return;
    }
    let lab = with(&["nic0", "nic1"]);
    lab.sh("ip route add blackhole default metric 1; ip -6 route add unreachable default metric 1
         ip route add default via 10.1.0.1 metric 50");
    assert_eq!(name_of(&lab), "nic1");
}

#[test]
fn an_interface_without_ethernet_is_refused_by_name() {
    if !lab::ready() {
        return;
    }
    let lab = Lab::new();
    lab.sh("ip tuntap add dev vpn0 mode tun; ip link set vpn0 up; ip addr add 10.0.0.2/24 dev vpn0");
    let error = found(&lab).unwrap_err();
    assert_eq!(error.to_string(), "the container's interface vpn0 has no Ethernet address");
}

/// The kernel hands a table out in chunks, and this one is larger than any.
#[test]
fn a_table_of_many_chunks_is_read_whole() {
    if !lab::ready() {
        return;
    }
    let lab = with(&["eth0"]);
    lab.sh(
        "ip route add default via 10.0.0.1
         for a in $(seq 0 15); do for b in $(seq 0 255); do echo route add 10.$((100+a)).$b.0/24 via 10.0.0.9; done; done |
             ip -batch -",
    );
    let routes = network(&lab).routes;
    assert_eq!(routes.iter().filter(|r| r.gateway == "10.0.0.9".parse().ok()).count(), 4096);
}
