//! Makes the directories of a plan, writes its limits, and opens the way in for init.
//!
//! Every directory is marked with its owner before anything can be in it, so that the end of a container never touches
//! a group that is somebody else's.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, XattrFlags, openat};
use rustix::io::Errno;
use urunc_state::Pid;

use super::MARK;
use super::plan::{CgroupPlan, Directory, Write};
use crate::procfs;

/// Why a control group could not be made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// A directory cannot be made.
    #[error("cannot make the cgroup {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The group is in use.
    #[error(
        "cannot use the cgroup {path}: there are processes in it already; give each container its own linux.cgroupsPath"
    )]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The owner cannot be noted.
    #[error("cannot mark the cgroup {path} as this container's")]
    Mark {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A controller is not to be had below some group.
    #[error(
        "cannot limit {controller} in the cgroup {path}: the cgroup above does not pass the controller on; it must have \
         it, and no processes of its own"
    )]
    Controller {
        /// The controller.
        controller: &'static str,
        /// The container's group.
        path: PathBuf,
    },
    /// A limit was refused.
    #[error("cannot apply {field}: the kernel refuses {value:?} for {file}")]
    Limit {
        /// The specification's field.
        field: &'static str,
        /// What was written.
        value: String,
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The group cannot be entered.
    #[error("cannot open the cgroup {path} for the container's process")]
    Enter {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The way into the groups, for the process that is about to be cloned.
#[derive(Debug, Default)]
pub struct Entrance {
    /// The v2 group, to be cloned into.
    unified: Option<OwnedFd>,
    /// The v1 groups' `tasks`, to be written to by the process itself while it has one thread: that takes 0.2 ms, while
    /// `cgroup.procs` written from outside waits for a grace period of some 10 ms.
    tasks: Vec<OwnedFd>,
}

impl Entrance {
    /// The directory of the v2 group.
    #[must_use]
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process, which must have one thread, into the v1 groups.
    ///
    /// # Errors
    /// What `write(2)` says.
    pub fn enter(&self) -> io::Result<()> {
        for tasks in &self.tasks {
            rustix::io::write(tasks, b"0")?;
        }
        Ok(())
    }
}

fn refuse_busy(path: &Path, expected: Option<Pid>) -> Result<(), MakeError> {
    let expected = expected.map(|pid| pid.to_string());
    let busy = |path: &Path| {
        let members = procfs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        members.lines().any(|member| Some(member) != expected.as_deref())
    };
    let children = fs::read_dir(path).into_iter().flatten().flatten();
    let child_is_busy = children
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .any(|entry| busy(&entry.path()));
    if busy(path) || child_is_busy { Err(MakeError::Busy { path: path.to_owned() }) } else { Ok(()) }
}

/// Makes everything that `plan` lists, marked with `mark`. The process `expected` may be in it already.
///
/// # Errors
/// [`MakeError`]; what has been made is then left to [`super::release`].
pub fn make(plan: &CgroupPlan, mark: &str, expected: Option<Pid>) -> Result<Entrance, MakeError> {
    let mut entrance = Entrance::default();
    for (directory, writes) in &plan.directories {
        let path = &directory.path;
        if directory.v1.is_none() {
            pass_on(directory, &plan.controllers);
        }
        make_directory(directory, expected)?;
        rustix::fs::setxattr(path, MARK, mark.as_bytes(), XattrFlags::empty())
            .map_err(|errno| MakeError::Mark { path: path.clone(), source: errno.into() })?;
        if directory.v1.is_none() {
            check_controllers(path, &plan.controllers)?;
            super::devices::attach(path, &plan.devices)?;
        }
        write_all(path, writes)?;
        if let (Some(expected), Some(_)) = (expected, &directory.v1) {
            // Whatever keeps this group for its one member keeps all of them.
            write_file(&path.join("cgroup.procs"), expected.to_string().as_bytes())
                .map_err(|source| MakeError::Enter { path: path.clone(), source })?;
        }
        let open = |name: &str, flags| {
            openat(CWD, path.join(name), flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| MakeError::Enter { path: path.clone(), source: errno.into() })
        };
        match directory.v1 {
            None => entrance.unified = Some(open("", OFlags::RDONLY | OFlags::DIRECTORY)?),
            Some(_) => entrance.tasks.push(open("tasks", OFlags::WRONLY)?),
        }
    }
    Ok(entrance)
}

/// What the files that a plan writes said before, those with a line for each device excepted.
#[derive(Debug)]
pub struct Before(Vec<(PathBuf, Vec<u8>)>);

impl Before {
    /// Writes it again.
    pub fn write_back(&self) {
        // The reverse order, because some limits depend on others.
        for (file, old) in self.0.iter().rev() {
            if let Err(error) = write_file(file, old.trim_ascii()) {
                log::debug!("cannot take the limit in {} back: {error}", file.display());
            }
        }
    }
}

/// Looks at what [`update`] will change.
#[must_use]
pub fn before(plan: &CgroupPlan) -> Before {
    let mut before = Vec::new();
    for (directory, writes) in &plan.directories {
        for file in writes.iter().flat_map(|write| &write.options).map(|(file, _)| directory.path.join(file))
        {
            // A file with a line for each device does not take them all at once.
            if let Some(old) = fs::read(&file).ok().filter(|old| !old.trim_ascii().contains(&b'\n')) {
                before.push((file, old));
            }
        }
    }
    Before(before)
}

/// Writes the limits of `plan` into groups that exist.
///
/// # Errors
/// [`MakeError::Limit`]; limits before the refused one have been written, and are taken back by [`Before::write_back`].
pub fn update(plan: &CgroupPlan) -> Result<(), MakeError> {
    plan.directories.iter().try_for_each(|(directory, writes)| {
        if directory.v1.is_none() {
            pass_on(directory, &plan.controllers);
            check_controllers(&directory.path, &plan.controllers)?;
        }
        write_all(&directory.path, writes)
    })
}

/// Makes the directory and those above it. One that exists and is empty is taken, as runc does.
fn make_directory(directory: &Directory, expected: Option<Pid>) -> Result<(), MakeError> {
    let mut missing: Vec<&Path> =
        directory.path.ancestors().take_while(|path| *path != directory.mount && !path.exists()).collect();
    if missing.is_empty() {
        return refuse_busy(&directory.path, expected);
    }
    missing.reverse();
    for path in missing {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path != directory.path => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_busy(path, expected)?,
            result => result.map_err(|source| MakeError::Directory { path: path.to_owned(), source })?,
        }
        if directory.has("cpuset") {
            inherit_cpuset(path)?;
        }
    }
    Ok(())
}

/// A new v1 cpuset has no processors and no memory, and nothing can enter it until it has.
fn inherit_cpuset(path: &Path) -> Result<(), MakeError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let inherit = || -> io::Result<()> {
            if procfs::read(path.join(file))?.trim_ascii().is_empty() {
                let above = procfs::read(path.parent().unwrap_or(path).join(file))?;
                write_file(&path.join(file), &above)?;
            }
            Ok(())
        };
        inherit().map_err(|source| MakeError::Directory { path: path.join(file), source })?;
    }
    Ok(())
}

/// Asks every group above to pass the v2 `controllers` on, and those by which usage is measured. That a needed one does
/// not arrive is found out below.
fn pass_on(directory: &Directory, controllers: &[&str]) {
    const MEASURED: [&str; 4] = ["memory", "cpu", "pids", "io"];
    let above: Vec<&Path> =
        directory.path.ancestors().skip(1).take_while(|path| path.starts_with(&directory.mount)).collect();
    for path in above.into_iter().rev() {
        if !path.exists() && fs::create_dir(path).is_err() {
            return;
        }
        let words = |file: &str| -> Vec<String> {
            let text = procfs::read_to_string(path.join(file)).unwrap_or_default();
            text.split_ascii_whitespace().map(str::to_owned).collect()
        };
        let available = words("cgroup.controllers");
        let has = |list: &[String], controller: &str| list.iter().any(|name| name == controller);
        let wanted: Vec<&str> =
            controllers.iter().chain(&MEASURED).copied().filter(|name| has(&available, name)).collect();
        if wanted.is_empty() {
            continue;
        }
        let passed = words("cgroup.subtree_control");
        for controller in wanted {
            if !has(&passed, controller) {
                let _ = write_file(&path.join("cgroup.subtree_control"), format!("+{controller}").as_bytes());
            }
        }
    }
}

fn check_controllers(path: &Path, controllers: &[&'static str]) -> Result<(), MakeError> {
    if controllers.is_empty() {
        return Ok(());
    }
    let text = procfs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    let missing = controllers.iter().find(|name| !text.split_ascii_whitespace().any(|has| has == **name));
    match missing {
        None => Ok(()),
        Some(controller) => Err(MakeError::Controller { controller, path: path.to_owned() }),
    }
}

/// Some limits are refused until another one, which comes later, has been written (memory below memory and swap, quota
/// below period): those are tried once more at the end.
fn write_all(directory: &Path, writes: &[Write]) -> Result<(), MakeError> {
    let mut again = Vec::new();
    for write in writes {
        match write_one(directory, write) {
            Err(MakeError::Limit { source, .. })
                if source.raw_os_error() == Some(Errno::INVAL.raw_os_error()) =>
            {
                again.push(write);
            }
            result => result?,
        }
    }
    again.into_iter().try_for_each(|write| write_one(directory, write))
}

fn write_one(directory: &Path, write: &Write) -> Result<(), MakeError> {
    let exists = |(file, _): &&(String, String)| directory.join(file).exists();
    // Without any of them, the first is named in the error.
    let Some((file, value)) = write.options.iter().find(exists).or(write.options.first()) else {
        return Ok(());
    };
    let file = directory.join(file);
    if matches!(value.as_str(), "max" | "-1") && !file.exists() {
        // Without swap accounting, say, there is no limit anyway.
        return Ok(());
    }
    write_file(&file, value.as_bytes()).map_err(|source| MakeError::Limit {
        field: write.field,
        value: value.clone(),
        file,
        source,
    })
}

/// One `write(2)` into an existing file: the kernel takes each call as one value.
pub(super) fn write_file(path: &Path, value: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value)
}
