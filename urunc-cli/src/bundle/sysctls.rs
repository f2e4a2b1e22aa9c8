//! `linux.sysctl`: kernel settings that belong to one of the container's own namespaces. Whatever belongs to the whole
//! host is refused, as runc does: a container must not change it.

use std::collections::HashMap;
use std::path::PathBuf;

use super::namespaces::{NamespaceKind, Namespaces};

/// What is wrong with a kernel setting.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SysctlError {
    /// It is nobody's in particular.
    #[error(
        "linux.sysctl has {0}, which belongs to no namespace and would change the host; remove it, or set it on the host"
    )]
    Host(String),
    /// The container is in the host's namespace.
    #[error(
        "linux.sysctl has {name}, but linux.namespaces has no {kind} namespace, so that it would change the host; add \
         {{\"type\": \"{kind}\"}}, or remove it"
    )]
    NoNamespace {
        /// Its name.
        name: String,
        /// Whose it is.
        kind: NamespaceKind,
    },
    /// There is another way to say it.
    #[error("linux.sysctl has kernel.hostname; use the field hostname instead")]
    HostName,
    /// The name leads elsewhere.
    #[error("linux.sysctl has {0:?}, which is no name of a kernel setting")]
    Name(String),
    /// The value cannot be written.
    #[error("linux.sysctl gives {0} a value with a NUL character")]
    Nul(String),
}

/// A kernel setting of one of the container's namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// As the specification calls it.
    pub name: String,
    /// The same below `/proc/sys`.
    pub path: PathBuf,
    /// What it is to be.
    pub value: String,
    /// Whose it is.
    pub kind: NamespaceKind,
}

/// Settings of the System V part of the IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Checks and converts; sorted, so that they are always applied in the same order.
pub(super) fn convert(
    settings: &HashMap<String, String>,
    namespaces: &Namespaces,
) -> Result<Vec<Sysctl>, SysctlError> {
    let mut sysctls =
        settings.iter().map(|(name, value)| one(name, value, namespaces)).collect::<Result<Vec<_>, _>>()?;
    sysctls.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sysctls)
}

fn one(name: &str, value: &str, namespaces: &Namespaces) -> Result<Sysctl, SysctlError> {
    let path = path_of(name);
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() < 2 || parts.iter().any(|part| matches!(*part, "" | "." | "..")) || name.contains('\0') {
        return Err(SysctlError::Name(name.to_owned()));
    }
    if value.contains('\0') {
        return Err(SysctlError::Nul(name.to_owned()));
    }
    let dotted = parts.join(".");
    let kind = match parts.first() {
        _ if dotted == "kernel.hostname" => return Err(SysctlError::HostName),
        _ if dotted == "kernel.domainname" => NamespaceKind::Uts,
        _ if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") => NamespaceKind::Ipc,
        Some(&"net") => NamespaceKind::Network,
        _ => return Err(SysctlError::Host(name.to_owned())),
    };
    if !namespaces.has(kind) {
        return Err(SysctlError::NoNamespace { name: name.to_owned(), kind });
    }
    Ok(Sysctl { name: name.to_owned(), path: path.into(), value: value.to_owned(), kind })
}

/// sysctl(8): names have dots, or slashes; the first of the two that occurs separates, and the other one stands for
/// itself, exchanged (`net.ipv4.conf.eth0/1.forwarding` is of the interface `eth0.1`).
fn path_of(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes().get(at) == Some(&b'.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Namespaces {
        let list = r#"[{"type":"mount"},{"type":"ipc"},{"type":"network","path":"/run/netns/x"}]"#;
        Namespaces::new(&serde_json::from_str::<Vec<_>>(list).unwrap()).unwrap()
    }

    fn sysctls(pairs: &[(&str, &str)]) -> Result<Vec<Sysctl>, SysctlError> {
        let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        convert(&all, &pod())
    }

    #[test]
    fn what_docker_and_kubernetes_set_is_found_below_proc_sys() {
        let got = sysctls(&[
            ("net.ipv4.ping_group_range", "0 2147483647"),
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            ("kernel.shm_rmid_forced", "1"),
            ("fs.mqueue.msg_max", "20"),
            ("net/ipv4/conf/eth0.1/forwarding", "1"),
            ("net.ipv4.conf.eth1/2.forwarding", "1"),
        ])
        .unwrap();
        let paths: Vec<_> = got.iter().map(|it| it.path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "fs/mqueue/msg_max",
                "kernel/shm_rmid_forced",
                "net/ipv4/conf/eth0.1/forwarding",
                "net/ipv4/conf/eth1.2/forwarding",
                "net/ipv4/ip_unprivileged_port_start",
                "net/ipv4/ping_group_range",
            ]
        );
        assert_eq!((got[0].kind, got[5].kind), (NamespaceKind::Ipc, NamespaceKind::Network));
    }

    /// B33: neither ignored nor applied to the host.
    #[test]
    fn what_would_change_the_host_is_refused() {
        for (name, expected) in [
            ("vm.swappiness", SysctlError::Host("vm.swappiness".into())),
            ("kernel.panic", SysctlError::Host("kernel.panic".into())),
            ("kernel.hostname", SysctlError::HostName),
            (
                "kernel.domainname",
                SysctlError::NoNamespace { name: "kernel.domainname".into(), kind: NamespaceKind::Uts },
            ),
            ("net", SysctlError::Name("net".into())),
            ("net.", SysctlError::Name("net.".into())),
            ("net//ipv4", SysctlError::Name("net//ipv4".into())),
            ("net/../kernel/panic", SysctlError::Name("net/../kernel/panic".into())),
            ("../net", SysctlError::Name("../net".into())),
            ("", SysctlError::Name(String::new())),
        ] {
            assert_eq!(sysctls(&[(name, "1")]), Err(expected));
        }
        assert_eq!(sysctls(&[("net.a", "1\0")]), Err(SysctlError::Nul("net.a".into())));
    }

    proptest::proptest! {
        /// No name leads out of `/proc/sys`, whatever its grammar.
        #[test]
        fn an_accepted_name_never_climbs(name in "(net|kernel|fs)[./a-z]{0,20}") {
            if let Ok(list) = sysctls(&[(&name, "1")]) {
                for part in list[0].path.components() {
                    proptest::prop_assert!(matches!(part, std::path::Component::Normal(_)));
                }
            }
        }
    }
}
