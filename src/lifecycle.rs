//! The phases of the process, its one deadline, and what readiness waits for.
//!
//! Serving → (quiet: `outrigger drain`) → stopping (SIGTERM, SIGINT) → stopped. The deadline is counted from the first of the two. Whoever
//! must react waits for [`Lifecycle::quieting`] or [`Lifecycle::stopping`]. Not here: what each part does about it (`app` drives the order).

pub mod signal;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// Where the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Phase {
    /// Something of [`Lifecycle::missing`] is not there yet.
    Starting,
    /// Everything is served.
    Serving,
    /// No new deliveries; after a signal, no new work at all.
    Draining,
}

/// A cheap handle; all clones are the same process.
#[derive(Clone, Debug)]
pub struct Lifecycle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// How long a drain may take.
    drain: Duration,
    deadline: OnceLock<Instant>,
    quiet: CancellationToken,
    stop: CancellationToken,
    // A std mutex: sections are an insert or a removal.
    missing: Mutex<BTreeSet<&'static str>>,
}

impl Lifecycle {
    /// A process whose drain may take `drain`.
    pub fn new(drain: Duration) -> Self {
        Self(Arc::new(Shared {
            started: Instant::now(),
            drain,
            deadline: OnceLock::new(),
            quiet: CancellationToken::new(),
            stop: CancellationToken::new(),
            missing: Mutex::default(),
        }))
    }

    /// Where the process is.
    pub fn phase(&self) -> Phase {
        if self.0.quiet.is_cancelled() {
            Phase::Draining
        } else if self.missing().is_empty() {
            Phase::Serving
        } else {
            Phase::Starting
        }
    }

    /// Since when it runs.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// First phase of a drain: not ready, no new deliveries; publishes and settles are still served. The deadline begins to count.
    pub fn quiet(&self, within: Option<Duration>) -> Instant {
        let now = Instant::now();
        let deadline = *self
            .0
            .deadline
            .get_or_init(|| now + within.map_or(self.0.drain, |within| within.min(self.0.drain)));
        if !self.0.quiet.is_cancelled() {
            tracing::info!(
                deadline_ms = deadline.saturating_duration_since(now).as_millis() as u64,
                "draining: no new deliveries"
            );
        }
        self.0.quiet.cancel();
        deadline
    }

    /// Second phase: no new work; the process ends when what is outstanding is done, or at the deadline.
    pub fn stop(&self) -> Instant {
        let deadline = self.quiet(None);
        if !self.0.stop.is_cancelled() {
            tracing::info!("stopping: no new work");
        }
        self.0.stop.cancel();
        deadline
    }

    /// The deadline of the drain; far away while there is none.
    pub fn deadline(&self) -> Instant {
        let far = || Instant::now() + self.0.drain;
        self.0.deadline.get().copied().unwrap_or_else(far)
    }

    /// Ends when the first phase of a drain begins.
    pub async fn quieting(&self) {
        self.0.quiet.cancelled().await;
    }

    /// Ends when the second phase of a drain begins.
    pub async fn stopping(&self) {
        self.0.stop.cancelled().await;
    }

    /// Whether new work is refused.
    pub fn is_stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Makes readiness wait for `part`, until the answer is dropped.
    pub fn expect(&self, part: &'static str) -> Pending {
        self.parts().insert(part);
        Pending {
            lifecycle: self.clone(),
            part,
        }
    }

    /// What readiness waits for, by name.
    pub fn missing(&self) -> Vec<&'static str> {
        self.parts().iter().copied().collect()
    }

    fn parts(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.0
            .missing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part that is not ready until this is dropped.
#[derive(Debug)]
pub struct Pending {
    lifecycle: Lifecycle,
    part: &'static str,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.lifecycle.parts().remove(self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_waits_for_every_part_by_name() {
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        let (first, second) = (lifecycle.expect("listeners"), lifecycle.expect("producer"));
        drop(first);
        assert_eq!(
            (lifecycle.phase(), lifecycle.missing()),
            (Phase::Starting, vec!["producer"])
        );
        drop(second);
        assert_eq!(lifecycle.phase(), Phase::Serving);
    }

    #[test]
    fn the_deadline_counts_from_the_first_phase_and_is_never_longer_than_configured() {
        let lifecycle = Lifecycle::new(Duration::from_secs(10));
        let first = lifecycle.quiet(Some(Duration::from_secs(60)));
        assert!(first <= Instant::now() + Duration::from_secs(10));
        assert!(!lifecycle.is_stopping());
        assert_eq!(lifecycle.stop(), first);
        assert!(lifecycle.is_stopping());
    }
}
