//! A world of their own for the tests: mount and network namespaces, a tmpfs for all scenes (so that a sync costs
//! nothing), and all orphans as our children.

use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::pod::Pod;
use crate::scene::{Need, demo};

/// Enters it. Must be called before there is a second thread. Returns what is missing, if something is.
pub(crate) fn isolate() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("x86_64".to_owned());
    }
    if !Need::Root.is_met() {
        return Some("root".to_owned());
    }
    if !Pod::is_possible() {
        return Some("ip, tc and nft".to_owned());
    }
    if !demo("demo-net-spt").exists() || !demo("demo-spt").exists() {
        return Some("the demo unikernel".to_owned());
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    #[allow(unsafe_code, reason = "the function cannot know that the flags are harmless")]
    // SAFETY: no descriptor table is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    // Over what the host has there; only we see it.
    let place = Path::new("/dev/shm");
    mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None).unwrap();
    let _ = tempfile::env::override_temp_dir(place);
    None
}

/// Whether `URUNC_REQUIRE` promises it.
pub(crate) fn is_required(what: &str) -> bool {
    std::env::var("URUNC_REQUIRE").is_ok_and(|required| required.split(',').any(|word| what.contains(word)))
}
