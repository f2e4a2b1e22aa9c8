//! Which way each volume takes to the guest: pure.

use std::path::Path;

use super::facts::{Extent, Origin, SourceKind, Volume};
use super::outcome::{Delivery, DiskId, Medium, VolumePlan, Weight, Why};
use crate::access::Access;
use crate::initrd::Dialect;
use crate::root::Target;
use crate::select::{GuestSupport, Reason, Selection, Support, Wish, as_disk};

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
        Selection::BlockImage { .. } => Door::Image,
        Selection::Initrd { .. } | Selection::Nothing => Door::Closed,
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
        if hidden(volumes, n) {
            continue;
        }
        match deliver(volume, neighbour(volumes, n), door, guest) {
            Ok(delivery) => plan.deliveries.push(delivery),
            Err(why) => plan.leave_out(&volume.destination, why, weight(volume)),
        }
    }
    plan
}

/// Whether a later mount at the same place hides the `n`th.
fn hidden(volumes: &[Volume], n: usize) -> bool {
    volumes[n + 1..].iter().any(|later| later.destination == volumes[n].destination)
}

/// Another volume whose source lies in the mount that is the `n`th's: it could not be read once that is unmounted, or what
/// lies under the mount point would be read instead.
fn neighbour(volumes: &[Volume], n: usize) -> Option<&Volume> {
    let bind = |volume: &Volume| match &volume.origin {
        Origin::Bind { facts, .. } => Some(facts.clone()),
        Origin::Tmpfs(_) | Origin::Kernel => None,
    };
    let mount = bind(&volumes[n])?.mounted?.mount.id;
    let others = volumes.iter().enumerate().filter(|(other, _)| *other != n && !hidden(volumes, *other));
    others.map(|(_, volume)| volume).find(|volume| bind(volume).is_some_and(|facts| facts.lies_in == mount))
}

/// How files get into a guest.
#[derive(Debug, Clone, Copy)]
enum Door {
    Share,
    Copy(Medium),
    /// None: the host would have to mount, and change, a file system that came with the image.
    Image,
    Closed,
}

fn deliver(
    volume: &Volume,
    neighbour: Option<&Volume>,
    door: Door,
    guest: &GuestSupport,
) -> Result<Delivery, Why> {
    let destination = Target::new(&volume.destination).map_err(|_| Why::Destination)?;
    let access = volume.access;
    let (source, facts, binding) = match &volume.origin {
        Origin::Bind { path, facts, binding } => (path.clone(), facts, *binding),
        Origin::Kernel => return Err(Why::GuestsOwn),
        Origin::Tmpfs(tmpfs) => {
            let tmpfs = tmpfs.clone();
            return match door {
                // Every guest makes these itself, over whatever is there.
                _ if weight(volume) == Weight::Customary => Err(Why::Tmpfs),
                Door::Share => Ok(Delivery::Memory { destination, tmpfs }),
                Door::Copy(Medium::Initrd) => Ok(Delivery::Directory { destination, tmpfs }),
                Door::Copy(Medium::Rootfs) | Door::Image | Door::Closed => Err(Why::Tmpfs),
            };
        }
    };
    if let SourceKind::Special(kind) = facts.kind {
        return Err(Why::Special(kind));
    }
    if let Door::Share = door {
        return Ok(Delivery::Share { source, binding, destination, access });
    }
    let disk = match &facts.mounted {
        None => None,
        Some(mounted) => match (as_disk(mounted, guest), neighbour) {
            (Ok(_), Some(other)) => Some(Reason::AlsoVolume(other.destination.clone())),
            (Ok(node), None) => {
                let (id, mount) = (DiskId::of(&destination), Box::new(mounted.mount.clone()));
                return Ok(Delivery::Disk { id, mount, node, destination, access });
            }
            (Err(reason), _) => Some(reason),
        },
    };
    let medium = match door {
        Door::Copy(medium) => medium,
        Door::Image => return Err(Why::ImageIsRoot { disk }),
        Door::Share | Door::Closed => return Err(Why::NoWay { disk }),
    };
    match (facts.kind, access) {
        (SourceKind::File(Extent::Large) | SourceKind::Directory(Extent::Large), _) => {
            Err(Why::TooLarge { disk })
        }
        (SourceKind::File(Extent::Holds(kind)) | SourceKind::Directory(Extent::Holds(kind)), _) => {
            Err(Why::Holds(kind))
        }
        (SourceKind::File(Extent::Unreadable) | SourceKind::Directory(Extent::Unreadable), _) => {
            Err(Why::Unreadable)
        }
        (SourceKind::Directory(Extent::Small), Access::ReadWrite) => Err(Why::WritesWouldBeLost { disk }),
        _ => Ok(Delivery::Snapshot { source, below: binding.below, destination, medium }),
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

/// Whether anybody minds if a volume does not reach the guest.
#[must_use]
pub fn weight(volume: &Volume) -> Weight {
    let one_of = |places: &[&str]| places.iter().any(|place| volume.destination == Path::new(place));
    let customary = volume.destination.starts_with("/dev")
        || match volume.origin {
            Origin::Kernel => true,
            Origin::Tmpfs(_) => one_of(&CUSTOMARY_TMPFS),
            Origin::Bind { .. } => one_of(&CUSTOMARY_BINDS),
        };
    if customary { Weight::Customary } else { Weight::Asked }
}

#[cfg(test)]
mod tests;
