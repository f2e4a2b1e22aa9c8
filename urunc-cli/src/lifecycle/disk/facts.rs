//! What the choice of the guest's disk depends on: the image's wishes, the specification's mounts, the host. Looks,
//! decides nothing, and keeps nothing open: what is looked at may be unmounted next.

use std::path::{Path, PathBuf};

use urunc_rootfs::root::{Below, Binding, Later, Owner, Tmpfs};
use urunc_rootfs::select::{ContainerRootfs, Facts, MonitorSupport, MountRootfs, Selection, Support, Wish};
use urunc_rootfs::volumes::{Limits, Origin, Volume, VolumeSource};
use urunc_rootfs::{Access, Image, MountTable};
use urunc_vmm::{Arch, Monitor};

use super::{DiskError, support};
use crate::bundle::{Bundle, GuestConfig, ImagePath, Mount};
use crate::config::Config;
use crate::lifecycle::probe;

/// Where virtiofsd is installed, if the configuration does not say: Debian's and Fedora's place, and Arch's.
const VIRTIOFSD: [&str; 2] = ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"];

/// File systems that hold nothing of the host's or the container's: every guest kernel has its own.
const KERNELS_OWN: [&str; 14] = [
    "proc",
    "sysfs",
    "devpts",
    "devtmpfs",
    "mqueue",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "configfs",
    "bpf",
    "pstore",
    "hugetlbfs",
];

/// Looks at everything that the root file system depends on.
pub(super) fn gather(
    guest: &GuestConfig,
    image: &Image,
    config: &Config,
    arch: Arch,
    table: &MountTable,
) -> Result<Facts, DiskError> {
    let monitor = guest.monitor.capabilities(arch);
    Ok(Facts {
        wish: wish(guest),
        guest: support::of(guest.guest),
        monitor: MonitorSupport { virtiofs: supported(monitor.virtiofs), nine_p: supported(monitor.nine_p) },
        // Looked for only where it could be used.
        virtiofsd: guest.mount_rootfs.then(|| virtiofsd(config, guest.monitor)).flatten(),
        container: ContainerRootfs::probe(image, table)?,
    })
}

fn wish(guest: &GuestConfig) -> Wish {
    let path = |path: &Option<ImagePath>| path.as_ref().map(|path| PathBuf::from(path.as_str()));
    Wish {
        initrd: path(&guest.initrd),
        block: path(&guest.block),
        block_mount_point: path(&guest.block_mount_point),
        mount_rootfs: if guest.mount_rootfs { MountRootfs::Yes } else { MountRootfs::No },
    }
}

fn supported(yes: bool) -> Support {
    if yes { Support::Yes } else { Support::No }
}

/// The configured program, which must then exist, or one that is installed.
fn virtiofsd(config: &Config, monitor: Monitor) -> Option<PathBuf> {
    let configured = config.extra_binaries.get("virtiofsd").map(|binary| binary.path.clone());
    match configured.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) if path.is_file() => Some(path),
        Some(path) => {
            log::debug!("{}, configured for {monitor}, is no file", path.display());
            None
        }
        None => VIRTIOFSD
            .iter()
            .map(PathBuf::from)
            .find(|path| path.is_file())
            .or_else(|| probe::find_program("virtiofsd", &std::env::var_os("PATH").unwrap_or_default())),
    }
}

/// Looks at the specification's mounts. Relative sources are below the bundle, as for every runtime. The second list has
/// those that nobody here can make. Where everything is shared, nothing is copied, whatever its size.
pub(super) fn volumes(
    bundle: &Bundle,
    selection: &Selection,
    table: &MountTable,
) -> Result<(Vec<Volume>, Vec<DiskError>), DiskError> {
    let mut volumes = Vec::new();
    let mut strange = Vec::new();
    let shared = matches!(selection, Selection::Virtiofs { .. } | Selection::NineP);
    let limits = (!shared).then(Limits::default);
    for mount in &bundle.spec.mounts {
        let destination = mount.destination.clone();
        match origin(mount, &bundle.path, limits, table) {
            Ok(origin) => volumes.push(Volume { destination, origin, access: access(&mount.options) }),
            Err(error @ DiskError::MountKind { .. }) => strange.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok((volumes, strange))
}

fn origin(
    mount: &Mount,
    bundle: &Path,
    limits: Option<Limits>,
    table: &MountTable,
) -> Result<Origin, DiskError> {
    let destination = || mount.destination.clone();
    if mount.is_bind() {
        let source =
            mount.source.as_ref().ok_or_else(|| DiskError::NoSource { destination: destination() })?;
        let path = bundle.join(source);
        let binding = binding(&mount.options);
        let facts = VolumeSource::open(&path)?.facts(table, binding.below, limits)?;
        return Ok(Origin::Bind { path, facts, binding });
    }
    match mount.kind.as_deref() {
        Some("tmpfs") => Ok(Origin::Tmpfs(tmpfs(&mount.options))),
        Some(kind) if KERNELS_OWN.contains(&kind) => Ok(Origin::Kernel),
        other => Err(DiskError::MountKind {
            destination: destination(),
            kind: other.unwrap_or("no type").to_owned(),
        }),
    }
}

/// The options that say what an empty directory in memory is like; the kernel's default is one for everybody.
fn tmpfs(options: &[String]) -> Tmpfs {
    let value = |name: &str| options.iter().rev().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let id = |name: &str| value(name).and_then(|id| id.parse().ok()).unwrap_or(0);
    Tmpfs {
        size: value("size").map(str::to_owned),
        mode: value("mode").and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o1777) & 0o7777,
        owner: Owner { uid: id("uid"), gid: id("gid") },
    }
}

/// What the options say about mounts below a bind; the last word counts here, too.
fn binding(options: &[String]) -> Binding {
    let last = |words: &[&str]| options.iter().rev().find(|option| words.contains(&option.as_str()));
    let below = match last(&["bind", "rbind"]).map(String::as_str) {
        Some("bind") => Below::LeftOut,
        // An engine that says neither means what all of them say.
        _ => Below::Included,
    };
    let propagation =
        ["private", "rprivate", "unbindable", "runbindable", "slave", "rslave", "shared", "rshared"];
    let later = match last(&propagation).map(String::as_str) {
        Some("slave" | "rslave" | "shared" | "rshared") => Later::Followed,
        _ => Later::Ignored,
    };
    Binding { below, later }
}

/// The last word counts, as for `mount(8)`.
fn access(options: &[String]) -> Access {
    let last = options.iter().rev().find(|option| matches!(option.as_str(), "ro" | "rro" | "rw" | "rrw"));
    match last.map(String::as_str) {
        Some("ro" | "rro") => Access::ReadOnly,
        _ => Access::ReadWrite,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: Option<&str>, source: Option<&str>, options: &[&str]) -> Mount {
        Mount {
            destination: "/data".into(),
            kind: kind.map(str::to_owned),
            source: source.map(PathBuf::from),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    fn origin_of(mount: &Mount) -> Result<Origin, DiskError> {
        origin(mount, Path::new("/bundle"), None, &MountTable::default())
    }

    #[test]
    fn what_every_kernel_has_by_itself_is_nobodys_loss() {
        for kind in KERNELS_OWN {
            assert_eq!(origin_of(&mount(Some(kind), Some(kind), &[])).unwrap(), Origin::Kernel, "{kind}");
        }
    }

    #[test]
    fn a_tmpfs_is_as_its_options_say() {
        let like = |options: &[&str]| match origin_of(&mount(Some("tmpfs"), Some("tmpfs"), options)).unwrap()
        {
            Origin::Tmpfs(Tmpfs { size, mode, owner }) => (size, mode, owner.uid, owner.gid),
            other => panic!("{other:?}"),
        };
        assert_eq!(like(&["nosuid"]), (None, 0o1777, 0, 0));
        assert_eq!(
            like(&["size=1m", "mode=700", "uid=5", "gid=6", "size=64k"]),
            (Some("64k".to_owned()), 0o700, 5, 6)
        );
    }

    /// R18: what cannot reach the guest is named.
    #[test]
    fn a_mount_that_nobody_here_can_make_is_named() {
        for (kind, word) in [(Some("nfs"), "nfs"), (None, "no type")] {
            let message = origin_of(&mount(kind, Some("server:/"), &[])).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("/data"), "{message}");
        }
        assert!(origin_of(&mount(Some("bind"), None, &[])).is_err());
    }

    #[test]
    fn a_bind_takes_along_what_its_options_say() {
        use {Below::*, Later::*};
        for (options, below, later) in [
            (&[][..], Included, Ignored),
            (&["rbind", "ro"], Included, Ignored),
            (&["bind", "rprivate"], LeftOut, Ignored),
            (&["rbind", "ro", "rslave"], Included, Followed),
            (&["bind", "shared"], LeftOut, Followed),
            (&["bind", "rbind", "rslave", "rprivate"], Included, Ignored),
        ] {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(binding(&options), Binding { below, later }, "{options:?}");
        }
    }

    #[test]
    fn the_last_word_on_writing_counts() {
        for (options, expected) in [
            (&[][..], Access::ReadWrite),
            (&["rbind", "ro"], Access::ReadOnly),
            (&["ro", "rw"], Access::ReadWrite),
            (&["rro", "nosuid"], Access::ReadOnly),
        ] {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(access(&options), expected, "{options:?}");
        }
    }
}
