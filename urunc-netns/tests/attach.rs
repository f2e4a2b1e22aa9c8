//! Attaching and detaching, with iproute2 looking on: exactly what the plan says appears, and exactly that goes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use lab::{Lab, Pod};
use urunc_netns::{
    AttachError, Attachment, Connection, DetachError, Discovered, Handover, Mode, Mtu, Owner, Plan,
    PlanError, Qdisc, ReleaseError, Released, Tap, attach, detach, detach_unrecorded, discover, plan,
    release, release_in,
};

fn owner(id: &str) -> Owner {
    Owner::new(id, Path::new("/run/urunc"))
}

fn found(lab: &Lab) -> Discovered {
    lab.netns().run(discover).unwrap().unwrap().unwrap()
}

fn planned(lab: &Lab, id: &str, mode: Mode) -> Attachment {
    plan(&found(lab), &owner(id), mode, Handover::Descriptor).unwrap().attachment
}

fn attach_in(lab: &Lab, plan: &Attachment) -> Result<Tap, AttachError> {
    lab.netns().run(|here| attach(here, plan)).unwrap()
}

fn detach_in(lab: &Lab, record: &Attachment) -> Result<(), DetachError> {
    lab.netns().run(|here| detach(here, record)).unwrap()
}

/// A process that holds the device as a monitor does, and does nothing else.
fn holder(tap: Tap) -> Child {
    let Tap::Descriptor(fd) = tap else { panic!("a descriptor was asked for") };
    Command::new("sleep").arg("infinity").stdin(Stdio::from(fd)).spawn().unwrap()
}

#[test]
fn a_dynamic_attachment_is_what_the_plan_says() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::with_mtu(9000);
    let before = pod.inside.dump();
    let plan = planned(&pod.inside, "web", Mode::Dynamic);
    let tap = attach_in(&pod.inside, &plan).unwrap();
    assert!(matches!(tap, Tap::Descriptor(_)));

    let name = &plan.tap;
    let link = pod.inside.sh(&format!("ip -j -d link show {name}"));
    for expected in [
        r#""mtu":9000"#,
        r#""UP","LOWER_UP""#,
        r#""type":"tap""#,
        r#""pi":false,"vnet_hdr":true,"multi_queue":false,"persist":false"#,
        &format!(r#""ifalias":"urunc:{}:web""#, plan.owner.mark()),
    ] {
        assert!(link.contains(expected), "{expected} in {link}");
    }
    assert_eq!(pod.inside.sh(&format!("ip -o addr show dev {name}")), "", "N21: no address of its own");
    for (from, to) in [("eth0", name.as_str()), (name.as_str(), "eth0")] {
        let qdiscs = pod.inside.sh(&format!("tc -j qdisc show dev {from} ingress"));
        assert!(qdiscs.contains(r#""kind":"ingress""#), "{qdiscs}");
        let filters = pod.inside.sh(&format!("tc -d filter show dev {from} ingress"));
        // N22: a fixed place that nobody finds by accident, and a mark on it.
        assert!(filters.contains("protocol all pref 30066 u32"), "{filters}");
        assert!(filters.contains("fh 800::1 ") && !filters.contains("fh 800::2"), "{filters}");
        assert!(filters.contains(&format!("mirred (Egress Redirect to device {to}) stolen")), "{filters}");
        assert!(filters.contains(&format!("cookie {}", plan.owner.mark())), "{filters}");
    }
    detach_in(&pod.inside, &plan).unwrap();
    lab::same(&pod.inside.dump(), &before);
    detach_in(&pod.inside, &plan).expect("what is gone is gone");
    lab::same(&pod.inside.dump(), &before);
}

#[test]
fn the_record_survives_serde_and_detaches() {
    if !lab::ready() {
        return;
    }
    for mode in [Mode::Dynamic, Mode::Static] {
        let pod = Pod::new();
        let before = pod.inside.dump();
        let plan = planned(&pod.inside, "web", mode);
        let json = serde_json::to_string(&plan).unwrap();
        let _tap = attach_in(&pod.inside, &plan).unwrap();
        let record: Attachment = serde_json::from_str(&json).unwrap();
        assert_eq!(record, plan);
        detach_in(&pod.inside, &record).unwrap();
        lab::same(&pod.inside.dump(), &before);
    }
}

/// N10: what a CNI plugin has there is used, and stays as it is.
#[test]
fn a_foreign_clsact_or_ingress_qdisc_is_used_and_left_alone() {
    if !lab::ready() {
        return;
    }
    for qdisc in ["clsact", "ingress"] {
        let pod = Pod::new();
        pod.inside.sh(&format!(
            "ip link add ifb7 type veth peer name far
             tc qdisc add dev eth0 {qdisc}
             tc filter add dev eth0 ingress protocol ip pref 1 u32 match ip dport 9 0xffff action mirred egress mirror dev ifb7
             tc filter add dev eth0 ingress protocol all pref 49152 u32 match u32 0x7 0xff action mirred egress mirror dev ifb7"
        ));
        if qdisc == "clsact" {
            pod.inside.sh("tc filter add dev eth0 egress protocol all u32 match u32 0x7 0xff action mirred egress mirror dev ifb7");
        }
        let before = pod.inside.dump();
        let plan = planned(&pod.inside, "web", Mode::Dynamic);
        assert_eq!(plan.connection, Connection::Redirect { qdisc: Qdisc::Found });
        let tap = attach_in(&pod.inside, &plan).unwrap();
        let order = pod.inside.sh("tc filter show dev eth0 ingress | grep -o 'pref [0-9]*' | uniq");
        assert_eq!(order, "pref 1\npref 30066\npref 49152\n");
        drop(tap);
        detach_in(&pod.inside, &plan).unwrap();
        lab::same(&pod.inside.dump(), &before);
    }
}

#[test]
fn our_qdisc_stays_as_long_as_others_use_it() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let plan = planned(&pod.inside, "web", Mode::Dynamic);
    let tap = attach_in(&pod.inside, &plan).unwrap();
    pod.inside.sh("tc filter add dev eth0 ingress pref 5 protocol ip u32 match ip dport 9 0xffff action mirred egress redirect dev lo");
    drop(tap);
    detach_in(&pod.inside, &plan).unwrap();
    let left = pod.inside.sh("tc filter show dev eth0 ingress");
    assert!(left.contains("pref 5 ") && !left.contains("pref 30066"), "{left}");
}

/// N8: an existing device is not taken over, and what has its name is not touched by cleaning up.
#[test]
fn a_device_of_the_same_name_is_neither_used_nor_removed() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let plan = planned(&pod.inside, "web", Mode::Dynamic);
    for foreign in ["ip tuntap add dev TAP mode tap", "ip link add TAP type veth peer name far"] {
        pod.inside.sh(&foreign.replace("TAP", plan.tap.as_str()));
        let before = pod.inside.dump();
        let error = attach_in(&pod.inside, &plan).unwrap_err();
        assert!(matches!(&error, AttachError::TapTaken { name } if *name == plan.tap), "{error}");
        lab::same(&pod.inside.dump(), &before);
        detach_in(&pod.inside, &plan).unwrap();
        lab::same(&pod.inside.dump(), &before);
        pod.inside.sh(&format!("ip link del {}", plan.tap));
    }
}

/// The issue's "two containers in one pod namespace"; N8's race included: both had planned before either acted.
#[test]
fn a_second_container_is_refused_by_name_and_does_not_disturb_the_first() {
    if !lab::ready() {
        return;
    }
    for second_mode in [Mode::Dynamic, Mode::Static] {
        let pod = Pod::new();
        let late = plan(&found(&pod.inside), &owner("second"), Mode::Dynamic, Handover::Descriptor).unwrap();
        let first = planned(&pod.inside, "first", Mode::Dynamic);
        let _tap = attach_in(&pod.inside, &first).unwrap();
        let attached = pod.inside.dump();

        let error =
            plan(&found(&pod.inside), &owner("second"), second_mode, Handover::Descriptor).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "eth0 is held by container first with its TAP device {}; \
                 a network namespace has room for one guest, so stop that one first",
                first.tap
            )
        );
        let error = attach_in(&pod.inside, &late.attachment).unwrap_err();
        assert!(is_redirected_already(&error), "{error:?}");
        lab::same(&pod.inside.dump(), &attached);
        detach_in(&pod.inside, &late.attachment).unwrap();
        lab::same(&pod.inside.dump(), &attached);
    }
}

/// The kernel's words for it: EEXIST, or ENOSPC, for there is one place only.
fn is_redirected_already(error: &AttachError) -> bool {
    let AttachError::Netlink(netlink) = error else { return false };
    [Some(libc::EEXIST), Some(libc::ENOSPC)].contains(&netlink.errno())
}

/// Both have planned to make the qdisc. However their steps fall, one of them gets its network, and the other one's
/// clean-up takes nothing away from it.
#[test]
fn of_two_attachments_at_the_same_time_one_succeeds() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let before = pod.inside.dump();
    let records = ["one", "two"].map(|id| planned(&pod.inside, id, Mode::Dynamic));
    for _ in 0..25 {
        let together = std::sync::Barrier::new(records.len());
        let taps = std::thread::scope(|scope| {
            let attachments = records.each_ref().map(|record| {
                let (together, pod) = (&together, &pod);
                scope.spawn(move || {
                    let tap = pod.inside.netns().run(|here| {
                        together.wait();
                        let tap = attach(here, record);
                        // At once, as a failed start does.
                        if tap.is_err() {
                            detach(here, record).unwrap();
                        }
                        tap
                    });
                    tap.unwrap()
                })
            });
            attachments.map(|attachment| attachment.join().unwrap())
        });
        let winners: Vec<_> = taps.iter().zip(&records).filter(|(tap, _)| tap.is_ok()).collect();
        assert_eq!(winners.len(), 1, "{taps:?}");
        let filter = pod.inside.sh("tc filter show dev eth0 ingress");
        assert!(filter.contains(&format!("to device {}", winners[0].1.tap)), "{filter}");
        detach_in(&pod.inside, winners[0].1).unwrap();
        // The winner may have found the other's qdisc, which is then nobody's and harmless.
        pod.inside.sh("tc qdisc del dev eth0 ingress 2>/dev/null || true");
        lab::same(&pod.inside.dump(), &before);
    }
}

/// N10: a plugin has hung up a qdisc since it was planned, and has no filters there yet.
#[test]
fn an_empty_qdisc_of_somebody_else_stays() {
    if !lab::ready() {
        return;
    }
    for foreign in ["ingress", "clsact"] {
        let pod = Pod::new();
        let plan = planned(&pod.inside, "web", Mode::Dynamic);
        assert_eq!(plan.connection, Connection::Redirect { qdisc: Qdisc::Made });
        pod.inside.sh(&format!("tc qdisc add dev eth0 {foreign}"));
        let before = pod.inside.dump();
        // Recorded, and never attached.
        detach_in(&pod.inside, &plan).unwrap();
        lab::same(&pod.inside.dump(), &before);
        // Attached to what is there.
        let tap = attach_in(&pod.inside, &plan).unwrap();
        assert!(pod.inside.sh("tc filter show dev eth0 ingress").contains(plan.tap.as_str()));
        drop(tap);
        detach_in(&pod.inside, &plan).unwrap();
        lab::same(&pod.inside.dump(), &before);
        // The same without a record.
        drop(attach_in(&pod.inside, &plan).unwrap());
        pod.inside.netns().run(|here| detach_unrecorded(here, &owner("web"))).unwrap().unwrap();
        lab::same(&pod.inside.dump(), &before);
    }
}

/// Another guest is about to put its filter into the qdisc that this one has made.
#[test]
fn our_qdisc_stays_while_another_guest_is_being_attached() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let records = ["one", "two"].map(|id| planned(&pod.inside, id, Mode::Dynamic));
    drop(attach_in(&pod.inside, &records[0]).unwrap());
    // As far as the other one has come: its TAP device.
    pod.inside.sh(&format!(
        "ip tuntap add dev other mode tap; ip link set other alias urunc:{}:two",
        records[1].owner.mark()
    ));
    detach_in(&pod.inside, &records[0]).unwrap();
    let left = pod.inside.sh("tc qdisc show dev eth0 ingress; tc filter show dev eth0 ingress");
    assert!(left.contains("ingress") && !left.contains("u32"), "{left}");
}

/// As above where there is a qdisc already, so that the filter is what the second one stumbles on.
#[test]
fn a_second_redirect_is_refused_by_the_kernel() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    pod.inside.sh("tc qdisc add dev eth0 clsact");
    let [first, second] = ["first", "second"].map(|id| planned(&pod.inside, id, Mode::Dynamic));
    let _tap = attach_in(&pod.inside, &first).unwrap();
    let attached = pod.inside.dump();
    let error = attach_in(&pod.inside, &second).unwrap_err();
    assert!(is_redirected_already(&error), "{error:?}");
    assert!(error.to_string().starts_with(&format!("cannot redirect the traffic of eth0 to {}", second.tap)));
    lab::same(&pod.inside.dump(), &attached);
}

/// Attaching twice must not make the second failure take the first one's objects away: they have its mark.
#[test]
fn attaching_twice_changes_nothing() {
    if !lab::ready() {
        return;
    }
    for mode in [Mode::Dynamic, Mode::Static] {
        let pod = Pod::new();
        let plan = planned(&pod.inside, "web", mode);
        let _tap = attach_in(&pod.inside, &plan).unwrap();
        let attached = pod.inside.dump();
        let error = attach_in(&pod.inside, &plan).unwrap_err();
        assert!(matches!(error, AttachError::TapTaken { .. }), "{error}");
        lab::same(&pod.inside.dump(), &attached);
    }
}

/// N5, and F3: the monitor was killed from outside, its TAP device went with it, and eth0 swallows everything.
#[test]
fn what_a_dead_container_left_is_reported_and_released_by_its_record() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let before = pod.inside.dump();
    let records = ["one", "two", "three"].map(|id| planned(&pod.inside, id, Mode::Dynamic));
    let monitor = holder(attach_in(&pod.inside, &records[1]).unwrap());
    lab::end(monitor);
    lab::until("the device is gone", || !pod.inside.sh("ip -o link").contains("ur-"));

    let error = plan(&found(&pod.inside), &owner("one"), Mode::Dynamic, Handover::Descriptor).unwrap_err();
    let PlanError::Held { holder, .. } = error else { panic!("{error}") };
    assert_eq!((&holder.container, &holder.tap), (&None, &None));
    let dead = records.iter().find(|record| record.owner.mark() == holder.mark).unwrap();
    assert_eq!(dead.owner.container(), "two");
    detach_in(&pod.inside, dead).unwrap();
    lab::same(&pod.inside.dump(), &before);
    assert!(plan(&found(&pod.inside), &owner("one"), Mode::Dynamic, Handover::Descriptor).is_ok());
}

#[test]
fn a_foreign_filter_of_our_priority_is_refused_and_kept() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    pod.inside.sh(
        "tc qdisc add dev eth0 ingress
         tc filter add dev eth0 ingress pref 30066 protocol ip u32 match ip dport 9 0xffff action mirred egress redirect dev lo",
    );
    let refused = plan(&found(&pod.inside), &owner("web"), Mode::Dynamic, Handover::Descriptor);
    assert!(matches!(refused, Err(PlanError::ForeignFilter { priority: 30066, .. })), "{refused:?}");
    // One that came after planning is found by the kernel.
    pod.inside.sh("tc qdisc del dev eth0 ingress");
    let mut plan = planned(&pod.inside, "web", Mode::Dynamic);
    plan.connection = Connection::Redirect { qdisc: Qdisc::Found };
    pod.inside.sh(
        "tc qdisc add dev eth0 ingress
         tc filter add dev eth0 ingress pref 30066 protocol ip u32 match ip dport 9 0xffff action mirred egress redirect dev lo",
    );
    let before = pod.inside.dump();
    assert!(attach_in(&pod.inside, &plan).is_err());
    detach_in(&pod.inside, &plan).unwrap();
    lab::same(&pod.inside.dump(), &before);
}

/// N11: detaching asks the record, not the routing table, which interface it was.
#[test]
fn detaching_does_not_need_the_network_to_be_as_it_was() {
    if !lab::ready() {
        return;
    }
    type Change = (&'static str, &'static str);
    let changes: [Change; 3] = [
        ("ip route del default; ip -6 route del default", "tc filter show dev eth0 ingress"),
        ("ip link set eth0 down; ip link set eth0 name moved", "tc filter show dev moved ingress"),
        ("ip link del eth0", "true"),
    ];
    for (change, filters) in changes {
        let pod = Pod::new();
        let plan = planned(&pod.inside, "web", Mode::Dynamic);
        let _tap = attach_in(&pod.inside, &plan).unwrap();
        pod.inside.sh(change);
        detach_in(&pod.inside, &plan).unwrap();
        assert_eq!(pod.inside.sh(filters), "", "{change}");
        assert!(!pod.inside.sh("tc qdisc; ip -o link").contains("ingress"), "{change}");
        assert!(!pod.inside.sh("ip -o link").contains("ur-"), "{change}");
    }
}

/// F2: the clean-up that ran in the wrong namespace, found nothing and reported success.
#[test]
fn detaching_in_the_wrong_namespace_is_no_success() {
    if !lab::ready() {
        return;
    }
    let (pod, other) = (Pod::new(), Lab::new());
    let plan = planned(&pod.inside, "web", Mode::Dynamic);
    let _tap = attach_in(&pod.inside, &plan).unwrap();
    let attached = pod.inside.dump();
    assert!(matches!(detach_in(&other, &plan), Err(DetachError::Elsewhere { .. })));
    assert!(matches!(attach_in(&other, &plan), Err(AttachError::Elsewhere { .. })));
    lab::same(&pod.inside.dump(), &attached);
}

#[test]
fn a_namespace_that_is_gone_is_released() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let before = pod.inside.dump();
    let plan = planned(&pod.inside, "web", Mode::Dynamic);
    let _tap = attach_in(&pod.inside, &plan).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let other = Lab::new();
    // Missing, an unmounted mount point, a path that is somebody else's by now (N3), and none at all. Nobody has the
    // namespace but this test, and that as a descriptor.
    for path in [Path::new("/run/netns/gone"), file.path(), &other.path()] {
        assert_eq!(release(Some(path), &plan).unwrap(), Released::NamespaceGone);
    }
    assert_eq!(release(None, &plan).unwrap(), Released::NamespaceGone);
    assert_eq!(release(Some(&pod.inside.path()), &plan).unwrap(), Released::Detached);
    lab::same(&pod.inside.dump(), &before);
}

/// Without the search the interface would go on swallowing everything, in a namespace that others use (N3).
#[test]
fn a_pinned_namespace_is_found_though_its_path_is_gone() {
    if !lab::ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("a pin\\ and a \n");
    std::fs::write(&mount, "").unwrap();
    let gone = Path::new("/proc/4194305/ns/net"); // beyond the highest possible pid
    for path in [None, Some(gone), Some(dir.path())] {
        let pod = Pod::new();
        let before = pod.inside.dump();
        let plan = planned(&pod.inside, "web", Mode::Dynamic);
        drop(attach_in(&pod.inside, &plan).unwrap());
        assert_ne!(pod.inside.dump(), before);
        assert_eq!(release(path, &plan).unwrap(), Released::NamespaceGone);

        // As `ip netns attach` and Docker pin it.
        let words = [pod.inside.path(), mount.clone()];
        assert!(Command::new("mount").arg("--bind").args(&words).status().unwrap().success());
        let released = release(path, &plan);
        assert!(Command::new("umount").arg(&mount).status().unwrap().success());
        assert_eq!(released.unwrap(), Released::Detached);
        lab::same(&pod.inside.dump(), &before);

        // As a neighbour does that has joined it.
        let plan = planned(&pod.inside, "web", Mode::Dynamic);
        drop(attach_in(&pod.inside, &plan).unwrap());
        let mut neighbour = pod.inside.command("sh");
        let mut neighbour =
            neighbour.args(["-c", "echo; exec sleep 1000"]).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(neighbour.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let released = release(path, &plan);
        lab::end(neighbour);
        assert_eq!(released.unwrap(), Released::Detached);
        lab::same(&pod.inside.dump(), &before);
    }
}

/// The kernel gives the number of a namespace that is gone to the next one. What that has is none of ours.
#[test]
fn a_namespace_that_has_inherited_a_number_is_not_touched() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let plan = planned(&pod.inside, "web", Mode::Dynamic);
    let ns = pod.inside.netns();
    if !lab::needs(&[("Linux 5.14", plan.cookie.is_some())]) {
        return;
    }
    let cookie = plan.cookie.unwrap();
    let number: u64 = serde_json::from_value(serde_json::to_value(cookie).unwrap()).unwrap();
    let mut earlier = serde_json::to_value(&plan).unwrap();
    earlier["cookie"] = (number - 1).into();
    let earlier: Attachment = serde_json::from_value(earlier).unwrap();

    let _tap = attach_in(&pod.inside, &plan).unwrap();
    let attached = pod.inside.dump();
    assert_eq!(release(Some(&pod.inside.path()), &earlier).unwrap(), Released::NamespaceGone);
    assert_eq!(release_in(&ns, &earlier).unwrap(), Released::NamespaceGone);
    detach_in(&pod.inside, &earlier).unwrap();
    assert!(matches!(attach_in(&pod.inside, &earlier), Err(AttachError::Elsewhere { .. })));
    lab::same(&pod.inside.dump(), &attached);
    // A record of an older kernel, or by an earlier version, has none.
    let mut unnumbered = plan.clone();
    unnumbered.cookie = None;
    assert_eq!(release_in(&ns, &unnumbered).unwrap(), Released::Detached);
}

#[test]
fn an_open_namespace_is_released_in_if_it_is_the_recorded_one() {
    if !lab::ready() {
        return;
    }
    let (pod, other) = (Pod::new(), Lab::new());
    let before = pod.inside.dump();
    let plan = planned(&pod.inside, "web", Mode::Dynamic);
    let _tap = attach_in(&pod.inside, &plan).unwrap();
    let error = release_in(&other.netns(), &plan).unwrap_err();
    assert!(matches!(error, ReleaseError::Detach(DetachError::Elsewhere { .. })), "{error}");
    assert_eq!(release_in(&pod.inside.netns(), &plan).unwrap(), Released::Detached);
    lab::same(&pod.inside.dump(), &before);
}

#[test]
fn what_has_no_record_is_found_by_its_owner() {
    if !lab::ready() {
        return;
    }
    for (mode, handover) in [
        (Mode::Dynamic, Handover::Descriptor),
        (Mode::Dynamic, Handover::Name { uid: 0 }),
        (Mode::Static, Handover::Name { uid: 0 }),
    ] {
        let pod = Pod::new();
        pod.inside.sh("ip tuntap add dev ur-other mode tap; ip link set ur-other alias uplink");
        pod.inside.sh("echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding");
        let before = pod.inside.dump();
        let Plan { attachment, .. } = plan(&found(&pod.inside), &owner("web"), mode, handover).unwrap();
        drop(attach_in(&pod.inside, &attachment).unwrap());
        assert_ne!(pod.inside.dump(), before);
        pod.inside.netns().run(|here| detach_unrecorded(here, &owner("other"))).unwrap().unwrap();
        assert_ne!(pod.inside.dump(), before, "somebody else's objects");
        pod.inside.netns().run(|here| detach_unrecorded(here, &owner("web"))).unwrap().unwrap();
        lab::same(&pod.inside.dump(), &before);
    }
}

/// The device goes with its descriptor, so a crash of everybody involved leaves the recorded filter only.
#[test]
fn five_hundred_starts_and_kills_leave_nothing() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let before = pod.inside.dump();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let ns = pod.inside.netns();
    let mut open = 0;
    for cycle in 0..500 {
        let owner = owner(&format!("guest-{cycle}"));
        let started = ns.run(|here| {
            let plan =
                plan(&discover(here).unwrap().unwrap(), &owner, Mode::Dynamic, Handover::Descriptor).unwrap();
            (attach(here, &plan.attachment).unwrap(), plan.attachment)
        });
        let (tap, record) = started.unwrap();
        // Killed from outside, detached before or after it has died, twice or once.
        let monitor = holder(tap);
        if cycle % 3 == 0 {
            ns.run(|here| detach(here, &record)).unwrap().unwrap();
            lab::end(monitor);
        } else {
            lab::end(monitor);
            ns.run(|here| detach(here, &record)).unwrap().unwrap();
        }
        if cycle % 100 == 0 {
            lab::same(&pod.inside.dump(), &before);
            open = if cycle == 0 { descriptors() } else { open };
        }
    }
    lab::same(&pod.inside.dump(), &before);
    // Other tests of this program have some open, too, but not for ever.
    lab::until("no descriptor is left", || descriptors() <= open + 8);
}

/// Real refusals at two different steps, for a namespace that the plan no longer fits.
#[test]
fn a_plan_that_does_not_fit_leaves_nothing_behind() {
    if !lab::ready() {
        return;
    }
    let pod = Pod::new();
    let before = pod.inside.dump();
    let good = planned(&pod.inside, "web", Mode::Dynamic);
    let mut gone = serde_json::to_value(&good).unwrap();
    gone["uplink"]["index"] = 4_000_000.into();
    let gone: Attachment = serde_json::from_value(gone).unwrap();
    let mut too_large = good.clone();
    too_large.mtu = Mtu::try_from(65_535).unwrap();
    let text = |plan: &Attachment| attach_in(&pod.inside, plan).unwrap_err().to_string();
    assert_eq!(text(&gone), format!("cannot redirect the traffic of {} to eth0", good.tap));
    lab::until("the device is gone", || !pod.inside.sh("ip -o link").contains(good.tap.as_str()));
    assert_eq!(
        text(&too_large),
        format!(
            "cannot set the MTU of {} to 65535 and mark it (kernel: mtu greater than device maximum)",
            good.tap
        )
    );
    lab::restored(&pod.inside, &before);
}
