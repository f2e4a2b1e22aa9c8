//! Every mistake that somebody can make gets one sentence, which names the cause and the remedy, and leaves nothing behind.
//!
//! In a sentence, `{bundle}`, `{scene}`, `{root}` and `{id}` stand for what differs from run to run, and `{ERANGE}` for the words
//! of the C library.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::scene::{Bundle, Need, Scene, demo, passed};

pub(crate) const TESTS: &[Test] = &[Test {
    name: "mistakes::every_one_gets_one_sentence_and_leaves_nothing",
    needs: &[Need::Root],
    run: table,
}];

/// What it is, how it is made, and the whole sentence.
struct Mistake {
    what: &'static str,
    make: fn(&Scene, &Bundle),
    says: &'static str,
}

/// A change of the specification.
fn spec(bundle: &Bundle, change: impl FnOnce(&mut Value)) {
    bundle.edit(change);
}

fn namespace(bundle: &Bundle, namespace: Value) {
    spec(bundle, |s| s["linux"]["namespaces"].as_array_mut().unwrap().push(namespace));
}

fn sysctl(bundle: &Bundle, name: &str, value: &str) {
    spec(bundle, |s| s["linux"]["sysctl"] = json!({name: value}));
}

fn ids(host: u32, size: u32) -> Value {
    json!([{"containerID": 0, "hostID": host, "size": size}])
}

/// A user namespace.
fn map(bundle: &Bundle, ids: Value) {
    namespace(bundle, json!({"type": "user"}));
    spec(bundle, |s| {
        s["linux"]["uidMappings"] = ids.clone();
        s["linux"]["gidMappings"] = ids;
    });
}

fn rlimits(bundle: &Bundle, limits: Value) {
    spec(bundle, |s| s["process"]["rlimits"] = limits);
}

fn mount(bundle: &Bundle, mount: &Value) {
    spec(bundle, |s| s["mounts"] = json!([mount]));
}

/// In place of annotations.
fn urunc_json(bundle: &Bundle, text: &str) {
    spec(bundle, |s| s["annotations"] = json!({}));
    fs::write(bundle.path.join("rootfs/urunc.json"), text).unwrap();
}

/// Adds to the configuration.
fn add(scene: &Scene, toml: &str) {
    let text = fs::read_to_string(scene.path("config.toml")).unwrap();
    scene.configure(&format!("{text}{toml}"));
}

fn kernel(bundle: &Bundle) -> PathBuf {
    bundle.path.join("rootfs/boot/kernel")
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        what: "no config.json",
        make: |_, b| fs::remove_file(b.path.join("config.json")).unwrap(),
        says: "cannot read {bundle}/config.json; an OCI bundle is a directory with a config.json and a root file system: No such file or directory (os error 2)",
    },
    Mistake {
        what: "invalid JSON",
        make: |_, b| fs::write(b.path.join("config.json"), "{\"ociVersion\": }").unwrap(),
        says: "{bundle}/config.json is not a valid OCI runtime configuration: ociVersion: expected value",
    },
    Mistake {
        what: "two specifications in one file",
        make: |_, b| fs::write(b.path.join("config.json"), format!("{}{{}}", b.spec())).unwrap(),
        says: "{bundle}/config.json is not a valid OCI runtime configuration: trailing characters",
    },
    Mistake {
        what: "a config.json of another type",
        make: |_, b| fs::write(b.path.join("config.json"), "[]").unwrap(),
        says: "{bundle}/config.json is no OCI runtime configuration: it is not a JSON object",
    },
    Mistake {
        what: "no linux",
        make: |_, b| spec(b, |s| drop(s.as_object_mut().unwrap().remove("linux"))),
        says: "{bundle}/config.json cannot be used: it has no `linux` section, which a unikernel needs",
    },
    Mistake {
        what: "no process",
        make: |_, b| spec(b, |s| drop(s.as_object_mut().unwrap().remove("process"))),
        says: "{bundle}/config.json cannot be used: it has no `process` section, which a unikernel needs",
    },
    Mistake {
        what: "no root",
        make: |_, b| spec(b, |s| drop(s.as_object_mut().unwrap().remove("root"))),
        says: "{bundle}/config.json cannot be used: it has no `root` section, which a unikernel needs",
    },
    Mistake {
        what: "no mount namespace",
        make: |_, b| spec(b, |s| s["linux"]["namespaces"] = json!([{"type": "pid"}])),
        says: "{bundle}/config.json cannot be used: linux.namespaces has no mount namespace; add {\"type\": \"mount\"}: the monitor's root is built in it",
    },
    Mistake {
        what: "a namespace that does not exist",
        make: |_, b| {
            spec(b, |s| {
                s["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/run/netns/none"}]);
            });
        },
        says: "cannot open the network namespace /run/netns/none; it must exist while a container joins it: No such file or directory (os error 2)",
    },
    Mistake {
        what: "a user namespace without ids",
        make: |_, b| spec(b, |s| s["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}])),
        says: "{bundle}/config.json cannot be used: linux.namespaces has a user namespace, but linux.uidMappings is missing; give the ids of the host that its ids are",
    },
    Mistake {
        what: "a rootfs that does not exist",
        make: |_, b| spec(b, |s| s["root"]["path"] = json!("none")),
        says: "cannot open the image root {bundle}/none: No such file or directory (os error 2)",
    },
    Mistake {
        what: "an unknown monitor",
        make: |_, b| b.annotate("hypervisor", "bochs"),
        says: "the annotation com.urunc.unikernel.hypervisor has the value \"bochs\"; known values are hvt, spt, qemu, firecracker, cloud-hypervisor",
    },
    Mistake {
        what: "an unknown guest",
        make: |_, b| b.annotate("unikernelType", "plan9"),
        says: "the annotation com.urunc.unikernel.unikernelType has the value \"plan9\"; known values are unikraft, rumprun, mirage, mewz, linux, hermit, freebsd, generic",
    },
    Mistake {
        what: "half of the annotations",
        make: |_, b| {
            spec(b, |s| {
                drop(s["annotations"].as_object_mut().unwrap().remove("com.urunc.unikernel.hypervisor"))
            });
        },
        says: "the annotation com.urunc.unikernel.hypervisor is missing, but com.urunc.unikernel.unikernelType is there; a unikernel needs com.urunc.unikernel.unikernelType, com.urunc.unikernel.hypervisor, com.urunc.unikernel.binary",
    },
    Mistake {
        what: "an invalid urunc.json",
        make: |_, b| {
            spec(b, |s| s["annotations"] = json!({}));
            fs::write(b.path.join("rootfs/urunc.json"), "{\"com.urunc.unikernel.binary\": \"%\"}").unwrap();
        },
        says: "urunc.json in the image: the value of com.urunc.unikernel.binary is not base64: Invalid symbol 37, offset 0.",
    },
    Mistake {
        what: "a missing monitor binary",
        make: |s, _| s.configure("[monitors.spt]\npath = \"/opt/none/solo5-spt\"\n"),
        says: "cannot use /opt/none/solo5-spt as the monitor spt; correct monitors.spt.path in the configuration: No such file or directory (os error 2)",
    },
    Mistake {
        what: "a directory as monitor",
        make: |s, _| s.configure("[monitors.spt]\npath = \"/usr/bin\"\n"),
        says: "cannot use /usr/bin as the monitor spt; correct monitors.spt.path in the configuration: not a regular file",
    },
    Mistake {
        what: "a monitor that is not executable",
        make: |s, _| s.configure("[monitors.spt]\npath = \"/etc/passwd\"\n"),
        says: "cannot use /etc/passwd as the monitor spt; correct monitors.spt.path in the configuration: Permission denied (os error 13)",
    },
    Mistake {
        what: "a monitor by relative path",
        make: |s, _| s.configure("[monitors.spt]\npath = \"bin/spt\"\n"),
        says: "the configuration file {scene}/config.toml is wrong in line 2: path is the relative path bin/spt; use an absolute one",
    },
    Mistake {
        what: "a missing guest binary",
        make: |_, b| fs::remove_file(kernel(b)).unwrap(),
        says: "cannot use the file that com.urunc.unikernel.binary names: the image has no file \"/boot/kernel\"",
    },
    Mistake {
        what: "an empty guest binary",
        make: |_, b| fs::write(kernel(b), "").unwrap(),
        says: "cannot use /boot/kernel of the image as the kernel: the kernel file is empty",
    },
    Mistake {
        what: "a guest binary that is no ELF file",
        make: |_, b| fs::write(kernel(b), "#!/bin/sh\necho this is a shell script, not a kernel\n").unwrap(),
        says: "cannot use /boot/kernel of the image as the kernel: the kernel file is neither an ELF executable nor a Linux bzImage or arm64 Image: it starts with [23, 21, 2f, 62, 69, 6e, 2f, 73]",
    },
    Mistake {
        what: "a guest binary for another monitor",
        make: |_, b| {
            fs::copy(demo("demo"), kernel(b)).unwrap();
        },
        says: "cannot run /boot/kernel of the image: the kernel is a Solo5 binary for hvt (ABI target 1, version 2); spt needs ABI target 2 version 2",
    },
    Mistake {
        what: "a truncated guest binary",
        make: |_, b| fs::write(kernel(b), &fs::read(demo("demo-spt")).unwrap()[..100]).unwrap(),
        says: "cannot use /boot/kernel of the image as the kernel: the kernel file is cut short: the program header table should be 392 bytes at offset 64",
    },
    Mistake {
        what: "a directory as guest binary",
        make: |_, b| {
            fs::remove_file(kernel(b)).unwrap();
            fs::create_dir(kernel(b)).unwrap();
        },
        says: "cannot use the file that com.urunc.unikernel.binary names: cannot use \"/boot/kernel\" of the image: it is a directory, not a regular file",
    },
    Mistake {
        what: "a guest path that climbs",
        make: |_, b| b.annotate("binary", "/../../etc/hostname"),
        says: "the annotation com.urunc.unikernel.binary has the value \"/../../etc/hostname\", which is not in its shortest form; a path in the image consists of letters, digits, `.`, `_`, `-` and `/`, without `..`, `.` or empty parts",
    },
    Mistake {
        what: "a guest path that leaves the image by a symbolic link",
        make: |_, b| {
            fs::remove_file(kernel(b)).unwrap();
            // In the image this means the image's own /etc/hostname, which does not exist.
            symlink("/etc/hostname", kernel(b)).unwrap();
        },
        says: "cannot use the file that com.urunc.unikernel.binary names: the image has no file \"/boot/kernel\"",
    },
    Mistake {
        what: "a guest path that leaves the image through /proc",
        make: |_, b| {
            fs::remove_file(kernel(b)).unwrap();
            symlink("/proc/self/exe", kernel(b)).unwrap();
        },
        says: "cannot use the file that com.urunc.unikernel.binary names: the image has no file \"/boot/kernel\"",
    },
    Mistake {
        what: "one byte of memory",
        make: |_, b| spec(b, |s| s["linux"]["resources"]["memory"]["limit"] = json!(1)),
        says: "cannot run /boot/kernel of the image: cannot give the guest 1 bytes of memory: spt accepts 2 MiB to 524288 MiB",
    },
    Mistake {
        what: "a pebibyte of memory",
        make: |_, b| spec(b, |s| s["linux"]["resources"]["memory"]["limit"] = json!(1i64 << 50)),
        says: "cannot run /boot/kernel of the image: cannot give the guest 1073741824 MiB of memory: spt accepts 2 MiB to 524288 MiB",
    },
    Mistake {
        what: "an argument that a command line cannot carry",
        make: |_, b| spec(b, |s| s["process"]["args"] = json!(["two words"])),
        says: "argument 0 (\"two words\") contains a space, which the command line of a generic guest cannot carry",
    },
    Mistake {
        what: "a monitor that does not support the guest",
        make: |_, b| {
            b.annotate("unikernelType", "linux");
        },
        says: "a linux guest does not run on spt: it runs on qemu, firecracker, cloud-hypervisor",
    },
    Mistake {
        what: "a wrong configuration",
        make: |s, _| s.configure("[runtime]\nkwm = \"auto\"\n"),
        says: "the configuration file {scene}/config.toml is wrong in line 2: unknown field `kwm`, expected one of `kvm`, `host_network`, `memory`, `seccomp`, `undeliverable`, `delegate`, `libcontainer`, `vAccel`",
    },
    Mistake {
        what: "an empty config.json",
        make: |_, b| fs::write(b.path.join("config.json"), "").unwrap(),
        says: "{bundle}/config.json is no OCI runtime configuration: it is not a JSON object",
    },
    Mistake {
        what: "a directory as config.json",
        make: |_, b| {
            fs::remove_file(b.path.join("config.json")).unwrap();
            fs::create_dir(b.path.join("config.json")).unwrap();
        },
        says: "cannot read {bundle}/config.json; an OCI bundle is a directory with a config.json and a root file system: Is a directory (os error 21)",
    },
    Mistake {
        what: "an empty root.path",
        make: |_, b| spec(b, |s| s["root"]["path"] = json!("")),
        says: "{bundle}/config.json cannot be used: root.path is empty; give the directory of the image's root file system",
    },
    Mistake {
        what: "a file as rootfs",
        make: |_, b| {
            fs::write(b.path.join("file"), "").unwrap();
            spec(b, |s| s["root"]["path"] = json!("file"));
        },
        says: "cannot open the image root {bundle}/file: Not a directory (os error 20)",
    },
    Mistake {
        what: "a namespace twice",
        make: |_, b| namespace(b, json!({"type": "pid"})),
        says: "{bundle}/config.json cannot be used: linux.namespaces lists the pid namespace twice; list it once",
    },
    Mistake {
        what: "a namespace by relative path",
        make: |_, b| spec(b, |s| s["linux"]["namespaces"][1]["path"] = json!("run/netns/x")),
        says: "{bundle}/config.json cannot be used: linux.namespaces gives the network namespace by the relative path run/netns/x; use an absolute one",
    },
    Mistake {
        what: "a mount namespace by path",
        make: |_, b| spec(b, |s| s["linux"]["namespaces"][4]["path"] = json!("/proc/1/ns/mnt")),
        says: "{bundle}/config.json cannot be used: linux.namespaces joins the mount namespace /proc/1/ns/mnt; leave its path out: the monitor's root needs one of its own",
    },
    Mistake {
        what: "an unknown namespace",
        make: |_, b| namespace(b, json!({"type": "galaxy"})),
        says: "{bundle}/config.json is not a valid OCI runtime configuration: linux.namespaces[5].type: unknown variant `galaxy`, expected one of `mount`, `cgroup`, `uts`, `ipc`, `user`, `pid`, `network`, `time`",
    },
    Mistake {
        what: "a file that is no namespace",
        make: |_, b| spec(b, |s| s["linux"]["namespaces"][1]["path"] = json!("/etc/passwd")),
        says: "cannot make the container's namespaces: cannot join the network namespace /etc/passwd; the path must lead to one: Invalid argument (os error 22)",
    },
    Mistake {
        what: "a namespace of another kind",
        make: |_, b| spec(b, |s| s["linux"]["namespaces"][1]["path"] = json!("/proc/self/ns/uts")),
        says: "cannot make the container's namespaces: cannot join the network namespace /proc/self/ns/uts; the path must lead to one: Invalid argument (os error 22)",
    },
    Mistake {
        what: "no network namespace",
        make: |_, b| spec(b, |s| drop(s["linux"]["namespaces"].as_array_mut().unwrap().remove(1))),
        says: "linux.namespaces has no network namespace, and a guest cannot take the host's place in its own network; add one, or set runtime.host_network = \"none\" in the configuration for guests without network",
    },
    Mistake {
        what: "a long host name",
        make: |_, b| spec(b, |s| s["hostname"] = json!("x".repeat(65))),
        says: "{bundle}/config.json cannot be used: hostname is 65 bytes long; the kernel accepts 64",
    },
    Mistake {
        what: "a host name without its namespace",
        make: |_, b| spec(b, |s| drop(s["linux"]["namespaces"].as_array_mut().unwrap().remove(3))),
        says: "{bundle}/config.json cannot be used: hostname is \"demo\", but linux.namespaces has no uts namespace, so that it would become the host's; add {\"type\": \"uts\"}, or remove it",
    },
    Mistake {
        what: "a domain name that is too long",
        make: |_, b| spec(b, |s| s["domainname"] = json!("x".repeat(65))),
        says: "{bundle}/config.json cannot be used: domainname is 65 bytes long; the kernel accepts 64",
    },
    Mistake {
        what: "a setting of the host",
        make: |_, b| sysctl(b, "vm.swappiness", "1"),
        says: "{bundle}/config.json cannot be used: linux.sysctl has vm.swappiness, which belongs to no namespace and would change the host; remove it, or set it on the host",
    },
    Mistake {
        what: "a setting without its namespace",
        make: |_, b| {
            spec(b, |s| drop(s["linux"]["namespaces"].as_array_mut().unwrap().remove(2)));
            sysctl(b, "kernel.msgmax", "1");
        },
        says: "{bundle}/config.json cannot be used: linux.sysctl has kernel.msgmax, but linux.namespaces has no ipc namespace, so that it would change the host; add {\"type\": \"ipc\"}, or remove it",
    },
    Mistake {
        what: "the host name as a setting",
        make: |_, b| sysctl(b, "kernel.hostname", "x"),
        says: "{bundle}/config.json cannot be used: linux.sysctl has kernel.hostname; use the field hostname instead",
    },
    Mistake {
        what: "a setting that climbs",
        make: |_, b| sysctl(b, "net/../kernel/panic", "1"),
        says: "{bundle}/config.json cannot be used: linux.sysctl has \"net/../kernel/panic\", which is no name of a kernel setting",
    },
    Mistake {
        what: "a setting with a wrong value",
        make: |_, b| sysctl(b, "net.ipv4.ip_unprivileged_port_start", "many"),
        says: "the container's process cannot be set up: cannot set linux.sysctl net.ipv4.ip_unprivileged_port_start to \"many\": Invalid argument (os error 22)",
    },
    Mistake {
        what: "a setting that does not exist",
        make: |_, b| sysctl(b, "net.no.such.setting", "1"),
        says: "the container's process cannot be set up: cannot set linux.sysctl net.no.such.setting to \"1\": No such file or directory (os error 2)",
    },
    Mistake {
        what: "clocks without their namespace",
        make: |_, b| spec(b, |s| s["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}})),
        says: "{bundle}/config.json cannot be used: linux.timeOffsets needs a new time namespace; add {\"type\": \"time\"} without a path to linux.namespaces, or remove it",
    },
    Mistake {
        what: "an unknown clock",
        make: |_, b| {
            namespace(b, json!({"type": "time"}));
            spec(b, |s| s["linux"]["timeOffsets"] = json!({"tai": {"secs": 1}}));
        },
        says: "{bundle}/config.json cannot be used: linux.timeOffsets has the clock \"tai\"; known ones are monotonic and boottime",
    },
    Mistake {
        what: "too many nanoseconds",
        make: |_, b| {
            namespace(b, json!({"type": "time"}));
            spec(b, |s| s["linux"]["timeOffsets"] = json!({"boottime": {"nanosecs": 1_000_000_000}}));
        },
        says: "{bundle}/config.json cannot be used: linux.timeOffsets gives boottime 1000000000 nanosecs; use a number below 1000000000",
    },
    Mistake {
        what: "a clock before its beginning",
        make: |_, b| {
            namespace(b, json!({"type": "time"}));
            spec(b, |s| s["linux"]["timeOffsets"] = json!({"boottime": {"secs": -1_000_000_000_000i64}}));
        },
        says: "cannot make the container's namespaces: cannot set the clocks as linux.timeOffsets says; none may be before its beginning: {ERANGE}",
    },
    Mistake {
        what: "ids without a user namespace",
        make: |_, b| spec(b, |s| s["linux"]["uidMappings"] = ids(0, 1)),
        says: "{bundle}/config.json cannot be used: linux.uidMappings is there, but linux.namespaces has no user namespace; add {\"type\": \"user\"}, or remove it",
    },
    Mistake {
        what: "ids that overlap",
        make: |_, b| {
            map(
                b,
                json!([{"containerID": 0, "hostID": 1, "size": 5}, {"containerID": 4, "hostID": 9, "size": 5}]),
            );
        },
        says: "{bundle}/config.json cannot be used: linux.uidMappings has the range 4:9:5, which overlaps another one",
    },
    Mistake {
        what: "a user without an id",
        make: |_, b| {
            map(b, ids(100_000, 1000));
            spec(b, |s| s["process"]["user"] = json!({"uid": 5000, "gid": 0}));
        },
        says: "{bundle}/config.json cannot be used: linux.uidMappings does not map the id 5000, which is process.user.uid; add a range that contains it",
    },
    Mistake {
        what: "a group without an id",
        make: |_, b| {
            map(b, ids(100_000, 1000));
            spec(b, |s| s["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [7000]}));
        },
        says: "{bundle}/config.json cannot be used: linux.gidMappings does not map the id 7000, which is one of process.user.additionalGids; add a range that contains it",
    },
    Mistake {
        what: "a negative user",
        make: |_, b| spec(b, |s| s["process"]["user"]["uid"] = json!(-1)),
        says: "{bundle}/config.json is not a valid OCI runtime configuration: process.user.uid: invalid value: integer `-1`, expected u32",
    },
    Mistake {
        what: "a label that is none",
        make: |_, b| spec(b, |s| s["process"]["selinuxLabel"] = json!("container_t")),
        says: "{bundle}/config.json cannot be used: process.selinuxLabel is \"container_t\"; an SELinux label is user:role:type:level",
    },
    Mistake {
        what: "a profile with a line break",
        make: |_, b| spec(b, |s| s["process"]["apparmorProfile"] = json!("a\nb")),
        says: "{bundle}/config.json cannot be used: process.apparmorProfile is \"a\\nb\"; use printable characters without spaces at the ends",
    },
    Mistake {
        what: "a limit twice",
        make: |_, b| {
            rlimits(
                b,
                json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
            )
        },
        says: "{bundle}/config.json cannot be used: process.rlimits lists RLIMIT_CORE twice; list it once",
    },
    Mistake {
        what: "a soft limit above the hard one",
        make: |_, b| rlimits(b, json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8}])),
        says: "{bundle}/config.json cannot be used: process.rlimits has RLIMIT_NOFILE with the soft limit 9 above the hard limit 8",
    },
    Mistake {
        what: "an unknown limit",
        make: |_, b| rlimits(b, json!([{"type": "RLIMIT_PATIENCE", "soft": 1, "hard": 1}])),
        says: "{bundle}/config.json is not a valid OCI runtime configuration: process.rlimits[0].type: unknown variant `RLIMIT_PATIENCE`, expected one of `RLIMIT_CPU`, `RLIMIT_FSIZE`, `RLIMIT_DATA`, `RLIMIT_STACK`, `RLIMIT_CORE`, `RLIMIT_RSS`, `RLIMIT_NPROC`, `RLIMIT_NOFILE`, `RLIMIT_MEMLOCK`, `RLIMIT_AS`, `RLIMIT_LOCKS`, `RLIMIT_SIGPENDING`, `RLIMIT_MSGQUEUE`, `RLIMIT_NICE`, `RLIMIT_RTPRIO`, `RLIMIT_RTTIME`",
    },
    Mistake {
        what: "an adjustment out of range",
        make: |_, b| spec(b, |s| s["process"]["oomScoreAdj"] = json!(2000)),
        says: "{bundle}/config.json cannot be used: process.oomScoreAdj is 2000; use a number from -1000 to 1000",
    },
    Mistake {
        what: "a hook by relative path",
        make: |_, b| spec(b, |s| s["hooks"] = json!({"createRuntime": [{"path": "bin/true"}]})),
        says: "{bundle}/config.json cannot be used: hooks.createRuntime has the path bin/true; use an absolute one",
    },
    Mistake {
        what: "a hook without time",
        make: |_, b| spec(b, |s| s["hooks"] = json!({"prestart": [{"path": "/bin/true", "timeout": 0}]})),
        says: "{bundle}/config.json cannot be used: hooks.prestart has the timeout 0; use a number of seconds greater than 0",
    },
    Mistake {
        what: "a hook with a NUL character",
        make: |_, b| spec(b, |s| s["hooks"] = json!({"poststop": [{"path": "/bin/true", "args": ["a\0"]}]})),
        says: "{bundle}/config.json cannot be used: hooks.poststop has an argument or a variable with a NUL character",
    },
    Mistake {
        what: "a hook that does not exist",
        make: |_, b| spec(b, |s| s["hooks"] = json!({"createRuntime": [{"path": "/opt/none/hook"}]})),
        says: "the createRuntime hook /opt/none/hook ended with exit status 127 and said \"cannot execute it: No such file or directory (os error 2)\"",
    },
    Mistake {
        what: "an argument with a NUL character",
        make: |_, b| spec(b, |s| s["process"]["args"] = json!(["a\0b"])),
        says: "{bundle}/config.json cannot be used: process.args contains a NUL character",
    },
    Mistake {
        what: "a relative working directory",
        make: |_, b| spec(b, |s| s["process"]["cwd"] = json!("work")),
        says: "{bundle}/config.json cannot be used: process.cwd is \"work\"; use an absolute path",
    },
    Mistake {
        what: "a negative size",
        make: |_, b| spec(b, |s| s["linux"]["resources"]["memory"]["limit"] = json!(-2)),
        says: "{bundle}/config.json cannot be used: linux.resources.memory.limit is -2; use a number of bytes, or -1 for no limit",
    },
    Mistake {
        what: "an unknown device access",
        make: |_, b| {
            spec(b, |s| s["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwx"}]))
        },
        says: "{bundle}/config.json cannot be used: linux.resources.devices has the access \"rwx\"; use letters of rwm",
    },
    Mistake {
        what: "an impossible device number",
        make: |_, b| {
            spec(b, |s| {
                s["linux"]["resources"]["devices"] =
                    json!([{"allow": true, "type": "c", "major": -3, "access": "r"}])
            })
        },
        says: "{bundle}/config.json cannot be used: linux.resources has the device number -3; use one from 0 to 4294967295, or -1 for all where a rule permits it",
    },
    Mistake {
        what: "a terminal without a socket",
        make: |_, b| spec(b, |s| s["process"]["terminal"] = json!(true)),
        says: "process.terminal is true, but there is no --console-socket to send the terminal to",
    },
    Mistake {
        what: "a path with an option in it",
        make: |_, b| b.annotate("binary", "/boot/kernel,format=raw"),
        says: "the annotation com.urunc.unikernel.binary has the value \"/boot/kernel,format=raw\", which contains a character that is not allowed; a path in the image consists of letters, digits, `.`, `_`, `-` and `/`, without `..`, `.` or empty parts",
    },
    Mistake {
        what: "a path that is an option",
        make: |_, b| b.annotate("initrd", "-initrd"),
        says: "the annotation com.urunc.unikernel.initrd has the value \"-initrd\", which begins with `-` and could be taken for an option; a path in the image consists of letters, digits, `.`, `_`, `-` and `/`, without `..`, `.` or empty parts",
    },
    Mistake {
        what: "a path that is the root",
        make: |_, b| b.annotate("block", "/"),
        says: "the annotation com.urunc.unikernel.block has the value \"/\", which is the root directory; a path in the image consists of letters, digits, `.`, `_`, `-` and `/`, without `..`, `.` or empty parts",
    },
    Mistake {
        what: "an empty guest path",
        make: |_, b| b.annotate("binary", ""),
        says: "the annotation com.urunc.unikernel.binary has the value \"\", which is empty; a path in the image consists of letters, digits, `.`, `_`, `-` and `/`, without `..`, `.` or empty parts",
    },
    Mistake {
        what: "a long version",
        make: |_, b| b.annotate("unikernelVersion", &"9".repeat(5000)),
        says: "the annotation com.urunc.unikernel.unikernelVersion is 5000 bytes long; at most 4096 are accepted",
    },
    Mistake {
        what: "an undecided boolean",
        make: |_, b| b.annotate("mountRootfs", "perhaps"),
        says: "the annotation com.urunc.unikernel.mountRootfs has the value \"perhaps\"; use \"true\" or \"false\"",
    },
    Mistake {
        what: "a device name with a space",
        make: |_, b| b.annotate("solo5NetDev", "my net"),
        says: "the annotation com.urunc.unikernel.solo5NetDev has the value \"my net\"; a Solo5 device name is 1 to 67 letters and digits",
    },
    Mistake {
        what: "an initrd that does not exist",
        make: |_, b| {
            b.annotate("initrd", "/boot/none");
        },
        says: "cannot use the file that com.urunc.unikernel.initrd names: the image has no file \"/boot/none\"",
    },
    Mistake {
        what: "a disk image that does not exist",
        make: |_, b| {
            b.annotate("block", "/boot/none");
            b.annotate("blkMntPoint", "/data");
        },
        says: "cannot use the file that com.urunc.unikernel.block names: the image has no file \"/boot/none\"",
    },
    Mistake {
        what: "a urunc.json that is no object",
        make: |_, b| urunc_json(b, "[]"),
        says: "urunc.json in the image is not a JSON object of strings: invalid type: sequence, expected a map",
    },
    Mistake {
        what: "a urunc.json without a key",
        make: |_, b| urunc_json(b, "{\"com.urunc.unikernel.binary\": \"L2E=\"}"),
        says: "the annotation com.urunc.unikernel.unikernelType is missing, but urunc.json is there; a unikernel needs com.urunc.unikernel.unikernelType, com.urunc.unikernel.hypervisor, com.urunc.unikernel.binary",
    },
    Mistake {
        what: "a urunc.json that is no text",
        make: |_, b| urunc_json(b, "{\"com.urunc.unikernel.binary\": \"//79\"}"),
        says: "urunc.json in the image: the value of com.urunc.unikernel.binary does not decode to UTF-8 text",
    },
    Mistake {
        what: "a volume that does not exist",
        make: |_, b| {
            mount(
                b,
                &json!({"destination": "/data", "type": "bind", "source": "/opt/none", "options": ["bind"]}),
            )
        },
        says: "cannot open the volume /opt/none: No such file or directory (os error 2)",
    },
    Mistake {
        what: "a volume without a source",
        make: |_, b| mount(b, &json!({"destination": "/data", "type": "bind", "options": ["bind"]})),
        says: "cannot bind anything at /data: the mount has no source",
    },
    Mistake {
        what: "a volume that the guest cannot have",
        make: |_, b| {
            mount(b, &json!({"destination": "/data", "type": "bind", "source": "/etc", "options": ["bind"]}))
        },
        says: "cannot give the guest all of the container's volumes: /data: with this root file system nothing of the host reaches the guest; `undeliverable = \"warn\"` in the section `[runtime]` of the configuration accepts that",
    },
    Mistake {
        what: "a file system of the network",
        make: |_, b| mount(b, &json!({"destination": "/data", "type": "nfs4", "source": "server:/"})),
        says: "cannot give the guest the mount at /data: it is of type nfs4, and only bind mounts reach a guest",
    },
    Mistake {
        what: "a QEMU without firmware",
        make: |s, b| {
            s.configure("[monitors.qemu]\npath = \"/usr/bin/true\"\ndata_path = \"/opt/none\"\n");
            b.annotate("hypervisor", "qemu");
            fs::copy(demo("demo"), kernel(b)).unwrap();
        },
        says: "cannot find QEMU's firmware qboot.rom in /opt/none/qemu, /opt/none/seabios, /opt/none/; install it (in Debian, qemu-system-data and seabios), or set monitors.qemu.data_path in the configuration",
    },
    Mistake {
        what: "a QEMU that cannot have vhost",
        make: |s, b| {
            s.configure("[monitors.qemu]\npath = \"/usr/bin/true\"\nvhost = true\n");
            b.annotate("hypervisor", "qemu");
            fs::copy(demo("demo"), kernel(b)).unwrap();
        },
        says: "cannot use /dev/vhost-net, which monitors.qemu.vhost in the configuration wants; load the module vhost_net, or set it to false: No such file or directory (os error 2)",
    },
    Mistake {
        what: "a configuration that is no TOML",
        make: |s, _| s.configure("[runtime\n"),
        says: "the configuration file {scene}/config.toml is wrong in line 1: unclosed table, expected `]`",
    },
    Mistake {
        what: "a configuration with a wrong type",
        make: |s, _| s.configure("[log]\nsyslog = \"yes\"\n"),
        says: "the configuration file {scene}/config.toml is wrong in line 2: invalid type: string \"yes\", expected a boolean",
    },
    Mistake {
        what: "a configuration with an unknown word",
        make: |s, _| s.configure("[runtime]\n\nkvm = \"sometimes\"\n"),
        says: "the configuration file {scene}/config.toml is wrong in line 3: unknown variant `sometimes`, expected one of `auto`, `required`, `off`",
    },
    Mistake {
        what: "a configuration with an unknown monitor",
        make: |s, _| s.configure("[monitors.qmeu]\npath = \"/x\"\n"),
        says: "the configuration file {scene}/config.toml is wrong in line 1: there is no monitor qmeu; known ones are hvt, spt, qemu, firecracker, cloud-hypervisor",
    },
    Mistake {
        what: "a configuration with a relative path",
        make: |s, _| s.configure("[extra_binaries.virtiofsd]\npath = \"virtiofsd\"\n"),
        says: "the configuration file {scene}/config.toml is wrong in line 2: path is the relative path virtiofsd; use an absolute one",
    },
    Mistake {
        what: "a configuration without CPUs",
        make: |s, _| s.configure("[monitors.spt]\ndefault_vcpus = 0\n"),
        says: "the configuration file {scene}/config.toml is wrong in line 2: invalid value: integer `0`, expected a nonzero u32",
    },
    Mistake {
        what: "a configuration without a runtime",
        make: |s, _| s.configure("[runtime]\ndelegate = \"\"\n"),
        says: "the configuration file {scene}/config.toml is wrong in line 2: delegate is empty; use the name or the path of a runtime, such as runc",
    },
    Mistake {
        what: "a configuration that does not exist",
        make: |s, _| fs::remove_file(s.path("config.toml")).unwrap(),
        says: "cannot read the configuration file {scene}/config.toml; make it readable, or correct URUNC_CONFIG_FILE: No such file or directory (os error 2)",
    },
    Mistake {
        what: "a configuration that cannot be read",
        make: |s, _| {
            fs::remove_file(s.path("config.toml")).unwrap();
            fs::create_dir(s.path("config.toml")).unwrap();
        },
        says: "cannot read the configuration file {scene}/config.toml; make it readable, or correct URUNC_CONFIG_FILE: Is a directory (os error 21)",
    },
    Mistake {
        what: "a profile that asks somebody",
        make: |s, b| {
            add(s, "[runtime]\nseccomp = \"spec\"\n");
            spec(
                b,
                |s| s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]}),
            );
        },
        says: "linux.seccomp has the action SCMP_ACT_NOTIFY, which urunc does not support; remove it, or set runtime.seccomp = \"monitor\" in the configuration",
    },
    Mistake {
        what: "a profile about a seventh argument",
        make: |s, b| {
            add(s, "[runtime]\nseccomp = \"spec\"\n");
            spec(
                b,
                |s| s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_KILL", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
            );
        },
        says: "linux.seccomp has a condition on the argument 6 of mount; system calls have the arguments 0 to 5",
    },
    Mistake {
        what: "an unknown controller file",
        make: |_, b| spec(b, |s| s["linux"]["resources"]["unified"] = json!({"../memory.max": "1"})),
        says: "linux.resources.unified has \"../memory.max\", which is no file name of a cgroup",
    },
];

/// What `check --bundle` cannot know: the kernel says it of the container's process, or it is not in the bundle.
const FOUND_LATER: &[&str] = &[
    "a setting with a wrong value",
    "a setting that does not exist",
    "a clock before its beginning",
    "a hook that does not exist",
    "a terminal without a socket",
];

/// What is below a directory, with the contents of small files.
fn tree(directory: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&path));
            found.insert((path, Vec::new()));
        } else {
            let content = fs::read(&path).unwrap_or_default();
            found.insert((path, content));
        }
    }
    found
}

/// Control groups whose names contain `id`.
fn groups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = left.pop() {
        // Other tests' groups come and go.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(id) {
                    found.push(entry.path());
                }
                left.push(entry.path());
            }
        }
    }
    found
}

fn table() -> Result<(), Failed> {
    assert!(MISTAKES.len() >= 60, "{}", MISTAKES.len());
    let prefix = format!("mistake-{}-", std::process::id());
    let mut wrong = Vec::new();
    for mistake in MISTAKES {
        if mistake.says.contains("/dev/vhost-net") && Path::new("/dev/vhost-net").exists() {
            eprintln!("skipped in part: this host has vhost-net, so it cannot be missed");
            continue;
        }
        let scene = Scene::new();
        scene.fake_monitor(Path::new("/usr/bin/true"));
        let bundle = scene.fake(&[]);
        (mistake.make)(&scene, &bundle);
        let id = format!("{prefix}{}", scene.uid);
        let before = tree(&bundle.path);
        let check = scene.urunc(&["check", "--bundle", bundle.str()]);
        let finds =
            String::from_utf8_lossy(&check.stdout).contains("missing  bundle") || !check.stderr.is_empty();
        if finds == FOUND_LATER.contains(&mistake.what) {
            wrong.push(format!("{}: found by check: {finds}", mistake.what));
        }
        // A file, as a container that is created by mistake would hold a pipe open.
        let said = fs::File::create(scene.path("said")).unwrap();
        let mut create = scene.command(&["create", "--bundle", bundle.str(), &id]);
        let status = create.stdout(said.try_clone().unwrap()).stderr(said).status().unwrap();
        let text = fs::read_to_string(scene.path("said")).unwrap();
        let after = tree(&bundle.path);
        let _ = fs::remove_dir(scene.path("config.toml"));
        scene.configure("");
        let left = scene.leftovers();
        let [bundle, place, root] = [&bundle.path, &scene.path(""), &scene.root()]
            .map(|path| path.to_str().unwrap().trim_end_matches('/').to_owned());
        let said = text
            .strip_prefix("urunc: error: ")
            .unwrap_or(&text)
            .trim_end()
            .replace(&bundle, "{bundle}")
            .replace(&place, "{scene}")
            .replace(&root, "{root}")
            .replace(&id, "{id}")
            .replace(&std::io::Error::from_raw_os_error(libc::ERANGE).to_string(), "{ERANGE}");
        // A scene's user, and with it the length of the specification, differs, too.
        let said = said.split_once(" at line 1 column ").map_or(said.as_str(), |(before, _)| before);
        if status.code() != Some(1) || said != mistake.says || before != after || !left.is_empty() {
            wrong.push(format!(
                "{}: status {:?}, bundle changed: {}, left {left:?}:\n  {said}",
                mistake.what,
                status.code(),
                before != after
            ));
        }
    }
    assert_eq!(groups(&prefix), Vec::<PathBuf>::new());
    if wrong.is_empty() { passed() } else { Err(wrong.join("\n").into()) }
}
