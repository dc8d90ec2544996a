//! Answers that are true, and the topic that they are about, as a seed determines them: for something to be made wrong in them.

use std::collections::HashMap;

use super::super::history::{Answer, Calls, Place, Sent, Stored, Topic};
use crate::checker::random::Random;

pub(super) const PARTITIONS: u64 = 3;
const KEYS: u64 = 20;

/// Callers of each kind: streams without message ids, and with them, single records with them, and a stream that stops on a failure.
pub(super) const PLAIN: usize = 0;
pub(super) const STREAM: usize = 1;
pub(super) const UNARY: usize = 2;
pub(super) const STOPS: usize = 3;

/// Answers, and the topic they are about.
pub(super) struct Answered {
    pub(super) topic: Topic,
    pub(super) callers: Vec<Calls>,
    pub(super) random: Random,
    call: u32,
    records: u32,
    /// What a sidecar knows of a record by its id: where it is, or that nobody can say.
    pub(super) known: HashMap<(usize, u32, u16), Option<Place>>,
}

impl Answered {
    /// All of them true.
    pub(super) fn right(seed: u64) -> Self {
        let mut right = Self {
            topic: vec![Vec::new(); PARTITIONS as usize],
            callers: vec![Calls::default(); 4],
            random: Random(seed),
            call: 0,
            records: 0,
            known: HashMap::new(),
        };
        right.callers[STREAM].has_ids = true;
        right.callers[UNARY].has_ids = true;
        let mut calls = [0; 4];
        for round in 0..300 {
            let life = round / 100;
            let caller = right.random.below(4) as usize;
            if caller == UNARY || round % 100 == 0 || right.random.one_in(8) {
                right.call += 1;
                calls = [right.call; 4];
            }
            let count = if caller == UNARY {
                1
            } else {
                1 + right.random.below(6)
            };
            let mut is_stopped = false;
            for _ in 0..count {
                let send = right.send(caller, calls[caller], life);
                let answer = if is_stopped {
                    Answer::NotSent
                } else {
                    right.answer(caller, send)
                };
                is_stopped |= caller == STOPS && matches!(answer, Answer::NotWritten);
                right.callers[caller].answer(send, answer);
            }
            if is_stopped {
                right.call += 1;
                calls[caller] = right.call;
            }
        }
        right
    }

    /// A new record, or one with an id once more.
    fn send(&mut self, caller: usize, call: u32, life: u16) -> u32 {
        let calls = &mut self.callers[caller];
        let count = calls.sent.len() as u64;
        let (record, key) = if calls.has_ids && count > 0 && self.random.one_in(3) {
            let again = calls.sent[(count - 1 - self.random.below(count.min(10))) as usize];
            (again.record, again.key)
        } else {
            self.records += 1;
            (self.records, self.random.below(KEYS) as u16)
        };
        calls.send(call, life, record, key)
    }

    fn answer(&mut self, caller: usize, send: u32) -> Answer {
        let sent = self.callers[caller].sent[send as usize];
        let id = (caller, sent.record, sent.life);
        let known = self.known.get(&id).filter(|_| self.callers[caller].has_ids);
        if let Some(known) = known {
            return known.map_or(Answer::Possibly, Answer::Duplicate);
        }
        let partition = sent.key % PARTITIONS as u16;
        let is_written = !self.random.one_in(4);
        let offset = Some(self.topic[partition as usize].len() as u32);
        let place = Place { partition, offset };
        if is_written {
            self.store(partition as usize, caller, send);
        }
        let answer = match (self.random.below(6), is_written) {
            (0, _) => Answer::Unknown,
            (1, _) => Answer::Possibly,
            (_, false) => Answer::NotWritten,
            (2, true) => Answer::Written(Place {
                offset: None,
                ..place
            }),
            (_, true) => Answer::Written(place),
        };
        match answer {
            Answer::Possibly if !is_written => self.known.insert(id, None),
            _ if is_written => self.known.insert(id, Some(place)),
            _ => None,
        };
        answer
    }

    /// Appends what a send would have written.
    pub(super) fn store(&mut self, partition: usize, caller: usize, send: u32) {
        let sent = self.callers[caller].sent[send as usize];
        self.topic[partition].push(Stored {
            send,
            record: sent.record,
            caller: caller as u16,
            key: sent.key,
        });
    }

    pub(super) fn place(&self, caller: usize, send: u32) -> Option<(usize, usize)> {
        let is_it = |one: &Stored| (usize::from(one.caller), one.send) == (caller, send);
        let places = self.topic.iter().enumerate();
        places
            .filter_map(|(partition, records)| Some((partition, records.iter().position(is_it)?)))
            .next()
    }

    /// A send for which `is` holds, the first from a random one on.
    pub(super) fn one(
        &mut self,
        caller: usize,
        is: impl Fn(&Self, u32, Sent) -> bool,
    ) -> Option<u32> {
        let count = self.callers[caller].sent.len() as u32;
        let from = self.random.below(u64::from(count)) as u32;
        let found = (from..count).chain(0..from);
        let mut found =
            found.filter(|send| is(self, *send, self.callers[caller].sent[*send as usize]));
        found.next()
    }

    pub(super) fn sent(&mut self, caller: usize, send: u32) -> &mut Sent {
        &mut self.callers[caller].sent[send as usize]
    }

    pub(super) fn any_caller(&mut self) -> usize {
        self.random.below(4) as usize
    }

    /// Whether another send of its record was answered as its duplicate.
    pub(super) fn is_repeated(&self, caller: usize, of: Sent) -> bool {
        let mut sent = self.callers[caller].sent.iter();
        sent.any(|one| {
            (one.record, one.life) == (of.record, of.life)
                && matches!(one.answer, Answer::Duplicate(_))
        })
    }
}
