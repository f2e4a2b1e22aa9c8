//! Golden plans: for each decision, what the machine, the monitor's root and start get. What is decided on a block device needs
//! one, and is tested end to end.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use urunc_rootfs::root::{Below, Binding, Owner};
use urunc_rootfs::volumes::{Origin, Undelivered, Volume as Wanted, Why};
use urunc_vmm::kernel::inspect;
use urunc_vmm::{Kernel, Kvm, Memory};

use super::*;
use crate::bundle::BundleFile;
use crate::bundle::annotations::from_annotations;

/// A bundle whose image has an initrd, a disk image and a kernel; the container runs as nobody.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rootfs = directory.path().join("rootfs");
        fs::create_dir(&rootfs).unwrap();
        for name in ["initrd", "disk.img", "kernel"] {
            fs::write(rootfs.join(name), [0x7f; 3]).unwrap();
        }
        Self { directory }
    }

    fn mode(&self, name: &str, mode: u32) {
        let path = self.directory.path().join("rootfs").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn bundle(&self, root: &serde_json::Value) -> Bundle {
        let spec = json!({
            "ociVersion": "1.0.2",
            "root": root,
            "process": {"user": {"uid": 65534, "gid": 65534}, "cwd": "/", "args": ["/init"]},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}]},
        });
        fs::write(self.directory.path().join("config.json"), spec.to_string()).unwrap();
        BundleFile::read(self.directory.path()).unwrap().check().unwrap()
    }

    /// Carries the decision out, on paper. The bundle's path becomes `BUNDLE`.
    fn plan(&self, guest: &str, selection: &Selection, reach: VolumePlan) -> Result<DiskPlan, DiskError> {
        self.plan_with(&json!({"path": "rootfs"}), guest, selection, reach, "")
    }

    fn plan_with(
        &self,
        root: &serde_json::Value,
        guest: &str,
        selection: &Selection,
        reach: VolumePlan,
        config: &str,
    ) -> Result<DiskPlan, DiskError> {
        let bundle = self.bundle(root);
        let image = Image::open(&bundle.spec.rootfs).unwrap();
        let annotations = [("unikernelType", guest), ("hypervisor", "qemu"), ("binary", "/kernel")];
        let annotations = annotations
            .map(|(key, value)| (format!("com.urunc.unikernel.{key}"), value.to_owned()))
            .into_iter()
            .collect();
        let guest = from_annotations(&annotations).unwrap().unwrap();
        let config: Config = toml::from_str(config).unwrap();
        let mut plan = DiskPlan { rootfs: bundle.spec.rootfs.clone(), ..DiskPlan::default() };
        let work = Work { bundle: &bundle, guest: &guest, image: &image, config: &config, volumes: &[] };
        work.root(&mut plan, selection, &reach)?;
        for delivery in reach.deliveries {
            work.volume(&mut plan, delivery, selection)?;
        }
        Ok(plan)
    }

    /// The plan as lines of text.
    fn text(&self, plan: &DiskPlan) -> String {
        let mut text = format!("root {:?}\n", plan.root);
        for Disk { id, path, access, .. } in &plan.disks {
            writeln!(text, "disk {id} {} {access:?}", path.display()).unwrap();
        }
        for Volume { disk, mount_point } in &plan.volumes {
            writeln!(text, "volume {disk} at {mount_point}").unwrap();
        }
        for Share { tag, kind } in &plan.shares {
            writeln!(text, "share {tag} {kind:?}").unwrap();
        }
        if let Some(BootFile { target, delivery, .. }) = &plan.initrd {
            writeln!(text, "initrd {} {delivery:?}", target.as_path().display()).unwrap();
        }
        for HostBind { source, target, access } in &plan.binds {
            writeln!(text, "bind {source:?} at {} {access:?}", target.as_path().display()).unwrap();
        }
        for Snapshot { source, destination, .. } in &plan.frozen.snapshots {
            writeln!(text, "in initrd {} {destination}", source.display()).unwrap();
        }
        for Snapshot { source, destination, .. } in &plan.copies {
            writeln!(text, "in rootfs {} {destination}", source.display()).unwrap();
        }
        for (name, _) in &plan.files {
            writeln!(text, "open {name}").unwrap();
        }
        text.replace(self.directory.path().canonicalize().unwrap().to_str().unwrap(), "BUNDLE")
    }
}

fn target(path: &str) -> Target {
    Target::new(path).unwrap()
}

fn reach(deliveries: Vec<Delivery>) -> VolumePlan {
    VolumePlan { deliveries, undelivered: Vec::new() }
}

fn snapshot(medium: Medium) -> Delivery {
    Delivery::Snapshot {
        source: "/host/key".into(),
        below: Below::Included,
        destination: target("/etc/key"),
        medium,
    }
}

fn shared(access: Access) -> Delivery {
    Delivery::Share {
        source: "/host/data".into(),
        binding: Binding::default(),
        destination: target("/data"),
        access,
    }
}

fn image_disk(point: &str) -> Delivery {
    let wish = urunc_rootfs::select::Wish {
        block: Some("/disk.img".into()),
        block_mount_point: Some(point.into()),
        ..urunc_rootfs::select::Wish::default()
    };
    let guest = support::of(urunc_vmm::Guest::Linux);
    volumes::plan(&[], &wish, &Selection::Nothing, &guest, None).deliveries.remove(0)
}

fn initrd() -> Selection {
    Selection::Initrd { path: "/initrd".into() }
}

#[test]
fn no_root_at_all_is_an_empty_plan() {
    let place = Place::new();
    let plan = place.plan("generic", &Selection::Nothing, VolumePlan::default()).unwrap();
    assert_eq!(place.text(&plan), "root None\n");
}

#[test]
fn an_initrd_is_bound_and_gets_its_files_at_start() {
    let place = Place::new();
    let plan = place.plan("linux", &initrd(), reach(vec![snapshot(Medium::Initrd)])).unwrap();
    assert_eq!(
        place.text(&plan),
        "root Initrd\n\
         initrd /boot/initrd Bind\n\
         in initrd /host/key /etc/key\n\
         open initrd\n"
    );
    assert_eq!(plan.frozen.initrd, Some("/initrd".into()));
}

#[test]
fn what_the_monitor_could_not_read_is_copied() {
    let place = Place::new();
    place.mode("initrd", 0o600);
    let plan = place.plan("linux", &initrd(), VolumePlan::default()).unwrap();
    let line = "initrd /boot/initrd Copy { size: ByteSize(3) }\n";
    assert!(place.text(&plan).contains(line), "{}", place.text(&plan));
    // The same with the kernel.
    for (mode, delivery) in [(0o644, FileDelivery::Bind), (0o600, FileDelivery::Copy { size: ByteSize(3) })] {
        place.mode("kernel", mode);
        let file = File::open(place.directory.path().join("rootfs/kernel")).unwrap();
        let user = User { uid: 65534, gid: 65534, groups: vec![], umask: None };
        assert_eq!(super::delivery(&user, &file).unwrap(), delivery, "{mode:o}");
    }
}

#[test]
fn a_disk_image_is_the_root_if_the_monitor_may_write_it() {
    let place = Place::new();
    let selection = Selection::BlockImage { path: "/disk.img".into() };
    place.mode("disk.img", 0o666);
    let plan = place.plan("linux", &selection, VolumePlan::default()).unwrap();
    assert_eq!(
        place.text(&plan),
        "root Disk { id: DeviceId(\"rootfs\"), file_system: None }\n\
         disk rootfs /boot/rootfs ReadWrite\n\
         bind Handle(\"disk rootfs\") at /boot/rootfs Share(ReadWrite)\n\
         open disk rootfs\n"
    );
    place.mode("disk.img", 0o644);
    let message = place.plan("linux", &selection, VolumePlan::default()).unwrap_err().to_string();
    assert!(message.contains("/disk.img") && message.contains("may not write"), "{message}");
    // R20: a read-only root needs no more than reading.
    let root = json!({"path": "rootfs", "readonly": true});
    let plan = place.plan_with(&root, "linux", &selection, VolumePlan::default(), "").unwrap();
    assert_eq!(
        place.text(&plan),
        "root Disk { id: DeviceId(\"rootfs\"), file_system: None }\n\
         disk rootfs /boot/rootfs ReadOnly\n\
         bind Handle(\"disk rootfs\") at /boot/rootfs Data\n\
         open disk rootfs\n"
    );
    place.mode("disk.img", 0o600);
    let message =
        place.plan_with(&root, "linux", &selection, VolumePlan::default(), "").unwrap_err().to_string();
    assert!(message.contains("may not read"), "{message}");
}

#[test]
fn a_framework_is_told_where_a_disk_image_belongs_and_a_program_knows() {
    let place = Place::new();
    place.mode("disk.img", 0o666);
    let plan = place.plan("linux", &initrd(), reach(vec![image_disk("/data")])).unwrap();
    let id = plan.disks[0].id.clone();
    assert!(id.as_str().len() <= 9, "urunit compares nine bytes of {id}");
    let lines = format!("disk {id} /boot/{id} ReadWrite\nvolume {id} at /data\n");
    assert!(place.text(&plan).contains(&lines), "{}", place.text(&plan));
    let plan = place.plan("mirage", &Selection::Nothing, reach(vec![image_disk("/data")])).unwrap();
    assert_eq!((plan.disks.len(), plan.volumes.len()), (1, 0));
    // Another place is another disk, and the same place the same one at every start.
    let other = place.plan("linux", &initrd(), reach(vec![image_disk("/data2")])).unwrap();
    assert_ne!(other.disks[0].id, id);
}

#[test]
fn virtiofs_shares_the_rootfs_and_its_volumes() {
    let place = Place::new();
    let selection = Selection::Virtiofs { program: "/usr/libexec/virtiofsd".into() };
    let plan = place.plan("linux", &selection, reach(vec![shared(Access::ReadOnly)])).unwrap();
    assert_eq!(
        place.text(&plan),
        "root Share(DeviceId(\"fs0\"))\n\
         share fs0 Virtiofs { socket: \"/run/virtiofsd.sock\" }\n\
         bind Handle(\"virtiofsd.sock\") at /run/virtiofsd.sock Data\n"
    );
    let share = plan.share.as_ref().unwrap();
    let tree = format!("{:?}", share.tree);
    assert!(tree.contains("/host/data") && tree.contains("access: Data"), "{tree}");
    assert_eq!(share.launch.program, Path::new("/usr/libexec/virtiofsd"));
}

/// virtiofsd runs in the container's control group: without its share of the limit, the guest was killed for it.
#[test]
fn virtiofsd_counts_for_the_containers_memory() {
    let place = Place::new();
    let mut machine = machine();
    assert_eq!(super::super::helpers_memory(&machine), 0);
    let selection = Selection::Virtiofs { program: "/usr/libexec/virtiofsd".into() };
    let plan = place.plan("linux", &selection, VolumePlan::default()).unwrap();
    plan.equip(&mut machine, &mut Workload::new(urunc_vmm::Guest::Linux, vec![]));
    assert_eq!(super::super::helpers_memory(&machine), (16 << 20) + (512 << 20) / 512);
    machine.shares[0].kind = ShareKind::NineP { path: "/share".into(), access: urunc_vmm::Access::ReadOnly };
    assert_eq!(super::super::helpers_memory(&machine), 0, "the monitor serves it itself");
}

/// With a stand-in for a kernel: this very program.
fn machine() -> Machine {
    let image = inspect(&File::open("/proc/self/exe").unwrap());
    let image = image.unwrap_or_else(|error| panic!("{error}"));
    let mut machine = Machine::new(Kernel { path: "/boot/kernel".into(), image }, Memory::mib(512));
    machine.kvm = Kvm::Off;
    machine
}

#[test]
fn the_monitor_serves_9p_from_its_own_root() {
    let place = Place::new();
    let plan = place.plan("linux", &Selection::NineP, reach(vec![shared(Access::ReadWrite)])).unwrap();
    assert_eq!(
        place.text(&plan),
        "root Share(DeviceId(\"fs0\"))\n\
         share fs0 NineP { path: \"/share\", access: ReadWrite }\n\
         bind Host(\"BUNDLE/rootfs\") at /share Share(ReadWrite)\n\
         bind Volume { path: \"/host/data\", binding: Binding { below: Included, later: Ignored } } at \
         /share/data Share(ReadWrite)\n"
    );
}

#[test]
fn an_initrd_is_composed_only_if_something_is_put_into_it() {
    let place = Place::new();
    let plain = place.plan("linux", &initrd(), VolumePlan::default()).unwrap();
    let filled = place.plan("linux", &initrd(), reach(vec![snapshot(Medium::Initrd)])).unwrap();
    let file = GuestFile { contents: vec![], place: ConfigPlace::InitrdFile("/urunit.conf".to_owned()) };
    let beside = GuestFile { contents: vec![], place: ConfigPlace::Initrd };
    for (plan, config, expected) in [
        (&plain, None, false),
        (&plain, Some(&beside), false),
        (&plain, Some(&file), true),
        (&filled, None, true),
    ] {
        let mut machine = machine();
        plan.equip(&mut machine, &mut Workload::new(urunc_vmm::Guest::Linux, vec![]));
        plan.settle_initrd(&mut machine, config);
        assert_eq!(composed(&machine), expected, "{config:?}");
    }
}

/// R18: dropped in silence.
#[test]
fn what_is_larger_than_the_guest_is_not_brought_into_memory() {
    // A hostile initrd, sparse in the image, was copied to memory whole; no limit counted it.
    let place = Place::new();
    let rootfs = place.directory.path().join("rootfs");
    let length = |name: &str, bytes| fs::File::create(rootfs.join(name)).unwrap().set_len(bytes).unwrap();
    let machine = machine();
    let furnish = |root_copied| {
        let mut plan = place.plan("linux", &initrd(), VolumePlan::default()).unwrap();
        let target = target("/boot/kernel");
        let boot_files = vec![BootFile { handle: "kernel".to_owned(), target, delivery: FileDelivery::Bind }];
        let owner = Owner { uid: 65534, gid: 65534 };
        let mut needs = Needs {
            binary: "/usr/bin/env".into(),
            libraries: urunc_rootfs::root::Libraries::None,
            binds: Vec::new(),
            boot_files,
            devices: Vec::new(),
            scratch: Vec::new(),
            proc: Proc::Absent,
            owner,
            label: None,
        };
        place.mode("kernel", if root_copied { 0o600 } else { 0o644 });
        let user = User { uid: 65534, gid: 65534, groups: Vec::new(), umask: None };
        plan.furnish(&mut needs, &machine, &File::open(rootfs.join("kernel")).unwrap(), &user)
    };
    let too_large = |result: Result<(), DiskError>, bytes| match result {
        Err(DiskError::TooLarge { bytes: said, memory }) => (said, memory) == (bytes, 512 << 20),
        _ => false,
    };
    length("initrd", 512 << 20);
    furnish(false).unwrap();
    length("initrd", (512 << 20) + 1);
    assert!(too_large(furnish(false), (512 << 20) + 1));
    // A kernel that is only bound may have more to it than is loaded, such as debugging information.
    length("initrd", 1);
    length("kernel", 1 << 40);
    furnish(false).unwrap();
    assert!(too_large(furnish(true), (1 << 40) + 1));
    // The image can change between create and start.
    length("initrd", 1 << 40);
    let frozen = FrozenDisk { initrd: Some("/initrd".into()), ..FrozenDisk::default() };
    let composing = Machine { initrd: Some(COMPOSED.into()), ..machine.clone() };
    let owner = Owner { uid: 0, gid: 0 };
    let composed =
        super::super::compose(&frozen, &composing, urunc_vmm::Guest::Linux, &rootfs, owner).map(drop);
    assert!(too_large(composed, 1 << 40));
}

#[test]
fn what_does_not_arrive_is_an_error_or_a_warning_unless_nobody_asked_for_it() {
    let missing = |weight| Undelivered { destination: "/scratch".into(), why: Why::Tmpfs, weight };
    let strange = || vec![DiskError::MountKind { destination: "/remote".into(), kind: "nfs".to_owned() }];
    let reach = |weight| VolumePlan { undelivered: vec![missing(weight)], ..VolumePlan::default() };
    let message = undelivered(&reach(Weight::Asked), vec![], Undeliverable::Error).unwrap_err().to_string();
    assert!(message.contains("/scratch") && message.contains("undeliverable"), "{message}");
    let message =
        undelivered(&reach(Weight::Customary), strange(), Undeliverable::Error).unwrap_err().to_string();
    assert!(message.contains("/remote") && message.contains("nfs"), "{message}");
    let warnings = undelivered(&reach(Weight::Asked), strange(), Undeliverable::Warn).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("/scratch") && warnings[1].contains("/remote"), "{warnings:?}");
    assert!(undelivered(&reach(Weight::Customary), vec![], Undeliverable::Error).unwrap().is_empty());
}

/// A disk image inside a file system that leaves the host cannot be opened by the monitor.
#[test]
fn a_disk_image_in_a_rootfs_that_goes_away_is_refused() {
    let place = Place::new();
    let table = MountTable::parse(b"36 35 7:0 / /rootfs rw - ext4 /dev/loop0 rw\n");
    let mount = table.mounts()[0].clone();
    let gone = Selection::BlockDevice { mount: Box::new(mount), node: "/dev/null".into() };
    let bundle = place.bundle(&json!({"path": "rootfs"}));
    let image = Image::open(&bundle.spec.rootfs).unwrap();
    let annotations = [("unikernelType", "linux"), ("hypervisor", "qemu"), ("binary", "/kernel")]
        .map(|(key, value)| (format!("com.urunc.unikernel.{key}"), value.to_owned()));
    let guest = from_annotations(&annotations.into_iter().collect()).unwrap().unwrap();
    let config = Config::default();
    let work = Work { bundle: &bundle, guest: &guest, image: &image, config: &config, volumes: &[] };
    let refused = work.volume(&mut DiskPlan::default(), image_disk("/data"), &gone);
    assert!(refused.unwrap_err().to_string().contains("/disk.img"));
}

#[test]
fn a_volume_weighs_as_much_as_the_mount_that_is_seen() {
    let place = Place::new();
    let bundle = place.bundle(&json!({"path": "rootfs"}));
    let image = Image::open(&bundle.spec.rootfs).unwrap();
    let annotations = [("unikernelType", "linux"), ("hypervisor", "qemu"), ("binary", "/kernel")]
        .map(|(key, value)| (format!("com.urunc.unikernel.{key}"), value.to_owned()));
    let guest = from_annotations(&annotations.into_iter().collect()).unwrap().unwrap();
    let config = Config::default();
    let empty = Tmpfs { size: None, mode: 0o1777, owner: Owner { uid: 0, gid: 0 } };
    let tmpfs = || Origin::Tmpfs(empty.clone());
    let wanted = |destination: &str, origin| Wanted {
        destination: destination.into(),
        origin,
        access: Access::ReadOnly,
    };
    let volumes = [wanted("/run", tmpfs()), wanted("/data", tmpfs()), wanted("/data", Origin::Kernel)];
    let work = Work { bundle: &bundle, guest: &guest, image: &image, config: &config, volumes: &volumes };
    assert_eq!(work.weight(&target("/run")), Weight::Customary);
    assert_eq!(work.weight(&target("/data")), Weight::Customary, "the later one hides the earlier");
    assert_eq!(work.weight(&target("/other")), Weight::Asked);
}
