//! Reads a delivery in one pass over its bytes, which its token, key and value then share.

use std::ops::Range;

use bytes::Bytes;

use crate::grpc::proto;

/// Into a default one, in place: it is large to move. `None`, where it has not the form that it has as a rule: it is to be read field by field
/// then.
pub(super) fn delivery(bytes: &Bytes, delivery: &mut proto::Delivery) -> Option<()> {
    let mut fields = Fields::new(bytes, 0..bytes.len());
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Bytes(token)) => delivery.token = bytes.slice(token),
            (2, Field::Bytes(inner)) if delivery.record.is_none() => {
                record(
                    bytes,
                    inner,
                    delivery.record.insert(proto::Record::default()),
                )?;
            }
            (3, Field::Number(offset)) => delivery.offset = offset as i64,
            (4, Field::Number(kind)) => delivery.timestamp_type = kind as i32,
            (5, Field::Number(attempt)) => delivery.attempt = attempt as u32,
            (6, Field::Number(suspect)) => delivery.suspect = suspect != 0,
            _ => return None,
        }
    }
    Some(())
}

fn record(bytes: &Bytes, inner: Range<usize>, record: &mut proto::Record) -> Option<()> {
    let mut fields = Fields::new(bytes, inner);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Bytes(topic)) => record.topic = text(&bytes[topic])?,
            (2, Field::Number(partition)) => record.partition = Some(partition as i32),
            (3, Field::Bytes(key)) => record.key = Some(bytes.slice(key)),
            (4, Field::Bytes(value)) => record.value = Some(bytes.slice(value)),
            (5, Field::Bytes(inner)) => record.headers.push(header(bytes, inner)?),
            (6, Field::Bytes(inner)) if record.timestamp.is_none() => {
                record.timestamp = Some(timestamp(bytes, inner)?);
            }
            _ => return None,
        }
    }
    Some(())
}

fn header(bytes: &Bytes, inner: Range<usize>) -> Option<proto::Header> {
    let mut header = proto::Header::default();
    let mut fields = Fields::new(bytes, inner);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Bytes(name)) => header.name = text(&bytes[name])?,
            (2, Field::Bytes(value)) => header.value = Some(bytes.slice(value)),
            _ => return None,
        }
    }
    Some(header)
}

fn timestamp(bytes: &Bytes, inner: Range<usize>) -> Option<prost_types::Timestamp> {
    let mut timestamp = prost_types::Timestamp::default();
    let mut fields = Fields::new(bytes, inner);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Number(seconds)) => timestamp.seconds = seconds as i64,
            (2, Field::Number(nanos)) => timestamp.nanos = nanos as i32,
            _ => return None,
        }
    }
    Some(timestamp)
}

fn text(bytes: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(bytes).ok()?.to_owned())
}

enum Field {
    Number(u64),
    Bytes(Range<usize>),
}

/// The fields of a message; each with its tag.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8], message: Range<usize>) -> Self {
        Self {
            at: message.start,
            bytes: &bytes[..message.end],
        }
    }

    /// `Some(None)` at the end, `None` for what is not read here.
    fn next(&mut self) -> Option<Option<(u8, Field)>> {
        let Some(&key) = self.bytes.get(self.at) else {
            return Some(None);
        };
        // One byte: the tags are below 16.
        self.at += 1;
        let number = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(number),
            2 => {
                let end = self.at.checked_add(usize::try_from(number).ok()?)?;
                if end > self.bytes.len() {
                    return None;
                }
                Field::Bytes(std::mem::replace(&mut self.at, end)..end)
            }
            _ => return None,
        };
        (key < 0x80).then_some(Some((key >> 3, field)))
    }

    fn varint(&mut self) -> Option<u64> {
        let (number, length) = varint(&self.bytes[self.at..])?;
        self.at += length;
        Some(number)
    }
}

/// A number at the beginning, and how long it is.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    // The tenth byte would have to be looked at for what does not fit: left to others.
    for (index, byte) in bytes.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, index + 1));
        }
    }
    None
}
