//! Guest annotations that the image has and the specification has not: from the image's manifest, and from the container's labels, which clients copy
//! from the image's configuration. containerd's API is asked for them, for a limited time; whatever goes wrong is logged and no more than that, for
//! annotations may as well be in `urunc.json` or in the specification.
//!
//! An annotation that the specification has wins over the manifest's, and that over a label (design.md section 9; B45).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::protobuf::{self, CodedOutputStream};
use serde::Deserialize;
use serde_json::Value;

use super::ShimError;
use super::grpc::{Connection, GrpcError};
use super::replace::replace;
use super::wire::{blob, blobs, text};
use crate::bundle::annotations::PREFIX;
use crate::report;

/// For all questions together. An image whose annotations come too late is no unikernel: a busy disk must not make it one.
const PATIENCE: Duration = Duration::from_secs(10);

type Annotations = BTreeMap<String, String>;

/// Why the image's annotations are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// containerd cannot be asked.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// Its answer is no message.
    #[error("cannot read containerd's answer")]
    Message(#[from] protobuf::Error),
    /// A manifest is no JSON.
    #[error("cannot read the image's manifest")]
    Manifest(#[from] serde_json::Error),
    /// Something has no text where it must.
    #[error("containerd's answer has no {0}")]
    Missing(&'static str),
}

/// Adds the annotations that containerd knows of to the bundle's `config.json`.
///
/// # Errors
/// [`ShimError`] if `config.json` cannot be read or written; not if containerd cannot be asked.
pub fn complete(bundle: &Path, containerd: &Path, namespace: &str, id: &str) -> Result<(), ShimError> {
    let known = match Connection::open(containerd, namespace, PATIENCE) {
        Ok(mut connection) => collect(&mut connection, id),
        Err(error) => Err(error.into()),
    };
    let known = match known {
        Ok(known) => known,
        Err(error) => {
            log::warn!("container {id}: annotations of the image are not known: {}", report::chain(&error));
            return Ok(());
        }
    };
    let path = bundle.join("config.json");
    let text = fs::read(&path).map_err(ShimError::path("read", &path))?;
    let mut spec: Value =
        serde_json::from_slice(&text).map_err(|source| ShimError::Json { path: path.clone(), source })?;
    if add(&mut spec, known) {
        replace(&path, spec.to_string().as_bytes()).map_err(ShimError::path("write", path))
    } else {
        Ok(())
    }
}

/// Adds what is not there. `false` if nothing had to be added.
fn add(spec: &mut Value, known: Annotations) -> bool {
    let Some(spec) = spec.as_object_mut() else { return false };
    let annotations = spec.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new()));
    if annotations.is_null() {
        *annotations = Value::Object(serde_json::Map::new());
    }
    let Some(annotations) = annotations.as_object_mut() else { return false };
    let mut added = false;
    for (key, value) in known {
        if !annotations.contains_key(&key) {
            annotations.insert(key, Value::String(value));
            added = true;
        }
    }
    added
}

/// Labels and annotations of the container and its image.
fn collect(connection: &mut Connection, id: &str) -> Result<Annotations, MetadataError> {
    let answer = connection.call("/containerd.services.containers.v1.Containers/Get", &request(id)?)?;
    let container = blob(first(&answer), 1)?.ok_or(MetadataError::Missing("container"))?;
    let mut known = Annotations::new();
    for label in blobs(&container, 2)? {
        if let (Some(key), Some(value)) = (text(&label, 1)?, text(&label, 2)?) {
            known.insert(key, value);
        }
    }
    if let Some(image) = text(&container, 3)?.filter(|image| !image.is_empty()) {
        match manifest(connection, &image) {
            Ok(annotations) => known.extend(annotations),
            Err(error) => log::debug!("container {id}: manifest of image {image}: {}", report::chain(&error)),
        }
    }
    known.retain(|key, _| key.starts_with(PREFIX));
    Ok(known)
}

/// Annotations of an image's manifest; of an index, of the manifest for this machine.
fn manifest(connection: &mut Connection, image: &str) -> Result<Annotations, MetadataError> {
    let answer = connection.call("/containerd.services.images.v1.Images/Get", &request(image)?)?;
    let image = blob(first(&answer), 1)?.ok_or(MetadataError::Missing("image"))?;
    let target = blob(&image, 3)?.ok_or(MetadataError::Missing("target"))?;
    let digest = text(&target, 2)?.ok_or(MetadataError::Missing("digest"))?;
    let mut document = read(connection, &digest)?;
    let mut annotations = document.annotations.take().unwrap_or_default();
    if let Some(digest) = document.for_this_machine() {
        annotations.extend(read(connection, digest)?.annotations.unwrap_or_default());
    }
    Ok(annotations)
}

/// The part of a manifest or an index (OCI image-spec, `manifest.md`, `image-index.md`) that is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    annotations: Option<Annotations>,
    manifests: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Document {
    /// The manifest for this machine, or the only one.
    fn for_this_machine(&self) -> Option<&str> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let fits = |entry: &&Entry| {
            entry
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture)
        };
        let only = (self.manifests.len() == 1).then(|| self.manifests.first()).flatten();
        self.manifests.iter().find(fits).or(only).map(|entry| entry.digest.as_str())
    }
}

fn read(connection: &mut Connection, digest: &str) -> Result<Document, MetadataError> {
    let mut content = Vec::new();
    for part in connection.call("/containerd.services.content.v1.Content/Read", &request(digest)?)? {
        content.extend(blob(&part, 2)?.unwrap_or_default());
    }
    Ok(serde_json::from_slice(&content)?)
}

fn first(answer: &[Vec<u8>]) -> &[u8] {
    answer.first().map_or(&[], Vec::as_slice)
}

/// A message whose field 1 is a text: `GetContainerRequest`, `GetImageRequest`, `ReadContentRequest`.
fn request(name: &str) -> Result<Vec<u8>, MetadataError> {
    let mut message = Vec::new();
    let mut output = CodedOutputStream::vec(&mut message);
    output.write_string(1, name)?;
    output.flush()?;
    drop(output);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_specification_says_wins() {
        let mut spec = json!({"annotations": {"com.urunc.unikernel.hypervisor": "qemu"}, "hostname": "h"});
        let known = [("com.urunc.unikernel.hypervisor", "spt"), ("com.urunc.unikernel.binary", "/k")];
        let known = || known.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        assert!(add(&mut spec, known()));
        assert_eq!(spec["annotations"]["com.urunc.unikernel.hypervisor"], "qemu");
        assert_eq!(spec["annotations"]["com.urunc.unikernel.binary"], "/k");
        assert!(!add(&mut spec, known()));
        let mut bare = json!({"annotations": null});
        assert!(add(&mut bare, known()));
    }

    #[test]
    fn an_index_leads_to_the_manifest_for_this_machine() {
        let entry = |digest: &str, architecture: &str| json!({"digest": digest, "platform": {"architecture": architecture, "os": "linux"}});
        let document =
            |manifests: Value| serde_json::from_value::<Document>(json!({"manifests": manifests})).unwrap();
        let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        assert_eq!(document(json!([entry("a", "riscv64"), entry("b", own)])).for_this_machine(), Some("b"));
        assert_eq!(document(json!([{"digest": "a"}])).for_this_machine(), Some("a"));
        assert_eq!(document(json!([entry("a", "riscv64"), entry("b", "s390x")])).for_this_machine(), None);
        assert_eq!(Document::default().for_this_machine(), None);
    }
}
