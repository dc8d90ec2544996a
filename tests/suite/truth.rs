//! The truth of publishing: records go through streams and unary calls while brokers are killed and stopped, leaders move, the network is cut,
//! clients lose patience, and the sidecar is killed and stopped; then the topic is read, and a checker judges each answer by what is there.
//!
//! `make soak` publishes ten million records. `OUTRIGGER_SEED` makes the troubles of an earlier run again, as far as chance lets it.
//!
//! Some troubles last longer than `publish.delivery_timeout`, most do not.

mod callers;
mod checker;
mod faults;
mod history;
mod streams;
mod unary;
mod wire;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use outrigger::grpc::proto::FailureMode;
use rdkafka::Message;
use tokio::{sync::watch, task::JoinSet};

use self::{
    callers::{Caller, Load, Pace},
    checker::{Violation, judge},
    faults::Scene,
    history::{Answer, Calls, Place, Topic},
};
use crate::{
    checker::random::{Random, seed},
    client::read_each,
    kafka::{Kafka, fresh},
    network::Network,
    sidecar::PATIENCE,
};

const BROKERS: u64 = 3;
const PARTITIONS: i32 = 6;

/// How often a caller looks whether it may send more.
const TICK: Duration = Duration::from_millis(5);

const RECORDS: u64 = 500_000;
/// So that they last as long as the faults.
const RECORDS_A_SECOND: u64 = 12_000;

const MANY_RECORDS: u64 = 10_000_000;

/// Faults bite soon: there is no room for all that wait. Every id is known as long as it is asked for.
const SETTINGS: [(&str, &str); 5] = [
    ("publish.delivery_timeout", "6s"),
    ("publish.max_in_flight_records", "12000"),
    ("publish.stream_window_records", "5000"),
    ("publish.max_wait", "2s"),
    ("publish.dedup_max_ids", "1000000"),
];

/// The reasons for which records may fail here.
const REASONS: [&str; 8] = [
    "DEADLINE",
    "DELIVERY_TIMEOUT",
    "KAFKA_UNAVAILABLE",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "PRECONDITION_FAILED",
    "PRODUCER_REPLACED",
    "PUBLISH_BUFFER_FULL",
];

/// Streams with and without ids, of small batches and large ones, one of which stops on a failure; and unary calls: single records and more,
/// patient and not.
fn callers(load: &Load, random: &mut Random) -> JoinSet<(u16, Calls)> {
    let mut callers = JoinSet::new();
    let mut number = 0;
    let mut caller = |has_ids, sizes| {
        let caller = Caller::new(load, number, has_ids, sizes, random.below(u64::MAX));
        number += 1;
        caller
    };
    let [goes_on, stops] = [FailureMode::Continue, FailureMode::StopOnFailure];
    for (has_ids, sizes, mode) in [
        (false, 100..400, goes_on),
        (false, 1..100, goes_on),
        (false, 1..100, stops),
        (true, 1..100, goes_on),
        (true, 50..200, stops),
    ] {
        let caller = caller(has_ids, sizes);
        callers.spawn(async move { (caller.number, streams::publish(caller, mode).await) });
    }
    for (has_ids, sizes, deadlines) in [
        (false, 1..2, None),
        (false, 1..2, Some(20..2000)),
        (false, 1..50, Some(100..3000)),
        (true, 1..2, Some(20..2000)),
        (true, 1..50, None),
        (true, 1..50, Some(100..3000)),
    ] {
        let caller = caller(has_ids, sizes);
        callers.spawn(async move { (caller.number, unary::publish(caller, deadlines).await) });
    }
    callers
}

/// How many sends there are of each kind of answer.
fn kinds(calls: &[Calls]) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    for sent in calls.iter().flat_map(|calls| &calls.sent) {
        let kind = match sent.answer {
            Answer::Nothing => "nothing",
            Answer::Unknown => "unknown",
            Answer::Possibly => "possibly",
            Answer::NotWritten => "not written",
            Answer::NotSent => "not sent",
            Answer::Written(Place { offset: None, .. }) => "written, offset unknown",
            Answer::Written(_) => "written",
            Answer::Duplicate(_) => "duplicate",
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

fn read(bootstrap: &str, topic: &str) -> Topic {
    let records = read_each(bootstrap, topic, |message| {
        (message.offset(), wire::stored(message))
    });
    let partition = |records: Vec<(i64, history::Stored)>| {
        let is_whole = records
            .iter()
            .zip(0..)
            .all(|((offset, _), at)| *offset == at);
        assert!(is_whole, "the offsets of a partition have no gap");
        records.into_iter().map(|(_, stored)| stored).collect()
    };
    records.into_values().map(partition).collect()
}

/// Violations in words: a few of each rule.
fn tell(violations: &[Violation]) -> String {
    let mut by_rule: BTreeMap<_, Vec<&Violation>> = BTreeMap::new();
    for violation in violations {
        by_rule.entry(violation.rule).or_default().push(violation);
    }
    let mut told = String::new();
    for (rule, of) in by_rule {
        writeln!(told, "{} of {rule:?}", of.len()).unwrap();
        for violation in of.iter().take(10) {
            writeln!(told, "  {violation}").unwrap();
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_to_a_publish_is_the_truth() {
    let is_soak = std::env::var_os("OUTRIGGER_SOAK").is_some();
    let seed = seed();
    let mut random = Random(seed);
    let mut network = Network::of(BROKERS as usize);
    let options = [
        "--listener=PROXIED:PLAINTEXT".to_owned(),
        format!("--advertise=PROXIED:{}", network.ports()),
        // Whoever comes back soon leads again.
        "--set=leader.imbalance.check.interval.seconds=1".to_owned(),
    ];
    let start = move || Kafka::start_with(BROKERS as i32, &options);
    let kafka = Arc::new(tokio::task::spawn_blocking(start).await.unwrap());
    network.lead_to(kafka.listener("PROXIED"));
    let topic = fresh("truth");
    tokio::task::block_in_place(|| kafka.tell(&format!("topic {topic} {PARTITIONS}")));

    let settings = SETTINGS
        .map(|(key, value)| (key, value.to_owned()))
        .to_vec();
    let (lives, current) = watch::channel(None);
    let mut scene = Scene {
        kafka: Arc::clone(&kafka),
        network,
        settings,
        lives,
        lived: Vec::new(),
        random: Random(random.below(u64::MAX)),
        begun: Instant::now(),
    };
    scene.start().await;
    let (total, per_second) = match is_soak {
        true => (MANY_RECORDS, u64::MAX),
        false => (RECORDS, RECORDS_A_SECOND),
    };
    let load = Load {
        topic: topic.clone(),
        lives: current,
        pace: Arc::new(Pace::new(total, per_second)),
        failures: Arc::default(),
    };
    let mut callers = callers(&load, &mut random);
    scene.run(&load.pace, is_soak).await;
    eprintln!(
        "{:6.1} s: all is well again",
        scene.begun.elapsed().as_secs_f64()
    );
    let mut calls = BTreeMap::new();
    let all = async {
        while let Some(done) = callers.join_next().await {
            let (number, of) = done.unwrap();
            calls.insert(number, of);
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("all is sent in time");
    let calls: Vec<Calls> = calls.into_values().collect();
    let took = scene.begun.elapsed();
    let judged = tokio::task::spawn_blocking(move || {
        let content = read(kafka.bootstrap(), &topic);
        let violations = judge(&content, &calls);
        (violations, content, calls)
    });
    let (violations, content, calls) = judged.await.unwrap();

    let kinds = kinds(&calls);
    let stored: usize = content.iter().map(Vec::len).sum();
    let failures = load.failures.lock().unwrap().clone();
    eprintln!(
        "seed {seed}: {} sends in {:.0} s, {} a second, to {} sidecars; {stored} records in the topic; {kinds:?}; {failures:?}",
        calls.iter().map(|calls| calls.sent.len()).sum::<usize>(),
        took.as_secs_f64(),
        stored as u64 / took.as_secs().max(1),
        scene.lived.len()
    );
    assert!(violations.is_empty(), "seed {seed}: {}", tell(&violations));
    for kind in [
        "written",
        "duplicate",
        "not written",
        "not sent",
        "possibly",
        "unknown",
    ] {
        assert!(kinds.contains_key(kind), "no answer is {kind:?}: {kinds:?}");
    }
    for reason in failures.keys() {
        let is_ours = !reason.starts_with("without a reason");
        assert!(
            !is_ours || REASONS.contains(&reason.as_str()),
            "{failures:?}"
        );
    }
}
