//! `check`: looks at the host, the configuration and, if given, a bundle, and says in plain words what is missing and how
//! to get it. Changes nothing.

use std::fmt::Write;
use std::path::Path;

use caps::{CapSet, Capability};
use rustix::fs::{Mode, OFlags};
use urunc_vmm::{Arch, KvmAccess, KvmNeed, Monitor};

use super::delegate;
use crate::cgroup::{Layout, LayoutError};
use crate::config::Config;
use crate::lifecycle::{self, CgroupDriver, LifecycleError, probe};
use crate::report;

/// How one finding looks to somebody who wants to run unikernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Good,
    /// Something does not work, but other things do.
    Limited,
    /// Nothing works without it.
    Missing,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        }
    }
}

/// What was looked at and what was seen.
#[derive(Debug)]
pub(super) struct Findings(Vec<(Verdict, String, String)>);

impl Findings {
    fn add(&mut self, verdict: Verdict, what: impl Into<String>, text: impl Into<String>) {
        self.0.push((verdict, what.into(), text.into()));
    }

    /// Whether nothing is missing altogether.
    pub(super) fn usable(&self) -> bool {
        self.0.iter().all(|(verdict, ..)| *verdict != Verdict::Missing)
    }

    /// One line a finding.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (verdict, what, seen) in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<8} {what:<18} {seen}", verdict.word());
        }
        text
    }
}

/// Looks at everything.
pub(super) fn look(config: &Config, bundle: Option<&Path>, driver: CgroupDriver) -> Findings {
    let mut findings = Findings(Vec::new());
    host(&mut findings, config);
    for text in config.without_effect() {
        findings.add(Verdict::Limited, "configuration", format!("has no effect: {text}"));
    }
    monitors(&mut findings, config);
    delegated(&mut findings, config);
    if let Some(bundle) = bundle {
        inspect_bundle(&mut findings, config, bundle, driver);
    }
    findings
}

fn host(findings: &mut Findings, config: &Config) {
    user(findings);
    kernel(findings, rustix::system::uname().release().to_string_lossy().as_ref());
    match probe::kvm() {
        KvmAccess::Native => findings.add(Verdict::Good, "/dev/kvm", "can be used"),
        KvmAccess::Nested => findings.add(
            Verdict::Good,
            "/dev/kvm",
            "can be used, but this host is a virtual machine itself; guests may be slow or not boot \
             (runtime.kvm = \"off\" makes QEMU emulate)",
        ),
        KvmAccess::Unusable { reason } => findings.add(
            Verdict::Limited,
            "/dev/kvm",
            format!("{reason}; QEMU emulates without it, hvt, Firecracker and Cloud Hypervisor do not run. Load kvm_intel or \
                     kvm_amd, or enable nested virtualisation"),
        ),
    }
    // Without a request it makes no device.
    match rustix::fs::open(TUN, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => findings.add(Verdict::Good, TUN, "can be used"),
        Err(errno) => findings.add(
            Verdict::Limited,
            TUN,
            format!("cannot be opened ({errno}); guests have no network. Load the module tun, or let the device in"),
        ),
    }
    cgroups(findings, &Layout::probe());
    let virtiofsd = config.extra_binaries.get("virtiofsd").map(|binary| binary.path.as_path());
    if let Some(path) = virtiofsd.filter(|path| !path.as_os_str().is_empty() && !is_program(path)) {
        let text = format!(
            "{} (extra_binaries.virtiofsd.path) is no program that can be executed; no guest shares its root file system by \
             virtiofs. Install it there, or correct the configuration",
            path.display()
        );
        findings.add(Verdict::Limited, "virtiofsd", text);
    }
}

const TUN: &str = "/dev/net/tun";

/// What urunc does itself before the monitor has no rights any more.
const CAPABILITIES: [Capability; 8] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_CHOWN,
    Capability::CAP_MKNOD,
    Capability::CAP_SYS_CHROOT,
];

fn user(findings: &mut Findings) {
    if !rustix::process::geteuid().is_root() {
        findings.add(Verdict::Missing, "user", "not root; run urunc as root, for example with sudo");
        return;
    }
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    let lacking: Vec<String> =
        CAPABILITIES.iter().filter(|it| !held.contains(it)).map(ToString::to_string).collect();
    if lacking.is_empty() {
        findings.add(Verdict::Good, "user", "root");
    } else {
        let text = format!(
            "root without {}; run urunc on the host itself, or in a container with these capabilities (--privileged)",
            lacking.join(", ")
        );
        findings.add(Verdict::Missing, "user", text);
    }
}

/// `release` as uname(2) has it.
fn kernel(findings: &mut Findings, release: &str) {
    const OLDEST: (u32, u32) = (5, 10);
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => {
            let text = format!("Linux {release} is too old; urunc needs 5.10 or newer");
            findings.add(Verdict::Missing, "kernel", text);
        }
        _ => findings.add(Verdict::Good, "kernel", format!("Linux {release}")),
    }
}

fn cgroups(findings: &mut Findings, layout: &Result<Layout, LayoutError>) {
    const USUAL: [&str; 3] = ["memory", "cpu", "pids"];
    let what = "cgroups";
    let layout = match layout {
        Ok(layout) if layout.hierarchies.is_empty() => {
            let text = "no hierarchy is mounted; containers with limits are refused, and none can be paused. Mount one: mount -t cgroup2 \
                        none /sys/fs/cgroup";
            return findings.add(Verdict::Limited, what, text);
        }
        Ok(layout) => layout,
        Err(error) => return findings.add(Verdict::Limited, what, report::chain(error)),
    };
    let missing: Vec<&str> = USUAL.into_iter().filter(|name| layout.with(name).is_none()).collect();
    let version = if layout.is_unified() { "version 2" } else { "version 1" };
    if missing.is_empty() {
        findings.add(Verdict::Good, what, version);
    } else {
        let text = format!(
            "{version}, without the controllers {}; containers with such limits are refused. Mount them (v1), or enable them in \
             cgroup.subtree_control of the groups above (v2)",
            missing.join(", ")
        );
        findings.add(Verdict::Limited, what, text);
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn monitors(findings: &mut Findings, config: &Config) {
    let Ok(arch) = std::env::consts::ARCH.parse::<Arch>() else {
        let text = format!("{} has no monitors; x86_64 and aarch64 have", std::env::consts::ARCH);
        findings.add(Verdict::Missing, "architecture", text);
        return;
    };
    let mut usable = 0;
    for monitor in Monitor::ALL {
        let settings = config.monitor(monitor);
        let needs_kvm = monitor.capabilities(arch).kvm == KvmNeed::Required;
        let kvm = if needs_kvm { " (needs /dev/kvm)" } else { "" };
        match lifecycle::find_monitor(monitor, arch, &settings) {
            Ok(program) => {
                usable += 1;
                findings.add(Verdict::Good, monitor.name(), format!("{}{kvm}", program.display()));
            }
            Err(error) => findings.add(Verdict::Limited, monitor.name(), report::chain(&error)),
        }
    }
    if usable == 0 {
        findings.add(
            Verdict::Missing,
            "monitors",
            "none is installed; qemu-system-x86 is in most distributions",
        );
    }
}

fn delegated(findings: &mut Findings, config: &Config) {
    let found = delegate::resolve(&config.runtime.delegate);
    if is_program(&found) {
        findings.add(Verdict::Good, "other containers", format!("go to {}", found.display()));
    } else {
        let text = format!(
            "{} is no program that can be executed; pods need it for their pause container. Install runc, or set \
             runtime.delegate",
            found.display()
        );
        findings.add(Verdict::Limited, "other containers", text);
    }
}

fn inspect_bundle(findings: &mut Findings, config: &Config, bundle: &Path, driver: CgroupDriver) {
    match lifecycle::rehearse(bundle, driver, config) {
        Ok(rehearsal) => {
            let text =
                format!("a {} guest for {}: {}", rehearsal.guest, rehearsal.monitor, rehearsal.command);
            findings.add(Verdict::Good, "bundle", text);
            for line in rehearsal.rootfs {
                findings.add(Verdict::Good, "guest's rootfs", line);
            }
            for warning in rehearsal.warnings {
                findings.add(Verdict::Limited, "bundle", warning);
            }
        }
        Err(error @ LifecycleError::NotUnikernel { .. }) => {
            findings.add(Verdict::Limited, "bundle", report::chain(&error));
        }
        Err(error) => findings.add(Verdict::Missing, "bundle", report::chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_lacks_is_said() {
        let mut findings = Findings(Vec::new());
        kernel(&mut findings, "6.1.0-18-amd64");
        kernel(&mut findings, "5.10.0");
        assert!(findings.usable());
        kernel(&mut findings, "5.4.0-150-generic");
        cgroups(&mut findings, &Ok(Layout::default()));
        let text = findings.render();
        assert!(
            !findings.usable()
                && text.contains("missing  kernel             Linux 5.4.0-150-generic is too old"),
            "{text}"
        );
        assert!(text.contains("limited  cgroups            no hierarchy is mounted"), "{text}");
        assert!(is_program(Path::new("/bin/sh")) && !is_program(Path::new("/etc/passwd")));
    }

    #[test]
    fn findings_are_one_line_each_and_tell_whether_anything_can_run() {
        let mut findings = Findings(Vec::new());
        findings.add(Verdict::Good, "user", "root");
        findings.add(Verdict::Limited, "hvt", "x");
        assert!(findings.usable());
        assert_eq!(findings.render(), "ok       user               root\nlimited  hvt                x\n");
        findings.add(Verdict::Missing, "monitors", "none");
        assert!(!findings.usable());
    }
}
