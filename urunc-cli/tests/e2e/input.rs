//! What bad input gets: one sentence that names the cause and the remedy, exit status 1, and nothing left behind.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Test;
use crate::scene::{Bundle, Need, Scene, demo, passed};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "input::every_mistake_gets_one_sentence_and_leaves_nothing",
        needs: &[Need::Root],
        run: table,
    },
    Test { name: "input::containerd_finds_the_error_in_the_log_file", needs: &[Need::Root], run: log_file },
    Test { name: "input::ids_that_are_no_ids", needs: &[Need::Root], run: ids },
    Test {
        name: "input::a_wrong_configuration_never_disarms_kill",
        needs: &[Need::Root],
        run: wrong_configuration,
    },
    Test { name: "input::the_command_line", needs: &[], run: command_line },
];

/// A mistake: what it is, how it is made, and what the sentence must contain.
struct Mistake {
    what: &'static str,
    make: fn(&Scene, &Bundle),
    says: &'static [&'static str],
}

/// A change of the specification.
fn spec(bundle: &Bundle, change: impl FnOnce(&mut Value)) {
    bundle.edit(change);
}

fn kernel(bundle: &Bundle) -> std::path::PathBuf {
    bundle.path.join("rootfs/boot/kernel")
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        what: "no config.json",
        make: |_, b| fs::remove_file(b.path.join("config.json")).unwrap(),
        says: &["config.json", "OCI bundle"],
    },
    Mistake {
        what: "invalid JSON",
        make: |_, b| fs::write(b.path.join("config.json"), "{\"ociVersion\": }").unwrap(),
        says: &["config.json", "line 1"],
    },
    Mistake {
        what: "a config.json of another type",
        make: |_, b| fs::write(b.path.join("config.json"), "[]").unwrap(),
        says: &["config.json"],
    },
    Mistake {
        what: "no linux",
        make: |_, b| spec(b, |s| drop(s.as_object_mut().unwrap().remove("linux"))),
        says: &["`linux`"],
    },
    Mistake {
        what: "no process",
        make: |_, b| spec(b, |s| drop(s.as_object_mut().unwrap().remove("process"))),
        says: &["`process`"],
    },
    Mistake {
        what: "no root",
        make: |_, b| spec(b, |s| drop(s.as_object_mut().unwrap().remove("root"))),
        says: &["`root`"],
    },
    Mistake {
        what: "no mount namespace",
        make: |_, b| spec(b, |s| s["linux"]["namespaces"] = json!([{"type": "pid"}])),
        says: &["mount namespace"],
    },
    Mistake {
        what: "a namespace that does not exist",
        make: |_, b| {
            spec(b, |s| {
                s["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/run/netns/none"}]);
            });
        },
        says: &["network namespace", "/run/netns/none"],
    },
    Mistake {
        what: "a user namespace without ids",
        make: |_, b| spec(b, |s| s["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}])),
        says: &["user namespace", "linux.uidMappings is missing"],
    },
    Mistake {
        what: "a rootfs that does not exist",
        make: |_, b| spec(b, |s| s["root"]["path"] = json!("none")),
        says: &["none"],
    },
    Mistake {
        what: "an unknown monitor",
        make: |_, b| b.annotate("hypervisor", "bochs"),
        says: &["bochs", "firecracker"],
    },
    Mistake {
        what: "an unknown guest",
        make: |_, b| b.annotate("unikernelType", "plan9"),
        says: &["plan9", "unikraft"],
    },
    Mistake {
        what: "half of the annotations",
        make: |_, b| {
            spec(b, |s| {
                drop(s["annotations"].as_object_mut().unwrap().remove("com.urunc.unikernel.hypervisor"))
            });
        },
        says: &["com.urunc.unikernel.hypervisor", "missing"],
    },
    Mistake {
        what: "an invalid urunc.json",
        make: |_, b| {
            spec(b, |s| s["annotations"] = json!({}));
            fs::write(b.path.join("rootfs/urunc.json"), "{\"com.urunc.unikernel.binary\": \"%\"}").unwrap();
        },
        says: &["urunc.json", "base64"],
    },
    Mistake {
        what: "a missing monitor binary",
        make: |s, _| s.configure("[monitors.spt]\npath = \"/opt/none/solo5-spt\"\n"),
        says: &["/opt/none/solo5-spt"],
    },
    Mistake {
        what: "a directory as monitor",
        make: |s, _| s.configure("[monitors.spt]\npath = \"/usr/bin\"\n"),
        says: &["/usr/bin", "monitors.spt.path", "not a regular file"],
    },
    Mistake {
        what: "a monitor that is not executable",
        make: |s, _| s.configure("[monitors.spt]\npath = \"/etc/passwd\"\n"),
        says: &["/etc/passwd", "monitors.spt.path", "Permission denied"],
    },
    Mistake {
        what: "a monitor by relative path",
        make: |s, _| s.configure("[monitors.spt]\npath = \"bin/spt\"\n"),
        says: &["bin/spt", "not absolute"],
    },
    Mistake {
        what: "a missing guest binary",
        make: |_, b| fs::remove_file(kernel(b)).unwrap(),
        says: &["/boot/kernel"],
    },
    Mistake {
        what: "an empty guest binary",
        make: |_, b| fs::write(kernel(b), "").unwrap(),
        says: &["/boot/kernel", "empty"],
    },
    Mistake {
        what: "a guest binary that is no ELF file",
        make: |_, b| fs::write(kernel(b), "#!/bin/sh\necho this is a shell script, not a kernel\n").unwrap(),
        says: &["/boot/kernel", "ELF"],
    },
    Mistake {
        what: "a guest binary for another monitor",
        make: |_, b| {
            fs::copy(demo("demo"), kernel(b)).unwrap();
        },
        says: &["/boot/kernel", "hvt", "spt"],
    },
    Mistake {
        what: "a truncated guest binary",
        make: |_, b| fs::write(kernel(b), &fs::read(demo("demo-spt")).unwrap()[..100]).unwrap(),
        says: &["/boot/kernel"],
    },
    Mistake {
        what: "a directory as guest binary",
        make: |_, b| {
            fs::remove_file(kernel(b)).unwrap();
            fs::create_dir(kernel(b)).unwrap();
        },
        says: &["/boot/kernel", "directory"],
    },
    Mistake {
        what: "a guest path that climbs",
        make: |_, b| b.annotate("binary", "/../../etc/hostname"),
        says: &["/../../etc/hostname", ".."],
    },
    Mistake {
        what: "a guest path that leaves the image by a symbolic link",
        make: |_, b| {
            fs::remove_file(kernel(b)).unwrap();
            // In the image this means the image's own /etc/hostname, which does not exist.
            symlink("/etc/hostname", kernel(b)).unwrap();
        },
        says: &["/boot/kernel"],
    },
    Mistake {
        what: "a guest path that leaves the image through /proc",
        make: |_, b| {
            fs::remove_file(kernel(b)).unwrap();
            symlink("/proc/self/exe", kernel(b)).unwrap();
        },
        says: &["/boot/kernel"],
    },
    Mistake {
        what: "one byte of memory",
        make: |_, b| spec(b, |s| s["linux"]["resources"]["memory"]["limit"] = json!(1)),
        says: &["memory", "1 bytes", "accepts"],
    },
    Mistake {
        what: "a pebibyte of memory",
        make: |_, b| spec(b, |s| s["linux"]["resources"]["memory"]["limit"] = json!(1i64 << 50)),
        says: &["memory"],
    },
    Mistake {
        what: "an argument that a command line cannot carry",
        make: |_, b| spec(b, |s| s["process"]["args"] = json!(["two words"])),
        says: &["two words"],
    },
    Mistake {
        what: "a monitor that does not support the guest",
        make: |_, b| {
            b.annotate("unikernelType", "linux");
        },
        says: &["linux", "spt"],
    },
    Mistake {
        what: "a wrong configuration",
        make: |s, _| s.configure("[runtime]\nkwm = \"auto\"\n"),
        says: &["config.toml", "line 2", "kwm"],
    },
];

fn table() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for mistake in MISTAKES {
        let scene = Scene::new();
        scene.fake_monitor(std::path::Path::new("/usr/bin/true"));
        let bundle = scene.fake(&[]);
        (mistake.make)(&scene, &bundle);
        let output = scene.urunc(&["create", "--bundle", bundle.str(), "c"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let complete = mistake.says.iter().all(|word| text.contains(word));
        scene.configure("");
        let left = scene.leftovers();
        if output.status.code() != Some(1) || text.lines().count() != 1 || !complete || !left.is_empty() {
            wrong.push(format!("{}: status {:?}, left {left:?}: {text}", mistake.what, output.status.code()));
        }
    }
    if wrong.is_empty() { passed() } else { Err(wrong.join("\n").into()) }
}

/// style.md B.3: the last `error` record of the log file is what containerd's user sees.
fn log_file() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.fake(&[]);
    bundle.annotate("hypervisor", "bochs");
    let log = scene.path("log.json");
    let args =
        ["--log", log.to_str().unwrap(), "--log-format", "json", "create", "--bundle", bundle.str(), "c"];
    let said = scene.fails(&args);
    let text = fs::read_to_string(&log).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = records.iter().rfind(|record| record["level"] == "error").unwrap();
    assert!(said.ends_with(last["msg"].as_str().unwrap()), "{said} {last}");
    assert!(last["time"].as_str().unwrap().ends_with('Z'));
    passed()
}

/// B5: no id leads out of the state root.
fn ids() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(std::path::Path::new("/usr/bin/true"));
    let bundle = scene.fake(&[]);
    for id in ["", ".", "..", "../x", "a/b", "a b", "ä", &"x".repeat(1025), &"x".repeat(300)] {
        for args in
            [&["create", "--bundle", bundle.str(), id][..], &["delete", "--force", id], &["state", id]]
        {
            if args[0] != "create" && id.len() == 300 {
                continue; // a valid id, of which there just cannot be a container
            }
            let message = scene.fails(args);
            assert!(message.contains("id"), "{id:?}: {message}");
        }
    }
    scene.assert_clean();
    passed()
}

fn command_line() -> Result<(), Failed> {
    let scene = Scene::new();
    for args in
        [&["frobnicate"][..], &["create"], &["kill"], &["--log-format", "xml", "list"], &["list", "extra"]]
    {
        let output = scene.urunc(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["create", "--help"], &["--version"]] {
        let output = scene.urunc(args);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
    }
    passed()
}

/// What runs stays controllable, whatever has been written into the configuration meanwhile.
fn wrong_configuration() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    for wrong in ["[runtime]\nkwm = 1\n", "[monitors.qmeu]\npath = \"/x\"\n"] {
        scene.configure(wrong);
        assert!(scene.fails(&["create", "--bundle", bundle.str(), "d"]).contains("config.toml"), "{wrong}");
        assert_eq!(scene.status("c"), "running");
    }
    scene.ok(&["kill", "c", "KILL"]);
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}
