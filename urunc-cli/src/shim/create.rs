//! `Create` is a transaction (F4, B50): after it, there is either a container that containerd knows of, or nothing.
//!
//! ```text
//!   name reserved ▶ settings kept ▶ annotations completed ▶ rootfs mounted ▶ streams opened ▶
//!        ◀──────────────────── undone by dropping ──────────────────────────────────────┘
//!   urunc create ▶ terminal ▶ process watched ▶ announced
//!        ◀── undone by `urunc delete --force` ──┘
//! ```

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::protobuf::MessageField;
use serde::Deserialize;

use super::mounts::Mounted;
use super::pod::Pod;
use super::process::Process;
use super::runtime::{Runtime, Streams, Use};
use super::settings::Settings;
use super::stdio::Held;
use super::task::{Kind, Surroundings, Task, read_pid};
use super::terminal::{ConsoleSocket, Terminal};
use super::{ShimError, metadata, stdio};

/// Makes a container and returns its process.
///
/// # Errors
/// [`ShimError`]; nothing of the container is left then.
pub fn create(pod: &Pod, request: CreateTaskRequest) -> Result<u32, ShimError> {
    if !request.checkpoint.is_empty() {
        return Err(ShimError::Unsupported("creating a container from a checkpoint"));
    }
    // Until all that may have to be undone is undone, the last thing to go.
    let mut reservation = pod.reserve(&request.id)?;
    let bundle = PathBuf::from(&request.bundle);
    let settings = Settings::new(&pod.namespace, request.options.as_ref())?;
    let settings = settings.for_cgroup(&specification(&bundle)?.linux.cgroups_path);
    settings.save(&bundle)?;
    metadata::complete(&bundle, &pod.containerd, &pod.namespace, &request.id)?;
    let rootfs = Mounted::new(&pod.children, &request.rootfs, &bundle.join("rootfs"))?;
    let stdio = stdio::Request {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    let (streams, held) = stdio::open(&pod.children, &stdio, &pod.namespace, &request.id)?;
    let runtime = Runtime { settings, id: request.id.clone(), bundle };
    // From here until its end is watched, the container's process is nobody's.
    let _busy = pod.children.busy();
    let created = run_create(pod, &runtime, stdio, streams, held).and_then(|(kind, init)| {
        let around = Surroundings {
            events: pod.events.clone(),
            children: Arc::clone(&pod.children),
            socket: pod.socket.clone(),
            namespace: pod.namespace.clone(),
        };
        let task = Arc::new(Task::new(runtime.clone(), kind, init, around));
        let mut made = 0;
        task.adopt(|pid| {
            announce(pod, request, pid);
            made = pid;
        })?;
        reservation.fill(task)?;
        Ok(made)
    });
    match created {
        Ok(pid) => {
            rootfs.keep();
            Ok(pid)
        }
        Err(error) => {
            // Before the rootfs is unmounted. If the runtime made nothing, this succeeds all the same.
            if let Err(undo) = runtime.call(&pod.children, "delete", &["--force".as_ref()], Use::Output) {
                log::error!(
                    "cannot undo the creation of container {}: {}",
                    runtime.id,
                    crate::report::chain(&undo)
                );
            }
            Err(error)
        }
    }
}

/// Runs `urunc create` and takes over what it makes.
fn run_create(
    pod: &Pod,
    runtime: &Runtime,
    stdio: stdio::Request,
    streams: Streams,
    held: Held,
) -> Result<(Kind, Process), ShimError> {
    let pid_file = runtime.bundle.join("init.pid");
    let console = if stdio.terminal { Some(ConsoleSocket::listen(&pod.socket)?) } else { None };
    let mut arguments: Vec<&OsStr> =
        vec!["--bundle".as_ref(), runtime.bundle.as_ref(), "--pid-file".as_ref(), pid_file.as_ref()];
    if runtime.settings.no_pivot {
        arguments.push("--no-pivot".as_ref());
    }
    if runtime.settings.no_new_keyring {
        arguments.push("--no-new-keyring".as_ref());
    }
    let console_path = console.as_ref().map(|console| console.path().to_owned());
    if let Some(path) = &console_path {
        arguments.extend::<[&OsStr; 2]>(["--console-socket".as_ref(), path.as_ref()]);
    }
    let mut init = Process::new(stdio);
    init.held = held;
    if let Some(console) = console {
        runtime.call(&pod.children, "create", &arguments, Use::Streams(stdio::nowhere()?))?;
        init.terminal = Some(Terminal::connect(console.receive()?, streams)?);
    } else {
        runtime.call(&pod.children, "create", &arguments, Use::Streams(streams))?;
    }
    init.pid = read_pid(&pid_file)?;
    let kind = if runtime.has_unikernel() { Kind::Unikernel } else { kind_of_processes(&runtime.bundle)? };
    Ok((kind, init))
}

fn announce(pod: &Pod, request: CreateTaskRequest, pid: u32) {
    let io = TaskIO {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
        ..TaskIO::default()
    };
    pod.events.publish(&TaskCreate {
        container_id: request.id,
        bundle: request.bundle,
        rootfs: request.rootfs,
        io: MessageField::some(io),
        pid,
        ..TaskCreate::default()
    });
}

/// The part of `config.json` that says who makes the container's cgroup, and whether the kernel ends all of its processes with the first.
#[derive(Debug, Deserialize)]
struct Spec {
    #[serde(default)]
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<Namespace>,
    cgroups_path: String,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

fn specification(bundle: &Path) -> Result<Spec, ShimError> {
    let path = bundle.join("config.json");
    let text = fs::read(&path).map_err(ShimError::path("read", &path))?;
    serde_json::from_slice(&text).map_err(|source| ShimError::Json { path, source })
}

fn kind_of_processes(bundle: &Path) -> Result<Kind, ShimError> {
    let spec = specification(bundle)?;
    let own =
        spec.linux.namespaces.iter().any(|namespace| namespace.kind == "pid" && namespace.path.is_empty());
    Ok(if own { Kind::Processes } else { Kind::SharedProcesses })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_end_together_only_in_a_pid_namespace_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        for (spec, kind) in [
            (r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#, Kind::Processes),
            (r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#, Kind::SharedProcesses),
            (r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#, Kind::SharedProcesses),
            ("{}", Kind::SharedProcesses),
        ] {
            fs::write(dir.path().join("config.json"), spec).unwrap();
            assert_eq!(kind_of_processes(dir.path()).unwrap(), kind, "{spec}");
        }
    }
}
