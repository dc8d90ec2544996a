//! Which partitions a request goes to, as far as that is known before librdkafka decides.
//!
//! Records without a key go where librdkafka likes, and it likes partitions that have a leader: they are counted to none.

use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use super::shares::PartitionKey;
use crate::{
    kafka::Producer,
    record::{Record, Usage},
};

/// What goes to each of them.
pub(super) fn of(records: &[Record], producer: &Producer) -> Vec<(PartitionKey, Usage)> {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let is_placed = |record: &&Record| record.partition.is_some() || record.key.is_some();
    let mut parts: Vec<(PartitionKey, Usage)> = Vec::new();
    for run in records.chunk_by(|one, next| one.topic == next.topic) {
        let mut placed = run.iter().filter(is_placed).peekable();
        if placed.peek().is_none() {
            continue;
        }
        let topic = KEYS.hash_one(&run[0].topic);
        let place = producer.places(&run[0].topic);
        for record in placed {
            if let Some(partition) = place.of(record) {
                let usage = Usage {
                    records: 1,
                    bytes: record.charged_bytes() as u64,
                };
                parts.push((KEYS.hash_one((topic, partition)), usage));
            }
        }
    }
    parts.sort_unstable_by_key(|(partition, _)| *partition);
    parts.dedup_by(|(partition, usage), (before, all)| {
        let is_same = partition == before;
        if is_same {
            all.add(*usage);
        }
        is_same
    });
    parts
}
