//! What a test may need of the machine.

use std::path::{Path, PathBuf};

use crate::containerd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To be root.
    Root,
    /// dockerd, its client and iptables.
    Docker,
    /// A Docker that takes the names of containerd's shims: 23 or newer.
    DockerWithShims,
    /// Podman and conmon.
    Podman,
    /// containerd and CNI's plugins.
    Cri,
    /// CNI's plugins and iptables.
    Cni,
    /// netavark and iptables.
    Netavark,
    /// A monitor and the built demo unikernel for it.
    Guest,
    /// QEMU and the built demo unikernel.
    Qemu,
    /// QEMU, and the kernel and modules of `scripts/stock-kernel`.
    Linux,
    /// solo5-spt and the demo unikernel with a network.
    Spt,
    /// runc, and a busybox without libraries.
    Runc,
}

impl Need {
    pub(crate) fn is_met(self) -> bool {
        match self {
            Self::Root => containerd::Need::Root.is_met(),
            Self::Docker => ["dockerd", "docker", "containerd", "iptables"].into_iter().all(is_installed),
            Self::DockerWithShims => Self::Docker.is_met() && docker_version().is_some_and(|it| it >= 23),
            Self::Podman => ["podman", "conmon"].into_iter().all(is_installed),
            Self::Cri => containerd::Need::Containerd.is_met() && Self::Cni.is_met(),
            Self::Cni => Path::new("/usr/lib/cni/bridge").exists() && is_installed("iptables"),
            Self::Netavark => Path::new("/usr/lib/podman/netavark").exists() && is_installed("iptables"),
            Self::Guest => containerd::Need::Guest.is_met(),
            Self::Qemu => containerd::Need::Qemu.is_met(),
            Self::Linux => crate::scene::Need::Linux.is_met(),
            Self::Spt => is_installed("solo5-spt") && crate::world::demo("demo-net-spt").exists(),
            Self::Runc => containerd::Need::Runc.is_met(),
        }
    }

    pub(crate) fn is_required(self) -> bool {
        let word = match self {
            Self::Root => "root",
            Self::Docker => "docker",
            Self::DockerWithShims => "docker-23",
            Self::Podman => "podman",
            Self::Cri | Self::Cni => "cni",
            Self::Netavark => "netavark",
            Self::Guest | Self::Qemu => "qemu",
            Self::Linux => "linux-guest",
            Self::Spt => "solo5-spt",
            Self::Runc => "runc",
        };
        std::env::var("URUNC_REQUIRE").is_ok_and(|required| required.split(',').any(|it| it == word))
    }
}

/// A program of `PATH`, or of where Debian has daemons.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn is_installed(name: &str) -> bool {
    program(name).is_some()
}

/// `containerd github.com/containerd/containerd 1.6.20~ds1 …`; of 2.x the path ends in `/v2`, and of Debian the version in `+ds1`.
pub(crate) fn containerd_major() -> Option<u32> {
    let output = std::process::Command::new(program("containerd")?).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(2)?.trim_start_matches('v').split('.').next()?.parse().ok()
}

/// `Docker version 20.10.24+dfsg1, build …`
fn docker_version() -> Option<u32> {
    let output = std::process::Command::new(program("dockerd")?).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.strip_prefix("Docker version ")?.split('.').next()?.parse().ok()
}
