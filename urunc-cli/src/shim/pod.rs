//! The containers of one shim, by name.

use std::collections::BTreeMap;
use std::fs;
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
    /// The shim was told to end: no creation may begin or succeed any more, and it ends after the last that has begun.
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
    /// [`ShimError::Exists`], [`ShimError::Ending`]
    pub fn reserve(&self, id: &str) -> Result<Reservation<'_>, ShimError> {
        let mut names = lock(&self.names);
        if names.ending {
            return Err(ShimError::Ending);
        }
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

    /// Forgets a container, and no later one of the same name.
    pub fn forget(&self, task: &Arc<Task>) {
        let mut names = lock(&self.names);
        let is_it = |slot: &Slot| matches!(slot, Slot::Taken(other) if Arc::ptr_eq(task, other));
        if names.slots.get(&task.runtime.id).is_some_and(is_it) {
            names.slots.remove(&task.runtime.id);
        }
    }

    /// Ends the shim if it has no container left. A containerd that was restarted says so, too, of a shim whose first container is still being
    /// created: nobody else will ever say it again, so that creation fails, and the shim ends after it.
    ///
    /// From then on the shim has no name any more, so that the next container of this pod gets another shim, and takes no container from anybody who
    /// had asked for its name before.
    pub fn shut_down(&self) {
        let mut names = lock(&self.names);
        if names.ending || names.slots.values().any(|slot| matches!(slot, Slot::Taken(_))) {
            return;
        }
        names.ending = true;
        // Once: it may be the name of the next shim afterwards.
        if let Err(error) = fs::remove_file(&self.socket) {
            log::warn!("cannot remove the socket {}: {error}", self.socket.display());
        }
        if names.slots.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::process::Process;
    use crate::shim::runtime::Runtime;
    use crate::shim::stdio::Request;
    use crate::shim::task::{Kind, Surroundings};
    use std::path::Path;
    use std::sync::mpsc::{Receiver, channel};

    fn pod() -> (Pod, Receiver<()>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        fs::write(&socket, "").unwrap();
        let (stop, stopped) = channel();
        let events = Publisher::new("n", Path::new("/nonexistent/socket")).unwrap();
        let pod = Pod::new("n".into(), socket, "/c".into(), events, Arc::default(), stop);
        (pod, stopped, dir)
    }

    #[test]
    fn a_name_is_free_again_after_a_failure() {
        let (pod, _, _dir) = pod();
        let first = pod.reserve("a").unwrap();
        assert!(matches!(pod.reserve("a"), Err(ShimError::Exists { .. })));
        drop(first);
        pod.reserve("a").unwrap();
    }

    #[test]
    fn a_shim_that_creates_ends_afterwards() {
        let (pod, stopped, _dir) = pod();
        let (first, second) = (pod.reserve("a").unwrap(), pod.reserve("b").unwrap());
        pod.shut_down();
        assert!(!pod.socket.exists());
        drop(first);
        assert!(stopped.try_recv().is_err());
        drop(second);
        stopped.try_recv().unwrap();
    }

    /// A container taken in now would lose its shim at once.
    #[test]
    fn an_empty_shim_ends_at_once_and_takes_no_container_any_more() {
        let (pod, stopped, _dir) = pod();
        pod.shut_down();
        stopped.try_recv().unwrap();
        assert!(matches!(pod.reserve("a"), Err(ShimError::Ending)));
        // Whoever looks for the pod's shim finds none, and makes one, whose name stays.
        assert!(!pod.socket.exists());
        fs::write(&pod.socket, "of the next").unwrap();
        pod.shut_down();
        assert!(pod.socket.exists());
    }

    #[test]
    fn a_container_is_forgotten_and_no_other_of_its_name() {
        let (pod, _stopped, dir) = pod();
        let task = || {
            let settings = crate::shim::settings::Settings::new("n", None).unwrap();
            let runtime = Runtime { settings, id: "a".into(), bundle: dir.path().into() };
            let around = Surroundings {
                events: pod.events.clone(),
                children: Arc::default(),
                socket: pod.socket.clone(),
                namespace: "n".into(),
            };
            Arc::new(Task::new(runtime, Kind::Unikernel, Process::new(Request::default()), around))
        };
        let (earlier, later) = (task(), task());
        pod.reserve("a").unwrap().fill(Arc::clone(&later)).unwrap();
        pod.forget(&earlier);
        assert!(Arc::ptr_eq(&pod.task("a").unwrap(), &later));
        pod.forget(&later);
        assert!(pod.task("a").is_err());
    }
}
