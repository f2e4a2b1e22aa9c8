//! Composed initrds, unpacked by a real Linux kernel in QEMU: the one that `scripts/stock-kernel` unpacks, or that the
//! environment variable `URUNC_GUEST_KERNEL` names. Needs a statically linked `busybox`, too.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{have, have_program};
use urunc_rootfs::initrd::{Addition, Content, Dialect, compose};

fn main() -> std::process::ExitCode {
    common::run(tests![
        linux_sees_what_was_added_to_an_initrd,
        linux_sees_what_was_added_to_a_compressed_initrd,
        linux_sees_what_was_added_to_an_initrd_compressed_by_lz4,
    ])
}

/// Prints everything that is looked at, then ends the machine.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc
echo == $(/bin/busybox cat /etc/hosts) $(/bin/busybox cat /a/b/c) $(/bin/busybox cat /run/secrets/token)
echo == $(/bin/busybox readlink /var/run) $(/bin/busybox stat -c %a /etc /a /run)
/bin/busybox poweroff -f
";

fn linux() -> Option<PathBuf> {
    let stock = || {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
        target.join("linux-guest/vmlinuz")
    };
    let kernel = std::env::var_os("URUNC_GUEST_KERNEL").map_or_else(stock, PathBuf::from);
    let there = have("linux-guest", kernel.exists()) && have_program("busybox") && have_program("cpio");
    (there && have_program("qemu-system-x86_64")).then_some(kernel)
}

fn busybox() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join("busybox")).find(|program| program.exists()).unwrap()
}

fn base() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for directory in ["bin", "dev", "etc", "run", "var"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    fs::copy(busybox(), root.join("bin/busybox")).unwrap();
    fs::write(root.join("init"), INIT).unwrap();
    fs::write(root.join("etc/hosts"), "old").unwrap();
    std::os::unix::fs::symlink("/run", root.join("var/run")).unwrap();
    let mode = |path: &str, mode| {
        fs::set_permissions(root.join(path), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("init", 0o755);
    mode("etc", 0o750);
    let list = b"bin\nbin/busybox\ndev\netc\netc/hosts\nrun\nvar\nvar/run\ninit\n";
    piped(Command::new("cpio").args(["--create", "--quiet", "--format=newc"]).current_dir(root), list)
}

fn piped(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap().stdout
    })
}

fn file(path: &str, content: &str) -> Addition {
    let content = Content::File(content.as_bytes().to_vec());
    Addition { path: path.into(), content, mode: 0o644, uid: 0, gid: 0, mtime: 0 }
}

/// Boots the kernel with `base` and the additions, and returns what its init printed.
fn boot(kernel: &Path, base: &[u8], additions: &[Addition]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let initrd = dir.path().join("initrd");
    let mut out = fs::File::create(&initrd).unwrap();
    compose(&mut Cursor::new(base), additions, Dialect::Appended, &mut out).unwrap();
    let output = Command::new("timeout")
        .args(["300", "qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults", "-no-user-config"])
        .args([
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
            "-append",
            "console=ttyS0 panic=-1 quiet",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(&initrd)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = text.lines().filter_map(|l| Some(l.split_once("== ")?.1.trim().to_owned())).collect();
    assert_eq!(lines.len(), 2, "{text}{}", String::from_utf8_lossy(&output.stderr));
    lines
}

fn linux_sees_what_was_added_to_an_initrd() {
    // R16, and 29 of the monitors: files without parents, and archives at odd offsets, are not seen.
    let Some(kernel) = linux() else { return };
    let mut base = base();
    base.extend([0; 2]);
    let additions = [file("/etc/hosts", "new"), file("/a/b/c", "deep"), file("/var/run/secrets/token", "t")];
    assert_eq!(boot(&kernel, &base, &additions), ["new deep t", "/run 750 755 755"]);
}

fn linux_sees_what_was_added_to_a_compressed_initrd() {
    compressed(Command::new("gzip").arg("--fast"));
}

fn linux_sees_what_was_added_to_an_initrd_compressed_by_lz4() {
    // The kernel took what follows for another block, and dropped everything.
    if have_program("lz4") {
        compressed(Command::new("lz4").args(["-l", "-1", "-c"]));
    }
}

fn compressed(program: &mut Command) {
    let Some(kernel) = linux() else { return };
    let base = piped(program, &base());
    let additions = [file("/etc/hosts", "new"), file("/a/b/c", "deep"), file("/run/secrets/token", "t")];
    assert_eq!(boot(&kernel, &base, &additions), ["new deep t", "/run 755 755 755"]);
}
