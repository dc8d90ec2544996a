//! What a sidecar is to its groups: a static member, a member by either protocol, or none, and then its subscribers hear why.

use std::{
    collections::BTreeSet,
    ops::Range,
    time::{Duration, Instant},
};

use outrigger::grpc::proto::{self, subscribe_response::Message};
use rdkafka::{
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tonic::Status;

use crate::{
    client::{Subscription, committed, fill_topic, init, reason, text, window},
    kafka::{Kafka, fresh},
    protocol::{Protocol, with_each_protocol},
    sidecar::{PATIENCE, Sidecar},
    subscribing::wait_for_commits,
};

const UNORDERED: proto::Ordering = proto::Ordering::Unordered;

with_each_protocol! {
    a_member_that_left_is_gone_at_once_and_the_others_have_all: left;
    a_topic_that_is_deleted_ends_the_subscription_with_its_name: deleted;
    a_member_that_is_away_for_longer_than_its_session_loses_its_partitions_and_commits_nothing: away;
    a_stop_at_any_moment_of_joining_is_in_order_and_leaves_no_ghost: hasty;
    a_subscriber_who_comes_back_while_its_static_member_goes_is_let_in: back;
    a_member_for_whom_there_is_no_partition_waits_in_good_order: spare;
}

/// How a subscription ends.
async fn end(subscription: &mut Subscription) -> Status {
    loop {
        match subscription.next_within(PATIENCE).await {
            Some(Ok(_)) => {}
            Some(Err(status)) => return status,
            None => panic!("the subscription goes on"),
        }
    }
}

/// Acknowledges what comes, until all of `values` have come and nothing is held.
async fn take(subscription: &mut Subscription, values: Range<usize>) {
    let mut missing: BTreeSet<String> = values.map(|number| number.to_string()).collect();
    let mut awaited = BTreeSet::new();
    let begun = Instant::now();
    while !missing.is_empty() || !awaited.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "missing: {missing:?}");
        match subscription.next().await.unwrap() {
            Message::Deliveries(some) => {
                for delivery in &some.deliveries {
                    missing.remove(&text(delivery));
                }
                awaited.insert(subscription.ack(&some.deliveries).await);
            }
            Message::Settled(settled) => {
                awaited.remove(&settled.request_id);
            }
            _ => {}
        }
    }
}

/// The series of how many partitions a sidecar holds.
fn held(group: &str) -> String {
    format!("outrigger_subscribe_assigned_partitions{{group=\"{group}\"}}")
}

fn fill(kafka: &Kafka, topic: &str, values: Range<usize>) {
    let values = values.map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), topic, 2, values);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sidecar_with_the_same_instance_id_takes_over_and_the_first_is_told() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("fenced", 2).await;
    fill(kafka, &topic, 0..10);
    let group = fresh("g");
    let settings = [
        ("consume.instance_id", "twin"),
        ("consume.heartbeat_interval", "300ms"),
        ("consume.session_timeout", "6s"),
        ("consume.revoke_drain", "3s"),
    ];
    let asked = init(&group, &[&topic], UNORDERED);
    let first = Sidecar::start(kafka.bootstrap(), &settings);
    let mut fenced = Subscription::open(&first, asked.clone()).await;
    take(&mut fenced, 0..10).await;

    let second = Sidecar::start(kafka.bootstrap(), &settings);
    let mut heir = Subscription::open(&second, asked.clone()).await;
    let told = end(&mut fenced).await;
    let is_clear = |status: &Status| {
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert_eq!(reason(status), "PRECONDITION_FAILED");
        for part in [&*group, "twin", "FENCED_INSTANCE_ID", "consume.instance_id"] {
            assert!(status.message().contains(part), "{}", status.message());
        }
    };
    is_clear(&told);
    // Whoever tries again at once does not drive the other one out in turn.
    let begun = Instant::now();
    is_clear(&end(&mut Subscription::open(&first, asked.clone()).await).await);
    assert!(begun.elapsed() < Duration::from_secs(1), "{begun:?}");
    fill(kafka, &topic, 10..20);
    take(&mut heir, 10..20).await;
    assert!(second.stop().success());
    // And it may, when the time is over.
    fill(kafka, &topic, 20..30);
    loop {
        let mut again = Subscription::open(&first, asked.clone()).await;
        match again.next().await {
            Ok(_) => break take(&mut again, 20..30).await,
            Err(status) => is_clear(&status),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "still barred");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(
        first.metric("outrigger_subscribe_leaked_consumers_total"),
        0.0
    );
    assert!(first.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_consumer_protocol_the_second_one_is_told_and_may_come_when_the_first_is_over() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("unreleased", 2).await;
    fill(kafka, &topic, 0..10);
    let group = fresh("g");
    let mut settings = Protocol::Consumer.mortal(kafka, &group);
    settings.push(("consume.instance_id", "twin"));
    let asked = init(&group, &[&topic], UNORDERED);
    let first = Sidecar::start(kafka.bootstrap(), &settings);
    let mut keeps = Subscription::open(&first, asked.clone()).await;
    take(&mut keeps, 0..10).await;

    let second = Sidecar::start(kafka.bootstrap(), &settings);
    let told = end(&mut Subscription::open(&second, asked.clone()).await).await;
    assert_eq!(reason(&told), "PRECONDITION_FAILED");
    for part in [&*group, "twin", "UNRELEASED_INSTANCE_ID", "session.timeout"] {
        assert!(told.message().contains(part), "{}", told.message());
    }
    // The first one does not notice.
    fill(kafka, &topic, 10..20);
    take(&mut keeps, 10..20).await;
    // It is killed: the other one gets in when brokers have given it up.
    first.kill();
    fill(kafka, &topic, 20..30);
    let begun = Instant::now();
    loop {
        let mut again = Subscription::open(&second, asked.clone()).await;
        match again.deliveries().await {
            Ok(deliveries) => {
                again.ack(&deliveries).await;
                break;
            }
            Err(status) => assert_eq!(reason(&status), "PRECONDITION_FAILED"),
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never let in");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    eprintln!(
        "a killed static member was replaced after {:?}",
        begun.elapsed()
    );
    assert!(second.stop().success());
}

async fn left(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("left", 2).await;
    let group = fresh("g");
    let settings = protocol.quick(kafka, &group);
    let asked = init(&group, &[&topic], UNORDERED);
    let (first, second) = (
        Sidecar::start(kafka.bootstrap(), &settings),
        Sidecar::start(kafka.bootstrap(), &settings),
    );
    let mut stays = Subscription::open(&first, asked.clone()).await;
    let leaves = Subscription::open(&second, asked).await;
    for sidecar in [&first, &second] {
        sidecar.wait_for_metric(&held(&group), 1.0).await;
    }
    drop(leaves);
    assert!(second.stop().success());
    let begun = Instant::now();
    first.wait_for_metric(&held(&group), 2.0).await;
    // Without a goodbye it would take the session timeout of 45 s.
    assert!(begun.elapsed() < Duration::from_secs(10), "{begun:?}");
    fill(kafka, &topic, 0..10);
    take(&mut stays, 0..10).await;
    assert!(first.stop().success());
}

async fn away(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("away", 2).await;
    fill(kafka, &topic, 0..20);
    let group = fresh("g");
    let settings = protocol.mortal(kafka, &group);
    let asked = init(&group, &[&topic], UNORDERED);
    let first = Sidecar::start(kafka.bootstrap(), &settings);
    let mut sleeper = Subscription::open(&first, asked.clone()).await;
    let old = sleeper.take(20).await;
    first.signal("STOP");
    let second = Sidecar::start(kafka.bootstrap(), &settings);
    let mut heir = Subscription::open(&second, asked).await;
    take(&mut heir, 0..20).await;
    fill(kafka, &topic, 20..40);
    take(&mut heir, 20..40).await;
    first.signal("CONT");
    // It learns what has happened, and what it held is nobody's any more.
    let begun = Instant::now();
    let mut gone = 0;
    while gone < 2 {
        assert!(begun.elapsed() < PATIENCE, "the loss is not told");
        if let Message::PartitionEvent(event) = sleeper.next().await.unwrap()
            && event.kind() == proto::PartitionEventKind::Lost
        {
            gone += 1;
        }
    }
    let request = sleeper.ack(&old).await;
    let outcomes = sleeper.settled(request).await;
    let moved = proto::Outcome::FencedPartitionMoved;
    assert!(outcomes.iter().all(|outcome| outcome.outcome() == moved));
    assert_eq!(outcomes.len(), 20);
    // Both have their share again, and what the other has committed stands.
    for sidecar in [&first, &second] {
        sidecar.wait_for_metric(&held(&group), 1.0).await;
    }
    wait_for_commits(kafka, &group, &topic, &[20, 20]).await;
    assert!(first.stop().success());
    assert!(second.stop().success());
}

async fn hasty(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("hasty", 4).await;
    fill(kafka, &topic, 0..20);
    let group = fresh("g");
    let settings = protocol.quick(kafka, &group);
    let asked = init(&group, &[&topic], UNORDERED);
    for moment in (0..400).step_by(25) {
        let mut sidecar = Sidecar::start(kafka.bootstrap(), &settings);
        let subscription = Subscription::open(&sidecar, asked.clone()).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        drop(subscription);
        let begun = Instant::now();
        sidecar.signal("TERM");
        assert!(sidecar.wait(PATIENCE).success(), "after {moment} ms");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?} after {moment} ms");
    }
    // A member that nobody is would keep partitions for the session timeout of 45 s.
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let begun = Instant::now();
    let mut subscription = Subscription::open(&sidecar, asked).await;
    sidecar.wait_for_metric(&held(&group), 4.0).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{begun:?}");
    take(&mut subscription, 0..20).await;
    assert!(sidecar.stop().success());
}

async fn back(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("back", 2).await;
    let group = fresh("g");
    let mut settings = protocol.quick(kafka, &group);
    settings.extend([
        ("consume.instance_id", "orders-0"),
        ("consume.idle_leave", "50ms"),
    ]);
    let asked = init(&group, &[&topic], UNORDERED);
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut sent = 0;
    // It notices within 100 ms that nobody is there, and goes after 50.
    for pause in (0..200).step_by(10) {
        let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
        fill(kafka, &topic, sent..sent + 10);
        take(&mut subscription, sent..sent + 10).await;
        sent += 10;
        drop(subscription);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let gone = |line: &&serde_json::Value| line["message"] == "unsubscribed";
    assert!(
        sidecar.log().iter().filter(gone).count() > 3,
        "it never went"
    );
    assert!(sidecar.stop().success());
}

async fn spare(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("spare", 1).await;
    let group = fresh("g");
    let mut settings = protocol.quick(kafka, &group);
    settings.push(("metrics.statistics_interval", "200ms"));
    let asked = init(&group, &[&topic], UNORDERED);
    let first = Sidecar::start(kafka.bootstrap(), &settings);
    let busy = Subscription::open(&first, asked.clone()).await;
    first.wait_for_metric(&held(&group), 1.0).await;
    let second = Sidecar::start(kafka.bootstrap(), &settings);
    let mut idle = Subscription::open(&second, asked).await;
    let state =
        |state: &str| format!("outrigger_kafka_group_state{{group=\"{group}\",state=\"{state}\"}}");
    second.wait_for_metric(&state("steady"), 1.0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(second.metric(&state("steady")), 1.0);
    assert_eq!(second.metric(&held(&group)), 0.0);
    // It takes over at once.
    drop(busy);
    assert!(first.stop().success());
    fill_topic(kafka.bootstrap(), &topic, 1, (0..10).map(|n| n.to_string()));
    take(&mut idle, 0..10).await;
    assert!(second.stop().success());
}

async fn deleted(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("deleted", 2).await;
    fill(kafka, &topic, 0..10);
    let group = fresh("g");
    let mut settings = protocol.quick(kafka, &group);
    // Where members look themselves, every five minutes by default.
    settings.push((
        "kafka.properties.topic.metadata.refresh.interval.ms",
        "1000",
    ));
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut subscription = Subscription::open(&sidecar, init(&group, &[&topic], UNORDERED)).await;
    take(&mut subscription, 0..10).await;
    kafka.tool("topics", &["--delete", "--topic", &topic]);
    let told = end(&mut subscription).await;
    assert_eq!(reason(&told), "TOPIC_NOT_FOUND");
    assert!(told.message().contains(&topic), "{}", told.message());
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_back_to_the_classic_protocol_one_sidecar_after_the_other_and_forth_only_at_once()
 {
    let kafka = Kafka::shared();
    let topic = kafka.topic("migrated", 2).await;
    let group = fresh("g");
    let asked = init(&group, &[&topic], UNORDERED);
    let consumer = Protocol::Consumer.quick(kafka, &group);
    let classic = Protocol::Classic.quick(kafka, &group);
    let mut members: Vec<(Sidecar, Subscription)> = Vec::new();
    let mut sent = 0;
    for settings in [&consumer, &consumer, &classic, &classic] {
        if members.len() == 2 {
            let (sidecar, subscription) = members.remove(0);
            drop(subscription);
            assert!(sidecar.stop().success());
        }
        let sidecar = Sidecar::start(kafka.bootstrap(), settings);
        let subscription = Subscription::open(&sidecar, asked.clone()).await;
        members.push((sidecar, subscription));
        for (sidecar, _) in &members {
            let share = 2.0 / members.len() as f64;
            sidecar.wait_for_metric(&held(&group), share).await;
        }
        fill(kafka, &topic, sent..sent + 100);
        let mut missing: BTreeSet<String> = (sent..sent + 100).map(|n| n.to_string()).collect();
        sent += 100;
        let begun = Instant::now();
        while !missing.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{} are missing", missing.len());
            for (_, subscription) in &mut members {
                let some = Duration::from_millis(50);
                for delivery in subscription.deliveries_within(some).await {
                    missing.remove(&text(&delivery));
                    subscription.ack(&[delivery]).await;
                }
            }
        }
    }
    // Brokers do not convert a group that librdkafka's cooperative-sticky has rebalanced.
    let sidecar = Sidecar::start(kafka.bootstrap(), &consumer);
    let told = end(&mut Subscription::open(&sidecar, asked.clone()).await).await;
    assert_eq!(reason(&told), "PRECONDITION_FAILED");
    for part in [&*group, "classic protocol", "consume.group_protocol"] {
        assert!(told.message().contains(part), "{}", told.message());
    }
    for (sidecar, subscription) in members {
        drop(subscription);
        assert!(sidecar.stop().success());
    }
    let mut subscription = Subscription::open(&sidecar, asked).await;
    fill(kafka, &topic, sent..sent + 100);
    take(&mut subscription, sent..sent + 100).await;
    drop(subscription);
    assert!(sidecar.stop().success());
    let ends = committed(kafka.bootstrap(), &group, &topic, 2);
    assert_eq!(ends.iter().sum::<i64>(), sent as i64 + 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_do_not_know_the_consumer_protocol_are_told_by_name() {
    let kafka = Kafka::start(1, &["group.coordinator.rebalance.protocols=classic"]);
    let topic = kafka.topic("old", 1).await;
    let settings = [("consume.group_protocol", "consumer")];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let asked = init(&fresh("g"), &[&topic], UNORDERED);
    let told = end(&mut Subscription::open(&sidecar, asked).await).await;
    assert_eq!(reason(&told), "PRECONDITION_FAILED");
    for part in ["consume.group_protocol", "KIP-848", "classic"] {
        assert!(told.message().contains(part), "{}", told.message());
    }
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_commit_that_is_refused_for_a_stale_epoch_is_made_again() {
    let mock = MockCluster::new(1).expect("the mock cluster starts");
    let (topic, group) = ("stale", fresh("g"));
    mock.create_topic(topic, 1, 1).unwrap();
    let bootstrap = mock.bootstrap_servers();
    fill_topic(
        &bootstrap,
        topic,
        1,
        (0..10).map(|number| number.to_string()),
    );
    let settings = [("consume.commit_interval", "1h")];
    let sidecar = Sidecar::start(&bootstrap, &settings);
    let mut asked = init(&group, &[topic], UNORDERED);
    asked.window = window(10);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    take(&mut subscription, 0..10).await;
    let stale = RDKafkaRespErr::RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH;
    mock.request_errors(RDKafkaApiKey::OffsetCommit, &[stale, stale]);
    drop(subscription);
    assert!(sidecar.stop().success());
    assert_eq!(committed(&bootstrap, &group, topic, 1), [10]);
}
