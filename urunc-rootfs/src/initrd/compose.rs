//! Adding files to an initrd, so that the guest really sees them.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::index::{Index, Kind, Place, Rest, TooMany, clean, join};
use super::newc::{DIRECTORY, LINK, LONGEST_NAME, REGULAR, Record, TRAILER, pad};

/// Which initrds a guest can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Any number of archives, compressed or not, one after the other, as Linux does.
    Appended,
    /// One archive, not compressed, as Unikraft does.
    Single,
}

/// Something that the guest is to see, besides what the image's initrd holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// Its path in the guest.
    pub path: PathBuf,
    /// What it is.
    pub content: Content,
    /// Permissions, such as `0o644`.
    pub mode: u32,
    /// Owner in the guest.
    pub uid: u32,
    /// Group in the guest.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u32,
}

/// What an addition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link.
    Link(PathBuf),
}

/// Why an initrd cannot be composed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitrdError {
    /// The guest reads one archive only, and the image's initrd is not a readable one.
    #[error(
        "cannot add files to the image's initrd: this guest needs one uncompressed cpio archive (newc), and it is none"
    )]
    NotAnArchive,
    /// The image's initrd has absurdly many files.
    #[error(
        "cannot add files to the image's initrd: it has more than a million files, or names of more than 64 MiB"
    )]
    TooManyFiles,
    /// Something is to be put below a file.
    #[error("cannot add {path:?} to the image's initrd: something on its way is not a directory")]
    Blocked {
        /// What was to be added.
        path: PathBuf,
    },
    /// A file of the image cannot be replaced because other names share its content.
    #[error(
        "cannot replace {path:?} of the image's initrd: it has several names; add the file under another path"
    )]
    Shared {
        /// What was to be replaced.
        path: PathBuf,
    },
    /// The directory is a symbolic link by convention, and whether it is in a compressed initrd cannot be seen.
    #[error(
        "cannot add {path:?} to a compressed initrd: its directory may be a link there; use an uncompressed initrd"
    )]
    PerhapsALink {
        /// What was to be added.
        path: PathBuf,
    },
    /// The path is relative, has `..`, or is longer than the format allows; or the file is.
    #[error(
        "cannot add {path:?} to an initrd: the path must be absolute and plain, and the file smaller than 4 GiB"
    )]
    Unfit {
        /// What was to be added.
        path: PathBuf,
    },
    /// The image's initrd cannot be read.
    #[error("cannot read the image's initrd")]
    Read {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("cannot write the guest's initrd")]
    Write {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Directories that are links on many systems; adding them as directories would break such a guest.
const OFTEN_LINKS: [&[u8]; 8] =
    [b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32", b"var/run", b"var/lock"];

/// Writes `base` with `additions` to `out`. Later additions replace earlier ones and what the base has at their
/// place; directories on the way are made where the base lacks them. An empty base is fine, and without additions
/// the base is copied as it is.
///
/// # Errors
/// [`InitrdError`]; what was written until then is useless.
pub fn compose(
    base: &mut (impl Read + Seek),
    additions: &[Addition],
    dialect: Dialect,
    out: &mut impl Write,
) -> Result<(), InitrdError> {
    let read_error = |source| InitrdError::Read { source };
    if additions.is_empty() {
        base.rewind().map_err(read_error)?;
        return io::copy(base, out).map(drop).map_err(|source| InitrdError::Write { source });
    }
    let index = Index::read(base).map_err(read_error)?.map_err(|TooMany| InitrdError::TooManyFiles)?;
    let empty = index.length == 0;
    let keep = match dialect {
        Dialect::Appended => vec![(0, index.length)],
        Dialect::Single if empty => Vec::new(),
        Dialect::Single => {
            let trailer =
                index.trailer.filter(|_| index.rest == Rest::Nothing).ok_or(InitrdError::NotAnArchive)?;
            vec![(0, trailer)]
        }
    };
    let plan = place(&index, additions)?;
    let keep = match dialect {
        Dialect::Appended => keep,
        Dialect::Single => without(&index, keep, &plan),
    };
    let mut written = 0;
    for (from, to) in keep {
        base.seek(SeekFrom::Start(from)).map_err(read_error)?;
        let copied =
            io::copy(&mut base.take(to - from), out).map_err(|source| InitrdError::Write { source })?;
        written += copied;
    }
    let mut write = || -> io::Result<()> {
        // An archive begins at a multiple of four bytes, or the kernel misses it.
        pad(out, usize::try_from(written % 4).unwrap_or(0))?;
        if index.rest == Rest::Opaque {
            // LZ4's legacy format has no end: the kernel reads on until a block's length, four bytes, is zero
            // (lib/decompress_unlz4.c since Linux 5.11). To all others these are zeros between two archives.
            out.write_all(&[0; 4])?;
        }
        write_archive(&index, &plan, dialect, out)
    };
    write().map_err(|source| InitrdError::Write { source })
}

/// What goes into the new archive, by its cleaned name; directories sort before what is in them.
type Plan<'a> = BTreeMap<Vec<u8>, Planned<'a>>;

enum Planned<'a> {
    /// A directory on the way.
    Parent {
        mode: u32,
    },
    Addition(&'a Addition),
}

impl Planned<'_> {
    fn is_directory(&self) -> bool {
        match self {
            Self::Parent { .. } => true,
            Self::Addition(addition) => addition.content == Content::Directory,
        }
    }
}

/// Finds the place of every addition, behind the links of the base, and the directories that are missing on the way.
fn place<'a>(index: &Index, additions: &'a [Addition]) -> Result<Plan<'a>, InitrdError> {
    let mut plan: Plan<'_> = BTreeMap::new();
    for addition in additions {
        let (parent, name) = split(addition)?;
        let blocked = || InitrdError::Blocked { path: addition.path.clone() };
        let parent = match index.directory(&parent) {
            Place::NotADirectory => return Err(blocked()),
            Place::Directory(parent) => parent,
            Place::Missing(parent) => {
                make_parents(index, &parent, addition, &mut plan)?;
                parent
            }
        };
        let mut name = join(&parent, &name);
        if addition.content != Content::Directory {
            // A file in place of a directory that has something in it would swallow that.
            let below = join(&name, b"");
            let occupied = plan.range(below.clone()..).next().is_some_and(|(n, _)| n.starts_with(&below));
            if occupied || matches!(index.get(&name).map(|e| &e.kind), Some(Kind::Directory)) {
                return Err(blocked());
            }
        } else if plan.get(&name).is_some_and(|planned| !planned.is_directory()) {
            return Err(blocked());
        } else if matches!(index.get(&name).map(|e| &e.kind), Some(Kind::Link(_))) {
            // A directory record would replace the link, while what is put into the directory goes where it leads.
            name = match index.directory(&name) {
                Place::NotADirectory => return Err(blocked()),
                Place::Directory(behind) => behind,
                Place::Missing(behind) => {
                    make_parents(index, parent_of(&behind), addition, &mut plan)?;
                    behind
                }
            };
            if plan.get(&name).is_some_and(|planned| !planned.is_directory()) {
                return Err(blocked());
            }
            if name.is_empty() {
                // The root itself, which is always there.
                continue;
            }
        } else if index.get(&name).is_none() && perhaps_a_link(index, &name) {
            return Err(InitrdError::PerhapsALink { path: addition.path.clone() });
        }
        if index.get(&name).is_some_and(|entry| entry.kind == Kind::File && entry.links > 1) {
            // A second archive would write through the link into the other names; to leave the record out of a single one
            // could leave out their content.
            return Err(InitrdError::Shared { path: addition.path.clone() });
        }
        plan.insert(name, Planned::Addition(addition));
    }
    Ok(plan)
}

/// Whether `name`, which the index does not have, may be a link in what could not be read.
fn perhaps_a_link(index: &Index, name: &[u8]) -> bool {
    index.rest == Rest::Opaque && OFTEN_LINKS.contains(&name)
}

fn parent_of(name: &[u8]) -> &[u8] {
    &name[..name.iter().rposition(|b| *b == b'/').unwrap_or(0)]
}

/// Plans every directory on the way to `parent` that the base does not have for certain.
fn make_parents<'a>(
    index: &Index,
    parent: &[u8],
    addition: &Addition,
    plan: &mut Plan<'a>,
) -> Result<(), InitrdError> {
    if parent.is_empty() {
        return Ok(());
    }
    let ends = parent.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([parent.len()]);
    for end in ends {
        let directory = &parent[..end];
        match plan.get(directory) {
            Some(Planned::Parent { .. }) => continue,
            Some(Planned::Addition(a)) if a.content == Content::Directory => continue,
            Some(Planned::Addition(_)) => return Err(InitrdError::Blocked { path: addition.path.clone() }),
            None => {}
        }
        if index.get(directory).is_some() {
            continue;
        }
        if perhaps_a_link(index, directory) {
            return Err(InitrdError::PerhapsALink { path: addition.path.clone() });
        }
        // In a compressed base the directory may exist, and then gets this mode.
        let mode = match directory {
            b"tmp" | b"var/tmp" => 0o1777,
            b"root" => 0o700,
            _ => 0o755,
        };
        plan.insert(directory.to_vec(), Planned::Parent { mode });
    }
    Ok(())
}

/// The parts of the base to keep: `keep` without the records that the plan replaces. A directory's record stays, because
/// what is in the directory comes after it; the later one only changes its mode (`extract_dir` in Unikraft's `ukcpio`).
fn without(index: &Index, keep: Vec<(u64, u64)>, plan: &Plan<'_>) -> Vec<(u64, u64)> {
    let replaced = plan.iter().filter_map(|(name, planned)| {
        let entry = index.get(name)?;
        (entry.kind != Kind::Directory || !planned.is_directory()).then_some(entry.span)
    });
    let mut holes: Vec<_> = replaced.collect();
    holes.sort_unstable();
    let mut kept = Vec::new();
    for (mut from, to) in keep {
        for (hole_from, hole_to) in &holes {
            if (from..to).contains(hole_from) {
                kept.push((from, *hole_from));
                from = *hole_to;
            }
        }
        kept.push((from, to));
    }
    kept
}

fn write_archive(index: &Index, plan: &Plan<'_>, dialect: Dialect, out: &mut impl Write) -> io::Result<()> {
    // An inode number with several links would join files; each record gets one of its own.
    let mut free =
        (1..=u32::MAX).filter(|inode| dialect == Dialect::Appended || !index.inodes.contains(inode));
    for (name, planned) in plan {
        let inode = free.next().unwrap_or(0);
        let name = match dialect {
            Dialect::Appended => name.clone(),
            Dialect::Single => [b"./", &name[..]].concat(),
        };
        let (kind, mode, content): (u32, u32, &[u8]) = match planned {
            Planned::Parent { mode } => (DIRECTORY, *mode, &[]),
            Planned::Addition(a) => match &a.content {
                Content::Directory => (DIRECTORY, a.mode, &[]),
                Content::File(content) => (REGULAR, a.mode, content),
                Content::Link(to) => (LINK, 0o777, to.as_os_str().as_bytes()),
            },
        };
        let (uid, gid, mtime) = match planned {
            Planned::Parent { .. } => (0, 0, 0),
            Planned::Addition(a) => (a.uid, a.gid, a.mtime),
        };
        let links = if kind == DIRECTORY { 2 } else { 1 };
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mode = kind | (mode & 0o7777);
        Record { inode, mode, uid, gid, links, mtime, size, name }.write_to(out)?;
        out.write_all(content)?;
        pad(out, content.len())?;
    }
    let end =
        Record { inode: 0, mode: 0, uid: 0, gid: 0, links: 1, mtime: 0, size: 0, name: TRAILER.to_vec() };
    end.write_to(out)
}

/// Directory and name of an addition, checked against what the format can say.
fn split(addition: &Addition) -> Result<(Vec<u8>, Vec<u8>), InitrdError> {
    let unfit = || InitrdError::Unfit { path: addition.path.clone() };
    let path = addition.path.as_os_str().as_bytes();
    let cleaned = clean(path);
    let plain = !path.split(|b| *b == b'/').any(|part| part == b"..") && !path.contains(&0);
    let size = match &addition.content {
        Content::File(content) => content.len(),
        Content::Directory => 0,
        Content::Link(to) => to.as_os_str().len(),
    };
    // Room for `./` and the final NUL.
    let fits = cleaned.len() + 3 <= LONGEST_NAME && u32::try_from(size).is_ok();
    if !path.starts_with(b"/") || !plain || !fits || cleaned.is_empty() || cleaned == TRAILER {
        return Err(unfit());
    }
    let at = cleaned.iter().rposition(|b| *b == b'/');
    Ok(match at {
        Some(at) => (cleaned[..at].to_vec(), cleaned[at + 1..].to_vec()),
        None => (Vec::new(), cleaned),
    })
}
