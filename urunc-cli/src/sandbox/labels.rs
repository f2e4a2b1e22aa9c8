//! Security modules: init tells the kernel which policy holds from its next `execve` on.
//!
//! A label that nobody would enforce is refused at create, as runc does: whoever asks for confinement must not get less
//! without being told.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::protocol::Failure;
use crate::bundle::Labels;

/// A specification asks for what this host does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabelHostError {
    /// No AppArmor.
    #[error(
        "process.apparmorProfile is {0:?}, but AppArmor is not enabled on this host; enable it, or remove the profile"
    )]
    NoAppArmor(String),
    /// No SELinux.
    #[error("{field} is {label:?}, but SELinux is not enabled on this host; enable it, or remove the label")]
    NoSelinux {
        /// The field.
        field: &'static str,
        /// Its value.
        label: String,
    },
}

/// Which security modules the host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// AppArmor is enabled.
    pub apparmor: bool,
    /// SELinux is enabled.
    pub selinux: bool,
}

impl Modules {
    /// Looks.
    #[must_use]
    pub fn of_host() -> Self {
        let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            apparmor: apparmor.is_ok_and(|text| text.starts_with('Y')),
            // Mounted only where a policy can be enforced (selinux(8)).
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }

    /// Whether these can enforce `labels`.
    ///
    /// # Errors
    /// [`LabelHostError`]
    pub fn check(self, labels: &Labels) -> Result<(), LabelHostError> {
        if let Some(profile) = labels.apparmor.as_ref().filter(|_| !self.apparmor) {
            return Err(LabelHostError::NoAppArmor(profile.clone()));
        }
        let selinux = [("process.selinuxLabel", &labels.selinux), ("linux.mountLabel", &labels.mount)];
        match selinux.into_iter().find_map(|(field, label)| Some((field, label.as_ref()?))) {
            Some((field, label)) if !self.selinux => {
                Err(LabelHostError::NoSelinux { field, label: label.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// A file of the kernel, and what is to be written into it right before `execve`.
#[derive(Debug)]
pub struct ExecLabel {
    file: OwnedFd,
    text: String,
    what: &'static str,
}

/// Opens what will be written to. Done by init itself, whose attributes they are, while it still has a `/proc`.
///
/// # Errors
/// The file that cannot be opened.
pub fn open(labels: &Labels) -> Result<Vec<ExecLabel>, Failure> {
    let wanted = [
        (&labels.apparmor, "the AppArmor profile", &["apparmor/exec", "exec"][..], "exec "),
        (&labels.selinux, "the SELinux label", &["exec"][..], ""),
    ];
    let mut opened = Vec::new();
    for (label, what, files, verb) in wanted {
        let Some(label) = label else { continue };
        // Older kernels have one file for whichever module there is (proc_pid_attr(5)).
        let mut result = Err(rustix::io::Errno::NOENT);
        for name in files {
            let path = Path::new("/proc/thread-self/attr").join(name);
            result = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            if !matches!(result, Err(rustix::io::Errno::NOENT)) {
                break;
            }
        }
        let file = result
            .map_err(|errno| Failure::step(format!("cannot prepare {what} {label:?}"), &errno.into()))?;
        opened.push(ExecLabel { file, text: format!("{verb}{label}"), what });
    }
    Ok(opened)
}

impl ExecLabel {
    /// The same under a number of at least `floor`.
    ///
    /// # Errors
    /// What `fcntl(2)` says.
    pub fn moved_above(self, floor: RawFd) -> Result<Self, Failure> {
        let file = rustix::io::fcntl_dupfd_cloexec(&self.file, floor)
            .map_err(|errno| Failure::step("cannot keep a file of the kernel open", &errno.into()))?;
        Ok(Self { file, ..self })
    }

    /// Makes it hold from the next `execve` on.
    ///
    /// # Errors
    /// What the module says: usually that it does not know the profile.
    pub fn apply(&self) -> Result<(), Failure> {
        let Self { file, text, what } = self;
        rustix::io::write(file, text.as_bytes()).map(drop).map_err(|errno| {
            let remedy = "is it loaded on this host?";
            Failure::step(format!("cannot apply {what} by {text:?}; {remedy}"), &io::Error::from(errno))
        })
    }
}

impl AsFd for ExecLabel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for ExecLabel {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn what_nobody_would_enforce_is_refused() {
        let none = Modules::default();
        let all = Modules { apparmor: true, selinux: true };
        let apparmor = Labels { apparmor: text("docker-default"), ..Labels::default() };
        let selinux = Labels { selinux: text("u:r:t:s0"), ..Labels::default() };
        let mount = Labels { mount: text("u:r:t:s0"), ..Labels::default() };
        for (labels, says) in [
            (
                &apparmor,
                "process.apparmorProfile is \"docker-default\", but AppArmor is not enabled on this host",
            ),
            (&selinux, "process.selinuxLabel is \"u:r:t:s0\", but SELinux is not enabled on this host"),
            (&mount, "linux.mountLabel is \"u:r:t:s0\", but SELinux is not enabled on this host"),
        ] {
            assert!(none.check(labels).unwrap_err().to_string().starts_with(says));
            assert_eq!(all.check(labels), Ok(()));
        }
        assert_eq!(none.check(&Labels::default()), Ok(()));
    }

    #[test]
    fn nothing_is_opened_for_nothing() {
        assert!(open(&Labels::default()).unwrap().is_empty());
    }
}
