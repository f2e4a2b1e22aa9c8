//! Finding a network namespace by its identity, when no path is known to lead to it. A namespace outlives the process
//! that made it as long as anybody has it pinned: `ip netns attach`, Docker and others by a mount, a neighbour by
//! living in it. Only a search tells "gone" from "elsewhere".

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::namespace::{NetNs, NsError, NsId};

/// The mounts of this process's mount namespace (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";

impl NetNs {
    /// Looks for the namespace with this identity, and opens it: among the mounts of this process's mount namespace, then
    /// among the namespaces that the processes in `/proc` live in. `None`: it is in neither place.
    ///
    /// `/proc` must be that of the host. What is not found is a namespace that only an open descriptor keeps, a thread
    /// other than its process's first, or a mount of another mount namespace; and processes that the caller may not look
    /// at are passed over. It takes a few microseconds per process, so it is for when a path has failed.
    ///
    /// # Errors
    /// [`NsError::Search`] if there is no telling.
    pub fn find(id: NsId) -> Result<Option<Self>, NsError> {
        let failed = |path: &str| {
            let path = PathBuf::from(path);
            move |source: io::Error| NsError::Search { id, path, source }
        };
        let mounts = fs::read(MOUNTS).map_err(failed(MOUNTS))?;
        if let Some(found) = mounted_at(&mounts, id).find_map(|path| open_if(path, id)) {
            return Ok(Some(found));
        }
        for entry in fs::read_dir("/proc").map_err(failed("/proc"))? {
            let entry = entry.map_err(failed("/proc"))?;
            if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let path = entry.path().join("ns/net");
            // Looked at before it is opened, for most are others; a process that ends meanwhile pins nothing any more.
            let matches = NsId::at(&path).is_ok_and(|found| found == id);
            if let Some(found) = matches.then(|| open_if(path, id)).flatten() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// What `path` leads to, if it is this namespace. It may have changed since it was read, or lie beneath another mount.
fn open_if(path: PathBuf, id: NsId) -> Option<NetNs> {
    NetNs::open(path).ok().filter(|found| found.id() == id)
}

/// Where the table says that a namespace is mounted. Its root is how namespaces are written (`ns_dname`, fs/nsfs.c).
fn mounted_at(mounts: &[u8], id: NsId) -> impl Iterator<Item = PathBuf> {
    let root = id.to_string();
    mounts.split(|byte| *byte == b'\n').filter_map(move |line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let (found, point) = (fields.next()?, fields.next()?);
        (found == root.as_bytes()).then(|| OsString::from_vec(unescaped(point)).into())
    })
}

/// Blanks, line ends and backslashes stand as a backslash and three octal digits (`mangle_path`, fs/seq_file.c).
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = tail.first_chunk().filter(|_| *first == b'\\').and_then(octal);
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn id(inode: u64) -> NsId {
        serde_json::from_value(serde_json::json!({"device": 4, "inode": inode})).unwrap()
    }

    #[test]
    fn a_mount_is_known_by_its_root_whatever_its_path() {
        let table = b"22 1 252:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            30 22 0:4 net:[4026532001] /run/netns/a rw shared:9 - nsfs nsfs rw\n\
            31 22 0:4 mnt:[4026532000] /run/snapd/ns/x rw - nsfs nsfs rw\n\
            32 22 0:4 net:[4026532000] /run/netns/with\\040blank\\134 rw - nsfs nsfs rw\n\
            33 22 0:4 net:[4026532000] /run/docker/netns/b rw - nsfs nsfs rw\n\
            34 22 0:4 net:[40265320000] /run/netns/longer rw - nsfs nsfs rw\n\
            broken\n";
        let found: Vec<_> = mounted_at(table, id(4_026_532_000)).collect();
        assert_eq!(found, [Path::new("/run/netns/with blank\\"), Path::new("/run/docker/netns/b")]);
        assert_eq!(mounted_at(table, id(7)).count(), 0);
    }

    proptest! {
        #[test]
        fn every_path_is_read_as_it_was_written(path in prop::collection::vec(any::<u8>(), 0..40)) {
            let written: Vec<u8> = path
                .iter()
                .flat_map(|byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                    other => vec![*other],
                })
                .collect();
            prop_assert_eq!(unescaped(&written), path);
        }

        #[test]
        fn no_table_makes_reading_panic(table in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = mounted_at(&table, id(7)).count();
        }
    }
}
