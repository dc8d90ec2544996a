//! Every commit of a group in the order Kafka took them, read from the topic that Kafka keeps them in.
//!
//! Asking for what is committed is no judge: a coordinator that has just taken over, or does not know yet that it is none any more, answers with
//! less than an earlier one did, and between two questions a commit may come and be undone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::sidecar::PATIENCE;

const TOPIC: &str = "__consumer_offsets";

const TIMEOUT: Duration = Duration::from_secs(5);

/// A commit of the group: a partition of its topic, and the offset.
pub type Commit = (i32, i64);

/// What a group commits for one topic.
pub struct CommitLog {
    consumer: BaseConsumer,
    group: String,
    topic: String,
    /// By partition of Kafka's topic, what comes next.
    positions: BTreeMap<i32, i64>,
}

impl CommitLog {
    /// From the beginning; waits until Kafka has made its topic, which it does for the first group.
    pub fn open(bootstrap: &str, group: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "reader-of-commits")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .create()
            .unwrap();
        let positions: BTreeMap<i32, i64> = patiently("Kafka's topic of commits is there", || {
            let metadata = consumer.fetch_metadata(Some(TOPIC), TIMEOUT).ok()?;
            let found = metadata
                .topics()
                .first()
                .filter(|topic| topic.error().is_none())?;
            let partitions = found.partitions().iter();
            let positions: BTreeMap<i32, i64> =
                partitions.map(|partition| (partition.id(), 0)).collect();
            Some(positions).filter(|positions| !positions.is_empty())
        });
        let log = Self {
            consumer,
            group: group.to_owned(),
            topic: topic.to_owned(),
            positions,
        };
        log.read_on();
        log
    }

    /// From where it is: a broker that has just become the leader may not know yet that what was read is valid, and the reader would stop.
    fn read_on(&self) {
        let mut list = TopicPartitionList::new();
        for (partition, position) in &self.positions {
            list.add_partition_offset(TOPIC, *partition, Offset::Offset(*position))
                .unwrap();
        }
        self.consumer.assign(&list).unwrap();
    }

    /// The next commit of the group, if it comes in time.
    pub fn next(&mut self, wait: Duration) -> Option<Commit> {
        let until = Instant::now() + wait;
        while let Some(message) = self
            .consumer
            .poll(until.saturating_duration_since(Instant::now()))
        {
            let Ok(message) = message else {
                self.read_on();
                continue;
            };
            self.positions
                .insert(message.partition(), message.offset() + 1);
            let commit = commit(message.key(), message.payload());
            if let Some((group, topic, commit)) = commit
                && (group, topic) == (self.group.as_bytes(), self.topic.as_bytes())
            {
                return Some(commit);
            }
        }
        None
    }

    /// The commits that are in Kafka by now and were not read yet.
    pub fn rest(&mut self) -> Vec<Commit> {
        let mut ends = BTreeMap::new();
        for partition in self.positions.keys() {
            let end = patiently("the end of the commits is told", || {
                let marks = self.consumer.fetch_watermarks(TOPIC, *partition, TIMEOUT);
                marks.ok().map(|(_, high)| high)
            });
            ends.insert(*partition, end);
        }
        let mut commits = Vec::new();
        patiently("the commits are read", || {
            commits.extend(self.next(Duration::from_millis(100)));
            let is_read = |(partition, end): (&i32, &i64)| self.positions[partition] >= *end;
            ends.iter().all(is_read).then_some(())
        });
        commits
    }
}

fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "in time: {what}");
    }
}

/// Group, topic and commit, of a record that is one and not its deletion (Kafka's `OffsetCommitKey` and `OffsetCommitValue`).
fn commit<'a>(key: Option<&'a [u8]>, value: Option<&[u8]>) -> Option<(&'a [u8], &'a [u8], Commit)> {
    let (version, key) = key?.split_first_chunk()?;
    if i16::from_be_bytes(*version) > 1 {
        return None;
    }
    let (group, key) = string(key)?;
    let (topic, key) = string(key)?;
    let partition = i32::from_be_bytes(*key.first_chunk()?);
    let offset = i64::from_be_bytes(*value?.get(2..)?.first_chunk()?);
    Some((group, topic, (partition, offset)))
}

fn string(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = from.split_first_chunk()?;
    rest.split_at_checked(i16::from_be_bytes(*length) as usize)
}
