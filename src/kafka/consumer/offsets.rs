//! Offsets that are asked of the brokers: where a partition begins, and where it ends. It blocks, so other threads do it.
//!
//! librdkafka learns of an end from fetches alone, so for a partition whose queue is full it stays at what it was: just then the lag would stand
//! still.

use std::{
    collections::BTreeSet,
    slice,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use super::{Consumer, Context, Position, Resolved, Start, seek::at_time};
use crate::{
    failure::{Failure, Reason},
    kafka::ffi,
    metrics,
    record::TopicPartition,
};

/// The bound of one look.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Consumer {
    /// Looks up, on another thread, where each partition ends; not while it still does.
    pub fn look_up_ends(&self, partitions: Vec<Arc<metrics::Partition>>) {
        if partitions.is_empty() || self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (client, looking) = (Arc::clone(&self.client), Arc::clone(&self.looking));
        let look = move || {
            let ends =
                ends_of(&partitions).and_then(|list| client.offsets_for_times(list, TIMEOUT));
            match ends {
                Ok(ends) => tell(&partitions, &ends),
                // The next look comes soon.
                Err(error) => tracing::debug!(error = %error, "ends could not be looked up"),
            }
            looking.store(false, Ordering::Release);
        };
        let spawned = thread::Builder::new()
            .name("kafka-offsets".into())
            .spawn(look);
        if let Err(error) = spawned {
            self.looking.store(false, Ordering::Release);
            tracing::error!(error = %error, "no thread could be started to look up ends");
        }
    }
}

/// Asked for as a time, the end means the offset that comes next, or for read_committed where the open transactions begin.
fn ends_of(partitions: &[Arc<metrics::Partition>]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(partition.topic(), partition.number(), Offset::End)?;
    }
    Ok(list)
}

fn tell(partitions: &[Arc<metrics::Partition>], ends: &TopicPartitionList) {
    for partition in partitions {
        let end = ends.find_partition(partition.topic(), partition.number());
        if let Some(Offset::Offset(end)) = end.map(|end| end.offset()) {
            partition.ends(end);
        }
    }
}

/// Why a look-up found nothing.
pub(super) enum LookUp {
    /// A topic that is needed does not exist.
    Missing(Failure),
    Kafka(KafkaError),
}

impl From<KafkaError> for LookUp {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// Looks whether the topics that dead letters go to exist.
pub(super) fn require(client: &BaseConsumer<Context>, topics: &[String]) -> Result<(), LookUp> {
    for topic in topics {
        let metadata = client.fetch_metadata(Some(topic), TIMEOUT)?;
        let error = metadata.topics().iter().find_map(|found| found.error());
        match error.map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                let text = format!("the topic {topic} of the dead letters does not exist");
                let failure = Failure::new(Reason::TopicNotFound, text);
                return Err(LookUp::Missing(failure.with_metadata("topic", topic)));
            }
            Some(code) => return Err(KafkaError::MetadataFetch(code).into()),
        }
    }
    Ok(())
}

/// Asks anew where the partitions are. librdkafka does not when what it remembers of their topic, from a broker that was away perhaps, lacks
/// one or its leader: it would say so for minutes.
pub(super) fn look_again(client: &BaseConsumer<Context>, partitions: &[TopicPartition]) {
    let topics: BTreeSet<&str> = partitions.iter().map(|at| at.topic.as_str()).collect();
    for topic in topics {
        if let Err(error) = client.fetch_metadata(Some(topic), TIMEOUT) {
            tracing::debug!(topic, error = %error, "partitions could not be looked up");
        }
    }
}

/// The committed offset of each partition, else where `start` says; bounded by the timeouts given to librdkafka.
pub(super) fn positions(
    client: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    start: Start,
) -> KafkaResult<Resolved> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(&partition.topic, partition.partition);
    }
    let committed = client.committed_offsets(asked, TIMEOUT)?;
    let ends = |partition: &TopicPartition| {
        client.fetch_watermarks(&partition.topic, partition.partition, TIMEOUT)
    };
    let mut positions = Vec::new();
    for (element, metadata) in committed.elements().iter().zip(ffi::metadata(&committed)) {
        element.error()?;
        let partition = TopicPartition::new(element.topic(), element.partition());
        let position = match element.offset() {
            Offset::Offset(offset) => Position {
                log_end: match metadata.is_empty() {
                    true => 0,
                    false => ends(&partition)?.1,
                },
                partition,
                offset,
                is_fresh: false,
                metadata,
            },
            _ => {
                let (low, high) = ends(&partition)?;
                let offset = match start {
                    Start::Earliest => low,
                    Start::Latest => high,
                    Start::Time(millis) => {
                        let found = at_time(client, slice::from_ref(&partition), millis)?;
                        found.get(&partition).copied().unwrap_or(high)
                    }
                };
                Position {
                    partition,
                    offset,
                    is_fresh: true,
                    metadata: Vec::new(),
                    log_end: high,
                }
            }
        };
        positions.push(position);
    }
    Ok(Resolved {
        positions,
        cluster: ffi::describe::cluster_id(client.client(), TIMEOUT),
    })
}

/// As librdkafka takes it: offsets, with what is kept beside them.
pub(super) fn list<'a>(
    positions: impl Iterator<Item = (&'a TopicPartition, i64, &'a str)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset, metadata) in positions {
        let mut element = list.add_partition(&partition.topic, partition.partition);
        element.set_offset(Offset::Offset(offset))?;
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    Ok(list)
}
