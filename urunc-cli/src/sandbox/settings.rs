//! What init sets in the container's own namespaces before anything else runs in them: host and domain name, kernel
//! settings, the session keyring.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::protocol::Failure;
use super::sys;
use crate::bundle::{NamespaceKind, Namespaces, Sysctl};

/// A namespace is to be joined and changed that is the host's own.
#[derive(Debug, thiserror::Error)]
#[error(
    "linux.sysctl has {name}, but {path} is the host's own {kind} namespace, so that it would change the host; give another \
     namespace, or remove it"
)]
pub struct HostNamespace {
    /// The setting.
    name: String,
    /// Its kind.
    kind: NamespaceKind,
    /// The path that leads there.
    path: PathBuf,
}

/// Whether init gets a session keyring of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keyring {
    /// It does, so that it possesses none of its caller's keys (session-keyring(7)).
    #[default]
    New,
    /// It keeps its caller's.
    Callers,
}

/// What init sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host name, for a UTS namespace of our own.
    pub hostname: Option<String>,
    /// Domain name, likewise.
    pub domainname: Option<String>,
    /// Kernel settings.
    pub sysctls: Vec<Sysctl>,
    /// Name of a new session keyring.
    pub keyring: Option<String>,
}

/// Refuses settings that would reach the host through a namespace that is joined by path.
///
/// # Errors
/// [`HostNamespace`]. A path that does not exist is an error of whoever joins it.
pub fn check(sysctls: &[Sysctl], namespaces: &Namespaces) -> Result<(), HostNamespace> {
    for Sysctl { name, kind, .. } in sysctls {
        if let Some(path) = namespaces.join.get(kind)
            && is_ours(*kind, path)
        {
            return Err(HostNamespace { name: name.clone(), kind: *kind, path: path.clone() });
        }
    }
    Ok(())
}

fn is_ours(kind: NamespaceKind, path: &Path) -> bool {
    let file = match kind {
        NamespaceKind::Network => "net",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Uts => "uts",
        NamespaceKind::Pid => "pid",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Time => "time",
        NamespaceKind::Mount => "mnt",
        NamespaceKind::User => "user",
    };
    let identity = |path: &Path| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let ours = identity(&Path::new("/proc/thread-self/ns").join(file));
    ours.is_some() && ours == identity(path)
}

impl Settings {
    /// Sets everything. The caller is in the container's namespaces and still sees the host's `/proc`, whose `sys` shows
    /// each process the settings of its own namespaces (proc_sys(5)).
    ///
    /// # Errors
    /// The step that the system refused.
    pub fn apply(&self, namespaces: &Namespaces) -> Result<(), Failure> {
        if let Some(name) = &self.keyring {
            new_keyring(name)?;
        }
        // A joined UTS namespace has its name already: that of the pod.
        if namespaces.new.contains(&NamespaceKind::Uts) {
            if let Some(name) = &self.hostname {
                rustix::system::sethostname(name.as_bytes())
                    .map_err(|errno| step(format!("cannot set the host name {name:?}"), errno))?;
            }
            if let Some(name) = &self.domainname {
                rustix::system::setdomainname(name.as_bytes())
                    .map_err(|errno| step(format!("cannot set the domain name {name:?}"), errno))?;
            }
        }
        self.sysctls.iter().try_for_each(set)
    }
}

fn set(sysctl: &Sysctl) -> Result<(), Failure> {
    let Sysctl { name, path, value, .. } = sysctl;
    let full = Path::new("/proc/sys").join(path);
    let write = || -> rustix::io::Result<()> {
        let file = rustix::fs::open(&full, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(file, value.as_bytes()).map(drop)
    };
    write().map_err(|errno| step(format!("cannot set linux.sysctl {name} to {value:?}"), errno))
}

/// Containers and their callers must not find each other's keys by possessing the same keyring.
fn new_keyring(name: &str) -> Result<(), Failure> {
    match sys::join_session_keyring(name) {
        // A kernel without keys has none to protect.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => {
            result.map_err(|error| Failure::step("cannot make a session keyring for the container", &error))
        }
    }
}

fn step(message: String, errno: rustix::io::Errno) -> Failure {
    Failure::step(message, &io::Error::from(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(path: &str) -> (Vec<Sysctl>, Namespaces) {
        let sysctl = Sysctl {
            name: "net.ipv4.ip_forward".to_owned(),
            path: "net/ipv4/ip_forward".into(),
            value: "1".to_owned(),
            kind: NamespaceKind::Network,
        };
        let join = [(NamespaceKind::Network, path.into())].into();
        (vec![sysctl], Namespaces { new: vec![NamespaceKind::Mount], join })
    }

    #[test]
    fn the_hosts_namespace_is_recognised_by_whatever_path_leads_there() {
        let (sysctls, namespaces) = settings("/proc/self/ns/net");
        let message = check(&sysctls, &namespaces).unwrap_err().to_string();
        assert_eq!(
            message,
            "linux.sysctl has net.ipv4.ip_forward, but /proc/self/ns/net is the host's own network namespace, so that it \
             would change the host; give another namespace, or remove it"
        );
        let (sysctls, namespaces) = settings("/run/netns/none");
        check(&sysctls, &namespaces).unwrap();
    }
}
