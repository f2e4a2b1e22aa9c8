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
    names: Mutex<Names>,
    stop: Sender<()>,
}

#[derive(Debug, Default)]
struct Names {
    slots: BTreeMap<String, Slot>,
    /// The shim was to end while only creations kept it: none of them may succeed any more, and it ends after the last.
    ending: bool,
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
    ///
    /// # Errors
    /// [`ShimError::Ending`]: containerd has given the container up meanwhile.
    pub fn fill(&mut self, task: Arc<Task>) -> Result<(), ShimError> {
        let mut names = lock(&self.pod.names);
        if names.ending {
            return Err(ShimError::Ending);
        }
        if let Some(id) = self.id.take() {
            names.slots.insert(id, Slot::Taken(task));
        }
        Ok(())
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            let mut names = lock(&self.pod.names);
            names.slots.remove(id);
            if names.ending && names.slots.is_empty() {
                let _ = self.pod.stop.send(());
            }
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
        Self { namespace, socket, containerd, events, children, names: Mutex::default(), stop }
    }

    /// Takes a name.
    ///
    /// # Errors
    /// [`ShimError::Exists`]
    pub fn reserve(&self, id: &str) -> Result<Reservation<'_>, ShimError> {
        let mut names = lock(&self.names);
        if names.slots.contains_key(id) {
            return Err(ShimError::Exists { what: format!("container {id}") });
        }
        names.slots.insert(id.to_owned(), Slot::Reserved);
        Ok(Reservation { pod: self, id: Some(id.to_owned()) })
    }

    /// The container `id`.
    ///
    /// # Errors
    /// [`ShimError::NotFound`]
    pub fn task(&self, id: &str) -> Result<Arc<Task>, ShimError> {
        match lock(&self.names).slots.get(id) {
            Some(Slot::Taken(task)) => Ok(Arc::clone(task)),
            _ => Err(ShimError::NotFound { what: format!("container {id}") }),
        }
    }

    /// Forgets a container.
    pub fn forget(&self, id: &str) {
        lock(&self.names).slots.remove(id);
    }

    /// Ends the shim if it has no container left. A containerd that was restarted says so, too, of a shim whose first container is still being
    /// created: nobody else will ever say it again, so that creation fails, and the shim ends after it.
    pub fn shut_down(&self) {
        let mut names = lock(&self.names);
        if names.slots.is_empty() {
            // If nobody listens any more, it is ending already.
            let _ = self.stop.send(());
        } else if names.slots.values().all(|slot| matches!(slot, Slot::Reserved)) {
            names.ending = true;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::mpsc::{Receiver, channel};

    fn pod() -> (Pod, Receiver<()>) {
        let (stop, stopped) = channel();
        let events = Publisher::new("n", Path::new("/nonexistent/socket")).unwrap();
        let pod = Pod::new("n".into(), "/s".into(), "/c".into(), events, Arc::default(), stop);
        (pod, stopped)
    }

    #[test]
    fn a_name_is_free_again_after_a_failure() {
        let (pod, _) = pod();
        let first = pod.reserve("a").unwrap();
        assert!(matches!(pod.reserve("a"), Err(ShimError::Exists { .. })));
        drop(first);
        pod.reserve("a").unwrap();
    }

    #[test]
    fn an_empty_shim_ends_at_once_and_one_that_creates_ends_afterwards() {
        let (pod, stopped) = pod();
        pod.shut_down();
        stopped.try_recv().unwrap();
        let (first, second) = (pod.reserve("a").unwrap(), pod.reserve("b").unwrap());
        pod.shut_down();
        drop(first);
        assert!(stopped.try_recv().is_err());
        drop(second);
        stopped.try_recv().unwrap();
    }
}
