//! What makes a container a unikernel: the `com.urunc.unikernel.*` keys, from the spec's annotations or else from
//! `urunc.json` in the image (same keys, values in base64). All of it is untrusted input and validated here.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use urunc_vmm::{Guest, Monitor, UnknownMonitor};

/// What every key begins with.
pub const PREFIX: &str = "com.urunc.unikernel.";
/// The file at the root of an image that stands in for annotations.
pub const FILE: &str = "urunc.json";

const GUEST: &str = "com.urunc.unikernel.unikernelType";
const MONITOR: &str = "com.urunc.unikernel.hypervisor";
/// Names the kernel.
pub const BINARY: &str = "com.urunc.unikernel.binary";
/// Names an initrd.
pub const INITRD: &str = "com.urunc.unikernel.initrd";
/// Names a disk image.
pub const BLOCK: &str = "com.urunc.unikernel.block";
const MANDATORY: [&str; 3] = [GUEST, MONITOR, BINARY];
const MAX_VALUE: usize = 4096;

/// Under which the engines say what a container is to its pod: containerd's CRI, CRI-O.
const ROLES: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
/// The container that holds a pod's namespaces.
const SANDBOX: &str = "sandbox";

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotationError {
    /// Some but not all of the mandatory keys.
    #[error("the annotation {missing} is missing, but {present} is there; a unikernel needs {}", MANDATORY.join(", "))]
    Incomplete {
        /// The first one that is missing.
        missing: &'static str,
        /// One that is there.
        present: &'static str,
    },
    /// `urunc.json` is not a JSON object of strings.
    #[error("{FILE} in the image is not a JSON object of strings")]
    NotAnObject(#[source] serde_json::Error),
    /// A value of `urunc.json` is not base64.
    #[error("{FILE} in the image: the value of {key} is not base64")]
    NotBase64 {
        /// The key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: base64::DecodeError,
    },
    /// A value of `urunc.json` is not text.
    #[error("{FILE} in the image: the value of {key} does not decode to UTF-8 text")]
    NotText {
        /// The key.
        key: String,
    },
    /// The monitor or the guest kind is not one of ours.
    #[error("the annotation {key} has the value {value:?}; known values are {known}")]
    Unknown {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What would be accepted.
        known: String,
    },
    /// The monitor is known, but not driven here.
    #[error("the annotation {key} cannot be followed: {reason}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Which one it is, and why it is not.
        reason: String,
    },
    /// A path is not acceptable.
    #[error("the annotation {key} has the value {value:?}, which {reason}; {PATH_RULE}")]
    Path {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A value that must be a boolean is none.
    #[error("the annotation {key} has the value {value:?}; use \"true\" or \"false\"")]
    Boolean {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// A Solo5 device name is not acceptable.
    #[error(
        "the annotation {key} has the value {value:?}; a Solo5 device name is 1 to 67 letters and digits"
    )]
    DeviceName {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// A value is too long.
    #[error("the annotation {key} is {length} bytes long; at most {MAX_VALUE} are accepted")]
    TooLong {
        /// The key.
        key: &'static str,
        /// Its length.
        length: usize,
    },
}

const PATH_RULE: &str = "a path in the image consists of letters, digits, `.`, `_`, `-` and `/`, without `..`, `.` or empty parts";

/// A path inside the image, as an annotation gives it: lexically clean, no characters that a monitor's option
/// grammar could misread. Symbolic links are the business of whoever opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImagePath(String);

impl ImagePath {
    /// The path as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ImagePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The keys, validated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// `unikernelType`
    pub guest: Guest,
    /// `hypervisor`
    pub monitor: Monitor,
    /// `binary`: the kernel.
    pub binary: ImagePath,
    /// `unikernelVersion`: version of the guest's framework.
    pub version: Option<String>,
    /// `initrd`
    pub initrd: Option<ImagePath>,
    /// `block`: a disk image.
    pub block: Option<ImagePath>,
    /// `blkMntPoint`: where the guest mounts it.
    pub block_mount_point: Option<ImagePath>,
    /// `mountRootfs`: whether the guest wants the container's rootfs.
    pub mount_rootfs: bool,
    /// `solo5NetDev`: name of the network device that a Solo5 guest declares.
    pub solo5_net: Option<String>,
    /// `solo5BlkDev`: name of the block device that a Solo5 guest declares.
    pub solo5_block: Option<String>,
}

/// The raw keys and values of one source.
type Raw = BTreeMap<String, String>;

/// Whether this is the container that holds a pod's namespaces. Engines give it the annotations of the pod, too, which are meant for the pod's
/// other containers: it is no unikernel whatever they say.
#[must_use]
pub fn is_sandbox(annotations: &BTreeMap<String, String>) -> bool {
    ROLES.iter().any(|role| annotations.get(*role).is_some_and(|value| value == SANDBOX))
}

/// Reads the spec's annotations. `None` if there is no mandatory key: then `urunc.json` decides.
///
/// # Errors
/// [`AnnotationError`] if some mandatory key is missing or a value is not acceptable.
pub fn from_annotations(annotations: &Raw) -> Result<Option<GuestConfig>, AnnotationError> {
    let present = MANDATORY.iter().copied().find(|key| annotations.contains_key(*key));
    let missing = MANDATORY.iter().copied().find(|key| !annotations.contains_key(*key));
    match (present, missing) {
        (None, _) => Ok(None),
        (Some(present), Some(missing)) => Err(AnnotationError::Incomplete { missing, present }),
        (Some(_), None) => validate(annotations).map(Some),
    }
}

/// Reads the contents of an image's `urunc.json`.
///
/// # Errors
/// [`AnnotationError`]; an image that has the file means to be a unikernel, so nothing here is ignored.
pub fn from_file(contents: &[u8]) -> Result<GuestConfig, AnnotationError> {
    let encoded: Raw = serde_json::from_slice(contents).map_err(AnnotationError::NotAnObject)?;
    let mut decoded = Raw::new();
    for (key, value) in encoded {
        // Encoders that break lines are common; RFC 4648 section 3.1 leaves that to the application.
        let compact: String = value.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = STANDARD
            .decode(compact)
            .map_err(|source| AnnotationError::NotBase64 { key: key.clone(), source })?;
        let text = String::from_utf8(bytes).map_err(|_| AnnotationError::NotText { key: key.clone() })?;
        decoded.insert(key, text);
    }
    if let Some(missing) = MANDATORY.iter().copied().find(|key| !decoded.contains_key(*key)) {
        return Err(AnnotationError::Incomplete { missing, present: FILE });
    }
    validate(&decoded)
}

fn validate(raw: &Raw) -> Result<GuestConfig, AnnotationError> {
    let get = |name: &str| raw.get(&format!("{PREFIX}{name}")).map(String::as_str).filter(|v| !v.is_empty());
    for key in KEYS {
        if let Some(value) = raw.get(key)
            && value.len() > MAX_VALUE
        {
            return Err(AnnotationError::TooLong { key, length: value.len() });
        }
    }
    let guest_name = get("unikernelType").unwrap_or_default();
    let monitor_name = get("hypervisor").unwrap_or_default();
    Ok(GuestConfig {
        guest: guest_name.parse().map_err(|_| AnnotationError::Unknown {
            key: GUEST,
            value: guest_name.to_owned(),
            known: names(Guest::ALL.iter().map(|g| g.name())),
        })?,
        monitor: monitor_name.parse().map_err(|error| match error {
            UnknownMonitor::Unsupported { .. } => {
                AnnotationError::Unsupported { key: MONITOR, reason: error.to_string() }
            }
            _ => AnnotationError::Unknown {
                key: MONITOR,
                value: monitor_name.to_owned(),
                known: names(Monitor::ALL.iter().map(|m| m.name())),
            },
        })?,
        binary: path(BINARY, get("binary").unwrap_or_default(), Root::Refused)?,
        version: get("unikernelVersion").map(str::to_owned),
        initrd: get("initrd").map(|v| path(INITRD, v, Root::Refused)).transpose()?,
        block: get("block").map(|v| path(BLOCK, v, Root::Refused)).transpose()?,
        block_mount_point: get("blkMntPoint")
            .map(|v| path("com.urunc.unikernel.blkMntPoint", v, Root::Accepted))
            .transpose()?,
        mount_rootfs: get("mountRootfs")
            .map(|v| boolean("com.urunc.unikernel.mountRootfs", v))
            .transpose()?
            .unwrap_or(false),
        solo5_net: get("solo5NetDev")
            .map(|v| device_name("com.urunc.unikernel.solo5NetDev", v))
            .transpose()?,
        solo5_block: get("solo5BlkDev")
            .map(|v| device_name("com.urunc.unikernel.solo5BlkDev", v))
            .transpose()?,
    })
}

const KEYS: [&str; 10] = [
    GUEST,
    MONITOR,
    BINARY,
    "com.urunc.unikernel.unikernelVersion",
    INITRD,
    BLOCK,
    "com.urunc.unikernel.blkMntPoint",
    "com.urunc.unikernel.mountRootfs",
    "com.urunc.unikernel.solo5NetDev",
    "com.urunc.unikernel.solo5BlkDev",
];

fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.collect::<Vec<_>>().join(", ")
}

/// Whether `/` itself is a sensible value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Accepted,
    Refused,
}

fn path(key: &'static str, value: &str, root: Root) -> Result<ImagePath, AnnotationError> {
    let reason = if value.is_empty() {
        Some("is empty")
    } else if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b)) {
        Some("contains a character that is not allowed")
    } else if value.starts_with('-') {
        Some("begins with `-` and could be taken for an option")
    } else if value == "/" {
        (root == Root::Refused).then_some("is the root directory")
    } else {
        let relative = value.strip_prefix('/').unwrap_or(value);
        relative
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
            .then_some("is not in its shortest form")
    };
    match reason {
        None => Ok(ImagePath(value.to_owned())),
        Some(reason) => Err(AnnotationError::Path { key, value: value.to_owned(), reason }),
    }
}

/// The spellings of Go's `strconv.ParseBool`, which images in the field use.
fn boolean(key: &'static str, value: &str) -> Result<bool, AnnotationError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(AnnotationError::Boolean { key, value: value.to_owned() }),
    }
}

fn device_name(key: &'static str, value: &str) -> Result<String, AnnotationError> {
    if (1..=67).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(value.to_owned())
    } else {
        Err(AnnotationError::DeviceName { key, value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(pairs: &[(&str, &str)]) -> Raw {
        pairs.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect()
    }

    fn complete() -> Raw {
        raw(&[("unikernelType", "generic"), ("hypervisor", "qemu"), ("binary", "/boot/kernel")])
    }

    fn as_file(raw: &Raw) -> Vec<u8> {
        let encoded: Raw = raw.iter().map(|(k, v)| (k.clone(), STANDARD.encode(v))).collect();
        serde_json::to_vec(&encoded).unwrap()
    }

    #[test]
    fn annotations_and_file_mean_the_same() {
        let from_spec = from_annotations(&complete()).unwrap().unwrap();
        assert_eq!(from_spec, from_file(&as_file(&complete())).unwrap());
        assert_eq!(from_spec.guest, Guest::Generic);
        assert_eq!(from_spec.monitor, Monitor::Qemu);
    }

    #[test]
    fn an_ordinary_container_has_none_of_the_keys() {
        let other = BTreeMap::from([("io.kubernetes.cri.container-name".to_owned(), "x".to_owned())]);
        assert_eq!(from_annotations(&other).unwrap(), None);
    }

    #[test]
    fn the_container_that_holds_a_pod_is_told_by_its_engine() {
        for (key, value, expected) in [
            ("io.kubernetes.cri.container-type", "sandbox", true),
            ("io.kubernetes.cri-o.ContainerType", "sandbox", true),
            ("io.kubernetes.cri.container-type", "container", false),
            ("io.kubernetes.cri.sandbox-id", "sandbox", false),
        ] {
            let mut keys = complete();
            keys.insert(key.to_owned(), value.to_owned());
            assert_eq!(is_sandbox(&keys), expected, "{key}={value}");
        }
    }

    #[test]
    fn some_but_not_all_mandatory_keys_are_an_error_and_not_an_ordinary_container() {
        for key in MANDATORY {
            let mut incomplete = complete();
            incomplete.remove(key);
            let message = from_annotations(&incomplete).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
            assert!(from_file(&as_file(&incomplete)).is_err());
        }
    }

    /// B44's counterpart: a file that is wrong in one value is refused as a whole, with the key.
    #[test]
    fn a_value_that_is_not_base64_is_named() {
        let mut file: BTreeMap<String, String> = serde_json::from_slice(&as_file(&complete())).unwrap();
        file.insert(BINARY.to_owned(), "not base64!".to_owned());
        let message = from_file(&serde_json::to_vec(&file).unwrap()).unwrap_err().to_string();
        assert!(message.contains(BINARY), "{message}");
    }

    /// The reason was lost on the way.
    #[test]
    fn a_monitor_that_is_not_driven_is_told_from_one_that_nobody_knows() {
        for (monitor, says) in [
            ("hyperlight", "monitor \"hyperlight\" is not supported: hluk boots"),
            ("hyperlight-unikraft", "monitor \"hyperlight-unikraft\" is not supported: hluk boots"),
            ("hedge", "never released"),
            ("xen", "known values are hvt, spt, qemu"),
        ] {
            let mut keys = complete();
            keys.insert(MONITOR.to_owned(), monitor.to_owned());
            let message = from_annotations(&keys).unwrap_err().to_string();
            assert!(message.contains(MONITOR) && message.contains(says), "{message}");
        }
    }

    #[test]
    fn paths_that_could_leave_the_image_or_inject_options_are_refused() {
        for bad in [
            "../kernel",
            "/../kernel",
            "/a/../../b",
            "/a/./b",
            "/a//b",
            "/a/",
            "-kernel",
            "/",
            ".",
            "..",
            "/a,b",
            "/a=b",
            "/a b",
            "/a\nb",
            "/é",
        ] {
            let mut keys = complete();
            keys.insert(BINARY.to_owned(), bad.to_owned());
            let message = from_annotations(&keys).unwrap_err().to_string();
            assert!(message.contains("binary"), "{bad:?}: {message}");
        }
        for good in ["/boot/kernel", "kernel", "a/b.c_d-e", "/.hidden", "/..data/k"] {
            let mut keys = complete();
            keys.insert(BINARY.to_owned(), good.to_owned());
            assert!(from_annotations(&keys).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn unknown_kinds_are_answered_with_the_known_ones() {
        let mut keys = complete();
        keys.insert(MONITOR.to_owned(), "bochs".to_owned());
        let message = from_annotations(&keys).unwrap_err().to_string();
        assert!(message.contains("bochs") && message.contains("firecracker"), "{message}");
    }

    proptest::proptest! {
        #[test]
        fn an_accepted_path_has_no_part_that_climbs(value in "[a-z./,=-]{0,20}") {
            if let Ok(path) = path(BINARY, &value, Root::Refused) {
                proptest::prop_assert!(path.as_str().split('/').all(|part| part != ".."));
                proptest::prop_assert!(!path.as_str().contains([',', '=']));
            }
        }
    }
}
