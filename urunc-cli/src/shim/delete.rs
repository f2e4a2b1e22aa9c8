//! `delete`: containerd has lost a container's shim and has the rest cleaned up. Nobody else will: what this leaves stays.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};

use super::children::Children;
use super::flags::Flags;
use super::runtime::{Runtime, Use};
use super::settings::Settings;
use super::{ShimError, mounts, orphans, task};

/// 128 plus SIGKILL: how the container ended, as far as anybody can tell.
const KILLED: u32 = 137;

/// Removes all that is left of a container and prints how it ended.
///
/// # Errors
/// The first of the failures; every step is tried whatever the earlier ones returned (F3).
pub fn delete(flags: &Flags) -> Result<(), ShimError> {
    let bundle = match &flags.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().map_err(|source| ShimError::System("find the bundle", source))?,
    };
    let ended = orphans::end_creations(&bundle);
    let pid = task::read_pid(&bundle.join("init.pid")).unwrap_or(0);
    let removed = remove(&bundle, flags);
    let unmounted = mounts::unmount_all(&bundle.join("rootfs"));
    remove_socket(&bundle);
    ended?;
    removed?;
    unmounted?;
    let response = DeleteResponse {
        pid,
        exit_status: KILLED,
        exited_at: MessageField::some(SystemTime::now().into()),
        ..DeleteResponse::default()
    };
    let message =
        response.write_to_bytes().map_err(|source| ShimError::Message { what: "the answer", source })?;
    io::stdout().write_all(&message).map_err(|source| ShimError::System("write the answer", source))
}

fn remove(bundle: &Path, flags: &Flags) -> Result<(), ShimError> {
    let settings = Settings::load(bundle, &flags.namespace)?;
    let runtime = Runtime { settings, id: flags.id.clone(), bundle: bundle.to_owned() };
    runtime.call(&Arc::new(Children::default()), "delete", &["--force".as_ref()], Use::Output).map(drop)
}

/// Removes the dead shim's socket. A pod has one for all its containers; while somebody answers there, it is left alone.
fn remove_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else { return };
    let socket = PathBuf::from(address.trim().trim_start_matches("unix://"));
    if UnixStream::connect(&socket).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        // The next `start` for the same pod would remove it, too.
        let _ = fs::remove_file(socket);
    }
}
