//! Another position for the group, by somebody's will.
//!
//! What the target means is looked up first, on another thread; nothing moves before all of it is known, and nothing at all when the group has
//! rebalanced meanwhile. What always holds: a token from before settles nothing, and the new position is committed when it is answered.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    COMMIT_WAIT, Phase, Session, commit::NOTHING_SENT, reset::Reset, stream::refund, times::Times,
};
use crate::{
    consume::{PartitionChange, Refusal, Token, ledger::Ledger},
    failure::{Failure, Reason},
    kafka::{Sought, Target},
    record::TopicPartition,
};

/// Assignments that are remembered as left by a seek; tokens of older ones are those of partitions that moved.
const REMEMBERED: usize = 10_000;

/// A seek whose target is being looked up.
pub(super) struct Seeking {
    generation: u64,
    answer: oneshot::Sender<Result<Sought, Failure>>,
}

/// The assignments that ended with a seek: their epochs, by index.
#[derive(Debug, Default)]
pub(super) struct Fenced(BTreeMap<u32, u64>);

impl Fenced {
    fn add(&mut self, index: u32, epoch: u64) {
        self.0.insert(index, epoch);
        if self.0.len() > REMEMBERED {
            self.0.pop_first();
        }
    }

    /// Why a token of an assignment that is over settles nothing.
    pub(super) fn why(&self, token: Token) -> Refusal {
        match self.0.get(&token.index) == Some(&token.epoch) {
            true => Refusal::FencedBySeek,
            false => Refusal::PartitionMoved,
        }
    }
}

impl Session {
    pub(super) fn seek(
        &mut self,
        target: Target,
        answer: oneshot::Sender<Result<Sought, Failure>>,
    ) {
        if let Err(failure) = self.may_seek() {
            // Its caller may be gone.
            let _ = answer.send(Err(failure));
            return;
        }
        let owned = self.slots.values().map(|slot| slot.partition.clone());
        let mut owned: Vec<TopicPartition> = owned.collect();
        // Partitions come in any order; their positions are told in theirs.
        owned.sort();
        let topics = self.subscription.topics.clone();
        self.consumer.look_up_target(topics, owned, target);
        self.seeking = Some(Seeking {
            generation: self.generation,
            answer,
        });
    }

    fn may_seek(&self) -> Result<(), Failure> {
        let again = |text: &str| {
            Err(Failure::new(Reason::KafkaUnavailable, text)
                .with_retry_after(Duration::from_secs(1)))
        };
        if self.phase != Phase::Delivering {
            return Err(Failure::new(Reason::Draining, "the sidecar is stopping")
                .with_retry_after(Duration::from_secs(1)));
        }
        if self.assigning.is_some() || self.revoking.is_some() {
            return again("the group is rebalancing, and nothing is moved; seek again");
        }
        if self.seeking.is_some() {
            return again("another seek is under way, and nothing is moved by this one");
        }
        Ok(())
    }

    /// The target is known.
    pub(super) fn sought(&mut self, found: Result<Sought, Failure>) {
        let Some(Seeking { generation, answer }) = self.seeking.take() else {
            return;
        };
        let moved = found.and_then(|sought| {
            self.may_seek()?;
            self.go(generation, sought)
        });
        // Its caller may be gone.
        let _ = answer.send(moved);
    }

    fn go(&mut self, generation: u64, sought: Sought) -> Result<Sought, Failure> {
        let again = |text: &str| {
            Failure::new(Reason::KafkaUnavailable, text).with_retry_after(Duration::from_secs(1))
        };
        if self.generation != generation {
            return Err(again(
                "the group has rebalanced, and nothing is moved; seek again",
            ));
        }
        // An older commit must not come after the new one.
        if !self.wait_for_commits(Instant::now() + COMMIT_WAIT) {
            return Err(again(
                "a commit has no answer yet, and nothing is moved; seek again",
            ));
        }
        if let Err(error) = self.consumer.seek(&sought.positions) {
            tracing::error!(group = self.subscription.group, error = %error, "partitions could not be moved");
            // Some may be read from elsewhere now: only a new consumer is sure of where it is.
            let failure = again("the consumer could not be moved, and begins again where it was");
            self.broken = Some(failure.clone());
            return Err(failure);
        }
        for (partition, position) in &sought.positions {
            self.begin_at(partition, *position);
            self.tell_partition(partition, PartitionChange::Seeked, None);
        }
        let is_moved = |partition: &TopicPartition| {
            sought.positions.iter().any(|(moved, _)| moved == partition)
        };
        if !self.commit_now(
            |slot| is_moved(&slot.partition),
            Instant::now() + COMMIT_WAIT,
        ) {
            return Err(again(
                "the partitions are moved, but Kafka has not taken the commit yet; it is tried again",
            ));
        }
        tracing::info!(
            group = self.subscription.group,
            partitions = sought.positions.len(),
            "the group was moved"
        );
        Ok(sought)
    }

    /// What was known of the partition is of no use any more.
    pub(super) fn begin_at(&mut self, partition: &TopicPartition, position: i64) {
        let found = self
            .slots
            .iter()
            .find(|(_, slot)| slot.partition == *partition);
        let Some(index) = found.map(|(&index, _)| index) else {
            return;
        };
        let Some(mut slot) = self.slots.remove(&index) else {
            return;
        };
        self.fenced.add(index, slot.epoch);
        for stream in self.streams.values_mut() {
            stream.unconfirmed.gone(index, Refusal::FencedBySeek);
            stream.confirm();
        }
        let held: Vec<_> = slot.ledger.outstanding().collect();
        refund(&mut self.streams, &held);
        slot.epoch = self.epochs.next();
        slot.ledger = Ledger::new(self.subscription.terms(), position, Vec::new());
        slot.ledger.spread(&self.members);
        slot.times = Times::default();
        slot.committed = position;
        slot.committing = (position, NOTHING_SENT);
        slot.map_is_full = false;
        slot.dead_trouble = None;
        slot.reset = Reset::default();
        self.slots.insert(self.next_slot, slot);
        self.next_slot = self.next_slot.wrapping_add(1);
    }
}
