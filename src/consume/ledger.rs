//! What has become of each record of one partition, for one assignment of it.
//!
//! Pure: no clock, no I/O, no channel; the session owns one ledger for each assigned partition and says what time it is. Records are
//! admitted in offset order, delivered, and settled in any order. What always holds:
//! - a record that an earlier owner of the partition has settled is never delivered again, as far as its map was read;
//! - [`Ledger::frontier`], the offset that may be committed, never passes a record that is not settled, and never moves back;
//! - a record is delivered to one stream at a time, and only the token of its newest delivery can settle it;
//! - with [`Ordering::Key`] a record is delivered only when those of its key before it are settled;
//! - with [`Ordering::Partition`] deliveries come in offset order, to one stream as long as anything is unsettled, and a record that
//!   is given back takes everything delivered after it along;
//! - a record that is not done is delivered again, is being copied to the dead letters, or is blocked and says so: never dropped.

mod look;
mod offsets;
mod order;
mod retry;
mod terms;

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
};

use self::order::Order;
pub use self::terms::{
    Admitted, Blocked, Cause, Dead, Due, Handed, Moment, Next, Ordering, Payload, Refund, Retry,
    Stale, StreamId, Terms, Trouble,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// An earlier record of its key is not settled.
    Queued,
    /// It may go out.
    Waiting,
    Delivered {
        stream: StreamId,
        since: Moment,
        /// When its lease ends.
        until: Moment,
    },
    /// It failed, and waits for its next attempt.
    Parked,
    /// It is being copied to the dead letters, or waits for another attempt at that.
    Moving,
    /// Its attempts ran out, and there is nowhere to go.
    Blocked,
    Settled,
}

#[derive(Debug)]
struct Entry<T> {
    offset: i64,
    /// Of the next delivery while waiting, of the current one while delivered.
    attempt: u32,
    /// Of its newest delivery; none before the first.
    serial: Option<u32>,
    state: State,
    /// Its stream died while it was delivered.
    is_suspect: bool,
    key: Option<u64>,
    /// KEY: the record after it in its key's line.
    behind: Option<i64>,
    /// Dropped when settled.
    payload: Option<T>,
    trouble: Option<Box<Trouble>>,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger<T> {
    terms: Terms,
    /// From the frontier on, in offset order; offsets may have gaps (compaction, transaction markers).
    entries: VecDeque<Entry<T>>,
    order: Order,
    delivered: usize,
    /// The bytes of what is not settled, and of that what is in the order of deliveries and not delivered.
    bytes: u64,
    idle_bytes: u64,
    /// The next offset that may be admitted.
    position: i64,
    serial: u32,
    /// PARTITION: who holds what is delivered.
    owner: Option<StreamId>,
    /// Settled before this ledger began, and not read again yet; ascending and apart.
    restored: VecDeque<Range<i64>>,
    /// Counts what was settled.
    settlements: u64,
    /// No lease ends before this.
    leases: Moment,
    /// What waits for a time, by that time: parked records, and copies that failed.
    timers: BTreeSet<(Moment, i64)>,
    /// How many records are parked, being copied, blocked.
    parked: usize,
    moving: usize,
    blocked: usize,
    /// To be copied, and not handed out yet.
    dead: VecDeque<i64>,
}

impl<T: Payload> Ledger<T> {
    /// A ledger that begins at `position`; above it, `restored` is settled already (ascending ranges, apart from each other).
    pub fn new(terms: Terms, position: i64, restored: Vec<Range<i64>>) -> Self {
        Self {
            terms,
            entries: VecDeque::new(),
            order: Order::new(terms.ordering),
            delivered: 0,
            bytes: 0,
            idle_bytes: 0,
            position,
            serial: 0,
            owner: None,
            restored: restored.into(),
            settlements: 0,
            leases: Moment::MAX,
            timers: BTreeSet::new(),
            parked: 0,
            moving: 0,
            blocked: 0,
            dead: VecDeque::new(),
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
        if is_settled && self.entries.is_empty() {
            return Admitted::Settled;
        }
        let (key, weight) = (payload.key(), payload.weight());
        self.entries.push_back(Entry {
            offset,
            attempt: 1,
            serial: None,
            state: if is_settled {
                State::Settled
            } else {
                State::Queued
            },
            is_suspect: false,
            key,
            behind: None,
            payload: (!is_settled).then_some(payload),
            trouble: None,
        });
        if is_settled {
            return Admitted::Settled;
        }
        self.bytes += weight;
        self.idle_bytes += weight;
        match self.order.join(key, offset) {
            Some(before) => {
                let before = self.find(before).expect("the end of a line is not settled");
                self.entries[before].behind = Some(offset);
            }
            None => self.put(self.entries.len() - 1),
        }
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

    /// Spreads the keys over these streams; the order of the list does not matter, but it is compared.
    pub fn spread(&mut self, members: &[StreamId]) {
        let Self { order, entries, .. } = self;
        order.spread(members, |offset| {
            find(entries, offset).and_then(|index| entries[index].key)
        });
    }

    /// What `stream` would be given next, if anything.
    pub fn next(&self, stream: StreamId) -> Option<Next> {
        let offset = match self.terms.ordering {
            Ordering::Partition if !self.open_to(stream) => return None,
            Ordering::Partition => self.order.head()?,
            Ordering::Key | Ordering::Unordered => self.order.first(stream)?,
        };
        let index = self.find(offset)?;
        let entry = &self.entries[index];
        (entry.state == State::Waiting).then(|| Next {
            index,
            offset,
            weight: entry.payload.as_ref().map_or(0, Payload::weight),
            is_suspect: entry.is_suspect,
        })
    }

    /// Whether a suspect waits for `stream`: it must get nothing else then, and the suspect when it holds nothing.
    pub fn has_suspect(&self, stream: StreamId) -> bool {
        match self.terms.ordering {
            Ordering::Partition => self.next(stream).is_some_and(|next| next.is_suspect),
            Ordering::Key | Ordering::Unordered => self.order.has_suspect(stream),
        }
    }

    /// Delivers what is [`Ledger::next`] for `stream`, until its lease ends.
    pub fn hand(
        &mut self,
        stream: StreamId,
        next: Next,
        now: Moment,
        until: Moment,
    ) -> Handed<'_, T> {
        let Next {
            index,
            offset,
            weight,
            ..
        } = next;
        self.serial = self.serial.wrapping_add(1);
        self.delivered += 1;
        self.idle_bytes -= weight;
        self.owner = Some(stream);
        self.leases = self.leases.min(until);
        let entry = &mut self.entries[index];
        self.order.take(offset, entry.key, entry.is_suspect);
        entry.state = State::Delivered {
            stream,
            since: now,
            until,
        };
        let again = entry.serial.replace(self.serial).is_some();
        Handed {
            offset,
            serial: self.serial,
            attempt: entry.attempt,
            again,
            is_suspect: entry.is_suspect,
            payload: entry
                .payload
                .as_ref()
                .expect("a record that is not settled has its payload"),
        }
    }

    /// Settles the record of a delivery, or one that is blocked; its stream gets its window back, if one holds it.
    pub fn settle(&mut self, offset: i64, serial: u32) -> Result<Option<Refund>, Stale> {
        let index = self.current(offset, serial)?;
        let refund = match self.entries[index].state {
            State::Blocked => {
                self.blocked -= 1;
                None
            }
            _ => Some(self.undo(index)),
        };
        self.done(index);
        Ok(refund)
    }

    /// Gives the record of a delivery back untried, to be delivered again at once.
    pub fn release(&mut self, offset: i64, serial: u32) -> Result<Vec<Refund>, Stale> {
        let index = self.held(offset, serial)?;
        self.entries[index].is_suspect = false;
        let refund = self.undo(index);
        self.put(index);
        Ok(self.rewind(index, refund))
    }

    /// A record takes all that was delivered after it along, where the order wants that.
    fn rewind(&mut self, index: usize, refund: Refund) -> Vec<Refund> {
        let mut refunds = vec![refund];
        if self.terms.ordering == Ordering::Partition {
            for later in index + 1..self.entries.len() {
                if let State::Delivered { .. } = self.entries[later].state {
                    // It was overtaken, not tried in vain.
                    refunds.push(self.undo(later));
                    self.put(later);
                }
            }
        }
        refunds
    }

    /// A delivered record is no longer its stream's; what it is now, the caller says.
    fn undo(&mut self, index: usize) -> Refund {
        let entry = &self.entries[index];
        let State::Delivered { stream, .. } = entry.state else {
            unreachable!("only a delivered record is given back");
        };
        let bytes = entry.payload.as_ref().map_or(0, Payload::weight);
        self.delivered -= 1;
        Refund { stream, bytes }
    }

    /// The record may go out.
    fn put(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        // In its key's line it was counted already.
        if entry.state != State::Queued {
            self.idle_bytes += entry.payload.as_ref().map_or(0, Payload::weight);
        }
        entry.state = State::Waiting;
        self.order.put(entry.offset, entry.key, entry.is_suspect);
    }

    /// The record is settled, whatever it was, and not delivered any more.
    fn done(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.state = State::Settled;
        entry.trouble = None;
        self.settlements += 1;
        let weight = entry.payload.take().map_or(0, |payload| payload.weight());
        self.bytes -= weight;
        let (offset, key) = (entry.offset, entry.key);
        self.order.drop(offset);
        match entry.behind {
            Some(behind) => {
                let behind = self
                    .find(behind)
                    .expect("a record behind one that is not settled is not settled");
                self.put(behind);
            }
            None => self.order.close(key),
        }
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.state == State::Settled)
        {
            self.entries.pop_front();
        }
    }

    /// The entry that a token speaks of: delivered, or blocked since.
    fn current(&self, offset: i64, serial: u32) -> Result<usize, Stale> {
        let Some(index) = self.find(offset) else {
            return Err(if offset < self.frontier() {
                Stale::AlreadySettled
            } else {
                Stale::Unknown
            });
        };
        let entry = &self.entries[index];
        match entry.state {
            State::Settled => Err(Stale::AlreadySettled),
            State::Delivered { .. } | State::Blocked if entry.serial == Some(serial) => Ok(index),
            _ if entry.serial.is_none() => Err(Stale::Unknown),
            _ => Err(Stale::Redelivered),
        }
    }

    /// The same, of those that are delivered.
    fn held(&self, offset: i64, serial: u32) -> Result<usize, Stale> {
        let index = self.current(offset, serial)?;
        match self.entries[index].state {
            State::Delivered { .. } => Ok(index),
            _ => Err(Stale::Redelivered),
        }
    }

    fn find(&self, offset: i64) -> Option<usize> {
        find(&self.entries, offset)
    }
}

fn find<T>(entries: &VecDeque<Entry<T>>, offset: i64) -> Option<usize> {
    // Without gaps the index is the distance from the front; gaps only make it smaller.
    let distance = usize::try_from(offset.checked_sub(entries.front()?.offset)?).ok()?;
    match entries.get(distance) {
        Some(entry) if entry.offset == offset => Some(distance),
        _ => entries
            .binary_search_by_key(&offset, |entry| entry.offset)
            .ok(),
    }
}

#[cfg(test)]
mod tests;
