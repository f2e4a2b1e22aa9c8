//! Where a process's cgroups are, and how their files are read (cgroups(7), the kernel's `Documentation/admin-guide/cgroup-v1` and `cgroup-v2.rst`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::shim::ShimError;

const MOUNTS: &str = "/sys/fs/cgroup";

/// The cgroups of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// By controller; the unified hierarchy under the empty name.
    paths: BTreeMap<String, String>,
}

impl Membership {
    /// The cgroups of `pid`.
    ///
    /// # Errors
    /// [`ShimError::Path`] if there is no such process.
    pub fn of(pid: u32) -> Result<Self, ShimError> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = fs::read_to_string(&path).map_err(ShimError::path("read", path))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut paths = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            if let (Some(controllers), Some(path)) = (fields.next(), fields.next()) {
                for controller in controllers.split(',') {
                    paths.insert(controller.to_owned(), path.trim_start_matches('/').to_owned());
                }
            }
        }
        Self { paths }
    }

    /// How often the kernel has killed a process here because memory was short. The process itself may be gone.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let (directory, file) = match self.unified() {
            Some(directory) => (Some(directory), "memory.events"),
            None => (self.controller("memory"), "memory.oom_control"),
        };
        directory.map_or(0, |directory| table(&directory, file)("oom_kill"))
    }

    /// The directory in the unified hierarchy, where that one has the controllers.
    pub(super) fn unified(&self) -> Option<PathBuf> {
        let root = Path::new(MOUNTS);
        let path = self.paths.get("")?;
        root.join("cgroup.controllers").exists().then(|| root.join(path))
    }

    /// The directory in a controller's own hierarchy.
    pub(super) fn controller(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new(MOUNTS).join(name).join(self.paths.get(name)?))
    }
}

/// A file with one number. `max` is the largest.
pub(super) fn number(directory: &Path, file: &str) -> u64 {
    let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
    parse(text.trim())
}

/// A file of lines `name number`.
pub(super) fn table(directory: &Path, file: &str) -> impl Fn(&str) -> u64 + use<> {
    let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
    let mut table = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(' ') {
            table.insert(name.to_owned(), parse(value));
        }
    }
    move |name| table.get(name).copied().unwrap_or(0)
}

/// A file's lines as words.
pub(super) fn rows(directory: &Path, file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// `major:minor`
pub(super) fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn parse(text: &str) -> u64 {
    if text == "max" { u64::MAX } else { text.parse().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_one_cgroup_per_hierarchy() {
        let membership = Membership::parse("4:memory:/a:b\n2:cpu,cpuacct:/c\n1:name=systemd:/\n0::/u/v\n");
        assert_eq!(membership.controller("memory").unwrap(), Path::new("/sys/fs/cgroup/memory/a:b"));
        assert_eq!(membership.controller("cpuacct").unwrap(), Path::new("/sys/fs/cgroup/cpuacct/c"));
        assert_eq!(membership.controller("pids"), None);
    }

    #[test]
    fn numbers_are_read_and_no_limit_is_the_largest() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pids.max"), "max\n").unwrap();
        fs::write(dir.path().join("memory.stat"), "cache 5\nrss 7\n").unwrap();
        assert_eq!(number(dir.path(), "pids.max"), u64::MAX);
        assert_eq!(number(dir.path(), "missing"), 0);
        let stat = table(dir.path(), "memory.stat");
        assert_eq!((stat("cache"), stat("rss"), stat("other")), (5, 7, 0));
    }
}
