//! Where a seek goes, and the seek itself. The look-up blocks, so another thread does it.

use std::{
    collections::{BTreeSet, HashMap},
    slice,
    sync::Arc,
    thread,
    time::Duration,
};

use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
};

use super::{Consumer, ConsumerEvent, Context, Offsets, offsets::list};
use crate::{
    failure::{Failure, Reason},
    kafka::patterns::{is_pattern, mean},
    record::TopicPartition,
};

/// The bound of one look, and of the seek.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where to seek to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The oldest records that the logs still hold.
    Earliest,
    /// The ends.
    Latest,
    /// The first records at or after this time, in milliseconds; else the ends.
    Time(i64),
    /// These, in these partitions alone.
    Offsets(Offsets),
}

/// What a target means for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Of the partitions that it owns.
    pub positions: Offsets,
    /// Of those that others own, as far as they were asked for by offset; else -1.
    pub elsewhere: Offsets,
}

impl Consumer {
    /// Looks up what `target` means, on another thread; `Sought` says it. Nothing is moved.
    pub fn look_up_target(&self, topics: Vec<String>, owned: Vec<TopicPartition>, target: Target) {
        let (client, wake) = (Arc::clone(&self.client), self.wake.clone());
        let told = Arc::clone(&self.client);
        let look = move || {
            let found = look_up(&client, &topics, &owned, &target);
            client
                .context()
                .events()
                .push_back(ConsumerEvent::Sought(found));
            wake.unpark();
        };
        let spawned = thread::Builder::new()
            .name("kafka-offsets".into())
            .spawn(look);
        if let Err(error) = spawned {
            tracing::error!(error = %error, "no thread could be started to look up offsets");
            let event = ConsumerEvent::Sought(Err(unavailable("no thread could be started")));
            told.context().events().push_back(event);
        }
    }

    /// Reads on from these positions. What was fetched before is never seen again: librdkafka outdates it before this returns.
    pub fn seek(&self, positions: &Offsets) -> KafkaResult<()> {
        if positions.is_empty() {
            return Ok(());
        }
        let positions = positions.iter().map(|(at, offset)| (at, *offset, ""));
        let sought = self.client.seek_partitions(list(positions)?, TIMEOUT)?;
        sought
            .elements()
            .iter()
            .try_for_each(|element| element.error())
    }
}

fn look_up(
    client: &BaseConsumer<Context>,
    topics: &[String],
    owned: &[TopicPartition],
    target: &Target,
) -> Result<Sought, Failure> {
    let failed = |error: KafkaError| unavailable(&error.to_string());
    let all = partitions(client, topics).map_err(failed)?;
    if let Target::Offsets(asked) = target {
        for (partition, offset) in asked {
            if !all.contains(&(partition.topic.clone(), partition.partition)) {
                let text = format!("{partition} does not exist");
                return Err(named(
                    Failure::new(Reason::PartitionNotFound, text),
                    partition,
                ));
            }
            if owned.contains(partition) {
                let (low, high) = ends(client, partition).map_err(failed)?;
                if !(low..=high).contains(offset) {
                    let text = format!(
                        "{partition} holds offsets from {low} to its end at {high}, not {offset}"
                    );
                    return Err(named(
                        Failure::new(Reason::OffsetOutOfRange, text),
                        partition,
                    ));
                }
            }
        }
        let (positions, elsewhere) = asked
            .iter()
            .cloned()
            .partition(|(partition, _)| owned.contains(partition));
        return Ok(Sought {
            positions,
            elsewhere,
        });
    }
    let elsewhere = all
        .into_iter()
        .map(|(topic, partition)| (TopicPartition::new(&topic, partition), -1))
        .filter(|(partition, _)| !owned.contains(partition));
    let elsewhere = elsewhere.collect();
    let mut positions = Offsets::new();
    let times = match target {
        Target::Time(millis) => at_time(client, owned, *millis).map_err(failed)?,
        _ => HashMap::new(),
    };
    for partition in owned {
        let (low, high) = ends(client, partition).map_err(failed)?;
        let offset = match target {
            Target::Earliest => low,
            Target::Time(_) => times.get(partition).copied().unwrap_or(high),
            Target::Latest | Target::Offsets(_) => high,
        };
        positions.push((partition.clone(), offset));
    }
    Ok(Sought {
        positions,
        elsewhere,
    })
}

fn partitions(
    client: &BaseConsumer<Context>,
    topics: &[String],
) -> KafkaResult<BTreeSet<(String, i32)>> {
    let mut all = BTreeSet::new();
    for topic in topics {
        let named = (!is_pattern(topic)).then_some(topic.as_str());
        let metadata = client.fetch_metadata(named, TIMEOUT)?;
        let found = metadata.topics().iter();
        for found in found.filter(|found| mean(slice::from_ref(topic), found.name())) {
            let partitions = found.partitions().iter();
            all.extend(partitions.map(|partition| (found.name().to_owned(), partition.id())));
        }
    }
    Ok(all)
}

/// The first records at or after a time; of a partition without one, nothing.
pub(super) fn at_time(
    client: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    millis: i64,
) -> KafkaResult<HashMap<TopicPartition, i64>> {
    if partitions.is_empty() {
        return Ok(HashMap::new());
    }
    // Below 0 they are no times: -1 asks for the end.
    let millis = millis.max(0);
    let asked = partitions.iter().map(|partition| (partition, millis, ""));
    let found = client.offsets_for_times(list(asked)?, TIMEOUT)?;
    let mut offsets = HashMap::new();
    for element in found.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            let partition = TopicPartition::new(element.topic(), element.partition());
            offsets.insert(partition, offset);
        }
    }
    Ok(offsets)
}

fn ends(client: &BaseConsumer<Context>, partition: &TopicPartition) -> KafkaResult<(i64, i64)> {
    client.fetch_watermarks(&partition.topic, partition.partition, TIMEOUT)
}

fn unavailable(why: &str) -> Failure {
    Failure::new(
        Reason::KafkaUnavailable,
        format!("where to seek to could not be looked up, and nothing is moved: {why}"),
    )
    .with_retry_after(Duration::from_secs(1))
}

fn named(failure: Failure, partition: &TopicPartition) -> Failure {
    failure
        .with_metadata("topic", &partition.topic)
        .with_metadata("partition", partition.partition.to_string())
}
