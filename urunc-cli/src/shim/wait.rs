//! `Wait`, which containerd calls once per process and which is answered when the process ends. The request is put aside instead of keeping
//! a thread: a waiting call costs a few hundred bytes.

use std::sync::Arc;

use containerd_shim_protos::api::{WaitRequest, WaitResponse};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::ttrpc::proto::{Codec, Request, ResponseInit};
use containerd_shim_protos::ttrpc::r#sync::{MethodHandler, TtrpcContext};
use containerd_shim_protos::ttrpc::{self, Code};

use super::ShimError;
use super::children::Exit;
use super::pod::Pod;

/// A call that waits for its answer.
#[derive(Debug)]
pub struct Waiter {
    context: TtrpcContext,
}

impl Waiter {
    /// Whether whoever asked has gone (containerd was restarted): the connection's threads stay until its last call is dropped.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.context.cancel_rx.try_recv().is_err_and(|error| error.is_disconnected())
    }

    /// Answers.
    pub fn answer(self, exit: Exit) {
        let message = WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.into()),
            ..WaitResponse::default()
        };
        let payload = match message.write_to_bytes() {
            Ok(payload) => payload,
            Err(error) => return log::error!("cannot encode the answer to Wait: {error}"),
        };
        let mut response = <ttrpc::Response as ResponseInit>::init_status(ttrpc::get_status(Code::OK, ""));
        response.set_payload(payload);
        self.send(response);
    }

    /// Answers that there is nothing to wait for.
    pub fn refuse(self, error: &ShimError) {
        self.send(<ttrpc::Response as ResponseInit>::init_status(error.status()));
    }

    fn send(self, response: ttrpc::Response) {
        let stream = self.context.mh.stream_id;
        if let Err(error) = self.context.respond(stream, response) {
            log::debug!("nobody to answer Wait to: {error}");
        }
    }
}

/// The method.
#[derive(Debug)]
pub struct WaitMethod {
    /// Whose processes are waited for.
    pub pod: Arc<Pod>,
}

impl MethodHandler for WaitMethod {
    fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<()> {
        let waiter = Waiter { context };
        match <WaitRequest as Codec>::decode(&request.payload) {
            Ok(request) => self.pod.wait(&request.id, &request.exec_id, waiter),
            Err(error) => {
                waiter.refuse(&ShimError::Invalid { what: "the request", reason: error.to_string() })
            }
        }
        Ok(())
    }
}
