//! Which way each volume takes to the guest: pure.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::image::FileKind;
use crate::initrd::Dialect;
use crate::mounts::Mount;
use crate::root::{HostBind, Source, Target, Use};
use crate::select::{GuestSupport, MountedRootfs, Reason, Selection, Support, Wish, as_disk};

/// One of the container's mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its path in the guest.
    pub destination: PathBuf,
    /// What it is.
    pub origin: Origin,
    /// What the guest may do with it.
    pub access: Access,
}

/// Where a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A file or directory of the host.
    Bind {
        /// Its path.
        path: PathBuf,
        /// What is there.
        facts: SourceFacts,
    },
    /// An empty directory in memory.
    Tmpfs,
    /// Something that every guest kernel has by itself, such as `proc`.
    Kernel,
}

/// What is known about the source of a bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// What it is.
    pub kind: SourceKind,
    /// The mount whose root it is, if it is one.
    pub mounted: Option<Box<MountedRootfs>>,
}

/// What the source of a bind mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A regular file.
    File(Extent),
    /// A directory.
    Directory(Extent),
    /// Anything else.
    Special(FileKind),
}

/// How much there is in a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Little enough to be copied: within the [`Limits`](super::Limits).
    Small,
    /// More than that, or things that cannot be copied.
    Large,
}

/// What happens to all volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePlan {
    /// The ways of those that reach the guest.
    pub deliveries: Vec<Delivery>,
    /// Those that do not.
    pub undelivered: Vec<Undelivered>,
}

/// How one volume reaches the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Bound into the directory that is shared with the guest: both see every change.
    Share {
        /// Its path on the host.
        source: PathBuf,
        /// Its path in the guest.
        destination: Target,
        /// What the guest may do with it.
        access: Access,
    },
    /// A disk of its own; the host has it unmounted meanwhile.
    Disk {
        /// Its name, the same at every start.
        id: DiskId,
        /// The mount that goes.
        mount: Box<Mount>,
        /// The device's node on the host.
        node: PathBuf,
        /// Where the guest mounts it.
        destination: Target,
        /// What the guest may do with it.
        access: Access,
    },
    /// A disk image from the container's image.
    ImageDisk {
        /// Its name, the same at every start.
        id: DiskId,
        /// Its path in the image.
        path: PathBuf,
        /// Where the guest mounts it.
        destination: Target,
    },
    /// A copy of what is there when the container starts; later changes are not seen.
    Snapshot {
        /// Its path on the host.
        source: PathBuf,
        /// Its path in the guest.
        destination: Target,
        /// Where the copy goes.
        medium: Medium,
    },
}

/// What a snapshot is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// The initrd that is composed at start.
    Initrd,
    /// The container's root file system, before it is unmounted.
    Rootfs,
}

/// The name of a disk; at most 20 bytes, as much as virtio-blk's serial number holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskId(String);

/// A volume that does not reach the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Its path in the guest.
    pub destination: PathBuf,
    /// Why not.
    pub why: Why,
    /// Whether anybody minds.
    pub weight: Weight,
}

/// Whether anybody minds that a volume is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The user asked for it.
    Asked,
    /// Container engines add it to every container, wanted or not.
    Customary,
}

/// Why a volume does not reach the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// The guest has its own.
    GuestsOwn,
    /// There is no way into this guest for files, and as a disk it was refused.
    NoWay {
        /// Why it cannot be a disk, if it is one.
        disk: Option<Reason>,
    },
    /// It could only be copied, and is too large for that.
    TooLarge {
        /// Why it cannot be a disk, if it is one.
        disk: Option<Reason>,
    },
    /// It is a writable directory and could only be copied: what the guest writes would be lost.
    WritesWouldBeLost {
        /// Why it cannot be a disk, if it is one.
        disk: Option<Reason>,
    },
    /// It is neither a file nor a directory.
    Special(FileKind),
    /// An empty directory in memory, which only the guest itself could make.
    Tmpfs,
    /// The destination is not an absolute, plain path.
    Destination,
}

/// What to do about volumes that somebody asked for and that do not reach the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undeliverable {
    /// Refuse the container.
    Refuse,
    /// Warn.
    Warn,
}

/// Volumes that somebody asked for do not reach the guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot give the guest all of the container's volumes: {}", Listed(undelivered))]
pub struct VolumesError {
    /// Those volumes.
    pub undelivered: Vec<Undelivered>,
}

/// Decides how each of `volumes`, in the order of the spec, reaches a guest with this root file system. The disk
/// image of the `wish` that is not for the guest's root is one of them. `initrd` says whether files can be added to
/// the guest's initrd.
#[must_use]
pub fn plan(
    volumes: &[Volume],
    wish: &Wish,
    selection: &Selection,
    guest: &GuestSupport,
    initrd: Option<Dialect>,
) -> VolumePlan {
    let mut plan = VolumePlan::default();
    let door = match selection {
        Selection::Virtiofs { .. } | Selection::NineP => Door::Share,
        Selection::Initrd { .. } if initrd.is_some() => Door::Copy(Medium::Initrd),
        Selection::BlockDevice { .. } => Door::Copy(Medium::Rootfs),
        Selection::Initrd { .. } | Selection::BlockImage { .. } | Selection::Nothing => Door::Closed,
    };
    if let Some((path, point)) = wish.disk().filter(|(_, point)| *point != Path::new("/")) {
        match (Target::new(point), guest.disks) {
            (Ok(destination), Support::Yes) => {
                let id = DiskId::of(&destination);
                plan.deliveries.push(Delivery::ImageDisk { id, path: path.to_path_buf(), destination });
            }
            (Ok(_), Support::No) => {
                plan.leave_out(point, Why::NoWay { disk: Some(Reason::GuestWithoutDisks) }, Weight::Asked);
            }
            (Err(_), _) => plan.leave_out(point, Why::Destination, Weight::Asked),
        }
    }
    for (n, volume) in volumes.iter().enumerate() {
        // A later mount at the same place hides an earlier one.
        if volumes[n + 1..].iter().any(|later| later.destination == volume.destination) {
            continue;
        }
        match deliver(volume, door, guest) {
            Ok(delivery) => plan.deliveries.push(delivery),
            Err(why) => plan.leave_out(&volume.destination, why, weight(volume)),
        }
    }
    plan
}

/// How files get into a guest.
#[derive(Debug, Clone, Copy)]
enum Door {
    Share,
    Copy(Medium),
    Closed,
}

fn deliver(volume: &Volume, door: Door, guest: &GuestSupport) -> Result<Delivery, Why> {
    let destination = Target::new(&volume.destination).map_err(|_| Why::Destination)?;
    let access = volume.access;
    let (source, facts) = match &volume.origin {
        Origin::Bind { path, facts } => (path.clone(), facts),
        Origin::Kernel => return Err(Why::GuestsOwn),
        Origin::Tmpfs => return Err(Why::Tmpfs),
    };
    if let SourceKind::Special(kind) = facts.kind {
        return Err(Why::Special(kind));
    }
    if let Door::Share = door {
        return Ok(Delivery::Share { source, destination, access });
    }
    let disk = match &facts.mounted {
        None => None,
        Some(mounted) => match as_disk(mounted, guest) {
            Ok(node) => {
                let (id, mount) = (DiskId::of(&destination), Box::new(mounted.mount.clone()));
                return Ok(Delivery::Disk { id, mount, node, destination, access });
            }
            Err(reason) => Some(reason),
        },
    };
    let Door::Copy(medium) = door else { return Err(Why::NoWay { disk }) };
    match (facts.kind, access) {
        (SourceKind::File(Extent::Large) | SourceKind::Directory(Extent::Large), _) => {
            Err(Why::TooLarge { disk })
        }
        (SourceKind::Directory(Extent::Small), Access::ReadWrite) => Err(Why::WritesWouldBeLost { disk }),
        _ => Ok(Delivery::Snapshot { source, destination, medium }),
    }
}

/// Files and directories that Docker, Podman, containerd's CRI and kubelet mount into every container unasked.
const CUSTOMARY_BINDS: [&str; 6] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/run/.containerenv",
    "/run/secrets",
    "/var/run/secrets/kubernetes.io/serviceaccount",
];

/// Empty directories that they mount into every container, besides those below `/dev`.
const CUSTOMARY_TMPFS: [&str; 1] = ["/run"];

fn weight(volume: &Volume) -> Weight {
    let one_of = |places: &[&str]| places.iter().any(|place| volume.destination == Path::new(place));
    let customary = volume.destination.starts_with("/dev")
        || match volume.origin {
            Origin::Kernel => true,
            Origin::Tmpfs => one_of(&CUSTOMARY_TMPFS),
            Origin::Bind { .. } => one_of(&CUSTOMARY_BINDS),
        };
    if customary { Weight::Customary } else { Weight::Asked }
}

impl VolumePlan {
    /// What the caller must refuse under `policy`. The rest of [`VolumePlan::undelivered`] deserves a warning, or,
    /// if customary, a line in the debug log.
    ///
    /// # Errors
    /// [`VolumesError`] names every volume that was asked for and does not reach the guest.
    pub fn check(&self, policy: Undeliverable) -> Result<(), VolumesError> {
        let asked = self.undelivered.iter().filter(|u| u.weight == Weight::Asked);
        let undelivered: Vec<_> = asked.cloned().collect();
        match policy {
            Undeliverable::Refuse if !undelivered.is_empty() => Err(VolumesError { undelivered }),
            _ => Ok(()),
        }
    }

    /// The binds for everything shared, each at its path in the guest; see [`HostBind::below`].
    #[must_use]
    pub fn binds(&self) -> Vec<HostBind> {
        let bind = |delivery: &Delivery| match delivery {
            Delivery::Share { source, destination, access } => {
                let access = match access {
                    Access::ReadOnly => Use::Data,
                    Access::ReadWrite => Use::Share(Access::ReadWrite),
                };
                Some(HostBind { source: Source::Host(source.clone()), target: destination.clone(), access })
            }
            _ => None,
        };
        self.deliveries.iter().filter_map(bind).collect()
    }

    fn leave_out(&mut self, destination: &Path, why: Why, weight: Weight) {
        self.undelivered.push(Undelivered { destination: destination.to_path_buf(), why, weight });
    }
}

impl DiskId {
    /// A name for the disk at `destination` that does not depend on other disks.
    fn of(destination: &Target) -> Self {
        // FNV-1a, 64 bits: no secret, only short and stable.
        let bytes = destination.as_path().as_os_str().as_encoded_bytes();
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(format!("vol{hash:016x}"))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.destination.display(), self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = match self {
            Self::NoWay { disk } | Self::TooLarge { disk } | Self::WritesWouldBeLost { disk } => {
                disk.as_ref()
            }
            _ => None,
        };
        match self {
            Self::GuestsOwn => f.write_str("the guest has its own")?,
            Self::NoWay { .. } => {
                f.write_str("with this root file system nothing of the host reaches the guest")?
            }
            Self::TooLarge { .. } => f.write_str("it is too large to be copied into the guest")?,
            Self::WritesWouldBeLost { .. } => {
                f.write_str("the guest would get a copy and lose what it writes; mount it read-only")?;
            }
            Self::Special(kind) => write!(f, "it is {kind}, neither a file nor a directory")?,
            Self::Tmpfs => f.write_str("a tmpfs must be mounted by the guest itself")?,
            Self::Destination => {
                f.write_str("its destination is not an absolute path without `.` and `..`")?
            }
        }
        disk.map_or(Ok(()), |reason| write!(f, " (as a disk: {reason})"))
    }
}

struct Listed<'a>(&'a [Undelivered]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, undelivered) in self.0.iter().enumerate() {
            write!(f, "{}{undelivered}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::MountTable;
    use crate::select::{Completeness, MountRootfs};

    fn guest() -> GuestSupport {
        GuestSupport { disks: Support::Yes, file_systems: vec!["ext4".into()], ..GuestSupport::default() }
    }

    fn bind(destination: &str, kind: SourceKind, access: Access) -> Volume {
        let facts = SourceFacts { kind, mounted: None };
        let path = Path::new("/host").join(&destination[1..]);
        Volume { destination: destination.into(), origin: Origin::Bind { path, facts }, access }
    }

    fn disk(destination: &str, also_at: &[&str]) -> Volume {
        let line = format!("1 2 7:3 / /host{destination} rw - ext4 /dev/loop3 rw");
        let mounted = MountedRootfs {
            mount: MountTable::parse(line.as_bytes()).mounts()[0].clone(),
            node: Some("/dev/loop3".into()),
            also_at: also_at.iter().map(PathBuf::from).collect(),
            table: Completeness::Complete,
        };
        let mut volume = bind(destination, SourceKind::Directory(Extent::Large), Access::ReadWrite);
        if let Origin::Bind { facts, .. } = &mut volume.origin {
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
        let large = || Err(Why::TooLarge { disk: None });
        let lost = || Err(Why::WritesWouldBeLost { disk: None });
        let shared = Reason::AlsoMounted("/other".into());
        type Row = (Volume, [Result<&'static str, Why>; 5]);
        //              volume                 virtiofs      initrd        rootfs as disk  disk image    nothing
        let table: [Row; 8] = [
            (file(Small), [Ok("share"), Ok("initrd"), Ok("rootfs"), no_way(), no_way()]),
            (file(Large), [Ok("share"), large(), large(), no_way(), no_way()]),
            (dir(Small, ro), [Ok("share"), Ok("initrd"), Ok("rootfs"), no_way(), no_way()]),
            (dir(Small, rw), [Ok("share"), lost(), lost(), no_way(), no_way()]),
            (dir(Large, ro), [Ok("share"), large(), large(), no_way(), no_way()]),
            (disk("/v", &[]), [Ok("share"), Ok("disk"), Ok("disk"), Ok("disk"), Ok("disk")]),
            // R4: another pod uses it.
            (
                disk("/v", &["/other"]),
                [
                    Ok("share"),
                    Err(Why::TooLarge { disk: Some(shared.clone()) }),
                    Err(Why::TooLarge { disk: Some(shared.clone()) }),
                    Err(Why::NoWay { disk: Some(shared.clone()) }),
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
        let tmpfs = |path: &str| Volume {
            destination: path.into(),
            origin: Origin::Tmpfs,
            access: Access::ReadWrite,
        };
        let kernel =
            Volume { destination: "/proc".into(), origin: Origin::Kernel, access: Access::ReadWrite };
        let mut volumes =
            vec![file("/etc/hosts"), file("/dev/termination-log"), tmpfs("/dev/shm"), tmpfs("/run"), kernel];
        let planned =
            |volumes: &[Volume]| plan(volumes, &Wish::default(), &Selection::Nothing, &guest(), None);
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
}
