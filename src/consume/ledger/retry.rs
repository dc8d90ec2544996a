//! Records that were not done: leases that end, waits between attempts, streams that die, and what becomes of a record in the end.

use super::{
    Ledger, State,
    terms::{Cause, Dead, Due, Moment, Payload, Refund, Stale, StreamId, Trouble},
};

/// How long a lease goes on that ended before its record was read.
const SPARED: u64 = 1000;

impl<T: Payload> Ledger<T> {
    /// The record of a delivery failed: it waits for its next attempt, for `delay` or as the retry policy says, or has had its last. A
    /// blocked record is tried again.
    pub fn nack(
        &mut self,
        offset: i64,
        serial: u32,
        delay: Option<u64>,
        reason: &str,
        now: Moment,
    ) -> Result<Vec<Refund>, Stale> {
        let index = self.current(offset, serial)?;
        if self.entries[index].state == State::Blocked {
            self.blocked -= 1;
            self.entries[index].attempt = self.entries[index].attempt.saturating_add(1);
            self.put(index);
            return Ok(Vec::new());
        }
        // Its client lives.
        self.entries[index].is_suspect = false;
        let refund = self.undo(index);
        self.fail(index, Cause::Nacked, reason, delay, now);
        Ok(self.rewind(index, refund))
    }

    /// The record of a delivery is to go to the dead letters.
    pub fn reject(
        &mut self,
        offset: i64,
        serial: u32,
        reason: &str,
        now: Moment,
    ) -> Result<Vec<Refund>, Stale> {
        let index = self.held(offset, serial)?;
        let refund = self.undo(index);
        self.note(index, Cause::Rejected, reason, now);
        self.bury(index);
        // Those after it stay where they are: it is not tried again.
        Ok(vec![refund])
    }

    /// Prolongs the lease of a delivery to `until`, but never beyond `longest` after its beginning.
    pub fn extend(
        &mut self,
        offset: i64,
        serial: u32,
        until: Moment,
        longest: u64,
    ) -> Result<(), Stale> {
        let index = self.held(offset, serial)?;
        if let State::Delivered {
            since, until: end, ..
        } = &mut self.entries[index].state
        {
            *end = until.min(since.saturating_add(longest));
            self.leases = self.leases.min(*end);
        }
        Ok(())
    }

    /// Takes back everything that `stream` holds: it has ended in order, and what it left it has not tried.
    pub fn hand_back(&mut self, stream: StreamId) {
        for index in self.held_by(stream) {
            self.undo(index);
            self.put(index);
        }
    }

    /// Takes back everything that `stream` holds: it died. What killed it nobody knows, unless it held one record only.
    pub fn take_back(&mut self, stream: StreamId, is_alone: bool, now: Moment) {
        for index in self.held_by(stream) {
            self.undo(index);
            self.entries[index].is_suspect = true;
            match is_alone {
                true => self.fail(index, Cause::Crashed, "", None, now),
                false => self.put(index),
            }
        }
    }

    fn held_by(&self, stream: StreamId) -> Vec<usize> {
        if self.delivered == 0 {
            return Vec::new();
        }
        let is_held = |&index: &usize| matches!(self.entries[index].state, State::Delivered { stream: holder, .. } if holder == stream);
        (0..self.entries.len()).filter(is_held).collect()
    }

    /// Does what time has brought: leases that ended, waits that are over. The leases of streams that are `spared` go on for a moment: their
    /// clients have yet to see what was sent to them.
    pub fn due(&mut self, now: Moment, spared: impl Fn(StreamId) -> bool) -> Due {
        let mut due = Due::default();
        while let Some(&(at, offset)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(index) = self.find(offset) {
                match self.entries[index].state {
                    State::Parked => {
                        self.parked -= 1;
                        self.put(index);
                    }
                    State::Moving => self.dead.push_back(offset),
                    _ => {}
                }
            }
        }
        if now >= self.leases {
            self.expire(now, spared, &mut due);
        }
        due
    }

    fn expire(&mut self, now: Moment, spared: impl Fn(StreamId) -> bool, due: &mut Due) {
        self.leases = Moment::MAX;
        for index in 0..self.entries.len() {
            let State::Delivered { stream, until, .. } = &mut self.entries[index].state else {
                continue;
            };
            if *until <= now && spared(*stream) {
                *until = now + SPARED;
            }
            if *until > now {
                self.leases = self.leases.min(*until);
                continue;
            }
            let refund = self.undo(index);
            self.fail(index, Cause::Expired, "", None, now);
            due.refunds.extend(self.rewind(index, refund));
            due.expired += 1;
        }
    }

    /// A record was not done, and is not delivered any more.
    fn fail(&mut self, index: usize, cause: Cause, reason: &str, delay: Option<u64>, now: Moment) {
        self.note(index, cause, reason, now);
        let retry = self.terms.retry;
        let entry = &mut self.entries[index];
        let (offset, attempt) = (entry.offset, entry.attempt);
        if attempt < retry.max_attempts {
            let until = now.saturating_add(delay.unwrap_or_else(|| retry.wait(attempt, offset)));
            entry.attempt = attempt + 1;
            self.parked += 1;
            self.wait(index, State::Parked, until);
        } else if self.terms.has_dead_letters {
            self.bury(index);
        } else {
            self.blocked += 1;
            entry.state = State::Blocked;
            self.order.hold(offset);
        }
    }

    /// The record waits for a time; nothing that has to come after it overtakes it.
    fn wait(&mut self, index: usize, state: State, until: Moment) {
        let offset = self.entries[index].offset;
        self.entries[index].state = state;
        self.order.hold(offset);
        self.timers.insert((until, offset));
    }

    fn bury(&mut self, index: usize) {
        let offset = self.entries[index].offset;
        self.moving += 1;
        self.entries[index].state = State::Moving;
        self.order.hold(offset);
        self.dead.push_back(offset);
    }

    fn note(&mut self, index: usize, cause: Cause, reason: &str, now: Moment) {
        let trouble = &mut self.entries[index].trouble;
        let first = trouble.as_ref().map_or(now, |trouble| trouble.first);
        *trouble = Some(Box::new(Trouble {
            cause,
            reason: reason.to_owned(),
            first,
            last: now,
        }));
    }

    /// A record to be copied to the dead letters; each is given once, until its copy fails.
    pub fn next_dead(&mut self) -> Option<Dead<'_, T>> {
        let offset = self.dead.pop_front()?;
        let entry = &self.entries[self.find(offset)?];
        Some(Dead {
            offset,
            attempts: entry.attempt,
            trouble: entry.trouble.as_deref()?,
            payload: entry.payload.as_ref()?,
        })
    }

    /// What became of the copy: with it the record is settled; without it the copy is tried again at `again`. Says whether it was settled.
    pub fn moved(&mut self, offset: i64, again: Option<Moment>) -> bool {
        let index = self
            .find(offset)
            .filter(|&index| self.entries[index].state == State::Moving);
        let Some(index) = index else {
            return false;
        };
        match again {
            Some(at) => self.wait(index, State::Moving, at),
            None => {
                self.moving -= 1;
                self.done(index);
            }
        }
        again.is_none()
    }
}
