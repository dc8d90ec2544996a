//! The consumer side: what a subscriber may hold, in which order, and what is committed of it.
//!
//! `ledger`, `map` and `token` are pure; `session` is the loop of one group on one thread; `pool` shares a session among the local streams of
//! its group. Not here: the wire (`grpc`), librdkafka (`kafka`).

pub mod ledger;
pub mod map;
mod pool;
mod session;
mod token;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread::Thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

pub use self::{
    ledger::{Ordering, StreamId},
    pool::{Pool, SubscriptionStatus},
    token::Token,
};
use crate::{
    failure::Failure,
    kafka::Start,
    record::{Consumed, TopicPartition, Usage},
};

/// What all streams of one group agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The consumer group.
    pub group: String,
    /// Literal names, sorted, each once.
    pub topics: Vec<String>,
    /// The order of deliveries.
    pub ordering: Ordering,
    /// Where a group without a committed offset begins.
    pub start: Start,
}

/// What a stream asks for itself.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// What it may hold unsettled.
    pub window: Usage,
    /// Whether a settle without problems is answered.
    pub confirm: Confirm,
    /// The largest message that its caller takes.
    pub max_message_bytes: u64,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is done.
    Ack,
    /// It failed: again, at once.
    Nack,
    /// It was not tried: again, and not counted as an attempt.
    Release,
}

/// One item of a settle request; without a token when it could not be read.
#[derive(Clone, Copy, Debug)]
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
    /// No such delivery was made.
    UnknownToken,
    /// The token cannot be read.
    BadToken,
}

/// A record on its way to a subscriber.
#[derive(Debug)]
pub struct Delivered {
    /// Settles it.
    pub token: Token,
    /// Where it comes from.
    pub topic: Arc<str>,
    /// Where it comes from.
    pub partition: i32,
    /// From 1.
    pub attempt: u32,
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
}

/// What a session tells a stream.
#[derive(Debug)]
pub enum Outgoing {
    /// Records.
    Deliveries(Vec<Delivered>),
    /// The answer to a settle: the items that were refused.
    Settled {
        /// As asked.
        request_id: u64,
        /// By position in the request.
        refused: Vec<(u32, Refusal)>,
    },
    /// A partition came or went.
    Partition {
        /// Which.
        partition: TopicPartition,
        /// How.
        change: PartitionChange,
        /// Until when a settle still counts, for `Revoking`.
        by: Option<Instant>,
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

/// A stream's own end of its session.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    handle: Handle,
    incoming: mpsc::Receiver<Outgoing>,
    /// Taken when it was told.
    end: Option<oneshot::Receiver<Option<Failure>>>,
    /// What may be delivered before anything is settled.
    pub granted: Usage,
}

/// Speaks to a session for one stream.
#[derive(Clone, Debug)]
pub struct StreamHandle {
    id: StreamId,
    handle: Handle,
}

impl Stream {
    /// To speak to the session while this end is being read elsewhere.
    pub fn handle(&self) -> StreamHandle {
        StreamHandle {
            id: self.id,
            handle: self.handle.clone(),
        }
    }
}

impl tokio_stream::Stream for Stream {
    type Item = Outgoing;

    /// The next message, and `End` at last; `None` without an `End` when the session is gone.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let this = self.get_mut();
        if let Some(message) = ready!(this.incoming.poll_recv(context)) {
            // There is room in the channel again.
            this.handle.wake.unpark();
            return Poll::Ready(Some(message));
        }
        let Some(end) = &mut this.end else {
            return Poll::Ready(None);
        };
        let ended = ready!(Pin::new(end).poll(context));
        this.end = None;
        Poll::Ready(ended.ok().map(Outgoing::End))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The session finds the channel closed and takes back what the stream held.
        self.incoming.close();
        self.handle.wake.unpark();
    }
}

impl StreamHandle {
    /// Changes the window.
    pub async fn window(&self, window: Usage) -> bool {
        let command = Command::Window {
            stream: self.id,
            window,
        };
        self.handle.send(command).await
    }

    /// Settles deliveries; the answer comes as [`Outgoing::Settled`].
    pub async fn settle(&self, request_id: u64, items: Vec<SettleItem>) -> bool {
        let command = Command::Settle {
            stream: self.id,
            request_id,
            items,
        };
        self.handle.send(command).await
    }

    /// Stops deliveries to this stream; it ends when everything it holds is settled.
    pub async fn drain(&self) -> bool {
        self.handle.send(Command::Drain { stream: self.id }).await
    }
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
    Drain {
        stream: StreamId,
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

/// Speaks to a session: its commands, and the thread to wake after one.
#[derive(Clone, Debug)]
struct Handle {
    commands: mpsc::Sender<Command>,
    wake: Thread,
}

impl Handle {
    async fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).await.is_ok();
        self.wake.unpark();
        sent
    }
}

/// The times and sizes that a session keeps to.
#[derive(Clone, Copy, Debug)]
struct Limits {
    commit_interval: Duration,
    commit_metadata: usize,
    revoke_drain: Duration,
    idle_leave: Duration,
    /// Groups know this sidecar again after a restart.
    is_static: bool,
    /// Between looks for the ends of partitions; zero for none.
    ends_interval: Duration,
}
