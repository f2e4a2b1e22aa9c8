//! A world of its own for one test: mount, network, pid and cgroup namespaces in which daemons run as on a machine of their own. `/run`, `/var/lib` and
//! `/var/log` are empty, `/etc` and `/usr/local/bin` can be written to, and urunc is installed. All of it is gone, with all that runs there, when
//! the test is over.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::containerd::{describe, eventually};

/// On the host: enters a control group of every hierarchy, which becomes the root of the world's.
const OUTER: &str = r#"set -e
while read -r _ point type _; do
  case $type in cgroup | cgroup2) ;; *) continue ;; esac
  group=$point/$1
  mkdir -p "$group"
  # Without them, a group of cpuset takes nobody in.
  for file in cpuset.cpus cpuset.mems; do
    if [ -e "$point/$file" ]; then cat "$point/$file" >"$group/$file"; fi
  done
  echo 0 >"$group/cgroup.procs"
done </proc/self/mounts
exec unshare --cgroup --mount --net --pid --fork --kill-child --mount-proc sh -c "$2" sh "$3" "$4"
"#;

/// Inside: `$1` is the directory of the binaries under test, `$2` says which hierarchies of control groups there are. The last loop also reaps.
const INNER: &str = r#"set -e
groups=$(while read -r _ point type options _; do
  case $type in cgroup | cgroup2) echo "$point $type $options" ;; esac
done </proc/self/mounts)
# What other tests have mounted is theirs, and would be busy here.
while read -r _ _ _ _ point _; do
  case $point in /run/* | /tmp/* | /var/tmp/* | /dev/shm/*) umount -l "$point" 2>/dev/null || true ;; esac
done </proc/self/mountinfo
mount -t tmpfs -o mode=755 tmpfs /run
echo "$groups" | while read -r point type options; do
  umount -l "$point"
  options=$(echo "$options" | tr ',' '\n' | grep -Evx 'rw|ro|nosuid|nodev|noexec|relatime|nsdelegate|memory_recursiveprot|clone_children' | paste -sd, -)
  mount -t "$type" ${options:+-o "$options"} cgroup "$point"
  leaf=$point
  # A group of version 2 has processes or groups with limits, not both.
  if [ "$type" = cgroup2 ]; then
    leaf=$point/processes
    mkdir "$leaf"
    echo 0 >"$leaf/cgroup.procs"
  fi
  echo "$leaf/cgroup.procs" >>/run/cgroups
done
if [ "$2" = unified ]; then
  echo "$groups" | while read -r point _; do umount -l "$point"; done
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir -p /sys/fs/cgroup/processes
  echo /sys/fs/cgroup/processes/cgroup.procs >/run/cgroups
  echo 0 >/sys/fs/cgroup/processes/cgroup.procs
fi
for place in /var/lib /var/log /dev/shm; do mount -t tmpfs -o mode=755 tmpfs $place; done
for place in /etc /usr/local/bin; do
  mkdir -p /run/over$place/upper /run/over$place/work
  mount -t overlay -o lowerdir=$place,upperdir=/run/over$place/upper,workdir=/run/over$place/work overlay $place
done
for program in urunc containerd-shim-urunc-v2; do
  rm -f /usr/local/bin/$program
  touch /usr/local/bin/$program
  mount --bind "$1/$program" /usr/local/bin/$program
done
mkdir -p /etc/urunc /run/home
: >/etc/urunc/config.toml
ip link set lo up
echo ready
while :; do sleep 3600 & wait; done
"#;

/// Makes what runs afterwards a member of the world's control groups: namespaces do not include that.
const JOIN: &str = r#"while read -r procs; do echo 0 >"$procs" || exit 125; done </run/cgroups; exec "$@""#;

pub(crate) struct World {
    child: Child,
    /// The world's first process, as the host counts.
    init: String,
    /// Of its control groups.
    name: String,
}

/// Which hierarchies of control groups a world has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hierarchies {
    /// Those of the host.
    AsHost,
    /// Only that of version 2, with the controllers that it has on this host: none, if version 1 has them.
    Unified,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Hierarchies::AsHost)
    }

    pub(crate) fn with(hierarchies: Hierarchies) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("urunc-clients-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let binaries = Path::new(env!("CARGO_BIN_EXE_urunc")).parent().unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", OUTER, "sh", &name, INNER]).arg(binaries);
        command.arg(match hierarchies {
            Hierarchies::AsHost => "host",
            Hierarchies::Unified => "unified",
        });
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let init = fs::read_to_string(children).unwrap_or_default().trim().to_owned();
        let world = Self { child, init, name };
        assert_eq!(line, "ready\n", "cannot make a world for the test");
        world
    }

    /// A path of the world as it is reached from here.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(&self.init).join("root").join(path.trim_start_matches('/'))
    }

    /// Writes a file and the directories above it.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Installs a file of `examples/` as it is.
    pub(crate) fn install(&self, example: &str, place: &str) {
        self.write(place, fs::read(examples().join(example)).unwrap());
    }

    /// Makes a script the monitor of a name: a real process in the monitor's place, when the test is about everything but the guest.
    pub(crate) fn replace_monitor(&self, monitor: &str, script: &str) {
        self.write("/usr/local/bin/monitor", script);
        self.ok(&["chmod", "755", "/usr/local/bin/monitor"]);
        let config = format!("[monitors.{monitor}]\npath = \"/usr/local/bin/monitor\"\n");
        self.write("/etc/urunc/config.toml", config);
    }

    /// Puts a script before `urunc`, which the script can call as `real-urunc`.
    pub(crate) fn wrap_urunc(&self, script: &str) {
        self.ok(&["touch", "/usr/local/bin/real-urunc"]);
        self.ok(&["mount", "--move", "/usr/local/bin/urunc", "/usr/local/bin/real-urunc"]);
        self.write("/run/wrapper", format!("#!/bin/sh\n{script}\n"));
        self.ok(&["install", "/run/wrapper", "/usr/local/bin/urunc"]);
    }

    pub(crate) fn unwrap_urunc(&self) {
        self.ok(&["mount", "--move", "/usr/local/bin/real-urunc", "/usr/local/bin/urunc"]);
        self.ok(&["rm", "/usr/local/bin/real-urunc"]);
    }

    /// A command in the world, which is killed after a while.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.enter(&[&["timeout", "--kill-after=1", "300"], words].concat())
    }

    fn enter(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--mount", "--net", "--pid", "--cgroup", "--"]);
        command.args(["sh", "-c", JOIN, "sh"]).args(words);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let first = std::iter::once(PathBuf::from("/usr/local/bin"));
        let last = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        let path = std::env::join_paths(first.chain(std::env::split_paths(&path)).chain(last)).unwrap();
        command.env("PATH", path).env("HOME", "/run/home").env_remove("URUNC_CONFIG_FILE");
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command, which must succeed, and returns what it printed.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words:?}: {}\n{}", describe(&output), self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a daemon, which lives as long as the world.
    pub(crate) fn daemon(&self, words: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.at("/run/daemon.log")).unwrap();
        let mut script = vec!["sh", "-c", "setsid \"$@\" & echo $! >/run/daemon.pid", "sh"];
        script.extend_from_slice(words);
        let mut command = self.enter(&script);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        assert!(command.status().unwrap().success());
    }

    /// Kills the daemon alone.
    pub(crate) fn kill_daemon(&self) {
        self.ok(&["sh", "-c", "kill -KILL $(cat /run/daemon.pid)"]);
    }

    /// The end of what the daemon said.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.at("/run/daemon.log")).unwrap_or_default();
        let noise = ["[core]", "loading plugin", "skip loading plugin", "msg=serving"];
        let tells = |line: &&str| !noise.iter().any(|word| line.contains(word));
        let lines: Vec<&str> = log.lines().filter(tells).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Connects from within the world.
    pub(crate) fn connect(&self, address: &str, port: u16) -> std::io::Result<TcpStream> {
        let namespace = fs::File::open(Path::new("/proc").join(&self.init).join("ns/net")).unwrap();
        let address = SocketAddr::new(address.parse().unwrap(), port);
        std::thread::scope(|scope| {
            // A thread's namespace is its own, and the socket stays in the one in which it was made.
            let thread = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                TcpStream::connect_timeout(&address, Duration::from_secs(30))
            });
            thread.join().unwrap()
        })
    }

    /// The control groups below a group of any hierarchy.
    pub(crate) fn groups(&self, below: &str) -> Vec<String> {
        let hierarchies = fs::read_dir(self.at("/sys/fs/cgroup")).unwrap().flatten();
        hierarchies
            .flat_map(|hierarchy| fs::read_dir(hierarchy.path().join(below)).into_iter().flatten().flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path().display().to_string())
            .collect()
    }

    /// What the world's processes were called with, zombies left out.
    pub(crate) fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("/proc")).unwrap().flatten();
        let pids = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
        let lines = pids.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines
            .filter(|line| !line.is_empty())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .collect()
    }

    /// The lines of a file in the world's `/proc/1`.
    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(Path::new("/proc").join(&self.init).join(file)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Everything that containers could leave: processes of ours, mounts, links, and files of urunc's state.
    pub(crate) fn inventory(&self) -> Vec<String> {
        let ours = ["urunc", "solo5", "qemu", "conmon", "shim"];
        let mut all: Vec<String> = self
            .processes()
            .into_iter()
            .filter(|line| ours.iter().any(|word| line.contains(word)))
            .filter(|line| !line.starts_with("sh -c"))
            .collect();
        // Numbers differ for equal mounts.
        let mount = |line: String| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
        all.extend(self.lines("mountinfo").into_iter().map(mount));
        let links = self.lines("net/dev").into_iter().skip(2);
        all.extend(links.map(|line| line.split(':').next().unwrap_or_default().to_owned()));
        for root in ["/run/urunc", "/run/containerd/urunc", "/run/docker/runtime-urunc", "/run/containerd/s"]
        {
            all.extend(files(&self.at(root)));
        }
        all.sort();
        all
    }

    /// Fails if there is more or less than before.
    pub(crate) fn assert_as_before(&self, before: &[String]) {
        self.assert_as_before_but(before, &[]);
    }

    /// The same, except for lines with one of `words`: what a client keeps for the next container.
    pub(crate) fn assert_as_before_but(&self, before: &[String], words: &[&str]) {
        let now = || {
            let mut all = self.inventory();
            all.retain(|line| before.contains(line) || !words.iter().any(|word| line.contains(word)));
            all
        };
        let as_before = eventually(|| now() == before);
        let now = now();
        let more: Vec<&String> = now.iter().filter(|line| !before.contains(line)).collect();
        let less: Vec<&String> = before.iter().filter(|line| !now.contains(line)).collect();
        assert!(as_before, "left: {more:#?}\ngone: {less:#?}\n{}", self.log());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let init = Path::new("/proc").join(&self.init);
        eventually(|| self.init.is_empty() || !init.exists());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines() {
            let mut words = line.split(' ').skip(1);
            if let (Some(point), Some("cgroup" | "cgroup2")) = (words.next(), words.next()) {
                let group = Path::new(point).join(&self.name);
                // What has been killed may take a moment to leave it.
                eventually(|| remove_group(&group));
            }
        }
    }
}

/// Removes a control group with those in it; says whether it is gone.
fn remove_group(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory { files(&entry.path()) } else { vec![entry.path().display().to_string()] }
        })
        .collect()
}

pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// One of the demo unikernel's files.
pub(crate) fn demo(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| examples().join("unikernel/target"), PathBuf::from);
    target.join("release").join(name)
}
