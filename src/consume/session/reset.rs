//! A log that does not have the position: librdkafka goes on where the log begins.
//!
//! Either records were deleted before they were read (retention): then what is left is read on. Or the log was cut, or its topic made anew, and
//! offsets come that were read already: then nothing that is known of the partition holds any more, and what has taken the place of read
//! records is delivered, not passed over. Streams are told of both.

use super::Session;
use crate::{
    consume::{Outgoing, PartitionChange},
    kafka::is_reset,
    record::{Consumed, TopicPartition},
};

/// What has come of a partition that librdkafka reads from the beginning of its log.
#[derive(Default)]
pub(super) struct Reset {
    /// It does, by its own words, and nothing from there has come yet.
    is_told: bool,
    /// What was to come next, and what came.
    gap: Option<(i64, i64)>,
    /// From the first offset on that was read already.
    again: Vec<Consumed>,
}

impl Reset {
    /// Whether offsets come that were read already.
    pub(super) fn is_back(&self) -> bool {
        !self.again.is_empty()
    }

    /// Gives a record on if it may be taken in where `position` comes next.
    pub(super) fn pass(&mut self, position: i64, record: Consumed) -> Option<Consumed> {
        if self.is_back() || record.offset < position {
            self.again.push(record);
            return None;
        }
        // Gaps as such are nothing to tell: compaction and transactions leave them.
        if self.is_told && record.offset > position {
            self.is_told = false;
            self.gap = Some((position, record.offset));
        }
        Some(record)
    }
}

impl Session {
    pub(super) fn note_reset(&mut self, line: &str) {
        let mut slots = self.slots.values_mut();
        if let Some(slot) = slots.find(|slot| is_reset(line, &slot.partition)) {
            slot.reset.is_told = true;
        }
    }

    /// Tells the streams, and begins anew where a log goes back.
    pub(super) fn follow_resets(&mut self) {
        let mut gaps = Vec::new();
        let mut backs = Vec::new();
        for slot in self.slots.values_mut() {
            gaps.extend(
                slot.reset
                    .gap
                    .take()
                    .map(|gap| (slot.partition.clone(), gap)),
            );
            if slot.reset.is_back() && !slot.revoking {
                let again = std::mem::take(&mut slot.reset.again);
                backs.push((slot.partition.clone(), slot.ledger.position(), again));
            }
        }
        for (partition, (position, first)) in gaps {
            let reason = format!(
                "the records from offset {position} to {first} were deleted before they were read"
            );
            self.tell_truncated(&partition, &reason);
        }
        for (partition, position, again) in backs {
            let first = again[0].offset;
            let reason = format!(
                "the log does not have offset {position}, which was to come next: it was cut, or its topic made anew; it is read again from \
                 offset {first}"
            );
            self.tell_truncated(&partition, &reason);
            self.begin_at(&partition, first);
            let mut slots = self.slots.values_mut();
            if let Some(slot) = slots.find(|slot| slot.partition == partition) {
                for record in again {
                    slot.ledger.admit(record.offset, record);
                }
            }
        }
    }

    fn tell_truncated(&mut self, partition: &TopicPartition, reason: &str) {
        tracing::warn!(group = self.subscription.group, %partition, "{reason}");
        self.tell_all(|| Outgoing::Partition {
            partition: partition.clone(),
            change: PartitionChange::Truncated,
            by: None,
            reason: reason.to_owned(),
        });
    }
}
