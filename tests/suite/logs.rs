//! Logs that are not what they were, or have gaps: what is there is delivered, what is gone is not waited for, and commits go on.

use std::{collections::BTreeSet, time::Duration};

use outrigger::grpc::proto::{
    self, PartitionEventKind as Kind, subscribe_response::Message as Told,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{
    client::{
        Subscription, committed, fill_topic, init, publish_request, read_topic, record, window,
    },
    kafka::{Kafka, fresh},
    protocol::Protocol,
    sidecar::{PATIENCE, Sidecar},
    subscribing::wait_for_commits,
};

const UNORDERED: proto::Ordering = proto::Ordering::Unordered;

fn fill(kafka: &Kafka, topic: &str, values: std::ops::Range<usize>) {
    let values = values.map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), topic, 1, values);
}

fn admin(kafka: &Kafka) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .create()
        .unwrap()
}

/// What retention does: everything below `offset` is gone.
async fn delete_before(kafka: &Kafka, topic: &str, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset))
        .unwrap();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let deleted = admin(kafka).delete_records(&list, &options).await.unwrap();
    for element in deleted.elements() {
        element.error().unwrap();
    }
}

fn offsets(deliveries: &[proto::Delivery]) -> Vec<i64> {
    deliveries.iter().map(|delivery| delivery.offset).collect()
}

/// Acknowledges what comes, up to the record at `last`; all offsets, in their order.
async fn ack_up_to(subscription: &mut Subscription, last: i64) -> Vec<i64> {
    let mut seen = BTreeSet::new();
    while !seen.contains(&last) {
        let some = subscription.deliveries().await.unwrap();
        for offset in offsets(&some) {
            assert!(seen.insert(offset), "{offset} comes twice");
        }
        subscription.ack(&some).await;
    }
    seen.into_iter().collect()
}

/// The same, with what the stream is told of the log meanwhile.
async fn ack_up_to_and_hear(subscription: &mut Subscription, last: i64) -> (Vec<i64>, String) {
    let (mut seen, mut told) = (BTreeSet::new(), None);
    while told.is_none() || !seen.contains(&last) {
        match subscription.next().await.expect("a message") {
            Told::Deliveries(deliveries) => {
                seen.extend(offsets(&deliveries.deliveries));
                subscription.ack(&deliveries.deliveries).await;
            }
            Told::PartitionEvent(event) if event.kind() == Kind::Truncated => {
                assert_eq!(told, None, "{event:?}");
                told = Some(event.reason);
            }
            _ => {}
        }
    }
    (seen.into_iter().collect(), told.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_next_records_are_gone_begins_with_the_oldest_that_are_left() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("expired", 1).await;
    fill(kafka, &topic, 0..30);
    let group = fresh("g");
    let asked = proto::Init {
        window: window(20),
        ..init(&group, &[&topic], UNORDERED)
    };
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
    let held = subscription.take(20).await;
    // Some are settled above the committed offset, below and above the start that the log will have.
    let mut done = held[..5].to_vec();
    done.extend(
        held.iter()
            .filter(|delivery| [7, 8, 15, 16].contains(&delivery.offset))
            .cloned(),
    );
    let request = subscription.ack(&done).await;
    subscription.settled(request).await;
    wait_for_commits(kafka, &group, &topic, &[5]).await;
    drop(subscription);
    assert!(sidecar.stop().success());
    delete_before(kafka, &topic, 12).await;

    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let (seen, told) = ack_up_to_and_hear(&mut subscription, 29).await;
    assert!(told.contains("from offset 5 to 12 were deleted"), "{told}");
    let left: Vec<i64> = (12..30)
        .filter(|offset| ![15, 16].contains(offset))
        .collect();
    assert_eq!(seen, left);
    wait_for_commits(kafka, &group, &topic, &[30]).await;
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_expires_under_its_reader_is_read_on_where_it_begins_now() {
    const COUNT: i64 = 100;
    let kafka = Kafka::shared();
    let topic = kafka.topic("expiring", 1).await;
    // A batch each, and few of them fetched ahead.
    let settings = [
        ("consume.prefetch_bytes", "64KiB"),
        ("kafka.properties.fetch.message.max.bytes", "16384"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut publisher = sidecar.publisher().await;
    for _ in 0..COUNT {
        let request = publish_request(vec![record(&topic, "x".repeat(10_000))]);
        publisher.publish(request).await.unwrap();
    }
    let group = fresh("g");
    let asked = proto::Init {
        window: window(1),
        ..init(&group, &[&topic], UNORDERED)
    };
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let held = subscription.take(1).await;
    delete_before(kafka, &topic, 60).await;
    subscription.ack(&held).await;
    let (seen, told) = ack_up_to_and_hear(&mut subscription, COUNT - 1).await;
    assert!(told.contains("to 60 were deleted"), "{told}");
    let gone = (0..60).filter(|offset| !seen.contains(offset)).count();
    assert!(
        gone > 30,
        "nearly all was fetched before it was gone: {seen:?}"
    );
    assert_eq!(seen[seen.len() - 40..], (60..COUNT).collect::<Vec<_>>());
    wait_for_commits(kafka, &group, &topic, &[COUNT]).await;
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_and_their_markers_are_passed_over_and_committed_as_far_as_records_go()
{
    let kafka = Kafka::shared();
    let topic = kafka.topic("transactions", 1).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", fresh("t"))
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    // Each ends with a marker, which has an offset too: 0 to 3 and 4, 5 to 7 and 8, 9 to 11 and 12, 13 and 14, and 15 and 16.
    for (count, is_kept) in [(4, true), (3, false), (3, true), (1, false), (1, false)] {
        producer.begin_transaction().unwrap();
        for _ in 0..count {
            let record = BaseRecord::<(), str>::to(&topic).payload("x").partition(0);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        match is_kept {
            true => producer.commit_transaction(PATIENCE).unwrap(),
            false => producer.abort_transaction(PATIENCE).unwrap(),
        }
    }
    let group = fresh("g");
    let asked = init(&group, &[&topic], UNORDERED);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
    let mut all = subscription.take(7).await;
    assert_eq!(offsets(&all), [0, 1, 2, 3, 9, 10, 11]);
    // The first one is held, so what is settled above it is kept with its gaps.
    let held = all.remove(0);
    let request = subscription.ack(&all).await;
    subscription.settled(request).await;
    drop(subscription);
    assert!(sidecar.stop().success());
    assert_eq!(committed(kafka.bootstrap(), &group, &topic, 1), [0]);

    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let again = subscription.take(1).await;
    assert_eq!(offsets(&again), [held.offset]);
    let second = Duration::from_secs(1);
    assert!(subscription.deliveries_within(second).await.is_empty());
    subscription.ack(&again).await;
    wait_for_commits(kafka, &group, &topic, &[12]).await;
    // What comes behind the markers.
    fill(kafka, &topic, 0..1);
    let last = subscription.take(1).await;
    assert_eq!(offsets(&last), [17]);
    subscription.ack(&last).await;
    wait_for_commits(kafka, &group, &topic, &[18]).await;
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_log_is_delivered_as_it_is_and_what_was_settled_between_its_gaps_is_kept() {
    let kafka = Kafka::start(1, &["log.cleaner.backoff.ms=100"]);
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.001"),
    ];
    let topic = kafka.topic_with("compacted", 1, &settings).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut publisher = sidecar.publisher().await;
    let mut publish = async |key: String| {
        let keyed = proto::Record {
            key: Some(key.into()),
            ..record(&topic, "x")
        };
        publisher
            .publish(publish_request(vec![keyed]))
            .await
            .unwrap();
    };
    for number in 0..60 {
        let key = if number % 3 == 0 { 0 } else { number };
        publish(format!("key-{key}")).await;
    }
    // Only what lies before the newest segment is compacted, and a record makes a segment when the one before is old enough.
    let there = || -> Vec<i64> {
        let log = read_topic(kafka.bootstrap(), &topic);
        log[&0].iter().map(|(offset, _)| *offset).collect()
    };
    let mut tail = 0;
    while there().contains(&54) {
        publish(format!("tail-{tail}")).await;
        tail += 1;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let there = there();
    assert!((0..57).all(|offset| there.contains(&offset) == (offset % 3 != 0)));
    let group = fresh("g");
    let asked = init(&group, &[&topic], UNORDERED);
    let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
    let mut all = subscription.take(there.len()).await;
    assert_eq!(offsets(&all), there);
    let held = all.remove(4);
    let request = subscription.ack(&all).await;
    subscription.settled(request).await;
    wait_for_commits(&kafka, &group, &topic, &[held.offset]).await;
    drop(subscription);
    assert!(sidecar.stop().success());

    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let again = subscription.take(1).await;
    assert_eq!(offsets(&again), [held.offset]);
    subscription.ack(&again).await;
    let end = there.last().unwrap() + 1;
    wait_for_commits(&kafka, &group, &topic, &[end]).await;
    let second = Duration::from_secs(1);
    assert!(subscription.deliveries_within(second).await.is_empty());
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_under_its_readers_is_read_from_its_beginning() {
    created_again(Protocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_under_its_readers_is_read_from_its_beginning_with_the_consumer_protocol()
 {
    created_again(Protocol::Consumer).await;
}

async fn created_again(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("again", 1).await;
    fill(kafka, &topic, 0..30);
    let group = fresh("g");
    let settings = protocol.quick(kafka, &group);
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut subscription = Subscription::open(&sidecar, init(&group, &[&topic], UNORDERED)).await;
    ack_up_to(&mut subscription, 29).await;
    wait_for_commits(kafka, &group, &topic, &[30]).await;
    create_again(kafka, &topic).await;
    // Fewer than it had.
    fill(kafka, &topic, 0..5);
    assert_eq!(ack_up_to(&mut subscription, 4).await, [0, 1, 2, 3, 4]);
    wait_for_commits(kafka, &group, &topic, &[5]).await;
    assert!(sidecar.stop().success());
}

async fn create_again(kafka: &Kafka, topic: &str) {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let deleted = admin(kafka).delete_topics(&[topic], &options).await;
    assert_eq!(deleted.unwrap(), [Ok(topic.to_owned())]);
    kafka.create(topic, 1, &[]).await;
}

/// What a group has done that nobody is a member of now.
fn commit(kafka: &Kafka, group: &str, topic: &str, offset: i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset))
        .unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

/// As after a topic that was made anew behind the group's back, or a log that was cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_beyond_the_end_of_a_log_is_told_and_passes_nothing_over() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("cut", 1).await;
    fill(kafka, &topic, 0..5);
    let group = fresh("g");
    commit(kafka, &group, &topic, 30);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription = Subscription::open(&sidecar, init(&group, &[&topic], UNORDERED)).await;
    let (seen, told) = ack_up_to_and_hear(&mut subscription, 4).await;
    assert!(told.contains("does not have offset 30"), "{told}");
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    wait_for_commits(kafka, &group, &topic, &[5]).await;
    // It goes on where it is.
    fill(kafka, &topic, 5..40);
    assert_eq!(
        ack_up_to(&mut subscription, 39).await,
        Vec::from_iter(5..40)
    );
    assert!(sidecar.stop().success());
}
