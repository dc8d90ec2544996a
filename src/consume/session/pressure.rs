//! When a partition is read no further, although there is room for its records: what is kept of it has its bounds too.
//!
//! Not here: windows (`deliver`), and what librdkafka fetches ahead (`kafka/settings`).

use super::{Session, Slot, memory::Memory};
use crate::consume::Limits;

/// What holds a partition up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HeldUp {
    /// What is settled above the first unsettled record hardly fits beside a commit: more of it would be delivered again after a restart.
    Map,
    /// Too many records are kept behind the first that is not settled.
    Span,
    /// Too many wait for another attempt.
    Parked,
    /// Enough is read, and none of it may go out: its keys are busy, or the streams that they belong to are.
    LookAhead,
    /// All subscriptions together hold as much as they may.
    Memory,
}

impl HeldUp {
    pub(super) const ALL: [Self; 5] = [
        Self::Map,
        Self::Span,
        Self::Parked,
        Self::LookAhead,
        Self::Memory,
    ];

    /// As the metric names it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Map => "commit_metadata",
            Self::Span => "max_span_records",
            Self::Parked => "max_parked_records",
            Self::LookAhead => "look_ahead_bytes",
            Self::Memory => "max_bytes",
        }
    }
}

impl Slot {
    /// Whether the partition may not be read further now, and why.
    pub(super) fn held_up(&self, limits: &Limits, memory: &Memory) -> Option<HeldUp> {
        let ledger = &self.ledger;
        if memory.is_full() {
            return Some(HeldUp::Memory);
        }
        if ledger.span() >= limits.max_span {
            return Some(HeldUp::Span);
        }
        if ledger.parked() + ledger.moving() >= limits.max_parked {
            return Some(HeldUp::Parked);
        }
        if ledger.idle_bytes() >= limits.look_ahead {
            return Some(HeldUp::LookAhead);
        }
        // What is restored is in the map already.
        (self.map_is_full && !ledger.is_restoring()).then_some(HeldUp::Map)
    }
}

impl Session {
    /// Whether a commit would let a partition go on: its map is full, and its first unsettled record has moved since.
    pub(super) fn is_held_up(&self) -> bool {
        let is_freed = |slot: &Slot| slot.map_is_full && slot.ledger.frontier() > slot.committing.0;
        self.slots.values().any(is_freed)
    }

    /// How many partitions are held up by each cause, by `HeldUp::ALL`.
    pub(super) fn held_up_partitions(&self) -> [u64; HeldUp::ALL.len()] {
        HeldUp::ALL.map(|cause| {
            let is_cause = |slot: &&Slot| slot.held_up(&self.limits, &self.memory) == Some(cause);
            self.slots.values().filter(is_cause).count() as u64
        })
    }
}
