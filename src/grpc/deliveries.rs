//! The message that carries records to a subscriber: written straight from what Kafka gave, since nothing else is sent as often.
//!
//! It takes the place of the type that would be generated. Who receives one reads it like any other; who sends one has its records in
//! their encoded form already, which is what a protobuf message may be put together from.

use std::time::Instant;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, encode_varint, encoded_len_varint},
};

use super::{convert, proto};
use crate::{
    consume::{Batch, Delivered, Token},
    record::{Header, TimestampKind},
};

/// `outrigger.v1.Deliveries`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deliveries {
    /// As received.
    pub deliveries: Vec<proto::Delivery>,
    /// As received.
    pub lease_expiry: Option<prost_types::Timestamp>,
    /// To be sent: the fields above, encoded.
    encoded: Bytes,
}

impl Message for Deliveries {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        encoding::message::encode_repeated(1, &self.deliveries, buffer);
        if let Some(expiry) = &self.lease_expiry {
            encoding::message::encode(2, expiry, buffer);
        }
        buffer.put_slice(&self.encoded);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => {
                encoding::message::merge_repeated(wire_type, &mut self.deliveries, buffer, context)
            }
            2 => {
                let expiry = self.lease_expiry.get_or_insert_default();
                encoding::message::merge(wire_type, expiry, buffer, context)
            }
            _ => encoding::skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        encoding::message::encoded_len_repeated(1, &self.deliveries)
            + self
                .lease_expiry
                .as_ref()
                .map_or(0, |expiry| encoding::message::encoded_len(2, expiry))
            + self.encoded.len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Deliveries {
    /// What is sent for these records.
    pub(super) fn of(batches: &[Batch], until: Instant) -> Self {
        let mut buffer = Vec::with_capacity(batches.iter().map(room).sum());
        for batch in batches {
            put_batch(&mut buffer, batch);
        }
        encoding::message::encode(2, &convert::moment(until), &mut buffer);
        Self {
            encoded: buffer.into(),
            ..Self::default()
        }
    }
}

/// About what a batch takes, and not less as a rule.
fn room(batch: &Batch) -> usize {
    let bytes: u64 = batch
        .records
        .iter()
        .map(|delivered| delivered.record.charged_bytes())
        .sum();
    bytes as usize + batch.records.len() * (batch.topic.len() + 80)
}

fn put_batch(buffer: &mut Vec<u8>, batch: &Batch) {
    // What is the same in each record.
    let mut place = Vec::with_capacity(batch.topic.len() + 10);
    put_bytes(&mut place, 1, batch.topic.as_bytes());
    put_number(&mut place, 2, batch.partition as u64);
    let mut time = Time::default();
    for delivered in &batch.records {
        time.set(delivered.record.timestamp.map(|(millis, _)| millis));
        put_delivery(buffer, &place, &time.field, delivered);
    }
}

/// A record's time as a field. Many records in a row have the same.
#[derive(Default)]
struct Time {
    of: Option<i64>,
    field: Vec<u8>,
}

impl Time {
    fn set(&mut self, millis: Option<i64>) {
        if self.of == millis {
            return;
        }
        self.of = millis;
        self.field.clear();
        if let Some(millis) = millis {
            encoding::message::encode(6, &convert::timestamp(millis), &mut self.field);
        }
    }
}

fn put_delivery(buffer: &mut Vec<u8>, place: &[u8], time: &[u8], delivered: &Delivered) {
    let Delivered {
        token,
        attempt,
        is_suspect,
        record,
    } = delivered;
    let kind = match record.timestamp {
        None => proto::TimestampType::Unspecified,
        Some((_, TimestampKind::Create)) => proto::TimestampType::CreateTime,
        Some((_, TimestampKind::LogAppend)) => proto::TimestampType::LogAppendTime,
    };
    let record_length = place.len()
        + time.len()
        + record.key().map_or(0, bytes_length)
        + record.value().map_or(0, bytes_length)
        + record
            .headers()
            .iter()
            .map(|header| inner_length(header_length(header)))
            .sum::<usize>();
    let length = inner_length(Token::LENGTH)
        + inner_length(record_length)
        + number_length(record.offset as u64)
        + number_length(kind as u64)
        + number_length(u64::from(*attempt))
        + number_length(u64::from(*is_suspect));
    put_head(buffer, 1, length);
    put_bytes(buffer, 1, &token.encode());
    put_head(buffer, 2, record_length);
    buffer.extend_from_slice(place);
    if let Some(key) = record.key() {
        put_bytes(buffer, 3, key);
    }
    if let Some(value) = record.value() {
        put_bytes(buffer, 4, value);
    }
    for header in record.headers() {
        put_head(buffer, 5, header_length(header));
        if !header.name.is_empty() {
            put_bytes(buffer, 1, header.name.as_bytes());
        }
        if let Some(value) = &header.value {
            put_bytes(buffer, 2, value);
        }
    }
    buffer.extend_from_slice(time);
    // A number that is 0 is not sent, but for an optional one such as the partition.
    for (tag, number) in [
        (3, record.offset as u64),
        (4, kind as u64),
        (5, u64::from(*attempt)),
        (6, u64::from(*is_suspect)),
    ] {
        if number != 0 {
            put_number(buffer, tag, number);
        }
    }
}

fn header_length(header: &Header) -> usize {
    let name = match header.name.len() {
        0 => 0,
        length => inner_length(length),
    };
    name + header.value.as_deref().map_or(0, bytes_length)
}

/// Of a field that is so long inside, with its tag (all are below 16) and its length.
fn inner_length(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn bytes_length(bytes: &[u8]) -> usize {
    inner_length(bytes.len())
}

fn number_length(number: u64) -> usize {
    match number {
        0 => 0,
        _ => 1 + encoded_len_varint(number),
    }
}

fn put_head(buffer: &mut Vec<u8>, tag: u8, length: usize) {
    buffer.push(tag << 3 | WireType::LengthDelimited as u8);
    put_varint(buffer, length as u64);
}

fn put_bytes(buffer: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    put_head(buffer, tag, bytes.len());
    buffer.extend_from_slice(bytes);
}

fn put_number(buffer: &mut Vec<u8>, tag: u8, number: u64) {
    buffer.push(tag << 3 | WireType::Varint as u8);
    put_varint(buffer, number);
}

fn put_varint(buffer: &mut Vec<u8>, number: u64) {
    match u8::try_from(number) {
        Ok(small @ ..0x80) => buffer.push(small),
        _ => encode_varint(number, buffer),
    }
}

#[cfg(test)]
mod tests;
