//! What the guest's disk consists of: of each decision that `urunc-rootfs` makes, the machine's devices, the guest's
//! mounts, the places in the monitor's root, and what create and start have to do.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use urunc_rootfs::block::{Afterwards, Handover};
use urunc_rootfs::root::{
    BootFile, ByteSize, Delivery as FileDelivery, Device, DeviceKind, DeviceNode, Handle, HostBind, Needs,
    Proc, SharedTree, Source, Target, Tmpfs, Use,
};
use urunc_rootfs::select::{Decision, Selection, select};
use urunc_rootfs::virtiofsd::{DaemonLaunch, SocketNumber, Virtiofsd};
use urunc_rootfs::volumes::{self, Delivery, DiskId, Medium, VolumePlan, Weight};
use urunc_rootfs::{Access, Image, Mount, MountTable};
use urunc_vmm::{
    Arch, ConfigPlace, DeviceId, Disk, GuestConfig as GuestFile, Machine, Root, Share, ShareKind, Volume,
    Workload,
};

use super::share::PreparedDaemon;
use super::snapshot::Snapshot;
use super::support::Mounter;
use super::{DiskError, access, facts, support};
use crate::bundle::{Bundle, GuestConfig, User, annotations};
use crate::config::{Config, Undeliverable};

/// The disk or share that is the guest's root.
const ROOT_DISK: &str = "rootfs";
const ROOT_SHARE: &str = "fs0";
/// Where the monitor sees things.
const INITRD: &str = "/boot/initrd";
/// Name of the image's initrd among the descriptors that the monitor's root is made of.
const INITRD_HANDLE: &str = "initrd";
const SHARED: &str = "/share";
/// Name of virtiofsd's socket among the descriptors that the monitor's root is made of.
pub(super) const SOCKET_HANDLE: &str = "virtiofsd.sock";
const SOCKET: &str = "/run/virtiofsd.sock";

const KVM: &str = "/dev/kvm";
/// Seen with QEMU 10.0 and virtiofsd 1.13: it translates a page of code once, and is not told when another process writes
/// something else there, as virtiofsd does when the guest has dropped a file from its cache and reads another.
const EMULATED_SHARE: &str = "the guest is emulated and shares its files by virtiofsd, so its programs may crash: use KVM, \
                              or set extra_binaries.virtiofsd.options = \"--cache=always\" in the configuration";

/// The number under which the monitor inherits an initrd that start composes; far above those that plans assign.
pub(super) const COMPOSED_FD: i32 = 100;
const COMPOSED: &str = "/proc/self/fd/100";

/// What start needs to know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::lifecycle) struct FrozenDisk {
    /// The image's initrd.
    pub(super) initrd: Option<PathBuf>,
    /// What is put into it.
    pub(super) snapshots: Vec<Snapshot>,
    /// Empty directories that are made in it.
    #[serde(default)]
    pub(super) directories: Vec<(Target, Tmpfs)>,
}

/// A block device that the guest gets.
#[derive(Debug)]
pub(super) struct Take {
    pub(super) handover: Handover,
    pub(super) access: Access,
    pub(super) whose: Whose,
}

/// Whose a block device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Whose {
    /// The container's own root file system, which whoever made it unmounts in the end.
    Container,
    /// The host's, which wants it back.
    Host,
}

/// What virtiofsd is to do.
#[derive(Debug)]
pub(super) struct SharePlan {
    pub(super) tree: SharedTree,
    pub(super) launch: DaemonLaunch,
}

/// Everything about the guest's disk that create decides.
#[derive(Debug, Default)]
pub(in crate::lifecycle) struct DiskPlan {
    pub(in crate::lifecycle) frozen: FrozenDisk,
    /// Files of the image, under the names by which the monitor's root refers to them.
    pub(super) files: Vec<(String, File)>,
    pub(in crate::lifecycle) warnings: Vec<String>,
    /// Which root file system was chosen, and why not each other: a line each.
    pub(in crate::lifecycle) choice: Vec<String>,
    root: Root,
    disks: Vec<Disk>,
    volumes: Vec<Volume>,
    shares: Vec<Share>,
    initrd: Option<BootFile>,
    binds: Vec<HostBind>,
    nodes: Vec<DeviceNode>,
    pub(super) rootfs: PathBuf,
    pub(super) takes: Vec<Take>,
    pub(super) copies: Vec<Snapshot>,
    pub(super) share: Option<SharePlan>,
}

/// Decides how the guest gets its root file system and its volumes.
///
/// # Errors
/// [`DiskError`]; nothing has been changed.
pub(in crate::lifecycle) fn plan(
    bundle: &Bundle,
    guest: &GuestConfig,
    image: &Image,
    config: &Config,
    arch: Arch,
    mounts: &MountTable,
) -> Result<DiskPlan, DiskError> {
    let facts = facts::gather(guest, image, config, arch, mounts)?;
    let decision = select(&facts)?;
    let choice = choice(&decision);
    choice.iter().for_each(|line| log::debug!("{line}"));
    let (volumes, strange) = facts::volumes(bundle, &decision.selection, mounts)?;
    let dialect = support::dialect(guest.guest);
    let reach = volumes::plan(&volumes, &facts.wish, &decision.selection, &facts.guest, dialect);
    let mut plan = DiskPlan { rootfs: bundle.spec.rootfs.clone(), choice, ..DiskPlan::default() };
    plan.warnings = undelivered(&reach, strange, config.runtime.undeliverable)?;
    let work = Work { bundle, guest, image, config, volumes: &volumes };
    work.root(&mut plan, &decision.selection, &reach)?;
    for delivery in reach.deliveries {
        work.volume(&mut plan, delivery, &decision.selection)?;
    }
    if let Some(first) = plan.disks.first_mut() {
        first.declared_as.clone_from(&guest.solo5_block);
    }
    Ok(plan)
}

/// The choice of a root file system in words.
fn choice(decision: &Decision) -> Vec<String> {
    let what = match &decision.selection {
        Selection::Initrd { path } | Selection::BlockImage { path } => format!(" ({})", path.display()),
        Selection::BlockDevice { node, .. } => format!(" ({})", node.display()),
        Selection::Virtiofs { program } => format!(" (by {})", program.display()),
        Selection::NineP | Selection::Nothing => String::new(),
    };
    let chosen = format!("{}{what}", decision.selection.way());
    let others = decision.passed_over.iter().map(|passed| format!("not {passed}"));
    std::iter::once(chosen).chain(others).collect()
}

/// Refuses what does not reach the guest, or lists it.
fn undelivered(
    reach: &VolumePlan,
    strange: Vec<DiskError>,
    policy: Undeliverable,
) -> Result<Vec<String>, DiskError> {
    reach.check(policy.into()).map_err(DiskError::Volumes)?;
    let mut warnings = Vec::new();
    for volume in &reach.undelivered {
        match volume.weight {
            Weight::Asked => warnings.push(format!("the guest does not get the volume at {volume}")),
            Weight::Customary => log::debug!("the guest does not get {volume}"),
        }
    }
    for error in strange {
        match policy {
            Undeliverable::Error => return Err(error),
            Undeliverable::Warn => warnings.push(error.to_string()),
        }
    }
    Ok(warnings)
}

struct Work<'a> {
    bundle: &'a Bundle,
    guest: &'a GuestConfig,
    image: &'a Image,
    config: &'a Config,
    volumes: &'a [volumes::Volume],
}

impl Work<'_> {
    fn root(&self, plan: &mut DiskPlan, selection: &Selection, reach: &VolumePlan) -> Result<(), DiskError> {
        let access = self.bundle.spec.root_access;
        match selection {
            Selection::Nothing => {}
            Selection::Initrd { path } => {
                let file = self.open(path, annotations::INITRD)?;
                plan.initrd = Some(BootFile {
                    handle: INITRD_HANDLE.to_owned(),
                    target: Target::new(INITRD)?,
                    delivery: delivery(&self.bundle.spec.host_user, &file)?,
                });
                plan.files.push((INITRD_HANDLE.to_owned(), file));
                plan.frozen.initrd = Some(path.clone());
                plan.root = Root::Initrd;
            }
            Selection::BlockImage { path } => {
                let id: DeviceId = ROOT_DISK.parse()?;
                self.image_disk(plan, id.clone(), path, access)?;
                plan.root = Root::Disk { id, file_system: None };
            }
            Selection::BlockDevice { mount, node } => {
                if let Some(hook) = self.bundle.spec.hooks.start_container.first() {
                    return Err(DiskError::HookOnDevice { hook: hook.path.clone(), device: node.clone() });
                }
                let id: DeviceId = ROOT_DISK.parse()?;
                plan.block_disk(id.clone(), mount, node, access, Whose::Container)?;
                plan.root =
                    Root::Disk { id, file_system: Some(mount.fs_type.to_string_lossy().into_owned()) };
            }
            Selection::Virtiofs { program } => {
                let configured = self.config.extra_binaries.get("virtiofsd");
                let options = configured.map(|binary| binary.options.as_str()).unwrap_or_default();
                let options = options.split_whitespace().map(str::to_owned).collect();
                let daemon = Virtiofsd { program: program.clone(), options };
                let (launch, dropped) = daemon.plan(plan.rootfs.clone(), SocketNumber::FIRST)?;
                plan.warnings.extend(dropped.iter().map(ToString::to_string));
                let tree = SharedTree::plan(plan.rootfs.clone(), access, reach.binds())?;
                plan.share = Some(SharePlan { tree, launch });
                plan.binds.push(HostBind {
                    source: Source::Handle(SOCKET_HANDLE.to_owned()),
                    target: Target::new(SOCKET)?,
                    access: Use::Data,
                });
                plan.share_root(ShareKind::Virtiofs { socket: SOCKET.into() })?;
            }
            Selection::NineP => {
                let place = Target::new(SHARED)?;
                plan.binds.push(HostBind {
                    source: Source::Host(plan.rootfs.clone()),
                    target: place.clone(),
                    access: Use::Share(access),
                });
                plan.binds.extend(reach.binds().into_iter().map(|bind| bind.below(&place)));
                plan.share_root(ShareKind::NineP { path: SHARED.into(), access: of_machine(access) })?;
            }
        }
        Ok(())
    }

    fn volume(
        &self,
        plan: &mut DiskPlan,
        delivery: Delivery,
        selection: &Selection,
    ) -> Result<(), DiskError> {
        let (id, destination) = match delivery {
            // Part of the shared root.
            Delivery::Share { .. } | Delivery::Memory { .. } => return Ok(()),
            Delivery::Directory { destination, tmpfs } => {
                plan.frozen.directories.push((destination, tmpfs));
                return Ok(());
            }
            Delivery::Snapshot { source, below, destination, medium } => {
                let weight = self.weight(&destination);
                let snapshot = Snapshot { source, destination, below, weight };
                match medium {
                    Medium::Initrd => plan.frozen.snapshots.push(snapshot),
                    Medium::Rootfs => plan.copies.push(snapshot),
                }
                return Ok(());
            }
            Delivery::Disk { id, mount, node, destination, access } => {
                let id = short(&id)?;
                plan.block_disk(id.clone(), &mount, &node, access, Whose::Host)?;
                (id, destination)
            }
            Delivery::ImageDisk { path, .. } if matches!(selection, Selection::BlockDevice { .. }) => {
                return Err(DiskError::Inside { path });
            }
            Delivery::ImageDisk { id, path, destination } => {
                let id = short(&id)?;
                self.image_disk(plan, id.clone(), &path, self.bundle.spec.root_access)?;
                (id, destination)
            }
        };
        if support::mounter(self.guest.guest) == Mounter::Framework {
            plan.volumes.push(Volume { disk: id, mount_point: destination.to_string() });
        }
        Ok(())
    }

    /// Of the volume at `destination`; a later one there hides an earlier one.
    fn weight(&self, destination: &Target) -> Weight {
        let there = self.volumes.iter().rev().find(|volume| volume.destination == destination.as_path());
        there.map_or(Weight::Asked, volumes::weight)
    }

    /// A file of the image that the annotation `key` names.
    fn open(&self, path: &Path, key: &'static str) -> Result<File, DiskError> {
        let opened = self.image.open_file(path).map_err(|source| DiskError::File { key, source })?;
        Ok(opened.into_file())
    }

    /// A disk image of the image, bound into the monitor's root.
    fn image_disk(
        &self,
        plan: &mut DiskPlan,
        id: DeviceId,
        path: &Path,
        access: Access,
    ) -> Result<(), DiskError> {
        use std::os::unix::fs::MetadataExt;
        let user = &self.bundle.spec.host_user;
        let file = self.open(path, annotations::BLOCK)?;
        let metadata = file.metadata().map_err(DiskError::Look)?;
        if !access::may(user, &metadata, access) {
            return Err(DiskError::Access {
                path: path.to_owned(),
                uid: user.uid,
                what: if access == Access::ReadOnly { "read" } else { "write" },
                mode: metadata.mode() & 0o7777,
                owner: metadata.uid(),
                group: metadata.gid(),
            });
        }
        let handle = format!("disk {id}");
        let target = Target::new(format!("/boot/{id}"))?;
        plan.disks.push(Disk {
            path: target.as_path().to_owned(),
            access: of_machine(access),
            id,
            declared_as: None,
        });
        plan.binds.push(HostBind {
            source: Source::Handle(handle.clone()),
            target,
            access: if access == Access::ReadOnly { Use::Data } else { Use::Share(access) },
        });
        plan.files.push((handle, file));
        Ok(())
    }
}

impl DiskPlan {
    fn block_disk(
        &mut self,
        id: DeviceId,
        mount: &Mount,
        node: &Path,
        access: Access,
        whose: Whose,
    ) -> Result<(), DiskError> {
        let afterwards = match whose {
            Whose::Container => Afterwards::StayUnmounted,
            Whose::Host => Afterwards::MountAgain,
        };
        let handover = Handover::plan(mount, node, afterwards)?;
        let target = Target::new(format!("/dev/{id}"))?;
        let (major, minor) = (mount.device.major, mount.device.minor);
        let device = Device { kind: DeviceKind::Block, major, minor };
        self.disks.push(Disk {
            path: target.as_path().to_owned(),
            access: of_machine(access),
            id,
            declared_as: None,
        });
        self.nodes.push(DeviceNode { target, device, access });
        self.takes.push(Take { handover, access, whose });
        Ok(())
    }

    fn share_root(&mut self, kind: ShareKind) -> Result<(), DiskError> {
        let tag: DeviceId = ROOT_SHARE.parse()?;
        self.shares.push(Share { tag: tag.clone(), kind });
        self.root = Root::Share(tag);
        Ok(())
    }

    /// What the monitor's root is made of, under the names by which its plan refers to it.
    pub(in crate::lifecycle) fn handles<'a>(
        &'a self,
        daemon: Option<&'a PreparedDaemon>,
    ) -> impl Iterator<Item = Handle<'a>> {
        let files = self.files.iter().map(|(name, file)| Handle { name, fd: file.as_fd() });
        files.chain(daemon.map(|daemon| Handle { name: SOCKET_HANDLE, fd: daemon.socket.as_fd() }))
    }

    /// Puts the devices into the machine, and tells the workload of them.
    pub(in crate::lifecycle) fn equip(&self, machine: &mut Machine, workload: &mut Workload) {
        machine.disks.clone_from(&self.disks);
        machine.shares.clone_from(&self.shares);
        machine.initrd = self.initrd.as_ref().map(|file| file.target.as_path().to_owned());
        workload.root = self.root.clone();
        workload.volumes.clone_from(&self.volumes);
    }

    /// Decides whether start composes the initrd, now that `config`, the guest's own configuration, is known.
    pub(in crate::lifecycle) fn settle_initrd(&self, machine: &mut Machine, config: Option<&GuestFile>) {
        let told_by_file = config.is_some_and(|config| matches!(config.place, ConfigPlace::InitrdFile(_)));
        let is_filled = !self.frozen.snapshots.is_empty() || !self.frozen.directories.is_empty();
        if machine.initrd.is_some() && (told_by_file || is_filled) {
            machine.initrd = Some(COMPOSED.into());
        }
    }

    /// Adds to the monitor's root what the guest's disk takes. The kernel, which comes first among `needs`' boot files, is
    /// copied if the image's file system goes away, or if `user`, who runs the monitor, could not read it.
    ///
    /// # Errors
    /// [`DiskError::Look`] if the kernel's size or permissions cannot be told; [`DiskError::TooLarge`] if what would be held in
    /// memory for the guest does not fit into it.
    pub(in crate::lifecycle) fn furnish(
        &mut self,
        needs: &mut Needs,
        machine: &Machine,
        kernel: &File,
        user: &User,
    ) -> Result<(), DiskError> {
        let goes_away = self.takes.iter().any(|take| take.whose == Whose::Container);
        let mut held = 0;
        if let Some(file) = needs.boot_files.first_mut() {
            file.delivery = if goes_away { copied(kernel)? } else { delivery(user, kernel)? };
            if let FileDelivery::Copy { size } = file.delivery {
                held = size.0;
            }
        }
        if let Some((_, initrd)) = self.files.iter().find(|(name, _)| name == INITRD_HANDLE) {
            let size = initrd.metadata().map_err(DiskError::Look)?.len();
            super::compose::fits(size.saturating_add(held), machine)?;
        } else {
            super::compose::fits(held, machine)?;
        }
        if composed(machine) {
            needs.proc = Proc::Masked;
        } else {
            needs.boot_files.extend(self.initrd.clone());
        }
        let emulated = !needs.devices.iter().any(|node| node.target.as_path() == Path::new(KVM));
        if let Some(share) = self.share.as_ref().filter(|_| emulated)
            && !share.launch.args.iter().any(|word| word == "--cache=always" || word == "always")
        {
            self.warnings.push(EMULATED_SHARE.to_owned());
        }
        needs.binds.extend(self.binds.iter().cloned());
        needs.devices.extend(self.nodes.iter().cloned());
        Ok(())
    }
}

/// Whether start composes the machine's initrd.
pub(super) fn composed(machine: &Machine) -> bool {
    machine.initrd.as_deref() == Some(Path::new(COMPOSED))
}

/// Bound, unless the monitor's user could not read it.
fn delivery(user: &User, file: &File) -> Result<FileDelivery, DiskError> {
    let metadata = file.metadata().map_err(DiskError::Look)?;
    if access::may(user, &metadata, Access::ReadOnly) { Ok(FileDelivery::Bind) } else { copied(file) }
}

fn copied(file: &File) -> Result<FileDelivery, DiskError> {
    let size = file.metadata().map_err(DiskError::Look)?.len();
    Ok(FileDelivery::Copy { size: ByteSize(size) })
}

/// A disk's name in nine bytes, which is as much as urunit compares.
fn short(id: &DiskId) -> Result<DeviceId, DiskError> {
    let id = id.as_str();
    let tail = id.get(id.len().saturating_sub(8)..).unwrap_or(id);
    Ok(format!("v{tail}").parse()?)
}

fn of_machine(access: Access) -> urunc_vmm::Access {
    match access {
        Access::ReadOnly => urunc_vmm::Access::ReadOnly,
        Access::ReadWrite => urunc_vmm::Access::ReadWrite,
    }
}

#[cfg(test)]
mod tests;
