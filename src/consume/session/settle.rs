//! Settles: from tokens to the ledger, and the windows' refunds.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    Session, Slot,
    durable::{PENDING, Part},
    stream::{Stream, refund},
    times::{Clock, Times, millis},
};
use crate::{
    consume::{
        Action, Confirm, Outgoing, Refusal, SettleItem, StreamId,
        ledger::{Moment, Refund, Stale},
        token::Token,
    },
    metrics,
};

impl Session {
    pub(super) fn settle(&mut self, id: StreamId, request_id: u64, items: &[SettleItem]) {
        let mut refused = Vec::new();
        let mut request = Request::new(&self.clock);
        let mut parts: Vec<Part> = Vec::new();
        let is_durable = self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.confirm == Confirm::Durable);
        for (index, item) in items.iter().enumerate() {
            let index = index as u32;
            match self.settle_one(item, &mut request) {
                Ok(None) => {}
                Ok(Some(mut acked)) => {
                    if is_durable {
                        acked.items.push(index);
                    }
                    add(&mut parts, acked);
                }
                Err(refusal) => {
                    metrics::subscribe().stale.increment(1);
                    refused.push((index, refusal));
                }
            }
        }
        request.end(&mut self.streams);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let answer = match stream.confirm {
            Confirm::None => (!refused.is_empty()).then(|| refused.clone()),
            Confirm::Recorded => Some(refused.clone()),
            Confirm::Durable => None,
        };
        let is_over = parts.is_empty();
        let unconfirmed = &mut stream.unconfirmed;
        unconfirmed.add(request_id, parts, refused, self.commits_made);
        if let Some(refused) = answer {
            stream.tell(Outgoing::Settled {
                request_id,
                refused,
            });
        }
        if is_over {
            stream.confirm();
        }
    }

    /// Settles by tokens alone, whoever holds what they speak of: answered by position, absent where it is done.
    pub(super) fn acknowledge(&mut self, items: &[SettleItem]) -> Vec<Option<Refusal>> {
        let mut request = Request::new(&self.clock);
        let settled = items.iter().map(|item| {
            let refusal = self.settle_one(item, &mut request).err();
            let stale = u64::from(refusal.is_some());
            metrics::subscribe().stale.increment(stale);
            refusal
        });
        let settled = settled.collect();
        request.end(&mut self.streams);
        settled
    }

    pub(super) fn extend(
        &mut self,
        id: StreamId,
        request_id: u64,
        tokens: &[Option<Token>],
        lease: Option<Duration>,
    ) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let until = self
            .clock
            .moment(Instant::now() + lease.unwrap_or(stream.lease));
        let longest = millis(self.limits.max_lease);
        let mut refused = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            let extended = self.slot_of(*token).and_then(|(slot, token)| {
                slot.ledger
                    .extend(token.offset, token.serial, until, longest)
                    .map_err(refusal)
            });
            if let Err(refusal) = extended {
                refused.push((index as u32, refusal));
            }
        }
        metrics::subscribe().stale.increment(refused.len() as u64);
        if let Some(stream) = self.streams.get_mut(&id)
            && (stream.confirm != Confirm::None || !refused.is_empty())
        {
            stream.tell(Outgoing::Extended {
                request_id,
                refused,
            });
        }
    }

    /// The partition that a token speaks of, if it is still held under that assignment.
    fn slot_of(&mut self, token: Option<Token>) -> Result<(&mut Slot, Token), Refusal> {
        let token = token.ok_or(Refusal::BadToken)?;
        let slot = self.slots.get_mut(&token.index);
        let slot = slot.filter(|slot| slot.epoch == token.epoch);
        Ok((slot.ok_or_else(|| self.fenced.why(token))?, token))
    }

    /// Gives what a commit has to cover, for an ack.
    fn settle_one(
        &mut self,
        item: &SettleItem,
        request: &mut Request,
    ) -> Result<Option<Part>, Refusal> {
        let (slot, token) = self.slot_of(item.token)?;
        let Token {
            index,
            offset,
            serial,
            ..
        } = token;
        let recorder = metrics::subscribe();
        match &item.action {
            Action::Ack => {
                let refund = slot.ledger.settle(offset, serial).map_err(refusal)?;
                request.acked += 1;
                request.refunds.extend(refund);
            }
            Action::Nack { delay, reason } => {
                let delay = delay.map(millis);
                let refunds = slot
                    .ledger
                    .nack(offset, serial, delay, reason, request.moment)
                    .map_err(refusal)?;
                recorder.nacked.increment(1);
                request.refunds.extend(refunds);
            }
            Action::DeadLetter { reason } => {
                let refunds = slot
                    .ledger
                    .reject(offset, serial, reason, request.moment)
                    .map_err(refusal)?;
                recorder.rejected.increment(1);
                request.refunds.extend(refunds);
            }
            Action::Release => {
                let refunds = slot.ledger.release(offset, serial).map_err(refusal)?;
                recorder.released.increment(1);
                request.refunds.extend(refunds);
            }
        }
        // What was released was not processed.
        if item.action != Action::Release
            && let Some(seconds) = request.age(index, serial, &slot.times)
        {
            slot.reading.settled(item.action == Action::Ack, seconds);
        }
        let settlements = match item.action {
            Action::Ack => Some(slot.ledger.settlements()),
            // Not before its copy is written.
            Action::DeadLetter { .. } => Some(PENDING),
            Action::Nack { .. } | Action::Release => None,
        };
        Ok(settlements.map(|settlements| Part {
            slot: index,
            settlements,
            highest: offset,
            items: Vec::new(),
        }))
    }
}

/// Adds an ack to those of its partition.
fn add(parts: &mut Vec<Part>, acked: Part) {
    // Mostly the last one.
    match parts.iter_mut().rfind(|part| part.joins(&acked)) {
        Some(part) => {
            part.settlements = part.settlements.max(acked.settlements);
            part.highest = part.highest.max(acked.highest);
            part.items.extend(acked.items);
        }
        None => parts.push(acked),
    }
}

/// What the settles of one request have in common.
struct Request {
    now: Instant,
    moment: Moment,
    /// How old the deliveries of one message are, in seconds: of which partition, which serials.
    age: Option<(u32, Range<u32>, f64)>,
    acked: u64,
    /// What windows get back.
    refunds: Vec<Refund>,
}

impl Request {
    fn new(clock: &Clock) -> Self {
        let now = Instant::now();
        Self {
            now,
            moment: clock.moment(now),
            age: None,
            acked: 0,
            refunds: Vec::new(),
        }
    }

    /// How old a delivery is, in seconds.
    fn age(&mut self, index: u32, serial: u32, times: &Times) -> Option<f64> {
        // Those of one message are of one age, which is looked up once.
        if let Some((of, serials, seconds)) = &self.age
            && *of == index
            && serials.contains(&serial)
        {
            return Some(*seconds);
        }
        let made = times.of(serial)?;
        let seconds = self.now.saturating_duration_since(made.at).as_secs_f64();
        self.age = Some((index, made.serials, seconds));
        Some(seconds)
    }

    fn end(self, streams: &mut BTreeMap<StreamId, Stream>) {
        metrics::subscribe().acked.increment(self.acked);
        refund(streams, &self.refunds);
    }
}

fn refusal(stale: Stale) -> Refusal {
    match stale {
        Stale::AlreadySettled => Refusal::AlreadySettled,
        Stale::Redelivered => Refusal::Redelivered,
        Stale::Unknown => Refusal::UnknownToken,
    }
}
