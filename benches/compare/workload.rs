//! What every runtime is given to run: one small program that prints a line and waits to be killed.
//!
//! It is the demo unikernel under `solo5-spt` where that is installed, or else the floor crate's stand-in, which urunc takes for
//! `solo5-spt`. Either way all runtimes execute the same file with the same arguments: monitors are not compared here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bench::Tools;
use crate::error::{BenchError, Context, Result};
use crate::place::Place;

/// Bundles and the program in them.
#[derive(Debug)]
pub(crate) struct Workload {
    /// For urunc.
    pub(crate) unikernel: PathBuf,
    /// For the others: the monitor is an ordinary program in the image.
    pub(crate) program: PathBuf,
    /// The monitor as a runtime other than urunc sees it, and its arguments.
    pub(crate) args: Vec<String>,
    /// urunc's configuration.
    pub(crate) config: PathBuf,
    /// In words.
    pub(crate) description: String,
}

/// A program of `PATH`.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

impl Workload {
    /// Lays the bundles out; `tools` are the guest and the stand-in.
    pub(crate) fn prepare(place: &Place, tools: &Tools) -> Result<Self> {
        let unikernel = place.directory("unikernel")?;
        let program = place.directory("program")?;
        let boot = place.directory("unikernel/rootfs/boot")?;
        let rootfs = place.directory("program/rootfs")?;
        for name in ["proc", "dev", "boot"] {
            place.directory(&format!("program/rootfs/{name}"))?;
        }
        let kernel = tools.guests.join("demo-spt");
        copy(&kernel, &boot.join("kernel"))?;
        copy(&kernel, &rootfs.join("boot/kernel"))?;
        let config = place.path("config.toml");
        let (args, text, description) = match in_path("solo5-spt") {
            Some(monitor) => {
                install(&monitor, &rootfs)?;
                let args = [&monitor.display().to_string(), "--mem=256", "--", "/boot/kernel", "hold"];
                (
                    args.map(str::to_owned).to_vec(),
                    String::new(),
                    "the demo unikernel under solo5-spt".to_owned(),
                )
            }
            None => {
                let stand_in = tools.floor.join("stand-in");
                install(&stand_in, &rootfs)?;
                let path = stand_in.display().to_string();
                let text = format!("[monitors.spt]\npath = {path:?}\n");
                let words = "a stand-in for a monitor (prints a line, waits), as solo5-spt is not installed";
                (vec![path, "hold".to_owned()], text, words.to_owned())
            }
        };
        fs::write(&config, text).to("write urunc's configuration")?;
        write_spec(
            &unikernel,
            &["hold".to_owned()],
            &json!({
                "com.urunc.unikernel.unikernelType": "generic",
                "com.urunc.unikernel.hypervisor": "spt",
                "com.urunc.unikernel.binary": "/boot/kernel",
            }),
        )?;
        write_spec(&program, &args, &json!({}))?;
        Ok(Self { unikernel, program, args, config, description })
    }
}

/// The same specification for all, with what each needs: five namespaces, `/proc`, `/dev`, no privileges, no seccomp profile.
fn write_spec(bundle: &Path, args: &[String], annotations: &Value) -> Result<()> {
    let spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": args, "env": ["PATH=/bin"],
            "capabilities": {"bounding": [], "effective": [], "permitted": []}, "noNewPrivileges": true,
        },
        "hostname": "demo",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "annotations": annotations,
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
        ]},
    });
    fs::write(bundle.join("config.json"), spec.to_string()).to("write a bundle")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        let remedy = "`make bench` builds it";
        return Err(BenchError::Missing { path: from.display().to_string(), remedy });
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).to(format!("make {}", parent.display()))?;
    }
    fs::copy(from, to).map(drop).to(format!("copy {}", from.display()))
}

/// A program and its libraries at their own paths below `rootfs`.
fn install(program: &Path, rootfs: &Path) -> Result<()> {
    let below = |path: &Path| rootfs.join(path.strip_prefix("/").unwrap_or(path));
    copy(program, &below(program))?;
    let output = Command::new("ldd").arg(program).output().to("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for path in text.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(path), &below(Path::new(path)))?;
    }
    Ok(())
}
