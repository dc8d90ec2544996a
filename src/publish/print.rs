//! What tells one message id from another, and one record's content from another's: 128 bits of each, so that what is kept has a fixed size.
//!
//! Pure. SHA-256 over a random key of this process and an encoding in which every part says how long it is: nobody can make two records
//! that look alike. What always holds: an id is its topic's own; the timestamp is not content, since a retry may be stamped anew, and neither
//! is the trace context, which every attempt has of its own.

use bytes::Bytes;
use openssl::sha::Sha256;

use crate::{record::Record, traces};

/// The key of a process's prints.
pub(super) struct Key([u8; 32]);

/// A record's id in its topic, and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print {
    pub(super) id: u128,
    pub(super) content: u128,
}

impl Key {
    pub(super) fn random() -> Self {
        let mut key = [0; 32];
        openssl::rand::rand_bytes(&mut key).expect("the system has random numbers");
        Self(key)
    }

    /// The print of a record that has an id.
    pub(super) fn print(&self, record: &Record) -> Print {
        let mut id = self.sum();
        id.bytes(record.topic.as_bytes());
        id.bytes(record.message_id.as_bytes());
        let mut content = self.sum();
        // No partition is negative.
        content.number(record.partition.map_or(-1, i64::from));
        content.optional(&record.key);
        content.optional(&record.value);
        let headers = record.headers.iter();
        for header in headers.filter(|header| !traces::is_propagated(&header.name)) {
            content.bytes(header.name.as_bytes());
            content.optional(&header.value);
        }
        Print {
            id: id.finish(),
            content: content.finish(),
        }
    }

    fn sum(&self) -> Sum {
        let mut sum = Sum(Sha256::new());
        sum.0.update(&self.0);
        sum
    }
}

struct Sum(Sha256);

impl Sum {
    fn number(&mut self, number: i64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as i64);
        self.0.update(bytes);
    }

    fn optional(&mut self, bytes: &Option<Bytes>) {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            // No length is negative.
            None => self.number(-1),
        }
    }

    fn finish(self) -> u128 {
        let digest = self.0.finish();
        let (half, _) = digest.split_at(16);
        u128::from_le_bytes(half.try_into().expect("sixteen bytes"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Header;

    fn record(value: &'static str) -> Record {
        Record {
            topic: "t".into(),
            value: Some(value.into()),
            message_id: "id".into(),
            ..Record::default()
        }
    }

    fn header(name: &str, value: Option<&'static str>) -> Header {
        Header {
            name: name.into(),
            value: value.map(Bytes::from),
        }
    }

    #[test]
    fn an_id_is_its_topics_own_and_does_not_run_into_its_name() {
        let key = Key::random();
        let id = |topic: &str, id: &str| {
            let record = Record {
                topic: topic.into(),
                message_id: id.into(),
                ..record("v")
            };
            key.print(&record).id
        };
        assert_eq!(id("t", "1"), id("t", "1"));
        assert_ne!(id("t", "1"), id("t", "2"));
        assert_ne!(id("t", "1"), id("u", "1"));
        assert_ne!(id("ab", "c"), id("a", "bc"));
    }

    #[test]
    fn every_process_has_prints_of_its_own() {
        assert_ne!(
            Key::random().print(&record("v")),
            Key::random().print(&record("v"))
        );
    }

    #[test]
    fn a_time_and_a_trace_context_are_not_content() {
        let key = Key::random();
        let traced = Record {
            timestamp: Some(5),
            headers: vec![
                header("traceparent", Some("00-1")),
                header("a", None),
                header("tracestate", Some("x=1")),
            ],
            ..record("v")
        };
        let plain = Record {
            headers: vec![header("a", None)],
            ..record("v")
        };
        assert_eq!(key.print(&traced), key.print(&plain));
    }

    fn bytes() -> impl Strategy<Value = Option<Bytes>> {
        // One letter, so that contents often differ only in where one part ends.
        proptest::option::of("a{0,2}".prop_map(Bytes::from))
    }

    fn records() -> impl Strategy<Value = Record> {
        let header = ("a{1,2}", bytes()).prop_map(|(name, value)| Header { name, value });
        let headers = proptest::collection::vec(header, 0..3);
        let partition = proptest::option::of(0..2);
        (partition, bytes(), bytes(), headers).prop_map(|(partition, key, value, headers)| Record {
            partition,
            key,
            value,
            headers,
            ..record("")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn two_contents_are_alike_only_when_they_are_the_same(one in records(), other in records()) {
            let key = Key([7; 32]);
            prop_assert_eq!(key.print(&one).content == key.print(&other).content, one == other);
        }
    }
}
