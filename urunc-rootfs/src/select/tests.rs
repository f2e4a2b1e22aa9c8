//! The decision table, and laws that hold for all facts.

use proptest::prelude::*;

use super::*;
use crate::mounts::{DeviceNumber, MountTable};

/// A Linux guest under QEMU on a host with everything, whose image asks for its rootfs.
fn facts() -> Facts {
    Facts {
        wish: Wish { mount_rootfs: MountRootfs::Yes, ..Wish::default() },
        guest: GuestSupport {
            disks: Support::Yes,
            file_systems: vec!["ext2".into(), "ext4".into()],
            virtiofs: Support::Yes,
            nine_p: Support::Yes,
        },
        monitor: MonitorSupport { virtiofs: Support::Yes, nine_p: Support::Yes },
        virtiofsd: Some("/usr/libexec/virtiofsd".into()),
        container: mounted("7:3 / /rootfs rw - ext4 /dev/loop3 rw", Some("/dev/loop3"), &[]),
    }
}

fn mounted(line: &str, node: Option<&str>, also_at: &[&str]) -> ContainerRootfs {
    ContainerRootfs::Mount(Box::new(MountedRootfs {
        mount: MountTable::parse(format!("1 2 {line}").as_bytes()).mounts()[0].clone(),
        node: node.map(PathBuf::from),
        also_at: also_at.iter().map(PathBuf::from).collect(),
        table: Completeness::Complete,
    }))
}

fn overlay() -> ContainerRootfs {
    mounted("0:62 / /rootfs rw - overlay overlay rw,lowerdir=/a", None, &[])
}

fn way(facts: &Facts) -> Way {
    select(facts).unwrap().selection.way()
}

fn reason(facts: &Facts, way: Way) -> Reason {
    let passed_over = match select(facts) {
        Ok(decision) => decision.passed_over,
        Err(SelectError::NoWay { passed_over }) => passed_over,
        Err(e) => panic!("{e}"),
    };
    passed_over.into_iter().find(|p| p.way == way).unwrap().reason
}

type Change = fn(&mut Facts);

fn disk(facts: &mut Facts, point: &str) {
    facts.wish.block = Some("/data.img".into());
    facts.wish.block_mount_point = Some(point.into());
}

#[test]
fn the_first_possible_way_wins() {
    // The decision table of the reference (3.2) with the stricter rule for block devices; rows in its order.
    let cases: &[(&str, Change, Way)] = &[
        ("1", |f| f.wish.initrd = Some("/initrd".into()), Way::Initrd),
        (
            "1 before 2",
            |f| {
                f.wish.initrd = Some("/initrd".into());
                disk(f, "/");
            },
            Way::Initrd,
        ),
        ("2", |f| disk(f, "/"), Way::BlockImage),
        (
            "2 without mountRootfs",
            |f| {
                disk(f, "/");
                f.wish.mount_rootfs = MountRootfs::No;
            },
            Way::BlockImage,
        ),
        ("2 not for /", |f| disk(f, "/data"), Way::BlockDevice),
        (
            "2 and a guest without disks",
            |f| {
                disk(f, "/");
                f.guest.disks = Support::No;
            },
            Way::Virtiofs,
        ),
        ("3", |_| {}, Way::BlockDevice),
        ("3 on overlay", |f| f.container = overlay(), Way::Virtiofs),
        ("3 in a plain directory", |f| f.container = ContainerRootfs::Directory, Way::Virtiofs),
        ("3 with a file system unknown to the guest", |f| f.guest.file_systems.clear(), Way::Virtiofs),
        (
            "4 without virtiofsd",
            |f| {
                f.container = overlay();
                f.virtiofsd = None;
            },
            Way::NineP,
        ),
        (
            "4, guest cannot",
            |f| {
                f.container = overlay();
                f.guest.virtiofs = Support::No;
            },
            Way::NineP,
        ),
        (
            "4, monitor cannot",
            |f| {
                f.container = overlay();
                f.monitor.virtiofs = Support::No;
            },
            Way::NineP,
        ),
        ("7", |f| f.wish.mount_rootfs = MountRootfs::No, Way::Nothing),
        (
            "7 with a disk for elsewhere",
            |f| {
                disk(f, "/data");
                f.wish.mount_rootfs = MountRootfs::No;
            },
            Way::Nothing,
        ),
    ];
    for (row, change, expected) in cases {
        let mut facts = facts();
        change(&mut facts);
        assert_eq!(way(&facts), *expected, "row {row}");
    }
}

#[test]
fn a_rootfs_that_is_demanded_and_impossible_is_an_error_with_every_reason() {
    // Row 6: Cloud Hypervisor, which has no 9p, on overlayfs without virtiofsd.
    let mut facts = facts();
    facts.container = overlay();
    facts.monitor.nine_p = Support::No;
    facts.virtiofsd = None;
    let error = select(&facts).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot give the guest the root file system that the image asks for: \
         container rootfs as a block device: the guest does not read the file system overlay; \
         container rootfs over virtiofs: virtiofsd is not installed where the configuration says; \
         container rootfs over 9p: the monitor cannot offer it"
    );
    let SelectError::NoWay { passed_over } = error else { panic!() };
    assert_eq!(passed_over.len(), WAYS.len());
}

#[test]
fn a_disk_for_the_root_is_a_demand_too() {
    // It fell through to no root file system at all, in silence.
    let mut facts = facts();
    facts.wish.mount_rootfs = MountRootfs::No;
    disk(&mut facts, "/");
    facts.guest.disks = Support::No;
    assert!(matches!(select(&facts), Err(SelectError::NoWay { .. })));
    assert_eq!(reason(&facts, Way::BlockImage), Reason::GuestWithoutDisks);
}

#[test]
fn a_disk_without_a_place_is_refused() {
    let mut facts = facts();
    facts.wish.block = Some("/data.img".into());
    assert!(matches!(select(&facts), Err(SelectError::NoMountPoint { .. })));
}

#[test]
fn a_bind_of_the_hosts_file_system_is_never_given_away() {
    // R3: the host's own disk was unmounted and attached to the guest, writable.
    let cases: [(ContainerRootfs, Reason); 6] = [
        (mounted("8:1 / / rw - ext4 /dev/sda1 rw", Some("/dev/sda1"), &[]), Reason::HostRoot),
        (
            mounted("8:1 /srv/images/one /rootfs rw - ext4 /dev/sda1 rw", Some("/dev/sda1"), &["/"]),
            Reason::PartOfFileSystem("/srv/images/one".into()),
        ),
        // Another name for the same device does not help.
        (
            mounted("8:1 / /rootfs rw - ext4 /dev/root rw", Some("/dev/sda1"), &["/"]),
            Reason::AlsoMounted("/".into()),
        ),
        (
            mounted("0:62 / /rootfs rw - ext4 /not/a/device rw", None, &[]),
            Reason::NotABlockDevice(DeviceNumber { major: 0, minor: 62 }),
        ),
        (
            mounted("7:1 / /rootfs rw - xfs /dev/loop1 rw", Some("/dev/loop1"), &[]),
            Reason::FileSystem("xfs".into()),
        ),
        (
            match mounted("7:1 / /rootfs rw - ext4 /dev/loop1 rw", Some("/dev/loop1"), &[]) {
                ContainerRootfs::Mount(rootfs) => ContainerRootfs::Mount(Box::new(MountedRootfs {
                    table: Completeness::Incomplete,
                    ..*rootfs
                })),
                other => other,
            },
            Reason::TableUnclear,
        ),
    ];
    for (container, expected) in cases {
        let facts = Facts { container, ..facts() };
        assert_eq!(way(&facts), Way::Virtiofs, "{expected:?}");
        assert_eq!(reason(&facts, Way::BlockDevice), expected);
    }
}

#[test]
fn truth_values_are_spelt_as_ever() {
    // Reference 12: absent, "true", "0", "junk".
    assert_eq!(MountRootfs::default(), MountRootfs::No);
    for (text, expected) in [("true", MountRootfs::Yes), ("T", MountRootfs::Yes), ("0", MountRootfs::No)] {
        assert_eq!(text.parse(), Ok(expected));
    }
    for junk in ["junk", "", "yes", "tRUE"] {
        assert!(junk.parse::<MountRootfs>().is_err(), "{junk:?}");
    }
}

fn support() -> impl Strategy<Value = Support> {
    prop_oneof![Just(Support::No), Just(Support::Yes)]
}

prop_compose! {
    fn any_facts()(
        initrd in any::<bool>(),
        block in prop_oneof![Just(None), Just(Some("/")), Just(Some("/data"))],
        wish in any::<bool>(),
        guest in (support(), any::<bool>(), support(), support()),
        monitor in (support(), support()),
        virtiofsd in any::<bool>(),
        container in prop_oneof![
            Just(ContainerRootfs::Directory),
            Just(overlay()),
            Just(mounted("7:3 / /rootfs rw - ext4 /dev/loop3 rw", Some("/dev/loop3"), &[])),
            Just(mounted("7:3 / /rootfs rw - ext4 /dev/loop3 rw", Some("/dev/loop3"), &["/x"])),
            Just(mounted("7:3 /x /rootfs rw - ext4 /dev/loop3 rw", Some("/dev/loop3"), &[])),
        ],
    ) -> Facts {
        Facts {
            wish: Wish {
                initrd: initrd.then(|| "/initrd".into()),
                block: block.map(|_| "/disk".into()),
                block_mount_point: block.map(PathBuf::from),
                mount_rootfs: if wish { MountRootfs::Yes } else { MountRootfs::No },
            },
            guest: GuestSupport {
                disks: guest.0,
                file_systems: if guest.1 { vec!["ext4".into()] } else { vec![] },
                virtiofs: guest.2,
                nine_p: guest.3,
            },
            monitor: MonitorSupport { virtiofs: monitor.0, nine_p: monitor.1 },
            virtiofsd: virtiofsd.then(|| "/v".into()),
            container,
        }
    }
}

proptest! {
    #[test]
    fn every_way_is_either_taken_or_has_its_reason(facts in any_facts()) {
        let (taken, passed_over) = match select(&facts) {
            Ok(d) => (Some(d.selection.way()), d.passed_over),
            Err(SelectError::NoWay { passed_over }) => (None, passed_over),
            Err(e) => panic!("{e}"),
        };
        for (way, _) in WAYS {
            let reasons: Vec<_> = passed_over.iter().filter(|p| p.way == way).collect();
            prop_assert_eq!(reasons.len(), usize::from(taken != Some(way)));
            for passed in reasons {
                let later = taken.is_some_and(|t| {
                    WAYS.iter().position(|w| w.0 == t) < WAYS.iter().position(|w| w.0 == way)
                });
                prop_assert_eq!(matches!(passed.reason, Reason::Earlier(_)), later);
            }
        }
    }

    #[test]
    fn what_was_asked_for_is_never_silently_dropped(facts in any_facts()) {
        let asked = facts.wish.mount_rootfs == MountRootfs::Yes
            || facts.wish.initrd.is_some()
            || facts.wish.disk().is_some_and(|(_, p)| p == Path::new("/"));
        if let Ok(decision) = select(&facts) {
            prop_assert_eq!(decision.selection == Selection::Nothing, !asked);
        }
    }
}
