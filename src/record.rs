//! The vocabulary: records, partitions, offsets and byte counts.
//!
//! Plain data, shared by every room. Not here: protobuf types (`grpc`), librdkafka types (`kafka`).
//! What always holds: an absent key or value differs from an empty one, and header order and duplicates are kept.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

/// What a record costs in memory besides its own bytes: librdkafka's message and ours around it.
/// Measured on librdkafka 2.12 as a little over 200 bytes; rounded up so that the bound errs on the safe side.
pub const RECORD_OVERHEAD: usize = 300;

/// The longest name that Kafka allows a topic.
const MAX_TOPIC_LENGTH: usize = 249;

/// A record on its way to Kafka.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The topic, checked by [`topic_problem`].
    pub topic: String,
    /// The partition that the caller chose; absent: the partitioner chooses.
    pub partition: Option<i32>,
    /// Absent: a null key.
    pub key: Option<Bytes>,
    /// Absent: a null value (a tombstone on a compacted topic).
    pub value: Option<Bytes>,
    /// In the caller's order, duplicates included.
    pub headers: Vec<Header>,
    /// Milliseconds since the epoch; absent: stamped when it is admitted.
    pub timestamp: Option<i64>,
    /// What makes a retry known as one; empty: nothing. It is not sent to Kafka.
    pub message_id: String,
}

/// One header of a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// The name; a foreign one that is not UTF-8 arrives lossily converted.
    pub name: String,
    /// Absent: a null value.
    pub value: Option<Bytes>,
}

impl Record {
    /// The bytes that Kafka's size limit counts: key, value, header names and values.
    pub fn payload_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(Header::bytes).sum();
        length(&self.key) + length(&self.value) + headers
    }

    /// The bytes that this record is charged in memory.
    pub fn charged_bytes(&self) -> usize {
        self.payload_bytes() + self.message_id.len() + RECORD_OVERHEAD
    }
}

impl Header {
    fn bytes(&self) -> usize {
        self.name.len() + length(&self.value)
    }
}

fn length(bytes: &Option<Bytes>) -> usize {
    bytes.as_ref().map_or(0, Bytes::len)
}

/// A record as it was read from Kafka. Clones share its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumed {
    /// Its position in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch and who set them; absent: the log holds none.
    pub timestamp: Option<(i64, TimestampKind)>,
    /// The key's bytes, then the value's: one allocation a record.
    bytes: Arc<[u8]>,
    /// How many of them are the key's; absent: a null key.
    key: Option<u32>,
    has_value: bool,
    /// Absent: none.
    headers: Option<Arc<[Header]>>,
}

impl Consumed {
    /// `bytes` are the key's, `key` of them, and then the value's. Headers are in the log's order, duplicates included.
    pub fn new(
        offset: i64,
        timestamp: Option<(i64, TimestampKind)>,
        bytes: Arc<[u8]>,
        key: Option<u32>,
        has_value: bool,
        headers: Vec<Header>,
    ) -> Self {
        Self {
            offset,
            timestamp,
            bytes,
            key,
            has_value,
            headers: (!headers.is_empty()).then(|| Arc::from(headers)),
        }
    }

    /// Absent: a null key.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.map(|length| &self.bytes[..length as usize])
    }

    /// Absent: a null value.
    pub fn value(&self) -> Option<&[u8]> {
        let key = self.key.unwrap_or(0) as usize;
        self.has_value.then(|| &self.bytes[key..])
    }

    /// In the log's order, duplicates included.
    pub fn headers(&self) -> &[Header] {
        self.headers.as_ref().map_or(&[], |headers| headers)
    }

    /// The same, to be changed in this clone alone.
    pub fn headers_mut(&mut self) -> &mut [Header] {
        match &mut self.headers {
            Some(headers) => Arc::make_mut(headers),
            None => &mut [],
        }
    }

    /// The bytes that this record is charged in memory and against a window.
    pub fn charged_bytes(&self) -> u64 {
        let headers: usize = self.headers().iter().map(Header::bytes).sum();
        (self.bytes.len() + headers) as u64
    }
}

/// Who set a record's timestamp (`message.timestamp.type` of the topic).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampKind {
    /// The producer.
    Create,
    /// The broker, at the append.
    LogAppend,
}

/// A topic and one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// From 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// A count of records and of their bytes: what every bound is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Usage {
    /// Counts one more.
    pub fn add(&mut self, other: Usage) {
        self.records += other.records;
        self.bytes += other.bytes;
    }

    /// Gives a count back; going below zero would be a counting bug and stops at zero.
    pub fn sub(&mut self, other: Usage) {
        debug_assert!(self.records >= other.records && self.bytes >= other.bytes);
        self.records = self.records.saturating_sub(other.records);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    /// Whether `more` still fits under `bound`.
    pub fn fits(&self, more: Usage, bound: Usage) -> bool {
        self.records + more.records <= bound.records && self.bytes + more.bytes <= bound.bytes
    }
}

/// Why `name` cannot be a topic's name by Kafka's own rules, or `None` when it can.
pub fn topic_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("must not be empty")
    } else if name == "." || name == ".." {
        Some("must not be '.' or '..'")
    } else if name.len() > MAX_TOPIC_LENGTH {
        Some("must not be longer than 249 characters")
    } else if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        Some("may hold only letters, digits, '.', '_' and '-'")
    } else {
        None
    }
}

/// Milliseconds since the epoch, as timestamps are.
pub fn wall_clock() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rules() {
        for good in ["a", "orders.v1", "A_b-9", &"x".repeat(249)] {
            assert_eq!(topic_problem(good), None, "{good}");
        }
        for bad in ["", ".", "..", "a b", "ö", "a/b", "a\0", &"x".repeat(250)] {
            assert!(topic_problem(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn a_record_is_charged_for_key_value_headers_id_and_overhead() {
        let record = Record {
            topic: "t".into(),
            key: Some(Bytes::from_static(b"12")),
            value: Some(Bytes::from_static(b"345")),
            headers: vec![Header {
                name: "abcd".into(),
                value: Some(Bytes::from_static(b"56789")),
            }],
            message_id: "id".into(),
            ..Record::default()
        };
        assert_eq!(record.payload_bytes(), 2 + 3 + 4 + 5);
        assert_eq!(record.charged_bytes(), 14 + 2 + RECORD_OVERHEAD);
    }
}
