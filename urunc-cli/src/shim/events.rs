//! What containerd is told unasked: each event in order, whether or not containerd is there at the moment. Each once, unless containerd takes one and
//! does not answer in time: that one is sent again, for twice is better than never.
//!
//! One thread sends; while containerd is away (it may be restarted while containers run) it tries again until it is back. Nothing is
//! dropped: what one container can cause is a handful of events.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused, TaskResumed,
    TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::ttrpc::{self, context};
use containerd_shim_protos::{Client, EventsClient, topics};

use super::{ShimError, lock};

/// How long one event may take. It is long, for what containerd takes later than this it is told twice.
const SEND: Duration = Duration::from_secs(30);
/// How soon a failed event is tried again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// An event and the topic that it is published under.
pub trait Event: Message {
    /// The topic.
    const TOPIC: &'static str;
}

macro_rules! topics {
    ($($event:ty => $topic:expr),* $(,)?) => {$(impl Event for $event { const TOPIC: &'static str = $topic; })*};
}
topics! {
    TaskCreate => topics::TASK_CREATE_EVENT_TOPIC,
    TaskStart => topics::TASK_START_EVENT_TOPIC,
    TaskOOM => topics::TASK_OOM_EVENT_TOPIC,
    TaskExit => topics::TASK_EXIT_EVENT_TOPIC,
    TaskDelete => topics::TASK_DELETE_EVENT_TOPIC,
    TaskExecAdded => topics::TASK_EXEC_ADDED_EVENT_TOPIC,
    TaskExecStarted => topics::TASK_EXEC_STARTED_EVENT_TOPIC,
    TaskPaused => topics::TASK_PAUSED_EVENT_TOPIC,
    TaskResumed => topics::TASK_RESUMED_EVENT_TOPIC,
}

/// Sends events to containerd.
#[derive(Clone, Debug)]
pub struct Publisher {
    namespace: String,
    shared: Arc<(Mutex<VecDeque<Envelope>>, Condvar)>,
}

impl Publisher {
    /// Events of `namespace`, sent to the socket of containerd's ttrpc services.
    ///
    /// # Errors
    /// [`ShimError::System`] if there can be no further thread.
    pub fn new(namespace: &str, socket: &Path) -> Result<Self, ShimError> {
        let publisher = Self { namespace: namespace.to_owned(), shared: Arc::default() };
        let (shared, socket) = (Arc::clone(&publisher.shared), socket.to_owned());
        thread::Builder::new()
            .name("events".into())
            .spawn(move || send_all(&shared, &socket))
            .map_err(|source| ShimError::System("start the thread for events", source))?;
        Ok(publisher)
    }

    /// Puts an event at the end of the queue.
    pub fn publish<E: Event>(&self, event: &E) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => {
                log::error!("cannot encode an event for {}: {error}", E::TOPIC);
                return;
            }
        };
        let any = Any { type_url: type_url::<E>(), value, ..Any::default() };
        let envelope = Envelope {
            timestamp: MessageField::some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: MessageField::some(any),
            ..Envelope::default()
        };
        lock(&self.shared.0).push_back(envelope);
        self.shared.1.notify_all();
    }

    /// Waits until everything has been sent, at most until `limit` is over. What is left then is logged.
    pub fn flush(&self, limit: Duration) {
        let queue = lock(&self.shared.0);
        let waited = self.shared.1.wait_timeout_while(queue, limit, |queue| !queue.is_empty());
        let left = waited.unwrap_or_else(PoisonError::into_inner).0.len();
        if left > 0 {
            log::warn!("{left} events could not be sent to containerd");
        }
    }
}

/// What containerd knows a message by: its full name alone, without the `type.googleapis.com/` of `Any::pack`.
///
/// The message could be asked for it, but only by way of its description, which a shim would then hold, half a mebibyte of it.
fn type_url<E: Event>() -> String {
    format!("containerd.events.{}", E::NAME)
}

fn send_all(shared: &(Mutex<VecDeque<Envelope>>, Condvar), socket: &Path) {
    let mut client = None;
    let mut patience = RETRY.0;
    loop {
        let envelope = {
            let queue = shared.1.wait_while(lock(&shared.0), |queue| queue.is_empty());
            queue.unwrap_or_else(PoisonError::into_inner).front().cloned()
        };
        let Some(envelope) = envelope else { continue };
        let topic = envelope.topic.clone();
        match send(&mut client, socket, envelope) {
            Ok(()) => {
                patience = RETRY.0;
                // Taken out only now: `flush` waits for the queue to be empty.
                let mut queue = lock(&shared.0);
                queue.pop_front();
                if queue.is_empty() {
                    // ttrpc's client has two threads, one of which wakes a hundred times a second as long as it is there.
                    client = None;
                }
                drop(queue);
                shared.1.notify_all();
            }
            // containerd understood it and does not want it; it will not want it later either.
            Err(ttrpc::Error::RpcStatus(status)) if !is_passing(status.code()) => {
                log::error!("containerd refuses an event of {topic}: {}", status.message);
                lock(&shared.0).pop_front();
                shared.1.notify_all();
            }
            Err(error) => {
                log::debug!("cannot send an event of {topic} yet: {error}");
                client = None;
                thread::park_timeout(patience);
                patience = (patience * 2).min(RETRY.1);
            }
        }
    }
}

/// Whether containerd may take the same event later. After a timeout it may have taken it already: better twice than never.
fn is_passing(code: ttrpc::Code) -> bool {
    matches!(code, ttrpc::Code::UNAVAILABLE | ttrpc::Code::DEADLINE_EXCEEDED)
}

fn send(client: &mut Option<EventsClient>, socket: &Path, envelope: Envelope) -> ttrpc::Result<()> {
    let connected = match client {
        Some(client) => client,
        None => client.insert(EventsClient::new(Client::connect(&format!("unix://{}", socket.display()))?)),
    };
    let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
    connected.forward(context::with_duration(SEND), &request).map(drop)
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::protobuf::MessageFull;

    use super::*;

    fn assert_described<E: Event + MessageFull>() {
        assert_eq!(type_url::<E>(), E::descriptor().full_name());
    }

    #[test]
    fn names_are_those_of_the_descriptions() {
        assert_described::<TaskCreate>();
        assert_described::<TaskStart>();
        assert_described::<TaskOOM>();
        assert_described::<TaskExit>();
        assert_described::<TaskDelete>();
        assert_described::<TaskExecAdded>();
        assert_described::<TaskExecStarted>();
        assert_described::<TaskPaused>();
        assert_described::<TaskResumed>();
    }
}
