//! A group whose coordinator is slow to answer: what it could not say in time, and what it may still do late.

use std::time::{Duration, Instant};

use outrigger::grpc::proto;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    client::{Subscription, fill_topic, init},
    commit_log::CommitLog,
    kafka::{Kafka, fresh},
    protocol::Protocol,
    sidecar::{PATIENCE, Sidecar},
};

const UNORDERED: proto::Ordering = proto::Ordering::Unordered;

const OFFSETS: &str = "__consumer_offsets";

/// The broker that coordinates a group: it leads the partition of Kafka's topic that the group's name is hashed to, as Java does.
fn coordinator(kafka: &Kafka, group: &str) -> i32 {
    let hash = group.bytes().fold(0_i32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(i32::from(byte))
    });
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .create()
        .unwrap();
    let metadata = client.fetch_metadata(Some(OFFSETS), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions();
    partitions[(hash & i32::MAX) as usize % partitions.len()].leader()
}

fn held(group: &str) -> String {
    format!("outrigger_subscribe_assigned_partitions{{group=\"{group}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_whose_answer_came_too_late_is_asked_for_again() {
    let kafka = tokio::task::block_in_place(|| Kafka::start(3, &[]));
    let (topic, group) = (fresh("late"), fresh("g"));
    kafka.tell(&format!("topic {topic} 6"));
    let settings = tokio::task::block_in_place(|| {
        Protocol::Consumer.given_up_after(&kafka, &group, "300ms", "30000ms")
    });
    let asked = init(&group, &[&topic], UNORDERED);
    let first = Sidecar::start(kafka.bootstrap(), &settings);
    let _there = Subscription::open(&first, asked.clone()).await;
    first.wait_for_metric(&held(&group), 6.0).await;
    let second = Sidecar::start(kafka.bootstrap(), &settings);

    // As long as a follower counts as in sync, nothing that the coordinator writes is valid, and it answers no heartbeat that changes something.
    let coordinator = coordinator(&kafka, &group);
    let follower = 1 + coordinator % 3;
    kafka.tell(&format!("pause {follower}"));
    let _comes = Subscription::open(&second, asked).await;
    // It counts for 4.5 s.
    tokio::time::sleep(Duration::from_secs(6)).await;
    kafka.tell(&format!("resume {follower}"));

    second.wait_for_metric(&held(&group), 3.0).await;
    first.wait_for_metric(&held(&group), 3.0).await;
    assert!(first.metric("outrigger_subscribe_groups_rejoined_total") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_committed_again_after_a_slow_commit() {
    let kafka = tokio::task::block_in_place(|| Kafka::start(1, &[]));
    let topic = kafka.topic("slow", 1).await;
    let group = fresh("g");
    fill_topic(
        kafka.bootstrap(),
        &topic,
        1,
        (0..2).map(|one| one.to_string()),
    );
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription = Subscription::open(&sidecar, init(&group, &[&topic], UNORDERED)).await;
    let deliveries = subscription.take(2).await;
    subscription.ack(&deliveries[..1]).await;
    let mut log = CommitLog::open(kafka.bootstrap(), &group, &topic);
    let mut wait_for = |commit, times: usize| {
        let begun = Instant::now();
        let mut seen = 0;
        while seen < times {
            assert!(begun.elapsed() < PATIENCE, "{commit:?}: {seen} of {times}");
            let next = log.next(Duration::from_millis(100));
            seen += usize::from(next == Some(commit));
        }
    };
    wait_for((0, 1), 1);

    kafka.tell("pause 1");
    subscription.ack(&deliveries[1..]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    kafka.tell("resume 1");
    // Nothing is settled any more, and whatever a late copy of the first commit would undo is put right.
    wait_for((0, 2), 4);
}
