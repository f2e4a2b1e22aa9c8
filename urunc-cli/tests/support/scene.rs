//! A place for one test: a state root, bundles and a configuration below one temporary directory, and a look at what is
//! left when the test is over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use serde_json::{Value, json};

/// The binary under test.
pub(crate) const URUNC: &str = env!("CARGO_BIN_EXE_urunc");

/// What a test may need of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To be root.
    Root,
    /// The built demo unikernel and QEMU.
    Qemu,
    /// solo5-spt.
    Spt,
    /// solo5-hvt and `/dev/kvm`.
    Hvt,
    /// Firecracker and `/dev/kvm`.
    Firecracker,
    /// Cloud Hypervisor and `/dev/kvm`.
    CloudHypervisor,
    /// QEMU, the kernel and modules of `scripts/stock-kernel`, and busybox-static.
    Linux,
    /// Besides, a kernel with its virtio drivers built in, which `URUNC_GUEST_KERNEL` names, and mkfs.ext4.
    LinuxDrivers,
    /// virtiofsd.
    Virtiofsd,
    /// Loop devices.
    Loop,
    /// runc, and a busybox for its containers.
    Runc,
    /// systemd's programs, which a test runs in namespaces of its own.
    Systemd,
}

impl Need {
    pub(crate) fn is_met(self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Qemu => in_path("qemu-system-x86_64").is_some() && demo("demo").exists(),
            Self::Spt => in_path("solo5-spt").is_some() && demo("demo-spt").exists(),
            Self::Hvt => has_monitor("solo5-hvt"),
            Self::Firecracker => has_monitor("firecracker"),
            Self::CloudHypervisor => has_monitor("cloud-hypervisor"),
            Self::Linux => {
                let kernel = stock_kernel();
                let unpacked = kernel.exists() && kernel.with_file_name("modules").exists();
                Self::Qemu.is_met() && unpacked && Path::new(BUSYBOX).exists()
            }
            Self::LinuxDrivers => {
                let kernel = guest_kernel().is_some_and(|path| path.exists());
                Self::Linux.is_met() && kernel && in_path("mkfs.ext4").is_some()
            }
            Self::Virtiofsd => {
                in_path("virtiofsd").is_some()
                    || ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"]
                        .iter()
                        .any(|path| Path::new(path).exists())
            }
            Self::Loop => Path::new("/dev/loop-control").exists(),
            Self::Runc => in_path("runc").is_some() && Path::new(BUSYBOX).exists(),
            Self::Systemd => {
                Path::new("/usr/lib/systemd/systemd").exists() && in_path("dbus-daemon").is_some()
            }
        }
    }

    pub(crate) fn is_required(self) -> bool {
        let word = match self {
            Self::Root => "root",
            Self::Qemu => "qemu",
            Self::Spt => "solo5-spt",
            Self::Hvt => "solo5-hvt",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Linux => "linux-guest",
            Self::LinuxDrivers => "linux-drivers",
            Self::Virtiofsd => "virtiofsd",
            Self::Loop => "loop",
            Self::Runc => "runc",
            Self::Systemd => "systemd",
        };
        std::env::var("URUNC_REQUIRE").is_ok_and(|required| required.split(',').any(|it| it == word))
    }
}

/// Whether a monitor that needs KVM can run the demo guest.
fn has_monitor(program: &str) -> bool {
    in_path(program).is_some() && demo("demo").exists() && fs::File::open("/dev/kvm").is_ok()
}

/// A program of `PATH`.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// One of the demo unikernel's files, as `make guest` builds it.
pub(crate) fn demo(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/unikernel");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
    target.join("release").join(name)
}

/// The Linux kernel that `scripts/stock-kernel` unpacks. Its drivers are modules.
pub(crate) fn stock_kernel() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("linux-guest/vmlinuz")
}

/// A Linux kernel with virtio over PCI, disks, ext4, virtiofs and 9p built in, if the caller has one.
pub(crate) fn guest_kernel() -> Option<PathBuf> {
    std::env::var_os("URUNC_GUEST_KERNEL").map(PathBuf::from)
}

/// Of Debian's busybox-static.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// A test's place. What it holds is killed and removed when it is dropped.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    /// The state root; in memory where possible, as `/run` is, because records are synced to disk.
    state: tempfile::TempDir,
    /// User that this scene's monitors run as, and nobody else: that is how they are found again.
    pub(crate) uid: u32,
}

static SCENES: AtomicU32 = AtomicU32::new(0);

impl Scene {
    pub(crate) fn new() -> Self {
        let place = |parent: &Path| tempfile::Builder::new().prefix("urunc-e2e-").tempdir_in(parent).unwrap();
        let dir = place(&std::env::temp_dir());
        let memory = Path::new("/dev/shm");
        let state = place(if memory.is_dir() { memory } else { dir.path() });
        fs::write(dir.path().join("config.toml"), "").unwrap();
        let uid = 1_000_000 + std::process::id() % 50_000 * 1000 + SCENES.fetch_add(1, Ordering::Relaxed);
        Self { dir, state, uid }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// Replaces the configuration.
    pub(crate) fn configure(&self, toml: &str) {
        fs::write(self.path("config.toml"), toml).unwrap();
    }

    /// Makes `program` (a path on the host) the monitor `spt`: a real process in the monitor's place, when the test is
    /// about everything but the guest.
    pub(crate) fn fake_monitor(&self, program: &Path) {
        self.configure(&format!("[monitors.spt]\npath = {:?}\n", program.display().to_string()));
    }

    /// A shell script as a fake monitor.
    pub(crate) fn script(&self, body: &str) -> PathBuf {
        let path = self.path("monitor.sh");
        executable(&path, &format!("#!/bin/sh\n{body}\n"));
        path
    }

    /// A bundle with the demo unikernel `kernel` for `monitor` and the guest arguments `args`.
    pub(crate) fn bundle(&self, name: &str, monitor: &str, kernel: &str, args: &[&str]) -> Bundle {
        let path = self.path(name);
        fs::create_dir_all(path.join("rootfs/boot")).unwrap();
        let source = demo(kernel);
        if let Err(error) = fs::copy(&source, path.join("rootfs/boot/kernel")) {
            panic!("{}: {error}; build the demo unikernel with `make guest`", source.display());
        }
        let spec = json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": self.uid, "gid": self.uid}, "cwd": "/", "args": args},
            "hostname": "demo",
            "annotations": {
                "com.urunc.unikernel.unikernelType": "generic",
                "com.urunc.unikernel.hypervisor": monitor,
                "com.urunc.unikernel.binary": "/boot/kernel",
            },
            "linux": {
                "resources": {"memory": {"limit": 64 << 20}},
                "namespaces": [
                    {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                ],
            },
        });
        let bundle = Bundle { path };
        bundle.write(&spec);
        bundle
    }

    /// A bundle for QEMU.
    pub(crate) fn qemu(&self, args: &[&str]) -> Bundle {
        self.bundle("bundle", "qemu", "demo", args)
    }

    /// A bundle for a fake monitor.
    pub(crate) fn fake(&self, args: &[&str]) -> Bundle {
        self.bundle("bundle", "spt", "demo-spt", args)
    }

    /// `urunc` with this scene's state root and configuration.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(URUNC);
        command.arg("--root").arg(self.root()).args(args);
        command.env("URUNC_CONFIG_FILE", self.path("config.toml")).stdin(Stdio::null());
        command
    }

    /// Runs `urunc` and waits; its output is captured.
    pub(crate) fn urunc(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs `urunc`, which must succeed, and returns what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.urunc(args);
        assert!(output.status.success(), "urunc {args:?}: {}", describe(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `urunc`, which must fail with status 1, and returns its one sentence.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.urunc(args);
        assert_eq!(output.status.code(), Some(1), "urunc {args:?}: {}", describe(&output));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "urunc {args:?} says more than one line: {text}");
        text.trim_end().to_owned()
    }

    /// Creates a container whose streams go to the file `console` (a container inherits them, so a captured command
    /// would wait for the container's end).
    pub(crate) fn create(&self, bundle: &Bundle, id: &str) -> Output {
        self.create_with(bundle, &[], id)
    }

    /// The same with more flags.
    pub(crate) fn create_with(&self, bundle: &Bundle, flags: &[&str], id: &str) -> Output {
        let console = fs::File::create(self.path("console")).unwrap();
        let log = self.path("log.json");
        let args =
            ["--log", log.to_str().unwrap(), "--log-format", "json", "create", "--bundle", bundle.str()];
        let args = [&args[..], flags, &[id]].concat();
        let status =
            self.command(&args).stdout(console.try_clone().unwrap()).stderr(console).status().unwrap();
        Output { status, stdout: Vec::new(), stderr: fs::read(&log).unwrap_or_default() }
    }

    pub(crate) fn create_ok(&self, bundle: &Bundle, id: &str) {
        let output = self.create(bundle, id);
        assert!(output.status.success(), "create: {}", describe(&output));
    }

    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("console")).unwrap_or_default()).into_owned()
    }

    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    pub(crate) fn pid(&self, id: &str) -> i64 {
        self.state(id)["pid"].as_i64().unwrap()
    }

    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    /// Everything of this scene that is still on the host: processes, mounts, files of the state root.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let own = [self.dir.path(), self.state.path()].map(|path| path.to_str().unwrap().to_owned());
        let is_own = |text: &str| own.iter().any(|path| text.contains(path.as_str()));
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            if pid == std::process::id() || status.contains("\nState:\tZ") {
                continue;
            }
            // Init keeps the command line of the `create` that it was cloned from; a monitor has the scene's user.
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if is_own(&command) || status.contains(&format!("\nUid:\t{}\t", self.uid)) {
                left.push(format!("process {pid}: {command}"));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| is_own(line)).map(|line| format!("mount {line}")));
        for entry in fs::read_dir(self.root()).unwrap().flatten() {
            left.push(format!("state {}", entry.path().display()));
        }
        left
    }

    /// Fails if anything but mounts, which may be the test's own, is left.
    pub(crate) fn assert_clean_but_mounts(&self) {
        let left =
            || self.leftovers().into_iter().filter(|left| !left.starts_with("mount ")).collect::<Vec<_>>();
        assert!(eventually(|| left().is_empty()), "left on the host: {:#?}", left());
    }

    /// Fails if anything is left.
    pub(crate) fn assert_clean(&self) {
        // A process that has been killed may take a moment to disappear from /proc.
        let clean = eventually(|| self.leftovers().is_empty());
        assert!(clean, "left on the host: {:#?}", self.leftovers());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let ids = self.urunc(&["list", "--quiet"]);
        for id in String::from_utf8_lossy(&ids.stdout).lines() {
            self.urunc(&["delete", "--force", id]);
        }
    }
}

/// A bundle's directory.
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
}

impl Bundle {
    pub(crate) fn str(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub(crate) fn spec(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path.join("config.json")).unwrap()).unwrap()
    }

    pub(crate) fn write(&self, spec: &Value) {
        fs::write(self.path.join("config.json"), spec.to_string()).unwrap();
    }

    /// Changes the specification.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut spec = self.spec();
        change(&mut spec);
        self.write(&spec);
    }

    pub(crate) fn annotate(&self, name: &str, value: &str) {
        self.edit(|spec| spec["annotations"][format!("com.urunc.unikernel.{name}")] = json!(value));
    }
}

/// Waits for the end of a process that has been handed down to us (see `main`), and returns its exit status, or 128 plus
/// the signal that ended it.
pub(crate) fn reap(pid: i64) -> i32 {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let (_, status) =
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap()
}

/// Makes a program, as if it had always been there. If this process wrote the file, a child that another thread has just
/// forked would have it open for writing until its own execve, and executing it would fail meanwhile (ETXTBSY, execve(2)).
pub(crate) fn executable(path: &Path, text: &str) {
    use std::io::Write;
    let mut install = std::process::Command::new("install");
    let mut child =
        install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// As [`executable`], the copy of another.
pub(crate) fn copy_executable(from: impl AsRef<Path>, to: &Path) {
    let status =
        std::process::Command::new("install").args(["-m", "755"]).arg(from.as_ref()).arg(to).status();
    assert!(status.unwrap().success());
}

/// Waits for a condition, at most three minutes: longer than a Linux guest takes to boot on a busy machine without KVM.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

pub(crate) fn describe(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A test's result from plain assertions.
pub(crate) fn passed() -> Result<(), Failed> {
    Ok(())
}
