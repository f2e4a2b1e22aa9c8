//! Reading a message by the numbers of its fields (protobuf.dev, "Encoding"): for those few messages of containerd of which the shim wants one
//! field or two, and which `containerd-shim-protos` does not have.

use containerd_shim_protos::protobuf::{CodedInputStream, Result, rt};

/// All fields with a number that are texts, bytes or messages.
///
/// # Errors
/// If it is no message.
pub fn blobs(message: &[u8], number: u32) -> Result<Vec<Vec<u8>>> {
    const LENGTH_DELIMITED: u32 = 2;
    const WIRE_TYPE_BITS: u32 = 3;
    let mut input = CodedInputStream::from_bytes(message);
    let mut found = Vec::new();
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        if tag == number << WIRE_TYPE_BITS | LENGTH_DELIMITED {
            found.push(input.read_bytes()?);
        } else {
            rt::skip_field_for_tag(tag, &mut input)?;
        }
    }
    Ok(found)
}

/// A field that is there once: of several, the last counts.
///
/// # Errors
/// If it is no message.
pub fn blob(message: &[u8], number: u32) -> Result<Option<Vec<u8>>> {
    Ok(blobs(message, number)?.pop())
}

/// A field that is a text.
///
/// # Errors
/// If it is no message.
pub fn text(message: &[u8], number: u32) -> Result<Option<String>> {
    Ok(blob(message, number)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_number() {
        let message = [0x0a, 0x04, b'n', b'a', b'm', b'e', 0x10, 0x05, 0x1a, 0x01, b'x'];
        assert_eq!(text(&message, 1).unwrap().as_deref(), Some("name"));
        assert_eq!(text(&message, 3).unwrap().as_deref(), Some("x"));
        // A number.
        assert_eq!(text(&message, 2).unwrap(), None);
        for wrong in [&[0x0a, 0xff][..], b"{\"a\": 1}", b"unix:///s"] {
            assert!(blobs(wrong, 1).is_err(), "{wrong:?}");
        }
    }
}
