//! Which partition a record will go to, said beforehand: for shares and for `rest`, not for sending. librdkafka decides by what it knows then.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock, PoisonError, RwLock},
};

use crate::{kafka::ffi::Partitioner, record::Record};

/// A partition of a topic, as a number; two that fall together are taken for one.
pub type PartitionKey = u64;

/// Where each record of a batch goes, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// Of none.
    #[default]
    Unknown,
    /// All to one partition.
    All(PartitionKey),
    /// One for each; absent where it is not known.
    Each(Box<[Option<PartitionKey>]>),
}

/// How many partitions each topic has, by librdkafka's statistics. Empty where there are none (`metrics.statistics_interval`).
#[derive(Clone, Debug, Default)]
pub(in crate::kafka) struct PartitionCounts(Arc<RwLock<HashMap<String, i32>>>);

impl PartitionCounts {
    pub(in crate::kafka) fn of(&self, topic: &str) -> Option<i32> {
        let counts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        counts.get(topic).copied()
    }

    pub(in crate::kafka) fn are<'a>(&self, counts: impl Iterator<Item = (&'a str, i32)>) {
        for (topic, count) in counts {
            if count > 0 && self.of(topic) != Some(count) {
                let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
                all.insert(topic.to_owned(), count);
            }
        }
    }

    /// The partitions of these keys. Looks at all there are.
    pub(super) fn named(&self, keys: &[PartitionKey]) -> Vec<(String, i32)> {
        let counts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = counts.iter().flat_map(|(topic, count)| {
            let hash = hash(topic);
            (0..*count).map(move |partition| (topic, partition, key(hash, partition)))
        });
        all.filter(|(_, _, key)| keys.contains(key))
            .map(|(topic, partition, _)| (topic.clone(), partition))
            .collect()
    }
}

static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

pub(super) fn hash(topic: &str) -> u64 {
    HASHES.hash_one(topic)
}

fn key(topic: u64, partition: i32) -> PartitionKey {
    HASHES.hash_one((topic, partition))
}

/// Where the records of a topic go.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The topic's [`hash`].
    pub(super) topic: u64,
    /// Absent: not known.
    pub(super) partitions: Option<i32>,
    /// Absent: not by the key.
    pub(super) partitioner: Option<Partitioner>,
}

impl Places {
    /// The partition of a record, if that is known.
    pub fn of(&self, record: &Record) -> Option<PartitionKey> {
        let partition = record.partition.or_else(|| {
            let key = record.key.as_deref().filter(|key| !key.is_empty())?;
            Some(self.partitioner?.partition(key, self.partitions?))
        });
        partition.map(|partition| key(self.topic, partition))
    }
}
