//! What an existing initrd contains, as far as it can be read without unpacking it.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use super::newc::{DIRECTORY, LINK, LONGEST_NAME, REGULAR, Record, TRAILER, TYPE};

/// More records than any real initrd has; a hostile one could otherwise fill the memory with names.
const MOST_RECORDS: usize = 1 << 20;

/// Bytes in all names and links' targets: as much as a million files with names of 64 bytes have.
const MOST_NAMES: usize = 64 << 20;

/// Most records are small, and their contents are skipped.
const BUFFER: usize = 64 * 1024;

/// As many links are followed as the kernel follows.
const MOST_LINKS: u32 = 40;

/// The records of an initrd.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// What is at each cleaned name; of several records of one name, the last.
    entries: BTreeMap<Vec<u8>, Entry>,
    pub(super) inodes: HashSet<u32>,
    /// Where the first archive's trailer begins.
    pub(super) trailer: Option<u64>,
    pub(super) rest: Rest,
    /// Length of the whole initrd.
    pub(super) length: u64,
    /// Bytes in the names and targets so far.
    names: usize,
}

/// What follows what was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing but zeros.
    #[default]
    Nothing,
    /// Something that is no cpio record: compressed, most likely.
    Opaque,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) links: u32,
    /// Where the record begins and ends.
    pub(super) span: (u64, u64),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Link(Vec<u8>),
    File,
    Other,
}

/// Where a name leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory of the initrd, under this name.
    Directory(Vec<u8>),
    /// Nothing the initrd has; it would be under this name.
    Missing(Vec<u8>),
    /// Something that is not a directory.
    NotADirectory,
}

/// The initrd has more records, or more in their names, than can be remembered.
#[derive(Debug)]
pub(super) struct TooMany;

impl Index {
    /// Reads all records of all archives in `initrd`, up to the first thing that is none.
    pub(super) fn read(initrd: &mut (impl Read + Seek)) -> io::Result<Result<Self, TooMany>> {
        let mut index = Self { length: initrd.seek(SeekFrom::End(0))?, ..Self::default() };
        initrd.rewind()?;
        let mut initrd = BufReader::with_capacity(BUFFER, initrd);
        let mut at = 0;
        for _ in 0..MOST_RECORDS {
            at += skip_zeros(&mut initrd)?;
            if at >= index.length {
                return Ok(Ok(index));
            }
            let record = Record::read_from(&mut initrd)?;
            // The padding after the very last content may be missing.
            let complete = |r: &Record| at + r.head_size() + u64::from(r.size) <= index.length;
            let Some(record) = record.filter(complete) else {
                index.rest = Rest::Opaque;
                return Ok(Ok(index));
            };
            let end = at + record.head_size() + record.content_size();
            let mut content = initrd.by_ref().take(record.content_size());
            if record.name == TRAILER {
                index.trailer.get_or_insert(at);
            } else {
                index.add(&record, (at, end), &mut content)?;
            }
            if index.names > MOST_NAMES {
                return Ok(Err(TooMany));
            }
            let unread = i64::try_from(content.limit()).map_err(|_| io::ErrorKind::InvalidData)?;
            initrd.seek_relative(unread)?;
            at = end;
        }
        Ok(Err(TooMany))
    }

    fn add(&mut self, record: &Record, span: (u64, u64), content: &mut impl Read) -> io::Result<()> {
        let kind = match record.mode & TYPE {
            DIRECTORY => Kind::Directory,
            REGULAR => Kind::File,
            LINK if usize::try_from(record.size).is_ok_and(|size| size < LONGEST_NAME) => {
                let mut target = Vec::new();
                content.take(u64::from(record.size)).read_to_end(&mut target)?;
                self.names += target.len();
                Kind::Link(target)
            }
            _ => Kind::Other,
        };
        self.names += record.name.len();
        self.inodes.insert(record.inode);
        self.entries.insert(clean(&record.name), Entry { kind, links: record.links, span });
        Ok(())
    }

    /// The entry at exactly this cleaned name.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Follows `name`, a cleaned name, through the links of the initrd, as the guest's kernel will.
    pub(super) fn directory(&self, name: &[u8]) -> Place {
        let mut rest: Vec<Vec<u8>> = parts(name).rev().map(<[u8]>::to_vec).collect();
        let mut here: Vec<u8> = Vec::new();
        let mut missing = false;
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == b".." {
                here.truncate(here.iter().rposition(|b| *b == b'/').unwrap_or(0));
                continue;
            }
            let next = join(&here, &part);
            match self.get(&next).map(|e| &e.kind) {
                Some(Kind::Link(target)) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Place::NotADirectory;
                    }
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    rest.extend(parts(target).rev().map(<[u8]>::to_vec));
                    continue;
                }
                Some(Kind::Directory) => {}
                Some(Kind::File | Kind::Other) => return Place::NotADirectory,
                None => missing = true,
            }
            here = next;
        }
        if missing { Place::Missing(here) } else { Place::Directory(here) }
    }
}

/// A name without leading `/` and `./`, doubled or trailing slashes.
pub(super) fn clean(name: &[u8]) -> Vec<u8> {
    parts(name).collect::<Vec<_>>().join(&b'/')
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, name].join(&b'/') }
}

fn parts(name: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// Skips zeros and counts them.
fn skip_zeros(initrd: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = initrd.fill_buf()?;
        let zeros = buffer.iter().take_while(|b| **b == 0).count();
        let more = zeros == buffer.len() && zeros > 0;
        initrd.consume(zeros);
        skipped += u64::try_from(zeros).unwrap_or(0);
        if !more {
            return Ok(skipped);
        }
    }
}
