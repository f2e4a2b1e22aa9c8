//! Each kind of volume with each root file system.

use std::path::PathBuf;

use super::*;
use crate::image::FileKind;
use crate::mounts::{MountId, MountTable};
use crate::root::{Binding, Owner, Tmpfs, Use};
use crate::select::{Completeness, MountRootfs, MountedRootfs};
use crate::volumes::{SourceFacts, Undeliverable};

fn guest() -> GuestSupport {
    GuestSupport { disks: Support::Yes, file_systems: vec!["ext4".into()], ..GuestSupport::default() }
}

fn bind(destination: &str, kind: SourceKind, access: Access) -> Volume {
    let facts = SourceFacts { kind, mounted: None, lies_in: MountId(0) };
    let path = Path::new("/host").join(&destination[1..]);
    Volume {
        destination: destination.into(),
        origin: Origin::Bind { path, facts, binding: Binding::default() },
        access,
    }
}

fn tmpfs(destination: &str) -> Volume {
    let tmpfs = Tmpfs { size: None, mode: 0o1777, owner: Owner { uid: 0, gid: 0 } };
    Volume { destination: destination.into(), origin: Origin::Tmpfs(tmpfs), access: Access::ReadWrite }
}

fn disk(destination: &str, also_at: &[&str]) -> Volume {
    // Each a mount of its own.
    let id = destination.bytes().fold(0_u64, |id, byte| id * 256 + u64::from(byte));
    let line = format!("{id} 2 7:3 / /host{destination} rw - ext4 /dev/loop3 rw");
    let mounted = MountedRootfs {
        mount: MountTable::parse(line.as_bytes()).mounts()[0].clone(),
        node: Some("/dev/loop3".into()),
        also_at: also_at.iter().map(PathBuf::from).collect(),
        table: Completeness::Complete,
    };
    let mut volume = bind(destination, SourceKind::Directory(Extent::Large), Access::ReadWrite);
    if let Origin::Bind { facts, .. } = &mut volume.origin {
        facts.lies_in = mounted.mount.id;
        facts.mounted = Some(Box::new(mounted));
    }
    volume
}

fn virtiofs() -> Selection {
    Selection::Virtiofs { program: "/v".into() }
}

fn initrd() -> Selection {
    Selection::Initrd { path: "/initrd".into() }
}

fn block() -> Selection {
    let mount = MountTable::parse(b"1 2 7:9 / /rootfs rw - ext4 /dev/loop9 rw").mounts()[0].clone();
    Selection::BlockDevice { mount: Box::new(mount), node: "/dev/loop9".into() }
}

fn image() -> Selection {
    Selection::BlockImage { path: "/disk".into() }
}

fn outcome(volume: Volume, selection: &Selection) -> Result<&'static str, Why> {
    let plan = plan(&[volume], &Wish::default(), selection, &guest(), Some(Dialect::Appended));
    match (plan.deliveries.first(), plan.undelivered.first()) {
        (Some(delivery), None) => Ok(match delivery {
            Delivery::Share { .. } => "share",
            Delivery::Disk { .. } => "disk",
            Delivery::ImageDisk { .. } => "image disk",
            Delivery::Memory { .. } => "memory",
            Delivery::Directory { .. } => "directory",
            Delivery::Snapshot { medium: Medium::Initrd, .. } => "initrd",
            Delivery::Snapshot { medium: Medium::Rootfs, .. } => "rootfs",
        }),
        (None, Some(undelivered)) => Err(undelivered.why.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_volume_takes_the_best_way_there_is_or_is_named() {
    // R18: directories, tmpfs and secrets were dropped silently, read-only volumes copied as writable.
    use Extent::{Large, Small};
    use SourceKind::{Directory, File};
    let (ro, rw) = (Access::ReadOnly, Access::ReadWrite);
    let file = |extent| bind("/f", File(extent), rw);
    let dir = |extent, access| bind("/d", Directory(extent), access);
    let no_way = || Err(Why::NoWay { disk: None });
    let image_way = || Err(Why::ImageIsRoot { disk: None });
    let large = || Err(Why::TooLarge { disk: None });
    let lost = || Err(Why::WritesWouldBeLost { disk: None });
    let shared = Reason::AlsoMounted("/other".into());
    type Row = (Volume, [Result<&'static str, Why>; 5]);
    //              volume                 virtiofs      initrd        rootfs as disk  disk image    nothing
    let table: [Row; 10] = [
        (file(Small), [Ok("share"), Ok("initrd"), Ok("rootfs"), image_way(), no_way()]),
        (file(Large), [Ok("share"), large(), large(), image_way(), no_way()]),
        (dir(Small, ro), [Ok("share"), Ok("initrd"), Ok("rootfs"), image_way(), no_way()]),
        (dir(Small, rw), [Ok("share"), lost(), lost(), image_way(), no_way()]),
        (dir(Large, ro), [Ok("share"), large(), large(), image_way(), no_way()]),
        (tmpfs("/t"), [Ok("memory"), Ok("directory"), Err(Why::Tmpfs), Err(Why::Tmpfs), Err(Why::Tmpfs)]),
        (tmpfs("/run"), [(); 5].map(|()| Err(Why::Tmpfs))),
        (disk("/v", &[]), [Ok("share"), Ok("disk"), Ok("disk"), Ok("disk"), Ok("disk")]),
        // R4: another pod uses it.
        (
            disk("/v", &["/other"]),
            [
                Ok("share"),
                Err(Why::TooLarge { disk: Some(shared.clone()) }),
                Err(Why::TooLarge { disk: Some(shared.clone()) }),
                Err(Why::ImageIsRoot { disk: Some(shared.clone()) }),
                Err(Why::NoWay { disk: Some(shared) }),
            ],
        ),
        // R11: a fifo blocked for ever.
        (
            bind("/s", SourceKind::Special(FileKind::Fifo), ro),
            [(); 5].map(|()| Err(Why::Special(FileKind::Fifo))),
        ),
    ];
    for (volume, expected) in table {
        let selections = [virtiofs(), initrd(), block(), image(), Selection::Nothing];
        let seen: Vec<_> = selections.iter().map(|s| outcome(volume.clone(), s)).collect();
        assert_eq!(seen, expected, "{volume:?}");
    }
}

#[test]
fn an_initrd_that_takes_no_files_is_closed() {
    let volume = bind("/f", SourceKind::File(Extent::Small), Access::ReadOnly);
    let plan = plan(&[volume], &Wish::default(), &initrd(), &guest(), None);
    assert_eq!(plan.undelivered[0].why, Why::NoWay { disk: None });
}

#[test]
fn what_engines_add_to_every_container_is_no_reason_to_refuse_it() {
    let file = |path: &str| bind(path, SourceKind::File(Extent::Small), Access::ReadWrite);
    let kernel = Volume { destination: "/proc".into(), origin: Origin::Kernel, access: Access::ReadWrite };
    let mut volumes =
        vec![file("/etc/hosts"), file("/dev/termination-log"), tmpfs("/dev/shm"), tmpfs("/run"), kernel];
    let planned = |volumes: &[Volume]| plan(volumes, &Wish::default(), &Selection::Nothing, &guest(), None);
    assert_eq!(planned(&volumes).undelivered.len(), 5);
    assert_eq!(planned(&volumes).check(Undeliverable::Refuse), Ok(()));
    volumes.extend([file("/data/config"), tmpfs("/scratch")]);
    assert_eq!(planned(&volumes).check(Undeliverable::Warn), Ok(()));
    assert_eq!(
        planned(&volumes).check(Undeliverable::Refuse).unwrap_err().to_string(),
        "cannot give the guest all of the container's volumes: \
         /data/config: with this root file system nothing of the host reaches the guest; \
         /scratch: a tmpfs must be mounted by the guest itself"
    );
}

#[test]
fn a_disk_image_for_another_place_is_a_volume_with_every_root_file_system() {
    // R18: it was ignored unless there was no root file system at all.
    let wish = Wish {
        block: Some("/data.img".into()),
        block_mount_point: Some("/data".into()),
        mount_rootfs: MountRootfs::Yes,
        ..Wish::default()
    };
    for selection in [virtiofs(), initrd(), block(), Selection::Nothing] {
        let plan = plan(&[], &wish, &selection, &guest(), None);
        assert!(matches!(&plan.deliveries[..], [Delivery::ImageDisk { .. }]), "{selection:?}");
    }
    let plan = plan(&[], &wish, &virtiofs(), &GuestSupport::default(), None);
    assert!(plan.check(Undeliverable::Refuse).is_err());
}

#[test]
fn the_last_of_several_mounts_at_one_place_counts() {
    let first = bind("/x", SourceKind::Special(FileKind::Socket), Access::ReadOnly);
    let last = bind("/x", SourceKind::File(Extent::Small), Access::ReadOnly);
    let plan = plan(&[first, last], &Wish::default(), &virtiofs(), &guest(), None);
    assert_eq!((plan.deliveries.len(), plan.undelivered.len()), (1, 0));
}

#[test]
fn a_disk_stays_mounted_while_another_volume_comes_from_it() {
    // The guest got the disk, and start could not read the file below its mount point any more.
    let volume = disk("/vol", &[]);
    let Origin::Bind { facts: SourceFacts { lies_in: in_volume, .. }, .. } = volume.origin else { panic!() };
    let below = |destination: &str| {
        let mut volume = bind(destination, SourceKind::File(Extent::Small), Access::ReadOnly);
        if let Origin::Bind { facts, .. } = &mut volume.origin {
            facts.lies_in = in_volume;
        }
        volume
    };
    let planned = |volumes: &[Volume]| {
        let plan = plan(volumes, &Wish::default(), &initrd(), &guest(), Some(Dialect::Appended));
        let disks = plan.deliveries.iter().filter(|d| matches!(d, Delivery::Disk { .. })).count();
        (disks, plan.undelivered.into_iter().map(|u| u.why).collect::<Vec<_>>())
    };
    assert_eq!(planned(std::slice::from_ref(&volume)), (1, vec![]));
    let because = |at: &str| vec![Why::TooLarge { disk: Some(Reason::AlsoVolume(at.into())) }];
    assert_eq!(planned(&[volume.clone(), below("/etc/k")]), (0, because("/etc/k")));
    // One that is hidden by a later mount at its place is nobody's.
    let hidden = bind("/etc/k", SourceKind::File(Extent::Small), Access::ReadOnly);
    assert_eq!(planned(&[volume.clone(), below("/etc/k"), hidden]).0, 1);
    // The same file system twice cannot be two disks.
    let mut again = volume.clone();
    again.destination = "/again".into();
    assert_eq!(planned(&[volume, again]).0, 0);
}

#[test]
fn a_disk_keeps_its_name_whatever_else_is_mounted() {
    // R22: names were numbers in the order of the spec.
    let id = |volumes: &[Volume]| {
        let plan = plan(volumes, &Wish::default(), &initrd(), &guest(), None);
        let ids = plan.deliveries.into_iter().filter_map(|d| match d {
            Delivery::Disk { id, destination, .. } => Some((destination, id)),
            _ => None,
        });
        ids.collect::<std::collections::HashMap<_, _>>()
    };
    let alone = id(&[disk("/a", &[])]);
    let both = id(&[disk("/b", &[]), disk("/a", &[])]);
    let place = Target::new("/a").unwrap();
    assert_eq!(alone[&place], both[&place]);
    assert_eq!(both.len(), 2);
    assert!(alone[&place].as_str().len() <= 20);
}

#[test]
fn shared_volumes_become_binds_below_the_shared_directory() {
    let read_only = bind("/etc/config", SourceKind::Directory(Extent::Large), Access::ReadOnly);
    let plan = plan(&[read_only, disk("/data", &[])], &Wish::default(), &virtiofs(), &guest(), None);
    let share = Target::new("/share").unwrap();
    let binds = plan.binds().into_iter().map(|b| b.below(&share));
    let seen: Vec<_> = binds.map(|b| (b.target.to_string(), b.access)).collect();
    let writable = Use::Share(Access::ReadWrite);
    assert_eq!(seen, [("/share/etc/config".to_owned(), Use::Data), ("/share/data".to_owned(), writable)]);
}
