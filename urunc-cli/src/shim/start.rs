//! `start`: containerd asks where the shim for a container listens. It prints the address of the pod's shim, which it starts if there is none.
//!
//! The containers of a pod are told by an annotation that CRI sets. The socket's name follows from containerd's address, the namespace and the pod,
//! so that the second container of a pod finds the first one's shim.

use std::fs::{self, DirBuilder, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Deserialize;

use super::connect::listens;
use super::flags::Flags;
use super::{ShimError, settings, wire};
use crate::cgroup::Layout;

/// Where shims listen; containerd's own shims use this directory, too.
const SOCKETS: &str = "/run/containerd/s";
/// How long others may take to start their shims.
const PATIENCE: Duration = Duration::from_secs(60);
/// Options are some paths and switches.
const MAX_OPTIONS: u64 = 1 << 20;
/// Annotations that say which containers share a shim, as containerd's shim for runc knows them.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Finds or starts the shim and prints its address.
///
/// # Errors
/// [`ShimError`]
pub fn start(flags: &Flags) -> Result<(), ShimError> {
    let Bootstrap { options, directory } = Bootstrap::read(&standard_input()?, flags)?;
    let directory = directory.as_path();
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(directory)
        .map_err(ShimError::path("make the directory", directory))?;
    // Between the look for a shim and the start of one, nobody else may do the same.
    let guard = File::open(directory).map_err(ShimError::path("open", directory))?;
    lock(&guard).map_err(ShimError::path("lock", directory))?;
    let own_group = OwnGroup::find(options.as_ref())?;
    let group = group(Path::new("config.json"))?.unwrap_or_else(|| flags.id.clone());
    let socket = socket(directory, &flags.address, &flags.namespace, &group);
    if !listens(&socket) {
        // What a killed shim left.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ShimError::path("remove", &socket)(error));
            }
            _ => {}
        }
        spawn(flags, &socket, &own_group)?;
    }
    answer(&socket)
}

/// Waits for the lock for as long as a few other shims may take to be started.
fn lock(guard: &File) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(guard, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
            Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Prints the address in the shape that this containerd understands. Nothing else may be printed.
fn answer(socket: &Path) -> Result<(), ShimError> {
    let address = format!("unix://{}", socket.display());
    // `delete` and older containerds look for it here.
    fs::write("address", &address).map_err(ShimError::path("write", "address"))?;
    let text = addressed(&address, std::env::var("MAX_SHIM_VERSION").ok().as_deref());
    io::stdout().write_all(text.as_bytes()).map_err(|source| ShimError::System("write the address", source))
}

/// The address for a containerd that knows shims up to the version `newest`, if it says so.
///
/// Version 3 is not only another name of the task service: it promises streams over the shim's connection and the sandbox API, and containerd would
/// neither ask us for the shim of a pod's further containers nor clean up after each of them (containerd, `core/runtime/v2/shim_manager.go`, `Start`).
fn addressed(address: &str, newest: Option<&str>) -> String {
    match newest.and_then(|version| version.parse::<u32>().ok()) {
        Some(2..) => serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"}).to_string(),
        // A bare address means version 2, for every containerd.
        _ => address.to_owned(),
    }
}

/// Starts the shim with the listening socket as its standard input, so that nobody who connects from now on is refused.
fn spawn(flags: &Flags, socket: &Path, group: &OwnGroup) -> Result<(), ShimError> {
    let listener = UnixListener::bind(socket).map_err(ShimError::path("listen on", socket))?;
    let program =
        std::env::current_exe().map_err(|source| ShimError::System("find our own program", source))?;
    let mut command = Command::new(&program);
    command.args(["-namespace", &flags.namespace, "-id", &flags.id, "-address"]).arg(&flags.address);
    command.arg("-socket").arg(socket);
    // It is containerd's to tell systemd that it is ready; nothing that the shim runs may.
    command.env_remove("NOTIFY_SOCKET");
    if flags.debug {
        command.arg("-debug");
    }
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let spawned = command.spawn().map_err(ShimError::path("run", program)).and_then(|mut child| {
        protect(child.id());
        group.enter(child.id()).inspect_err(|_| {
            // It has not been told to do anything yet.
            let _ = child.kill();
            let _ = child.wait();
        })
    });
    match spawned {
        Ok(()) => Ok(()),
        Err(error) => {
            // Nobody will ever answer there.
            let _ = fs::remove_file(socket);
            Err(error)
        }
    }
}

/// What containerd hands to `start`: the options of the runtime, or nothing.
fn standard_input() -> Result<Vec<u8>, ShimError> {
    let mut input = Vec::new();
    if !io::stdin().is_terminal() {
        io::stdin()
            .take(MAX_OPTIONS)
            .read_to_end(&mut input)
            .map_err(|source| ShimError::System("read the runtime options", source))?;
    }
    Ok(input)
}

/// What containerd hands to `start`, understood.
#[derive(Debug, PartialEq)]
struct Bootstrap {
    options: Option<Any>,
    /// Where to listen.
    directory: PathBuf,
}

impl Bootstrap {
    /// Up to containerd 2.2, it is the options of the runtime. Later it is a message `BootstrapParams` of which they are a part; that one names the
    /// same container as the command line, which is how containerd's own shims tell them apart (containerd, `api/runtime/bootstrap/v1/bootstrap.proto`,
    /// `pkg/shim/compat.go`).
    fn read(input: &[u8], flags: &Flags) -> Result<Self, ShimError> {
        const INSTANCE: u32 = 1;
        const NAMESPACE: u32 = 2;
        const EXTENSIONS: u32 = 8;
        const SOCKETS_AT: u32 = 9;
        let wrong = |source| ShimError::Message { what: "the runtime options", source };
        let names =
            |number, name: &str| wire::text(input, number).is_ok_and(|text| text.as_deref() == Some(name));
        let any = |bytes: &[u8]| Any::parse_from_bytes(bytes).map_err(wrong);
        let usual = PathBuf::from(SOCKETS);
        if !(names(INSTANCE, &flags.id) && names(NAMESPACE, &flags.namespace)) {
            let options = if input.is_empty() { None } else { Some(any(input)?) };
            return Ok(Self { options, directory: usual });
        }
        let mut options = None;
        for extension in wire::blobs(input, EXTENSIONS).map_err(wrong)? {
            let extension = any(&wire::blob(&extension, 1).map_err(wrong)?.unwrap_or_default())?;
            if extension.type_url.ends_with("Options") {
                options = Some(extension);
            }
        }
        let directory = wire::text(input, SOCKETS_AT).map_err(wrong)?.filter(|path| !path.is_empty());
        Ok(Self { options, directory: directory.map_or(usual, PathBuf::from) })
    }
}

/// The control group that the options want the shim in (`ShimCgroup`), in every hierarchy that has it.
#[derive(Debug, Default)]
struct OwnGroup {
    directories: Vec<PathBuf>,
}

impl OwnGroup {
    /// Finds the group that options name.
    fn find(options: Option<&Any>) -> Result<Self, ShimError> {
        let path = settings::options(options)?.shim_cgroup;
        if path.is_empty() {
            return Ok(Self::default());
        }
        let layout = Layout::probe().map_err(ShimError::Layout)?;
        let in_each = layout.hierarchies.iter().map(|it| it.mount.join(path.trim_start_matches('/')));
        let directories: Vec<PathBuf> = in_each.filter(|directory| directory.is_dir()).collect();
        if directories.is_empty() {
            return Err(ShimError::NotFound { what: format!("control group {path}, for the shim,") });
        }
        Ok(Self { directories })
    }

    fn enter(&self, pid: u32) -> Result<(), ShimError> {
        for directory in &self.directories {
            let file = directory.join("cgroup.procs");
            fs::write(&file, pid.to_string()).map_err(ShimError::path("put the shim into", &file))?;
        }
        Ok(())
    }
}

/// Makes the shim a little more likely than containerd to be chosen when memory is short, as containerd does for its own shims. It can do without.
fn protect(pid: u32) {
    let read =
        |who: &str| fs::read_to_string(format!("/proc/{who}/oom_score_adj")).ok()?.trim().parse::<i32>().ok();
    let parent = rustix::process::getppid().map(|pid| pid.to_string());
    if let Some(score) = parent.and_then(|parent| read(&parent)) {
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), (score + 1).min(1000).to_string());
    }
}

/// The pod of the container whose bundle we are in.
fn group(config: &Path) -> Result<Option<String>, ShimError> {
    #[derive(Deserialize)]
    struct Spec {
        #[serde(default)]
        annotations: std::collections::BTreeMap<String, String>,
    }
    let text = fs::read(config).map_err(ShimError::path("read", config))?;
    let spec: Spec =
        serde_json::from_slice(&text).map_err(|source| ShimError::Json { path: config.into(), source })?;
    Ok(GROUPS.iter().find_map(|name| spec.annotations.get(*name)).cloned())
}

/// The socket of a group. A path may have 107 bytes, so it holds a digest of the names and not the names.
fn socket(directory: &Path, address: &Path, namespace: &str, group: &str) -> PathBuf {
    let names = [address.as_os_str().as_encoded_bytes(), namespace.as_bytes(), group.as_bytes()];
    directory.join(format!("urunc-{:032x}", fnv1a(&names)))
}

/// FNV-1a with 128 bits (draft-eastlake-fnv, section 5): it must be the same in every version of this program, and need not withstand anybody: whoever chooses names here is
/// root.
fn fnv1a(parts: &[&[u8]]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = parts.iter().flat_map(|part| part.iter().chain(&[0]));
    bytes.fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_one_socket_and_another_pod_another() {
        let address = Path::new("/run/containerd/containerd.sock");
        let socket = |address: &Path, namespace: &str, group: &str| {
            super::socket(Path::new(SOCKETS), address, namespace, group)
        };
        let one = socket(address, "k8s.io", "pod");
        assert_eq!(one, socket(address, "k8s.io", "pod"));
        for other in [
            socket(address, "k8s.io", "pod2"),
            socket(address, "k8s.iop", "od"),
            socket(Path::new("/other"), "k8s.io", "pod"),
        ] {
            assert_ne!(one, other);
        }
        // Upgrading the shim must not make it lose its pods.
        assert_eq!(fnv1a(&[]), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        // A terminal's socket is named after it.
        assert!(one.as_os_str().len() < 100);
    }

    #[test]
    fn no_more_than_version_2_is_promised() {
        assert_eq!(addressed("unix:///s", None), "unix:///s");
        for newest in ["2", "3", "4"] {
            let answer: serde_json::Value =
                serde_json::from_str(&addressed("unix:///s", Some(newest))).unwrap();
            assert_eq!(
                answer,
                serde_json::json!({"version": 2, "address": "unix:///s", "protocol": "ttrpc"})
            );
        }
    }

    /// containerd 2.3 and later wrap what earlier ones send as it is.
    #[test]
    fn the_options_are_found_in_either_message() {
        let flags = ["-namespace", "n", "-id", "c", "start"].map(std::ffi::OsString::from);
        let flags = Flags::parse(flags).unwrap();
        let options =
            Any { type_url: "runtimeoptions.v1.Options".into(), value: vec![1, 2], ..Any::default() };
        let field = |number: u8, value: &[u8]| {
            [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
        };
        let encoded = options.write_to_bytes().unwrap();
        let read = |input: &[u8]| Bootstrap::read(input, &flags).unwrap();
        let (options, directory) = (Some(options), PathBuf::from(SOCKETS));
        assert_eq!(read(&encoded), Bootstrap { options: options.clone(), directory: directory.clone() });
        assert_eq!(read(&[]), Bootstrap { options: None, directory: directory.clone() });
        let other = Any { type_url: "containerd.io/other".into(), value: vec![7], ..Any::default() };
        let other = field(8, &field(1, &other.write_to_bytes().unwrap()));
        let named = [field(1, b"c"), field(2, b"n"), vec![0x18, 4], field(4, b"2.3.0"), other].concat();
        assert_eq!(read(&named), Bootstrap { options: None, directory });
        let extended = [named, field(8, &field(1, &encoded)), field(9, b"/run/short")].concat();
        assert_eq!(read(&extended), Bootstrap { options, directory: "/run/short".into() });
    }

    #[test]
    fn the_group_is_what_cri_says() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        fs::write(&config, r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"p"},"process":{}}"#).unwrap();
        assert_eq!(group(&config).unwrap().as_deref(), Some("p"));
        fs::write(&config, "{}").unwrap();
        assert_eq!(group(&config).unwrap(), None);
    }
}
