//! containerd's task service, versions 2 and 3: the same methods under two names. Translates, and leaves the rest to [`Pod`] and
//! [`Task`](super::task::Task).

use std::collections::HashMap;
use std::sync::Arc;

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest,
    StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::ttrpc::r#sync::{MethodHandler, TtrpcContext};
use containerd_shim_protos::{Task as Methods, create_task, ttrpc};

use super::pod::Pod;
use super::process::Stage;
use super::wait::WaitMethod;
use super::{ShimError, create, stats, stdio};

/// Methods by their path, as the server wants them.
pub type MethodTable = HashMap<String, Box<dyn MethodHandler + Send + Sync>>;

/// The methods for `pod`.
#[must_use]
pub fn methods(pod: &Arc<Pod>) -> MethodTable {
    let mut table = MethodTable::new();
    for version in ["v2", "v3"] {
        let service = Arc::new(Service { pod: Arc::clone(pod) });
        let renamed =
            |path: String| path.replacen("/containerd.task.v3.", &format!("/containerd.task.{version}."), 1);
        table.extend(create_task(service).into_iter().map(|(path, method)| (renamed(path), method)));
        let wait = WaitMethod { pod: Arc::clone(pod) };
        table.insert(format!("/containerd.task.{version}.Task/Wait"), Box::new(wait));
    }
    table
}

struct Service {
    pod: Arc<Pod>,
}

type Answer<T> = ttrpc::Result<T>;

fn done(result: Result<(), ShimError>) -> Answer<Empty> {
    Ok(result.map(|()| Empty::new())?)
}

impl Methods for Service {
    fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        log::debug!("create {} from {}", request.id, request.bundle);
        let pid = create::create(&self.pod, request)?;
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    fn start(&self, _: &TtrpcContext, request: StartRequest) -> Answer<StartResponse> {
        let pid = self.pod.task(&request.id)?.start(&request.exec_id)?;
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Answer<DeleteResponse> {
        let task = self.pod.task(&request.id)?;
        let (pid, exit) = task.delete(&request.exec_id)?;
        if request.exec_id.is_empty() {
            self.pod.forget(&task);
        }
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.into()),
            ..DeleteResponse::default()
        })
    }

    fn state(&self, _: &TtrpcContext, request: StateRequest) -> Answer<StateResponse> {
        let task = self.pod.task(&request.id)?;
        let process = task.snapshot(&request.exec_id)?;
        let mut response = StateResponse {
            id: request.id,
            bundle: task.runtime.bundle.display().to_string(),
            pid: process.pid,
            status: EnumOrUnknown::new(process.stage.status()),
            stdin: process.stdio.stdin,
            stdout: process.stdio.stdout,
            stderr: process.stdio.stderr,
            terminal: process.stdio.terminal,
            exec_id: request.exec_id,
            ..StateResponse::default()
        };
        if let Stage::Stopped(exit) = process.stage {
            response.exit_status = exit.status;
            response.exited_at = MessageField::some(exit.at.into());
        }
        Ok(response)
    }

    fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Answer<PidsResponse> {
        let mut response = PidsResponse::default();
        for (pid, exec_id) in self.pod.task(&request.id)?.pids()? {
            let mut process = ProcessInfo { pid, ..ProcessInfo::default() };
            if let Some(exec_id) = exec_id {
                let details = ProcessDetails { exec_id, ..ProcessDetails::default() };
                process.info = MessageField::some(pack("containerd.runc.v1.ProcessDetails", &details)?);
            }
            response.processes.push(process);
        }
        Ok(response)
    }

    fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Answer<Empty> {
        done(self.pod.task(&request.id)?.pause())
    }

    fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Answer<Empty> {
        done(self.pod.task(&request.id)?.resume())
    }

    fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> Answer<Empty> {
        done(Err(ShimError::Unsupported("checkpointing a container")))
    }

    fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Answer<Empty> {
        done(self.pod.task(&request.id)?.kill(&request.exec_id, request.signal, request.all))
    }

    fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Answer<Empty> {
        let task = self.pod.task(&request.id)?;
        let stdio = stdio::Request {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        // An OCI process as JSON, whatever its type is called.
        let spec = request.spec.into_option().map(|any| any.value).unwrap_or_default();
        done(task.exec(&request.exec_id, spec, stdio))
    }

    fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Answer<Empty> {
        done(self.pod.task(&request.id)?.resize(&request.exec_id, request.height, request.width))
    }

    fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Answer<Empty> {
        let task = self.pod.task(&request.id)?;
        done(if request.stdin { task.close_stdin(&request.exec_id) } else { Ok(()) })
    }

    fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Answer<Empty> {
        // An OCI `linux.resources` as JSON.
        let resources = request.resources.into_option().map(|any| any.value).unwrap_or_default();
        done(self.pod.task(&request.id)?.update(resources))
    }

    fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Answer<StatsResponse> {
        let process = self.pod.task(&request.id)?.snapshot("")?;
        if matches!(process.stage, Stage::Stopped(_)) {
            // Its number may be another process's by now.
            return Err(ShimError::Finished { what: format!("container {}", request.id) }.into());
        }
        let stats = stats::read(process.pid)?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Answer<ConnectResponse> {
        // Of a pod, any container may be asked for; that it is not there is no reason not to say who the shim is.
        let task_pid = self.pod.task(&request.id).map_or(0, |task| task.pid);
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..ConnectResponse::default() })
    }

    fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Answer<Empty> {
        self.pod.shut_down();
        Ok(Empty::new())
    }
}

/// A message under the bare name by which containerd knows it.
///
/// # Errors
/// [`ShimError::Message`]
pub(super) fn pack(name: &str, message: &impl Message) -> Result<Any, ShimError> {
    let value = message
        .write_to_bytes()
        .map_err(|source| ShimError::Message { what: "an answer to containerd", source })?;
    Ok(Any { type_url: name.to_owned(), value, ..Any::default() })
}
