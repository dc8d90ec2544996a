//! What has become of each record of one partition, for one assignment of it.
//!
//! Pure: no clock, no I/O, no channel; the session owns one ledger for each assigned partition. Records are admitted in offset order,
//! delivered, and settled in any order. What always holds:
//! - a record that an earlier owner of the partition has settled is never delivered again, as far as its map was read;
//! - [`Ledger::frontier`], the offset that may be committed, never passes a record that is not settled, and never moves back;
//! - a record is delivered to one stream at a time, and only the token of its newest delivery can settle it;
//! - with [`Ordering::Partition`] deliveries come in offset order, to one stream as long as anything is unsettled, and a record that
//!   is given back takes everything delivered after it along.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
};

/// Names a stream of the subscription; never reused.
pub type StreamId = u64;

/// In which order the records of a partition are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// In offset order, to one stream at a time.
    Partition,
    /// To whoever has room.
    Unordered,
}

/// What a payload weighs against a window.
pub trait Weight {
    /// In bytes.
    fn weight(&self) -> u64;
}

/// A record that was just given to a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Handed<'a, T> {
    /// Its offset.
    pub offset: i64,
    /// Which delivery of the ledger this is: part of the token.
    pub serial: u32,
    /// From 1; how often it was delivered and counted.
    pub attempt: u32,
    /// Whether it was delivered before, counted or not.
    pub again: bool,
    /// The record.
    pub payload: &'a T,
}

/// A record that a stream no longer holds: its window gets this back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Whose window.
    pub stream: StreamId,
    /// The bytes; one record.
    pub bytes: u64,
}

/// Why a token settles nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The record is settled.
    AlreadySettled,
    /// The record was given back since, and waits or is delivered again.
    Redelivered,
    /// No such delivery was ever made.
    Unknown,
}

/// What giving a record back means for its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It was tried: the next delivery counts one more.
    Counted,
    /// It was not tried.
    NotCounted,
}

#[derive(Debug)]
enum State {
    Waiting,
    Delivered { stream: StreamId, serial: u32 },
    Settled,
}

#[derive(Debug)]
struct Entry<T> {
    offset: i64,
    /// Of the next delivery while waiting, of the current one while delivered.
    attempt: u32,
    deliveries: u32,
    state: State,
    /// Dropped when settled.
    payload: Option<T>,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger<T> {
    ordering: Ordering,
    /// From the frontier on, in offset order; offsets may have gaps (compaction, transaction markers).
    entries: VecDeque<Entry<T>>,
    waiting: BTreeSet<i64>,
    delivered: usize,
    /// The next offset that may be admitted.
    position: i64,
    serial: u32,
    /// PARTITION: who holds what is delivered.
    owner: Option<StreamId>,
    /// Settled before this ledger began, and not read again yet; ascending and apart.
    restored: VecDeque<Range<i64>>,
    /// Counts what was settled.
    settlements: u64,
}

/// What has become of a record that was to be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It waits for delivery.
    Waiting,
    /// It was settled before this ledger began.
    Settled,
    /// It is below the position: it was taken in already.
    Passed,
}

impl<T: Weight> Ledger<T> {
    /// A ledger that begins at `position`; above it, `restored` is settled already (ascending ranges, apart from each other).
    pub fn new(ordering: Ordering, position: i64, restored: Vec<Range<i64>>) -> Self {
        Self {
            ordering,
            entries: VecDeque::new(),
            waiting: BTreeSet::new(),
            delivered: 0,
            position,
            serial: 0,
            owner: None,
            restored: restored.into(),
            settlements: 0,
        }
    }

    /// Takes a record in, to wait for delivery if it is not settled.
    pub fn admit(&mut self, offset: i64, payload: T) -> Admitted {
        if offset < self.position {
            return Admitted::Passed;
        }
        self.position = offset + 1;
        let is_settled = self.was_settled(offset);
        // With nothing unsettled before it, it is below the frontier at once.
        if !(is_settled && self.entries.is_empty()) {
            self.entries.push_back(Entry {
                offset,
                attempt: 1,
                deliveries: 0,
                state: match is_settled {
                    true => State::Settled,
                    false => State::Waiting,
                },
                payload: (!is_settled).then_some(payload),
            });
        }
        if is_settled {
            return Admitted::Settled;
        }
        self.waiting.insert(offset);
        Admitted::Waiting
    }

    /// Whether it was settled before this ledger began. Offsets are asked for in their order.
    fn was_settled(&mut self, offset: i64) -> bool {
        while self
            .restored
            .front()
            .is_some_and(|range| range.end <= offset)
        {
            self.restored.pop_front();
        }
        self.restored
            .front()
            .is_some_and(|range| range.contains(&offset))
    }

    /// What is settled above the frontier: ascending ranges, apart from each other. An offset between two neighbours in the log counts as
    /// settled when both are: nothing is there.
    pub fn settled_above(&self) -> Vec<Range<i64>> {
        let mut ranges: Vec<Range<i64>> = Vec::new();
        let mut is_open = false;
        for entry in &self.entries {
            let is_settled = matches!(entry.state, State::Settled);
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

    /// How many records are delivered and not settled.
    pub fn delivered(&self) -> usize {
        self.delivered
    }

    /// The serial of the oldest delivery that is not settled: serials rise, until they begin anew after four billion.
    pub fn oldest(&self) -> Option<u32> {
        self.entries
            .iter()
            .filter_map(|entry| match entry.state {
                State::Delivered { serial, .. } => Some(serial),
                _ => None,
            })
            .min()
    }

    /// Whether a record waits for delivery.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a record may be delivered to `stream` now.
    pub fn open_to(&self, stream: StreamId) -> bool {
        match self.ordering {
            Ordering::Unordered => true,
            Ordering::Partition => self.delivered == 0 || self.owner == Some(stream),
        }
    }

    /// Which record is delivered next, if any waits.
    pub fn next_offset(&self) -> Option<i64> {
        self.waiting.first().copied()
    }

    /// What the next delivery weighs, if any waits.
    pub fn next_weight(&self) -> Option<u64> {
        self.find(self.next_offset()?)
            .and_then(|index| self.entries[index].payload.as_ref())
            .map(Weight::weight)
    }

    /// Delivers the first waiting record to `stream`, if there is one and the order allows it.
    pub fn hand(&mut self, stream: StreamId) -> Option<Handed<'_, T>> {
        if !self.open_to(stream) {
            return None;
        }
        let offset = self.waiting.pop_first()?;
        let index = self.find(offset).expect("a waiting record has an entry");
        self.serial = self.serial.wrapping_add(1);
        self.delivered += 1;
        self.owner = Some(stream);
        let serial = self.serial;
        let entry = &mut self.entries[index];
        entry.state = State::Delivered { stream, serial };
        entry.deliveries += 1;
        Some(Handed {
            offset,
            serial,
            attempt: entry.attempt,
            again: entry.deliveries > 1,
            payload: entry
                .payload
                .as_ref()
                .expect("a record that is not settled has its payload"),
        })
    }

    /// Settles the record of a delivery.
    pub fn settle(&mut self, offset: i64, serial: u32) -> Result<Refund, Stale> {
        let (index, stream) = self.current(offset, serial)?;
        let entry = &mut self.entries[index];
        entry.state = State::Settled;
        self.settlements += 1;
        let bytes = entry.payload.take().map_or(0, |payload| payload.weight());
        self.delivered -= 1;
        while let Some(Entry {
            state: State::Settled,
            ..
        }) = self.entries.front()
        {
            self.entries.pop_front();
        }
        Ok(Refund { stream, bytes })
    }

    /// Gives the record of a delivery back, to be delivered again at once.
    pub fn give_back(
        &mut self,
        offset: i64,
        serial: u32,
        attempt: Attempt,
    ) -> Result<Vec<Refund>, Stale> {
        let (index, _) = self.current(offset, serial)?;
        let mut refunds = vec![self.undo(index, attempt)];
        if self.ordering == Ordering::Partition {
            for later in index + 1..self.entries.len() {
                if let State::Delivered { .. } = self.entries[later].state {
                    // It was overtaken, not tried in vain.
                    refunds.push(self.undo(later, Attempt::NotCounted));
                }
            }
        }
        Ok(refunds)
    }

    /// Takes back everything that `stream` holds: it has ended. How much of it was tried nobody knows, so all of it counts.
    pub fn take_back(&mut self, stream: StreamId) -> Vec<Refund> {
        let held: Vec<usize> = (0..self.entries.len())
            .filter(|&index| matches!(self.entries[index].state, State::Delivered { stream: holder, .. } if holder == stream))
            .collect();
        held.into_iter()
            .map(|index| self.undo(index, Attempt::Counted))
            .collect()
    }

    /// Everything that is delivered and not settled, when the partition is given up.
    pub fn outstanding(&self) -> impl Iterator<Item = Refund> + '_ {
        self.entries.iter().filter_map(|entry| match entry.state {
            State::Delivered { stream, .. } => Some(Refund {
                stream,
                bytes: entry.payload.as_ref().map_or(0, Weight::weight),
            }),
            _ => None,
        })
    }

    fn undo(&mut self, index: usize, attempt: Attempt) -> Refund {
        let entry = &mut self.entries[index];
        let State::Delivered { stream, .. } = entry.state else {
            unreachable!("only a delivered record is given back");
        };
        entry.state = State::Waiting;
        if attempt == Attempt::Counted {
            entry.attempt = entry.attempt.saturating_add(1);
        }
        self.waiting.insert(entry.offset);
        self.delivered -= 1;
        Refund {
            stream,
            bytes: entry.payload.as_ref().map_or(0, Weight::weight),
        }
    }

    /// The entry whose newest delivery is `serial`, and who holds it.
    fn current(&self, offset: i64, serial: u32) -> Result<(usize, StreamId), Stale> {
        let Some(index) = self.find(offset) else {
            return Err(if offset < self.frontier() {
                Stale::AlreadySettled
            } else {
                Stale::Unknown
            });
        };
        match self.entries[index].state {
            State::Settled => Err(Stale::AlreadySettled),
            State::Delivered {
                stream,
                serial: newest,
            } if newest == serial => Ok((index, stream)),
            _ if self.entries[index].deliveries == 0 => Err(Stale::Unknown),
            _ => Err(Stale::Redelivered),
        }
    }

    fn find(&self, offset: i64) -> Option<usize> {
        // Without gaps the index is the distance from the front; gaps only make it smaller.
        let distance = usize::try_from(offset.checked_sub(self.entries.front()?.offset)?).ok()?;
        match self.entries.get(distance) {
            Some(entry) if entry.offset == offset => Some(distance),
            _ => self
                .entries
                .binary_search_by_key(&offset, |entry| entry.offset)
                .ok(),
        }
    }
}

#[cfg(test)]
mod tests;
