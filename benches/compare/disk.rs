//! What a guest feels of its disk, for each way in which it can have its root file system.
//!
//! With Linux in QEMU, because that guest can have them all. Where it is emulated, the figures say nothing about a disk and
//! little about the world; but a kind that is many times slower than the others shows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::bench::Bench;
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
now() { read -r up idle </proc/uptime; $busybox echo "$up"; }
$busybox echo "read from $(now)"
$busybox dd if=/data of=/dev/null bs=64k 2>/dev/null
$busybox echo "read to $(now)"
$busybox echo "write from $(now)"
$busybox dd if=/dev/zero of=/work/new bs=64k count=COUNT conv=fsync 2>/dev/null
$busybox echo "write to $(now)"
$busybox echo "files from $(now)"
i=0; while [ $i -lt FILES ]; do echo $i >/work/$i; i=$((i+1)); done
cd /work && $busybox rm -f [0-9]*
$busybox sync
$busybox echo "files to $(now)"
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
        Some(_) if !Path::new(BUSYBOX).exists() => Some("busybox-static is not installed"),
        Some(_) => None,
    };
    let (Some(kernel), None) = (kernel, missing) else {
        bench.skipped.push(format!("disks: {}", missing.unwrap_or_default()));
        return Ok(None);
    };
    let has_virtiofs = in_path("virtiofsd").is_some() || Path::new("/usr/libexec/virtiofsd").exists();
    if !has_virtiofs {
        bench.skipped.push("disks over virtiofs: virtiofsd is not installed".to_owned());
    }
    let kinds = Kind::ALL.into_iter().filter(|kind| has_virtiofs || *kind != Kind::Virtiofs);
    let kinds: Vec<Kind> = kinds.collect();
    let emulated = emulated();
    let bundles =
        kinds.iter().map(|kind| bundle(bench, *kind, &kernel, emulated)).collect::<Result<Vec<_>>>()?;
    // [measure][kind][round]
    let mut values = vec![vec![Vec::new(); kinds.len()]; 3];
    for round in 0..rounds {
        for (index, (kind, bundle)) in kinds.iter().zip(&bundles).enumerate() {
            let text = boot(bench, *kind, bundle, round)?;
            let seconds = |what: &str| between(&text, what, *kind);
            values[0][index].push(f64::from(SIZE) / seconds("read")?);
            values[1][index].push(f64::from(SIZE) / seconds("write")?);
            values[2][index].push(f64::from(FILES) / seconds("files")?);
        }
    }
    let mut table = Table::new(TITLE, kinds.iter().map(|kind| kind.name()));
    table.note(format!(
        "The root file system of a Linux guest in QEMU{}, by the kind that it is given by: {SIZE} MiB read once, as much written and synced, \
         and {FILES} small files made and removed. The host's side is in memory.",
        if emulated { ", which emulates it" } else { "" }
    ));
    for (measure, unit, values) in
        [("read", "MiB/s", &values[0]), ("write", "MiB/s", &values[1]), ("small files", "/s", &values[2])]
    {
        table.row(measure, unit, values.clone());
    }
    Ok(Some(table))
}

/// Seconds between two lines of the guest. Its clock ticks every 10 ms.
fn between(text: &str, what: &str, kind: Kind) -> Result<f64> {
    let at = |end: &str| -> Option<f64> {
        let (_, rest) = text.split_once(&format!("{what} {end} "))?;
        rest.split_ascii_whitespace().next()?.parse().ok()
    };
    match (at("from"), at("to")) {
        (Some(from), Some(to)) => Ok((to - from).max(0.01)),
        _ => {
            Err(BenchError::Unexpected(format!("the guest with {} did not say {what}: {text}", kind.name())))
        }
    }
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
    // A guest that hangs must not hang the bench.
    let output = Command::new("timeout")
        .arg("120")
        .arg(&bench.tools.urunc)
        .arg("--root")
        .arg(bench.place.directory("state-guest")?)
        .args(["run", "--bundle", text(bundle)?, &format!("disk{round}")])
        .env("URUNC_CONFIG_FILE", bundle.join("urunc.toml"))
        .output()
        .to("run urunc")?;
    if kind == Kind::Block {
        // urunc has unmounted it for the guest, and the loop device has gone with its last user.
        let _ = Command::new("umount").arg("-q").arg(&rootfs).status();
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(BenchError::Command {
        program: format!("urunc with {}", kind.name()),
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
    fn the_guests_clock_is_read() {
        let text = "[  1.0] kernel\r\nread from 1.50\r\nread to 2.00\r\nwrite from 2.0\r\n";
        assert_eq!(between(text, "read", Kind::Block).unwrap(), 0.5);
        assert!(between(text, "write", Kind::Block).is_err());
    }
}
