//! Records whose batch a broker refused for the sake of others: those that may be innocent are sent again, so that only the guilty ones fail.
//!
//! A batch is too large where a topic's limit was not known beforehand, or was lowered since: the topic moves to a lane of smaller batches. Or
//! a record in it is invalid to the broker: the topic's settings say which (`guilt`). Either way the others are sent when their lane has no
//! record left. What always holds: one that was alone in its batch fails; one that a later record of its partition has overtaken by then is
//! not sent, for the order would be lost: it is answered as not written, to be sent again.

mod kept;

use std::{
    collections::HashMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rdkafka::producer::Producer as _;

use self::kept::Neighbour;
pub(super) use self::kept::{Neighbours, Why};
use super::{
    Delivery, Producer,
    again::Kept,
    batches::Slot,
    guilt,
    limits::{self, LAST, Place, Settings},
    reports::{Callbacks, Reports, failure},
};
use crate::{
    failure::{Failure, Persistence, Reason},
    kafka::ffi::DeliveryReport,
    metrics,
    record::{Record, wall_clock},
};

/// How long the lane of a topic that moves may take to deliver what it has, while callers wait.
const EMPTYING: Duration = Duration::from_secs(2);

/// How long the reports of a batch may take, one after the other.
const REPORTS: Duration = Duration::from_millis(50);

/// How long it counts that somebody of a topic is guilty.
const KNOWN: Duration = Duration::from_secs(1);

/// The wait before a lane that had not delivered everything is closed again.
const PAUSE: Duration = Duration::from_secs(30);

/// A lane is closed for invalid records' neighbours, of which there is no end, for no more than one part in so many of the time.
const SELDOM: u32 = 20;

/// What librdkafka adds to a record's own bytes in a batch, at most, beside its headers.
const OVERHEAD: usize = 100;

/// The same for each header.
const HEADER: usize = 10;

impl Callbacks {
    /// Whether a record of a batch that was refused may be innocent.
    pub(super) fn may_be_a_neighbour(&self, why: Why, record: &Record) -> bool {
        if why != Why::TooLarge {
            return true;
        }
        // It may have been in it with others.
        let bytes = record.payload_bytes() + OVERHEAD + HEADER * record.headers.len();
        bytes < self.succession.batch_bytes && self.succession.place < LAST
    }
}

impl Reports {
    /// A record is written: those before it in its partition that wait to be sent again cannot be any more.
    pub(super) fn overtaken(&self, batch: Slot, index: usize, report: &DeliveryReport<'_>) {
        // Not within the condition, which would hold the batches' lock.
        let batch = self.batches().id(batch);
        if let Some(batch) = batch {
            let order = (batch.number, index);
            self.neighbours
                .overtake(order, report.topic(), report.partition());
        }
    }

    /// Answers those that wait to be sent again: nothing is sent any more.
    pub(super) fn give_up_neighbours(&self) {
        self.not_sent_again(self.neighbours.take(|_, _| true));
    }

    fn not_sent_again(&self, records: Vec<Kept>) {
        for kept in records {
            let failure = Failure::not_persisted(
                Reason::KafkaUnavailable,
                "not written: Kafka refused its batch for another record or for its size, and it could not be sent again in its order; send it again",
            );
            let failure = failure
                .with_retry_after(Duration::ZERO)
                .with_metadata("topic", kept.record.topic);
            self.complete(kept.batch, kept.index, Delivery::failed(failure));
        }
    }
}

impl Producer {
    /// Sends again what is kept; never ends.
    pub(super) async fn send_neighbours(&self) {
        let neighbours = &self.reports.neighbours;
        let mut not_before: HashMap<String, Instant> = HashMap::new();
        let mut invalid_not_before = Instant::now();
        loop {
            let Some((place, topic)) = neighbours.next() else {
                neighbours.told.notified().await;
                continue;
            };
            // The rest of its batch is being reported.
            tokio::time::sleep(REPORTS).await;
            let settings = self.settings(vec![topic.clone()]).await;
            let settings = settings.into_iter().next().flatten().unwrap_or_default();
            let of_topic = |one: &Neighbour| one.is_of(place, &topic);
            let is_too_large = neighbours.has(|one| of_topic(one) && one.why == Why::TooLarge);
            let begun = Instant::now();
            not_before.retain(|_, time| *time > begun);
            if !not_before.contains_key(&topic) && (is_too_large || begun >= invalid_not_before) {
                let to = match is_too_large {
                    true => self.smaller(place, &settings),
                    false => place,
                };
                if !self.sends_again(place, to, &topic, &settings).await {
                    not_before.insert(topic.clone(), Instant::now() + PAUSE);
                }
                if !is_too_large {
                    invalid_not_before = Instant::now() + begun.elapsed() * SELDOM;
                }
            }
            self.accuse(place, &topic, &settings);
            self.reports
                .not_sent_again(neighbours.take(|one, _| of_topic(one)));
        }
    }

    /// The lane of smaller batches that takes the topic's.
    fn smaller(&self, place: Place, settings: &Settings) -> Place {
        let limit = limits::of(settings);
        limit.map_or(place + 1, |limit| self.place(limit, place + 1))
    }

    /// Sends what is kept of a topic before anything that comes later of it, and moves it if that is another lane. Says whether it could.
    async fn sends_again(&self, from: Place, to: Place, topic: &str, settings: &Settings) -> bool {
        let (old, new) = match self.make(to) {
            Ok(new) => (self.at(from), new),
            Err(error) => {
                tracing::error!("no producer of smaller batches could be created: {error}");
                return false;
            }
        };
        let _old = old.change.lock().await;
        let _new = match from == to {
            true => None,
            false => Some(new.change.lock().await),
        };
        old.close();
        let client = old.client();
        // What a client that failed for good has left to the next one is still to be sent there. One that is purged gives all up.
        let is_empty = client.emptied(EMPTYING).await
            && old.succession.again.is_empty()
            && !client.context().gives_up.load(Ordering::Acquire);
        if is_empty {
            self.accuse(from, topic, settings);
            let neighbours = &self.reports.neighbours;
            let kept = neighbours.take(|one, is_overtaken| one.is_of(from, topic) && !is_overtaken);
            metrics::publish().sent_again.increment(kept.len() as u64);
            tracing::info!(
                topic,
                batch_bytes = new.succession.batch_bytes,
                records = kept.len(),
                "Kafka refused a batch of the topic for its size or for records in it that are invalid: the others are sent again"
            );
            new.send_first(kept);
            if from != to {
                self.limits.set(topic, to);
                old.forget(topic);
            }
        }
        old.reopen();
        is_empty
    }

    /// Answers the suspects that are guilty, or all of them if none is known to be; the others are innocent.
    fn accuse(&self, place: Place, topic: &str, settings: &Settings) {
        let neighbours = &self.reports.neighbours;
        let now = wall_clock();
        let mut all = neighbours.all();
        let suspects = all.kept.extract_if(.., |one| {
            matches!(one.why, Why::Suspect(_)) && one.is_of(place, topic)
        });
        let judged = suspects.map(|one| (guilt::of(settings, &one.kept.record, now), one));
        let judged: Vec<_> = judged.collect();
        // The guilty one may have been told by now, and more of its batch have been reported since.
        all.known.retain(|_, since| since.elapsed() < KNOWN);
        if judged.iter().any(|(guilt, _)| guilt.is_some()) {
            all.known.insert(topic.to_owned(), Instant::now());
        }
        let is_known = all.known.contains_key(topic);
        let mut guilty = Vec::new();
        for (guilt, mut one) in judged {
            match (guilt, one.why) {
                (Some(failure), _) => guilty.push((one.kept, failure)),
                (None, Why::Suspect(code)) if !is_known => {
                    let failure = failure(code, topic, Persistence::NotPersisted);
                    guilty.push((one.kept, failure));
                }
                _ => {
                    one.why = Why::Innocent;
                    all.kept.push(one);
                }
            }
        }
        neighbours
            .any
            .store(!all.kept.is_empty(), Ordering::Release);
        drop(all);
        for (kept, failure) in guilty {
            self.complete(kept.batch, kept.index, Delivery::failed(failure));
        }
    }
}
