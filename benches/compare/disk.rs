//! What a guest feels of its disk, for each way in which it can have its root file system.
//!
//! With Linux in QEMU, because that guest can have them all. Where it is emulated, the figures say nothing about a disk and
//! little about the world; but a kind that is many times slower than the others shows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::bench::{Bench, chain};
use crate::error::{BenchError, Context, Result};
use crate::report::Table;
use crate::workload::in_path;

pub(crate) const TITLE: &str = "Disks";

/// Mebibytes that are read and written.
const SIZE: u32 = 32;
/// Small files that are made and removed.
const FILES: u32 = 400;
const BUSYBOX: &str = "/bin/busybox";
/// What the guest does: its init, in every kind of root file system.
const SCRIPT: &str = r#"#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc
say() { read -r up idle </proc/uptime; $busybox echo; $busybox echo "bench: $* $up"; }
# Of mounts over each other, the last one is the root.
while read -r source place kind rest; do [ "$place" = / ] && root=$kind; done </proc/mounts
say root $root
say read from
$busybox dd if=/data of=/dev/null bs=64k 2>/dev/null
say read to
$busybox rm -f /work/new
$busybox sync
say write from
$busybox dd if=/dev/zero of=/work/new bs=64k count=COUNT conv=fsync 2>/dev/null
say write to
say files from
i=0; while [ $i -lt FILES ]; do echo $i >/work/$i; i=$((i+1)); done
cd /work && $busybox rm -f [0-9]*
$busybox sync
say files to
$busybox poweroff -f
"#;

/// How the guest has its root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It was the container's, on a loop device.
    Block,
    Virtiofs,
    NineP,
    /// All of it is in memory.
    Initrd,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Initrd, Self::Block, Self::Virtiofs, Self::NineP];

    fn name(self) -> &'static str {
        match self {
            Self::Block => "block device",
            Self::Virtiofs => "virtiofs",
            Self::NineP => "9p",
            Self::Initrd => "initrd",
        }
    }

    /// What the guest calls the file system.
    fn file_system(self) -> &'static str {
        match self {
            Self::Block => "ext4",
            Self::Virtiofs => "virtiofs",
            Self::NineP => "9p",
            Self::Initrd => "rootfs",
        }
    }

    /// urunc's configuration for it.
    fn config(self, emulated: bool) -> String {
        let kvm = if emulated { "[runtime]\nkvm = \"off\"\n" } else { "" };
        let virtiofsd = match self {
            Self::NineP => "[extra_binaries.virtiofsd]\npath = \"/nonexistent/virtiofsd\"\n",
            // As the tests have it: with anything else an emulated guest executes what is not there any more.
            Self::Virtiofs if emulated => "[extra_binaries.virtiofsd]\noptions = \"--cache=always\"\n",
            Self::Virtiofs | Self::Block | Self::Initrd => "",
        };
        format!("{kvm}{virtiofsd}")
    }
}

/// Whether the guest is to be emulated: there is no KVM here, or one inside of another, under which Linux may hang.
fn emulated() -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    !Path::new("/dev/kvm").exists() || flags.split_ascii_whitespace().any(|flag| flag == "hypervisor")
}

/// Measures each kind so many times; nothing if the guest's kernel or QEMU is not there.
pub(crate) fn measure(bench: &mut Bench, rounds: usize) -> Result<Option<Table>> {
    let kernel = std::env::var_os("URUNC_GUEST_KERNEL").map(PathBuf::from);
    let missing = match &kernel {
        None => Some("URUNC_GUEST_KERNEL names no kernel (CONTRIBUTING.md)"),
        Some(_) if in_path("qemu-system-x86_64").is_none() => Some("QEMU is not installed"),
        Some(path) if !path.is_file() => Some("URUNC_GUEST_KERNEL names no file"),
        Some(_) if !Path::new(BUSYBOX).exists() => Some("busybox-static is not installed"),
        Some(_) => None,
    };
    let (Some(kernel), None) = (kernel, missing) else {
        bench.skipped.push(format!("disks: {}", missing.unwrap_or_default()));
        return Ok(None);
    };
    let emulated = emulated();
    // [measure][kind][round]
    let mut values: [[Vec<f64>; 4]; 3] = Default::default();
    let mut bundles = Vec::new();
    for kind in Kind::ALL {
        bundles.push(bundle(bench, kind, &kernel, emulated).map_err(|error| chain(&error)));
    }
    let mut order = [0, 1, 2, 3];
    for round in 0..rounds {
        bench.shuffle(&mut order);
        for index in order {
            let (kind, Ok(bundle)) = (Kind::ALL[index], &bundles[index]) else { continue };
            match boot(bench, kind, bundle, round).and_then(|text| seconds(&text, kind)) {
                Ok([read, write, files]) => {
                    values[0][index].push(f64::from(SIZE) / read);
                    values[1][index].push(f64::from(SIZE) / write);
                    values[2][index].push(f64::from(FILES) / files);
                }
                // One kind that does not work here is no reason to lose what else has been measured.
                Err(error) => bundles[index] = Err(chain(&error)),
            }
        }
    }
    for (kind, bundle) in Kind::ALL.iter().zip(bundles) {
        if let Err(why) = bundle {
            bench.skipped.push(format!("disks by {}: {why}", kind.name()));
        }
    }
    let mut table = Table::new(TITLE, Kind::ALL.map(Kind::name));
    table.note(format!(
        "The root file system of a Linux guest in QEMU{}, by the kind that it is given by: {SIZE} MiB read once, as much written and synced, \
         and {FILES} small files made and removed. The host's side is in memory. The guest tells the time in steps of 10 ms.",
        if emulated { ", which emulates it" } else { "" }
    ));
    for ((measure, unit), values) in
        [("read", "MiB/s"), ("write", "MiB/s"), ("small files", "/s")].into_iter().zip(values)
    {
        table.row(measure, unit, values);
    }
    Ok(Some(table))
}

/// What the guest says of reading, writing and small files, if it had the kind of root file system that it should.
fn seconds(text: &str, kind: Kind) -> Result<[f64; 3]> {
    let said = |what: &str| {
        text.lines().find_map(|line| line.trim_end().strip_prefix("bench: ")?.strip_prefix(what))
    };
    let silent = |what: &str| BenchError::Unexpected(format!("the guest did not say {what}: {text}"));
    let root =
        said("root ").and_then(|rest| rest.split(' ').next()).ok_or_else(|| silent("what its root is"))?;
    if root != kind.file_system() {
        let text = format!("the guest's root is {root} instead of {}", kind.file_system());
        return Err(BenchError::Unexpected(text));
    }
    let mut found = [0.0; 3];
    for (what, seconds) in ["read", "write", "files"].into_iter().zip(&mut found) {
        let at = |end: &str| said(&format!("{what} {end} "))?.parse::<f64>().ok();
        let (Some(from), Some(to)) = (at("from"), at("to")) else { return Err(silent(what)) };
        *seconds = (to - from).max(0.01);
    }
    Ok(found)
}

/// A bundle that gives the guest its root file system in this way.
fn bundle(bench: &Bench, kind: Kind, kernel: &Path, emulated: bool) -> Result<PathBuf> {
    let name = format!("disk-{}", kind.name().replace(' ', "-"));
    let bundle = bench.place.directory(&name)?;
    let rootfs = bench.place.directory(&format!("{name}/rootfs"))?;
    let tree = if kind == Kind::Initrd || kind == Kind::Block {
        bench.place.directory(&format!("{name}/tree"))?
    } else {
        rootfs.clone()
    };
    fill(&tree)?;
    let mut annotations = json!({
        "com.urunc.unikernel.unikernelType": "linux",
        "com.urunc.unikernel.hypervisor": "qemu",
        "com.urunc.unikernel.binary": "/boot/vmlinuz",
    });
    let boot = if kind == Kind::Block { tree.join("boot") } else { rootfs.join("boot") };
    fs::create_dir_all(&boot).to("make a directory")?;
    fs::copy(kernel, boot.join("vmlinuz")).to(format!("copy {}", kernel.display()))?;
    if kind == Kind::Initrd {
        annotations["com.urunc.unikernel.initrd"] = json!("/boot/initrd");
        let archive = boot.join("initrd");
        run(
            "sh",
            &[
                "-c",
                &format!(
                    "cd {} && {BUSYBOX} find . | {BUSYBOX} cpio -o -H newc >{}",
                    text(&tree)?,
                    text(&archive)?
                ),
            ],
        )?;
    } else {
        annotations["com.urunc.unikernel.mountRootfs"] = json!("true");
    }
    if kind == Kind::Block {
        let image = bundle.join("image");
        fs::File::create(&image).and_then(|file| file.set_len(128 << 20)).to("make an image")?;
        run("mkfs.ext4", &["-q", "-F", "-d", text(&tree)?, text(&image)?])?;
    }
    let spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/init"]},
        "annotations": annotations,
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
        ]},
    });
    fs::write(bundle.join("config.json"), spec.to_string()).to("write a bundle")?;
    fs::write(bundle.join("urunc.toml"), kind.config(emulated)).to("write a configuration")?;
    Ok(bundle)
}

/// The guest's files.
fn fill(tree: &Path) -> Result<()> {
    for name in ["bin", "boot", "dev", "etc", "proc", "work"] {
        fs::create_dir_all(tree.join(name)).to("make a directory")?;
    }
    let script = SCRIPT.replace("COUNT", &(SIZE * 16).to_string()).replace("FILES", &FILES.to_string());
    fs::write(tree.join("init"), script).to("write the guest's init")?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755)).to("make it executable")?;
    fs::copy(BUSYBOX, tree.join("bin/busybox")).to("copy busybox")?;
    let block: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(tree.join("data"), block.repeat(SIZE as usize)).to("write the guest's data")
}

/// Boots the guest once, and returns what it says.
fn boot(bench: &Bench, kind: Kind, bundle: &Path, round: usize) -> Result<String> {
    let rootfs = bundle.join("rootfs");
    if kind == Kind::Block {
        run("mount", &["-o", "loop", text(&bundle.join("image"))?, text(&rootfs)?])?;
    }
    let root = bench.place.directory("state-guest")?;
    let id = format!("disk{round}");
    let urunc = |words: &[&str]| {
        // A guest that hangs must not hang the bench, and it would not shut down when asked.
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "120"]).arg(&bench.tools.urunc).arg("--root").arg(&root).args(words);
        command.env("URUNC_CONFIG_FILE", bundle.join("urunc.toml")).output().to("run urunc")
    };
    let output = urunc(&["run", "--bundle", text(bundle)?, &id]);
    // What is left only if the guest did not come to its end.
    let _ = urunc(&["delete", "--force", &id]);
    if kind == Kind::Block {
        let _ = Command::new("umount").arg("-q").arg(&rootfs).status();
    }
    let output = output?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(BenchError::Command {
        program: "urunc".to_owned(),
        status: output.status.to_string(),
        text: format!("{words}{said}"),
    })
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().to(format!("run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(BenchError::Command { program: program.to_owned(), status: output.status.to_string(), text })
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| BenchError::Unexpected(format!("{} is no text", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_understood_among_the_kernels_messages() {
        let text = "[  1.0] kernel: thread from 7\r\nbench: root ext4 1.0\r\nbench: read from 1.50\r\nbench: read to 2.00\r\n\
                    bench: write from 2.0\r\nbench: write to 2.0\r\nbench: files from 2.0\r\nbench: files to 4.0\r\n";
        assert_eq!(seconds(text, Kind::Block).unwrap(), [0.5, 0.01, 2.0]);
        assert!(seconds(text, Kind::NineP).unwrap_err().to_string().contains("ext4 instead of 9p"));
        assert!(seconds(&text.replace("files to", "files"), Kind::Block).is_err());
    }
}
