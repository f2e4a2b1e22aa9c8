//! The table of mounts, as the kernel shows it: `proc_pid_mountinfo(5)`.
//!
//! Parses every field of every line, whatever its length, and decides nothing. Values come from whoever mounted,
//! so they are bytes, unescaped here.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use serde::{Deserialize, Serialize};

/// The mounts of one mount namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountTable {
    mounts: Vec<Mount>,
    unreadable: Vec<UnreadableLine>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Unique id of the mount.
    pub id: MountId,
    /// Id of the mount that it is mounted on.
    pub parent: MountId,
    /// Device of the files in it.
    pub device: DeviceNumber,
    /// Which directory of the file system is at the mount point; `/` for the whole.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Options of this mount, such as `nosuid`.
    pub options: Vec<OsString>,
    /// Peer groups and the like, such as `shared:2`.
    pub optional: Vec<OsString>,
    /// Type of the file system, such as `ext4`.
    pub fs_type: OsString,
    /// What was mounted; its meaning depends on the file system.
    pub source: OsString,
    /// Options of the file system.
    pub super_options: Vec<OsString>,
}

/// Id of a mount, as `statx(2)` tells it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MountId(pub u64);

/// Number of a device, or, with major number 0, of a file system without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// A line that does not look as the kernel documents it. The rest of the table is still good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} of the mount table has no valid {field}")]
pub struct UnreadableLine {
    /// Number of the line, from 1.
    pub number: usize,
    /// The field that is missing or malformed.
    pub field: &'static str,
}

/// The mount table of this process cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the mount table {path}: is /proc mounted?")]
pub struct MountTableError {
    path: &'static str,
    #[source]
    source: io::Error,
}

impl MountTable {
    /// Reads the table of the calling thread's mount namespace.
    ///
    /// # Errors
    /// If `/proc` does not show it.
    pub fn read() -> Result<Self, MountTableError> {
        let path = "/proc/thread-self/mountinfo";
        // Such a file claims to be empty, for which `fs::read` takes many small reads: the table is made anew for each.
        let mut text = Vec::with_capacity(16 * 1024);
        let mut read_all = || -> Result<(), Errno> {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            while retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut text)))? > 0 {
                text.reserve(4096);
            }
            Ok(())
        };
        match read_all() {
            Ok(()) => Ok(Self::parse(&text)),
            Err(errno) => Err(MountTableError { path, source: errno.into() }),
        }
    }

    /// Parses the text of a `mountinfo` file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut table = Self::default();
        let lines = text.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        for (index, line) in lines {
            match parse_line(line) {
                Ok(mount) => table.mounts.push(mount),
                Err(field) => table.unreadable.push(UnreadableLine { number: index + 1, field }),
            }
        }
        table
    }

    /// All mounts, in the kernel's order.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// Lines that could not be parsed: whoever concludes from a mount's absence must look here too.
    #[must_use]
    pub fn unreadable(&self) -> &[UnreadableLine] {
        &self.unreadable
    }

    /// The mount with this id.
    #[must_use]
    pub fn get(&self, id: MountId) -> Option<&Mount> {
        self.mounts.iter().find(|m| m.id == id)
    }

    /// The mount at exactly `point`; of several, the one on top, which alone is visible.
    ///
    /// Compares names: a path with symbolic links is not found. [`MountTable::get`] is exact.
    #[must_use]
    pub fn at(&self, point: &Path) -> Option<&Mount> {
        let here = || self.mounts.iter().filter(|m| m.point == point);
        here().rfind(|m| !here().any(|other| other.parent == m.id && other.id != m.id))
    }

    /// All mounts of the file system on `device`.
    pub fn of_device(&self, device: DeviceNumber) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |m| m.device == device)
    }
}

impl Mount {
    /// Whether mounts below it propagate to other places (`shared:N`).
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.optional.iter().any(|field| field.as_bytes().starts_with(b"shared:"))
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl From<rustix::fs::Dev> for DeviceNumber {
    fn from(device: rustix::fs::Dev) -> Self {
        Self { major: rustix::fs::major(device), minor: rustix::fs::minor(device) }
    }
}

/// Parses one line, or names the field that is wrong.
fn parse_line(line: &[u8]) -> Result<Mount, &'static str> {
    let mut fields = line.split(|b| *b == b' ');
    let mut next = |name: &'static str| fields.next().filter(|f| !f.is_empty()).ok_or(name);
    let id = number(next("mount id")?).map(MountId).ok_or("mount id")?;
    let parent = number(next("parent id")?).map(MountId).ok_or("parent id")?;
    let device = device(next("device")?).ok_or("device")?;
    let root = path(next("root")?);
    let point = path(next("mount point")?);
    let options = list(next("mount options")?);
    let mut optional = Vec::new();
    loop {
        match next("separator")? {
            b"-" => break,
            field => optional.push(unescape(field)),
        }
    }
    // With a FUSE file system's subtype, which whoever mounts it chooses.
    let fs_type = unescape(next("file system type")?);
    // The source may be empty, and file systems print their options as they like: the rest of the line.
    let source = unescape(fields.next().ok_or("source")?);
    let rest: Vec<&[u8]> = fields.collect();
    if rest.is_empty() {
        return Err("super options");
    }
    let super_options = list(&rest.join(&b' '));
    Ok(Mount { id, parent, device, root, point, options, optional, fs_type, source, super_options })
}

fn number<N: FromStr>(field: &[u8]) -> Option<N> {
    // `parse` would take a sign.
    let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(field).ok()?.parse().ok()).flatten()
}

fn device(field: &[u8]) -> Option<DeviceNumber> {
    let colon = field.iter().position(|b| *b == b':')?;
    Some(DeviceNumber { major: number(&field[..colon])?, minor: number(&field[colon + 1..])? })
}

fn path(field: &[u8]) -> PathBuf {
    unescape(field).into()
}

fn list(field: &[u8]) -> Vec<OsString> {
    field.split(|b| *b == b',').map(unescape).collect()
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and `#`; anything else stays as it is.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests;
