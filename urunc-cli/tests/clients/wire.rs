//! Protobuf's wire format (protobuf.dev, "Encoding"), by field numbers: as much as CRI's messages need.

/// A field with a text or a message.
pub(crate) fn bytes(field: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut all = varint(u64::from(field) << 3 | 2);
    all.extend(varint(u64::try_from(content.len()).unwrap()));
    all.extend(content);
    all
}

/// A field with a message made of fields.
pub(crate) fn message(field: u32, fields: &[Vec<u8>]) -> Vec<u8> {
    bytes(field, fields.concat())
}

pub(crate) fn number(field: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(field) << 3), varint(value)].concat()
}

/// A map from texts to texts, each entry of which is a message.
pub(crate) fn map<'a>(field: u32, entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    entries.into_iter().flat_map(|(key, value)| message(field, &[bytes(1, key), bytes(2, value)])).collect()
}

/// A received message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Message {
    /// The first field of a number. One that is not there is empty or 0, as protobuf has it.
    fn find(&self, field: u32) -> Option<Value> {
        let mut rest = self.0.as_slice();
        while !rest.is_empty() {
            let key = take_varint(&mut rest);
            let value = match key & 7 {
                0 => Value::Number(take_varint(&mut rest)),
                kind => {
                    let length = match kind {
                        1 => 8,
                        2 => usize::try_from(take_varint(&mut rest)).unwrap(),
                        5 => 4,
                        other => panic!("wire type {other}"),
                    };
                    let (content, after) = rest.split_at(length);
                    rest = after;
                    Value::Bytes(content.to_vec())
                }
            };
            if key >> 3 == u64::from(field) {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn message(&self, field: u32) -> Self {
        match self.find(field) {
            Some(Value::Bytes(content)) => Self(content),
            _ => Self::default(),
        }
    }

    pub(crate) fn text(&self, field: u32) -> String {
        String::from_utf8(self.message(field).0).unwrap()
    }

    pub(crate) fn number(&self, field: u32) -> u64 {
        match self.find(field) {
            Some(Value::Number(value)) => value,
            _ => 0,
        }
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            all.push(low);
            return all;
        }
        all.push(low | 0x80);
    }
}

fn take_varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
