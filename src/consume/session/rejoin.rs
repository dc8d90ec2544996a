//! Joining the group again after a heartbeat of the consumer protocol without an answer.
//!
//! A broker tells a member of a new assignment once, and counts on whoever missed the answer to send all of its state again (KIP-848). librdkafka
//! 2.12.1 does so when the connection breaks, not when the answer is late: the partitions would be nobody's, and those to be given up nobody
//! else's, until the group changes again. Nothing else makes it send its state than joining anew.

use std::time::{Duration, Instant};

use super::{Phase, Session};
use crate::metrics;

/// The coordinator has answered again for that long before the group is left: the next heartbeat may be late too.
const QUIET: Duration = Duration::from_secs(2);

/// How far it is.
#[derive(Debug, Default)]
pub(super) enum Rejoin {
    #[default]
    Needless,
    /// To be left then, if the coordinator takes commits.
    Due(Instant),
    /// Something is committed, to see whether it does: what is settled would come again otherwise.
    Proving,
    /// It does.
    Proven,
    /// The partitions are being handed back.
    Leaving,
}

impl Session {
    /// A heartbeat had no answer in time.
    pub(super) fn heartbeat_failed(&mut self, now: Instant) {
        if !self.liveness.is_away() && !matches!(self.rejoin, Rejoin::Leaving) {
            self.rejoin = Rejoin::Due(now + QUIET);
        }
    }

    /// Leaves when it is time to, and joins when all is handed back. A rebalance that is under way comes first.
    pub(super) fn advance_rejoin(&mut self, now: Instant) {
        if self.assigning.is_some() || self.revoking.is_some() || self.phase != Phase::Delivering {
            return;
        }
        match self.rejoin {
            // Whoever has left for a dead application joins anew when there is somebody again, and not before.
            _ if self.liveness.is_away() => self.rejoin = Rejoin::Needless,
            Rejoin::Due(at) if now >= at => {
                self.repeat_commits();
                self.rejoin = Rejoin::Proving;
            }
            // Nothing is there that could come again.
            Rejoin::Proving
                if self
                    .slots
                    .values()
                    .all(|slot| slot.ledger.settlements() == 0) =>
            {
                self.rejoin = Rejoin::Proven;
            }
            Rejoin::Proven => {
                metrics::subscribe().rejoined.increment(1);
                tracing::warn!(
                    group = self.subscription.group,
                    "a heartbeat had no answer in time, and what it would have said of the assignment is lost: joining the group again"
                );
                self.consumer.unsubscribe();
                self.rejoin = Rejoin::Leaving;
            }
            Rejoin::Leaving if self.slots.is_empty() => {
                self.rejoin = Rejoin::Needless;
                self.join();
            }
            Rejoin::Needless | Rejoin::Due(_) | Rejoin::Proving | Rejoin::Leaving => {}
        }
    }
}
