//! The same container, started, stopped and started again, from each way in which containerd keeps a container's files.

use std::fs;
use std::path::Path;

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{Containerd, Need, RUNTIME, describe, eventually, guest};
use crate::image::{Described, Image};
use crate::linux;
use crate::scene::stock_kernel;

const OVERLAYFS: &[Need] = &[Need::Root, Need::Containerd, Need::Guest, Need::Linux];
const BLOCKFILE: &[Need] = &[Need::Root, Need::Guest, Need::Linux, Need::Blockfile];
const SHARED: &[Need] = &[Need::Root, Need::Containerd, Need::LinuxDrivers, Need::Virtiofsd];
const BLOCK: &[Need] = &[Need::Root, Need::LinuxDrivers, Need::Blockfile];

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "snapshotters::overlayfs_starts_the_same_container_again",
        needs: OVERLAYFS,
        run: || again(Containerd::start, "overlayfs"),
    },
    Test {
        name: "snapshotters::native_starts_the_same_container_again",
        needs: OVERLAYFS,
        run: || again(Containerd::start, "native"),
    },
    Test {
        name: "snapshotters::blockfile_starts_the_same_container_again",
        needs: BLOCKFILE,
        run: || again(Containerd::with_blockfile, "blockfile"),
    },
    Test {
        name: "snapshotters::a_guest_keeps_its_files_in_overlayfs",
        needs: SHARED,
        run: || keeps(Containerd::start, "overlayfs"),
    },
    Test {
        name: "snapshotters::a_guest_keeps_its_files_in_native",
        needs: SHARED,
        run: || keeps(Containerd::start, "native"),
    },
    Test {
        name: "snapshotters::a_guest_keeps_its_files_on_the_blockfiles_device",
        needs: BLOCK,
        run: || keeps(Containerd::with_blockfile, "blockfile"),
    },
];

/// Emulation, and virtiofs in a way that is fit for it (see e2e/disk.rs).
const CONFIG: &str = "[runtime]\nkvm = \"off\"\n[extra_binaries.virtiofsd]\noptions = \"--cache=always\"\n";
const SCRIPT: &str = r#"
say "image: $(show /etc/image)"
say "before: $(show /work/written)"
say "write: $(try put /work/written today)"
"#;

/// An image with a Linux guest, whose files are those of `directory`.
fn image(name: &'static str, directory: &Path, more: &'static [(&'static str, &'static str)]) -> Image {
    let mut files = vec![];
    collect(directory, "", &mut files);
    Image {
        name,
        files,
        command: &["/init"],
        kind: "linux",
        monitor: "qemu",
        described: Described::InImage,
        more,
    }
}

fn collect(directory: &Path, place: &str, files: &mut Vec<(std::path::PathBuf, &'static str)>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let place = format!("{place}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{place}/"), files);
        } else {
            // A name's lifetime is the test's.
            files.push((entry.path(), place.leak()));
        }
    }
}

/// Starts the container's task in the foreground, to its end, and returns what the guest said.
fn started(containerd: &Containerd, arguments: &[&str]) -> String {
    let output = containerd.ctr(arguments);
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let ended = output.status.success() && text.contains("guest: end");
    assert!(ended, "{}\n{}", describe(&output), containerd.log());
    text
}

#[track_caller]
fn said(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|it| it == format!("guest: {line}")), "not said: {line}\n{text}");
    }
}

/// Mounts and loop devices below this containerd's directory.
fn inventory(containerd: &Containerd) -> Vec<String> {
    linux::inventory(&containerd.path(""))
}

/// They are what they were, once a container that another test makes has left its copies of all mounts.
#[track_caller]
fn same(containerd: &Containerd, before: &[String]) {
    assert!(
        eventually(|| inventory(containerd) == before),
        "{:#?} instead of {before:#?}",
        inventory(containerd)
    );
}

/// R9: boot files were moved out of the snapshot, so the second start found none. A guest that is killed, and one in an
/// initrd that ends by itself.
fn again(start: fn(&[Image]) -> Containerd, snapshotter: &str) -> Result<(), Failed> {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("boot")).unwrap();
    fs::copy(stock_kernel(), place.path().join("boot/kernel")).unwrap();
    fs::write(place.path().join("boot/initrd"), linux::initrd(SCRIPT)).unwrap();
    let linux = image("linux-initrd", place.path(), &[("initrd", "/boot/initrd")]);
    let demo = guest();
    let containerd = start(&[demo, linux]);
    containerd.configure(CONFIG);
    let before = inventory(&containerd);

    let reference = guest().reference();
    containerd.ok(&[
        "containers",
        "create",
        "--runtime",
        RUNTIME,
        "--snapshotter",
        snapshotter,
        &reference,
        "demo",
        "hold",
    ]);
    for _ in 0..3 {
        containerd.ok(&["task", "start", "--detach", "demo"]);
        assert_eq!(containerd.status("demo"), "RUNNING");
        containerd.ok(&["task", "kill", "--signal", "KILL", "demo"]);
        assert!(eventually(|| containerd.status("demo") == "STOPPED"), "{}", containerd.log());
        containerd.ctr(&["task", "rm", "demo"]);
        same(&containerd, &before);
    }
    containerd.ok(&["containers", "rm", "demo"]);

    let image = "registry.example/linux-initrd:latest";
    let run = ["run", "--runtime", RUNTIME, "--snapshotter", snapshotter, image, "linux"];
    // What it writes is in its memory.
    said(&started(&containerd, &run), &["image: from the image", "before: nothing", "write: yes"]);
    same(&containerd, &before);
    said(&started(&containerd, &["task", "start", "linux"]), &["image: from the image", "before: nothing"]);
    same(&containerd, &before);
    containerd.ok(&["containers", "rm", "linux"]);
    containerd.assert_clean();
    Ok(())
}

/// The container's own file system is the guest's: what it writes is there at the next start.
fn keeps(start: fn(&[Image]) -> Containerd, snapshotter: &str) -> Result<(), Failed> {
    let place = tempfile::tempdir().unwrap();
    linux::tree(place.path(), SCRIPT);
    fs::rename(place.path().join("boot/vmlinuz"), place.path().join("boot/kernel")).unwrap();
    for directory in ["dev", "proc", "work"] {
        // An image has no empty directories here.
        fs::write(place.path().join(directory).join(".keep"), "").unwrap();
    }
    let containerd = start(&[image("linux-rootfs", place.path(), &[("mountRootfs", "true")])]);
    containerd.configure(CONFIG);
    let before = inventory(&containerd);
    let image = "registry.example/linux-rootfs:latest";
    let run = ["run", "--runtime", RUNTIME, "--snapshotter", snapshotter, image, "linux"];
    said(&started(&containerd, &run), &["image: from the image", "before: nothing", "write: yes"]);
    for _ in 0..2 {
        same(&containerd, &before);
        let text = started(&containerd, &["task", "start", "linux"]);
        said(&text, &["image: from the image", "before: today", "write: yes"]);
    }
    same(&containerd, &before);
    containerd.ok(&["containers", "rm", "linux"]);
    containerd.assert_clean();
    Ok(())
}
