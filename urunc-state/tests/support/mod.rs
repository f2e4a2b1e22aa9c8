//! What the integration tests share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use urunc_state::{AbsolutePath, ContainerId, Deadline, Origin, Record, Store};

/// How long to wait for what must happen, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

pub(crate) fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

pub(crate) fn id(id: &str) -> ContainerId {
    ContainerId::new(id).unwrap()
}

pub(crate) fn path(path: impl Into<PathBuf>) -> AbsolutePath {
    AbsolutePath::new(path).unwrap()
}

pub(crate) fn container(name: &str) -> (Origin, Record) {
    (Origin::new(id(name), path("/bundle")), Record::new(id(name), path("/bundle")))
}

/// A store in a directory that vanishes with the value.
pub(crate) struct Scratch {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
}

pub(crate) fn scratch() -> Scratch {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    Scratch { directory, store }
}

/// Everything below a directory, sorted.
pub(crate) fn tree(directory: &Path) -> Vec<String> {
    fn walk(directory: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), found);
            }
            found.push(name);
        }
    }
    let mut found = vec![];
    walk(directory, "", &mut found);
    found.sort();
    found
}

/// Waits until `condition` holds; panics if it never does.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Whether a test must be skipped for lack of `what`; panics if `URUNC_REQUIRE` says that it must not be missing.
pub(crate) fn lacks(what: &str, present: bool) -> bool {
    if present {
        return false;
    }
    let required = std::env::var("URUNC_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|word| word == what), "needs {what}, which URUNC_REQUIRE demands");
    // Past the test harness, which keeps the output of tests that pass to itself.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped: needs {what}").unwrap();
    true
}

/// Whether we may mount and unshare.
pub(crate) fn is_root() -> bool {
    let capabilities = rustix::thread::capabilities(None).unwrap();
    capabilities.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN)
}

/// Runs `work` on a thread in a mount namespace of its own, so that its mounts vanish with the thread.
pub(crate) fn in_mount_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: only this thread's view of the mounts changes; no descriptors are unshared.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
            use rustix::mount::{MountPropagationFlags as Flags, mount_change};
            mount_change("/", Flags::PRIVATE | Flags::REC).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
