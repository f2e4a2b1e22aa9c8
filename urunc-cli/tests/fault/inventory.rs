//! What there is on the host, as lines of text: what a container could leave behind.
//!
//! The test binary has mount and network namespaces of its own (see `isolate`), so mounts are compared in full. Cgroups
//! and loop devices are the machine's; of these, what bears the scene's name is listed.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::pod::Pod;
use crate::scene::Scene;

/// How the directory of every scene begins.
const SCENES: &str = "/urunc-e2e-";

/// Everything that could be left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inventory {
    lines: BTreeSet<String>,
    /// Name of the scene's directory.
    scene: String,
}

impl Inventory {
    pub(crate) fn take(scene: &Scene, pod: Option<&Pod>) -> Self {
        // Processes and the state root; mounts come below.
        let mut lines: BTreeSet<_> =
            scene.leftovers().into_iter().filter(|line| !line.starts_with("mount ")).collect();
        files(&scene.path(""), &mut lines);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        // Without the numbers of the mount, of its parent and of what is mounted.
        let mount = |line: &str| line.split(' ').skip(4).collect::<Vec<_>>().join(" ");
        lines.extend(mounts.lines().map(|line| format!("mount {}", mount(line))));
        let name = scene.path("").file_name().unwrap().to_str().unwrap().to_owned();
        cgroups(&mounts, &name, &mut lines);
        loop_devices(&name, &mut lines);
        if let Some(pod) = pod {
            lines.extend(pod.network().lines().map(|line| format!("network {line}")));
        }
        Self { lines, scene: name }
    }

    /// What is more and what is less than it was; nothing, if all is as before.
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<String> {
        let ours = |line: &&String| !line.starts_with("mount ") || line.contains(&self.scene);
        // Mounts of other scenes come and go, and the kernel detaches those whose mount point the host removes.
        let new = |line: &&String| ours(line) || !line.contains(SCENES);
        let more = self.lines.difference(&before.lines).filter(new).map(|line| format!("+ {line}"));
        let less = before.lines.difference(&self.lines).filter(ours).map(|line| format!("- {line}"));
        more.chain(less).collect()
    }
}

/// Every file with its kind, mode, owner, size and a hash of its contents.
fn files(directory: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        let mut line = format!(
            "file {} {:o} {}:{} {}",
            path.display(),
            found.mode(),
            found.uid(),
            found.gid(),
            found.nlink()
        );
        if found.is_file() {
            let mut hasher = DefaultHasher::new();
            // A file system's image changes whenever it is mounted; the files in it are looked at. A namespace cannot be read.
            if path.extension().is_none_or(|extension| extension != "img") {
                fs::read(&path).unwrap_or_default().hash(&mut hasher);
            }
            line += &format!(" {} {:016x}", found.size(), hasher.finish());
        } else if found.is_dir() {
            files(&path, lines);
        } else if found.file_type().is_socket() {
            line += " socket";
        }
        lines.insert(line);
    }
}

/// Control groups that bear the scene's name, in every mounted hierarchy.
fn cgroups(mounts: &str, name: &str, lines: &mut BTreeSet<String>) {
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let mount = line.split(' ').nth(4).unwrap();
        let entries = fs::read_dir(mount).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().contains(name));
        lines.extend(ours.map(|entry| format!("cgroup {}", entry.path().display())));
    }
}

/// Loop devices with a file of the scene behind them.
fn loop_devices(name: &str, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(name) {
            lines.insert(format!("loop {} {file}", entry.path().display()));
        }
    }
}
