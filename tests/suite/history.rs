//! What happened to a group, as its clients saw it: one list in one order.
//!
//! Two things make an order of observations worth something. What a client asks for is noted *before* it is sent, and what it is told *after*
//! it has come; so what is noted of a request lies before its effect, and what is noted of an answer behind it. And what one stream is told is
//! noted in the order in which it was told. What is noted of two streams has no order beyond that: the checker does not assume one.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;

/// A subscribe call; never used again.
pub type StreamId = u32;
/// A sidecar process; never used again.
pub type MemberId = u32;
pub type Key = Option<Bytes>;

/// What a stream is told of its settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Recorded,
    Durable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Assigned,
    Revoking,
    Revoked,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Ack,
    Nack,
    Release,
}

/// What became of one item of a settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It reached the stream's level.
    Done,
    AlreadySettled,
    Redelivered,
    Moved,
    /// No such token, or none at all.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub stream: StreamId,
    pub partition: i32,
    pub offset: i64,
    pub key: Key,
    pub attempt: u32,
    pub token: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Before it is.
    Opened {
        stream: StreamId,
        member: MemberId,
        window: usize,
        level: Level,
    },
    /// Nothing is told or asked any more; clean: by the sidecar, in order.
    Ended {
        stream: StreamId,
        clean: bool,
    },
    Partition {
        stream: StreamId,
        partition: i32,
        change: Change,
    },
    Delivered(Delivery),
    /// Before it is sent.
    Settle {
        stream: StreamId,
        request: u64,
        items: Vec<(Bytes, Action)>,
    },
    /// One outcome for each item.
    Settled {
        stream: StreamId,
        request: u64,
        outcomes: Vec<Outcome>,
    },
    /// Before its SIGKILL.
    Killed {
        member: MemberId,
    },
    /// Before its SIGSTOP.
    Stopped {
        member: MemberId,
    },
    /// What Kafka has, by partition; -1: nothing.
    Committed {
        offsets: Vec<i64>,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered(one) => {
                let Delivery {
                    stream,
                    partition,
                    offset,
                    key,
                    attempt,
                    token,
                } = one;
                write!(
                    f,
                    "stream {stream}: {partition}/{offset} delivered, key {key:?}, attempt {attempt}, token {}",
                    hex(token)
                )
            }
            Self::Settle {
                stream,
                request,
                items,
            } => {
                let items: Vec<String> = items
                    .iter()
                    .map(|(token, action)| format!("{action:?} {}", hex(token)))
                    .collect();
                write!(f, "stream {stream}: settle {request}: {}", items.join(", "))
            }
            other => write!(f, "{other:?}"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where events are noted, with the time of day for those who look at logs.
#[derive(Default)]
pub struct History(Mutex<(Vec<Event>, Vec<SystemTime>)>);

impl History {
    pub fn note(&self, event: Event) {
        let mut noted = self.lock();
        noted.0.push(event);
        noted.1.push(SystemTime::now());
    }

    pub fn take(&self) -> (Vec<Event>, Vec<SystemTime>) {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<Event>, Vec<SystemTime>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
