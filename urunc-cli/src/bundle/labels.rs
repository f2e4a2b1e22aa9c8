//! `process.apparmorProfile`, `process.selinuxLabel` and `linux.mountLabel`: under which policy of a security module the
//! monitor runs. Whether the host has the module is found out at create; a policy that cannot be enforced is refused.

/// What is wrong with a label.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabelError {
    /// A label is not what SELinux understands.
    #[error("{field} is {value:?}; an SELinux label is user:role:type:level")]
    Selinux {
        /// The field.
        field: &'static str,
        /// The value as given.
        value: String,
    },
    /// A text that cannot be written into a file of the kernel.
    #[error("{field} is {value:?}; use printable characters without spaces at the ends")]
    Text {
        /// The field.
        field: &'static str,
        /// The value as given.
        value: String,
    },
}

/// What a specification asks of security modules; absent means nothing is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Name of an AppArmor profile that is loaded on the host.
    pub apparmor: Option<String>,
    /// SELinux label of the monitor.
    pub selinux: Option<String>,
    /// SELinux label of the file systems that are made for the monitor.
    pub mount: Option<String>,
}

/// Types that container engines give to processes of any runtime; under these, SELinux forbids what a monitor must do.
const ENGINE_TYPES: [&str; 3] = ["container_t", "container_init_t", "svirt_lxc_net_t"];
/// The type that the policy of container-selinux has for monitors (`container_kvm_t`, container_selinux(8)).
const MONITOR_TYPE: &str = "container_kvm_t";

/// Checks and converts; empty texts mean the same as none.
pub(super) fn convert(
    apparmor: Option<&str>,
    selinux: Option<&str>,
    mount: Option<&str>,
) -> Result<Labels, LabelError> {
    let given = |field: &'static str, value: Option<&str>| match value.filter(|value| !value.is_empty()) {
        Some(value) if value.trim() != value || value.chars().any(char::is_control) => {
            Err(LabelError::Text { field, value: value.to_owned() })
        }
        value => Ok(value.map(str::to_owned)),
    };
    let selinux = given("process.selinuxLabel", selinux)?;
    let mount = given("linux.mountLabel", mount)?;
    if let Some(value) = &mount {
        parts("linux.mountLabel", value)?;
    }
    Ok(Labels {
        apparmor: given("process.apparmorProfile", apparmor)?,
        selinux: selinux.map(|value| for_monitor(&value)).transpose()?,
        mount,
    })
}

/// The label with the type for monitors in place of the one for ordinary containers. The level, which keeps containers
/// apart, stays; so does a type that somebody chose.
fn for_monitor(label: &str) -> Result<String, LabelError> {
    let [user, role, kind, level] = parts("process.selinuxLabel", label)?;
    let kind = if ENGINE_TYPES.contains(&kind) { MONITOR_TYPE } else { kind };
    Ok(format!("{user}:{role}:{kind}:{level}"))
}

/// A level may itself contain colons (`s0:c1,c2`).
fn parts<'a>(field: &'static str, label: &'a str) -> Result<[&'a str; 4], LabelError> {
    let wrong = || LabelError::Selinux { field, value: label.to_owned() };
    let parts: Vec<&str> = label.splitn(4, ':').collect();
    let parts: [&str; 4] = parts.try_into().map_err(|_| wrong())?;
    if parts.iter().any(|part| part.is_empty()) { Err(wrong()) } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_gets_its_own_type_and_keeps_its_level() {
        for (given, expected) in [
            ("system_u:system_r:container_t:s0:c1,c2", "system_u:system_r:container_kvm_t:s0:c1,c2"),
            ("system_u:system_r:container_kvm_t:s0:c3,c4", "system_u:system_r:container_kvm_t:s0:c3,c4"),
            ("u:r:chosen_t:s0", "u:r:chosen_t:s0"),
        ] {
            let labels = convert(None, Some(given), Some("system_u:object_r:container_file_t:s0")).unwrap();
            assert_eq!(labels.selinux.as_deref(), Some(expected));
        }
    }

    #[test]
    fn nothing_is_asked_by_empty_texts() {
        assert_eq!(convert(Some(""), Some(""), Some("")), Ok(Labels::default()));
        assert_eq!(convert(None, None, None), Ok(Labels::default()));
    }

    #[test]
    fn texts_that_are_no_labels_are_refused() {
        for wrong in ["container_t", "a:b:c", "a::c:d"] {
            let expected = |field| Err(LabelError::Selinux { field, value: wrong.to_owned() });
            assert_eq!(convert(None, Some(wrong), None), expected("process.selinuxLabel"));
            assert_eq!(convert(None, None, Some(wrong)), expected("linux.mountLabel"));
        }
        for wrong in ["a\nb", " a", "a\0b"] {
            let expected = LabelError::Text { field: "process.apparmorProfile", value: wrong.to_owned() };
            assert_eq!(convert(Some(wrong), None, None), Err(expected));
        }
    }
}
