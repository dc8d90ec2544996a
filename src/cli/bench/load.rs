//! What a bench sends, and how much of it may be under way: the same on every path.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU64,
};

use bytes::Bytes;

use super::Options;
use crate::{
    cli::client::{Connection, Sidecar},
    config::Config,
    grpc::proto,
    record::RECORD_OVERHEAD,
};

/// What is sent, and to where.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) topic: String,
    pub(super) value: Bytes,
    pub(super) records: u64,
    pub(super) batch: usize,
    pub(super) streams: usize,
    /// How many keys a filled topic has; none: null keys.
    pub(super) keys: Option<NonZeroU64>,
    /// Of a subscriber's deliveries.
    pub(super) ordering: proto::Ordering,
    /// Records, bytes.
    pub(super) subscribe_window: (u64, u64),
}

impl Load {
    /// As asked for.
    pub(super) fn new(options: &Options) -> Self {
        Self {
            topic: options.topic.clone().unwrap_or_else(fresh_name),
            // Not compressible, and the same on both paths.
            value: (0..options.size as u32)
                .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
            records: options.records,
            batch: options.batch as usize,
            streams: usize::from(options.streams),
            keys: NonZeroU64::new(options.keys),
            ordering: options.ordering.into(),
            subscribe_window: (options.window, options.window_bytes),
        }
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

    /// What all streams together may have unanswered, as configured.
    pub(super) fn streams_window(&self, config: &Config) -> u64 {
        let publish = &config.publish;
        let window = self.window(
            publish.stream_window_records as u64,
            publish.stream_window_bytes as u64,
        );
        window.max(1) * self.streams as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(records: u64, streams: usize, size: usize) -> Load {
        Load {
            topic: "t".to_owned(),
            value: vec![0; size].into(),
            records,
            batch: 100,
            streams,
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
}
