//! One record of a cpio "newc" archive: header, name and content, each padded to four bytes.

use std::io::{self, Read, Write};

/// Length of a header: the magic number and thirteen fields of eight hexadecimal digits.
const HEADER: usize = 6 + 13 * 8;
const MAGIC: &[u8; 6] = b"070701";
/// The same format with checksums, which nobody verifies.
const MAGIC_CRC: &[u8; 6] = b"070702";
/// Name of the record that ends an archive.
pub(super) const TRAILER: &[u8] = b"TRAILER!!!";
/// The kernel ignores longer names (`PATH_MAX`).
pub(super) const LONGEST_NAME: usize = 4096;

pub(super) const TYPE: u32 = 0o170_000;
pub(super) const DIRECTORY: u32 = 0o040_000;
pub(super) const REGULAR: u32 = 0o100_000;
pub(super) const LINK: u32 = 0o120_000;

/// The fields of a record that mean something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) inode: u32,
    /// Type and permissions.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) mtime: u32,
    pub(super) size: u32,
    /// Without the terminating NUL.
    pub(super) name: Vec<u8>,
}

impl Record {
    /// Writes the record up to its content.
    pub(super) fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
        let name_size = u32::try_from(self.name.len() + 1).map_err(|_| too_long())?;
        let Self { inode, mode, uid, gid, links, mtime, size, .. } = *self;
        let mut header = MAGIC.to_vec();
        for field in [inode, mode, uid, gid, links, mtime, size, 0, 0, 0, 0, name_size, 0] {
            write!(header, "{field:08X}")?;
        }
        out.write_all(&header)?;
        out.write_all(&self.name)?;
        out.write_all(&[0])?;
        pad(out, HEADER + self.name.len() + 1)
    }

    /// Reads the record up to its content. `None` if what comes is not a record.
    pub(super) fn read_from(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        if !fill(input, &mut header)? {
            return Ok(None);
        }
        let (magic, fields) = header.split_at(MAGIC.len());
        if magic != MAGIC && magic != MAGIC_CRC {
            return Ok(None);
        }
        let mut numbers = [0; 13];
        for (number, digits) in numbers.iter_mut().zip(fields.chunks_exact(8)) {
            match hexadecimal(digits) {
                Some(value) => *number = value,
                None => return Ok(None),
            }
        }
        let [inode, mode, uid, gid, links, mtime, size, _, _, _, _, name_size, _] = numbers;
        let Some(name_size) = usize::try_from(name_size).ok().filter(|n| (1..=LONGEST_NAME).contains(n))
        else {
            return Ok(None);
        };
        let mut name = vec![0; name_size + padding(HEADER + name_size)];
        if !fill(input, &mut name)? || name[name_size - 1] != 0 {
            return Ok(None);
        }
        name.truncate(name_size - 1);
        Ok(Some(Self { inode, mode, uid, gid, links, mtime, size, name }))
    }

    /// How many bytes header, name and their padding take.
    pub(super) fn head_size(&self) -> u64 {
        let size = HEADER + self.name.len() + 1;
        u64::try_from(size + padding(size)).unwrap_or(u64::MAX)
    }

    /// How many bytes the content and its padding take.
    pub(super) fn content_size(&self) -> u64 {
        u64::from(self.size).next_multiple_of(4)
    }
}

/// Writes the zeros that belong after `written` bytes.
pub(super) fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..padding(written)])
}

fn padding(written: usize) -> usize {
    written.next_multiple_of(4) - written
}

/// Fills `buffer`, or says that the input ends before.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    // `from_str_radix` would take a sign.
    let valid = digits.iter().all(u8::is_ascii_hexdigit);
    valid.then(|| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()).flatten()
}
