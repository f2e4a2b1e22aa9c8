//! A container's rootfs: mounted from what the snapshotter asks for, and unmounted with everything on it.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use containerd_shim_protos::types::mount::Mount;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};

use super::children::Children;
use super::{ShimError, runtime};

/// How long mount(8) may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mount that is undone when dropped, unless it is to stay.
#[derive(Debug)]
pub struct Mounted {
    target: Option<PathBuf>,
}

impl Mounted {
    /// Mounts `mounts` over each other at `target`.
    ///
    /// # Errors
    /// [`ShimError::Unsupported`], [`ShimError::Path`]; what had been mounted is unmounted again.
    pub fn new(children: &Children, mounts: &[Mount], target: &Path) -> Result<Self, ShimError> {
        let mut mounted = Self { target: None };
        for one in mounts {
            if let Some(what) = unsupported(one) {
                return Err(ShimError::Unsupported(what));
            }
            fs::create_dir_all(target).map_err(ShimError::path("make the directory", target))?;
            mount_one(children, one, target)?;
            mounted.target = Some(target.to_owned());
        }
        Ok(mounted)
    }

    /// From now on it is somebody else's to unmount.
    pub fn keep(mut self) {
        self.target = None;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(target) = &self.target
            && let Err(error) = unmount_all(target)
        {
            log::error!("{}", crate::report::chain(&error));
        }
    }
}

/// Unmounts everything that is mounted at `target`, however often, and all below it. Nothing there is success.
///
/// # Errors
/// [`ShimError::Path`]
pub fn unmount_all(target: &Path) -> Result<(), ShimError> {
    loop {
        let result = match unmount(target, UnmountFlags::NOFOLLOW) {
            // Something is mounted below, or somebody still has a file open.
            Err(Errno::BUSY) => unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            result => result,
        };
        match result {
            Ok(()) => {}
            // Not, or no longer, a mount point.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(ShimError::path("unmount", target)(errno.into())),
        }
    }
}

/// What containerd may ask for and this shim does not do. The kernel would not say what is wrong, or mount something else.
fn unsupported(one: &Mount) -> Option<&'static str> {
    let maps = |option: &String| option.starts_with("uidmap=") || option.starts_with("gidmap=");
    if !one.target.is_empty() {
        Some("a mount at a place within the rootfs (target)")
    } else if one.options.iter().any(maps) {
        Some("a rootfs with other owners (uidmap, gidmap)")
    } else {
        None
    }
}

fn mount_one(children: &Children, one: &Mount, target: &Path) -> Result<(), ShimError> {
    let options = Options::parse(&one.options);
    if options.needs_mount_program() {
        return by_program(children, one, target);
    }
    by_kernel(one, &options, target).map_err(ShimError::path("mount the rootfs at", target))
}

fn by_kernel(one: &Mount, options: &Options, target: &Path) -> io::Result<()> {
    let data = CString::new(options.data.as_str()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    mount(&one.source, target, &one.type_, options.flags, &*data)?;
    if options.flags.contains(MountFlags::BIND) && options.flags.contains(MountFlags::RDONLY) {
        // A bind mount takes other flags only afterwards.
        mount_remount(target, options.flags, c"")?;
    }
    if !options.propagation.is_empty() {
        mount_change(target, options.propagation)?;
    }
    Ok(())
}

/// Mounts with `mount(8)`, which knows loop devices, and from a directory in which the layers of an overlay have short names.
fn by_program(children: &Children, one: &Mount, target: &Path) -> Result<(), ShimError> {
    let mut command = Command::new("mount");
    if !one.type_.is_empty() && one.type_ != "bind" {
        command.arg("-t").arg(&one.type_);
    }
    let mut options = one.options.iter().filter(|option| !is_private(option)).cloned().collect::<Vec<_>>();
    if let Some(directory) = shorten(&mut options) {
        command.current_dir(directory);
    }
    command.arg("-o").arg(options.join(",")).arg("--").arg(&one.source).arg::<&OsStr>(target.as_ref());
    let failed = |source| ShimError::path("mount the rootfs at", target)(source);
    let mut said = runtime::scratch()?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(runtime::clone(&said)?);
    let _busy = children.busy();
    let child = command.spawn().map_err(failed)?;
    match runtime::wait_at_most(child, PATIENCE).map_err(failed)? {
        Some(status) if status.success() => Ok(()),
        Some(_) => {
            let said = runtime::read_all(&mut said);
            Err(failed(io::Error::other(String::from_utf8_lossy(&said).trim().to_owned())))
        }
        None => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// Makes the layers of an overlay relative to the directory that they have in common, which is returned.
fn shorten(options: &mut [String]) -> Option<PathBuf> {
    let lower = options.iter_mut().find(|option| option.starts_with("lowerdir="))?;
    let layers: Vec<&Path> = lower.strip_prefix("lowerdir=")?.split(':').map(Path::new).collect();
    let common = layers.first()?.ancestors().skip(1).find(|directory| {
        directory.is_absolute()
            && layers.iter().all(|layer| layer.starts_with(directory) && layer != directory)
    })?;
    let short =
        layers.iter().map(|layer| layer.strip_prefix(common).ok()?.to_str()).collect::<Option<Vec<_>>>()?;
    let (short, common) = (format!("lowerdir={}", short.join(":")), common.to_owned());
    *lower = short;
    Some(common)
}

/// Options for containerd itself, which the kernel would refuse.
fn is_private(option: &str) -> bool {
    option.starts_with("X-containerd.") || option.starts_with("x-containerd.")
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MountFlags,
    propagation: MountPropagationFlags,
    data: String,
    has_loop: bool,
}

impl Options {
    /// Sorts the words of mount(8) into what mount(2) takes as flags and what it passes to the file system.
    fn parse(words: &[String]) -> Self {
        let mut options = Self {
            flags: MountFlags::empty(),
            propagation: MountPropagationFlags::empty(),
            data: String::new(),
            has_loop: false,
        };
        for word in words.iter().filter(|word| !is_private(word)) {
            let (set, clear) = match word.as_str() {
                "defaults" | "rw" | "async" | "dev" | "exec" | "suid" | "atime" | "diratime"
                | "norelatime" => (MountFlags::empty(), cleared(word)),
                "ro" => (MountFlags::RDONLY, MountFlags::empty()),
                "nodev" => (MountFlags::NODEV, MountFlags::empty()),
                "noexec" => (MountFlags::NOEXEC, MountFlags::empty()),
                "nosuid" => (MountFlags::NOSUID, MountFlags::empty()),
                "noatime" => (MountFlags::NOATIME, MountFlags::empty()),
                "nodiratime" => (MountFlags::NODIRATIME, MountFlags::empty()),
                "relatime" => (MountFlags::RELATIME, MountFlags::empty()),
                "strictatime" => (MountFlags::STRICTATIME, MountFlags::empty()),
                "sync" => (MountFlags::SYNCHRONOUS, MountFlags::empty()),
                "dirsync" => (MountFlags::DIRSYNC, MountFlags::empty()),
                "bind" => (MountFlags::BIND, MountFlags::empty()),
                "rbind" => (MountFlags::BIND | MountFlags::REC, MountFlags::empty()),
                other => {
                    options.other(other);
                    continue;
                }
            };
            options.flags = (options.flags | set) - clear;
        }
        options
    }

    fn other(&mut self, word: &str) {
        let recursive = MountPropagationFlags::REC;
        self.propagation |= match word {
            "private" => MountPropagationFlags::PRIVATE,
            "rprivate" => MountPropagationFlags::PRIVATE | recursive,
            "slave" => MountPropagationFlags::DOWNSTREAM,
            "rslave" => MountPropagationFlags::DOWNSTREAM | recursive,
            "shared" => MountPropagationFlags::SHARED,
            "rshared" => MountPropagationFlags::SHARED | recursive,
            "unbindable" => MountPropagationFlags::UNBINDABLE,
            "loop" => {
                self.has_loop = true;
                return;
            }
            data => {
                if !self.data.is_empty() {
                    self.data.push(',');
                }
                self.data.push_str(data);
                return;
            }
        };
    }

    /// mount(2) cuts its data off at one page, silently.
    fn needs_mount_program(&self) -> bool {
        const PAGE: usize = 4096;
        self.has_loop || self.data.len() >= PAGE
    }
}

fn cleared(word: &str) -> MountFlags {
    match word {
        "rw" => MountFlags::RDONLY,
        "dev" => MountFlags::NODEV,
        "exec" => MountFlags::NOEXEC,
        "suid" => MountFlags::NOSUID,
        "atime" => MountFlags::NOATIME,
        "diratime" => MountFlags::NODIRATIME,
        "norelatime" => MountFlags::RELATIME,
        "async" => MountFlags::SYNCHRONOUS,
        _ => MountFlags::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_become_flags_or_data() {
        let overlay = parse("workdir=/w upperdir=/u lowerdir=/a:/b index=off");
        assert_eq!(overlay.data, "workdir=/w,upperdir=/u,lowerdir=/a:/b,index=off");
        assert!(overlay.flags.is_empty());
        let bind = parse("rbind ro rprivate");
        assert_eq!(bind.flags, MountFlags::BIND | MountFlags::REC | MountFlags::RDONLY);
        assert_eq!(bind.propagation, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
        assert_eq!(parse("ro rw").flags, MountFlags::empty());
        assert!(parse("loop").needs_mount_program());
        assert_eq!(parse("X-containerd.mkdir.path=/x ro").data, "");
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mount = |target: &str, options: &str| Mount {
            type_: "bind".into(),
            source: "/".into(),
            target: target.into(),
            options: vec!["rbind".into(), options.into()],
            ..Mount::default()
        };
        for (one, reason) in [
            (mount("below", "ro"), "target"),
            (mount("", "uidmap=0:1000:1"), "uidmap"),
            (mount("", "gidmap=0:1000:1"), "gidmap"),
        ] {
            let error = Mounted::new(&Children::default(), &[one], dir.path()).unwrap_err();
            assert!(matches!(error, ShimError::Unsupported(what) if what.contains(reason)), "{error}");
        }
    }

    #[test]
    fn layers_are_named_from_where_they_are() {
        let mut options =
            vec!["upperdir=/s/9/fs".to_owned(), "lowerdir=/s/snap/8/fs:/s/snap/7/fs".to_owned()];
        assert_eq!(shorten(&mut options), Some("/s/snap".into()));
        assert_eq!(options, ["upperdir=/s/9/fs", "lowerdir=8/fs:7/fs"]);
        assert_eq!(shorten(&mut ["upperdir=/u".to_owned()]), None);
    }

    #[test]
    fn options_longer_than_a_page_are_not_cut_off() {
        let long = format!("lowerdir={}", "/a:".repeat(2000));
        assert!(Options::parse(&[long]).needs_mount_program());
    }
}
