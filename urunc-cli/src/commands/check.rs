//! `check`: looks at the host, the configuration and, if given, a bundle, and says in plain words what is missing and how
//! to get it. Changes nothing.

use std::fmt::Write;
use std::path::Path;

use urunc_vmm::{Arch, KvmAccess, KvmNeed, Monitor};

use super::delegate;
use crate::config::Config;
use crate::lifecycle::{self, LifecycleError, probe};
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
pub(super) fn look(config: &Config, bundle: Option<&Path>) -> Findings {
    let mut findings = Findings(Vec::new());
    host(&mut findings);
    for text in config.without_effect() {
        findings.add(Verdict::Limited, "configuration", format!("has no effect: {text}"));
    }
    monitors(&mut findings, config);
    delegated(&mut findings, config);
    if let Some(bundle) = bundle {
        inspect_bundle(&mut findings, config, bundle);
    }
    findings
}

fn host(findings: &mut Findings) {
    if rustix::process::geteuid().is_root() {
        findings.add(Verdict::Good, "user", "root");
    } else {
        findings.add(Verdict::Missing, "user", "not root; run urunc as root, for example with sudo");
    }
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
    if Path::new("/dev/net/tun").exists() {
        findings.add(Verdict::Good, "/dev/net/tun", "is there");
    } else {
        findings.add(
            Verdict::Limited,
            "/dev/net/tun",
            "is missing; guests have no network. Load the module tun",
        );
    }
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
    if found.is_file() {
        findings.add(Verdict::Good, "other containers", format!("go to {}", found.display()));
    } else {
        let text = format!(
            "{} is missing; pods need it for their pause container. Install runc, or set runtime.delegate",
            found.display()
        );
        findings.add(Verdict::Limited, "other containers", text);
    }
}

fn inspect_bundle(findings: &mut Findings, config: &Config, bundle: &Path) {
    match lifecycle::rehearse(bundle, config) {
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
