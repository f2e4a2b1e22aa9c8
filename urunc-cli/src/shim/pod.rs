//! The containers of one shim, by name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use super::children::Children;
use super::events::Publisher;
use super::task::Task;
use super::wait::Waiter;
use super::{ShimError, lock};

/// What all containers of a shim share.
#[derive(Debug)]
pub struct Pod {
    /// containerd's namespace.
    pub namespace: String,
    /// The shim's own socket.
    pub socket: PathBuf,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// Where events go.
    pub events: Publisher,
    /// The processes.
    pub children: Arc<Children>,
    tasks: Mutex<BTreeMap<String, Slot>>,
    stop: Sender<()>,
}

/// A name is taken before there is anything to give it to: of two requests for the same name, the failing one must not undo the other's work.
#[derive(Clone, Debug)]
enum Slot {
    Reserved,
    Taken(Arc<Task>),
}

/// A name in use by a `Create` that has not succeeded yet. Dropping it frees the name.
#[derive(Debug)]
pub struct Reservation<'a> {
    pod: &'a Pod,
    id: Option<String>,
}

impl Reservation<'_> {
    /// Gives the name to a container.
    pub fn fill(mut self, task: Arc<Task>) {
        if let Some(id) = self.id.take() {
            lock(&self.pod.tasks).insert(id, Slot::Taken(task));
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            lock(&self.pod.tasks).remove(id);
        }
    }
}

impl Pod {
    /// A pod without containers. `stop` is told when the shim is to end.
    #[must_use]
    pub fn new(
        namespace: String,
        socket: PathBuf,
        containerd: PathBuf,
        events: Publisher,
        children: Arc<Children>,
        stop: Sender<()>,
    ) -> Self {
        Self { namespace, socket, containerd, events, children, tasks: Mutex::default(), stop }
    }

    /// Takes a name.
    ///
    /// # Errors
    /// [`ShimError::Exists`]
    pub fn reserve(&self, id: &str) -> Result<Reservation<'_>, ShimError> {
        let mut tasks = lock(&self.tasks);
        if tasks.contains_key(id) {
            return Err(ShimError::Exists { what: format!("container {id}") });
        }
        tasks.insert(id.to_owned(), Slot::Reserved);
        Ok(Reservation { pod: self, id: Some(id.to_owned()) })
    }

    /// The container `id`.
    ///
    /// # Errors
    /// [`ShimError::NotFound`]
    pub fn task(&self, id: &str) -> Result<Arc<Task>, ShimError> {
        match lock(&self.tasks).get(id) {
            Some(Slot::Taken(task)) => Ok(Arc::clone(task)),
            _ => Err(ShimError::NotFound { what: format!("container {id}") }),
        }
    }

    /// Forgets a container.
    pub fn forget(&self, id: &str) {
        lock(&self.tasks).remove(id);
    }

    /// Ends the shim if it has no container left.
    pub fn shut_down(&self) {
        if lock(&self.tasks).is_empty() {
            // If nobody listens any more, it is ending already.
            let _ = self.stop.send(());
        }
    }

    /// Has `waiter` answered when a process ends, or at once if there is none.
    pub fn wait(&self, id: &str, exec_id: &str, waiter: Waiter) {
        match self.task(id) {
            Ok(task) => task.wait(exec_id, waiter),
            Err(error) => waiter.refuse(&error),
        }
    }
}
