//! What is asked of a session in one call: records by a long poll, settlements by tokens, where the group stands, and another
//! position for it.
//!
//! A pull is a stream whose first deliveries are its last. What it was given stays leased to it after the call, until it is settled by token
//! or its lease ends; a pull that is given up before its answer gives back what it was sent.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;

use super::{
    Batch, Command, Outgoing, Pool, Refusal, SettleItem, Stream, StreamOptions, Subscription,
    Token, stream::Handle,
};
use crate::{
    failure::{Failure, Reason},
    kafka::{Sought, Target},
    record::TopicPartition,
};

/// A session that lives here, to ask it something.
#[derive(Debug)]
pub struct Live {
    /// What its streams agree on.
    pub subscription: Subscription,
    pub(super) handle: Handle,
}

impl Live {
    /// Settles by tokens; answered by position, absent: done.
    pub async fn acknowledge(
        &self,
        items: Vec<SettleItem>,
    ) -> Result<Vec<Option<Refusal>>, Failure> {
        self.ask(|answer| Command::Acknowledge { items, answer })
            .await
    }

    /// Tells where the group stands here.
    pub async fn look(&self) -> Result<Look, Failure> {
        self.ask(|answer| Command::Look { answer }).await
    }

    /// Moves the group in the partitions that are held here.
    pub async fn seek(&self, target: Target) -> Result<Sought, Failure> {
        self.ask(|answer| Command::Seek { target, answer }).await?
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        self.handle.send(command(answer)).await;
        // It may have ended meanwhile.
        answered
            .await
            .map_err(|_| not_live(&self.subscription.group))
    }
}

/// Where a group stands in this sidecar.
#[derive(Debug)]
pub struct Look {
    /// Those that are held here, by topic and number.
    pub partitions: Vec<PartitionLook>,
    /// Streams, and pulls that wait.
    pub streams: usize,
}

/// Where a group stands in a partition.
#[derive(Debug)]
pub struct PartitionLook {
    /// Which.
    pub partition: TopicPartition,
    /// The offset that Kafka has.
    pub committed: i64,
    /// The next offset to be read.
    pub position: i64,
    /// From the committed offset to the end, where that is known.
    pub lag: Option<i64>,
    /// Records delivered and not settled.
    pub in_flight: u64,
    /// Records that wait for another attempt, or for their copy to the dead letters.
    pub parked: u64,
    /// How long the oldest of all these is held.
    pub oldest: Option<Duration>,
    /// The first of those that are blocked.
    pub blocked: Vec<BlockedLook>,
}

/// A record that somebody has to decide about.
#[derive(Debug)]
pub struct BlockedLook {
    /// Settles it.
    pub token: Token,
    /// Empty for a null key.
    pub key: Bytes,
    /// Its offset.
    pub offset: i64,
    /// How often it was delivered and counted.
    pub attempts: u32,
    /// Why its last attempt failed.
    pub reason: String,
    /// How many records wait behind it.
    pub waiting: u64,
}

/// Nobody subscribes as the group in this sidecar.
pub(super) fn not_live(group: &str) -> Failure {
    Failure::new(
        Reason::SubscriptionNotFound,
        format!("group {group:?} is not subscribed in this sidecar"),
    )
    .with_metadata("group", group)
}

impl Pool {
    /// Waits for some records until `by`; nothing when none came. `options` say that it is a pull.
    pub async fn pull(
        &self,
        subscription: &Subscription,
        options: StreamOptions,
        by: Instant,
    ) -> Result<Option<Pulled>, Failure> {
        let mut pull = Pull {
            stream: self.attach(subscription, options)?,
            is_answered: false,
        };
        let first = async {
            while let Some(message) = pull.stream.next().await {
                match message {
                    Outgoing::Deliveries { batches, until } => {
                        return Ok(Some(Pulled { batches, until }));
                    }
                    Outgoing::Draining(_) | Outgoing::End(None) => return Ok(None),
                    Outgoing::End(Some(failure)) => return Err(failure),
                    _ => {}
                }
            }
            Err(Failure::new(Reason::Internal, "internal error"))
        };
        let answer = tokio::time::timeout_at(by.into(), first).await;
        let answer = answer.unwrap_or(Ok(None));
        pull.is_answered = matches!(answer, Ok(Some(_)));
        answer
    }
}

/// What a pull was given.
#[derive(Debug)]
pub struct Pulled {
    /// At most one of a partition.
    pub batches: Vec<Batch>,
    /// When their leases end.
    pub until: Instant,
}

struct Pull {
    stream: Stream,
    is_answered: bool,
}

impl Drop for Pull {
    fn drop(&mut self) {
        if !self.is_answered {
            // Where there is no room for it, leases end instead.
            let leave = Command::Leave {
                stream: self.stream.id,
            };
            let _ = self.stream.handle.commands.try_send(leave);
        }
    }
}
