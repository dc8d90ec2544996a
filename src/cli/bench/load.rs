//! What a bench sends, and how much of it may be under way: the same on every path.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU64,
    sync::Arc,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use prost::Message as _;

use super::{Kind, Options, publish::Mode};
use crate::{
    cli::client::{Connection, Sidecar},
    config::Config,
    grpc::proto::{self, PublishStreamRequest, publish_stream_request::Message},
    record::RECORD_OVERHEAD,
};

/// Connections that streams have of their own; more streams share them.
const CONNECTIONS: usize = 100;

/// Records in a message when nobody says.
const BATCH: u32 = 100;

/// What is sent, and to where.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Records go to them in turn.
    pub(super) topics: Arc<[String]>,
    pub(super) value: Bytes,
    pub(super) records: u64,
    pub(super) batch: usize,
    pub(super) streams: usize,
    /// Shared by the streams, or by the calls.
    pub(super) connections: usize,
    /// How many keys a filled topic has; none: null keys.
    pub(super) keys: Option<NonZeroU64>,
    /// Of a subscriber's deliveries.
    pub(super) ordering: proto::Ordering,
    /// Records, bytes.
    pub(super) subscribe_window: (u64, u64),
}

impl Load {
    /// As asked for.
    pub(super) fn new(options: &Options, kind: Kind) -> Self {
        let streams = usize::from(options.streams);
        let topic = options.topic.clone().unwrap_or_else(fresh_name);
        let topics = match kind {
            Kind::Publish(how) => how.topics,
            Kind::Subscribe | Kind::Latency(_) => 1,
        };
        let (batch, records, parties) = match kind {
            Kind::Publish(how) => (
                match how.mode {
                    Mode::Batch => options.batch.unwrap_or(BATCH),
                    Mode::Stream | Mode::Unary => 1,
                },
                how.records(),
                streams.max(how.calls.into()),
            ),
            Kind::Subscribe | Kind::Latency(_) => (BATCH, 1_000_000, streams),
        };
        Self {
            topics: names(topic, topics).into(),
            value: value(options.size),
            records: options.records.unwrap_or(records),
            batch: batch as usize,
            streams,
            connections: match options.connections {
                Some(connections) => parties.min(connections.into()),
                None => parties.min(CONNECTIONS),
            },
            keys: NonZeroU64::new(options.keys),
            ordering: options.ordering.into(),
            subscribe_window: (options.window, options.window_bytes),
        }
    }

    /// Of streams without an end, to one topic.
    pub(super) fn of(topic: &str, size: usize, batch: usize, streams: usize) -> Self {
        Self {
            topics: [topic.to_owned()].into(),
            value: value(size),
            records: u64::MAX,
            batch,
            streams,
            connections: streams.min(CONNECTIONS),
            keys: None,
            ordering: proto::Ordering::Unspecified,
            subscribe_window: (0, 0),
        }
    }

    /// The first of the topics, or the only one.
    pub(super) fn topic(&self) -> &str {
        &self.topics[0]
    }

    /// The records of one of the streams; together they are all.
    pub(super) fn share(&self, stream: usize) -> u64 {
        let streams = self.streams as u64;
        self.records / streams + u64::from((stream as u64) < self.records % streams)
    }

    /// How many records may be unanswered within a window of both counts.
    pub(super) fn window(&self, records: u64, bytes: u64) -> u64 {
        records.min(bytes / (self.value.len() + RECORD_OVERHEAD) as u64)
    }

    /// A record of it, by its number.
    pub(super) fn record(&self, number: u64) -> proto::Record {
        let topic = number % self.topics.len() as u64;
        proto::Record {
            topic: self.topics[topic as usize].clone(),
            // Counted, not copied.
            value: Some(self.value.clone()),
            ..Default::default()
        }
    }

    /// A message of a stream that has sent `gone` records.
    pub(super) fn message(&self, sequence: u64, gone: u64, count: usize) -> PublishStreamRequest {
        let numbers = gone..gone + count as u64;
        batch(
            sequence,
            numbers.map(|number| self.record(number)).collect(),
        )
    }
}

/// A message of a stream.
pub(super) fn batch(sequence: u64, records: Vec<proto::Record>) -> PublishStreamRequest {
    PublishStreamRequest {
        message: Some(Message::Batch(proto::PublishBatch {
            sequence,
            records,
            ack_level: 0,
        })),
    }
}

/// Not compressible, and the same on both paths.
fn value(size: usize) -> Bytes {
    (0..size as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// So many topics; one alone has the name itself.
fn names(topic: String, count: u32) -> Vec<String> {
    match count {
        1 => vec![topic],
        many => (0..many)
            .map(|number| format!("{topic}-{number}"))
            .collect(),
    }
}

/// What a sidecar takes of one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Unanswered.
    records: u64,
    bytes: u64,
    record_bytes: u64,
    message_bytes: u64,
}

impl Limits {
    /// As configured.
    pub(super) fn of(config: &Config) -> Self {
        let publish = &config.publish;
        Self {
            records: publish.stream_window_records as u64,
            bytes: publish.stream_window_bytes as u64,
            record_bytes: publish.max_record_bytes as u64,
            message_bytes: config.listen.max_message_bytes as u64,
        }
    }

    /// As a sidecar says.
    pub(super) fn told(welcome: &proto::PublishWelcome) -> Self {
        Self {
            records: welcome.window_records,
            bytes: welcome.window_bytes,
            record_bytes: welcome.max_record_bytes,
            message_bytes: welcome.max_message_bytes,
        }
    }

    /// How many records of a load a stream may have unanswered. The error says what to change when not even a message fits.
    pub(super) fn window(self, load: &Load) -> anyhow::Result<u64> {
        let size = load.value.len() as u64;
        ensure!(
            size <= self.record_bytes,
            "a record of {size} B is larger than the sidecar takes ({0} B): a smaller --size, or --set publish.max_record_bytes={size} \
             and a topic whose max.message.bytes has room for it",
            self.record_bytes
        );
        let window = load.window(self.records, self.bytes);
        ensure!(
            window >= load.batch as u64,
            "a message of {} records does not fit the window of a stream, which has room for {window}: a smaller --batch, or a larger \
             publish.stream_window_bytes and publish.stream_window_records",
            load.batch
        );
        let one = load.message(u64::MAX, 0, 1).encoded_len() as u64;
        let message = load.message(u64::MAX, 0, load.batch).encoded_len() as u64;
        ensure!(
            message <= self.message_bytes,
            "a message of {} records has {message} B, and the sidecar takes {}: --batch {}, or a larger listen.max_message_bytes",
            load.batch,
            self.message_bytes,
            self.message_bytes / one
        );
        Ok(window)
    }
}

/// The name of a topic that is not there yet.
pub(super) fn fresh_name() -> String {
    // Hashers are seeded at random.
    format!("outrigger-bench-{:016x}", RandomState::new().hash_one(()))
}

/// A connection of its own.
pub(super) async fn connect(address: &str) -> anyhow::Result<Connection> {
    let address = address.to_owned();
    Sidecar::at(address).connect().await
}

/// So many connections.
pub(super) async fn connections(count: usize, address: &str) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for number in 0..count {
        let connection = connect(address).await;
        connections.push(connection.with_context(|| {
            format!("{number} connections are open, and no more can be: fewer --connections, or more open files (ulimit -n) and listen.max_connections")
        })?);
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(records: u64, streams: usize, size: usize) -> Load {
        Load {
            topics: ["t".to_owned()].into(),
            value: vec![0; size].into(),
            records,
            batch: 100,
            streams,
            connections: 1,
            keys: None,
            ordering: proto::Ordering::Key,
            subscribe_window: (1, 1),
        }
    }

    #[test]
    fn the_streams_share_all_records() {
        for (records, streams) in [(10, 3), (2, 3), (9, 3), (1, 1)] {
            let load = load(records, streams, 1);
            let shares = (0..streams).map(|stream| load.share(stream));
            assert_eq!(shares.sum::<u64>(), records);
        }
    }

    #[test]
    fn a_window_is_bounded_by_records_and_by_what_they_are_charged() {
        assert_eq!(load(1, 1, 100).window(10_000, 16 << 20), 10_000);
        let large = 10_000 + RECORD_OVERHEAD as u64;
        assert_eq!(load(1, 1, 10_000).window(10_000, 5 * large), 5);
    }

    #[test]
    fn a_message_that_never_fits_is_refused_with_what_would() {
        let limits = Limits {
            records: 1000,
            bytes: 32 << 20,
            record_bytes: 1_000_000,
            message_bytes: 8 << 20,
        };
        let one = |size| Load {
            batch: 1,
            ..load(1, 1, size)
        };
        assert_eq!(limits.window(&one(16)).unwrap(), 1000);
        assert_eq!(limits.window(&one(1_000_000)).unwrap(), 33);
        let refused = |limits: Limits, load| limits.window(&load).unwrap_err().to_string();
        for (error, advice) in [
            (
                refused(limits, one(1_000_001)),
                "publish.max_record_bytes=1000001",
            ),
            // 25 of them fit the window, but not the message.
            (
                refused(
                    limits,
                    Load {
                        batch: 25,
                        ..one(1_000_000)
                    },
                ),
                "--batch 8,",
            ),
            (
                refused(
                    Limits {
                        records: 99,
                        ..limits
                    },
                    load(1, 1, 100),
                ),
                "room for 99",
            ),
        ] {
            assert!(error.contains(advice), "{error}");
        }
    }
}
