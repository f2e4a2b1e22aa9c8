//! Walks the ELF notes of one PT_NOTE segment (gABI, "Note Section"). Knows no owner and no type.

/// One note: owner, type, contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note<'a> {
    /// The owner with its terminating NUL.
    pub(super) owner: &'a [u8],
    /// The type, which only the owner gives a meaning.
    pub(super) kind: u32,
    /// The contents.
    pub(super) contents: &'a [u8],
}

/// Iterates over the notes in `bytes`, ending at the first that does not fit.
///
/// Fields are aligned to four bytes, in 64-bit files too: that is what GNU ld, LLVM, Linux and Solo5 do.
pub(super) fn notes(mut bytes: &[u8]) -> impl Iterator<Item = Note<'_>> {
    std::iter::from_fn(move || {
        let (owner_size, rest) = u32_le(bytes)?;
        let (contents_size, rest) = u32_le(rest)?;
        let (kind, rest) = u32_le(rest)?;
        let (owner, rest) = padded(rest, owner_size)?;
        let (contents, rest) = padded(rest, contents_size)?;
        bytes = rest;
        Some(Note { owner, kind, contents })
    })
}

/// Splits a little-endian number off the front.
pub(super) fn u32_le(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

/// Splits `size` bytes off the front and skips the padding after them, which the last field may lack.
fn padded(bytes: &[u8], size: u32) -> Option<(&[u8], &[u8])> {
    let size = usize::try_from(size).ok()?;
    let (field, rest) = bytes.split_at_checked(size)?;
    let padding = size.wrapping_neg() % 4;
    Some((field, rest.get(padding..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_padded_to_four_bytes_and_end_with_the_segment() {
        let mut bytes = Vec::new();
        for word in [4_u32, 5, 18] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"Xen\0abcde\0\0\0");
        let first = bytes.len();
        for word in [1_u32, 0, 7] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"\0");
        assert_eq!(first, 24);
        let found: Vec<_> = notes(&bytes).collect();
        assert_eq!(
            found,
            [
                Note { owner: b"Xen\0", kind: 18, contents: b"abcde" },
                Note { owner: b"\0", kind: 7, contents: b"" }
            ]
        );
        assert_eq!(notes(&bytes[..first - 4]).count(), 0);
    }
}
