//! How the host arranges programs and libraries: facts for the plan, no decision.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The top-level directories that a dynamic loader may need, `/usr` aside.
const TOP_LEVEL: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// The loader's cache: without it, libraries in directories that only `/etc/ld.so.conf` names are not found.
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// What lies at the top of the host's root, as far as running programs is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLayout {
    /// The entries that exist, in a fixed order.
    pub top: Vec<TopLevel>,
    /// The loader's cache, if there is one.
    pub loader_cache: Option<PathBuf>,
}

/// One entry of the host's root directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopLevel {
    /// A symbolic link, as `/lib` is where `/usr` is merged.
    Link {
        /// Its path.
        path: PathBuf,
        /// What it says.
        to: PathBuf,
    },
    /// A directory of its own.
    Directory {
        /// Its path.
        path: PathBuf,
    },
}

impl HostLayout {
    /// Looks at the host's root directory.
    ///
    /// # Errors
    /// If an entry is there but cannot be looked at.
    pub fn probe() -> io::Result<Self> {
        let mut top = Vec::new();
        for name in TOP_LEVEL {
            let path = PathBuf::from("/").join(name);
            match fs::symlink_metadata(&path) {
                Ok(m) if m.is_symlink() => top.push(TopLevel::Link { to: fs::read_link(&path)?, path }),
                Ok(m) if m.is_dir() => top.push(TopLevel::Directory { path }),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let loader_cache = PathBuf::from(LOADER_CACHE);
        Ok(Self { top, loader_cache: loader_cache.is_file().then_some(loader_cache) })
    }
}
