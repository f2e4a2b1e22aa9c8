//! `linux.uidMappings` and `gidMappings`: which ids of the host the ids of a user namespace are (user_namespaces(7)).

use oci_spec::runtime::LinuxIdMapping;
use serde::{Deserialize, Serialize};

/// What is wrong with mappings.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MappingError {
    /// A user namespace without mappings can do nothing.
    #[error(
        "linux.namespaces has a user namespace, but linux.{0} is missing; give the ids of the host that its ids are"
    )]
    Missing(&'static str),
    /// Mappings without a user namespace.
    #[error(
        "linux.{0} is there, but linux.namespaces has no user namespace; add {{\"type\": \"user\"}}, or remove it"
    )]
    NoNamespace(&'static str),
    /// Ranges that overlap, are empty, or leave the range of ids.
    #[error("linux.{field} has the range {range}, which {reason}")]
    Range {
        /// The field.
        field: &'static str,
        /// The range: container:host:size.
        range: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// More than the kernel takes.
    #[error("linux.{field} has {count} ranges; the kernel accepts 340")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many there are.
        count: usize,
    },
    /// An id that must be somebody is nobody.
    #[error("linux.{field} does not map the id {id}, which is {what}; add a range that contains it")]
    Unmapped {
        /// The field.
        field: &'static str,
        /// The id in the container.
        id: u32,
        /// Why it is needed.
        what: &'static str,
    },
}

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Range {
    container: u32,
    host: u32,
    size: u32,
}

/// How one kind of id is mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap(Vec<Range>);

impl IdMap {
    /// The host's id for `id` of the container.
    #[must_use]
    pub fn to_host(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = id.checked_sub(range.container).filter(|offset| *offset < range.size)?;
            range.host.checked_add(offset)
        })
    }

    /// Lines for `/proc/PID/uid_map` or `gid_map`.
    #[must_use]
    pub fn lines(&self) -> String {
        self.0.iter().map(|range| format!("{} {} {}\n", range.container, range.host, range.size)).collect()
    }
}

/// The mappings of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMappings {
    /// Of users.
    pub users: IdMap,
    /// Of groups.
    pub groups: IdMap,
}

impl IdMappings {
    /// The host's ids of a container's user and group.
    ///
    /// # Errors
    /// [`MappingError::Unmapped`]
    pub fn to_host(&self, uid: u32, gid: u32) -> Result<(u32, u32), MappingError> {
        let unmapped = |field, id, what| MappingError::Unmapped { field, id, what };
        let user = self.users.to_host(uid).ok_or(unmapped(UIDS, uid, "process.user.uid"))?;
        let group = self.groups.to_host(gid).ok_or(unmapped(GIDS, gid, "process.user.gid"))?;
        Ok((user, group))
    }
}

const UIDS: &str = "uidMappings";
const GIDS: &str = "gidMappings";
/// Linux 4.15 and newer (user_namespaces(7)).
const MOST_RANGES: usize = 340;

/// Whether the container has a user namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserNamespace {
    /// New or joined.
    Own,
    /// The caller's.
    Callers,
}

/// Checks and converts.
pub(super) fn convert(
    namespace: UserNamespace,
    users: &[LinuxIdMapping],
    groups: &[LinuxIdMapping],
    gids: impl IntoIterator<Item = u32>,
) -> Result<Option<IdMappings>, MappingError> {
    if namespace == UserNamespace::Callers {
        return match (users, groups) {
            ([], []) => Ok(None),
            ([], _) => Err(MappingError::NoNamespace(GIDS)),
            _ => Err(MappingError::NoNamespace(UIDS)),
        };
    }
    let mappings = IdMappings { users: ranges(UIDS, users)?, groups: ranges(GIDS, groups)? };
    // The monitor's root is built by the namespace's root.
    let root = |field| MappingError::Unmapped { field, id: 0, what: "root, who sets the container up" };
    mappings.users.to_host(0).ok_or(root(UIDS))?;
    mappings.groups.to_host(0).ok_or(root(GIDS))?;
    for gid in gids {
        let what = "one of process.user.additionalGids";
        mappings.groups.to_host(gid).ok_or(MappingError::Unmapped { field: GIDS, id: gid, what })?;
    }
    Ok(Some(mappings))
}

fn ranges(field: &'static str, list: &[LinuxIdMapping]) -> Result<IdMap, MappingError> {
    if list.is_empty() {
        return Err(MappingError::Missing(field));
    }
    if list.len() > MOST_RANGES {
        return Err(MappingError::TooMany { field, count: list.len() });
    }
    let mut ranges: Vec<Range> = Vec::with_capacity(list.len());
    for entry in list {
        let range = Range { container: entry.container_id(), host: entry.host_id(), size: entry.size() };
        let overlap = |a: u32, b: u32, size: u32, other: u32| {
            u64::from(a) < u64::from(b) + u64::from(other) && u64::from(b) < u64::from(a) + u64::from(size)
        };
        let end = |start: u32| start.checked_add(range.size);
        let reason = if range.size == 0 {
            Some("is empty")
        } else if end(range.container).is_none() || end(range.host).is_none() {
            Some("goes beyond the last id")
        } else if ranges.iter().any(|it| {
            overlap(it.container, range.container, it.size, range.size)
                || overlap(it.host, range.host, it.size, range.size)
        }) {
            Some("overlaps another one")
        } else {
            None
        };
        if let Some(reason) = reason {
            let range = format!("{}:{}:{}", range.container, range.host, range.size);
            return Err(MappingError::Range { field, range, reason });
        }
        ranges.push(range);
    }
    Ok(IdMap(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn mappings(users: Value, groups: Value) -> Result<Option<IdMappings>, MappingError> {
        let list = |json| serde_json::from_value::<Vec<LinuxIdMapping>>(json).unwrap();
        convert(UserNamespace::Own, &list(users), &list(groups), [7])
    }

    fn range(container: u32, host: u32, size: u32) -> Value {
        json!({"containerID": container, "hostID": host, "size": size})
    }

    #[test]
    fn ids_are_found_in_their_ranges() {
        let all = json!([range(0, 100_000, 10), range(10, 5, 1)]);
        let map = mappings(all.clone(), all).unwrap().unwrap();
        assert_eq!(map.users.lines(), "0 100000 10\n10 5 1\n");
        for (id, host) in
            [(0, Some(100_000)), (9, Some(100_009)), (10, Some(5)), (11, None), (u32::MAX, None)]
        {
            assert_eq!(map.users.to_host(id), host);
        }
        assert_eq!(map.to_host(3, 10), Ok((100_003, 5)));
        let nobody = MappingError::Unmapped { field: UIDS, id: 65534, what: "process.user.uid" };
        assert_eq!(map.to_host(65534, 0), Err(nobody));
    }

    #[test]
    fn mappings_that_cannot_be_are_refused() {
        let good = || json!([range(0, 100_000, 65_536)]);
        for (users, groups, says) in [
            (json!([]), good(), "linux.uidMappings is missing"),
            (good(), json!([]), "linux.gidMappings is missing"),
            (json!([range(0, 1, 0)]), good(), "range 0:1:0, which is empty"),
            (json!([range(0, u32::MAX, 2)]), good(), "beyond the last id"),
            (json!([range(0, 1, 5), range(4, 100, 5)]), good(), "range 4:100:5, which overlaps"),
            (json!([range(0, 1, 5), range(5, 3, 5)]), good(), "range 5:3:5, which overlaps"),
            (json!([range(1, 1, 5)]), good(), "uidMappings does not map the id 0"),
            (good(), json!([range(0, 1, 5)]), "gidMappings does not map the id 7"),
        ] {
            let message = mappings(users, groups).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn mappings_and_namespace_come_together() {
        let list: Vec<LinuxIdMapping> = serde_json::from_value(json!([range(0, 1, 1)])).unwrap();
        assert_eq!(convert(UserNamespace::Callers, &[], &[], []), Ok(None));
        let alone = convert(UserNamespace::Callers, &list, &[], []);
        assert_eq!(alone, Err(MappingError::NoNamespace(UIDS)));
        let alone = convert(UserNamespace::Callers, &[], &list, []);
        assert_eq!(alone, Err(MappingError::NoNamespace(GIDS)));
    }
}
