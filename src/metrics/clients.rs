//! What librdkafka tells of itself: connections, queues, round trips, throttling, groups.
//!
//! `kafka::statistics` reads it and brings it here, once an interval and client. The newest statistics of each living client are kept and drawn
//! when asked for; what librdkafka counts from its start is added up over all clients there were, so that the counters never fall. What always
//! holds: labels are `producer` or `consumer`, and a bounded number of brokers.

mod draw;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    histogram::{Histogram, SHORT},
    live::Living,
    names::Names,
};
use crate::record::Usage;
pub(super) use draw::{ROWS, draw};

/// Brokers with a label of their own. Ids change over a long life, clusters are smaller.
const MAX_BROKERS: usize = 200;

static BROKERS: LazyLock<Names> = LazyLock::new(Names::new);
static CLIENTS: Living<Client> = Living::new();
static TOTALS: LazyLock<Mutex<Totals>> = LazyLock::new(Mutex::default);

/// What a client tells of itself.
#[derive(Debug, Default)]
pub struct Statistics {
    /// What is inside it; a producer's.
    pub queued: Usage,
    /// Each broker that it knows.
    pub brokers: Vec<Broker>,
    /// A consumer's.
    pub partitions: Vec<PartitionStatistics>,
    /// A consumer's.
    pub group: Option<GroupStatistics>,
}

/// A client's connection to a broker.
#[derive(Debug)]
pub struct Broker {
    /// What the client calls it; never reused.
    pub name: String,
    /// What we call it.
    pub label: String,
    /// Whether it is there to coordinate, and not for records.
    pub coordinates: bool,
    /// How it stands.
    pub connection: Connection,
    /// Requests that wait to be sent.
    pub waiting: u64,
    /// Requests that wait for their answer.
    pub in_flight: u64,
    /// Since the client's start.
    pub counts: Counts,
    /// Since the last statistics.
    pub throttled: Duration,
    /// Since the last statistics.
    pub round_trips: RoundTrips,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It can be used.
    Up,
    /// It is being made.
    Connecting,
    /// It was there, and is not.
    Down,
    /// It was never needed.
    Unused,
}

/// Counts that only rise, as long as the client lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts to connect.
    pub connects: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Requests without an answer in time.
    pub timeouts: u64,
    /// Produce requests.
    pub produces: u64,
}

/// The round trips of one interval.
#[derive(Debug, Default)]
pub struct RoundTrips {
    /// How many; those of `beyond` among them.
    pub count: u64,
    /// All together.
    pub sum: Duration,
    /// Shares of those that are not `beyond`, rising to 1, each with a time that they did not exceed.
    pub quantiles: Vec<(f64, Duration)>,
    /// How many were too long for the quantiles, and the longest of them.
    pub beyond: (u64, Duration),
}

/// What is fetched of a partition.
#[derive(Debug)]
pub struct PartitionStatistics {
    /// Its topic.
    pub topic: String,
    /// From 0.
    pub partition: i32,
    /// Where it ends for this consumer, once something was fetched.
    pub end: Option<i64>,
    /// What is fetched ahead.
    pub prefetched: Usage,
}

/// A member's place in its group.
#[derive(Clone, Copy, Debug)]
pub struct GroupStatistics {
    /// How it stands.
    pub state: GroupState,
    /// Since its last rebalance.
    pub rebalanced: Duration,
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Nobody to talk to.
    NoCoordinator,
    /// Being given partitions, or giving them back.
    Rebalancing,
    /// It has what it shall have.
    Steady,
}

/// A client of librdkafka, as long as it lives.
#[derive(Debug)]
pub struct Client {
    /// The group of a consumer.
    group: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    newest: Statistics,
    /// By the client's own name of a broker: what was added up already.
    counted: HashMap<String, Counts>,
}

/// What is added up over all clients, by the kind of client and the broker.
#[derive(Default)]
struct Totals(BTreeMap<(&'static str, Arc<str>), Total>);

struct Total {
    counts: Counts,
    throttled: Duration,
    round_trips: Histogram,
    /// Those to a broker that does not only coordinate.
    fetches: Histogram,
}

impl Client {
    /// The producer, or a group's consumer.
    pub fn new(group: Option<&str>) -> Arc<Self> {
        CLIENTS.add(Self {
            group: group.map(str::to_owned),
            state: Mutex::default(),
        })
    }

    fn kind(&self) -> &'static str {
        match self.group {
            None => "producer",
            Some(_) => "consumer",
        }
    }

    /// Takes new statistics over.
    pub fn tells(&self, statistics: Statistics) {
        let mut state = lock(&self.state);
        let mut totals = lock(&TOTALS);
        for broker in &statistics.brokers {
            let counted = state.counted.entry(broker.name.clone()).or_default();
            let label = broker_label(&broker.label);
            let total = totals
                .0
                .entry((self.kind(), label))
                .or_insert_with(Total::new);
            total.counts.add(broker.counts.since(*counted));
            *counted = broker.counts;
            total.throttled += broker.throttled;
            broker.round_trips.count_in(&total.round_trips);
            if !broker.coordinates {
                broker.round_trips.count_in(&total.fetches);
            }
        }
        state.newest = statistics;
    }
}

impl Total {
    fn new() -> Self {
        Self {
            counts: Counts::default(),
            throttled: Duration::ZERO,
            round_trips: Histogram::new(SHORT),
            fetches: Histogram::new(SHORT),
        }
    }
}

impl Counts {
    fn since(self, before: Self) -> Self {
        // A broker that the client forgot and met again counts from 0.
        let since = |now: u64, before| now.checked_sub(before).unwrap_or(now);
        Self {
            connects: since(self.connects, before.connects),
            disconnects: since(self.disconnects, before.disconnects),
            retries: since(self.retries, before.retries),
            timeouts: since(self.timeouts, before.timeouts),
            produces: since(self.produces, before.produces),
        }
    }

    fn add(&mut self, more: Self) {
        self.connects += more.connects;
        self.disconnects += more.disconnects;
        self.retries += more.retries;
        self.timeouts += more.timeouts;
        self.produces += more.produces;
    }
}

impl RoundTrips {
    /// Each at the next quantile above it; the sum stays exact.
    fn count_in(&self, histogram: &Histogram) {
        let (beyond, longest) = self.beyond;
        let within = self.count.saturating_sub(beyond);
        let mut counted = 0;
        let add = |time: Duration, count| histogram.count_only(time.as_secs_f64(), count);
        for (share, time) in &self.quantiles {
            let up_to = (within as f64 * share).ceil() as u64;
            add(*time, up_to.saturating_sub(counted));
            counted = up_to.max(counted);
        }
        add(longest, beyond.min(self.count));
        histogram.add_sum(self.sum.as_secs_f64());
    }
}

fn broker_label(name: &str) -> Arc<str> {
    BROKERS.label(name, MAX_BROKERS)
}

/// Where each partition ends, by group, topic and number, as its consumer last told.
pub(super) fn ends() -> HashMap<(String, String, i32), i64> {
    let mut ends = HashMap::new();
    for client in CLIENTS.all() {
        let Some(group) = &client.group else {
            continue;
        };
        for partition in &lock(&client.state).newest.partitions {
            if let Some(end) = partition.end {
                let name = (group.clone(), partition.topic.clone(), partition.partition);
                ends.insert(name, end);
            }
        }
    }
    ends
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_count_at_the_next_quantile_above_and_none_is_lost() {
        let millis = Duration::from_millis;
        let round_trips = RoundTrips {
            count: 11,
            sum: millis(123),
            quantiles: vec![(0.5, millis(1)), (0.9, millis(10)), (1.0, millis(20))],
            beyond: (1, millis(700)),
        };
        let histogram = Histogram::new(&[0.001, 0.01, 0.1]);
        round_trips.count_in(&histogram);
        assert_eq!(histogram.read(), (vec![5, 4, 1, 1], 0.123));
        let one = RoundTrips {
            count: 1,
            quantiles: vec![(0.5, millis(1)), (1.0, millis(1))],
            ..RoundTrips::default()
        };
        let histogram = Histogram::new(&[0.001, 0.01, 0.1]);
        one.count_in(&histogram);
        assert_eq!(histogram.read().0, [1, 0, 0, 0]);
    }

    #[test]
    fn counts_are_added_up_over_clients_and_never_fall() {
        let counts = |connects| Counts {
            connects,
            ..Counts::default()
        };
        let mut total = Counts::default();
        let mut counted = Counts::default();
        // The last is of a broker that was forgotten and met again.
        for now in [counts(2), counts(5), counts(1)] {
            total.add(now.since(counted));
            counted = now;
        }
        assert_eq!(total, counts(6));
    }
}
