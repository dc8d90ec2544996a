//! The consumer side: what a subscriber may hold, in which order, and what is committed of it.
//!
//! `ledger`, `map` and `token` are pure; `session` is the loop of one group on one thread; `stream` and `unary` speak to it; `pool` shares it among the local
//! streams of its group. Not here: the wire (`grpc`), librdkafka (`kafka`).

pub mod ledger;
pub mod map;
mod pool;
mod session;
mod stream;
mod token;
mod unary;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use self::{ledger::Terms, stream::Handle};
pub use self::{
    ledger::{Ordering, Retry, StreamId},
    pool::{Pool, SubscriptionStatus},
    stream::{Stream, StreamHandle},
    token::Token,
    unary::{BlockedLook, Live, Look, PartitionLook, Pulled},
};
use crate::{
    failure::Failure,
    kafka::{Sought, Start, Target},
    record::{Consumed, TopicPartition, Usage},
};

/// What all streams of one group agree on.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// The consumer group.
    pub group: String,
    /// Literal names, sorted, each once.
    pub topics: Vec<String>,
    /// The order of deliveries.
    pub ordering: Ordering,
    /// How records are tried again.
    pub retry: Retry,
    /// Where records go whose attempts ran out; an empty name stands for one that is made of the record's topic and the group.
    pub dead_letter: Option<String>,
    /// Where a group without a committed offset begins.
    pub start: Start,
}

impl Subscription {
    fn terms(&self) -> Terms {
        Terms {
            ordering: self.ordering,
            retry: self.retry,
            has_dead_letters: self.dead_letter.is_some(),
        }
    }

    /// The first field in which `asked` differs from this, which lives.
    fn conflict(&self, asked: &Self) -> Option<&'static str> {
        if self.topics != asked.topics {
            Some("topics")
        } else if self.ordering != asked.ordering {
            Some("ordering")
        } else if self.retry != asked.retry {
            Some("retry")
        } else if self.dead_letter != asked.dead_letter {
            Some("dead_letter")
        } else if self.start != asked.start {
            Some("start")
        } else {
            None
        }
    }

    /// Where dead letters from this topic go.
    pub fn dead_letter_topic(&self, topic: &str) -> Option<String> {
        let name = self.dead_letter.as_ref()?;
        Some(match name.is_empty() {
            true => format!("{topic}.{}.dlq", self.group),
            false => name.clone(),
        })
    }

    /// All topics that dead letters go to.
    pub fn dead_letter_topics(&self) -> Vec<String> {
        let topics = self.topics.iter();
        let mut names: Vec<String> = topics
            .filter_map(|topic| self.dead_letter_topic(topic))
            .collect();
        names.dedup();
        names
    }
}

/// What a stream asks for itself.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// What it may hold unsettled.
    pub window: Usage,
    /// How long a delivered record may stay unsettled before it is delivered again.
    pub lease: Duration,
    /// Whether a settle without problems is answered.
    pub confirm: Confirm,
    /// The largest message that its caller takes.
    pub max_message_bytes: u64,
    /// It is a pull: its first deliveries, of so many records at most, are its last, and its window is one for all pulls of the session.
    pub pull: Option<u64>,
}

/// When a settle is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Only for items that failed.
    None,
    /// Once for each request, when it is in the ledger.
    Recorded,
    /// Once for each request, when a commit covers it.
    Durable,
}

/// What a subscriber decides about a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is done.
    Ack,
    /// It failed: again, after a wait.
    Nack {
        /// The wait; absent: as the retry policy says.
        delay: Option<Duration>,
        /// For people.
        reason: String,
    },
    /// It cannot be processed: to the dead letters.
    DeadLetter {
        /// For people.
        reason: String,
    },
    /// It was not tried: again, and not counted as an attempt.
    Release,
}

/// One item of a settle request; without a token when it could not be read.
#[derive(Clone, Debug)]
pub struct SettleItem {
    /// The delivery it speaks of.
    pub token: Option<Token>,
    /// What to do.
    pub action: Action,
}

/// Why an item of a settle changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is settled already.
    AlreadySettled,
    /// It was given back since.
    Redelivered,
    /// The partition is not held any more, or not under this assignment.
    PartitionMoved,
    /// Somebody moved the group since.
    FencedBySeek,
    /// No such delivery was made.
    UnknownToken,
    /// The token cannot be read.
    BadToken,
}

/// Records of one partition on their way to a subscriber, in the order to process them in.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where they come from.
    pub topic: Arc<str>,
    /// Where they come from.
    pub partition: i32,
    /// What they are.
    pub records: Vec<Delivered>,
}

/// A record on its way to a subscriber.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Settles it.
    pub token: Token,
    /// From 1.
    pub attempt: u32,
    /// Whether it may be what killed a client.
    pub is_suspect: bool,
    /// The record.
    pub record: Consumed,
}

/// What happened to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionChange {
    /// It is delivered from here on.
    Assigned,
    /// It is about to be given up: settle what you hold of it.
    Revoking,
    /// It was given up; tokens of it settle nothing any more.
    Revoked,
    /// It was taken away; nothing of it could be committed.
    Lost,
    /// Somebody moved the group's position in it.
    Seeked,
    /// The log does not have the position: what was there was deleted unread, or the log was cut or made anew.
    Truncated,
    /// A record of it is not delivered any more, and what has to come after it waits.
    Blocked,
    /// Nothing of it is blocked any more.
    Unblocked,
}

/// What a session tells a stream.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// Records.
    Deliveries {
        /// At most one of a partition.
        batches: Vec<Batch>,
        /// When their leases end.
        until: Instant,
    },
    /// The answer to a settle: the items that were refused.
    Settled {
        /// As asked.
        request_id: u64,
        /// By position in the request.
        refused: Vec<(u32, Refusal)>,
    },
    /// The answer to an extension: the tokens that were refused.
    Extended {
        /// As asked.
        request_id: u64,
        /// By position in the request.
        refused: Vec<(u32, Refusal)>,
    },
    /// Something happened to a partition.
    Partition {
        /// Which.
        partition: TopicPartition,
        /// How.
        change: PartitionChange,
        /// Until when a settle still counts, for `Revoking`.
        by: Option<Instant>,
        /// Why, for people.
        reason: String,
    },
    /// The window that holds from now on.
    Granted(Usage),
    /// What Kafka has.
    Committed {
        /// Of the partitions of a commit.
        partitions: Vec<Committed>,
        /// All settles of the stream up to this request are covered by commits, or were answered as failed; 0 for none.
        durable_through: u64,
    },
    /// Nothing more is delivered; settle what you hold until then.
    Draining(Instant),
    /// The stream is over.
    End(Option<Failure>),
}

/// How far a partition is.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Which.
    pub partition: TopicPartition,
    /// The offset that Kafka has.
    pub offset: i64,
    /// The next offset to be read.
    pub position: i64,
}

/// What a session is asked to do.
#[derive(Debug)]
enum Command {
    Attach {
        stream: StreamId,
        options: StreamOptions,
        outgoing: mpsc::Sender<Outgoing>,
        end: oneshot::Sender<Option<Failure>>,
    },
    Window {
        stream: StreamId,
        window: Usage,
    },
    Settle {
        stream: StreamId,
        request_id: u64,
        items: Vec<SettleItem>,
    },
    Extend {
        stream: StreamId,
        request_id: u64,
        /// Absent where one could not be read.
        tokens: Vec<Option<Token>>,
        /// Absent: the stream's own.
        lease: Option<Duration>,
    },
    Drain {
        stream: StreamId,
    },
    /// The caller has ended its stream, in order.
    Leave {
        stream: StreamId,
    },
    /// Settle by tokens alone, whoever holds what they speak of. Answered by position; absent: done.
    Acknowledge {
        items: Vec<SettleItem>,
        answer: oneshot::Sender<Vec<Option<Refusal>>>,
    },
    /// Tell where the group stands.
    Look {
        answer: oneshot::Sender<Look>,
    },
    /// Go to another position.
    Seek {
        target: Target,
        answer: oneshot::Sender<Result<Sought, Failure>>,
    },
    /// Deliver nothing more; settles still count.
    Quiesce {
        deadline: Instant,
    },
    /// Wait for what is held until the deadline, commit, leave the group, and end.
    Close {
        deadline: Instant,
    },
}

/// The times and sizes that a session keeps to.
#[derive(Clone, Copy, Debug)]
struct Limits {
    commit_interval: Duration,
    commit_metadata: usize,
    revoke_drain: Duration,
    /// From a delivery on, however often it is prolonged.
    max_lease: Duration,
    /// What all subscriptions together may hold.
    max_bytes: u64,
    /// Of one partition: how many records are kept from the first that is not settled on.
    max_span: usize,
    /// Of one partition: how many may wait for another attempt.
    max_parked: usize,
    /// Of one partition: how many bytes may be read beyond what can be delivered.
    look_ahead: u64,
    /// How long leases may end and nothing be settled before the group is left; zero for ever.
    stuck_leave: Duration,
    /// How long nothing may be delivered of a partition where something waits before it is told.
    stall_after: Duration,
    /// How long a stream's caller may neither read nor say anything.
    read_grace: Duration,
    idle_leave: Duration,
    /// Groups know this sidecar again after a restart.
    is_static: bool,
    /// Between looks for the ends of partitions; zero for none.
    ends_interval: Duration,
}
