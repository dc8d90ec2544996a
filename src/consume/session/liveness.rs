//! The group follows the application, not the sidecar: Kafka would never notice a dead one behind a sidecar that goes on with its heartbeats.
//!
//! When leases end and nothing is settled, the sidecar leaves the group, so that others get the partitions; it stays with its streams, and
//! joins again at the first sign of one of them, or of a new one. Streams that are not there at all are the session's end (`idle_leave`).

use std::time::Instant;

use super::{Phase, Session, times::millis};
use crate::metrics;

/// What is known of the application's life.
#[derive(Debug)]
pub(super) struct Liveness {
    /// When it last gave a sign.
    sign_at: Instant,
    /// Leases that have ended since.
    pub(super) expired: u64,
    /// The group was left.
    is_away: bool,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sign_at: now,
            expired: 0,
            is_away: false,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.is_away
    }
}

impl Session {
    /// A stream is new, or has said something.
    pub(super) fn sign_of_life(&mut self) {
        let was_away = self.liveness.is_away;
        self.liveness = Liveness::new(Instant::now());
        if was_away {
            tracing::info!(
                group = self.subscription.group,
                "there is somebody to deliver to: joining the group again"
            );
            self.join();
        }
    }

    /// Leaves the group when it delivers to nobody.
    pub(super) fn leave_if_dead(&mut self, now: Instant) {
        let Liveness {
            sign_at,
            expired,
            is_away,
        } = self.liveness;
        let silence = now.saturating_duration_since(sign_at);
        let grace = self.limits.stuck_leave;
        let is_busy =
            self.assigning.is_some() || self.revoking.is_some() || self.phase != Phase::Delivering;
        if is_away || is_busy || expired == 0 || grace.is_zero() || silence < grace {
            return;
        }
        self.liveness.is_away = true;
        metrics::subscribe().left_stuck.increment(1);
        tracing::warn!(
            group = self.subscription.group,
            expired,
            "{expired} leases have ended and nothing was settled for {} ms: leaving the group, so that others get the partitions",
            millis(silence)
        );
        self.consumer.unsubscribe();
    }
}
