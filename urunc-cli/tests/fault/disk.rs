//! What a guest with disks has: its root file system and a volume, each an ext4 file system on a loop device that the
//! host has mounted. The devices stay when nobody uses them, as a disk would.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene::{Bundle, Scene, demo, in_path};

/// How the host has mounted the root file system and the volume.
const ROOTFS: &str = "noatime";
const VOLUME: &str = "nosuid,nodev,noatime";

/// The two file systems.
#[derive(Debug)]
pub(crate) struct Disk {
    rootfs: Device,
    _volume: Device,
}

#[derive(Debug)]
struct Device {
    node: String,
    point: PathBuf,
    options: &'static str,
}

impl Disk {
    /// What is missing on this machine, if something is.
    pub(crate) fn missing() -> Option<&'static str> {
        let tools = ["mkfs.ext4", "losetup", "mount"].iter().all(|tool| in_path(tool).is_some());
        if !tools {
            Some("mkfs.ext4, losetup and mount")
        } else if !Path::new("/dev/loop-control").exists() {
            Some("loop devices")
        } else {
            None
        }
    }

    /// Makes both, and the bundle of a guest that gets them.
    pub(crate) fn new(scene: &Scene) -> (Self, Bundle) {
        let monitor = scene.script("exec sleep 1000");
        scene.configure(&format!("[runtime]\nkvm = \"off\"\n[monitors.qemu]\npath = {monitor:?}\n"));
        let bundle = scene.bundle("bundle", "qemu", "demo", &["/urunit"]);
        let kernel = bundle.path.join("rootfs");
        let rootfs = Device::new(&scene.path("rootfs.img"), &kernel, &kernel, ROOTFS);
        let data = scene.path("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::copy(demo("demo-spt"), data.join("file")).unwrap();
        let volume = Device::new(&scene.path("volume.img"), &data, &scene.path("volume"), VOLUME);
        bundle.annotate("unikernelType", "linux");
        bundle.annotate("mountRootfs", "true");
        let source = volume.point.clone();
        bundle.edit(|spec| {
            spec["mounts"] = serde_json::json!([
                {"destination": "/volume", "type": "bind", "source": source, "options": ["rbind", "rw"]},
            ]);
        });
        volume.mount();
        let disk = Self { rootfs, _volume: volume };
        disk.mount_rootfs();
        (disk, bundle)
    }

    /// Mounts the root file system as its owner does for each create. A created container has it no longer mounted.
    pub(crate) fn mount_rootfs(&self) {
        if !self.rootfs.is_mounted() {
            self.rootfs.mount();
        }
    }
}

impl Device {
    fn new(image: &Path, content: &Path, point: &Path, options: &'static str) -> Self {
        std::fs::create_dir_all(point).unwrap();
        std::fs::File::create(image).unwrap().set_len(2 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "1024", "-d"]).arg(content).arg(image));
        let node = run(Command::new("losetup").args(["--find", "--show"]).arg(image));
        Self { node: node.trim().to_owned(), point: point.to_owned(), options }
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", self.options, &self.node]).arg(&self.point));
    }

    fn is_mounted(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().any(|line| line.split(' ').nth(4) == self.point.to_str())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Whatever a trial has left of it.
        let _ = Command::new("umount").args(["-q", "--lazy"]).arg(&self.point).status();
        let _ = Command::new("losetup").arg("-d").arg(&self.node).status();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
