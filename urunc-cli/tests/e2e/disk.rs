//! A real Linux guest with each kind of root file system: what it reads, what it may write, and what is left on the host.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use libtest_mimic::Failed;

use crate::Test;
use crate::linux::{self, Mounted, inventory};
use crate::network::kill;
use crate::scene::{Bundle, Need, Scene, describe, eventually, passed};

const LINUX: &[Need] = &[Need::Root, Need::Linux];
const DRIVERS: &[Need] = &[Need::Root, Need::LinuxDrivers];
const VIRTIOFS: &[Need] = &[Need::Root, Need::LinuxDrivers, Need::Virtiofsd];
const LOOP_DRIVERS: &[Need] = &[Need::Root, Need::LinuxDrivers, Need::Loop];
const LOOP: &[Need] = &[Need::Root, Need::Linux, Need::Loop];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "disk::a_guest_lives_in_its_initrd", needs: LINUX, run: initrd },
    Test { name: "disk::what_engines_always_mount_stops_no_guest", needs: LINUX, run: customary },
    Test { name: "disk::a_guest_lives_on_a_disk_image", needs: DRIVERS, run: disk_image },
    Test { name: "disk::a_guest_has_a_disk_image_beside_its_initrd", needs: LINUX, run: image_beside },
    Test { name: "disk::a_guest_lives_on_a_read_only_disk_image", needs: DRIVERS, run: read_only_image },
    Test {
        name: "disk::a_guest_lives_on_the_containers_block_device",
        needs: LOOP_DRIVERS,
        run: block_device,
    },
    Test { name: "disk::a_hook_in_a_root_that_is_the_guests_is_refused", needs: LOOP, run: hook_on_device },
    Test { name: "disk::a_guest_gets_a_volume_as_a_disk", needs: LOOP, run: block_volume },
    Test { name: "disk::a_guest_lives_in_a_directory_over_virtiofs", needs: VIRTIOFS, run: virtiofs },
    Test { name: "disk::a_guest_lives_in_a_directory_over_9p", needs: DRIVERS, run: nine_p },
    Test { name: "disk::a_virtiofsd_that_ends_fails_start", needs: LINUX, run: dead_virtiofsd },
    Test { name: "disk::a_failed_create_gives_everything_back", needs: LOOP, run: failed_create },
    Test { name: "disk::a_failed_create_leaves_the_image_as_it_was", needs: LINUX, run: failed_share },
    Test {
        name: "disk::a_killed_create_gives_volumes_back_at_the_next_command",
        needs: LOOP,
        run: killed_create,
    },
    Test { name: "disk::a_busy_volume_is_named_and_stays", needs: LOOP, run: busy_volume },
    Test { name: "disk::what_cannot_reach_the_guest_is_named", needs: LINUX, run: undeliverable },
];

/// Everything that a guest says about its files; each test looks for its lines.
const LOOK: &str = r#"
say "image: $(show /etc/image)"
say "config: $(show /etc/config/key)"
say "directory: $(show /data/one) $(show /data/sub/two)"
say "hosts: $(try /bin/busybox grep -q localhost /etc/hosts)"
say "write: $(try put /work/written today)"
say "write config: $(try put /etc/config/key changed)"
say "write directory: $(try put /data/new x)"
say "scratch: $(try put /scratch/x 1)"
say "too much: $(try /bin/busybox dd if=/bin/busybox of=/scratch/y bs=1k count=100)"
"#;

/// A ConfigMap-like file and a directory volume on the host.
struct Volumes {
    config: PathBuf,
    directory: PathBuf,
}

impl Volumes {
    fn new(scene: &Scene) -> Self {
        let (config, directory) = (scene.path("key"), scene.path("directory"));
        fs::write(&config, "configured\n").unwrap();
        fs::create_dir_all(directory.join("sub")).unwrap();
        fs::write(directory.join("one"), "1\n").unwrap();
        fs::write(directory.join("sub/two"), "2\n").unwrap();
        Self { config, directory }
    }

    fn mount(&self, bundle: &Bundle) {
        linux::bind(bundle, &self.config, "/etc/config/key", "ro");
        linux::bind(bundle, &self.directory, "/data", "ro");
    }

    /// An empty directory in memory.
    fn scratch(bundle: &Bundle) {
        let mount = serde_json::json!({
            "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=1777"],
        });
        bundle.edit(|spec| spec["mounts"].as_array_mut().unwrap().push(mount));
    }

    fn assert_unchanged(&self) {
        assert_eq!(fs::read_to_string(&self.config).unwrap(), "configured\n");
        let names = fs::read_dir(&self.directory).unwrap().flatten().count();
        assert_eq!(names, 2, "something was written into the read-only volume");
    }
}

/// Runs the container to its end, and returns what the guest said.
fn run(scene: &Scene, bundle: &Bundle) -> String {
    let output = scene.urunc(&["run", "--bundle", bundle.str(), "guest"]);
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(output.status.success() && text.contains("guest: end"), "{}", describe(&output));
    scene.assert_clean_but_mounts();
    text
}

#[track_caller]
fn said(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|it| it == format!("guest: {line}")), "not said: {line}\n{text}");
    }
}

/// Of all files below `directory` but those whose name is in `except`.
fn hash(directory: &Path, except: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if except.iter().any(|except| name == *except) {
            continue;
        }
        name.hash(&mut hasher);
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            hash(&entry.path(), except).hash(&mut hasher);
        } else if kind.is_symlink() {
            fs::read_link(entry.path()).unwrap().hash(&mut hasher);
        } else {
            fs::read(entry.path()).unwrap().hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// R16: the initrd in the image grew with every create, and lacked what had no parent directory in it.
fn initrd() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = linux::bundle(&scene, "/init");
    bundle.annotate("initrd", "/boot/initrd");
    fs::write(bundle.path.join("rootfs/boot/initrd"), linux::initrd(LOOK)).unwrap();
    let volumes = Volumes::new(&scene);
    volumes.mount(&bundle);
    Volumes::scratch(&bundle);
    let before = hash(&bundle.path, &[]);
    for _ in 0..2 {
        let text = run(&scene, &bundle);
        said(&text, &["image: from the image", "config: configured", "directory: 1 2", "hosts: yes"]);
        // It writes into its own memory.
        said(&text, &["write: yes", "write config: yes", "scratch: yes"]);
        volumes.assert_unchanged();
    }
    assert_eq!(hash(&bundle.path, &[]), before, "the image has changed");
    passed()
}

/// Kubernetes gives every container a token below /var/run, which in a compressed initrd may be a link or not.
fn customary() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = linux::bundle(&scene, "/init");
    bundle.annotate("initrd", "/boot/initrd");
    let path = bundle.path.join("rootfs/boot/initrd");
    fs::write(&path, linux::initrd("say \"hosts: $(show /etc/hosts)\"")).unwrap();
    let packed = std::process::Command::new("gzip").arg("-c").arg(&path).output().unwrap();
    fs::write(&path, packed.stdout).unwrap();
    let token = scene.path("token");
    fs::create_dir(&token).unwrap();
    fs::write(token.join("token"), "secret").unwrap();
    linux::bind(&bundle, &token, "/var/run/secrets/kubernetes.io/serviceaccount", "ro");
    fs::write(scene.path("hosts"), "::1 me\n").unwrap();
    linux::bind(&bundle, &scene.path("hosts"), "/etc/hosts", "rw");
    said(&run(&scene, &bundle), &["hosts: ::1 me"]);
    // The same, if it is the user's wish, is an error.
    linux::bind(&bundle, &token, "/var/run/mine", "ro");
    let output = scene.urunc(&["run", "--bundle", bundle.str(), "guest"]);
    assert!(!output.status.success() && describe(&output).contains("/var/run/mine"), "{}", describe(&output));
    scene.assert_clean();
    passed()
}

/// The disk image belongs to the monitor's user, who has no capabilities.
fn image_bundle(scene: &Scene, script: &str) -> Bundle {
    let bundle = linux::bundle(scene, "/init");
    bundle.annotate("block", "/disk.img");
    bundle.annotate("blkMntPoint", "/");
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    linux::tree(&tree, script);
    linux::ext4(&bundle.path.join("rootfs/disk.img"), &tree, scene.uid);
    bundle
}

fn disk_image() -> Result<(), Failed> {
    let scene = Scene::new();
    let script = r#"say "before: $(show /work/written)"; say "image: $(show /etc/image)"; say "write: $(try put /work/written today)""#;
    let bundle = image_bundle(&scene, script);
    let before = hash(&bundle.path, &["disk.img"]);
    said(&run(&scene, &bundle), &["before: nothing", "image: from the image", "write: yes"]);
    said(&run(&scene, &bundle), &["before: today"]);
    assert_eq!(hash(&bundle.path, &["disk.img"]), before, "the image has changed");
    // Nothing of the host reaches such a guest: that is said, and nobody finds an empty directory.
    let volumes = Volumes::new(&scene);
    volumes.mount(&bundle);
    let message = scene.fails(&["create", "--bundle", bundle.str(), "other"]);
    assert!(message.contains("/etc/config/key") && message.contains("/data"), "{message}");
    // And a disk that the monitor could not open is found at create, not by the monitor.
    bundle.edit(|spec| spec["mounts"] = serde_json::json!([]));
    chown(bundle.path.join("rootfs/disk.img"), Some(0), Some(0)).unwrap();
    let message = scene.fails(&["create", "--bundle", bundle.str(), "other"]);
    assert!(message.contains("/disk.img") && message.contains("may not write"), "{message}");
    scene.assert_clean();
    passed()
}

/// R20: `root.readonly` was ignored.
fn read_only_image() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle =
        image_bundle(&scene, r#"say "image: $(show /etc/image)"; say "write: $(try put /work/x y)""#);
    bundle.edit(|spec| spec["root"]["readonly"] = true.into());
    // Anybody may read it.
    chown(bundle.path.join("rootfs/disk.img"), Some(0), Some(0)).unwrap();
    let before = hash(&bundle.path, &[]);
    said(&run(&scene, &bundle), &["image: from the image", "write: no"]);
    assert_eq!(hash(&bundle.path, &[]), before, "the image has changed");
    passed()
}

/// What urunit does with its configuration: section UBS, lines ID and MP.
const URUNIT: &str = r#"
say "told: $URUNIT_CONFIG"
/bin/busybox mkdir -p /volume /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t sysfs sysfs /sys
id=$(/bin/busybox sed -n 's/^ID://p' "$URUNIT_CONFIG")
place=$(/bin/busybox sed -n 's/^MP://p' "$URUNIT_CONFIG")
ro=$(/bin/busybox cat /sys/block/vda/ro)
[ "$ro" = 1 ] && options=ro,noload || options=rw
[ "$(/bin/busybox cat /sys/block/vda/serial)" = "$id" ] && /bin/busybox mount -t ext4 -o "$options" /dev/vda "$place"
say "volume: $(show /volume/one)"
say "write volume: $(try put /volume/two 2)"
"#;

/// The way to have drivers, a disk image and the host's files at once.
fn image_beside() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = linux::bundle(&scene, "/urunit");
    bundle.annotate("initrd", "/boot/initrd");
    bundle.annotate("block", "/disk.img");
    bundle.annotate("blkMntPoint", "/volume");
    let rootfs = bundle.path.join("rootfs");
    let script = format!("{URUNIT}{LOOK}");
    fs::write(rootfs.join("boot/initrd"), linux::initrd_with(linux::DISK, &[], &script)).unwrap();
    let content = scene.path("content");
    fs::create_dir(&content).unwrap();
    fs::write(content.join("one"), "1\n").unwrap();
    linux::ext4(&rootfs.join("disk.img"), &content, scene.uid);
    let volumes = Volumes::new(&scene);
    volumes.mount(&bundle);
    let before = hash(&bundle.path, &["disk.img", "config.json"]);
    for expected in ["yes", "no"] {
        let text = run(&scene, &bundle);
        said(&text, &["image: from the image", "config: configured", "directory: 1 2", "hosts: yes"]);
        said(&text, &["volume: 1", &format!("write volume: {expected}")]);
        volumes.assert_unchanged();
        // R20: `root.readonly` was ignored.
        bundle.edit(|spec| spec["root"]["readonly"] = true.into());
    }
    assert_eq!(hash(&bundle.path, &["disk.img", "config.json"]), before, "the image has changed");
    passed()
}

/// A bundle whose rootfs is an ext4 file system on a loop device, as the blockfile snapshotter makes one.
fn block_bundle(scene: &Scene, script: &str) -> (Bundle, PathBuf) {
    let bundle = linux::bundle(scene, "/init");
    bundle.annotate("mountRootfs", "true");
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    linux::tree(&tree, script);
    let image = scene.path("snapshot.img");
    linux::ext4(&image, &tree, 0);
    (bundle, image)
}

/// R3, R7, R9, R10: boot files were moved out of the snapshot, the loop device went away, `urunc.json` was demanded.
fn block_device() -> Result<(), Failed> {
    let scene = Scene::new();
    let (bundle, image) = block_bundle(&scene, LOOK);
    let volumes = Volumes::new(&scene);
    volumes.mount(&bundle);
    let rootfs = bundle.path.join("rootfs");
    for turn in 0..2 {
        // As containerd does for each start.
        let mounted = Mounted::new(&image, &rootfs, "rw,noatime");
        let kernel = fs::read(rootfs.join("boot/vmlinuz")).unwrap();
        assert_eq!(rootfs.join("work/written").exists(), turn == 1);
        let before = inventory(&scene.path(""));
        scene.create_ok(&bundle, "guest");
        let created = inventory(&scene.path(""));
        assert_eq!((before.len(), created.len()), (2, 1), "only the loop device is left: {created:?}");
        scene.ok(&["start", "guest"]);
        assert!(eventually(|| scene.status("guest") == "stopped"), "{}", scene.console());
        let text = scene.console().replace('\r', "");
        said(&text, &["image: from the image", "config: configured", "directory: 1 2", "hosts: yes"]);
        said(&text, &["write: yes", "end"]);
        scene.ok(&["delete", "guest"]);
        volumes.assert_unchanged();
        drop(mounted);
        assert!(eventually(|| inventory(&scene.path("")).is_empty()), "{:?}", inventory(&scene.path("")));
        // The kernel is still there for the next start.
        let again = Mounted::new(&image, &rootfs, "rw");
        assert_eq!(fs::read(rootfs.join("boot/vmlinuz")).unwrap(), kernel);
        assert_eq!(fs::read_to_string(rootfs.join("work/written")).unwrap(), "today\n");
        drop(again);
    }
    scene.assert_clean();
    passed()
}

/// The guest would find its file system changed by somebody else; with the file system unmounted, the hook would find nothing.
fn hook_on_device() -> Result<(), Failed> {
    let scene = Scene::new();
    let (bundle, image) = block_bundle(&scene, LOOK);
    let rootfs = bundle.path.join("rootfs");
    let mounted = Mounted::new(&image, &rootfs, "rw");
    let before = inventory(&scene.path(""));
    bundle.edit(|spec| spec["hooks"]["startContainer"] = serde_json::json!([{"path": "/init"}]));
    let message = scene.fails(&["create", "--bundle", bundle.str(), "guest"]);
    let (start, end) = (
        "urunc: error: cannot run the startContainer hook /init: the container's root file system is given to the guest as \
         the block device /dev/loop",
        "make it a createContainer hook, or use another annotation than mountRootfs",
    );
    assert!(message.starts_with(start) && message.ends_with(end), "{message}");
    assert_eq!(inventory(&scene.path("")), before);
    drop(mounted);
    scene.assert_clean();
    passed()
}

/// R4 to R6, R23: volumes were unmounted although others used them, never came back, or without their options.
fn block_volume() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = linux::bundle(&scene, "/urunit");
    bundle.annotate("initrd", "/boot/initrd");
    let boot = bundle.path.join("rootfs/boot");
    fs::write(boot.join("initrd"), linux::initrd_with(linux::DISK, &[], URUNIT)).unwrap();
    let content = scene.path("content");
    fs::create_dir(&content).unwrap();
    fs::write(content.join("one"), "1\n").unwrap();
    linux::ext4(&scene.path("volume.img"), &content, 0);
    let volume = scene.path("volume");
    let mounted = Mounted::new(&scene.path("volume.img"), &volume, "rw,nosuid,nodev,noatime,commit=7");
    linux::bind(&bundle, &volume, "/volume", "rw");
    let before = inventory(&scene.path(""));
    scene.create_ok(&bundle, "guest");
    assert!(!volume.join("one").exists(), "it is still mounted on the host");
    scene.ok(&["start", "guest"]);
    assert!(eventually(|| scene.status("guest") == "stopped"), "{}", scene.console());
    said(
        &scene.console().replace('\r', ""),
        &["told: /urunit.conf", "volume: 1", "write volume: yes", "end"],
    );
    scene.ok(&["delete", "guest"]);
    assert_eq!(inventory(&scene.path("")), before, "the volume is not as it was");
    assert_eq!(fs::read_to_string(volume.join("two")).unwrap(), "2\n");
    drop(mounted);
    assert!(eventually(|| inventory(&scene.path("")).is_empty()), "{:?}", inventory(&scene.path("")));
    scene.assert_clean();
    passed()
}

/// A bundle whose rootfs is a directory.
fn directory_bundle(scene: &Scene, script: &str) -> Bundle {
    let bundle = linux::bundle(scene, "/init");
    bundle.annotate("mountRootfs", "true");
    linux::tree(&bundle.path.join("rootfs"), script);
    bundle
}

/// E4: virtiofsd raced with the monitor, ran as the container's user, and lost the volumes.
fn virtiofs() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle =
        directory_bundle(&scene, &format!("{LOOK}\nsay \"shared: $(try put /shared/from-guest x)\""));
    // By default, a guest's cache of a file is dropped whenever the file is opened again. That makes programs crash where
    // the guest is emulated: QEMU translates code once, and does not see that virtiofsd has written something else to
    // the same memory since. Under KVM nothing is translated.
    scene.configure("[runtime]\nkvm = \"off\"\n[extra_binaries.virtiofsd]\noptions = \"--cache=always\"\n");
    let volumes = Volumes::new(&scene);
    volumes.mount(&bundle);
    Volumes::scratch(&bundle);
    let shared = scene.path("shared");
    fs::create_dir(&shared).unwrap();
    linux::bind(&bundle, &shared, "/shared", "rw");
    let rootfs = bundle.path.join("rootfs");
    let new = ["written", "config", "data", "shared", "hosts", "scratch"];
    let before = hash(&rootfs, &new);
    for _ in 0..2 {
        let text = run(&scene, &bundle);
        said(&text, &["image: from the image", "config: configured", "directory: 1 2", "hosts: yes"]);
        said(&text, &["write: yes", "write config: no", "write directory: no", "shared: yes"]);
        said(&text, &["scratch: yes", "too much: no"]);
        assert_eq!(fs::read_dir(rootfs.join("scratch")).unwrap().count(), 0, "that is no memory");
        volumes.assert_unchanged();
        assert_eq!(fs::read_to_string(rootfs.join("work/written")).unwrap(), "today\n");
        assert!(shared.join("from-guest").exists());
    }
    assert_eq!(hash(&rootfs, &new), before, "the image has changed");
    // It dies with the container, whatever state that is in. And whoever takes the default is told what comes of it.
    scene.configure("[runtime]\nkvm = \"off\"\n");
    let output = scene.create(&bundle, "guest");
    assert!(output.status.success() && describe(&output).contains("--cache=always"), "{}", describe(&output));
    scene.ok(&["delete", "--force", "guest"]);
    scene.assert_clean();
    passed()
}

fn nine_p() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = directory_bundle(&scene, LOOK);
    scene.configure(
        "[runtime]\nkvm = \"off\"\n[extra_binaries.virtiofsd]\npath = \"/nonexistent/virtiofsd\"\n",
    );
    let volumes = Volumes::new(&scene);
    volumes.mount(&bundle);
    Volumes::scratch(&bundle);
    // The monitor itself serves the files, as its own user.
    chown(bundle.path.join("rootfs/work"), Some(scene.uid), Some(scene.uid)).unwrap();
    let text = run(&scene, &bundle);
    said(&text, &["image: from the image", "config: configured", "directory: 1 2", "hosts: yes"]);
    said(&text, &["write: yes", "write config: no", "write directory: no"]);
    said(&text, &["scratch: yes", "too much: no"]);
    let left = fs::read_dir(bundle.path.join("rootfs/scratch")).unwrap();
    assert_eq!(left.count(), 0, "that is no memory");
    volumes.assert_unchanged();
    passed()
}

fn dead_virtiofsd() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = directory_bundle(&scene, "");
    let program = scene.script("echo '[ERROR virtiofsd] out of order' >&2; exit 1");
    let config = format!("[runtime]\nkvm = \"off\"\n[extra_binaries.virtiofsd]\npath = {program:?}\n");
    scene.configure(&config);
    scene.create_ok(&bundle, "guest");
    // Its parent, init, does not wait for it: a zombie says that it has ended.
    let init = scene.pid("guest");
    let ended = || {
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
        let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        children.split_whitespace().all(|pid| stat(pid).contains(") Z "))
    };
    assert!(eventually(ended));
    let output = scene.urunc(&["start", "guest"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("virtiofsd"), "{}", describe(&output));
    assert!(text.contains("out of order"), "its own words are repeated: {text}");
    assert_eq!(scene.status("guest"), "stopped");
    scene.ok(&["delete", "guest"]);
    // One that cannot be executed at all fails create already.
    fs::write(&program, "\0").unwrap();
    let output = scene.create(&bundle, "guest");
    assert!(!output.status.success() && describe(&output).contains("monitor.sh"), "{}", describe(&output));
    scene.assert_clean();
    passed()
}

/// Each of these fails after the root file system, and a volume, have been taken from the host.
fn failed_create() -> Result<(), Failed> {
    let scene = Scene::new();
    let (bundle, image) = block_bundle(&scene, LOOK);
    let rootfs = bundle.path.join("rootfs");
    let volumes = Volumes::new(&scene);
    linux::ext4(&scene.path("volume.img"), &volumes.directory, 0);
    let volume = scene.path("volume");
    let _rootfs = Mounted::new(&image, &rootfs, "rw,noatime");
    let _volume = Mounted::new(&scene.path("volume.img"), &volume, "ro,nosuid,nodev");
    volumes.mount(&bundle);
    bundle.edit(|spec| spec["process"]["args"] = serde_json::json!(["/urunit"]));
    linux::bind(&bundle, &volume, "/volume", "ro");
    let before = (inventory(&scene.path("")), hash(&rootfs, &["lost+found"]));
    let fails = |step: &str, args: &[&str]| {
        let args = [&["create", "--bundle", bundle.str()][..], args, &["guest"]].concat();
        let output = scene.command(&args).output().unwrap();
        assert!(!output.status.success(), "{step} did not fail");
        let after = (inventory(&scene.path("")), hash(&rootfs, &["lost+found"]));
        assert_eq!(after, before, "after {step}: {}", describe(&output));
        assert!(scene.leftovers().iter().all(|left| left.starts_with("mount")), "{:?}", scene.leftovers());
    };
    // A second volume that is busy: the rootfs and the first volume have been taken by then.
    let busy = scene.path("busy");
    linux::ext4(&scene.path("busy.img"), &volumes.directory, 0);
    let whole = bundle.spec();
    {
        let _busy = Mounted::new(&scene.path("busy.img"), &busy, "rw");
        let open = fs::File::open(busy.join("one")).unwrap();
        linux::bind(&bundle, &busy, "/busy", "rw");
        let with_busy = inventory(&scene.path(""));
        let output = scene.urunc(&["create", "--bundle", bundle.str(), "guest"]);
        assert!(!output.status.success(), "{}", describe(&output));
        assert_eq!(inventory(&scene.path("")), with_busy, "after a busy volume: {}", describe(&output));
        drop(open);
    }
    bundle.write(&whole);
    // The clone of init.
    bundle.edit(|spec| {
        spec["linux"]["namespaces"][1] = serde_json::json!({"type": "network", "path": "/nonexistent/netns"});
    });
    fails("a namespace that is not there", &[]);
    bundle.write(&whole);
    // The last step before the container is created.
    fails("a pid file that cannot be written", &["--pid-file", "/proc/nonexistent/pid"]);
    // And after all this it still works.
    scene.create_ok(&bundle, "guest");
    scene.ok(&["delete", "--force", "guest"]);
    assert!(volume.join("one").exists(), "the volume has not come back");
    passed()
}

/// The places for volumes that were made in the image stayed there.
fn failed_share() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = directory_bundle(&scene, "");
    let rootfs = bundle.path.join("rootfs");
    let volumes = Volumes::new(&scene);
    volumes.mount(&bundle);
    linux::bind(&bundle, &volumes.directory, "/new/deep", "ro");
    let listing = || {
        let mut found = vec![rootfs.clone()];
        for at in 0.. {
            let Some(directory) = found.get(at) else { break };
            let entries = if directory.is_dir() { Some(fs::read_dir(directory).unwrap()) } else { None };
            found.extend(entries.into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        found.sort();
        found
    };
    let before = (hash(&rootfs, &[]), listing());
    let program = scene.script("exec sleep 1000");
    let missing = scene.path("missing");
    // By virtiofs, and, where there is no such program, by 9p.
    for virtiofsd in [&program, &missing] {
        scene.configure(&format!(
            "[runtime]\nkvm = \"off\"\n[extra_binaries.virtiofsd]\npath = {virtiofsd:?}\n"
        ));
        // The last step before the container is created.
        let arguments = ["create", "--pid-file", "/proc/1/nonexistent", "--bundle", bundle.str(), "guest"];
        let output = scene.urunc(&arguments);
        assert!(!output.status.success(), "{}", describe(&output));
        assert_eq!((hash(&rootfs, &[]), listing()), before, "{}", describe(&output));
        scene.create_ok(&bundle, "guest");
        assert!(rootfs.join("new/deep").exists(), "volumes are not in the shared tree: this tests nothing");
        scene.ok(&["delete", "--force", "guest"]);
        for made in ["new/deep", "new", "etc/config/key", "etc/config", "etc/hosts", "data"] {
            let made = rootfs.join(made);
            let removed = if made.is_dir() { fs::remove_dir(&made) } else { fs::remove_file(&made) };
            assert!(removed.is_ok() || !made.exists(), "{}", made.display());
        }
    }
    scene.assert_clean();
    passed()
}

/// R5: whatever was unmounted was forgotten, if create did not come to its end.
fn killed_create() -> Result<(), Failed> {
    let scene = Scene::new();
    let (bundle, image) = block_bundle(&scene, LOOK);
    let rootfs = bundle.path.join("rootfs");
    let volumes = Volumes::new(&scene);
    linux::ext4(&scene.path("volume.img"), &volumes.directory, 0);
    let volume = scene.path("volume");
    let _volume = Mounted::new(&scene.path("volume.img"), &volume, "ro,nosuid,nodev");
    linux::bind(&bundle, &volume, "/volume", "ro");
    bundle.edit(|spec| spec["process"]["args"] = serde_json::json!(["/urunit"]));
    // A hook that runs when the devices have been taken, and does not end by itself.
    let reached = scene.path("reached");
    let hook = scene.script(&format!("echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000", reached.display()));
    bundle.edit(|spec| {
        spec["hooks"] = serde_json::json!({"createRuntime": [{"path": hook}]});
    });
    let before = inventory(&scene.path(""));
    let commands: [&[&[&str]]; 4] = [
        &[&["delete", "guest"]],
        &[&["delete", "--force", "guest"]],
        &[&["kill", "guest", "KILL"], &["delete", "guest"]],
        &[&["kill", "guest", "TERM"], &["delete", "guest"]],
    ];
    for commands in commands {
        let _rootfs = Mounted::new(&image, &rootfs, "rw,noatime");
        let _ = fs::remove_file(&reached);
        let mut create = scene.command(&["create", "--bundle", bundle.str(), "guest"]);
        // Init and the hook inherit its streams, and may outlive a test that fails.
        let mut create = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert!(eventually(|| reached.exists()));
        assert!(!volume.join("one").exists() && !rootfs.join("work").exists(), "nothing has been taken yet");
        create.kill().unwrap();
        create.wait().unwrap();
        kill(fs::read_to_string(&reached).unwrap().trim().parse().unwrap());
        // Init ends with the conversation.
        assert!(eventually(|| !scene.leftovers().iter().any(|left| left.starts_with("process"))));
        for (at, command) in commands.iter().enumerate() {
            scene.ok(command);
            // Its own root file system is whoever made it to mount again, as its loop device has gone with create.
            assert_eq!(inventory(&scene.path("")), before, "after {command:?}, the step {at}");
        }
        assert_eq!(fs::read_to_string(volume.join("one")).unwrap(), "1\n");
        scene.assert_clean_but_mounts();
    }
    passed()
}

/// R4, R14: the message names who uses it.
fn busy_volume() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = linux::bundle(&scene, "/urunit");
    bundle.annotate("initrd", "/boot/initrd");
    fs::write(bundle.path.join("rootfs/boot/initrd"), linux::initrd("")).unwrap();
    let volumes = Volumes::new(&scene);
    linux::ext4(&scene.path("volume.img"), &volumes.directory, 0);
    let volume = scene.path("volume");
    let _mounted = Mounted::new(&scene.path("volume.img"), &volume, "rw");
    linux::bind(&bundle, &volume, "/volume", "rw");
    let open = fs::File::open(volume.join("one")).unwrap();
    let before = inventory(&scene.path(""));
    let message = scene.fails(&["create", "--bundle", bundle.str(), "guest"]);
    let own_pid = std::process::id().to_string();
    assert!(message.contains(volume.to_str().unwrap()) && message.contains(&own_pid), "{message}");
    assert_eq!(inventory(&scene.path("")), before);
    drop(open);
    passed()
}

/// R18: directories, tmpfs and what has no way into the guest were dropped in silence.
fn undeliverable() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = linux::bundle(&scene, "/init");
    bundle.annotate("initrd", "/boot/initrd");
    fs::write(bundle.path.join("rootfs/boot/initrd"), linux::initrd("")).unwrap();
    let volumes = Volumes::new(&scene);
    linux::bind(&bundle, &volumes.directory, "/data", "rw");
    bundle.edit(|spec| {
        let remote = serde_json::json!({"destination": "/remote", "type": "nfs", "source": "server:/"});
        spec["mounts"].as_array_mut().unwrap().extend([remote]);
    });
    let message = scene.fails(&["create", "--bundle", bundle.str(), "guest"]);
    assert!(message.contains("/data"), "{message}");
    assert!(message.contains("undeliverable"), "the way out is told: {message}");
    assert!(!message.contains("/dev"), "what engines always mount is nobody's loss: {message}");
    scene.configure("[runtime]\nkvm = \"off\"\nundeliverable = \"warn\"\n");
    let output = scene.create(&bundle, "guest");
    let log = describe(&output);
    assert!(output.status.success(), "{log}");
    for place in ["/data", "/remote"] {
        assert!(log.contains(place), "{place} is not in the log: {log}");
    }
    scene.ok(&["delete", "--force", "guest"]);
    scene.assert_clean();
    passed()
}
