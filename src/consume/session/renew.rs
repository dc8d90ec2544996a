//! A new consumer for a new certificate: librdkafka reads one only when a client is made.
//!
//! The new client must reach a broker before the old one is touched. Then the partitions are drained and committed as for a revoke, the old
//! consumer leaves the group, and the new one joins. The streams stay, and see their partitions go and come. A rebalance by the group
//! comes first: it puts the renewal off until it is over.

use std::time::{Duration, Instant};

use super::{COMMIT_WAIT, Session, rebalance::Revoking};
use crate::{
    consume::{PartitionChange, Subscription},
    kafka::Consumer,
    metrics,
    record::TopicPartition,
};

/// The bound of proving the new client; nothing is delivered meanwhile.
const PROOF: Duration = Duration::from_secs(2);

/// The wait before a new client that was no good is tried again.
const RETRY: Duration = Duration::from_secs(10);

impl Session {
    /// Begins when there is a new certificate and no rebalance is under way.
    pub(super) fn begin_renewal(&mut self, now: Instant) {
        let is_new = self.certificates.has_changed().unwrap_or(false);
        if !is_new
            || self.liveness.is_away()
            || now < self.renew_at
            || self.assigning.is_some()
            || self.revoking.is_some()
        {
            return;
        }
        let Subscription { group, topics, .. } = &self.subscription;
        let proven = Consumer::new(&self.cluster, group, topics).and_then(|successor| {
            match successor.is_served(PROOF) {
                true => Ok(successor),
                false => {
                    successor.close(Instant::now());
                    Err("with the new one no broker is reached".to_owned())
                }
            }
        });
        match proven {
            Err(error) => {
                tracing::warn!(
                    group,
                    "the consumer keeps its old certificate for now: {error}"
                );
                self.renew_at = now + RETRY;
            }
            Ok(successor) => {
                self.certificates.mark_unchanged();
                let partitions: Vec<TopicPartition> = self
                    .slots
                    .values()
                    .map(|slot| slot.partition.clone())
                    .collect();
                self.begin_revoke(partitions, Some(successor), now);
            }
        }
    }

    /// The group asks for something while the partitions are being drained for a renewal: they are delivered from again, and the renewal
    /// begins anew when the group is served.
    pub(super) fn put_off_renewal(&mut self) {
        let is_renewal = |revoking: &mut Revoking| revoking.successor.is_some();
        let Some(Revoking {
            successor: Some(successor),
            ..
        }) = self.revoking.take_if(is_renewal)
        else {
            return;
        };
        successor.close(Instant::now());
        self.certificates.mark_changed();
        let mut again = Vec::new();
        for slot in self.slots.values_mut().filter(|slot| slot.revoking) {
            slot.revoking = false;
            again.push(slot.partition.clone());
        }
        for partition in &again {
            self.tell_partition(partition, PartitionChange::Assigned, None);
        }
    }

    /// The old consumer leaves the group, the new one joins. That comes first, so that the group rebalances once; but two with one instance
    /// id would fence each other, so there the old one goes first, and its partitions wait for the new one.
    pub(super) fn succeed(&mut self, successor: Consumer, now: Instant) {
        let is_static = self.limits.is_static;
        self.commits_sent.clear();
        let old = std::mem::replace(&mut self.consumer, successor);
        if !is_static {
            self.join();
        }
        if !old.close(now + COMMIT_WAIT) {
            metrics::subscribe().leaked.increment(1);
        }
        if is_static {
            self.join();
        }
        tracing::info!(
            group = self.subscription.group,
            "the consumer uses the new certificate"
        );
    }

    pub(super) fn join(&self) {
        if let Err(error) = self.consumer.subscribe(&self.subscription.topics) {
            tracing::error!(group = self.subscription.group, error = %error, "the new consumer could not subscribe");
        }
    }
}
