//! What time brings to records that are not done, and what subscribers are told of those that are stuck.

use std::time::{Duration, Instant};

use super::{
    IDLE_TICK, Phase, Session, Slot, TICK,
    stream::{Stream, refund},
    times::millis,
};
use crate::{
    consume::{Outgoing, PartitionChange},
    failure::{Failure, Reason},
    metrics,
};

impl Session {
    /// Leases that have ended, waits that are over.
    pub(super) fn advance_retries(&mut self, now: Instant) {
        let moment = self.clock.moment(now);
        let mut refunds = Vec::new();
        for slot in self.slots.values_mut() {
            if slot.ledger.due_at().is_none_or(|at| at > moment) {
                continue;
            }
            // What was sent and not read yet has not begun its lease; a client that never reads is cut.
            let is_unread = |id| {
                self.streams
                    .get(&id)
                    .is_some_and(|stream| stream.has_unread())
            };
            let due = slot.ledger.due(moment, is_unread);
            metrics::subscribe().expired.increment(due.expired);
            self.liveness.expired += due.expired;
            refunds.extend(due.refunds);
        }
        refund(&mut self.streams, &refunds);
    }

    /// How long nothing has to be done, as far as time decides.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        let due = self
            .slots
            .values()
            .filter_map(|slot| slot.ledger.due_at())
            .min();
        let tick = if self.only_waits() { IDLE_TICK } else { TICK };
        due.map_or(tick, |at| {
            let left = self.clock.instant(at).saturating_duration_since(now);
            left.clamp(Duration::from_millis(1), tick)
        })
    }

    /// Whether nothing is under way that time decides: the next thing to happen is somebody else's.
    fn only_waits(&self) -> bool {
        let is_quiet = |stream: &Stream| !stream.draining && !stream.has_unread();
        self.phase == Phase::Delivering
            && self.assigning.is_none()
            && self.revoking.is_none()
            && self.seeking.is_none()
            && self.commits_sent.is_empty()
            && self.copying() == 0
            && self.liveness.expired == 0
            && !self.streams.is_empty()
            && self.streams.values().all(is_quiet)
            && self.slots.values().all(Slot::only_waits)
    }

    /// Tells the streams of partitions where a record is blocked now, or none any more.
    pub(super) fn tell_blocked(&mut self) {
        let mut news = Vec::new();
        for slot in self.slots.values_mut() {
            let now = (slot.ledger.blocked(), slot.dead_trouble.clone());
            if now != slot.told {
                slot.told = now;
                news.push(slot.blocked_event());
            }
        }
        for message in news {
            if let Outgoing::Partition {
                partition, reason, ..
            } = &message
                && !reason.is_empty()
            {
                tracing::warn!(group = self.subscription.group, %partition, "{reason}");
            }
            self.tell_all(|| message.clone());
        }
    }

    /// Ends streams whose callers neither read nor say anything, although there is something to read.
    pub(super) fn cut_the_silent(&mut self, now: Instant) {
        for stream in self.streams.values_mut() {
            if stream.is_silent(now, self.limits.read_grace) {
                let text = format!(
                    "nothing was read of this stream, and nothing said on it, for {} ms",
                    millis(self.limits.read_grace)
                );
                tracing::warn!(group = self.subscription.group, "a stream is cut: {text}");
                stream.end(Some(Failure::new(Reason::WindowExceeded, text)));
            }
        }
    }
}

impl Slot {
    /// Whether nothing of it is delivered, and Kafka has all that is settled.
    fn only_waits(&self) -> bool {
        let settled = (self.ledger.frontier(), self.ledger.settlements());
        self.ledger.delivered() == 0 && self.committing == settled
    }

    /// Whether its streams were told that something of it is blocked.
    pub(super) fn is_blocked(&self) -> bool {
        self.told != (0, None)
    }

    /// What there is to tell of blocked records.
    pub(super) fn blocked_event(&self) -> Outgoing {
        let first = self.ledger.blocked_records().next();
        let (change, reason) = match (first, &self.dead_trouble) {
            (None, None) => (PartitionChange::Unblocked, String::new()),
            (None, Some(trouble)) => (PartitionChange::Blocked, trouble.clone()),
            (Some(first), _) => (
                PartitionChange::Blocked,
                format!(
                    "{} blocked: the record at offset {} failed {} times; {}",
                    self.ledger.blocked(),
                    first.offset,
                    first.attempts,
                    first.trouble.describe(),
                ),
            ),
        };
        Outgoing::Partition {
            partition: self.partition.clone(),
            change,
            by: None,
            reason,
        }
    }
}
