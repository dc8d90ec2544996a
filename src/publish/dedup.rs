//! Which message ids are known, and what became of the record that each came with first.
//!
//! Pure: time is an argument, counted from any fixed moment. Owns the table; not here: how an id is told from another (`print`), records and
//! batches (`ids`). What always holds: an id is in flight from its claim to its settlement and is never forgotten meanwhile; whoever joins
//! it is given back by its settlement, once; answered ids number as many as are allowed at most, and the oldest go first.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::print::Print;
use crate::failure::Reason;

/// What an id costs in memory at most, in flight with one that waits for it, or answered: an entry of the map (80 bytes in nodes that are half
/// full), and its place in the order of answers or in the batches of both. Computed, rounded up.
pub const ID_BYTES: u64 = 300;

/// What the table keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How long an answer is known.
    pub(super) window: Duration,
    /// How many ids are kept, unless more are in flight.
    pub(super) ids: usize,
    /// How many may wait for the answers of others.
    pub(super) waiting: usize,
}

/// See the module. `W` is one who waits.
#[derive(Debug)]
pub(super) struct Dedup<W> {
    bounds: Bounds,
    ids: BTreeMap<u128, Entry<W>>,
    /// The answered ids and when each was answered, the oldest first.
    answered: VecDeque<(Duration, u128)>,
    waiting: usize,
}

#[derive(Debug)]
struct Entry<W> {
    content: u128,
    state: State<W>,
}

#[derive(Debug)]
enum State<W> {
    /// With those who wait for its answer.
    InFlight(Vec<W>),
    Answered(Answer),
}

/// What became of the first record, as far as it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is in Kafka.
    Published {
        partition: i32,
        offset: Option<i64>,
        timestamp: Option<i64>,
    },
    /// It may be in Kafka; this is why nobody knows.
    Unknown(Reason),
}

/// What a record's id says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is the first: to be sent, and settled.
    First,
    /// The first is in flight; its settlement gives the one who waits back.
    Joined,
    /// What became of the first.
    Answered(Answer),
    /// The id came with another record.
    Reused,
    /// The first is in flight, and as many as may wait for others wait already.
    Crowded,
    /// It would be the first now, but came without room, because it was not when it was looked at.
    Gone,
}

impl<W> Dedup<W> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ids: BTreeMap::new(),
            answered: VecDeque::new(),
            waiting: 0,
        }
    }

    /// How many ids are kept.
    pub(super) fn len(&mut self, now: Duration) -> usize {
        self.forget(now);
        self.ids.len()
    }

    /// Whether a record with this id would not be sent now.
    pub(super) fn knows(&mut self, print: Print, now: Duration) -> bool {
        self.forget(now);
        self.ids.contains_key(&print.id)
    }

    /// Claims an id for a record that is to be sent if `has_room`, or joins the one that has it.
    pub(super) fn claim(&mut self, print: Print, has_room: bool, who: W, now: Duration) -> Claim {
        self.forget(now);
        match self.ids.get_mut(&print.id) {
            Some(entry) if entry.content != print.content => Claim::Reused,
            Some(Entry {
                state: State::Answered(answer),
                ..
            }) => Claim::Answered(*answer),
            Some(_) if self.waiting >= self.bounds.waiting => Claim::Crowded,
            Some(Entry {
                state: State::InFlight(waiting),
                ..
            }) => {
                waiting.push(who);
                self.waiting += 1;
                Claim::Joined
            }
            None if !has_room => Claim::Gone,
            None => {
                let entry = Entry {
                    content: print.content,
                    state: State::InFlight(Vec::new()),
                };
                self.ids.insert(print.id, entry);
                self.forget(now);
                Claim::First
            }
        }
    }

    /// The first record with this id has its answer, or, without one, is not in Kafka: then the id is free. Gives back who waited.
    pub(super) fn settle(&mut self, id: u128, answer: Option<Answer>, now: Duration) -> Vec<W> {
        let Some(Entry { content, state }) = self.ids.remove(&id) else {
            debug_assert!(false, "what is in flight is not forgotten");
            return Vec::new();
        };
        let State::InFlight(waiting) = state else {
            debug_assert!(false, "an id is settled once");
            return Vec::new();
        };
        if let Some(answer) = answer {
            let state = State::Answered(answer);
            self.ids.insert(id, Entry { content, state });
            self.answered.push_back((now, id));
            self.forget(now);
        }
        self.waiting -= waiting.len();
        waiting
    }

    /// Forgets what is over, and the oldest answers beyond the bound.
    fn forget(&mut self, now: Duration) {
        while let Some((at, id)) = self.answered.front() {
            if now.saturating_sub(*at) < self.bounds.window && self.ids.len() <= self.bounds.ids {
                return;
            }
            self.ids.remove(id);
            self.answered.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
