//! Where the group stands in the partitions that are held here, for those who ask.

use std::time::Instant;

use bytes::Bytes;

use super::{Session, Slot};
use crate::{
    consume::{
        Token,
        unary::{BlockedLook, Look, PartitionLook},
    },
    metrics,
};

/// Blocked records of one partition that are listed: those behind them show when they are decided about.
const LISTED: usize = 100;

impl Session {
    pub(super) fn look(&self) -> Look {
        let now = Instant::now();
        let lags = metrics::lags_of(
            self.slots
                .values()
                .map(|slot| (&*slot.shown, slot.ledger.position())),
        );
        let mut partitions: Vec<PartitionLook> = self
            .slots
            .iter()
            .zip(lags)
            .map(|((&index, slot), lag)| {
                let ledger = &slot.ledger;
                let blocked = ledger.blocked_records().take(LISTED);
                PartitionLook {
                    partition: slot.partition.clone(),
                    committed: slot.committed,
                    position: ledger.position(),
                    lag,
                    in_flight: ledger.delivered() as u64,
                    parked: (ledger.parked() + ledger.moving()) as u64,
                    oldest: self
                        .held_since(slot)
                        .map(|since| now.saturating_duration_since(since)),
                    blocked: blocked
                        .map(|blocked| BlockedLook {
                            token: Token {
                                index,
                                offset: blocked.offset,
                                epoch: slot.epoch,
                                serial: blocked.serial,
                            },
                            key: Bytes::copy_from_slice(blocked.payload.key().unwrap_or_default()),
                            offset: blocked.offset,
                            attempts: blocked.attempts,
                            reason: blocked.trouble.describe(),
                            waiting: blocked.waiting,
                        })
                        .collect(),
                }
            })
            .collect();
        partitions.sort_by(|a, b| {
            let name =
                |look: &PartitionLook| (look.partition.topic.clone(), look.partition.partition);
            name(a).cmp(&name(b))
        });
        Look {
            partitions,
            streams: self.attached(),
        }
    }

    /// Since when the oldest record that is not settled is held: delivered, or failed and not done since.
    fn held_since(&self, slot: &Slot) -> Option<Instant> {
        let delivered = slot
            .ledger
            .oldest()
            .and_then(|serial| slot.times.of(serial));
        let failed = slot
            .ledger
            .oldest_trouble()
            .map(|moment| self.clock.instant(moment));
        let delivered = delivered.map(|made| made.at);
        delivered.into_iter().chain(failed).min()
    }
}
