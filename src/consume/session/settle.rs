//! Settles: from tokens to the ledger, and the windows' refunds.

use std::{ops::Range, time::Instant};

use super::{Session, durable::Part, stream::refund, times::Times};
use crate::{
    consume::{
        Action, Confirm, Outgoing, Refusal, SettleItem, StreamId,
        ledger::{Attempt, Stale},
        token::Token,
    },
    metrics,
};

impl Session {
    pub(super) fn settle(&mut self, id: StreamId, request_id: u64, items: &[SettleItem]) {
        let mut refused = Vec::new();
        let mut ages = Ages::new();
        let mut parts: Vec<Part> = Vec::new();
        let is_durable = self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.confirm == Confirm::Durable);
        for (index, item) in items.iter().enumerate() {
            let index = index as u32;
            match self.settle_one(item, &mut ages) {
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

    /// Gives what a commit has to cover, for an ack.
    fn settle_one(&mut self, item: &SettleItem, ages: &mut Ages) -> Result<Option<Part>, Refusal> {
        let Token {
            index,
            offset,
            epoch,
            serial,
        } = item.token.ok_or(Refusal::BadToken)?;
        let slot = self
            .slots
            .get_mut(&index)
            .filter(|slot| slot.epoch == epoch)
            .ok_or(Refusal::PartitionMoved)?;
        let recorder = metrics::subscribe();
        let refunds = match item.action {
            Action::Ack => {
                let refund = slot.ledger.settle(offset, serial).map_err(refusal)?;
                recorder.acked.increment(1);
                vec![refund]
            }
            Action::Nack => {
                let refunds = slot
                    .ledger
                    .give_back(offset, serial, Attempt::Counted)
                    .map_err(refusal)?;
                recorder.nacked.increment(1);
                refunds
            }
            Action::Release => {
                let refunds = slot
                    .ledger
                    .give_back(offset, serial, Attempt::NotCounted)
                    .map_err(refusal)?;
                recorder.released.increment(1);
                refunds
            }
        };
        // What was released was not processed.
        if item.action != Action::Release
            && let Some(seconds) = ages.of(index, serial, &slot.times)
        {
            slot.reading.settled(item.action == Action::Ack, seconds);
        }
        let acked = (item.action == Action::Ack).then(|| Part {
            slot: index,
            settlements: slot.ledger.settlements(),
            highest: offset,
            items: Vec::new(),
        });
        refund(&mut self.streams, &refunds);
        Ok(acked)
    }
}

/// Adds an ack to those of its partition.
fn add(parts: &mut Vec<Part>, acked: Part) {
    // Mostly the last one.
    match parts.iter_mut().rfind(|part| part.slot == acked.slot) {
        Some(part) => {
            part.settlements = part.settlements.max(acked.settlements);
            part.highest = part.highest.max(acked.highest);
            part.items.extend(acked.items);
        }
        None => parts.push(acked),
    }
}

/// How old deliveries are at a settle. Those of one message are of one age, which is then looked up once.
struct Ages {
    now: Instant,
    /// Of which partition, which serials, and how old, in seconds.
    known: Option<(u32, Range<u32>, f64)>,
}

impl Ages {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            known: None,
        }
    }

    fn of(&mut self, index: u32, serial: u32, times: &Times) -> Option<f64> {
        if let Some((of, serials, seconds)) = &self.known
            && *of == index
            && serials.contains(&serial)
        {
            return Some(*seconds);
        }
        let made = times.of(serial)?;
        let seconds = self.now.saturating_duration_since(made.at).as_secs_f64();
        self.known = Some((index, made.serials, seconds));
        Some(seconds)
    }
}

fn refusal(stale: Stale) -> Refusal {
    match stale {
        Stale::AlreadySettled => Refusal::AlreadySettled,
        Stale::Redelivered => Refusal::Redelivered,
        Stale::Unknown => Refusal::UnknownToken,
    }
}
