//! What is in a topic, read past the sidecar.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
    message::Message as _,
    types::RDKafkaErrorCode as Code,
};

use super::{
    STALLED, TIMEOUT,
    consume::{Quiet, consumer_settings},
};
use crate::config::Config;

/// Reads every partition of a topic to its end, and hands partition, offset and key of each record to `take`.
pub fn read(
    config: &Config,
    topic: &str,
    mut take: impl FnMut(i32, i64, &[u8]),
) -> KafkaResult<()> {
    // A group has to be named, and is never joined.
    let consumer: BaseConsumer<Quiet> =
        consumer_settings(config, "outrigger-bench-read", 1)?.create_with_context(Quiet)?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    let (mut from, mut ends) = (TopicPartitionList::new(), HashMap::new());
    for partition in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT)?;
        if low < high {
            from.add_partition_offset(topic, partition.id(), Offset::Offset(low))?;
            ends.insert(partition.id(), high);
        }
    }
    consumer.assign(&from)?;
    let mut looked = Instant::now();
    while !ends.is_empty() {
        let Some(record) = consumer.poll(Duration::from_secs(1)).transpose()? else {
            if looked.elapsed() > STALLED {
                return Err(KafkaError::MessageConsumption(Code::OperationTimedOut));
            }
            continue;
        };
        looked = Instant::now();
        let (partition, offset) = (record.partition(), record.offset());
        take(partition, offset, record.key().unwrap_or_default());
        if ends.get(&partition).is_some_and(|end| offset + 1 >= *end) {
            ends.remove(&partition);
        }
    }
    Ok(())
}
