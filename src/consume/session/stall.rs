//! Partitions from which nothing goes out although something waits and a stream has room: which, and why.
//!
//! Looked at once a second, not in the way of deliveries.

use std::time::{Duration, Instant};

use super::{Session, Slot, UNREAD, pressure::HeldUp};
use crate::{
    consume::{StreamId, ledger::Ordering},
    metrics::Figures,
};

/// What nothing goes out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stall {
    /// Attempts ran out, and what is left waits behind that.
    Blocked,
    /// What is left waits for a dead letter that cannot be written yet.
    DeadLetters,
    /// What is left waits for another attempt of a record before it.
    Parked,
    /// It may be what kills clients, and goes out when its stream holds nothing.
    Suspect,
    /// Records of its keys, or with PARTITION of the partition, are out with a stream and not settled.
    Unsettled,
    /// The streams that it is for have room and do not read.
    Unread,
    /// The streams that it is for await more answers than may be awaited.
    Unanswered,
    /// The partition is read no further.
    HeldUp(HeldUp),
}

impl Stall {
    const OWN: [Self; 7] = [
        Self::Blocked,
        Self::DeadLetters,
        Self::Parked,
        Self::Suspect,
        Self::Unsettled,
        Self::Unread,
        Self::Unanswered,
    ];

    fn all() -> impl Iterator<Item = Self> {
        Self::OWN.into_iter().chain(HeldUp::ALL.map(Self::HeldUp))
    }

    /// As the metric names it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::DeadLetters => "dead_letters",
            Self::Parked => "parked",
            Self::Suspect => "suspect",
            Self::Unsettled => "unsettled",
            Self::Unread => "unread",
            Self::Unanswered => "unanswered",
            Self::HeldUp(cause) => cause.as_str(),
        }
    }
}

impl Session {
    /// How many partitions stand still, by cause; and a line of the log for each that has come to.
    pub(super) fn look_up_stalls(&mut self, now: Instant) -> Figures {
        let open: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.is_member() && stream.held.records < stream.window.records)
            .map(|(&id, _)| id)
            .collect();
        let mut causes = Vec::new();
        for (&index, slot) in &self.slots {
            let since = now.saturating_duration_since(slot.sent_at);
            let cause = (since >= self.limits.stall_after && !slot.revoking && !open.is_empty())
                .then(|| self.stall(slot, &open))
                .flatten();
            causes.push((index, cause, since));
        }
        let mut counts: Figures = Stall::all().map(|cause| (cause.as_str(), 0)).collect();
        for (index, cause, since) in causes {
            let slot = self.slots.get_mut(&index).expect("it was just looked at");
            if let Some(cause) = cause {
                let count = counts.iter_mut().find(|(name, _)| *name == cause.as_str());
                if let Some((_, count)) = count {
                    *count += 1;
                }
                if slot.stalled != Some(cause) {
                    tell(&self.subscription.group, slot, cause, since);
                }
            }
            slot.stalled = cause;
        }
        counts
    }

    /// Why nothing of a partition goes out, if anything waits there.
    fn stall(&self, slot: &Slot, open: &[StreamId]) -> Option<Stall> {
        let ledger = &slot.ledger;
        if !ledger.has_idle() {
            if !self.consumer.has_waiting(&slot.partition) {
                return None;
            }
            let held_up = slot.held_up(&self.limits, &self.memory);
            return held_up
                .map(Stall::HeldUp)
                .or_else(|| self.not_taken(slot, open));
        }
        // Something is ready for a stream with room: what keeps that stream from it?
        for id in open {
            if let Some(next) = ledger.next(*id) {
                let stream = &self.streams[id];
                return Some(match () {
                    () if next.is_suspect || stream.has_suspect => Stall::Suspect,
                    () if !stream.has_room_for(next.weight) => Stall::Unsettled,
                    () if stream.unconfirmed.awaited() > UNREAD => Stall::Unanswered,
                    () => Stall::Unread,
                });
            }
        }
        Some(match () {
            () if ledger.blocked() > 0 && self.subscription.ordering != Ordering::Unordered => {
                Stall::Blocked
            }
            () if ledger.moving() > 0 => Stall::DeadLetters,
            () if ledger.parked() > 0 => Stall::Parked,
            () if ledger.blocked() > 0 => Stall::Blocked,
            () => Stall::Unsettled,
        })
    }

    /// Why nothing of a partition is read for any of the streams that have room; nothing, if it is about to be.
    fn not_taken(&self, slot: &Slot, open: &[StreamId]) -> Option<Stall> {
        let mut first = None;
        for id in open {
            let stream = &self.streams[id];
            let cause = match () {
                () if !stream.has_room_for(0) => continue,
                () if !slot.ledger.open_to(*id) => Stall::Unsettled,
                () if stream.has_suspect => Stall::Suspect,
                () if stream.unconfirmed.awaited() > UNREAD => Stall::Unanswered,
                () if stream.is_full() => Stall::Unread,
                () => return None,
            };
            first = first.or(Some(cause));
        }
        first
    }
}

fn tell(group: &str, slot: &Slot, cause: Stall, since: Duration) {
    tracing::warn!(
        group,
        partition = %slot.partition,
        cause = cause.as_str(),
        "nothing has been delivered of a partition for {} s, although records wait and a stream has room",
        since.as_secs()
    );
}
