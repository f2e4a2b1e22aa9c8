//! Whose network objects these are: a mark that fits where the kernel has room for one, and the names made
//! from it. A name is for people; what may be touched is decided by the mark alone.
//!
//! | object | carries |
//! |---|---|
//! | TAP device | name (first 12 hexadecimal digits of the id, or of the mark), alias with the whole mark and the id |
//! | redirect filter | the mark, as the cookie of its action (`TCA_ACT_COOKIE`, 16 bytes) |
//! | nftables table | name with the whole mark |

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::IfName;

/// What a link's alias can hold, without its final zero byte (`IFALIASZ`, linux/if.h).
const ALIAS_ROOM: usize = 255;
const ALIAS_PREFIX: &str = "urunc:";
const TABLE_PREFIX: &str = "urunc-";

/// Sixteen bytes that stand for one container of one runtime root.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mark([u8; 16]);

impl Mark {
    /// The bytes, as they stand in the kernel.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl From<[u8; 16]> for Mark {
    fn from(bytes: [u8; 16]) -> Self {
        Mark(bytes)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({self})")
    }
}

/// Not a mark in text form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a mark: 32 hexadecimal digits")]
pub struct NotAMark(String);

impl FromStr for Mark {
    type Err = NotAMark;

    fn from_str(text: &str) -> Result<Self, NotAMark> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        value.map(|value| Mark(value.to_be_bytes())).ok_or_else(|| NotAMark(text.to_owned()))
    }
}

impl TryFrom<String> for Mark {
    type Error = NotAMark;

    fn try_from(text: String) -> Result<Self, NotAMark> {
        text.parse()
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> String {
        mark.to_string()
    }
}

/// A container as the owner of network objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    container: String,
    mark: Mark,
}

impl Owner {
    /// The container `container` of the runtime whose state lies below `root`. The same pair always gives the
    /// same mark, so that what a container left can be found even if all record of it is lost.
    #[must_use]
    pub fn new(container: &str, root: &Path) -> Self {
        // A path has no zero byte, so no two pairs read the same.
        let mark = fnv1a([root.as_os_str().as_bytes(), b"\0", container.as_bytes()]);
        Owner { container: container.to_owned(), mark: Mark(mark.to_be_bytes()) }
    }

    /// The container's id.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// What its objects carry.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// The name of its TAP device: `ur-` and the digits that a person knows the container by (engines show the
    /// first twelve of a random id), or, for an id of another kind, digits of the mark.
    pub(crate) fn tap_name(&self) -> IfName {
        let random = self.container.len() >= 32 && self.container.bytes().all(|b| b.is_ascii_hexdigit());
        let digits = if random { self.container.clone() } else { self.mark.to_string() };
        IfName::from_kernel(&[b"ur-", &digits.as_bytes()[..12]].concat())
    }

    /// The name of its nftables table.
    pub(crate) fn table_name(&self) -> String {
        format!("{TABLE_PREFIX}{}", self.mark)
    }

    /// The alias of its TAP device. An id that is too long is cut; the mark is what counts.
    pub(crate) fn alias(&self) -> String {
        let mut alias = format!("{ALIAS_PREFIX}{}:{}", self.mark, self.container);
        let end = (0..=ALIAS_ROOM.min(alias.len())).rev().find(|at| alias.is_char_boundary(*at));
        alias.truncate(end.unwrap_or(0));
        alias
    }
}

/// The mark and the container's id in a link's alias, if it is one of ours.
pub(crate) fn read_alias(alias: &str) -> Option<(Mark, String)> {
    let (mark, container) = alias.strip_prefix(ALIAS_PREFIX)?.split_once(':')?;
    Some((mark.parse().ok()?, container.to_owned()))
}

/// The mark in the name of an nftables table, if it is one of ours.
pub(crate) fn read_table_name(name: &str) -> Option<Mark> {
    name.strip_prefix(TABLE_PREFIX)?.parse().ok()
}

/// FNV-1a with 128 bits (draft-eastlake-fnv, section 5). Nobody gains from a collision but the administrator
/// who chose both ids, so it need not be a cryptographic hash.
fn fnv1a<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = parts.into_iter().flatten();
    bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // draft-eastlake-fnv, appendix C: the empty string, "a", "foobar".
        assert_eq!(fnv1a([]), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(fnv1a([&b"a"[..]]), 0xd228cb696f1a8caf78912b704e4a8964);
        assert_eq!(fnv1a([&b"foo"[..], b"bar"]), 0x343e1662793c64bf6f0d3597ba446f18);
    }

    #[test]
    fn a_tap_name_shows_which_container_it_is_n24() {
        let random = "3f9a1c77d2e84b6b9f0e5d4c3b2a19087f6e5d4c3b2a19087f6e5d4c3b2a1908";
        assert_eq!(Owner::new(random, Path::new("/run/urunc")).tap_name().as_str(), "ur-3f9a1c77d2e8");
        let spoken = Owner::new("web", Path::new("/run/urunc"));
        assert_eq!(spoken.tap_name().as_str(), format!("ur-{}", &spoken.mark().to_string()[..12]));
        assert_ne!(spoken.tap_name(), Owner::new("web2", Path::new("/run/urunc")).tap_name());
        assert!(spoken.tap_name().as_str().len() <= 15);
    }

    #[test]
    fn containers_of_the_same_name_in_two_roots_are_two_owners() {
        let [a, b] = ["/run/a", "/run/b"].map(|root| Owner::new("web", Path::new(root)));
        assert_ne!(a.mark(), b.mark());
    }

    #[test]
    fn an_alias_tells_the_owner_however_long_the_id() {
        for id in ["web", &"é".repeat(512), "a:b:c", ""] {
            let owner = Owner::new(id, Path::new("/run/urunc"));
            let alias = owner.alias();
            assert!(alias.len() <= ALIAS_ROOM);
            let (mark, container) = read_alias(&alias).unwrap();
            assert_eq!(mark, owner.mark());
            assert!(id.starts_with(&container) && (id.len() > 200 || id == container));
        }
        for foreign in ["", "uplink to rack 7", "urunc:", "urunc:web", "urunc:00:web"] {
            assert_eq!(read_alias(foreign), None);
        }
    }

    #[test]
    fn a_table_tells_its_owner() {
        let owner = Owner::new("web", Path::new("/run/urunc"));
        assert_eq!(read_table_name(&owner.table_name()), Some(owner.mark()));
        for foreign in ["", "nat", "urunc", "urunc-", "urunc-web"] {
            assert_eq!(read_table_name(foreign), None);
        }
    }

    #[test]
    fn an_owner_survives_serde() {
        let owner = Owner::new("web", Path::new("/run/urunc"));
        let json = serde_json::to_string(&owner).unwrap();
        assert!(json.contains(&owner.mark().to_string()));
        assert_eq!(serde_json::from_str::<Owner>(&json).unwrap(), owner);
    }
}
