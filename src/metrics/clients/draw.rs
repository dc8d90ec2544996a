//! The names of what librdkafka tells, and how it is drawn.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard},
};

use super::{CLIENTS, Client, Connection, GroupState, State, TOTALS, Total, broker_label, lock};
use crate::{
    metrics::{
        messaging::{group_label, topic_label},
        table::{Kind, Metric, row},
        text::{Label, Text},
    },
    record::Usage,
};

const CONNECTIONS: Metric = row(
    "outrigger_kafka_broker_connections",
    Kind::Gauge,
    &["client", "broker", "state"],
    "Connections of our producer, or our consumers, to a broker: `up`; `connecting`; `down`, which was there and is not: lost, or closed by the broker \
     because it was idle; `unused`, which was never needed. The broker is its node id, `bootstrap` before it has one, or `coordinator`, which is a \
     connection of its own.",
);
const REQUESTS: Metric = row(
    "outrigger_kafka_broker_requests",
    Kind::Gauge,
    &["client", "broker", "stage"],
    "Requests that wait to be sent to a broker (`queued`) or for its answer (`in_flight`).",
);
const CONNECTS: Metric = row(
    "outrigger_kafka_broker_connects_total",
    Kind::Counter,
    &["client", "broker"],
    "Attempts to connect, successful or not.",
);
const DISCONNECTS: Metric = row(
    "outrigger_kafka_broker_disconnects_total",
    Kind::Counter,
    &["client", "broker"],
    "Connections that ended, by whoever's doing.",
);
const RETRIES: Metric = row(
    "outrigger_kafka_broker_retries_total",
    Kind::Counter,
    &["client", "broker"],
    "Requests that were sent again.",
);
const TIMEOUTS: Metric = row(
    "outrigger_kafka_broker_timeouts_total",
    Kind::Counter,
    &["client", "broker"],
    "Requests without an answer in time.",
);
const THROTTLE: Metric = row(
    "outrigger_kafka_throttle_seconds_total",
    Kind::Counter,
    &["client", "broker"],
    "Time for which a broker throttled us, by its own answers: a quota is used up.",
);
const ROUND_TRIP: Metric = row(
    "outrigger_kafka_round_trip_seconds",
    Kind::Histogram,
    &["client", "broker"],
    "From sending a request of any kind to its answer. Made of the quantiles that librdkafka tells each interval: a request counts at the next of \
     50, 75, 90, 95, 99, 99.99 % above it, so never lower than it was; sum and count are exact.",
);
const SEND_REQUESTS: Metric = row(
    "kafka_producer_send_requests_total",
    Kind::Counter,
    &[],
    "Produce requests sent to brokers, retries included; each carries a batch or several.",
);
const FETCH_LATENCY: Metric = row(
    "kafka_consumer_fetch_latency_seconds",
    Kind::Histogram,
    &["broker"],
    "Round trips of consumers to the brokers that they fetch from; nearly all of them are fetches, and one at the end of its partitions lasts \
     `fetch.wait.max.ms`. Made as `outrigger_kafka_round_trip_seconds` is.",
);
const QUEUE_RECORDS: Metric = row(
    "outrigger_kafka_producer_queue_records",
    Kind::Gauge,
    &[],
    "Records inside librdkafka's producer: waiting, sent, or waiting for their report to be taken.",
);
const QUEUE_BYTES: Metric = row(
    "outrigger_kafka_producer_queue_bytes",
    Kind::Gauge,
    &[],
    "Bytes of those.",
);
const PREFETCHED_RECORDS: Metric = row(
    "outrigger_subscribe_prefetched_records",
    Kind::Gauge,
    &["group", "topic"],
    "Records fetched ahead and not yet delivered, for want of room in the windows.",
);
const PREFETCHED_BYTES: Metric = row(
    "outrigger_subscribe_prefetched_bytes",
    Kind::Gauge,
    &["group", "topic"],
    "Bytes of those.",
);
const GROUP_STATE: Metric = row(
    "outrigger_kafka_group_state",
    Kind::Gauge,
    &["group", "state"],
    "1 for the state that our member of the group is in: `no_coordinator`, `rebalancing` or `steady`.",
);
const REBALANCE_AGE: Metric = row(
    "outrigger_kafka_group_rebalance_age_seconds",
    Kind::Gauge,
    &["group"],
    "Time since the last rebalance of our member; 0 before the first.",
);

pub(in crate::metrics) const ROWS: &[Metric] = &[
    CONNECTIONS,
    REQUESTS,
    CONNECTS,
    DISCONNECTS,
    RETRIES,
    TIMEOUTS,
    THROTTLE,
    ROUND_TRIP,
    SEND_REQUESTS,
    FETCH_LATENCY,
    QUEUE_RECORDS,
    QUEUE_BYTES,
    PREFETCHED_RECORDS,
    PREFETCHED_BYTES,
    GROUP_STATE,
    REBALANCE_AGE,
];

/// Writes all of this.
pub(in crate::metrics) fn draw(text: &mut Text) {
    let clients = CLIENTS.all();
    let clients: Vec<(&Client, MutexGuard<'_, State>)> = clients
        .iter()
        .map(|client| (&**client, lock(&client.state)))
        .collect();
    draw_brokers(text, &clients);
    draw_totals(text);
    draw_queues(text, &clients);
    draw_groups(text, &clients);
}

type Clients<'a> = [(&'a Client, MutexGuard<'a, State>)];

fn draw_brokers(text: &mut Text, clients: &Clients<'_>) {
    /// Connections up, connecting, down and unused; requests that wait and that are in flight.
    #[derive(Default)]
    struct Now {
        connections: [u64; 4],
        requests: [u64; 2],
    }
    let mut brokers = BTreeMap::<(&str, Arc<str>), Now>::new();
    for (client, state) in clients {
        for broker in &state.newest.brokers {
            let label = broker_label(&broker.label);
            let now = brokers.entry((client.kind(), label)).or_default();
            now.connections[match broker.connection {
                Connection::Up => 0,
                Connection::Connecting => 1,
                Connection::Down => 2,
                Connection::Unused => 3,
            }] += 1;
            now.requests[0] += broker.waiting;
            now.requests[1] += broker.in_flight;
        }
    }
    text.family(&CONNECTIONS, |family| {
        for ((client, broker), now) in &brokers {
            for (state, count) in ["up", "connecting", "down", "unused"]
                .iter()
                .zip(now.connections)
            {
                family.sample(
                    &[("client", client), ("broker", broker), ("state", state)],
                    count,
                );
            }
        }
    });
    text.family(&REQUESTS, |family| {
        for ((client, broker), now) in &brokers {
            for (stage, count) in ["queued", "in_flight"].iter().zip(now.requests) {
                family.sample(
                    &[("client", client), ("broker", broker), ("stage", stage)],
                    count,
                );
            }
        }
    });
}

type Count = fn(&Total) -> u64;

fn draw_totals(text: &mut Text) {
    let totals = lock(&TOTALS);
    let counters: [(&Metric, Count); 4] = [
        (&CONNECTS, |total| total.counts.connects),
        (&DISCONNECTS, |total| total.counts.disconnects),
        (&RETRIES, |total| total.counts.retries),
        (&TIMEOUTS, |total| total.counts.timeouts),
    ];
    for (metric, count) in counters {
        text.family(metric, |family| {
            for ((client, broker), total) in &totals.0 {
                family.sample(&[("client", client), ("broker", broker)], count(total));
            }
        });
    }
    text.family(&THROTTLE, |family| {
        for ((client, broker), total) in &totals.0 {
            family.sample(
                &[("client", client), ("broker", broker)],
                total.throttled.as_secs_f64(),
            );
        }
    });
    text.family(&ROUND_TRIP, |family| {
        for ((client, broker), total) in &totals.0 {
            family.histogram(
                &[("client", client), ("broker", broker)],
                &total.round_trips,
            );
        }
    });
    text.family(&SEND_REQUESTS, |family| {
        let produces: u64 = totals.0.values().map(|total| total.counts.produces).sum();
        family.sample(&[], produces);
    });
    text.family(&FETCH_LATENCY, |family| {
        for ((client, broker), total) in &totals.0 {
            if *client == "consumer" && total.fetches.count() > 0 {
                family.histogram(&[("broker", broker)], &total.fetches);
            }
        }
    });
}

fn draw_queues(text: &mut Text, clients: &Clients<'_>) {
    let mut queue = Usage::default();
    let mut prefetched = BTreeMap::<(Arc<str>, Arc<str>), Usage>::new();
    for (client, state) in clients {
        let Some(group) = &client.group else {
            queue.add(state.newest.queued);
            continue;
        };
        for partition in &state.newest.partitions {
            let label = (group_label(group), topic_label(&partition.topic));
            prefetched
                .entry(label)
                .or_default()
                .add(partition.prefetched);
        }
    }
    text.family(&QUEUE_RECORDS, |family| family.sample(&[], queue.records));
    text.family(&QUEUE_BYTES, |family| family.sample(&[], queue.bytes));
    text.family(&PREFETCHED_RECORDS, |family| {
        for ((group, topic), usage) in &prefetched {
            family.sample(&[("group", group), ("topic", topic)], usage.records);
        }
    });
    text.family(&PREFETCHED_BYTES, |family| {
        for ((group, topic), usage) in &prefetched {
            family.sample(&[("group", group), ("topic", topic)], usage.bytes);
        }
    });
}

fn draw_groups(text: &mut Text, clients: &Clients<'_>) {
    let mut groups = BTreeMap::<Arc<str>, ([u64; 3], f64)>::new();
    for (client, state) in clients {
        if let (Some(group), Some(member)) = (&client.group, &state.newest.group) {
            let (states, age) = groups.entry(group_label(group)).or_default();
            states[match member.state {
                GroupState::NoCoordinator => 0,
                GroupState::Rebalancing => 1,
                GroupState::Steady => 2,
            }] += 1;
            *age = member.rebalanced.as_secs_f64();
        }
    }
    text.family(&GROUP_STATE, |family| {
        for (group, (states, _)) in &groups {
            let names = ["no_coordinator", "rebalancing", "steady"];
            for (state, count) in names.iter().zip(states) {
                let labels: [Label<'_>; 2] = [("group", group), ("state", state)];
                family.sample(&labels, count);
            }
        }
    });
    text.family(&REBALANCE_AGE, |family| {
        for (group, (_, age)) in &groups {
            family.sample(&[("group", group)], age);
        }
    });
}
