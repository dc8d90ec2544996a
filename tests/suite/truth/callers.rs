//! Callers: what all of them share, and what each of them has sent and may still send.

use std::{
    collections::{BTreeMap, VecDeque},
    net::TcpStream,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use outrigger::grpc::proto::{self, publisher_service_client::PublisherServiceClient};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::{
    history::{Answer, Calls},
    wire::{Failed, record},
};
use crate::{checker::random::Random, client::channel_over, sidecar::Sidecar};

const KEYS: u64 = 500;

/// How often a client that knows its record by an id tries.
const ATTEMPTS: u8 = 6;

/// A sidecar process.
pub struct Life {
    pub number: u16,
    pub sidecar: Sidecar,
}

/// The sidecar that is there now; none between a kill and the next start.
pub type Lives = watch::Receiver<Option<Arc<Life>>>;

/// How many records may be sent, all callers together: so many a second at most, and not more than the faults have come to.
pub struct Pace {
    pub total: u64,
    per_second: u64,
    begun: Instant,
    allowed: AtomicU64,
    taken: AtomicU64,
}

impl Pace {
    pub fn new(total: u64, per_second: u64) -> Self {
        Self {
            total,
            per_second,
            begun: Instant::now(),
            allowed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    pub fn allow(&self, records: u64) {
        self.allowed
            .store(records.min(self.total), Ordering::Relaxed);
    }

    fn take(&self, count: u64) -> bool {
        let due = self.begun.elapsed().as_secs_f64() * self.per_second as f64;
        let bound = self.allowed.load(Ordering::Relaxed).min(due as u64);
        let take = |taken| (taken < bound).then_some(taken + count);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok()
    }

    /// How many there were to send so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.taken() >= self.total
    }
}

/// What all callers share.
#[derive(Clone)]
pub struct Load {
    pub topic: String,
    pub lives: Lives,
    pub pace: Arc<Pace>,
    /// Why records failed, and how many.
    pub failures: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Load {
    /// A connection to the sidecar, when there is one.
    pub async fn connect(&mut self) -> (u16, PublisherServiceClient<Channel>) {
        loop {
            let life = self.lives.wait_for(Option::is_some).await;
            let life = life.expect("the faults last longer").clone().expect("some");
            if let Ok(socket) = TcpStream::connect(life.sidecar.grpc)
                && let Ok(channel) = channel_over(&socket).await
            {
                return (life.number, PublisherServiceClient::new(channel));
            }
            // It was killed meanwhile.
            let is_another =
                |now: &Option<Arc<Life>>| now.as_ref().is_none_or(|now| now.number != life.number);
            let _ = self.lives.wait_for(is_another).await;
        }
    }

    /// Whether this sidecar was not killed.
    pub fn is_there(&self, life: u16) -> bool {
        let now = self.lives.borrow();
        now.as_ref().is_some_and(|now| now.number == life)
    }
}

/// A record that is to be sent once more.
struct Again {
    record: u32,
    key: u16,
    attempts: u8,
}

/// One caller: what it has sent.
pub struct Caller {
    pub load: Load,
    pub number: u16,
    pub calls: Calls,
    pub random: Random,
    /// The fewest and the most records that it sends at a time.
    sizes: Range<u64>,
    records: u32,
    /// The stream, or the request, that it is at.
    pub call: u32,
    again: VecDeque<Again>,
    /// By send: how often its record was sent before. Only with ids.
    attempts: Vec<u8>,
}

impl Caller {
    pub fn new(load: &Load, number: u16, has_ids: bool, sizes: Range<u64>, seed: u64) -> Self {
        Self {
            load: load.clone(),
            number,
            calls: Calls {
                has_ids,
                ..Calls::default()
            },
            random: Random(seed),
            sizes,
            records: 0,
            call: 0,
            again: VecDeque::new(),
            attempts: Vec::new(),
        }
    }

    /// Nothing is left to be sent.
    pub fn is_over(&self) -> bool {
        self.load.pace.is_over() && self.again.is_empty()
    }

    /// Notes what is sent next, if anything may be.
    pub fn next(&mut self, life: u16) -> Option<Range<u32>> {
        let Range { start, end } = self.sizes;
        let count = start + self.random.below(end - start);
        let begin = self.calls.sent.len() as u32;
        let again = self.again.len().min(count as usize);
        for Again {
            record,
            key,
            attempts,
        } in self.again.drain(..again)
        {
            self.calls.send(self.call, life, record, key);
            self.attempts.push(attempts);
        }
        if again == 0 && self.load.pace.take(count) {
            for _ in 0..count {
                let key = self.random.below(KEYS) as u16;
                self.calls.send(self.call, life, self.records, key);
                self.records += 1;
                if self.calls.has_ids {
                    self.attempts.push(1);
                }
            }
        }
        let sends = begin..self.calls.sent.len() as u32;
        (!sends.is_empty()).then_some(sends)
    }

    pub fn wire(&self, sends: Range<u32>) -> Vec<proto::Record> {
        let record = |send| record(&self.load.topic, self.number, &self.calls, send);
        sends.map(record).collect()
    }

    pub fn answered(&mut self, send: u32, answer: Answer) {
        self.calls.answer(send, answer);
        let is_done = matches!(answer, Answer::Written(_) | Answer::Duplicate(_));
        // Now and then an answer does not reach the one who wants to know.
        if !is_done || self.calls.has_ids && self.random.one_in(50) {
            self.try_again(send);
        }
    }

    pub fn failed(&mut self, send: u32, failed: Failed) {
        let mut failures = self
            .load
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *failures.entry(failed.reason).or_default() += 1;
        drop(failures);
        self.answered(send, failed.answer);
    }

    /// These will not be answered.
    pub fn break_off(&mut self, sends: Range<u32>) {
        let is_open = |send: &u32| self.calls.sent[*send as usize].answer == Answer::Nothing;
        let open: Vec<u32> = sends.clone().filter(is_open).collect();
        self.calls.break_off(sends);
        for send in open {
            self.try_again(send);
        }
    }

    /// Whoever has an id sends the record once more under it. Without one nobody can, who wants no second copy.
    fn try_again(&mut self, send: u32) {
        let Some(attempts) = self.attempts.get(send as usize).copied() else {
            return;
        };
        if attempts < ATTEMPTS {
            let sent = self.calls.sent[send as usize];
            self.again.push_back(Again {
                record: sent.record,
                key: sent.key,
                attempts: attempts + 1,
            });
        }
    }
}
