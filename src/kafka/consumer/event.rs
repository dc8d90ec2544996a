//! What a group member is told, and what it says: partitions that come and go, positions, commits.

use std::time::Duration;

use super::seek::Sought;
use crate::{failure::Failure, record::TopicPartition};

/// Positions by partition.
pub type Offsets = Vec<(TopicPartition, i64)>;

/// Whether librdkafka says that of a partition: it has no event for it, only a line of its log.
pub(super) fn tells_a_reset(facility: &str, line: &str) -> bool {
    facility == "OFFSET" && line.contains(RESET)
}

/// Whether a reset is this partition's.
pub fn is_reset(line: &str, partition: &TopicPartition) -> bool {
    let TopicPartition { topic, partition } = partition;
    line.contains(&format!(" {topic} [{partition}]{RESET}"))
}

const RESET: &str = ": offset reset";

/// Whether librdkafka says that a heartbeat of the consumer protocol had no answer in time: there is no event for it either.
pub(super) fn tells_a_failed_heartbeat(facility: &str, line: &str) -> bool {
    facility == "REQTMOUT" && line.contains("Timed out ConsumerGroupHeartbeatRequest")
}

/// What a group says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which.
    pub partition: TopicPartition,
    /// Everything below is settled.
    pub offset: i64,
    /// What is kept beside the offset.
    pub metadata: String,
}

/// How a commit has ended.
#[derive(Debug)]
pub struct CommitEnd {
    /// What was committed, or should have been.
    pub offsets: Offsets,
    /// Why it was not.
    pub error: Option<String>,
    /// That was because of the length of the metadata.
    pub is_too_long: bool,
    /// The member is out of the group, so that the same commit cannot succeed. Otherwise it may, soon: the member's epoch was about to
    /// change, or the coordinator.
    pub is_final: bool,
    /// Since it was begun.
    pub after: Duration,
}

/// Where a group begins in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which.
    pub partition: TopicPartition,
    /// The first offset to read.
    pub offset: i64,
    /// Nothing was committed: it was chosen.
    pub is_fresh: bool,
    /// What was found beside the committed offset.
    pub metadata: Vec<u8>,
    /// Where the log ended a moment ago; known only where there are metadata.
    pub log_end: i64,
}

/// What a look-up has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Where to begin, for each partition that was asked for.
    pub positions: Vec<Position>,
    /// The id of the cluster, if a broker has told it.
    pub cluster: Option<String>,
}

/// Where a group without a committed offset begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that the log still holds.
    Earliest,
    /// At the end.
    Latest,
    /// At the first record at or after this time, in milliseconds; else at the end.
    Time(i64),
}

/// What has happened to the consumer.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// The group gives this member partitions. To be answered by [`Consumer::assign`](super::Consumer::assign).
    Assigned(Vec<TopicPartition>),
    /// The group takes partitions back. To be answered by [`Consumer::unassign`](super::Consumer::unassign).
    Revoked {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// They are somebody else's already: nothing may be committed.
        lost: bool,
    },
    /// The answer to [`Consumer::resolve`](super::Consumer::resolve) of that generation.
    Resolved {
        /// As asked.
        generation: u64,
        /// The answer.
        resolved: Resolved,
    },
    /// What the target of a seek means.
    Sought(Result<Sought, Failure>),
    /// The log does not have the position of a partition, which is read from the log's beginning from now on. In librdkafka's words, which
    /// [`is_reset`] reads.
    Reset(String),
    /// A heartbeat of the consumer protocol had no answer in time, and what it would have said of the assignment is not known.
    HeartbeatFailed,
    /// The end of a commit.
    Committed(CommitEnd),
    /// The consumer cannot go on as it is.
    Failed(Failure),
}
