//! Images without a registry: an OCI archive (image-spec, `image-layout.md`) made with tar(1) and sha256sum(1).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Where the guest's annotations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Described {
    /// In `urunc.json`.
    InImage,
    /// In the manifest.
    InManifest,
    /// In the manifest, which an index leads to.
    BehindIndex,
    /// Nowhere.
    Not,
}

/// What an image holds.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) name: &'static str,
    /// Source on the host and place in the image.
    pub(crate) files: Vec<(PathBuf, &'static str)>,
    pub(crate) command: &'static [&'static str],
    /// Of guest.
    pub(crate) kind: &'static str,
    pub(crate) monitor: &'static str,
    pub(crate) described: Described,
    /// Annotations besides kind, monitor and kernel, without their prefix.
    pub(crate) more: &'static [(&'static str, &'static str)],
}

impl Image {
    /// Writes the archive into `dir`.
    pub(crate) fn archive(&self, dir: &Path) -> PathBuf {
        let work = dir.join(format!("image-{}", self.name));
        let (rootfs, layout) = (work.join("rootfs"), work.join("layout"));
        fs::create_dir_all(&rootfs).unwrap();
        for (source, place) in &self.files {
            let target = rootfs.join(place);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(source, target).unwrap();
        }
        if self.described == Described::InImage {
            let annotations: serde_json::Map<String, Value> = self
                .annotations()
                .into_iter()
                .map(|(key, value)| (key, json!(STANDARD.encode(value))))
                .collect();
            fs::write(rootfs.join("urunc.json"), Value::from(annotations).to_string()).unwrap();
        }
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let layer = work.join("layer.tar");
        tar(&rootfs, &layer);
        let layer = blob(&layout, &fs::read(layer).unwrap());
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": self.command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = blob(&layout, config.to_string().as_bytes());
        let described = matches!(self.described, Described::InManifest | Described::BehindIndex);
        let annotations: serde_json::Map<String, Value> = self
            .annotations()
            .into_iter()
            .filter(|_| described)
            .map(|(key, value)| (key, json!(value)))
            .collect();
        let manifest = json!({
            "annotations": annotations,
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": typed(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [typed(layer, "application/vnd.oci.image.layer.v1.tar")],
        });
        let mut manifest = typed(blob(&layout, manifest.to_string().as_bytes()), MANIFEST);
        if self.described == Described::BehindIndex {
            manifest["platform"] = json!({"architecture": "amd64", "os": "linux"});
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
            manifest = typed(blob(&layout, index.to_string().as_bytes()), INDEX);
        }
        manifest["annotations"] = json!({"io.containerd.image.name": self.reference()});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string()).unwrap();
        let archive = work.join("archive.tar");
        tar(&layout, &archive);
        archive
    }

    pub(crate) fn reference(&self) -> String {
        format!("registry.example/{}:latest", self.name)
    }

    /// The guest's annotations.
    pub(crate) fn annotations(&self) -> Vec<(String, &'static str)> {
        let key = |name: &str| format!("com.urunc.unikernel.{name}");
        let mut all = vec![
            (key("unikernelType"), self.kind),
            (key("hypervisor"), self.monitor),
            (key("binary"), "/boot/kernel"),
        ];
        all.extend(self.more.iter().map(|(name, value)| (key(name), *value)));
        all
    }
}

fn typed(mut descriptor: Value, media_type: &str) -> Value {
    descriptor["mediaType"] = json!(media_type);
    descriptor
}

/// Stores a blob and describes it.
fn blob(layout: &Path, content: &[u8]) -> Value {
    let file = layout.join("blobs/sha256/new");
    fs::write(&file, content).unwrap();
    let output = Command::new("sha256sum").arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let digest = text.split(' ').next().unwrap();
    fs::rename(&file, layout.join("blobs/sha256").join(digest)).unwrap();
    json!({"digest": format!("sha256:{digest}"), "size": content.len()})
}

fn tar(directory: &Path, archive: &Path) {
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "--sort=name", "-C"])
        .arg(directory)
        .arg("-cf")
        .arg(archive)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
}
