//! The shim itself: the process that stays. Started by [`start`](super::start) with its socket as standard input.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use containerd_shim_protos::ttrpc::Server;
use rustix::process::{getpid, set_child_subreaper, setsid};

use super::children::Children;
use super::events::Publisher;
use super::flags::Flags;
use super::pod::Pod;
use super::{ShimError, service, sys};
use crate::logger;

/// How long the last events may take: containerd is there, for it has just sent `Shutdown`.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the server may take to end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Name of the fifo, in the bundle, whose other end containerd copies into its own log.
const LOG: &str = "log";

/// Serves until containerd sends `Shutdown` and no container is left.
///
/// # Errors
/// [`ShimError`] if it cannot begin to serve.
pub fn serve(flags: &Flags) -> Result<(), ShimError> {
    let socket = flags.socket.clone().ok_or_else(|| ShimError::Usage("-socket is missing".into()))?;
    set_up_log(flags.debug);
    // A session of its own: signals to containerd's terminal are not for us. It fails if it is one already.
    let _ = setsid();
    set_child_subreaper(Some(getpid()))
        .map_err(|errno| ShimError::System("become a subreaper", errno.into()))?;
    let listener = io::stdin();
    let listener = std::os::fd::AsFd::as_fd(&listener)
        .try_clone_to_owned()
        .map_err(|source| ShimError::System("take over the socket", source))?;
    sys::keep_private(&listener).map_err(|source| ShimError::System("take over the socket", source))?;
    let null =
        OpenOptions::new().read(true).open("/dev/null").map_err(ShimError::path("open", "/dev/null"))?;
    rustix::stdio::dup2_stdin(&null)
        .map_err(|errno| ShimError::System("close standard input", errno.into()))?;
    // The bundle is removed one day; what is done for one container must not depend on the directory of another.
    std::env::set_current_dir("/").map_err(ShimError::path("change to", "/"))?;

    let children = Arc::new(Children::default());
    let reaper = Arc::clone(&children);
    thread::Builder::new()
        .name("orphans".into())
        .stack_size(128 << 10)
        .spawn(move || reaper.reap_strangers())
        .map_err(|source| ShimError::System("start the thread for orphans", source))?;
    let events = Publisher::new(&flags.namespace, &events_socket(&flags.address))?;
    let (stop, stopped) = mpsc::channel();
    let pod = Arc::new(Pod::new(
        flags.namespace.clone(),
        socket.clone(),
        flags.address.clone(),
        events.clone(),
        children,
        stop,
    ));
    let mut server = Server::new()
        .add_listener(listener.into_raw_fd())
        .map_err(ShimError::Serve)?
        // For each connection; more are made while these are busy. The defaults keep five.
        .set_thread_count_min(1)
        .set_thread_count_default(2)
        .set_thread_count_max(3)
        .register_service(service::methods(&pod));
    server.start().map_err(ShimError::Serve)?;
    log::debug!("serving namespace {} on {}", flags.namespace, socket.display());

    // An error means that nobody can say it any more. The socket's name has gone by now.
    let _ = stopped.recv();
    events.flush(FAREWELL);
    // Answers that are being written are given time. Now and then one of the server's threads never ends, and the process does not wait for it:
    // it would stay for ever, with no container and no name.
    let (ended, end) = mpsc::channel();
    let farewell = thread::Builder::new().name("farewell".into()).stack_size(128 << 10).spawn(move || {
        server.shutdown();
        let _ = ended.send(());
    });
    if farewell.is_ok() {
        let _ = end.recv_timeout(LAST_ANSWERS);
    }
    Ok(())
}

/// containerd names its socket for events in the environment; it has always been this one.
fn events_socket(address: &Path) -> PathBuf {
    std::env::var_os("TTRPC_ADDRESS").filter(|value| !value.is_empty()).map_or_else(
        || {
            let mut name = address.as_os_str().to_owned();
            name.push(".ttrpc");
            name.into()
        },
        PathBuf::from,
    )
}

/// Logs into containerd's fifo. It is opened for both directions and without blocking: neither a containerd that is away nor one that does not read
/// may stop the shim; what does not fit is lost.
fn set_up_log(debug: bool) {
    let fifo = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(LOG);
    let Ok(fifo) = fifo else { return };
    // Panics and the like go there, too.
    let _ = rustix::stdio::dup2_stderr(&fifo);
    logger::install_file(fifo, if debug { log::LevelFilter::Debug } else { log::LevelFilter::Warn });
}
