//! librdkafka's statistics: from JSON where a client is polled to the metrics, by way of a thread of their own.
//!
//! A client hands the bytes on and goes on; the one thread `kafka-statistics` reads what is exported and nothing else. It lives as long as the
//! process, as librdkafka's own threads do. When it is behind, the newest statistics are dropped and said so: the next bring the same counts.
//! Names and units: librdkafka 2.12.1, STATISTICS.md.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use rdkafka::config::ClientConfig;
use serde::Deserialize;

use super::producer::PartitionCounts;
use crate::{
    metrics::{
        self, Connection, Counts, GroupState, GroupStatistics, PartitionStatistics, RoundTrips,
    },
    record::Usage,
};

/// Statistics that may wait to be read.
const WAITING: usize = 64;

/// Where a client leaves its statistics.
pub(super) struct Statistics {
    client: Arc<metrics::Client>,
    of: Of,
    partitions: Option<PartitionCounts>,
}

/// Whose statistics they are, as far as it says how to read them.
#[derive(Clone, Copy, Default)]
struct Of {
    /// A consumer's: it is at its end where the open transactions begin.
    read_committed: bool,
    /// A consumer's whose partitions the brokers assign (KIP-848). Without any it stays in the state in which others begin to join.
    assigned_by_brokers: bool,
}

struct Letter {
    json: Vec<u8>,
    client: Arc<metrics::Client>,
    of: Of,
    partitions: Option<PartitionCounts>,
}

impl Statistics {
    pub(super) fn of_producer(partitions: PartitionCounts) -> Self {
        Self {
            client: metrics::Client::new(None),
            of: Of::default(),
            partitions: Some(partitions),
        }
    }

    pub(super) fn of_consumer(config: &ClientConfig) -> Self {
        Self {
            client: metrics::Client::new(Some(config.get("group.id").unwrap_or_default())),
            of: Of {
                read_committed: config.get("isolation.level") != Some("read_uncommitted"),
                assigned_by_brokers: config.get("group.protocol") == Some("consumer"),
            },
            partitions: None,
        }
    }

    /// Hands statistics on; never waits.
    pub(super) fn take(&self, json: &[u8]) {
        let letter = Letter {
            json: json.to_vec(),
            client: Arc::clone(&self.client),
            of: self.of,
            partitions: self.partitions.clone(),
        };
        if let Some(Err(error)) = reader().map(|reader| reader.try_send(letter)) {
            tracing::debug!(error = %error, "statistics are dropped");
        }
    }
}

/// The reader's letter box; the thread is started by the first statistics.
fn reader() -> Option<&'static mpsc::SyncSender<Letter>> {
    static READER: OnceLock<Option<mpsc::SyncSender<Letter>>> = OnceLock::new();
    let start = || {
        let (sender, letters) = mpsc::sync_channel::<Letter>(WAITING);
        let read = move || {
            for letter in letters {
                // A panic would end the thread, and the metrics with it, without a word.
                if catch_unwind(AssertUnwindSafe(|| letter.read())).is_err() {
                    tracing::error!("statistics could not be taken over");
                }
            }
        };
        let spawned = thread::Builder::new()
            .name("kafka-statistics".into())
            .spawn(read);
        match spawned {
            Ok(_) => Some(sender),
            Err(error) => {
                tracing::error!(error = %error, "no thread could be started to read statistics");
                None
            }
        }
    };
    READER.get_or_init(start).as_ref()
}

impl Letter {
    fn read(&self) {
        match serde_json::from_slice::<Json<'_>>(&self.json) {
            Ok(json) => {
                if let Some(partitions) = &self.partitions {
                    partitions.are(json.partition_counts());
                }
                self.client.tells(json.read(self.of));
            }
            Err(error) => tracing::debug!(error = %error, "statistics could not be read"),
        }
    }
}

/// What is read of a client's statistics.
#[derive(Deserialize)]
struct Json<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    msg_cnt: u64,
    msg_size: u64,
    #[serde(borrow)]
    brokers: HashMap<&'a str, Broker<'a>>,
    #[serde(borrow)]
    topics: HashMap<&'a str, Topic>,
    #[serde(borrow)]
    cgrp: Option<Group<'a>>,
}

#[derive(Deserialize)]
struct Broker<'a> {
    nodeid: i32,
    source: &'a str,
    state: &'a str,
    outbuf_cnt: i64,
    waitresp_cnt: i64,
    txretries: u64,
    req_timeouts: u64,
    connects: u64,
    disconnects: u64,
    /// In microseconds.
    rtt: Window,
    /// In milliseconds.
    throttle: Window,
    req: Requests,
}

#[derive(Deserialize)]
struct Requests {
    #[serde(rename = "Produce", default)]
    produce: u64,
}

/// What was measured since the last statistics.
#[derive(Deserialize)]
struct Window {
    max: u64,
    sum: u64,
    p50: u64,
    p75: u64,
    p90: u64,
    p95: u64,
    p99: u64,
    p99_99: u64,
    outofrange: u64,
    cnt: u64,
}

#[derive(Deserialize)]
struct Topic {
    partitions: HashMap<i32, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    desired: bool,
    fetchq_cnt: u64,
    fetchq_size: u64,
    hi_offset: i64,
    ls_offset: i64,
}

#[derive(Deserialize)]
struct Group<'a> {
    state: &'a str,
    join_state: &'a str,
    /// In milliseconds.
    rebalance_age: u64,
}

impl Json<'_> {
    fn partition_counts(&self) -> impl Iterator<Item = (&str, i32)> {
        // -1 is where records wait whose partition is not known yet.
        let count = |topic: &Topic| topic.partitions.keys().filter(|one| **one >= 0).count();
        self.topics
            .iter()
            .map(move |(name, topic)| (*name, count(topic) as i32))
    }

    fn read(self, of: Of) -> metrics::Statistics {
        let is_consumer = self.kind == "consumer";
        let partitions = self.topics.into_iter().flat_map(|(topic, partitions)| {
            let desired = |(_, partition): &(i32, Partition)| is_consumer && partition.desired;
            let read = move |(number, partition): (i32, Partition)| {
                partition.read(topic, number, of.read_committed)
            };
            partitions
                .partitions
                .into_iter()
                .filter(desired)
                .map(read)
                .collect::<Vec<_>>()
        });
        metrics::Statistics {
            queued: Usage {
                records: self.msg_cnt,
                bytes: self.msg_size,
            },
            partitions: partitions.collect(),
            brokers: self
                .brokers
                .into_iter()
                // A place for what has no broker yet, and no connection.
                .filter(|(_, broker)| broker.source != "internal")
                .map(|(name, broker)| broker.read(name))
                .collect(),
            group: self.cgrp.map(|group| group.read(of)),
        }
    }
}

impl Broker<'_> {
    fn read(self, name: &str) -> metrics::Broker {
        let coordinates = self.source == "logical";
        let label = if coordinates {
            "coordinator".to_owned()
        } else if self.nodeid < 0 {
            "bootstrap".to_owned()
        } else {
            self.nodeid.to_string()
        };
        metrics::Broker {
            name: name.to_owned(),
            label,
            coordinates,
            connection: match self.state {
                "UP" | "REAUTH" => Connection::Up,
                "INIT" | "DOWN" if self.connects == 0 => Connection::Unused,
                "INIT" | "DOWN" => Connection::Down,
                _ => Connection::Connecting,
            },
            waiting: count(self.outbuf_cnt),
            in_flight: count(self.waitresp_cnt),
            counts: Counts {
                connects: self.connects,
                disconnects: self.disconnects,
                retries: self.txretries,
                timeouts: self.req_timeouts,
                produces: self.req.produce,
            },
            throttled: Duration::from_millis(self.throttle.sum),
            round_trips: self.rtt.read(),
        }
    }
}

impl Window {
    fn read(&self) -> RoundTrips {
        let longest = Duration::from_micros(self.max);
        let quantiles = [
            (0.5, self.p50),
            (0.75, self.p75),
            (0.9, self.p90),
            (0.95, self.p95),
            (0.99, self.p99),
            (1.0, self.p99_99),
        ];
        RoundTrips {
            count: self.cnt,
            sum: Duration::from_micros(self.sum),
            quantiles: quantiles
                .into_iter()
                .map(|(share, micros)| (share, Duration::from_micros(micros)))
                .collect(),
            beyond: (self.outofrange, longest),
        }
    }
}

impl Partition {
    fn read(self, topic: &str, partition: i32, read_committed: bool) -> PartitionStatistics {
        let end = if read_committed {
            self.ls_offset
        } else {
            self.hi_offset
        };
        PartitionStatistics {
            topic: topic.to_owned(),
            partition,
            end: (end >= 0).then_some(end),
            prefetched: Usage {
                records: self.fetchq_cnt,
                bytes: self.fetchq_size,
            },
        }
    }
}

impl Group<'_> {
    fn read(&self, of: Of) -> GroupStatistics {
        GroupStatistics {
            state: match (self.state, self.join_state) {
                ("up", "steady") => GroupState::Steady,
                ("up", "init") if of.assigned_by_brokers => GroupState::Steady,
                ("up", _) => GroupState::Rebalancing,
                _ => GroupState::NoCoordinator,
            },
            rebalanced: Duration::from_millis(self.rebalance_age),
        }
    }
}

/// librdkafka writes a count that is being changed as -1 now and then.
fn count(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: &str = r#"{"min":1,"max":900000,"avg":2,"sum":910000,"stddev":0,"p50":1000,"p75":2000,"p90":3000,"p95":4000,"p99":5000,
        "p99_99":6000,"outofrange":1,"hdrsize":1,"cnt":11}"#;

    /// Statistics of a consumer, cut down to what is read and a little more.
    fn json(state: &str, connects: u64) -> String {
        format!(
            r#"{{"name":"c","type":"consumer","ts":1,"msg_cnt":0,"msg_size":0,"brokers":{{
            "h:1/7":{{"name":"h:1/7","nodeid":7,"source":"learned","state":"{state}","outbuf_cnt":2,"waitresp_cnt":-1,"txretries":3,"req_timeouts":4,
                "connects":{connects},"disconnects":5,"rtt":{WINDOW},"throttle":{WINDOW},"req":{{"Fetch":9}},"toppars":{{}}}},
            "GroupCoordinator":{{"nodeid":-1,"source":"logical","state":"UP","outbuf_cnt":0,"waitresp_cnt":0,"txretries":0,"req_timeouts":0,
                "connects":1,"disconnects":0,"rtt":{WINDOW},"throttle":{WINDOW},"req":{{}}}},
            ":0/internal":{{"nodeid":-1,"source":"internal","state":"INIT","outbuf_cnt":0,"waitresp_cnt":0,"txretries":0,"req_timeouts":0,
                "connects":0,"disconnects":0,"rtt":{WINDOW},"throttle":{WINDOW},"req":{{}}}}}},
            "topics":{{"t":{{"topic":"t","partitions":{{
                "0":{{"desired":true,"fetchq_cnt":10,"fetchq_size":20,"hi_offset":60,"ls_offset":50,"consumer_lag":-1}},
                "1":{{"desired":true,"fetchq_cnt":0,"fetchq_size":0,"hi_offset":-1001,"ls_offset":-1001}},
                "2":{{"desired":false,"fetchq_cnt":0,"fetchq_size":0,"hi_offset":9,"ls_offset":9}},
                "-1":{{"desired":false,"fetchq_cnt":0,"fetchq_size":0,"hi_offset":-1001,"ls_offset":-1001}}}}}}}},
            "cgrp":{{"state":"up","stateage":1,"join_state":"wait-sync","rebalance_age":1500,"rebalance_cnt":1,"assignment_size":2}}}}"#
        )
    }

    fn read(state: &str, connects: u64, read_committed: bool) -> metrics::Statistics {
        let of = Of {
            read_committed,
            assigned_by_brokers: false,
        };
        serde_json::from_str::<Json<'_>>(&json(state, connects))
            .expect("it is read")
            .read(of)
    }

    #[test]
    fn a_member_that_brokers_give_no_partition_is_steady_all_the_same() {
        let state = |join_state, assigned_by_brokers| {
            let group = Group {
                state: "up",
                join_state,
                rebalance_age: 0,
            };
            let of = Of {
                read_committed: true,
                assigned_by_brokers,
            };
            group.read(of).state
        };
        assert_eq!(state("init", true), GroupState::Steady);
        assert_eq!(state("init", false), GroupState::Rebalancing);
        assert_eq!(state("wait-unassign-call", true), GroupState::Rebalancing);
    }

    #[test]
    fn what_is_exported_is_read_with_its_unit() {
        let statistics = read("UP", 1, true);
        let broker = statistics
            .brokers
            .iter()
            .find(|broker| broker.label == "7")
            .expect("by its node id");
        assert_eq!(
            (broker.waiting, broker.in_flight, broker.coordinates),
            (2, 0, false)
        );
        assert_eq!(broker.throttled, Duration::from_secs(910));
        assert_eq!(broker.round_trips.sum, Duration::from_millis(910));
        assert_eq!(
            broker.round_trips.quantiles[0],
            (0.5, Duration::from_millis(1))
        );
        assert_eq!(broker.counts.produces, 0, "a consumer tells of none");
        let labels: Vec<_> = statistics.brokers.iter().map(|b| &*b.label).collect();
        assert!(labels.contains(&"coordinator") && labels.len() == 2);
        let group = statistics.group.expect("a group");
        assert_eq!(group.state, GroupState::Rebalancing);
        assert_eq!(group.rebalanced, Duration::from_millis(1500));
    }

    #[test]
    fn a_partition_ends_for_its_reader_where_open_transactions_begin() {
        for (read_committed, end) in [(true, 50), (false, 60)] {
            let mut partitions = read("UP", 1, read_committed).partitions;
            partitions.sort_by_key(|partition| partition.partition);
            let ends: Vec<_> = partitions.iter().map(|partition| partition.end).collect();
            assert_eq!(
                ends,
                [Some(end), None],
                "and others' partitions are left out"
            );
        }
    }

    #[test]
    fn a_connection_that_was_never_needed_is_not_down() {
        let connection = |state, connects| {
            let brokers = read(state, connects, true).brokers;
            let broker = brokers.into_iter().find(|broker| broker.label == "7");
            broker.expect("by its node id").connection
        };
        assert_eq!(connection("UP", 1), Connection::Up);
        assert_eq!(connection("INIT", 0), Connection::Unused);
        assert_eq!(connection("INIT", 1), Connection::Down);
        assert_eq!(connection("TRY_CONNECT", 1), Connection::Connecting);
        assert_eq!(connection("AUTH_REQ", 1), Connection::Connecting);
    }
}
