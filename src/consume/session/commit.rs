//! Commits, and the goodbye to the group.
//!
//! Only a ledger's frontier is committed, with a map of what is settled above it, and only when Kafka does not have them yet; a commit that
//! failed is sent again with the next.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{Session, Slot, durable::Covered, rejoin::Rejoin};
use crate::{
    consume::{
        Committed, Outgoing,
        map::{self, Place},
    },
    failure::{Failure, Reason},
    kafka::{Commit, CommitEnd, Offsets},
    metrics,
};

/// The shortest time between two commits, however many streams wait for one.
pub(super) const PACE: Duration = Duration::from_millis(5);

/// Between two tries of a commit that is waited for.
const AGAIN: Duration = Duration::from_millis(100);

/// After a commit that failed or took that long its request, or a copy that librdkafka made of it, may lie in a broker behind another request of a connection
/// that is closed by now, and be carried out after a later commit: nothing numbers commits (seen with 4.3.1, and heartbeats that time out).
const SLOW: Duration = Duration::from_millis(500);

/// How long what is committed is committed again and again after that. A broker holds a request back for 5 s
/// (`offsets.commit.timeout.ms`), and few lie behind each other.
const DOUBT: Duration = Duration::from_secs(30);

/// Between two commits of the same for that.
const REPEAT: Duration = Duration::from_secs(1);

/// No count of settlements is this one.
pub(super) const NOTHING_SENT: u64 = u64::MAX;

impl Session {
    pub(super) fn commit_if_due(&mut self, now: Instant) {
        // One at a time: then the answers are in their order, and an older commit cannot come after a newer one.
        if !self.commits_sent.is_empty() {
            return;
        }
        let is_paced = now + self.limits.commit_interval >= self.commit_at + PACE;
        if now >= self.commit_at || is_paced && self.is_hurried() {
            if now < self.doubt_until && now >= self.repeat_at {
                self.repeat_at = now + REPEAT;
                self.repeat_commits();
            }
            self.commit(|_| true);
            self.commit_at = now + self.limits.commit_interval;
        }
    }

    /// Begins to commit what Kafka does not have yet; says whether there was any.
    pub(super) fn commit(&mut self, which: impl Fn(&Slot) -> bool) -> bool {
        let (mut commits, mut covers) = (Vec::new(), Vec::new());
        for (&index, slot) in self.slots.iter_mut().filter(|(_, slot)| which(slot)) {
            let settled = (slot.ledger.frontier(), slot.ledger.settlements());
            if settled == slot.committing {
                continue;
            }
            slot.committing = settled;
            let cluster = self.cluster_id.as_ref().filter(|_| self.map_budget > 0);
            let place = cluster.map(|cluster| Place {
                cluster,
                topic: &slot.partition.topic,
                partition: slot.partition.partition,
                base: settled.0,
            });
            let map = place
                .map(|place| map::encode(place, &slot.ledger.settled_above(), self.map_budget))
                .unwrap_or_default();
            slot.map_is_full = map.dropped > 0 || map.text.len() * 4 > self.map_budget * 3;
            metrics::subscribe()
                .ranges_dropped
                .increment(map.dropped as u64);
            let covered = Covered {
                settlements: settled.1,
                below: map.through.max(settled.0),
            };
            covers.push((index, covered));
            commits.push(Commit {
                partition: slot.partition.clone(),
                offset: settled.0,
                metadata: map.text,
            });
        }
        if commits.is_empty() {
            return false;
        }
        match self.consumer.commit(&commits) {
            Ok(()) => {
                self.commits_sent.push_back(covers);
                self.commits_made += 1;
            }
            Err(error) => {
                tracing::warn!(group = self.subscription.group, error = %error, "a commit could not be sent");
                self.commit_again();
            }
        }
        true
    }

    /// Whether a commit is to be sent without waiting for the interval. Not one that has just failed: it would fail again at once.
    pub(super) fn is_hurried(&self) -> bool {
        let is_wanted = self.is_awaited() || self.is_held_up();
        is_wanted && self.commits_sent.is_empty() && !self.slots.values().any(has_failed)
    }

    /// Whether a stream waits for a commit.
    pub(super) fn is_awaited(&self) -> bool {
        let mut streams = self.streams.values();
        streams.any(|stream| stream.unconfirmed.awaited() > 0)
    }

    /// Waits for the commits that were sent, and takes their answers; says whether all of them came in time.
    pub(super) fn wait_for_commits(&mut self, deadline: Instant) -> bool {
        let in_time = self.consumer.wait_for_commits(deadline);
        for ended in self.consumer.ended_commits() {
            self.commit_ended(ended);
        }
        in_time
    }

    /// Commits, until Kafka has it all or `deadline`; says whether it has. A try that fails is repeated: a broker refuses a member's epoch
    /// until the next heartbeat has brought the new one (KIP-848).
    pub(super) fn commit_now(&mut self, which: impl Fn(&Slot) -> bool, deadline: Instant) -> bool {
        loop {
            if !self.wait_for_commits(deadline) {
                return false;
            }
            if !self.commit(&which) {
                return true;
            }
            if !self.wait_for_commits(deadline) || self.is_commit_final {
                return false;
            }
            if self.slots.values().any(has_failed) {
                thread::park_timeout(AGAIN.min(deadline.saturating_duration_since(Instant::now())));
            }
        }
    }

    pub(super) fn commit_ended(&mut self, ended: CommitEnd) {
        let CommitEnd {
            offsets,
            error,
            is_too_long,
            is_final,
            after,
        } = ended;
        self.is_commit_final = is_final;
        if error.is_some() || after >= SLOW {
            self.doubt_until = Instant::now() + DOUBT;
        } else if matches!(self.rejoin, Rejoin::Proving) {
            self.rejoin = Rejoin::Proven;
        }
        if is_too_long {
            self.shorten_maps();
        }
        self.commits.ended(error.is_none(), after);
        let covers = self.commits_sent.pop_front().unwrap_or_default();
        if error.is_none() {
            for stream in self.streams.values_mut() {
                for (slot, covered) in &covers {
                    stream.unconfirmed.covered(*slot, *covered);
                }
                stream.confirm();
            }
        }
        self.committed(&offsets, error);
    }

    /// What was sent is not in Kafka.
    fn commit_again(&mut self) {
        for slot in self.slots.values_mut() {
            slot.committing = (slot.committed, NOTHING_SENT);
        }
    }

    /// What was committed of settles here is committed once more.
    pub(super) fn repeat_commits(&mut self) {
        for slot in self.slots.values_mut() {
            if slot.ledger.settlements() > 0 {
                slot.committing.1 = NOTHING_SENT;
            }
        }
    }

    /// Brokers take less beside an offset than was sent.
    fn shorten_maps(&mut self) {
        self.map_budget /= 2;
        tracing::warn!(
            group = self.subscription.group,
            characters = self.map_budget,
            "brokers take less metadata beside an offset (offset.metadata.max.bytes); consume.commit_metadata is too large"
        );
    }

    fn committed(&mut self, offsets: &Offsets, error: Option<String>) {
        let recorder = metrics::subscribe();
        if let Some(error) = error {
            recorder.commits_failed.increment(1);
            tracing::warn!(
                group = self.subscription.group,
                error,
                "a commit failed; it is tried again"
            );
            self.commit_again();
            return;
        }
        recorder.commits_ok.increment(1);
        let mut committed = Vec::new();
        for (partition, offset) in offsets {
            if let Some(slot) = self
                .slots
                .values_mut()
                .find(|slot| slot.partition == *partition)
            {
                slot.committed = slot.committed.max(*offset);
                slot.shown.committed(slot.committed);
                committed.push(Committed {
                    partition: partition.clone(),
                    offset: *offset,
                    position: slot.ledger.position(),
                });
            }
        }
        for stream in self.streams.values_mut() {
            let durable_through = stream.unconfirmed.through();
            stream.tell(Outgoing::Committed {
                partitions: committed.clone(),
                durable_through,
            });
        }
    }

    pub(super) fn finish(mut self, failure: Option<Failure>, deadline: Instant) {
        let end = failure.unwrap_or_else(|| {
            Failure::new(Reason::Draining, "the sidecar is stopping")
                .with_retry_after(Duration::from_secs(1))
        });
        for stream in self.streams.values_mut() {
            stream.flush();
            stream.end(Some(end.clone()));
        }
        self.leave(deadline);
    }

    /// The last commit, and the goodbye to the group.
    pub(super) fn leave(mut self, deadline: Instant) {
        let now = Instant::now();
        let half = now + deadline.saturating_duration_since(now) / 2;
        let committed = self.commit_now(|_| true, half);
        let closed = self.consumer.close(deadline);
        if !closed {
            metrics::subscribe().leaked.increment(1);
        }
        if !(committed && closed) {
            self.watch.unfinished.store(true, Ordering::Relaxed);
            tracing::warn!(
                group = self.subscription.group,
                committed,
                closed,
                "the last commit or the goodbye to the group has no answer in time"
            );
        }
    }
}

fn has_failed(slot: &Slot) -> bool {
    slot.committing.1 == NOTHING_SENT
}
