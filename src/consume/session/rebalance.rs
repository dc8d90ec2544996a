//! Partitions that come and go.
//!
//! The callback only reported; here the loop answers. Assigned: look up where to begin (on another thread), then assign. Revoked:
//! stop delivering, wait until what is delivered is settled or the drain time is over, commit, then hand back. Lost: nothing may be
//! committed. A rebalance that is overtaken by a newer one is answered so that librdkafka's turn ends, and its result is dropped.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Session, Slot, commit::NOTHING_SENT, deliver::TYPICAL, reset::Reset, stream::refund,
    times::Times,
};
use crate::{
    consume::{
        Outgoing, PartitionChange, Refusal,
        ledger::Ledger,
        map::{self, Place},
    },
    failure::{Failure, Reason},
    kafka::{Consumer, Position, Resolved, Start},
    metrics,
    record::TopicPartition,
};

/// The bound of the commit before partitions are handed back: the rest of the group waits for it.
const LAST_COMMIT: Duration = Duration::from_secs(2);

/// Partitions whose beginning is being looked up.
pub(super) struct Assigning {
    generation: u64,
    partitions: Vec<TopicPartition>,
}

/// Partitions that are being drained.
pub(super) struct Revoking {
    partitions: Vec<TopicPartition>,
    by: Instant,
    /// Ours, not the group's: what takes over when the partitions are drained.
    pub(super) successor: Option<Consumer>,
}

impl Session {
    pub(super) fn assigned(&mut self, partitions: Vec<TopicPartition>) {
        self.put_off_renewal();
        metrics::subscribe().assigned.increment(1);
        self.generation += 1;
        self.assigning = Some(Assigning {
            generation: self.generation,
            partitions: partitions.clone(),
        });
        // A partition that appears while the group lives begins at its first record, whatever the group began with.
        let start = if self.first_assignment {
            self.subscription.start
        } else {
            Start::Earliest
        };
        if partitions.is_empty() {
            let nothing = Resolved {
                positions: Vec::new(),
                cluster: None,
            };
            return self.resolved(self.generation, nothing);
        }
        let dead_letters = self.subscription.dead_letter_topics();
        for topic in &dead_letters {
            self.producer.prepare(topic);
        }
        self.consumer
            .resolve(self.generation, partitions, start, dead_letters);
    }

    pub(super) fn resolved(&mut self, generation: u64, resolved: Resolved) {
        let Some(assigning) = self
            .assigning
            .take_if(|assigning| assigning.generation == generation)
        else {
            return;
        };
        let Resolved { positions, cluster } = resolved;
        self.cluster_id = cluster.or_else(|| self.cluster_id.take());
        if let Err(error) = self.consumer.assign(&positions) {
            tracing::error!(group = self.subscription.group, error = %error, "partitions could not be assigned");
            // Nobody would read them: another consumer must take over.
            self.broken = Some(Failure::new(
                Reason::KafkaUnavailable,
                "the consumer could not take its partitions; subscribe again",
            ));
            return;
        }
        if !assigning.partitions.is_empty() {
            self.first_assignment = false;
        }
        tracing::info!(
            group = self.subscription.group,
            partitions = assigning.partitions.len(),
            "partitions assigned"
        );
        for at in positions {
            let restored = self.restored(&at);
            let (partition, position) = (&at.partition, at.offset);
            let mut slot = Slot {
                topic: Arc::from(partition.topic.as_str()),
                partition: partition.clone(),
                epoch: self.epochs.next(),
                ledger: Ledger::new(self.subscription.terms(), position, restored),
                reading: metrics::Reading::new(&self.subscription.group, &partition.topic),
                shown: metrics::Partition::new(
                    &self.subscription.group,
                    &partition.topic,
                    partition.partition,
                    position,
                ),
                times: Times::default(),
                committed: position,
                // A position that was chosen, not found, is committed at once: a restart must not choose again.
                committing: (position, if at.is_fresh { NOTHING_SENT } else { 0 }),
                map_is_full: false,
                told: (0, None),
                dead_trouble: None,
                sent_at: Instant::now(),
                stalled: None,
                reset: Reset::default(),
                typical: TYPICAL,
                revoking: false,
                dry: true,
            };
            if at.is_fresh {
                self.commit_at = Instant::now();
                tracing::debug!(group = self.subscription.group, %partition, position, "no committed offset: begins here");
            }
            slot.ledger.spread(&self.members);
            self.slots.insert(self.next_slot, slot);
            self.next_slot = self.next_slot.wrapping_add(1);
            self.tell_partition(partition, PartitionChange::Assigned, None);
        }
    }

    /// What an earlier owner has settled above the committed offset.
    fn restored(&self, at: &Position) -> Vec<Range<i64>> {
        let Some(cluster) = &self.cluster_id else {
            return Vec::new();
        };
        let place = Place {
            cluster,
            topic: &at.partition.topic,
            partition: at.partition.partition,
            base: at.offset,
        };
        map::decode(&at.metadata, place, at.log_end).unwrap_or_else(|why| {
            metrics::subscribe().map_ignored(why.as_str());
            tracing::warn!(
                group = self.subscription.group,
                partition = %at.partition,
                "the metadata of the committed offset are not read: {why}"
            );
            Vec::new()
        })
    }

    pub(super) fn revoked(&mut self, partitions: Vec<TopicPartition>, lost: bool, now: Instant) {
        self.put_off_renewal();
        self.consumer.look_around(&self.subscription.topics);
        self.generation += 1;
        if self.assigning.take().is_some() {
            // Overtaken before it was answered: answered now, with nothing.
            self.consumer.forget();
            if let Err(error) = self.consumer.assign(&Vec::new()) {
                tracing::debug!(group = self.subscription.group, error = %error, "an assignment was overtaken");
            }
        }
        if lost {
            metrics::subscribe().lost.increment(1);
            tracing::warn!(
                group = self.subscription.group,
                "the partitions were lost to another member of the group"
            );
            self.revoking = None;
            self.hand_back(&partitions, PartitionChange::Lost);
            return;
        }
        metrics::subscribe().revoked.increment(1);
        self.begin_revoke(partitions, None, now);
    }

    /// Stops delivering from the partitions, and begins to wait for what is delivered of them.
    pub(super) fn begin_revoke(
        &mut self,
        partitions: Vec<TopicPartition>,
        successor: Option<Consumer>,
        now: Instant,
    ) {
        // Who settles nothing is not waited for.
        let by = match self.liveness.is_away() {
            true => now,
            false => now + self.limits.revoke_drain,
        };
        for slot in self
            .slots
            .values_mut()
            .filter(|slot| partitions.contains(&slot.partition))
        {
            slot.revoking = true;
        }
        for partition in &partitions {
            self.tell_partition(partition, PartitionChange::Revoking, Some(by));
        }
        self.revoking = Some(Revoking {
            partitions,
            by,
            successor,
        });
    }

    /// Hands back what is drained, or out of time.
    pub(super) fn advance_revoke(&mut self, now: Instant) {
        let drained = self
            .slots
            .values()
            .filter(|slot| slot.revoking)
            .all(|slot| slot.ledger.delivered() == 0)
            && self.copying() == 0;
        let Some(Revoking {
            partitions,
            successor,
            ..
        }) = self
            .revoking
            .take_if(|revoking| drained || now >= revoking.by)
        else {
            return;
        };
        if !self.commit_now(|slot| slot.revoking, now + LAST_COMMIT) {
            tracing::warn!(
                group = self.subscription.group,
                "the last commit of revoked partitions was not made: what was settled since the one before may come again"
            );
        }
        self.hand_back(&partitions, PartitionChange::Revoked);
        if let Some(successor) = successor {
            self.succeed(successor, now);
        }
    }

    fn hand_back(&mut self, partitions: &[TopicPartition], change: PartitionChange) {
        let slots = std::mem::take(&mut self.slots);
        let (gone, kept): (BTreeMap<u32, Slot>, BTreeMap<u32, Slot>) = slots
            .into_iter()
            .partition(|(_, slot)| partitions.contains(&slot.partition));
        self.slots = kept;
        let mut held = Vec::new();
        for (index, slot) in gone {
            for stream in self.streams.values_mut() {
                stream.unconfirmed.gone(index, Refusal::PartitionMoved);
                stream.confirm();
            }
            let unsettled: Vec<_> = slot.ledger.outstanding().collect();
            refund(&mut self.streams, &unsettled);
            held.push(slot.partition);
        }
        tracing::info!(
            group = self.subscription.group,
            partitions = held.len(),
            "partitions handed back"
        );
        if let Err(error) = self.consumer.unassign(&held) {
            tracing::warn!(group = self.subscription.group, error = %error, "partitions could not be handed back");
        }
        for partition in partitions {
            self.tell_partition(partition, change, None);
        }
    }

    pub(super) fn tell_partition(
        &mut self,
        partition: &TopicPartition,
        change: PartitionChange,
        by: Option<Instant>,
    ) {
        self.tell_all(|| Outgoing::Partition {
            partition: partition.clone(),
            change,
            by,
            reason: String::new(),
        });
    }
}
