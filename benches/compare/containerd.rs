//! A private containerd for the measurements of shims, with one image for each.
//!
//! Images need no registry: an OCI layout (image-spec, `image-layout.md`) is written and imported.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::error::{BenchError, Context, Result};

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const NAMESPACE: &str = "urunc-bench";

/// A running containerd. It is killed, with the shims of its namespace, when dropped.
#[derive(Debug)]
pub(crate) struct Containerd {
    directory: PathBuf,
    child: Child,
    path: OsString,
    config: PathBuf,
}

impl Containerd {
    /// Starts it with its own root, state and socket.
    pub(crate) fn start(bench: &Bench) -> Result<Self> {
        let directory = bench.place.directory("containerd")?;
        let path = |name: &str| directory.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.nri.v1.nri\"]\n[grpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n",
            path("root"),
            path("state"),
            path("containerd.sock"),
            path("opt"),
        );
        let file = directory.join("containerd.toml");
        fs::write(&file, config).to("write containerd's configuration")?;
        let own = bench.tools.urunc.parent().map(Path::to_owned).unwrap_or_default();
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(own).chain(std::env::split_paths(&paths));
        let paths = std::env::join_paths(paths).map_err(|error| BenchError::Unexpected(error.to_string()))?;
        let log = fs::File::create(directory.join("log")).to("make a log file")?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&file)
            .env("PATH", &paths)
            .env("URUNC_CONFIG_FILE", &bench.workload.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .to("start containerd")?;
        let containerd = Self { directory, child, path: paths, config: bench.workload.config.clone() };
        let deadline = Instant::now() + PATIENCE;
        while containerd.ctr(&["version"]).is_err() {
            if Instant::now() > deadline {
                return Err(BenchError::Unexpected("containerd does not answer".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(containerd)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command line of `ctr`.
    pub(crate) fn line(&self, words: &[&str]) -> Vec<OsString> {
        let socket = self.directory.join("containerd.sock");
        let program = crate::workload::in_path("ctr").unwrap_or_else(|| "ctr".into());
        let mut line: Vec<OsString> = vec![program.into(), "--address".into(), socket.into()];
        line.extend(["--namespace", NAMESPACE].map(OsString::from));
        line.extend(words.iter().map(OsString::from));
        line
    }

    /// Runs `ctr`, which must succeed.
    pub(crate) fn ctr(&self, words: &[&str]) -> Result<String> {
        let line = self.line(words);
        let output: Output = Command::new(&line[0])
            .args(&line[1..])
            .envs(self.environment())
            .stdin(Stdio::null())
            .output()
            .to("run ctr")?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(BenchError::Command {
            program: format!("ctr {}", words.join(" ")),
            status: output.status.to_string(),
            text,
        })
    }

    pub(crate) fn environment(&self) -> [(&str, OsString); 2] {
        [("PATH", self.path.clone()), ("URUNC_CONFIG_FILE", self.config.clone().into())]
    }

    /// Imports the root file system `rootfs` as an image; `annotations` become those of its manifest.
    pub(crate) fn import(
        &self,
        name: &str,
        rootfs: &Path,
        args: &[String],
        annotations: &Value,
    ) -> Result<String> {
        let layout = self.directory.join(format!("image-{name}"));
        fs::create_dir_all(layout.join("blobs/sha256")).to("make an image")?;
        let layer = self.directory.join(format!("{name}.tar"));
        run(Command::new("tar").arg("-C").arg(rootfs).args(["--numeric-owner", "-cf"]).arg(&layer).arg("."))?;
        let layer = blob(&layout, &fs::read(&layer).to("read a layer")?)?;
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": args, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let typed = |mut blob: Value, kind: &str| {
            blob["mediaType"] = format!("application/vnd.oci.image.{kind}").into();
            blob
        };
        let config = typed(blob(&layout, config.to_string().as_bytes())?, "config.v1+json");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
            "layers": [typed(layer, "layer.v1.tar")], "annotations": annotations,
        });
        let reference = format!("registry.example/{name}:latest");
        let mut manifest = typed(blob(&layout, manifest.to_string().as_bytes())?, "manifest.v1+json");
        manifest["annotations"] = json!({"io.containerd.image.name": reference});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(layout.join("index.json"), index.to_string()).to("write an image")?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).to("write an image")?;
        let archive = self.directory.join(format!("{name}-image.tar"));
        run(Command::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&archive).arg("."))?;
        self.ctr(&["images", "import", &archive.display().to_string()])?;
        Ok(reference)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let list = self.ctr(&["containers", "ls", "--quiet"]).unwrap_or_default();
        for id in list.lines() {
            let _ = self.ctr(&["task", "rm", "--force", id]);
            let _ = self.ctr(&["containers", "rm", id]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The group of all containers of this namespace, which nobody removes.
        let groups = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(groups).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([groups.to_owned()]) {
            let _ = fs::remove_dir(hierarchy.join(NAMESPACE));
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().to("run tar")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(BenchError::Command { program: "tar".to_owned(), status: output.status.to_string(), text })
}

/// Adds a file to the layout, named by its digest as sha256sum(1) says.
fn blob(layout: &Path, bytes: &[u8]) -> Result<Value> {
    let temporary = layout.join("blobs/new");
    fs::write(&temporary, bytes).to("write an image")?;
    let output = Command::new("sha256sum").arg(&temporary).output().to("run sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(digest) = text.split_ascii_whitespace().next() else {
        return Err(BenchError::Unexpected("sha256sum says nothing".to_owned()));
    };
    fs::rename(&temporary, layout.join("blobs/sha256").join(digest)).to("write an image")?;
    Ok(json!({"digest": format!("sha256:{digest}"), "size": bytes.len()}))
}
