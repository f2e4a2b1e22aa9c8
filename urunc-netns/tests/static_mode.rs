//! Static mode, for Knative: what the nftables program and the kernel's switches show. Traffic is in
//! `traffic.rs`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::path::Path;

use lab::{Lab, Pod};
use urunc_netns::{
    Attachment, Connection, Discovered, Family, Handover, Mode, Owner, PlanError, SwitchState, attach,
    detach, discover, plan,
};

fn found(lab: &Lab) -> Discovered {
    lab.netns().run(discover).unwrap().unwrap().unwrap()
}

fn planned(lab: &Lab, id: &str) -> Result<Attachment, PlanError> {
    let owner = Owner::new(id, Path::new("/run/urunc"));
    plan(&found(lab), &owner, Mode::Static, Handover::Descriptor).map(|plan| plan.attachment)
}

/// N12, N14, N22: a table of our own with one rule, forwarding where it is needed, and an MTU.
#[test]
fn a_static_attachment_is_what_the_plan_says() {
    if !lab::ready() || !lab::needs(&[("nft", lab::has("nft"))]) {
        return;
    }
    let pod = Pod::with_mtu(1400);
    let before = pod.inside.dump();
    let plan = planned(&pod.inside, "user-container").unwrap();
    let _tap = pod.inside.netns().run(|here| attach(here, &plan)).unwrap().unwrap();

    let table = format!("urunc-{}", plan.owner.mark());
    assert_eq!(
        pod.inside.sh("nft list ruleset"),
        format!(
            "table ip {table} {{\n\
             \tchain postrouting {{\n\
             \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
             \t\tip saddr 172.16.1.0/24 oif \"eth0\" masquerade\n\
             \t}}\n\
             }}\n"
        )
    );
    let tap = plan.tap.as_str();
    let address = pod.inside.sh(&format!("ip -o addr show dev {tap}"));
    assert!(address.contains("inet 172.16.1.1/24 ") && !address.contains("inet6"), "{address}");
    assert!(pod.inside.sh(&format!("ip -o link show {tap}")).contains("mtu 1400"), "N14");
    let forwards = |link: &str| pod.inside.sh(&format!("cat /proc/sys/net/ipv4/conf/{link}/forwarding"));
    assert_eq!((forwards(tap).as_str(), forwards("eth0").as_str()), ("1\n", "1\n"));
    assert_eq!(pod.inside.sh("tc filter show dev eth0 ingress"), "", "the container keeps receiving");

    pod.inside.netns().run(|here| detach(here, &plan)).unwrap().unwrap();
    lab::same(&pod.inside.dump(), &before);
}

#[test]
fn the_guest_of_static_mode_is_told_its_private_address() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let found = found(&pod.inside);
    let owner = Owner::new("user-container", Path::new("/run/urunc"));
    let guest = plan(&found, &owner, Mode::Static, Handover::Descriptor).unwrap().guest;
    assert_eq!(guest.primary(Family::V4).unwrap().to_string(), "172.16.1.2/24");
    assert_eq!(guest.gateway(Family::V4), Some("172.16.1.1".parse().unwrap()));
    assert_eq!((guest.primary(Family::V6), guest.gateway(Family::V6)), (None, None));
    assert_eq!((guest.mac, guest.mtu), (found.network.mac, found.network.mtu));
    let dynamic = plan(&found, &owner, Mode::Dynamic, Handover::Descriptor).unwrap().guest;
    assert_eq!(dynamic, found.network);
}

/// N12: every start used to append its rule to the last one's.
#[test]
fn starting_again_and_again_leaves_one_table_and_then_none() {
    if !lab::ready() || !lab::needs(&[("nft", lab::has("nft"))]) {
        return;
    }
    let pod = Pod::new();
    let before = pod.inside.dump();
    let plan = planned(&pod.inside, "user-container").unwrap();
    let ns = pod.inside.netns();
    for _ in 0..3 {
        // A crash that lost the device and left the table.
        drop(ns.run(|here| attach(here, &plan)).unwrap().unwrap());
        lab::until("the device is gone", || !pod.inside.sh("ip -o link").contains(plan.tap.as_str()));
        assert_eq!(pod.inside.sh("nft list ruleset | grep -c masquerade"), "1\n");
    }
    ns.run(|here| detach(here, &plan)).unwrap().unwrap();
    lab::same(&pod.inside.dump(), &before);
}

#[test]
fn other_tables_and_a_forwarding_interface_stay_as_they_are() {
    if !lab::ready() || !lab::needs(&[("nft", lab::has("nft"))]) {
        return;
    }
    let pod = Pod::new();
    pod.inside.sh(
        "nft add table ip nat; nft add table ip6 urunc; nft 'add chain ip nat c { type nat hook postrouting priority 100; }'
         nft add rule ip nat c ip saddr 10.1.0.0/16 masquerade
         echo 1 >/proc/sys/net/ipv4/ip_forward",
    );
    let before = pod.inside.dump();
    let plan = planned(&pod.inside, "user-container").unwrap();
    assert!(matches!(plan.connection, Connection::Masquerade { forwarding: SwitchState::On, .. }));
    let tap = pod.inside.netns().run(|here| attach(here, &plan)).unwrap().unwrap();
    drop(tap);
    pod.inside.netns().run(|here| detach(here, &plan)).unwrap().unwrap();
    lab::same(&pod.inside.dump(), &before);
}

/// N15: the private network may be somebody's already; then there is a sentence instead of a broken network.
#[test]
fn a_network_that_is_taken_is_refused() {
    if !lab::ready() {
        return;
    }
    for (setup, taken) in [
        ("ip link add net1 type veth peer name far; ip addr add 172.16.1.9/28 dev net1", "172.16.1.9/28"),
        ("ip route add 172.16.0.0/16 via 10.9.0.7", "172.16.0.0/16"),
    ] {
        let pod = Pod::new();
        pod.inside.sh(setup);
        let error = planned(&pod.inside, "user-container").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("static networking needs 172.16.1.2/24, but this namespace already has {taken}")
        );
    }
}

#[test]
fn a_second_container_is_refused_beside_a_static_one() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let first = planned(&pod.inside, "first").unwrap();
    let _tap = pod.inside.netns().run(|here| attach(here, &first)).unwrap().unwrap();
    for mode in [Mode::Dynamic, Mode::Static] {
        let owner = Owner::new("second", Path::new("/run/urunc"));
        let error = plan(&found(&pod.inside), &owner, mode, Handover::Descriptor).unwrap_err();
        assert!(
            matches!(&error, PlanError::Held { holder, .. } if holder.mark == first.owner.mark()),
            "{error}"
        );
    }
}

/// What it left is seen although its TAP device is gone; otherwise forwarding would seem to have been on before.
#[test]
fn a_dead_container_is_found_by_its_table() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let before = pod.inside.dump();
    let ns = pod.inside.netns();
    let dead = planned(&pod.inside, "dead").unwrap();
    drop(ns.run(|here| attach(here, &dead)).unwrap().unwrap());
    lab::until("the device is gone", || !pod.inside.sh("ip -o link").contains(dead.tap.as_str()));
    let error = planned(&pod.inside, "next").unwrap_err();
    let PlanError::Held { holder, .. } = &error else { panic!("{error}") };
    assert_eq!((holder.mark, &holder.tap), (dead.owner.mark(), &None));
    ns.run(|here| detach(here, &dead)).unwrap().unwrap();
    lab::same(&pod.inside.dump(), &before);
    planned(&pod.inside, "next").unwrap();
}

/// The other order than the usual one: a container that died is released when the next one is attached already.
#[test]
fn releasing_a_dead_container_late_does_not_stop_the_next_ones_traffic() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let ns = pod.inside.netns();
    let forwards = || pod.inside.sh("cat /proc/sys/net/ipv4/conf/eth0/forwarding");
    let dead = planned(&pod.inside, "dead").unwrap();
    let next = planned(&pod.inside, "next").unwrap();
    drop(ns.run(|here| attach(here, &dead)).unwrap().unwrap());
    lab::until("the device is gone", || !pod.inside.sh("ip -o link").contains(dead.tap.as_str()));
    let _tap = ns.run(|here| attach(here, &next)).unwrap().unwrap();
    ns.run(|here| detach(here, &dead)).unwrap().unwrap();
    assert_eq!(forwards(), "1\n");
}
