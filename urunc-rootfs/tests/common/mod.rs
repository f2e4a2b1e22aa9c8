//! What the tests share: saying what is missing, and looking at things from a forked child in its own namespaces.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Runs tests one after the other on the main thread: a process with one thread can fork and unshare safely.
pub fn run(tests: Vec<(&'static str, fn())>) -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}

/// Lists test functions with their names.
#[macro_export]
macro_rules! tests {
    ($($test:ident),* $(,)?) => { vec![$((stringify!($test), $test as fn())),*] };
}

/// Whether `what` (such as `root`) is there; if not, says that the test is skipped, or fails if it is required.
pub fn have(what: &str, there: bool) -> bool {
    if !there {
        let required = std::env::var("URUNC_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|r| r == what),
            "URUNC_REQUIRE contains {what}, which is missing here"
        );
        eprintln!("skipped: needs {what}");
    }
    there
}

/// Whether the tests run as root.
pub fn have_root() -> bool {
    have("root", rustix::process::geteuid().is_root())
}

/// Whether `program` can be run.
pub fn have_program(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    have(program, std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).exists()))
}

/// Runs `look` in a forked child, which is single-threaded, and returns what it returns.
pub fn in_child<T: Serialize + DeserializeOwned>(look: impl FnOnce() -> T) -> T {
    child(look, |_| {})
}

/// Runs `look` in a forked child with a mount namespace of its own, independent of the host's.
pub fn in_own_mounts<T: Serialize + DeserializeOwned>(look: impl FnOnce() -> T) -> T {
    in_child(|| {
        enter_own_mounts();
        look()
    })
}

/// Moves this process into a mount namespace of its own.
pub fn enter_own_mounts() {
    // SAFETY: no memory or descriptor table is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

/// Runs `look` in a forked child that is root in a new user namespace, whose ids 0.. are the host's 100000..,
/// with a new mount namespace.
pub fn in_user_namespace<T: Serialize + DeserializeOwned>(look: impl FnOnce() -> T) -> T {
    let (ready, say_ready) = rustix::pipe::pipe().unwrap();
    let (go, say_go) = rustix::pipe::pipe().unwrap();
    child(
        || {
            // SAFETY: no memory or descriptor table is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }.unwrap();
            rustix::io::write(&say_ready, b"r").unwrap();
            rustix::io::read(&go, &mut [0u8; 1]).unwrap();
            rustix::thread::set_thread_gid(rustix::fs::Gid::ROOT).unwrap();
            rustix::thread::set_thread_uid(rustix::fs::Uid::ROOT).unwrap();
            look()
        },
        |pid| {
            rustix::io::read(&ready, &mut [0u8; 1]).unwrap();
            for map in ["uid_map", "gid_map"] {
                std::fs::write(format!("/proc/{pid}/{map}"), "0 100000 65536\n").unwrap();
            }
            rustix::io::write(&say_go, b"g").unwrap();
        },
    )
}

fn child<T: Serialize + DeserializeOwned>(look: impl FnOnce() -> T, meanwhile: impl FnOnce(i32)) -> T {
    let (from, to): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    // SAFETY: this process has one thread, so the child is a full copy with no lock held by anybody else.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "cannot fork");
    if pid == 0 {
        drop(from);
        // What went wrong is reported by the parent.
        std::panic::set_hook(Box::new(|_| {}));
        let result = catch_unwind(AssertUnwindSafe(look)).map_err(|e| {
            let text = e.downcast_ref::<String>().cloned();
            text.or_else(|| e.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
        });
        let _ = File::from(to).write_all(serde_json::to_string(&result).unwrap().as_bytes());
        // SAFETY: ends the child at once, without the parent's exit handlers.
        unsafe { libc::_exit(0) }
    }
    drop(to);
    meanwhile(pid);
    let mut text = String::new();
    File::from(from).read_to_string(&mut text).unwrap();
    // SAFETY: waits for the child made above; a null status pointer is allowed.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    let result: Result<T, String> = serde_json::from_str(&text)
        .unwrap_or_else(|e| Err(format!("the child died before it reported: {e}")));
    result.unwrap_or_else(|e| panic!("in the child: {e}"))
}

/// Runs a program, which must succeed.
pub fn run_program(program: &str, args: &[&std::ffi::OsStr]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = std::process::Command::new(program).args(args).env("PATH", path).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits for what the kernel does a moment later. Whether it did is for the caller to see.
pub fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

/// An ext4 file system in a file, attached to a loop device until dropped.
pub struct LoopDisk {
    pub node: std::path::PathBuf,
    pub file: std::path::PathBuf,
}

impl LoopDisk {
    /// Whether such disks can be made here.
    pub fn possible() -> bool {
        let control = std::path::Path::new("/dev/loop-control").exists();
        have_root() && have("loop", control) && have_program("mkfs.ext4") && have_program("losetup")
    }

    pub fn new(dir: &std::path::Path, name: &str) -> Self {
        let file = dir.join(name);
        let image = File::create(&file).unwrap();
        image.set_len(8 << 20).unwrap();
        run_program("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), file.as_os_str()]);
        let node = run_program("losetup", &["--find".as_ref(), "--show".as_ref(), file.as_os_str()]);
        Self { node: node.into(), file }
    }

    /// Mounts it.
    pub fn mount(&self, at: &std::path::Path, options: &str) {
        std::fs::create_dir_all(at).unwrap();
        let args = ["-t", "ext4", "-o", options].map(std::ffi::OsStr::new);
        let paths = [self.node.as_os_str(), at.as_os_str()];
        run_program("mount", &args.into_iter().chain(paths).collect::<Vec<_>>());
    }

    /// Takes the file away from the device and waits until it is gone: whoever looks at the device keeps it a
    /// moment longer.
    pub fn detach(&self) {
        run_program("losetup", &["--detach".as_ref(), self.node.as_os_str()]);
        wait_until(|| !self.is_attached());
        assert!(!self.is_attached(), "{} is still attached", self.node.display());
    }

    /// Whether the loop device still has its file.
    pub fn is_attached(&self) -> bool {
        let name = self.node.file_name().unwrap().to_str().unwrap();
        let backing = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
        backing.is_ok_and(|b| b.trim() == self.file.to_str().unwrap())
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.is_attached() {
            run_program("losetup", &["--detach".as_ref(), self.node.as_os_str()]);
        }
    }
}
