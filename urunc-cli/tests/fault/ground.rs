//! Where a fault is tried: a scene with one bundle, what there was before, and the story whose steps go wrong.

use std::path::PathBuf;
use std::process::Command;

use crate::disk::Disk;
use crate::inventory::Inventory;
use crate::pod::Pod;
use crate::scene::{Bundle, Scene};
use crate::trace::{Ended, Fault, Tracer};

/// What kind of container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All namespaces are its own.
    Alone,
    /// It joins namespaces, so that there is an intermediate process.
    InPod,
    /// Its root file system and a volume are block devices, which the host gives away and gets back.
    WithDisks,
    /// Hooks run, of all kinds that run on the host.
    WithHooks,
    /// It joins namespaces, in which the guest is behind the pod's address, as Knative has it.
    BehindPod,
}

impl Kind {
    /// What happens to such a container where it makes a difference.
    pub(crate) fn stories(self) -> &'static [Story] {
        match self {
            Self::Alone | Self::InPod => &STORIES,
            Self::WithDisks => &DISK_STORIES,
            Self::WithHooks => &HOOK_STORIES,
            Self::BehindPod => &STATIC_STORIES,
        }
    }

    /// Whether there is an intermediate process.
    pub(crate) fn joins(self) -> bool {
        matches!(self, Self::InPod | Self::BehindPod)
    }

    /// Every so many places are tried: those of other kinds are much the same.
    pub(crate) fn step(self) -> usize {
        match self {
            Self::Alone | Self::InPod | Self::WithDisks => 1,
            Self::WithHooks | Self::BehindPod => 4,
        }
    }
}

/// Commands in a row, of which the last ones are examined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story {
    pub(crate) commands: &'static [&'static str],
    /// The first whose faults are of interest; the earlier ones are another story's.
    pub(crate) from: usize,
}

/// Together, each command in each situation that makes a difference to it.
const STORIES: [Story; 4] = [
    Story { commands: &["create", "start", "kill", "delete"], from: 0 },
    Story { commands: &["create", "start", "delete --force"], from: 2 },
    Story { commands: &["create", "kill"], from: 1 },
    Story { commands: &["create", "delete"], from: 1 },
];

const DISK_STORIES: [Story; 2] = [
    Story { commands: &["create", "start", "kill", "delete"], from: 0 },
    Story { commands: &["create", "delete"], from: 1 },
];

const HOOK_STORIES: [Story; 1] = [Story { commands: &["create", "start", "delete --force"], from: 0 }];

const STATIC_STORIES: [Story; 1] = [Story { commands: &["create", "start", "kill", "delete"], from: 1 }];

/// The place for the faults of one worker.
pub(crate) struct Ground {
    // Unmounted before the scene's directory is removed.
    disk: Option<Disk>,
    pub(crate) scene: Scene,
    bundle: Bundle,
    pod: Option<Pod>,
    before: Inventory,
}

impl Ground {
    pub(crate) fn new(kind: Kind) -> Self {
        let scene = Scene::new();
        let pod = kind.joins().then(|| Pod::new(&scene.path("namespaces")));
        let (disk, bundle) = match (kind, &pod) {
            (Kind::WithDisks, _) => {
                let (disk, bundle) = Disk::new(&scene);
                (Some(disk), bundle)
            }
            (_, Some(pod)) => {
                scene.fake_monitor(&std::env::current_exe().unwrap());
                let bundle = scene.bundle("bundle", "spt", "demo-net-spt", &["hello"]);
                bundle.edit(|spec| {
                    spec["linux"]["namespaces"] = pod.namespaces();
                    spec.as_object_mut().unwrap().remove("hostname");
                    if kind == Kind::BehindPod {
                        spec["annotations"]["io.kubernetes.cri.container-name"] = "user-container".into();
                    }
                });
                (None, bundle)
            }
            (_, None) => {
                scene.fake_monitor(&scene.script("exec sleep 1000"));
                (None, scene.bundle("bundle", "spt", "demo-spt", &["hello"]))
            }
        };
        if kind == Kind::WithHooks {
            bundle.edit(|spec| {
                for hooks in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
                    spec["hooks"][hooks] = serde_json::json!([{"path": "/bin/true"}]);
                }
            });
        }
        // A control group by whose name the inventory finds it.
        let path = scene.path("");
        let group = format!("/{}", path.file_name().unwrap().to_str().unwrap());
        bundle.edit(|spec| spec["linux"]["cgroupsPath"] = group.into());
        let before = Inventory::take(&scene, pod.as_ref());
        Self { disk, scene, bundle, pod, before }
    }

    /// The pod whose namespaces the container joins.
    pub(crate) fn pod(&self) -> Option<&Pod> {
        self.pod.as_ref()
    }

    fn pid_file(&self) -> PathBuf {
        self.bundle.path.join("pid")
    }

    /// `create`, `start`, `kill`, `delete` or `delete --force` for the one container of this place.
    pub(crate) fn command(&self, step: &str) -> Command {
        let pid_file = self.pid_file();
        let pid_file = pid_file.to_str().unwrap();
        match step {
            "create" => {
                self.scene.command(&["create", "--bundle", self.bundle.str(), "--pid-file", pid_file, "c"])
            }
            "kill" => self.scene.command(&["kill", "c", "KILL"]),
            "delete --force" => self.scene.command(&["delete", "--force", "c"]),
            step => self.scene.command(&[step, "c"]),
        }
    }

    /// What differs from before.
    pub(crate) fn changes(&self) -> Vec<String> {
        // The pid file is its caller's, who removes it with the bundle.
        let _ = std::fs::remove_file(self.pid_file());
        Inventory::take(&self.scene, self.pod.as_ref()).changes_since(&self.before)
    }

    /// Runs the story until the fault has happened and the command in which it did has ended. Returns the tracer and
    /// how each command ended.
    pub(crate) fn play(&self, story: Story, fault: Option<Fault>) -> (Tracer, Vec<(usize, Ended)>) {
        let mut tracer = Tracer::new(fault);
        let mut ended = Vec::new();
        for step in story.commands {
            let number = tracer.processes();
            ended.push((number, tracer.run(self.command(step))));
            if tracer.has_fired() {
                break;
            }
        }
        (tracer, ended)
    }

    /// Runs the one forced delete that must suffice, and tells what is wrong afterwards.
    pub(crate) fn clean_up(&self, tracer: &mut Tracer) -> Vec<String> {
        let delete = tracer.run(self.command("delete --force"));
        let mut wrong = Vec::new();
        if !delete.succeeded() || delete.said.contains("error") {
            wrong.push(format!("delete --force: {delete:?}"));
        }
        if let Err(hang) = tracer.drain() {
            wrong.push(hang);
        }
        if let Some(disk) = &self.disk {
            disk.mount_rootfs();
        }
        wrong.extend(self.changes());
        wrong
    }
}

/// The names of some system calls, for messages.
pub(crate) fn call_name(call: u64) -> String {
    syscalls_of_interest(call).map_or_else(|| format!("call number {call}"), str::to_owned)
}

fn syscalls_of_interest(call: u64) -> Option<&'static str> {
    let call = i64::try_from(call).ok()?;
    Some(match call {
        libc::SYS_read => "read",
        libc::SYS_write => "write",
        libc::SYS_open => "open",
        libc::SYS_openat => "openat",
        libc::SYS_openat2 => "openat2",
        libc::SYS_close => "close",
        libc::SYS_fcntl => "fcntl",
        libc::SYS_newfstatat => "newfstatat",
        libc::SYS_fstat => "fstat",
        libc::SYS_ioctl => "ioctl",
        libc::SYS_mmap => "mmap",
        libc::SYS_brk => "brk",
        libc::SYS_munmap => "munmap",
        libc::SYS_clone3 => "clone3",
        libc::SYS_clone => "clone",
        libc::SYS_execve => "execve",
        libc::SYS_poll => "poll",
        libc::SYS_ppoll => "ppoll",
        libc::SYS_sendmsg => "sendmsg",
        libc::SYS_sendto => "sendto",
        libc::SYS_recvmsg => "recvmsg",
        libc::SYS_recvfrom => "recvfrom",
        libc::SYS_accept4 => "accept4",
        libc::SYS_connect => "connect",
        libc::SYS_socket => "socket",
        libc::SYS_bind => "bind",
        libc::SYS_flock => "flock",
        libc::SYS_fsync => "fsync",
        libc::SYS_renameat2 => "renameat2",
        libc::SYS_unlinkat => "unlinkat",
        libc::SYS_getdents64 => "getdents64",
        libc::SYS_pidfd_open => "pidfd_open",
        libc::SYS_pidfd_send_signal => "pidfd_send_signal",
        libc::SYS_waitid => "waitid",
        libc::SYS_wait4 => "wait4",
        libc::SYS_prctl => "prctl",
        libc::SYS_capset => "capset",
        libc::SYS_rt_sigaction => "rt_sigaction",
        libc::SYS_rt_sigprocmask => "rt_sigprocmask",
        libc::SYS_setns => "setns",
        libc::SYS_mkdirat => "mkdirat",
        libc::SYS_readlinkat => "readlinkat",
        libc::SYS_close_range => "close_range",
        _ => return None,
    })
}
