//! The layout of netlink payloads: a fixed header, then attributes of type, length and value, padded to four
//! bytes, some of which hold attributes themselves (netlink(7), linux/netlink.h `struct nlattr`).

/// Marks an attribute that holds attributes (linux/netlink.h).
const NLA_F_NESTED: u16 = 1 << 15;
/// The bits of an attribute's type that are its type.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A payload being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payload(Vec<u8>);

impl Payload {
    /// Starts with a fixed header, given as its bytes.
    pub(crate) fn new(header: &[u8]) -> Self {
        Payload(header.to_vec())
    }

    /// Adds an attribute.
    pub(crate) fn attr(mut self, kind: impl Into<u16>, value: &[u8]) -> Self {
        // Nothing that is sent from here comes near 64 KiB; the kernel would refuse what is cut.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.into().to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a number in the machine's byte order, as rtnetlink has them.
    pub(crate) fn u32(self, kind: impl Into<u16>, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order, as nf_tables has them.
    pub(crate) fn be32(self, kind: impl Into<u16>, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds text with its final zero byte.
    pub(crate) fn text(self, kind: impl Into<u16>, text: &str) -> Self {
        self.attr(kind, &[text.as_bytes(), b"\0"].concat())
    }

    /// Adds an attribute that holds attributes, written by `inside`.
    pub(crate) fn nest(self, kind: impl Into<u16>, inside: impl FnOnce(Payload) -> Payload) -> Self {
        self.attr(kind.into() | NLA_F_NESTED, &inside(Payload::default()).0)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The attributes in `bytes`, in order; what is cut off at the end is left out.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]])).checked_sub(4)?;
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        let value = rest.get(..length)?;
        bytes = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of the given type.
pub(crate) fn attribute(bytes: &[u8], kind: impl Into<u16>) -> Option<&[u8]> {
    let kind = kind.into();
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A number in the machine's byte order at the start of `bytes`.
pub(crate) fn u32_at(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// Text up to its zero byte, or to the end.
pub(crate) fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_attribute_is_padded_and_its_length_is_not() {
        let payload = Payload::new(&[9; 4]).text(3_u16, "lo").u32(4_u16, 7);
        let mut expected = vec![9, 9, 9, 9];
        expected.extend([7_u16.to_ne_bytes(), 3_u16.to_ne_bytes()].concat());
        expected.extend(b"lo\0\0");
        expected.extend([8_u16.to_ne_bytes(), 4_u16.to_ne_bytes()].concat());
        expected.extend(7_u32.to_ne_bytes());
        assert_eq!(payload.into_bytes(), expected);
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read_back(values in prop::collection::vec((0_u16..0x4000, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let inside = |p: Payload| values.iter().fold(p, |p, (kind, value)| p.attr(*kind, value));
            let bytes = Payload::default().nest(1_u16, inside).into_bytes();
            let read: Vec<_> = attributes(attribute(&bytes, 1_u16).unwrap())
                .map(|(kind, value)| (kind, value.to_vec()))
                .collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn no_bytes_make_the_reader_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = attributes(&bytes).map(|(_, value)| value.len() + 4).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
