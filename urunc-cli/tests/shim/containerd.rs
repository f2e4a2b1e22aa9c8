//! A private containerd for one test, and a look at what is left when the test is over.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::image::{Described, Image};
pub(crate) use crate::scene::{describe, eventually};

/// The binary under test.
pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-urunc-v2");
/// The runtime's name.
pub(crate) const RUNTIME: &str = "io.containerd.urunc.v2";

/// What a test may need of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To be root.
    Root,
    /// containerd and ctr.
    Containerd,
    /// A monitor (solo5-spt or QEMU) and the built demo unikernel for it.
    Guest,
    /// QEMU and the built demo unikernel.
    Qemu,
    /// runc, and a busybox without libraries.
    Runc,
    /// A containerd that has the snapshotter `blockfile` (1.7 or later), mkfs.ext4 and loop devices.
    Blockfile,
    /// The stock kernel of `scripts/stock-kernel`, QEMU and a busybox without libraries.
    Linux,
    /// Besides, a kernel with its virtio drivers built in, which `URUNC_GUEST_KERNEL` names.
    LinuxDrivers,
    /// virtiofsd.
    Virtiofsd,
}

impl Need {
    pub(crate) fn is_met(self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Containerd => tool("containerd").is_some() && tool("ctr").is_some(),
            Self::Guest => has_spt() || Self::Qemu.is_met(),
            Self::Qemu => tool("qemu-system-x86_64").is_some() && demo("demo").exists(),
            Self::Runc => tool("runc").is_some() && busybox().is_some(),
            Self::Blockfile => {
                let loops = Path::new("/dev/loop-control").exists();
                newer().is_some() && tool("mkfs.ext4").is_some() && loops
            }
            Self::Linux => {
                let kernel = target().join("linux-guest/modules").exists();
                Self::Qemu.is_met() && kernel && busybox().is_some()
            }
            Self::LinuxDrivers => {
                let kernel = std::env::var_os("URUNC_GUEST_KERNEL");
                Self::Linux.is_met() && kernel.is_some_and(|path| Path::new(&path).exists())
            }
            Self::Virtiofsd => {
                let places = ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"];
                tool("virtiofsd").is_some() || places.iter().any(|path| Path::new(path).exists())
            }
        }
    }

    pub(crate) fn is_required(self) -> bool {
        let word = match self {
            Self::Root => "root",
            Self::Containerd => "containerd",
            Self::Guest | Self::Qemu => "qemu",
            Self::Runc => "runc",
            Self::Blockfile => "blockfile",
            Self::Linux => "linux-guest",
            Self::LinuxDrivers => "linux-drivers",
            Self::Virtiofsd => "virtiofsd",
        };
        std::env::var("URUNC_REQUIRE").is_ok_and(|required| required.split(',').any(|it| it == word))
    }
}

/// Where containerd and the rest are looked for: the directory of `URUNC_CONTAINERD`, then `PATH`.
fn search_path() -> OsString {
    let chosen = std::env::var_os("URUNC_CONTAINERD").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(chosen.into_iter().chain(std::env::split_paths(&path))).unwrap()
}

fn tool(name: &str) -> Option<PathBuf> {
    tool_in(&search_path(), name)
}

fn tool_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Where make unpacks what no package installs.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

/// A search path with a containerd of 1.7 or later: the usual one, or what `scripts/newer-containerd` unpacks.
fn newer() -> Option<OsString> {
    let usual = search_path();
    let unpacked = std::iter::once(target().join("containerd")).chain(std::env::split_paths(&usual));
    let unpacked = std::env::join_paths(unpacked).unwrap();
    let is_new = |path: &OsString| {
        let Some(containerd) = tool_in(path, "containerd") else { return false };
        let Ok(output) = Command::new(containerd).arg("--version").output() else { return false };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().nth(2).unwrap_or_default().trim_start_matches('v').to_owned();
        let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
        numbers.next() >= Some(2) || (version.starts_with("1.") && numbers.next() >= Some(7))
    };
    [usual, unpacked].into_iter().find(is_new)
}

/// A busybox that runs in an image by itself: no program header (ELF-64, 56 bytes each) names an interpreter (type 3).
fn busybox() -> Option<PathBuf> {
    let is_static = |path: &PathBuf| {
        let Ok(elf) = fs::read(path) else { return false };
        let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
        let first = usize::try_from(u64::from_le_bytes(elf[32..40].try_into().unwrap())).unwrap();
        (0..half(56)).all(|index| elf[first + index * half(54)] != 3)
    };
    tool("busybox").filter(is_static)
}

fn demo(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/unikernel");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
    target.join("release").join(name)
}

fn has_spt() -> bool {
    tool("solo5-spt").is_some() && demo("demo-spt").exists()
}

/// The demo unikernel for the quickest monitor that is installed.
pub(crate) fn guest() -> Image {
    if has_spt() { spt() } else { qemu() }
}

/// How the demo unikernel's exit status shows. QEMU's `isa-debug-exit` reports `(status << 1) | 1`.
pub(crate) fn shown(status: i32) -> Option<i32> {
    Some(if has_spt() { status } else { status << 1 | 1 })
}

fn spt() -> Image {
    Image {
        name: "demo-spt",
        files: vec![(demo("demo-spt"), "boot/kernel")],
        command: &["hello"],
        kind: "generic",
        monitor: "spt",
        described: Described::InImage,
        more: &[],
    }
}

/// The demo unikernel for QEMU.
pub(crate) fn qemu() -> Image {
    Image { name: "demo-qemu", files: vec![(demo("demo"), "boot/kernel")], monitor: "qemu", ..spt() }
}

/// No unikernel at all.
pub(crate) fn plain() -> Image {
    let busybox = busybox().unwrap();
    let files = ["bin/busybox", "bin/sh"].map(|place| (busybox.clone(), place)).to_vec();
    let described = Described::Not;
    Image { name: "busybox", files, command: &["/bin/sh"], kind: "", monitor: "", described, more: &[] }
}

/// A running containerd with its own everything. Killed, with all that it started, when dropped.
pub(crate) struct Containerd {
    dir: tempfile::TempDir,
    /// Where its programs are looked for.
    tools: OsString,
    child: Option<Child>,
    /// Namespace that nobody else uses: shims and state roots are found by it.
    pub(crate) namespace: String,
}

impl Containerd {
    /// Starts it and imports images.
    pub(crate) fn start(images: &[Image]) -> Self {
        Self::launched(search_path(), "", images)
    }

    /// Starts one that has the snapshotter `blockfile`, and imports images.
    pub(crate) fn with_blockfile(images: &[Image]) -> Self {
        Self::launched(
            newer().unwrap(),
            "[plugins.\"io.containerd.snapshotter.v1.blockfile\"]\nroot_path = \"DIR/blockfile\"\n\
             scratch_file = \"DIR/scratch\"\nfs_type = \"ext4\"\nmount_options = []\n",
            images,
        )
    }

    fn launched(tools: OsString, more: &str, images: &[Image]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new().prefix("urunc-shim-").tempdir().unwrap();
        // None is the beginning of another's.
        let namespace =
            format!("urunc-test-{}-{:03}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut containerd = Self { dir, tools, child: None, namespace };
        let path = |name: &str| containerd.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \
             \"io.containerd.cri.v1.runtime\", \"io.containerd.nri.v1.nri\"]\n[grpc]\naddress = {:?}\n[debug]\nlevel = \"debug\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n{PATIENCE}",
            path("root"),
            path("state"),
            path("containerd.sock"),
            path("opt"),
        );
        let config = config + &more.replace("DIR", containerd.dir.path().to_str().unwrap());
        fs::write(containerd.path("containerd.toml"), config).unwrap();
        if !more.is_empty() {
            // What each snapshot of an empty layer is a copy of.
            fs::File::create(containerd.path("scratch")).unwrap().set_len(64 << 20).unwrap();
            let mkfs = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(containerd.path("scratch")).status();
            assert!(mkfs.unwrap().success());
        }
        fs::write(containerd.path("config.toml"), "").unwrap();
        containerd.launch();
        for image in images {
            let archive = image.archive(containerd.dir.path());
            containerd.ok(&["images", "import", archive.to_str().unwrap()]);
        }
        containerd
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// urunc's configuration, read by every command that the shim runs.
    pub(crate) fn configure(&self, toml: &str) {
        fs::write(self.path("config.toml"), toml).unwrap();
    }

    /// Makes the directory of the binaries under test the first in `PATH`.
    fn environment(&self, command: &mut Command) {
        let own = Path::new(SHIM).parent().unwrap().to_owned();
        let paths = std::iter::once(own).chain(std::env::split_paths(&self.tools));
        command.env("PATH", std::env::join_paths(paths).unwrap());
        command.env("URUNC_CONFIG_FILE", self.path("config.toml"));
    }

    /// Starts containerd, again after [`Containerd::kill`].
    pub(crate) fn launch(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("containerd.log")).unwrap();
        let mut command = Command::new(tool_in(&self.tools, "containerd").unwrap());
        self.environment(&mut command);
        // As where systemd started it. runc would wait for its container to say there that it is ready.
        command.env("NOTIFY_SOCKET", self.path("notify.sock"));
        command.arg("--config").arg(self.path("containerd.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let serves = || self.ctr(&["version"]).status.success();
        assert!(eventually(serves), "containerd does not start:\n{}", self.log());
    }

    /// Kills containerd alone.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What containerd logged, the shim's own records included.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.path("containerd.log")).unwrap_or_default();
        log.lines().filter(|line| !line.contains("plugin")).collect::<Vec<_>>().join("\n")
    }

    /// `ctr`, which is told to quit after a while: a Go program then prints what each of its goroutines waits for.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal=QUIT", "--kill-after=5", "300"]).arg(tool_in(&self.tools, "ctr").unwrap());
        command.arg("--address").arg(self.path("containerd.sock")).args(["--namespace", &self.namespace]);
        command.args(arguments).stdin(Stdio::null());
        self.environment(&mut command);
        command
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `ctr`, which must succeed, and returns what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.ctr(arguments);
        assert!(output.status.success(), "ctr {arguments:?}: {}\n{}", describe(&output), self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// `ctr run` with this runtime.
    pub(crate) fn run(&self, options: &[&str], image: &Image, id: &str, arguments: &[&str]) -> Output {
        let reference = image.reference();
        let mut all = vec!["run", "--runtime", RUNTIME];
        all.extend_from_slice(options);
        all.extend([reference.as_str(), id]);
        all.extend_from_slice(arguments);
        self.ctr(&all)
    }

    /// `ctr run --detach`, which must succeed.
    pub(crate) fn detach(&self, options: &[&str], image: &Image, id: &str, arguments: &[&str]) {
        let mut all = vec!["--detach"];
        all.extend_from_slice(options);
        // A detached container inherits nothing of ctr's, so that this returns.
        let output = self.run(&all, image, id, arguments);
        assert!(output.status.success(), "{}\n{}", describe(&output), self.log());
    }

    /// Pid and status of a task; none if containerd knows of none.
    pub(crate) fn task(&self, id: &str) -> Option<(i32, String)> {
        let list = self.ok(&["task", "ls"]);
        let words = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        words
            .into_iter()
            .find(|words| words.first() == Some(&id))
            .map(|words| (words[1].parse().unwrap(), words[2].to_owned()))
    }

    pub(crate) fn status(&self, id: &str) -> String {
        self.task(id).map_or_else(|| "none".to_owned(), |(_, status)| status)
    }

    /// Kills and removes a container.
    pub(crate) fn remove(&self, id: &str) {
        self.ctr(&["task", "kill", "--signal", "KILL", id]);
        assert!(eventually(|| self.status(id) == "STOPPED"), "{}", self.log());
        self.ctr(&["task", "rm", id]);
        self.ok(&["containers", "rm", id]);
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.path("state").join("io.containerd.runtime.v2.task").join(&self.namespace).join(id)
    }

    /// urunc's state root for this namespace.
    pub(crate) fn state_root(&self) -> PathBuf {
        Path::new("/run/containerd/urunc").join(&self.namespace)
    }

    /// This containerd's shims, with their command lines.
    pub(crate) fn shims(&self) -> Vec<(i32, Vec<String>)> {
        let own = |(pid, words): &(i32, Vec<String>)| {
            *pid > 0
                && words.first().is_some_and(|word| word.ends_with("containerd-shim-urunc-v2"))
                && words.contains(&self.namespace)
        };
        processes().filter(own).collect()
    }

    /// Socket of a shim.
    pub(crate) fn socket(words: &[String]) -> PathBuf {
        words.iter().skip_while(|word| *word != "-socket").nth(1).unwrap().into()
    }

    /// Everything of this containerd's containers that is still on the host.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.shims().into_iter().map(|(pid, words)| format!("shim {pid} {words:?}")).collect();
        let state = self.path("state").display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&state)).map(|line| format!("mount {line}")));
        for root in [
            self.state_root(),
            self.path("state").join("io.containerd.runtime.v2.task").join(&self.namespace),
        ] {
            let entries = fs::read_dir(root).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| format!("file {}", entry.path().display())));
        }
        // Init keeps the command line of the `urunc create` that it was cloned from.
        let own = |words: &[String]| words.iter().any(|word| word.contains(&self.namespace));
        left.extend(
            processes()
                .filter(|(_, words)| own(words))
                .map(|(pid, words)| format!("process {pid} {words:?}")),
        );
        left
    }

    /// Fails if anything is left.
    pub(crate) fn assert_clean(&self) {
        let clean = eventually(|| self.leftovers().is_empty());
        assert!(clean, "left on the host: {:#?}\n{}", self.leftovers(), self.log());
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.child.is_some() {
            let list = self.ctr(&["containers", "ls", "--quiet"]);
            for id in String::from_utf8_lossy(&list.stdout).lines() {
                self.ctr(&["task", "rm", "--force", id]);
            }
            self.kill();
        }
        for (pid, _) in self.shims() {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid).unwrap(),
                rustix::process::Signal::KILL,
            );
        }
        for entry in fs::read_dir(self.state_root()).into_iter().flatten().flatten() {
            let mut urunc = Command::new(env!("CARGO_BIN_EXE_urunc"));
            self.environment(&mut urunc);
            let _ = urunc
                .arg("--root")
                .arg(self.state_root())
                .args(["delete", "--force"])
                .arg(entry.file_name())
                .output();
        }
        let _ = fs::remove_dir(self.state_root());
        // The group of all containers of this namespace: it is containerd's to name, and nobody's to remove.
        let groups = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(groups).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([groups.to_owned()]) {
            let _ = fs::remove_dir(hierarchy.join(&self.namespace));
        }
    }
}

/// Of containerd's own patience, a few seconds for each thing, nothing shall depend on a busy machine (`containerd config default`).
pub(crate) const PATIENCE: &str = r#"[timeouts]
  "io.containerd.timeout.shim.cleanup" = "60s"
  "io.containerd.timeout.shim.load" = "60s"
  "io.containerd.timeout.shim.shutdown" = "60s"
  "io.containerd.timeout.task.state" = "60s"
"#;

/// All processes that are not zombies.
fn processes() -> impl Iterator<Item = (i32, Vec<String>)> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        (!line.is_empty()).then_some((pid, words))
    })
}

/// Whether a process is there and no zombie.
pub(crate) fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
