//! Which partition a record will go to, said beforehand: for shares, not for sending. librdkafka decides by what it knows then.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{kafka::ffi::Partitioner, record::Record};

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
}

/// Where the records of a topic go.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Absent: not known.
    pub(super) partitions: Option<i32>,
    /// Absent: not by the key.
    pub(super) partitioner: Option<Partitioner>,
}

impl Places {
    /// The partition of a record, if that is known.
    pub fn of(&self, record: &Record) -> Option<i32> {
        record.partition.or_else(|| {
            let key = record.key.as_deref().filter(|key| !key.is_empty())?;
            Some(self.partitioner?.partition(key, self.partitions?))
        })
    }
}
