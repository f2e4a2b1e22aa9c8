//! `delete`: containerd has lost a container's shim and has the rest cleaned up. Nobody else will: what this leaves stays.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};

use super::children::Children;
use super::connect::connect;
use super::flags::Flags;
use super::runtime::{Runtime, Use};
use super::settings::Settings;
use super::{ShimError, mounts, orphans, task};

/// 128 plus SIGKILL: how the container ended, as far as anybody can tell.
const KILLED: u32 = 137;
/// How long `urunc delete` usually takes at most.
const SOON: Duration = Duration::from_secs(2);

/// Removes all that is left of a container and prints how it ended.
///
/// # Errors
/// The first of the failures; every step is tried whatever the earlier ones returned (F3).
pub fn delete(flags: &Flags) -> Result<(), ShimError> {
    let bundle = match &flags.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().map_err(|source| ShimError::System("find the bundle", source))?,
    };
    // containerd kills us after 5 s. What takes no time comes first, and what may wait for somebody else's lock keeps nothing from being done: it goes on
    // without us.
    remove_socket(&bundle);
    let ended = orphans::end_creations(&bundle);
    // A shim that is just being killed may have had it a moment ago, and so may what it was about to run.
    remove_socket(&bundle);
    let pid = task::read_pid(&bundle.join("init.pid")).unwrap_or(0);
    let rootfs = bundle.join("rootfs");
    let removed = thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        let (bundle, rootfs) = (&bundle, &rootfs);
        let removal = scope.spawn(move || {
            let removed = remove(bundle, flags);
            let _ = done.send(());
            removed
        });
        if is_done.recv_timeout(SOON).is_err() {
            // It is detached where it is in use. What fails now is tried again below.
            let _ = mounts::unmount_all(rootfs);
        }
        removal.join()
    });
    let unmounted = mounts::unmount_all(&rootfs);
    remove_socket(&bundle);
    ended?;
    // It does not panic.
    removed.unwrap_or(Ok(()))?;
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

/// Removes the dead shim's socket. A pod has one for all its containers; while somebody listens there, it is left alone.
fn remove_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else { return };
    let socket = PathBuf::from(address.trim().trim_start_matches("unix://"));
    if connect(&socket, Duration::ZERO).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        // The next `start` for the same pod would remove it, too.
        let _ = fs::remove_file(socket);
    }
}
