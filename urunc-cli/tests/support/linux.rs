//! A small Linux guest: a kernel, busybox, and a script as its init, as an initrd, a
//! directory or an ext4 image. The script does what the test wants and says what it sees.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use urunc_rootfs::initrd::{Addition, Content, Dialect, compose};

use super::scene::{BUSYBOX, Bundle, Scene, guest_kernel, stock_kernel};

/// What every script begins with; `say` writes a line that no kernel message can tear apart.
const PRELUDE: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc 2>/dev/null
say() { /bin/busybox echo "guest: $*"; }
try() { if "$@" 2>/dev/null; then /bin/busybox echo yes; else /bin/busybox echo no; fi; }
show() { /bin/busybox cat "$1" 2>/dev/null || /bin/busybox echo nothing; }
put() { /bin/busybox echo "$2" >"$1"; }
"#;
/// What every script ends with. Everything reaches the disk first.
const POSTLUDE: &str = "/bin/busybox sync\nsay end\n/bin/busybox poweroff -f\n";

/// Modules of the stock kernel, in the order in which they can be loaded; see `scripts/stock-kernel`.
pub(crate) const NETWORK: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];
pub(crate) const DISK: &[&str] =
    &["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"];

/// The kernel with the most drivers that there is.
fn kernel() -> PathBuf {
    guest_kernel().unwrap_or_else(stock_kernel)
}

/// The guest's files, with `script` as its init and as urunit.
fn files(script: &str) -> Vec<Addition> {
    let script = format!("{PRELUDE}{script}\n{POSTLUDE}").into_bytes();
    let entry = |path: &str, mode: u32, content: Content| Addition {
        path: path.into(),
        content,
        mode,
        uid: 0,
        gid: 0,
        mtime: 0,
    };
    let mut all: Vec<Addition> = ["/bin", "/boot", "/dev", "/etc", "/proc", "/work"]
        .iter()
        .map(|path| entry(path, 0o755, Content::Directory))
        .collect();
    all.push(entry("/bin/busybox", 0o755, Content::File(fs::read(BUSYBOX).unwrap())));
    all.push(entry("/bin/sh", 0o777, Content::Link("busybox".into())));
    all.push(entry("/init", 0o755, Content::File(script.clone())));
    all.push(entry("/urunit", 0o755, Content::File(script)));
    all.push(entry("/etc/image", 0o644, Content::File(b"from the image".to_vec())));
    all
}

/// The files as an initrd.
pub(crate) fn initrd(script: &str) -> Vec<u8> {
    initrd_with(&[], &[], script)
}

/// An initrd that loads the stock kernel's `drivers` before `script` runs, and has programs or data besides. For a kernel
/// that has them built in, loading fails, and that is well.
pub(crate) fn initrd_with(drivers: &[&str], more: &[(&str, &[u8])], script: &str) -> Vec<u8> {
    let insert =
        |driver: &&str| format!("[ -e /{driver}.ko ] && /bin/busybox insmod /{driver}.ko 2>/dev/null\n");
    let mut all = files(&(drivers.iter().map(insert).collect::<String>() + script));
    let module = |driver: &&str| {
        let path = stock_kernel().with_file_name("modules").join(format!("{driver}.ko"));
        Some((format!("{driver}.ko"), fs::read(path).ok()?))
    };
    let more = more.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec()));
    for (name, content) in drivers.iter().filter_map(module).chain(more) {
        let content = Content::File(content);
        all.push(Addition {
            path: format!("/{name}").into(),
            content,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
        });
    }
    let mut archive = Vec::new();
    compose(&mut Cursor::new(Vec::new()), &all, Dialect::Appended, &mut archive).unwrap();
    archive
}

/// The files in `directory`, the kernel among them.
pub(crate) fn tree(directory: &Path, script: &str) {
    for Addition { path, content, mode, .. } in files(script) {
        let path = directory.join(path.strip_prefix("/").unwrap());
        match content {
            Content::Directory => fs::create_dir_all(&path).unwrap(),
            Content::Link(to) => symlink(to, &path).unwrap(),
            Content::File(bytes) => {
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }
    fs::copy(kernel(), directory.join("boot/vmlinuz")).unwrap();
}

/// An ext4 image with what is in `directory`, owned by `owner`.
pub(crate) fn ext4(image: &Path, directory: &Path, owner: u32) {
    fs::File::create(image).unwrap().set_len(24 << 20).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "1024", "-d"]).arg(directory).arg(image));
    chown(image, Some(owner), Some(owner)).unwrap();
}

/// A bundle whose image has the kernel, for a Linux guest under QEMU without KVM.
pub(crate) fn bundle(scene: &Scene, program: &str) -> Bundle {
    scene.configure("[runtime]\nkvm = \"off\"\n");
    let path = scene.path("bundle");
    fs::create_dir_all(path.join("rootfs/boot")).unwrap();
    fs::copy(kernel(), path.join("rootfs/boot/vmlinuz")).unwrap();
    let bundle = Bundle { path };
    bundle.write(&json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": scene.uid, "gid": scene.uid}, "cwd": "/", "args": [program]},
        "annotations": {
            "com.urunc.unikernel.unikernelType": "linux",
            "com.urunc.unikernel.hypervisor": "qemu",
            "com.urunc.unikernel.binary": "/boot/vmlinuz",
        },
        "mounts": engine_mounts(),
        "linux": {
            "resources": {"memory": {"limit": 128 << 20}},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
        },
    }));
    bundle
}

/// What containerd and Docker mount into every container.
fn engine_mounts() -> serde_json::Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["rbind", "rw"]},
    ])
}

/// Adds a bind mount of `source`.
pub(crate) fn bind(bundle: &Bundle, source: &Path, destination: &str, option: &str) {
    let mount = json!({
        "destination": destination, "type": "bind", "source": source, "options": ["rbind", option],
    });
    bundle.edit(|spec| spec["mounts"].as_array_mut().unwrap().push(mount));
}

/// A file system on a loop device that is mounted on the host while this lives, and vanishes with its last user.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    pub(crate) fn new(image: &Path, point: &Path, options: &str) -> Self {
        fs::create_dir_all(point).unwrap();
        run(Command::new("mount").arg("-o").arg(format!("loop,{options}")).arg(image).arg(point));
        Self(point.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A guest may have it.
        let _ = Command::new("umount").arg("-q").arg(&self.0).status();
    }
}

/// The lines of this namespace's mount table, and the loop devices, that have to do with `place`.
pub(crate) fn inventory(place: &Path) -> Vec<String> {
    let own = place.to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    // The first three fields are numbers that differ for equal mounts.
    let mount = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
    let mut all: Vec<String> = mounts.lines().filter(|line| line.contains(own)).map(mount).collect();
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        let clears = fs::read_to_string(entry.path().join("loop/autoclear")).unwrap_or_default();
        if file.contains(own) {
            all.push(format!("loop {} autoclear {}", file.trim(), clears.trim()));
        }
    }
    all.sort();
    all
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
