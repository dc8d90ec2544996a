//! What can be read in a ledger, without changing it.

use std::ops::Range;

use super::{
    Entry, Ledger, State,
    terms::{Blocked, Moment, Ordering, Payload, Refund, StreamId},
};

impl<T: Payload> Ledger<T> {
    /// What is settled above the frontier: ascending ranges, apart from each other. An offset between two neighbours in the log counts as
    /// settled when both are: nothing is there.
    pub fn settled_above(&self) -> Vec<Range<i64>> {
        let mut ranges: Vec<Range<i64>> = Vec::new();
        let mut is_open = false;
        for entry in &self.entries {
            let is_settled = entry.state == State::Settled;
            match ranges.last_mut() {
                Some(last) if is_settled && is_open => last.end = entry.offset + 1,
                _ if is_settled => ranges.push(entry.offset..entry.offset + 1),
                _ => {}
            }
            is_open = is_settled;
        }
        for range in &self.restored {
            let start = range.start.max(self.position);
            match ranges.last_mut() {
                Some(last) if last.end >= start => last.end = last.end.max(range.end),
                _ if start < range.end => ranges.push(start..range.end),
                _ => {}
            }
        }
        ranges
    }

    /// Whether what was settled before this ledger began has not all been read again.
    pub fn is_restoring(&self) -> bool {
        self.restored
            .back()
            .is_some_and(|range| range.end > self.position)
    }

    /// Rises with each settlement: as long as it stays, nothing new can be committed.
    pub fn settlements(&self) -> u64 {
        self.settlements
    }

    /// The next offset that may be admitted.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The offset that may be committed: of the first record that is not settled, else the position.
    pub fn frontier(&self) -> i64 {
        self.entries
            .front()
            .map_or(self.position, |entry| entry.offset)
    }

    /// Whether a record may be delivered to `stream` at all now.
    pub fn open_to(&self, stream: StreamId) -> bool {
        self.terms.ordering != Ordering::Partition
            || self.delivered == 0
            || self.owner == Some(stream)
    }

    /// How many records are kept: from the first that is not settled on.
    pub fn span(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of the records that are not settled.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes of the records that are to be delivered. Those that are parked, moving or blocked have bounds of their own: with
    /// UNORDERED a blocked record blocks only itself.
    pub fn idle_bytes(&self) -> u64 {
        self.idle_bytes
    }

    /// Whether anything is neither delivered nor settled.
    pub fn has_idle(&self) -> bool {
        let is_idle =
            |entry: &Entry<T>| !matches!(entry.state, State::Settled | State::Delivered { .. });
        self.entries.iter().any(is_idle)
    }

    /// How many records are delivered and not settled.
    pub fn delivered(&self) -> usize {
        self.delivered
    }

    /// How many wait for their next attempt.
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// How many are on their way to the dead letters.
    pub fn moving(&self) -> usize {
        self.moving
    }

    /// How many are blocked.
    pub fn blocked(&self) -> usize {
        self.blocked
    }

    /// The serial of the oldest delivery that is not settled: serials rise, until they begin anew after four billion.
    pub fn oldest(&self) -> Option<u32> {
        let delivered = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.state, State::Delivered { .. }));
        delivered.filter_map(|entry| entry.serial).min()
    }

    /// When that record failed first which, of those that are not settled, failed before the others.
    pub fn oldest_trouble(&self) -> Option<Moment> {
        let troubled = self.entries.iter();
        troubled
            .filter_map(|entry| Some(entry.trouble.as_ref()?.first))
            .min()
    }

    /// When there is something to do, at the earliest, as far as time decides.
    pub fn due_at(&self) -> Option<Moment> {
        let timer = self.timers.first().map_or(Moment::MAX, |(at, _)| *at);
        Some(timer.min(self.leases)).filter(|&at| at < Moment::MAX)
    }

    /// The records that are blocked, in offset order.
    pub fn blocked_records(&self) -> impl Iterator<Item = Blocked<'_, T>> {
        let blocked = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.state == State::Blocked);
        blocked.filter_map(|(index, entry)| {
            Some(Blocked {
                offset: entry.offset,
                serial: entry.serial?,
                attempts: entry.attempt,
                trouble: entry.trouble.as_deref()?,
                waiting: self.waiting_behind(index),
                payload: entry.payload.as_ref()?,
            })
        })
    }

    fn waiting_behind(&self, index: usize) -> u64 {
        let is_open = |entry: &&Entry<T>| entry.state != State::Settled;
        match self.terms.ordering {
            Ordering::Unordered => 0,
            Ordering::Partition => self.entries.range(index + 1..).filter(is_open).count() as u64,
            Ordering::Key => {
                let after = |entry: &Entry<T>| entry.behind;
                let behind = std::iter::successors(after(&self.entries[index]), |&offset| {
                    after(&self.entries[self.find(offset)?])
                });
                behind.count() as u64
            }
        }
    }

    /// Everything that is delivered and not settled, when the partition is given up.
    pub fn outstanding(&self) -> impl Iterator<Item = Refund> + '_ {
        self.entries.iter().filter_map(|entry| match entry.state {
            State::Delivered { stream, .. } => Some(Refund {
                stream,
                bytes: entry.payload.as_ref().map_or(0, Payload::weight),
            }),
            _ => None,
        })
    }
}
