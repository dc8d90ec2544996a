//! What a session lets others see: the status, and the metrics.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Phase, Session, Slot, pressure::HeldUp};
use crate::{metrics, record::Usage};

/// How often ages are looked up.
const LOOK: Duration = Duration::from_secs(1);

impl Session {
    pub(super) fn held(&self) -> usize {
        self.slots
            .values()
            .map(|slot| slot.ledger.delivered())
            .sum()
    }

    /// How many streams have somebody at their other end.
    pub(super) fn attached(&self) -> usize {
        let streams = self.streams.values();
        streams.filter(|stream| !stream.is_kept).count()
    }

    /// Tells how much is delivered and not settled: before a subscriber can know it, so that nobody sees a count behind its own.
    pub(super) fn show_held(&self, held: usize) {
        let before = self.watch.unsettled.swap(held, Ordering::Relaxed);
        metrics::subscribe()
            .unsettled
            .increment(held as f64 - before as f64);
    }

    pub(super) fn publish_status(&mut self, now: Instant) {
        self.show(now);
        self.show_held(self.held());
        self.watch.streams.store(self.attached(), Ordering::Relaxed);
        // Last: whoever sees it sees a count that no delivery raises any more.
        self.watch
            .quiet
            .store(self.phase != Phase::Delivering, Ordering::Release);
    }

    /// Tells the metrics what was counted in this turn, and how things stand.
    fn show(&mut self, now: Instant) {
        let mut credit = Usage::default();
        for stream in self.streams.values().filter(|stream| stream.is_member()) {
            credit.records += stream.window.records.saturating_sub(stream.held.records);
            credit.bytes += stream.window.bytes.saturating_sub(stream.held.bytes);
        }
        self.shown.stands(credit, self.slots.len());
        for slot in self.slots.values_mut() {
            slot.reading.flush();
        }
        if now >= self.ends_at && !self.limits.ends_interval.is_zero() {
            self.ends_at = now + self.limits.ends_interval;
            self.look_up_ends();
        }
        if now >= self.look_at {
            self.look_at = now + LOOK;
            self.look_up_oldest();
            self.look_up_stuck(now);
        }
    }

    /// Of the partitions whose queues were not emptied since the last time.
    fn look_up_ends(&mut self) {
        let full = self
            .slots
            .values_mut()
            .filter_map(|slot| (!std::mem::take(&mut slot.dry)).then(|| Arc::clone(&slot.shown)));
        self.consumer.look_up_ends(full.collect());
    }

    fn look_up_stuck(&mut self, now: Instant) {
        let stalled = self.look_up_stalls(now);
        let sum = |of: fn(&Slot) -> usize| self.slots.values().map(|slot| of(slot) as u64).sum();
        let stuck = vec![
            ("parked", sum(|slot| slot.ledger.parked())),
            ("moving", sum(|slot| slot.ledger.moving())),
            ("blocked", sum(|slot| slot.ledger.blocked())),
        ];
        let causes = HeldUp::ALL.iter().map(|cause| cause.as_str());
        let held_up = causes.zip(self.held_up_partitions()).collect();
        self.shown.stuck(stuck, held_up, stalled);
    }

    fn look_up_oldest(&mut self) {
        let mut since: Option<Instant> = None;
        for slot in self.slots.values_mut() {
            let oldest = slot.ledger.oldest();
            slot.times.forget(oldest);
            let at = oldest
                .and_then(|serial| slot.times.of(serial))
                .map(|made| made.at);
            since = since.min(at).or(since).or(at);
        }
        self.shown.oldest(since);
    }
}
