//! What a specification of Docker, Podman or Kubernetes says about the container's surroundings, looked at from outside on
//! the process that the monitor really is.

use std::fs;

use libtest_mimic::Failed;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde_json::json;

use crate::Test;
use crate::scene::{Bundle, Need, Scene, eventually, passed};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "sandbox::sysctls_are_set_in_the_containers_namespaces_only",
        needs: &[Need::Root],
        run: sysctls,
    },
    Test {
        name: "sandbox::a_sysctl_in_the_hosts_namespace_is_refused",
        needs: &[Need::Root],
        run: host_sysctl,
    },
    Test { name: "sandbox::names_are_the_specifications", needs: &[Need::Root], run: names },
    Test { name: "sandbox::clocks_are_moved", needs: &[Need::Root], run: clocks },
    Test { name: "sandbox::keys_of_the_caller_are_left_behind", needs: &[Need::Root], run: keyring },
    Test { name: "sandbox::a_seccomp_profile_is_applied_on_request", needs: &[Need::Root], run: seccomp },
    Test { name: "sandbox::a_new_user_namespace", needs: &[Need::Root], run: user_namespace },
    Test { name: "sandbox::a_pods_user_namespace", needs: &[Need::Root], run: pods_user_namespace },
    Test {
        name: "sandbox::a_user_namespace_that_is_not_as_described_is_refused",
        needs: &[Need::Root],
        run: wrong_mappings,
    },
    Test { name: "sandbox::qemu_in_a_user_namespace", needs: &[Need::Root, Need::Qemu], run: qemu },
    Test { name: "sandbox::spt_in_a_user_namespace", needs: &[Need::Root, Need::Spt], run: spt },
    Test { name: "sandbox::hvt_in_a_user_namespace", needs: &[Need::Root, Need::Hvt], run: hvt },
    Test {
        name: "sandbox::firecracker_in_a_user_namespace",
        needs: &[Need::Root, Need::Firecracker],
        run: firecracker,
    },
    Test {
        name: "sandbox::cloud_hypervisor_in_a_user_namespace",
        needs: &[Need::Root, Need::CloudHypervisor],
        run: cloud_hypervisor,
    },
];

fn sleeping() -> Scene {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    scene
}

/// Starts the bundle's container and returns its monitor's pid, once the fake monitor is what it will remain.
fn run(scene: &Scene, bundle: &Bundle) -> i64 {
    scene.create_ok(bundle, "c");
    scene.ok(&["start", "c"]);
    let pid = scene.pid("c");
    assert!(eventually(|| fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"sleep")));
    pid
}

fn end(scene: &Scene) -> Result<(), Failed> {
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}

/// Reads a file as a process in the namespaces of `pid` would.
fn read_inside(pid: i64, namespaces: &[(&str, LinkNameSpaceType)], path: &str) -> String {
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for (name, kind) in namespaces {
                let namespace = fs::File::open(format!("/proc/{pid}/ns/{name}")).unwrap();
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(*kind)).unwrap();
            }
            fs::read_to_string(path).unwrap().trim().to_owned()
        });
        reader.join().unwrap()
    })
}

fn namespace(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

/// B33: what Docker sets by default, and what belongs to the IPC namespace.
fn sysctls() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| {
        spec["linux"]["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "7",
            "net.ipv4.ping_group_range": "0 2147483647",
            "kernel.msgmax": "12345",
            "fs.mqueue.msg_max": "17",
        });
    });
    let settings = [
        ("net", LinkNameSpaceType::Network, "net/ipv4/ip_unprivileged_port_start", "7"),
        ("net", LinkNameSpaceType::Network, "net/ipv4/ping_group_range", "0\t2147483647"),
        ("ipc", LinkNameSpaceType::InterProcessCommunication, "kernel/msgmax", "12345"),
        ("ipc", LinkNameSpaceType::InterProcessCommunication, "fs/mqueue/msg_max", "17"),
    ];
    let ours = || settings.map(|(_, _, path, _)| fs::read_to_string(format!("/proc/sys/{path}")).unwrap());
    let before = ours();
    let pid = run(&scene, &bundle);
    for (name, kind, path, expected) in settings {
        let value = read_inside(pid, &[(name, kind)], &format!("/proc/sys/{path}"));
        assert_eq!(value, expected, "{path}");
    }
    assert_eq!(ours(), before);
    end(&scene)
}

fn host_sysctl() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| {
        spec["linux"]["namespaces"][1]["path"] = json!("/proc/self/ns/net");
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    });
    let message = scene.fails(&["create", "--bundle", bundle.str(), "c"]);
    assert!(message.contains("/proc/self/ns/net is the host's own network namespace"), "{message}");
    scene.assert_clean();
    passed()
}

fn names() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| {
        spec["hostname"] = json!("unikernel");
        spec["domainname"] = json!("example.org");
    });
    let pid = run(&scene, &bundle);
    let uts = [("uts", LinkNameSpaceType::HostNameAndNISDomainName)];
    assert_eq!(read_inside(pid, &uts, "/proc/sys/kernel/hostname"), "unikernel");
    assert_eq!(read_inside(pid, &uts, "/proc/sys/kernel/domainname"), "example.org");
    end(&scene)
}

fn clocks() -> Result<(), Failed> {
    let scene = sleeping();
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        spec["linux"]["timeOffsets"] =
            json!({"boottime": {"secs": 500_000, "nanosecs": 7}, "monotonic": {"secs": 1000}});
    });
    let pid = run(&scene, &bundle);
    let offsets = fs::read_to_string(format!("/proc/{pid}/timens_offsets")).unwrap();
    let words: Vec<&str> = offsets.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "1000", "0", "boottime", "500000", "7"]);
    assert_ne!(namespace(&pid.to_string(), "time"), namespace("self", "time"));
    end(&scene)
}

/// A key of the caller's session must not be the monitor's to use.
fn keyring() -> Result<(), Failed> {
    for own in [true, false] {
        let scene = sleeping();
        let bundle = scene.fake(&[]);
        let id = format!("keys-{}", scene.uid);
        let mut args = vec!["create", "--bundle", bundle.str(), &id];
        if !own {
            args.insert(1, "--no-new-keyring");
        }
        let console = fs::File::create(scene.path("console")).unwrap();
        assert!(
            scene
                .command(&args)
                .stdout(console.try_clone().unwrap())
                .stderr(console)
                .status()
                .unwrap()
                .success()
        );
        let keys = fs::read_to_string("/proc/keys").unwrap();
        assert_eq!(keys.contains(&format!("_ses.{id}")), own, "{keys}");
        scene.ok(&["delete", "--force", &id]);
        scene.assert_clean();
    }
    passed()
}

/// The specification's profile is the monitor's only where the administrator wants it.
fn seccomp() -> Result<(), Failed> {
    for (setting, said) in [("monitor", "Read-only file system"), ("spec", "Disk quota exceeded")] {
        let scene = Scene::new();
        let monitor = scene.script("mkdir /new; exec sleep 1000");
        scene.configure(&format!(
            "[runtime]\nseccomp = {setting:?}\n[monitors.spt]\npath = {:?}\n",
            monitor.to_str().unwrap()
        ));
        let bundle = scene.fake(&[]);
        bundle.edit(|spec| {
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EDQUOT},
                    {"names": ["reboot", "no_such_call"], "action": "SCMP_ACT_KILL_PROCESS"},
                ],
            });
        });
        let pid = run(&scene, &bundle);
        assert!(scene.console().contains(said), "{}", scene.console());
        let status = crate::process::status_of(pid);
        // One for each action, and one for x32's numbers.
        let ours = if cfg!(target_arch = "x86_64") { "3" } else { "2" };
        let (mode, filters) = if setting == "spec" { ("2", ours) } else { ("0", "0") };
        assert_eq!((status["Seccomp"].as_str(), status["Seccomp_filters"].as_str()), (mode, filters));
        end(&scene)?;
    }
    passed()
}

/// The ids of the host that a scene's container gets: its own user is among them, so that its leftovers are found.
pub(crate) fn map_ids(bundle: &Bundle, base: u32) {
    bundle.edit(|spec| {
        let map = json!([{"containerID": 0, "hostID": base, "size": 65_536}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    });
}

/// B35: as Podman's `--userns` and Docker's `userns-remap` make it: everything is new, and the container's root is a
/// user of the host that nobody else is.
fn user_namespace() -> Result<(), Failed> {
    for inside in [0, 1000] {
        let scene = sleeping();
        let bundle = scene.fake(&[]);
        map_ids(&bundle, scene.uid - inside);
        bundle.edit(|spec| {
            spec["process"]["user"] = json!({"uid": inside, "gid": inside, "additionalGids": [5]});
            spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "7"});
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
        });
        let pid = run(&scene, &bundle);
        let status = crate::process::status_of(pid);
        let id = scene.uid;
        assert_eq!(status["Uid"], format!("{id}\t{id}\t{id}\t{id}"));
        assert_eq!(status["Gid"], format!("{id}\t{id}\t{id}\t{id}"));
        assert_eq!(status["Groups"].trim(), (id - inside + 5).to_string());
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &(id - inside).to_string(), "65536"]);
        for kind in ["user", "net", "ipc", "uts", "mnt", "pid", "cgroup"] {
            assert_ne!(namespace(&pid.to_string(), kind), namespace("self", kind), "{kind}");
        }
        let net = [("net", LinkNameSpaceType::Network)];
        assert_eq!(read_inside(pid, &net, "/proc/sys/net/ipv4/ip_unprivileged_port_start"), "7");
        end(&scene)?;
    }
    passed()
}

/// A process in new namespaces that waits: what a pod's sandbox is. Gone when it is dropped.
struct Sandbox(std::process::Child);

impl Sandbox {
    fn new(base: u32) -> Self {
        let (gate, mut open) = std::io::pipe().unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "read line; exec sleep 1000"]).stdin(gate);
        // SAFETY: after the fork, only one system call is made.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, unshare) };
        let child = command.spawn().unwrap();
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", child.id()), format!("0 {base} 65536\n")).unwrap();
        }
        std::io::Write::write_all(&mut open, b"\n").unwrap();
        Self(child)
    }

    fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }
}

fn unshare() -> std::io::Result<()> {
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: the descriptor table stays shared with nobody.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Joins the pod's user, network, IPC and UTS namespaces, and makes the others, as Kubernetes does with
/// `hostUsers: false`.
fn join(bundle: &Bundle, sandbox: &Sandbox, base: u32) {
    map_ids(bundle, base);
    bundle.edit(|spec| {
        let join = |kind: &str, file: &str| json!({"type": kind, "path": sandbox.path(file)});
        spec["linux"]["namespaces"] = json!([
            {"type": "pid"}, {"type": "mount"}, {"type": "cgroup"},
            join("network", "net"), join("user", "user"), join("ipc", "ipc"), join("uts", "uts"),
        ]);
    });
}

fn pods_user_namespace() -> Result<(), Failed> {
    let scene = sleeping();
    let sandbox = Sandbox::new(scene.uid);
    let bundle = scene.fake(&[]);
    join(&bundle, &sandbox, scene.uid);
    bundle.edit(|spec| {
        spec["process"]["user"] = json!({"uid": 0, "gid": 0});
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "9"});
    });
    let pid = run(&scene, &bundle);
    for kind in ["user", "net", "ipc", "uts"] {
        let theirs = fs::read_link(sandbox.path(kind)).unwrap();
        assert_eq!(namespace(&pid.to_string(), kind), theirs.to_str().unwrap(), "{kind}");
    }
    assert_eq!(
        crate::process::status_of(pid)["Uid"].split('\t').next(),
        Some(scene.uid.to_string().as_str())
    );
    let net = [("net", LinkNameSpaceType::Network)];
    assert_eq!(read_inside(pid, &net, "/proc/sys/net/ipv4/ip_unprivileged_port_start"), "9");
    end(&scene)
}

fn wrong_mappings() -> Result<(), Failed> {
    let scene = sleeping();
    let sandbox = Sandbox::new(scene.uid);
    let bundle = scene.fake(&[]);
    join(&bundle, &sandbox, scene.uid + 1);
    bundle.edit(|spec| spec["process"]["user"] = json!({"uid": 0, "gid": 0}));
    let message = scene.fails(&["create", "--bundle", bundle.str(), "c"]);
    let expected = format!(
        "the user namespace {} maps ids otherwise than linux.gidMappings says; give the mappings of that namespace",
        sandbox.path("user")
    );
    assert!(message.ends_with(&expected), "{message}");
    scene.assert_clean();
    passed()
}

/// A real guest whose monitor is root of a user namespace and nobody in particular on the host: the devices and files
/// that it was given are its own all the same.
fn guest(monitor: &str, kernel: &str, status: i32) -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.bundle("bundle", monitor, kernel, &["hello", "exit=3"]);
    map_ids(&bundle, scene.uid);
    bundle.edit(|spec| spec["process"]["user"] = json!({"uid": 0, "gid": 0}));
    let output = scene.urunc(&["run", "--bundle", bundle.str(), "c"]);
    let text = crate::scene::describe(&output);
    assert!(output.status.code() == Some(status) && text.contains("word 1: hello"), "{text}");
    scene.assert_clean();
    passed()
}

fn qemu() -> Result<(), Failed> {
    guest("qemu", "demo", 7)
}

fn spt() -> Result<(), Failed> {
    guest("spt", "demo-spt", 3)
}

fn hvt() -> Result<(), Failed> {
    guest("hvt", "demo", 3)
}

fn firecracker() -> Result<(), Failed> {
    guest("firecracker", "demo", 0)
}

fn cloud_hypervisor() -> Result<(), Failed> {
    guest("cloud-hypervisor", "demo", 0)
}
