//! By topic and group: what OpenTelemetry's messaging conventions count, in their Prometheus form, and Kafka's own words for the same.
//!
//! Conventions: v1.44.0 (`docs/messaging/messaging-metrics.md`). A topic's series are resolved once and then only added to, for a whole batch
//! at a time. A topic takes a label of its own with its first acknowledged or assigned record, so that names that do not exist take none.
//! What always holds: the label sets are bounded by `metrics.max_topics` and `metrics.max_groups`.

mod draw;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    exposition::options,
    histogram::{CONVENTION, Histogram, LONG, Tally},
    names::{Names, OTHER},
};
use crate::failure::Reason;
pub(super) use draw::{ROWS, draw};

static TOPICS: LazyLock<Names> = LazyLock::new(Names::new);
static GROUPS: LazyLock<Names> = LazyLock::new(Names::new);
type All<K, V> = Mutex<BTreeMap<K, Arc<V>>>;

static SENDS: All<Arc<str>, Sends> = Mutex::new(BTreeMap::new());
/// By group and topic.
static READS: All<(Arc<str>, Arc<str>), Reads> = Mutex::new(BTreeMap::new());
static COMMITS: All<Arc<str>, Commits> = Mutex::new(BTreeMap::new());

pub(super) fn topic_label(topic: &str) -> Arc<str> {
    TOPICS.label(topic, options().max_topics)
}

pub(super) fn group_label(group: &str) -> Arc<str> {
    GROUPS.label(group, options().max_groups)
}

/// What is sent to one topic.
#[derive(Debug)]
pub struct TopicSends {
    topic: String,
    /// Since a record of it was acknowledged.
    own: OnceLock<Arc<Sends>>,
}

/// What became of a batch's records of one topic.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Acknowledged.
    pub published: u64,
    /// Failed, by reason; the first failure comes first.
    pub failed: Vec<(Reason, u64)>,
}

impl Outcome {
    /// Counts a failed record.
    pub fn fail(&mut self, reason: Reason) {
        match self.failed.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, count)) => *count += 1,
            None => self.failed.push((reason, 1)),
        }
    }
}

impl TopicSends {
    /// Topics that are remembered, with a label of their own or not.
    const MAX_TOPICS: usize = 10_000;

    /// Of a topic: looked up once for a run of records.
    pub fn of(topic: &str) -> Arc<Self> {
        thread_local! {
            // Mostly the same as before, also for a batch of one record.
            static LAST: RefCell<Option<Arc<TopicSends>>> = const { RefCell::new(None) };
        }
        LAST.with_borrow_mut(|last| match last {
            Some(sends) if sends.topic == topic => Arc::clone(sends),
            _ => Arc::clone(last.insert(Self::look_up(topic))),
        })
    }

    fn look_up(topic: &str) -> Arc<Self> {
        static ALL: LazyLock<RwLock<HashMap<String, Arc<TopicSends>>>> =
            LazyLock::new(RwLock::default);
        let known = ALL.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sends) = known.get(topic) {
            return Arc::clone(sends);
        }
        drop(known);
        let new = Arc::new(Self {
            topic: topic.to_owned(),
            own: OnceLock::new(),
        });
        let mut known = ALL.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < Self::MAX_TOPICS {
            return Arc::clone(known.entry(topic.to_owned()).or_insert(new));
        }
        new
    }

    /// A batch has its last report, `after` it was handed over.
    pub fn completed(&self, outcome: &Outcome, after: Duration) {
        let seconds = after.as_secs_f64();
        let resolve = || sends(topic_label(&self.topic));
        if outcome.published > 0 {
            let sends = self.own.get_or_init(resolve);
            sends
                .ok
                .messages
                .fetch_add(outcome.published, Ordering::Relaxed);
            if outcome.failed.is_empty() {
                return sends.ok.seconds.record(seconds, 1);
            }
        }
        let Some((first, _)) = outcome.failed.first() else {
            return;
        };
        let other = || sends(Arc::from(OTHER));
        let sends = self.own.get().cloned().unwrap_or_else(other);
        for (reason, records) in &outcome.failed {
            let failed = sends.failed(*reason);
            failed.messages.fetch_add(*records, Ordering::Relaxed);
        }
        sends.failed(*first).seconds.record(seconds, 1);
    }
}

/// The series of one topic label.
#[derive(Debug)]
struct Sends {
    ok: Operations,
    /// By reason, once it has happened.
    failed: [OnceLock<Box<Operations>>; Reason::ALL.len()],
}

#[derive(Debug)]
struct Operations {
    messages: AtomicU64,
    seconds: Histogram,
}

impl Operations {
    fn new() -> Self {
        Self {
            messages: AtomicU64::new(0),
            seconds: Histogram::new(CONVENTION),
        }
    }
}

impl Sends {
    fn failed(&self, reason: Reason) -> &Operations {
        self.failed[reason as usize].get_or_init(|| Box::new(Operations::new()))
    }

    /// What happened, with the reason of a failure.
    fn all(&self) -> impl Iterator<Item = (Option<&'static str>, &Operations)> {
        let failed = Reason::ALL
            .into_iter()
            .zip(&self.failed)
            .filter_map(|(reason, failed)| Some((Some(reason.as_str()), &**failed.get()?)));
        [(None, &self.ok)].into_iter().chain(failed)
    }
}

fn sends(label: Arc<str>) -> Arc<Sends> {
    series(&SENDS, label, || Sends {
        ok: Operations::new(),
        failed: [const { OnceLock::new() }; Reason::ALL.len()],
    })
}

/// What a group reads of a topic: counted here by its owner, and told to all when [`Reading::flush`] or its end comes.
#[derive(Debug)]
pub struct Reading {
    series: Arc<Reads>,
    changed: bool,
    read: u64,
    delivered: u64,
    delay: Tally,
    acked: Tally,
    nacked: Tally,
}

#[derive(Debug)]
struct Reads {
    read: AtomicU64,
    delivered: AtomicU64,
    delay: Histogram,
    acked: Histogram,
    nacked: Histogram,
}

impl Reading {
    /// Of a group that exists and a topic that it was assigned.
    pub fn new(group: &str, topic: &str) -> Self {
        let label = (group_label(group), topic_label(topic));
        Self {
            series: series(&READS, label, || Reads {
                read: AtomicU64::new(0),
                delivered: AtomicU64::new(0),
                delay: Histogram::new(LONG),
                acked: Histogram::new(CONVENTION),
                nacked: Histogram::new(CONVENTION),
            }),
            changed: false,
            read: 0,
            delivered: 0,
            delay: Tally::new(LONG),
            acked: Tally::new(CONVENTION),
            nacked: Tally::new(CONVENTION),
        }
    }

    /// Records came out of librdkafka.
    pub fn read(&mut self, records: u64) {
        self.read += records;
        self.changed = true;
    }

    /// A record went to a subscriber; for the first time, if there is a `delay`, in milliseconds.
    pub fn delivered(&mut self, delay: Option<i64>) {
        self.delivered += 1;
        self.changed = true;
        if let Some(millis) = delay {
            // The clocks of two machines differ.
            self.delay.record(millis.max(0) as f64 / 1000.0);
        }
    }

    /// A record was acked, or nacked, that many seconds after its delivery.
    pub fn settled(&mut self, acked: bool, seconds: f64) {
        self.changed = true;
        let tally = if acked {
            &mut self.acked
        } else {
            &mut self.nacked
        };
        tally.record(seconds);
    }

    /// Tells what was counted since the last time.
    pub fn flush(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let Reads {
            read,
            delivered,
            delay,
            acked,
            nacked,
        } = &*self.series;
        read.fetch_add(std::mem::take(&mut self.read), Ordering::Relaxed);
        delivered.fetch_add(std::mem::take(&mut self.delivered), Ordering::Relaxed);
        delay.add(&mut self.delay);
        acked.add(&mut self.acked);
        nacked.add(&mut self.nacked);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How long a group's commits take.
#[derive(Debug)]
pub struct Commits {
    ok: Histogram,
    failed: Histogram,
}

impl Commits {
    /// Of a group.
    pub fn new(group: &str) -> Arc<Self> {
        series(&COMMITS, group_label(group), || Self {
            ok: Histogram::new(CONVENTION),
            failed: Histogram::new(CONVENTION),
        })
    }

    /// A commit has its answer, `after` it was sent.
    pub fn ended(&self, ok: bool, after: Duration) {
        let histogram = if ok { &self.ok } else { &self.failed };
        histogram.record(after.as_secs_f64(), 1);
    }
}

fn series<K: Ord, V>(all: &All<K, V>, label: K, new: impl FnOnce() -> V) -> Arc<V> {
    Arc::clone(lock(all).entry(label).or_insert_with(|| Arc::new(new())))
}

fn lock<T>(all: &Mutex<T>) -> MutexGuard<'_, T> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}
