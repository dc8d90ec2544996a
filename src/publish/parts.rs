//! Which partitions a request goes to, as far as that is known before librdkafka decides.
//!
//! Records without a key go where librdkafka likes, and it likes partitions that have a leader: they are counted to none.

use crate::{
    kafka::{Keys, PartitionKey, Producer},
    record::{Record, Usage},
};

/// Where each record goes, and what goes to each of these partitions.
pub(super) fn of(records: &[Record], producer: &Producer) -> (Keys, Vec<(PartitionKey, Usage)>) {
    let mut keys: Vec<Option<PartitionKey>> = Vec::new();
    let mut parts: Vec<(PartitionKey, Usage)> = Vec::new();
    let is_placed = |record: &Record| record.partition.is_some() || record.key.is_some();
    let mut index = 0;
    for run in records.chunk_by(|one, next| one.topic == next.topic) {
        if run.iter().any(is_placed) {
            let place = producer.places(&run[0].topic);
            keys.resize(index, None);
            keys.extend(run.iter().map(|record| place.of(record)));
        }
        index += run.len();
    }
    for (record, key) in records.iter().zip(&keys) {
        let Some(key) = *key else { continue };
        let usage = Usage {
            records: 1,
            bytes: record.charged_bytes() as u64,
        };
        match parts.last_mut() {
            Some((last, all)) if *last == key => all.add(usage),
            _ => parts.push((key, usage)),
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
    let is_one = |key: &Option<PartitionKey>| *key == keys[0];
    let keys = match parts.as_slice() {
        [] => Keys::Unknown,
        [(key, _)] if keys.len() == records.len() && keys.iter().all(is_one) => Keys::All(*key),
        _ => {
            keys.resize(records.len(), None);
            Keys::Each(keys.into())
        }
    };
    (keys, parts)
}
