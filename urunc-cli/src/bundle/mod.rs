//! An OCI bundle: `config.json` and the image's root, read once and turned into plain data.
//!
//! `oci-spec` is used here and nowhere else. Nothing is changed on the host.

pub mod annotations;
mod clocks;
mod document;
mod hooks;
mod ids;
pub mod knative;
mod labels;
mod namespaces;
mod resources;
mod rlimits;
mod seccomp;
mod spec;
mod sysctls;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub use annotations::{GuestConfig, ImagePath};
pub use clocks::{ClockError, ClockOffsets};
use document::{Document, Outline};
pub use hooks::{Hook, HookSpecError, Hooks};
pub use ids::{IdMap, IdMappings, MappingError};
pub use labels::{LabelError, Labels};
pub use namespaces::{NamespaceError, NamespaceKind, Namespaces};
pub use resources::ResourceError;
pub use rlimits::{Rlimit, RlimitError};
pub use seccomp::{ArgumentCondition, Comparison, SeccompProfile, SyscallAction, SyscallRule};
pub use spec::{ContainerSpec, Mount, SpecError, Terminal, User, WindowSize};
pub use sysctls::{Sysctl, SysctlError};

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The directory itself is not there.
    #[error("cannot open the bundle {path}")]
    Open {
        /// The directory as given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no `config.json`.
    #[error("cannot read {path}; an OCI bundle is a directory with a config.json and a root file system")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `config.json` is something else.
    #[error("{path} is no OCI runtime configuration: it is not a JSON object")]
    NotObject {
        /// The file.
        path: PathBuf,
    },
    /// Something follows the specification.
    #[error("{path} is not a valid OCI runtime configuration")]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Line and column.
        #[source]
        source: serde_json::Error,
    },
    /// `config.json` is not an OCI runtime specification.
    #[error("{path} is not a valid OCI runtime configuration")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Field, line, column and reason.
        #[source]
        source: serde_path_to_error::Error<serde_json::Error>,
    },
    /// The specification lacks something or asks for something that cannot be.
    #[error("{path} cannot be used")]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: SpecError,
    },
}

/// A bundle, read but not checked: it may be for another runtime, so nothing of it is understood yet but what tells whose it is.
#[derive(Clone, Debug)]
pub struct BundleFile {
    path: PathBuf,
    config: PathBuf,
    text: Vec<u8>,
    outline: Outline,
}

impl BundleFile {
    /// Reads the bundle in `directory`.
    ///
    /// # Errors
    /// [`BundleError`]; each names the file.
    pub fn read(directory: &Path) -> Result<Self, BundleError> {
        let path = crate::procfs::real_path(directory)
            .map_err(|source| BundleError::Open { path: directory.to_owned(), source })?;
        let config = path.join("config.json");
        let text =
            std::fs::read(&config).map_err(|source| BundleError::Read { path: config.clone(), source })?;
        // serde takes an array for a structure, too, and all of its fields are optional here.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(BundleError::NotObject { path: config });
        }
        let outline = match parse(&text, &config) {
            Ok(outline) => outline,
            // Whatever is wrong: with all of it in view, the place can be named.
            Err(error) => return Err(parse::<Document>(&text, &config).err().unwrap_or(error)),
        };
        Ok(Self { path, config, text, outline })
    }

    /// The bundle's directory, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All annotations.
    #[must_use]
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.outline.annotations.as_ref().unwrap_or(&NONE)
    }

    /// Whether it is that of Knative's proxy.
    #[must_use]
    pub fn is_queue_proxy(&self) -> bool {
        let env = self.outline.process.as_ref().and_then(|process| process.env.as_deref());
        knative::is_queue_proxy(self.annotations(), env.unwrap_or_default())
    }

    /// The image's root directory, if the specification names one.
    #[must_use]
    pub fn rootfs(&self) -> Option<PathBuf> {
        let root = self.outline.root.as_ref()?.path.as_ref().filter(|path| !path.as_os_str().is_empty())?;
        Some(self.path.join(root))
    }

    /// Reads all of the specification, and holds it to the rules for unikernels.
    ///
    /// # Errors
    /// [`BundleError::Parse`], [`BundleError::Spec`]
    pub fn check(self) -> Result<Bundle, BundleError> {
        let document: Document = parse(&self.text, &self.config)?;
        let spec = ContainerSpec::new(&document, &self.path)
            .map_err(|source| BundleError::Spec { path: self.config, source })?;
        Ok(Bundle { path: self.path, spec })
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &[u8], config: &Path) -> Result<T, BundleError> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let parsed = serde_path_to_error::deserialize(&mut reader)
        .map_err(|source| BundleError::Parse { path: config.to_owned(), source })?;
    reader.end().map_err(|source| BundleError::Trailing { path: config.to_owned(), source })?;
    Ok(parsed)
}

/// A bundle, read and checked.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The bundle's directory, absolute and without symbolic links, so that later commands find it from anywhere (B24).
    pub path: PathBuf,
    /// What its `config.json` says.
    pub spec: ContainerSpec,
}
