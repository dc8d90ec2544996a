//! The consuming half: a group of one that polls and commits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::{ClientConfig, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    message::Message as _,
    types::RDKafkaErrorCode as Code,
};

use super::STALLED;
use crate::{
    config::Config,
    kafka::{Cluster, context},
};

/// How long a group of one took.
#[derive(Clone, Copy, Debug)]
pub struct Consumption {
    /// From the first record to the last.
    pub took: Duration,
    /// From the subscription to the last.
    pub since_init: Duration,
}

/// Consumes `records` as the only member of a new group, hands each value to `take`, commits as often as the sidecar, and once more at the end.
pub fn consume(
    config: &Config,
    group: &str,
    topic: &str,
    partitions: usize,
    records: u64,
    mut take: impl FnMut(&[u8]),
) -> KafkaResult<Consumption> {
    let begun = Instant::now();
    let consumer: BaseConsumer<Quiet> =
        consumer_settings(config, group, partitions)?.create_with_context(Quiet)?;
    consumer.subscribe(&[topic])?;
    let (mut seen, mut first) = (0_u64, begun);
    let mut looked = begun;
    let mut commit_at = begun + config.consume.commit_interval;
    while seen < records {
        // It returns nothing, early, after an event such as a rebalance.
        let Some(message) = consumer.poll(Duration::from_secs(1)).transpose()? else {
            if looked.elapsed() > STALLED {
                return Err(KafkaError::MessageConsumption(Code::OperationTimedOut));
            }
            continue;
        };
        take(message.payload().unwrap_or_default());
        if seen == 0 {
            first = Instant::now();
        }
        seen += 1;
        // The clock is not asked for each record.
        if seen.is_multiple_of(1024) {
            looked = Instant::now();
            if looked >= commit_at {
                consumer.commit(&read_so_far(&consumer)?, CommitMode::Async)?;
                commit_at = looked + config.consume.commit_interval;
            }
        }
    }
    let (took, since_init) = (first.elapsed(), begun.elapsed());
    consumer.commit(&read_so_far(&consumer)?, CommitMode::Sync)?;
    Ok(Consumption { took, since_init })
}

/// The sidecar's, but what may be prefetched counts for all partitions together here, since their queues are not split.
pub(super) fn consumer_settings(
    config: &Config,
    group: &str,
    partitions: usize,
) -> KafkaResult<ClientConfig> {
    let mut client = Cluster::new(Arc::new(config.clone()))
        .consumer_properties(group)
        .map_err(KafkaError::ClientCreation)?;
    for (name, most) in [
        ("queued.max.messages.kbytes", 2_097_151),
        ("queued.min.messages", 10_000_000),
    ] {
        let each = client
            .get(name)
            .and_then(|value| value.parse::<usize>().ok())
            .unwrap_or(1);
        client.set(name, (each * partitions.max(1)).min(most).to_string());
    }
    Ok(client)
}

/// The position of each partition that was read from.
fn read_so_far(consumer: &BaseConsumer<Quiet>) -> KafkaResult<TopicPartitionList> {
    let mut read = TopicPartitionList::new();
    for element in consumer.position()?.elements() {
        if element.offset().to_raw().is_some_and(|offset| offset >= 0) {
            read.add_partition_offset(element.topic(), element.partition(), element.offset())?;
        }
    }
    Ok(read)
}

/// The consumer's context.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::error("direct consumer", &error, reason);
    }
}

impl ConsumerContext for Quiet {}
