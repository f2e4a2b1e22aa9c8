//! Where everything happens: a mount namespace of our own, with file systems in memory and one cgroup layout for all.
//!
//! Nothing of it is left when this process ends.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

use crate::error::{Context, Result};
use crate::sys;

const CGROUPS: &str = "/sys/fs/cgroup";

/// The place.
#[derive(Debug)]
pub(crate) struct Place {
    dir: tempfile::TempDir,
    mounted_cgroups: bool,
    /// In words, for the report.
    pub(crate) layout: &'static str,
}

impl Place {
    /// Makes it. This process must have one thread.
    pub(crate) fn make() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("urunc-bench-").tempdir().to("make a directory")?;
        sys::leave_mount_namespace().to("leave the mount namespace; root is needed")?;
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
            .to("make mounts private")?;
        let memory = dir.path();
        mount("tmpfs", memory, "tmpfs", MountFlags::empty(), None).to("mount a tmpfs")?;
        // Shims and runtimes keep their state there; it is in memory on most hosts, and on all of them in here.
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).to("mount a tmpfs on /run")?;
        let unified = Path::new(CGROUPS).join("cgroup.controllers").exists();
        let layout = if unified {
            "v2, as the host has it"
        } else {
            // crun takes no hybrid layout; without controllers all runtimes have the same to do.
            mount("cgroup2", CGROUPS, "cgroup2", MountFlags::empty(), None).to("mount the v2 hierarchy")?;
            "v2 in a mount namespace of the bench's (the host's own layout is v1 or hybrid, which crun refuses)"
        };
        Ok(Self { dir, mounted_cgroups: !unified, layout })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory below the place.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).to(format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Shows the host's own cgroup layout again.
    pub(crate) fn restore_cgroups(&mut self) -> Result<()> {
        if std::mem::take(&mut self.mounted_cgroups) {
            unmount(CGROUPS, UnmountFlags::DETACH).to("unmount the v2 hierarchy")?;
        }
        Ok(())
    }

    /// The cgroup of this process in the v2 hierarchy, below which the floor makes its own.
    pub(crate) fn cgroup() -> PathBuf {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        Path::new(CGROUPS).join(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The directory below can be removed only without its mount.
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}
