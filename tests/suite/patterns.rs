//! Topics by regular expression: those that are there, those that come, and those that are left alone.

use std::{collections::BTreeSet, time::Duration};

use outrigger::grpc::proto::{self, seek_request::Target};

use crate::{
    client::{Subscription, fill_topic, init, reason, text},
    kafka::{Kafka, fresh},
    protocol::{Protocol, with_each_protocol},
    sidecar::Sidecar,
    unary::{look, seek},
};

const UNORDERED: proto::Ordering = proto::Ordering::Unordered;

with_each_protocol! {
    an_expression_means_topics_of_now_and_of_later_and_no_others: later;
}

/// A topic with one record, which says the topic's name.
async fn named(kafka: &Kafka, topic: &str) {
    kafka.create(topic, 1, &[]).await;
    fill_topic(kafka.bootstrap(), topic, 1, [topic.to_owned()].into_iter());
}

async fn take(subscription: &mut Subscription, count: usize) -> BTreeSet<String> {
    let deliveries = subscription.take(count).await;
    subscription.ack(&deliveries).await;
    deliveries.iter().map(text).collect()
}

async fn later(protocol: Protocol) {
    let kafka = Kafka::shared();
    let name = fresh("meant");
    let [one, two, other, late] = ["a", "b", "x", "c"].map(|end| format!("{name}.{end}"));
    for topic in [&one, &two, &other] {
        named(kafka, topic).await;
    }
    let group = fresh("g");
    let mut settings = protocol.quick(kafka, &group);
    settings.push((
        "kafka.properties.topic.metadata.refresh.interval.ms",
        "1000",
    ));
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let asked = init(&group, &[&format!("^{name}\\.[a-w].*")], UNORDERED);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let now = BTreeSet::from([one.clone(), two.clone()]);
    assert_eq!(take(&mut subscription, 2).await, now);
    // Brokers look for topics that are new every ten seconds, librdkafka as often as it was told.
    named(kafka, &late).await;
    let later = BTreeSet::from([late.clone()]);
    assert_eq!(take(&mut subscription, 1).await, later);

    let told = look(&sidecar, &group).await.unwrap();
    let topics: BTreeSet<String> = told.partitions.into_iter().map(|at| at.topic).collect();
    assert_eq!(topics, now.union(&later).cloned().collect());
    let beginning = Target::Kind(proto::StartKind::Earliest.into());
    let sought = seek(&sidecar, &group, beginning).await.unwrap();
    assert_eq!((sought.positions.len(), sought.elsewhere.len()), (3, 0));
    assert_eq!(take(&mut subscription, 3).await, topics);
    let elsewhere = proto::TopicPartitionOffset {
        topic: other,
        partition: 0,
        offset: 0,
    };
    let offsets = Target::Offsets(proto::SeekOffsets {
        offsets: vec![elsewhere],
    });
    let refused = seek(&sidecar, &group, offsets).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_REQUEST");
    let more = subscription.deliveries_within(Duration::from_secs(1)).await;
    assert!(more.is_empty(), "{more:?}");
    drop(subscription);
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_for_everything_does_not_mean_kafkas_own_topics() {
    let kafka = tokio::task::block_in_place(|| Kafka::start(1, &[]));
    named(&kafka, "orders").await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.commit_interval", "50ms")]);
    let mut subscription = Subscription::open(&sidecar, init("g", &["^.*"], UNORDERED)).await;
    let mine = BTreeSet::from(["orders".to_owned()]);
    assert_eq!(take(&mut subscription, 1).await, mine);
    // What it commits is in a topic that the expression matches.
    let more = subscription.deliveries_within(Duration::from_secs(3)).await;
    assert!(more.is_empty(), "{more:?}");
    let told = look(&sidecar, "g").await.unwrap().partitions;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].committed_offset, 1);
    drop(subscription);
    assert!(sidecar.stop().success());
}
