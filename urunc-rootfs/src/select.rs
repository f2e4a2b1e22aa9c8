//! Which root file system a guest gets, decided purely, and why it is not another one.
//!
//! The first [`Way`] that is possible wins. Every other way gets a [`Reason`], for `urunc check` and debug logs.
//! [`ContainerRootfs::probe`] looks at the host; carrying the choice out is the caller's work.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mounts::{DeviceNumber, Mount};

/// What is known about the image's wishes, the guest, the monitor and the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What the image or the spec asks for.
    pub wish: Wish,
    /// What the guest's kernel can use.
    pub guest: GuestSupport,
    /// What the monitor can offer.
    pub monitor: MonitorSupport,
    /// virtiofsd on this host, if its program exists.
    pub virtiofsd: Option<PathBuf>,
    /// The container's root file system.
    pub container: ContainerRootfs,
}

/// What the annotations ask for; empty values count as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// An initrd, as a path in the image.
    pub initrd: Option<PathBuf>,
    /// A disk image, as a path in the image.
    pub block: Option<PathBuf>,
    /// Where the guest mounts that disk.
    pub block_mount_point: Option<PathBuf>,
    /// Whether the container's root file system is to be the guest's.
    pub mount_rootfs: MountRootfs,
}

/// Whether the container's root file system is to be the guest's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountRootfs {
    /// The guest does without.
    #[default]
    No,
    /// It must get it.
    Yes,
}

/// What a guest can use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSupport {
    /// Whether it has a driver for disks.
    pub disks: Support,
    /// File systems that it can read from a disk, such as `ext4`.
    pub file_systems: Vec<String>,
    /// Whether it can mount virtiofs.
    pub virtiofs: Support,
    /// Whether it can mount 9p.
    pub nine_p: Support,
}

/// What a monitor can offer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorSupport {
    /// Whether it speaks to virtiofsd.
    pub virtiofs: Support,
    /// Whether it serves a directory over 9p.
    pub nine_p: Support,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// It cannot.
    #[default]
    No,
    /// It can.
    Yes,
}

/// What the directory with the container's root file system is on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerRootfs {
    /// A directory in some file system.
    Directory,
    /// The root of a mount.
    Mount(Box<MountedRootfs>),
}

/// A container's root file system that is mounted by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedRootfs {
    /// The mount.
    pub mount: Mount,
    /// Its block device's node on the host, if there is one with the mount's device number.
    pub node: Option<PathBuf>,
    /// Where else the same file system is mounted, as far as this namespace shows.
    pub also_at: Vec<PathBuf>,
    /// Whether every line of the mount table was understood.
    pub table: Completeness,
}

/// Whether the absence of something may be concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Everything was seen.
    Complete,
    /// Something was not understood.
    Incomplete,
}

/// A way for a guest to get a root file system, in order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// An initrd from the image.
    Initrd,
    /// A disk image from the image.
    BlockImage,
    /// The container's root file system as a block device.
    BlockDevice,
    /// The container's root file system over virtiofs.
    Virtiofs,
    /// The container's root file system over 9p.
    NineP,
    /// None at all.
    Nothing,
}

/// The root file system that the guest gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// An initrd.
    Initrd {
        /// Its path in the image.
        path: PathBuf,
    },
    /// A disk image.
    BlockImage {
        /// Its path in the image.
        path: PathBuf,
    },
    /// The container's root file system as a block device; it must be unmounted on the host.
    BlockDevice {
        /// The mount that goes.
        mount: Box<Mount>,
        /// The device's node on the host.
        node: PathBuf,
    },
    /// The container's root file system, shared by virtiofsd.
    Virtiofs {
        /// The program that shares it.
        program: PathBuf,
    },
    /// The container's root file system, shared by the monitor.
    NineP,
    /// None.
    Nothing,
}

/// A selection and why it is not another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What the guest gets.
    pub selection: Selection,
    /// Every other way, in order, with the reason why it was not taken.
    pub passed_over: Vec<PassedOver>,
}

/// A way that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The way.
    pub way: Way,
    /// Why not.
    pub reason: Reason,
}

/// Why a way was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// An earlier way was possible.
    Earlier(Way),
    /// The image does not ask for it.
    NotAsked,
    /// The disk image is for another place in the guest.
    NotTheRoot(PathBuf),
    /// The guest has no driver for disks.
    GuestWithoutDisks,
    /// The guest cannot mount this.
    GuestCannot,
    /// The monitor cannot offer this.
    MonitorCannot,
    /// virtiofsd is not installed.
    NoVirtiofsd,
    /// The container's root file system is no mount of its own.
    NotMounted,
    /// It is the root of the host itself.
    HostRoot,
    /// Only part of a file system is mounted there.
    PartOfFileSystem(PathBuf),
    /// The guest does not read this type of file system.
    FileSystem(String),
    /// What is mounted there is not a block device.
    NotABlockDevice(DeviceNumber),
    /// The same file system is mounted elsewhere, too.
    AlsoMounted(PathBuf),
    /// Whether it is mounted elsewhere cannot be told.
    TableUnclear,
}

/// Why no decision is possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// The image demands something that is not possible here.
    #[error("cannot give the guest the root file system that the image asks for: {}", Listed(passed_over))]
    NoWay {
        /// Every way, with the reason why it is not possible.
        passed_over: Vec<PassedOver>,
    },
    /// A disk image that nobody knows where to mount.
    #[error(
        "cannot use the disk image {path:?}: the annotation `com.urunc.unikernel.blkMntPoint` is missing"
    )]
    NoMountPoint {
        /// The disk image.
        path: PathBuf,
    },
}

/// The value of `mountRootfs` is not a truth value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot understand {value:?} as a truth value: write `true` or `false`")]
pub struct NotATruthValue {
    value: String,
}

/// Decides which root file system the guest gets.
///
/// # Errors
/// [`SelectError::NoWay`] if the image asks for a root file system and no way leads to one;
/// [`SelectError::NoMountPoint`] if it names a disk but not its place.
pub fn select(facts: &Facts) -> Result<Decision, SelectError> {
    if let (Some(path), None) = (&facts.wish.block, &facts.wish.block_mount_point) {
        return Err(SelectError::NoMountPoint { path: path.clone() });
    }
    let mut selected: Option<(Way, Selection)> = None;
    let mut passed_over = Vec::new();
    for (way, attempt) in WAYS {
        let attempt = match &selected {
            Some((earlier, _)) => Err(Reason::Earlier(*earlier)),
            None => attempt(facts),
        };
        match attempt {
            Ok(selection) => selected = Some((way, selection)),
            Err(reason) => passed_over.push(PassedOver { way, reason }),
        }
    }
    match selected {
        Some((_, selection)) => Ok(Decision { selection, passed_over }),
        None => Err(SelectError::NoWay { passed_over }),
    }
}

type Attempt = fn(&Facts) -> Result<Selection, Reason>;

const WAYS: [(Way, Attempt); 6] = [
    (Way::Initrd, initrd),
    (Way::BlockImage, block_image),
    (Way::BlockDevice, block_device),
    (Way::Virtiofs, virtiofs),
    (Way::NineP, nine_p),
    (Way::Nothing, nothing),
];

fn initrd(facts: &Facts) -> Result<Selection, Reason> {
    let path = facts.wish.initrd.clone().ok_or(Reason::NotAsked)?;
    Ok(Selection::Initrd { path })
}

fn block_image(facts: &Facts) -> Result<Selection, Reason> {
    let (path, point) = facts.wish.disk().ok_or(Reason::NotAsked)?;
    if point != Path::new("/") {
        return Err(Reason::NotTheRoot(point.to_path_buf()));
    }
    facts.guest.disks.or(Reason::GuestWithoutDisks)?;
    Ok(Selection::BlockImage { path: path.to_path_buf() })
}

fn block_device(facts: &Facts) -> Result<Selection, Reason> {
    facts.wish.wants_container_rootfs()?;
    let ContainerRootfs::Mount(rootfs) = &facts.container else {
        facts.guest.disks.or(Reason::GuestWithoutDisks)?;
        return Err(Reason::NotMounted);
    };
    let node = as_disk(rootfs, &facts.guest)?;
    Ok(Selection::BlockDevice { mount: Box::new(rootfs.mount.clone()), node })
}

/// The node of the device behind a mount, if the guest can have it as a disk and nobody else is seen to use it.
pub(crate) fn as_disk(rootfs: &MountedRootfs, guest: &GuestSupport) -> Result<PathBuf, Reason> {
    let MountedRootfs { mount, node, also_at, table } = rootfs;
    guest.disks.or(Reason::GuestWithoutDisks)?;
    if mount.point == Path::new("/") {
        return Err(Reason::HostRoot);
    }
    if mount.root != Path::new("/") {
        return Err(Reason::PartOfFileSystem(mount.root.clone()));
    }
    if !guest.file_systems.contains(&mount.fs_type) {
        return Err(Reason::FileSystem(mount.fs_type.clone()));
    }
    let node = node.clone().ok_or(Reason::NotABlockDevice(mount.device))?;
    match (also_at.first(), table) {
        (Some(other), _) => Err(Reason::AlsoMounted(other.clone())),
        (None, Completeness::Incomplete) => Err(Reason::TableUnclear),
        (None, Completeness::Complete) => Ok(node),
    }
}

fn virtiofs(facts: &Facts) -> Result<Selection, Reason> {
    facts.wish.wants_container_rootfs()?;
    facts.guest.virtiofs.or(Reason::GuestCannot)?;
    facts.monitor.virtiofs.or(Reason::MonitorCannot)?;
    let program = facts.virtiofsd.clone().ok_or(Reason::NoVirtiofsd)?;
    Ok(Selection::Virtiofs { program })
}

fn nine_p(facts: &Facts) -> Result<Selection, Reason> {
    facts.wish.wants_container_rootfs()?;
    facts.guest.nine_p.or(Reason::GuestCannot)?;
    facts.monitor.nine_p.or(Reason::MonitorCannot)?;
    Ok(Selection::NineP)
}

/// Doing without is possible only if nothing was asked for.
fn nothing(facts: &Facts) -> Result<Selection, Reason> {
    let disk_for_the_root = facts.wish.disk().is_some_and(|(_, point)| point == Path::new("/"));
    if facts.wish.mount_rootfs == MountRootfs::Yes || disk_for_the_root {
        Err(Reason::NotAsked)
    } else {
        Ok(Selection::Nothing)
    }
}

impl Wish {
    /// The disk image and its place in the guest.
    #[must_use]
    pub fn disk(&self) -> Option<(&Path, &Path)> {
        Some((self.block.as_deref()?, self.block_mount_point.as_deref()?))
    }

    fn wants_container_rootfs(&self) -> Result<(), Reason> {
        if self.mount_rootfs == MountRootfs::Yes { Ok(()) } else { Err(Reason::NotAsked) }
    }
}

impl Support {
    fn or(self, reason: Reason) -> Result<(), Reason> {
        if self == Self::Yes { Ok(()) } else { Err(reason) }
    }
}

impl FromStr for MountRootfs {
    type Err = NotATruthValue;

    /// The spellings that the annotation has always had (those of Go's `strconv.ParseBool`).
    fn from_str(value: &str) -> Result<Self, NotATruthValue> {
        match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self::Yes),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self::No),
            _ => Err(NotATruthValue { value: value.to_owned() }),
        }
    }
}

impl Selection {
    /// The way by which it came about.
    #[must_use]
    pub fn way(&self) -> Way {
        match self {
            Self::Initrd { .. } => Way::Initrd,
            Self::BlockImage { .. } => Way::BlockImage,
            Self::BlockDevice { .. } => Way::BlockDevice,
            Self::Virtiofs { .. } => Way::Virtiofs,
            Self::NineP => Way::NineP,
            Self::Nothing => Way::Nothing,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initrd => "initrd from the image",
            Self::BlockImage => "disk image from the image",
            Self::BlockDevice => "container rootfs as a block device",
            Self::Virtiofs => "container rootfs over virtiofs",
            Self::NineP => "container rootfs over 9p",
            Self::Nothing => "no root file system",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earlier(way) => write!(f, "not needed: {way} comes first"),
            Self::NotAsked => f.write_str("not what the image asks for"),
            Self::NotTheRoot(point) => {
                write!(f, "the disk is for {} in the guest, not for /", point.display())
            }
            Self::GuestWithoutDisks => f.write_str("the guest has no driver for disks"),
            Self::GuestCannot => f.write_str("the guest cannot mount it"),
            Self::MonitorCannot => f.write_str("the monitor cannot offer it"),
            Self::NoVirtiofsd => f.write_str("virtiofsd is not installed where the configuration says"),
            Self::NotMounted => f.write_str("it is a directory, not a mount of its own"),
            Self::HostRoot => f.write_str("it is the root of the host itself"),
            Self::PartOfFileSystem(root) => {
                write!(f, "only {} of a file system is mounted there", root.display())
            }
            Self::FileSystem(fs) => write!(f, "the guest does not read the file system {fs}"),
            Self::NotABlockDevice(device) => write!(f, "its device {device} is no block device of this host"),
            Self::AlsoMounted(at) => write!(f, "the same file system is also mounted at {}", at.display()),
            Self::TableUnclear => f.write_str("the mount table has lines that could not be understood"),
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.way, self.reason)
    }
}

struct Listed<'a>(&'a [PassedOver]);

impl fmt::Display for Listed<'_> {
    /// Only the ways that were asked for: the others would hide the one that can be mended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.0.iter().filter(|p| p.reason != Reason::NotAsked);
        for (n, passed) in told.enumerate() {
            write!(f, "{}{passed}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mounts::MountTable;

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
        for (text, expected) in [("true", MountRootfs::Yes), ("T", MountRootfs::Yes), ("0", MountRootfs::No)]
        {
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
}
