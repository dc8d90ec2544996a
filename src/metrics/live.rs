//! What is true only now, of groups and their partitions: drawn when it is asked for, gone with its owner.
//!
//! So a partition that was handed back shows no lag of yesterday. Owners hold an `Arc` and write into it; here are only weak references. What
//! always holds: what is dropped is not drawn. Not here: the sums and counts that stay (`messaging`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{
    clients,
    exposition::options,
    messaging::{group_label, topic_label},
    names::OTHER,
    table::{Kind, Metric, row},
    text::{Label, Text},
};
use crate::record::Usage;

const CREDIT_RECORDS: Metric = row(
    "outrigger_subscribe_credit_records",
    Kind::Gauge,
    &["group"],
    "How many more records the group's streams may be sent before they settle some.",
);
const CREDIT_BYTES: Metric = row(
    "outrigger_subscribe_credit_bytes",
    Kind::Gauge,
    &["group"],
    "The same, in bytes.",
);
const OLDEST: Metric = row(
    "outrigger_subscribe_oldest_unsettled_seconds",
    Kind::Gauge,
    &["group"],
    "Age of the oldest delivery that is not settled, looked up once a second; 0 when there is none.",
);
const STUCK: Metric = row(
    "outrigger_subscribe_stuck_records",
    Kind::Gauge,
    &["group", "state"],
    "Records that were not done and are not delivered now: `parked` until another attempt, `moving` to the dead letters, `blocked` because their attempts \
     ran out with nowhere to go.",
);
const HELD_UP: Metric = row(
    "outrigger_subscribe_held_up_partitions",
    Kind::Gauge,
    &["group", "cause"],
    "Partitions held here that are read no further although streams have room, by the setting that bounds them; looked up once a second.",
);
const STALLED: Metric = row(
    "outrigger_subscribe_stalled_partitions",
    Kind::Gauge,
    &["group", "cause"],
    "Partitions of which nothing was delivered for `consume.stall_after`, although records wait and a stream has room, by cause; looked up once a second.",
);
const ASSIGNED: Metric = row(
    "outrigger_subscribe_assigned_partitions",
    Kind::Gauge,
    &["group"],
    "Partitions that this sidecar holds.",
);
const LAG: Metric = row(
    "outrigger_subscribe_lag_records",
    Kind::Gauge,
    &["group", "topic", "partition"],
    "Records from the committed offset to the partition's end, of the partitions held here: what is delivered and not yet acked counts. The end is as \
     old as `metrics.statistics_interval` at most.",
);
const ALIAS_LAG: Metric = row(
    "kafka_consumergroup_lag",
    Kind::Gauge,
    &["consumergroup", "topic", "partition"],
    "The same under the name of kafka_exporter. With `metrics.aliases`.",
);
const ALIAS_OFFSET: Metric = row(
    "kafka_consumergroup_current_offset",
    Kind::Gauge,
    &["consumergroup", "topic", "partition"],
    "The committed offset, under the name of kafka_exporter; only partitions with a label of their own. With `metrics.aliases`.",
);

pub(super) const ROWS: &[Metric] = &[
    CREDIT_RECORDS,
    CREDIT_BYTES,
    OLDEST,
    STUCK,
    HELD_UP,
    STALLED,
    ASSIGNED,
    LAG,
    ALIAS_LAG,
    ALIAS_OFFSET,
];

static GROUPS: Living<Group> = Living::new();
static PARTITIONS: Living<Partition> = Living::new();

/// Those of a kind that live.
pub(super) struct Living<T>(Mutex<Vec<Weak<T>>>);

impl<T> Living<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(super) fn add(&self, one: T) -> Arc<T> {
        let one = Arc::new(one);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Only before it would grow: else many that come at once would cost the square.
        if all.len() == all.capacity() {
            all.retain(|other| other.strong_count() > 0);
        }
        all.push(Arc::downgrade(&one));
        one
    }

    pub(super) fn all(&self) -> Vec<Arc<T>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Figures by name.
pub type Figures = Vec<(&'static str, u64)>;

/// A group that is subscribed here.
#[derive(Debug)]
pub struct Group {
    label: Arc<str>,
    credit_records: AtomicU64,
    credit_bytes: AtomicU64,
    partitions: AtomicU64,
    stuck: Mutex<Figures>,
    held_up: Mutex<Figures>,
    stalled: Mutex<Figures>,
    oldest: Mutex<Option<Instant>>,
}

impl Group {
    /// A group, as long as the answer lives.
    pub fn new(group: &str) -> Arc<Self> {
        GROUPS.add(Self {
            label: group_label(group),
            credit_records: AtomicU64::new(0),
            credit_bytes: AtomicU64::new(0),
            partitions: AtomicU64::new(0),
            stuck: Mutex::default(),
            held_up: Mutex::default(),
            stalled: Mutex::default(),
            oldest: Mutex::new(None),
        })
    }

    /// What its streams may be sent, and how many partitions it has here.
    pub fn stands(&self, credit: Usage, partitions: usize) {
        self.credit_records.store(credit.records, Ordering::Relaxed);
        self.credit_bytes.store(credit.bytes, Ordering::Relaxed);
        self.partitions.store(partitions as u64, Ordering::Relaxed);
    }

    /// How many records wait elsewhere than in the order of deliveries, and how many partitions are read no further, each by name.
    pub fn stuck(&self, records: Figures, held_up: Figures, stalled: Figures) {
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = records;
        *self.held_up.lock().unwrap_or_else(PoisonError::into_inner) = held_up;
        *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = stalled;
    }

    /// Since when its oldest unsettled delivery is out.
    pub fn oldest(&self, since: Option<Instant>) {
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn age(&self) -> f64 {
        self.oldest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(0.0, |since| since.elapsed().as_secs_f64())
    }
}

/// A partition that is held here.
#[derive(Debug)]
pub struct Partition {
    group: String,
    topic: String,
    partition: i32,
    labels: (Arc<str>, Arc<str>),
    committed: AtomicI64,
    /// -1 as long as it was not looked up.
    end: AtomicI64,
}

impl Partition {
    /// A partition, as long as the answer lives.
    pub fn new(group: &str, topic: &str, partition: i32, committed: i64) -> Arc<Self> {
        PARTITIONS.add(Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition,
            labels: (group_label(group), topic_label(topic)),
            committed: AtomicI64::new(committed),
            end: AtomicI64::new(-1),
        })
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// From 0.
    pub fn number(&self) -> i32 {
        self.partition
    }

    /// What Kafka has of the group.
    pub fn committed(&self, offset: i64) {
        self.committed.store(offset, Ordering::Relaxed);
    }

    /// Where it ends, as it was looked up or as the consumers told.
    fn end(&self, ends: &HashMap<(String, String, i32), i64>) -> Option<i64> {
        let name = (self.group.clone(), self.topic.clone(), self.partition);
        let looked_up = self.end.load(Ordering::Relaxed);
        let told = ends.get(&name).copied();
        told.max(Some(looked_up).filter(|end| *end >= 0))
    }

    /// Where the partition ends, looked up.
    pub fn ends(&self, offset: i64) {
        self.end.store(offset, Ordering::Relaxed);
    }
}

/// One line of lag: a partition, or several that share labels.
#[derive(Default)]
struct Lag {
    records: i64,
    /// Of a partition alone.
    committed: Option<i64>,
}

/// Of each partition, with the next offset to be read of it: how much is not committed, where its end is known.
pub fn lags_of<'a>(partitions: impl Iterator<Item = (&'a Partition, i64)>) -> Vec<Option<i64>> {
    let ends = clients::ends();
    let lag = |(partition, position): (&Partition, i64)| {
        let end = partition.end(&ends)?.max(position);
        Some((end - partition.committed.load(Ordering::Relaxed)).max(0))
    };
    partitions.map(lag).collect()
}

/// By group, topic and, if they are told apart, partition.
type Lags = BTreeMap<(Arc<str>, Arc<str>, Option<String>), Lag>;

fn lags() -> Lags {
    let most = options().max_partitions;
    let ends = clients::ends();
    let mut lags = Lags::new();
    for partition in PARTITIONS.all() {
        let Some(end) = partition.end(&ends) else {
            // Nothing was read of it yet.
            continue;
        };
        let committed = partition.committed.load(Ordering::Relaxed);
        let (group, topic) = &partition.labels;
        let own = options().partition_label && lags.len() < most;
        let shared = options().partition_label.then(|| OTHER.to_owned());
        let label = if own {
            Some(partition.partition.to_string())
        } else {
            shared
        };
        let alone = own && **group != *OTHER && **topic != *OTHER;
        let lag = lags
            .entry((Arc::clone(group), Arc::clone(topic), label))
            .or_default();
        lag.records += (end - committed).max(0);
        lag.committed = alone.then_some(committed);
    }
    lags
}

/// Writes all of this.
pub(super) fn draw(text: &mut Text) {
    let mut groups = BTreeMap::<Arc<str>, (Usage, f64, u64)>::new();
    for group in GROUPS.all() {
        let (credit, age, partitions) = groups.entry(Arc::clone(&group.label)).or_default();
        credit.records += group.credit_records.load(Ordering::Relaxed);
        credit.bytes += group.credit_bytes.load(Ordering::Relaxed);
        *age = age.max(group.age());
        *partitions += group.partitions.load(Ordering::Relaxed);
    }
    text.family(&CREDIT_RECORDS, |family| {
        for (group, (credit, ..)) in &groups {
            family.sample(&[("group", group)], credit.records);
        }
    });
    text.family(&CREDIT_BYTES, |family| {
        for (group, (credit, ..)) in &groups {
            family.sample(&[("group", group)], credit.bytes);
        }
    });
    text.family(&OLDEST, |family| {
        for (group, (_, age, _)) in &groups {
            family.sample(&[("group", group)], age);
        }
    });
    draw_counts(text, &STUCK, "state", |group| &group.stuck);
    draw_counts(text, &HELD_UP, "cause", |group| &group.held_up);
    draw_counts(text, &STALLED, "cause", |group| &group.stalled);
    text.family(&ASSIGNED, |family| {
        for (group, (.., partitions)) in &groups {
            family.sample(&[("group", group)], partitions);
        }
    });
    let lags = lags();
    let lag = |lag: &Lag| Some(lag.records);
    draw_lags(text, &LAG, "group", &lags, lag);
    if options().aliases {
        draw_lags(text, &ALIAS_LAG, "consumergroup", &lags, lag);
        draw_lags(text, &ALIAS_OFFSET, "consumergroup", &lags, |lag| {
            lag.committed
        });
    }
}

fn draw_counts(
    text: &mut Text,
    metric: &Metric,
    name: &str,
    of: impl Fn(&Group) -> &Mutex<Figures>,
) {
    let mut sums = BTreeMap::<(Arc<str>, &str), u64>::new();
    for group in GROUPS.all() {
        let counts = of(&group).lock().unwrap_or_else(PoisonError::into_inner);
        for (what, count) in counts.iter() {
            *sums.entry((Arc::clone(&group.label), what)).or_default() += count;
        }
    }
    text.family(metric, |family| {
        for ((group, what), count) in &sums {
            family.sample(&[("group", group), (name, what)], count);
        }
    });
}

fn draw_lags(
    text: &mut Text,
    metric: &Metric,
    group_name: &str,
    lags: &Lags,
    value: impl Fn(&Lag) -> Option<i64>,
) {
    text.family(metric, |family| {
        for ((group, topic, partition), lag) in lags {
            let partition = partition.as_deref().map(|label| ("partition", label));
            let labels: Vec<Label<'_>> = [(group_name, &**group), ("topic", topic)]
                .into_iter()
                .chain(partition)
                .collect();
            if let Some(value) = value(lag) {
                family.sample(&labels, value);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_gone() {
        let living = Living::new();
        let (first, second) = (living.add(1), living.add(2));
        drop(first);
        assert_eq!(living.all(), std::slice::from_ref(&second));
        for number in 0..1000 {
            drop(living.add(number));
        }
        assert_eq!(living.all(), [second]);
        let kept = living.0.lock().expect("nobody panicked").len();
        assert!(kept < 100, "what is gone is forgotten: {kept}");
    }
}
