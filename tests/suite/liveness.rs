//! Applications that are there and do nothing: others get their partitions, and whoever stands still is named.

use std::time::Duration;

use outrigger::grpc::proto::{
    self, PartitionEventKind, settle_item, subscribe_request, subscribe_response::Message,
};

use crate::{
    client::{Subscription, fill_topic, init, publish_request, record, window},
    kafka::{Kafka, fresh},
    sidecar::Sidecar,
};

const KEY: proto::Ordering = proto::Ordering::Key;

/// A quick member of a group, whose leases end after 5 s.
const SETTINGS: [(&str, &str); 3] = [
    ("consume.stuck_leave", "3s"),
    ("consume.heartbeat_interval", "300ms"),
    ("consume.commit_interval", "100ms"),
];

fn asked(group: &str, topic: &str) -> proto::Init {
    proto::Init {
        window: window(10),
        lease: Some(Duration::from_secs(5).try_into().unwrap()),
        ..init(group, &[topic], KEY)
    }
}

fn event(kind: PartitionEventKind) -> impl Fn(Message) -> Option<i32> {
    move |message| match message {
        Message::PartitionEvent(event) if event.kind() == kind => Some(event.partition),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_settles_nothing_loses_the_partitions_to_others_and_gets_some_back_with_a_sign_of_life()
{
    const COUNT: usize = 400;
    let kafka = Kafka::shared();
    let topic = kafka.topic("dead-app", 4).await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        4,
        (0..COUNT).map(|number| number.to_string()),
    );
    let group = fresh("g");
    let dead = Sidecar::start(kafka.bootstrap(), &SETTINGS);
    let mut lazy = Subscription::open(&dead, asked(&group, &topic)).await;
    let held = lazy.take(10).await;
    // Nobody else yet: it leaves all the same, and whoever comes has everything at once.
    for _ in 0..4 {
        lazy.find(event(PartitionEventKind::Revoked)).await;
    }
    let left = "outrigger_subscribe_groups_left_total";
    assert_eq!(dead.metric(left), 1.0);
    let alive = Sidecar::start(kafka.bootstrap(), &SETTINGS);
    let mut good = Subscription::open(&alive, asked(&group, &topic)).await;
    let mut count = 0;
    while count < COUNT {
        let deliveries = good.deliveries().await.unwrap();
        assert!(
            deliveries.iter().all(|delivery| delivery.attempt == 1),
            "here they are new"
        );
        count += deliveries.len();
        good.ack(&deliveries).await;
    }
    // A settle of what it once held: too late, and a sign of life.
    let request = lazy.ack(&held[..1]).await;
    let outcomes = lazy.settled(request).await;
    assert_eq!(outcomes[0].outcome(), proto::Outcome::FencedPartitionMoved);
    for _ in 0..2 {
        lazy.find(event(PartitionEventKind::Assigned)).await;
    }
    let records = (0..40).map(|number| record(&topic, number.to_string()));
    alive
        .publisher()
        .await
        .publish(publish_request(records.collect()))
        .await
        .unwrap();
    let fresh = lazy.take(1).await;
    lazy.ack(&fresh).await;
    assert_eq!(dead.metric(left), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_what_a_dead_application_holds() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("undrained", 1).await;
    let values = (0..2).map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), &topic, 1, values);
    // Longer than the test waits for anything.
    let waits = [
        ("consume.revoke_drain", "200s"),
        ("consume.session_timeout", "300s"),
    ];
    let settings = [SETTINGS.as_slice(), &waits].concat();
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let group = fresh("g");
    let one = || proto::Init {
        window: window(1),
        ..asked(&group, &topic)
    };
    let patient = proto::Init {
        lease: Some(Duration::from_secs(600).try_into().unwrap()),
        ..one()
    };
    let mut patient = Subscription::open(&sidecar, patient).await;
    patient.take(1).await;
    let mut lazy = Subscription::open(&sidecar, one()).await;
    lazy.take(1).await;
    // It leaves when the lease of one has ended, whatever the other may still hold.
    patient.find(event(PartitionEventKind::Revoked)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_client_says_is_a_sign_of_life() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("signs", 1).await;
    fill_topic(kafka.bootstrap(), &topic, 1, ["x".to_owned()].into_iter());
    let sidecar = Sidecar::start(kafka.bootstrap(), &SETTINGS);
    let mut lazy = Vec::new();
    for _ in 0..4 {
        let group = fresh("g");
        let mut subscription = Subscription::open(&sidecar, asked(&group, &topic)).await;
        let held = subscription.take(1).await;
        lazy.push((group, subscription, held));
    }
    for (_, subscription, _) in &mut lazy {
        subscription.find(event(PartitionEventKind::Revoked)).await;
    }
    let [prolongs, allows, acknowledges, calls] = &mut lazy[..] else {
        unreachable!("there are four");
    };
    prolongs.1.extend(&prolongs.2, 5).await;
    let allowed = subscribe_request::Message::Window(window(20).unwrap());
    allows.1.send(allowed).await;
    let request = proto::AcknowledgeRequest {
        group: acknowledges.0.clone(),
        items: vec![proto::SettleItem {
            token: acknowledges.2[0].token.clone(),
            action: Some(settle_item::Action::Ack(proto::Ack {})),
        }],
    };
    let mut client = sidecar.subscriber().await;
    client.acknowledge(request).await.expect("an answer");
    let _second = Subscription::open(&sidecar, asked(&calls.0, &topic)).await;
    for (_, subscription, _) in &mut lazy {
        subscription.find(event(PartitionEventKind::Assigned)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_stands_still_is_named_with_the_cause() {
    let kafka = Kafka::shared();
    let settings = [
        ("consume.stall_after", "1s"),
        ("consume.max_span_records", "100"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let of = |topic: &str, key: &str| proto::Record {
        key: Some(key.to_owned().into()),
        ..record(topic, "x")
    };
    let mut publisher = sidecar.publisher().await;
    // The second record of a key waits for the first, which nobody settles.
    let topic = kafka.topic("stall", 1).await;
    publisher
        .publish(publish_request(vec![of(&topic, "a"), of(&topic, "a")]))
        .await
        .unwrap();
    let group = fresh("g");
    let stalled = |group: &str, cause: &str| {
        format!("outrigger_subscribe_stalled_partitions{{group=\"{group}\",cause=\"{cause}\"}}")
    };
    let patient = |group: &str, topic: &str| proto::Init {
        lease: Some(Duration::from_secs(600).try_into().unwrap()),
        window: window(1000),
        ..init(group, &[topic], KEY)
    };
    let mut subscription = Subscription::open(&sidecar, patient(&group, &topic)).await;
    let first = subscription.take(1).await;
    sidecar
        .wait_for_metric(&stalled(&group, "unsettled"), 1.0)
        .await;
    let line = sidecar.wait_for_log(|line| line["cause"] == "unsettled");
    assert_eq!(line["partition"], format!("{topic}[0]"), "{line}");
    subscription.ack(&first).await;
    let second = subscription.take(1).await;
    sidecar
        .wait_for_metric(&stalled(&group, "unsettled"), 0.0)
        .await;
    // Tried again in an hour, and one of its key behind it.
    publisher
        .publish(publish_request(vec![of(&topic, "a")]))
        .await
        .unwrap();
    let later = proto::settle_item::Action::Nack(proto::Nack {
        delay: Some(Duration::from_secs(3600).try_into().unwrap()),
        reason: String::new(),
    });
    subscription.settle(&second, later).await;
    sidecar
        .wait_for_metric(&stalled(&group, "parked"), 1.0)
        .await;
    // A bound of the partition.
    let topic = kafka.topic("stall", 1).await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        1,
        (0..500).map(|number| number.to_string()),
    );
    let group = fresh("g");
    let mut subscription = Subscription::open(&sidecar, patient(&group, &topic)).await;
    let held = subscription.take(100).await;
    sidecar
        .wait_for_metric(&stalled(&group, "max_span_records"), 1.0)
        .await;
    subscription.ack(&held).await;
    let rest = subscription.take(1).await;
    sidecar
        .wait_for_metric(&stalled(&group, "max_span_records"), 0.0)
        .await;
    drop(rest);
}

/// Waits until a partition of a group stands still for this cause.
async fn stalls(sidecar: &Sidecar, group: &str, cause: &str) {
    let series =
        format!("outrigger_subscribe_stalled_partitions{{group=\"{group}\",cause=\"{cause}\"}}");
    sidecar.wait_for_metric(&series, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_another_stream_holds_stands_still_and_says_so() {
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.stall_after", "1s")]);
    let topic = kafka.topic("owned", 1).await;
    let values = (0..10).map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), &topic, 1, values);
    let group = fresh("g");
    let asked = proto::Init {
        lease: Some(Duration::from_secs(600).try_into().unwrap()),
        window: window(1),
        ..init(&group, &[&topic], proto::Ordering::Partition)
    };
    let mut owner = Subscription::open(&sidecar, asked.clone()).await;
    let held = owner.take(1).await;
    let mut other = Subscription::open(&sidecar, asked).await;
    stalls(&sidecar, &group, "unsettled").await;
    owner.ack(&held).await;
    owner.leave().await;
    other.take(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_next_record_has_no_room_stands_still_and_says_so() {
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.stall_after", "1s")]);
    let topic = kafka.topic("tight", 1).await;
    let values = (0..2).map(|_| "x".repeat(1000));
    fill_topic(kafka.bootstrap(), &topic, 1, values);
    let group = fresh("g");
    let asked = proto::Init {
        lease: Some(Duration::from_secs(600).try_into().unwrap()),
        window: Some(proto::Window {
            max_records: None,
            max_bytes: Some(1500),
        }),
        ..init(&group, &[&topic], KEY)
    };
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let held = subscription.take(1).await;
    stalls(&sidecar, &group, "unsettled").await;
    subscription.ack(&held).await;
    subscription.take(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_waits_for_somebody_to_decide_stands_still_and_says_so() {
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.stall_after", "1s")]);
    let narrow = kafka
        .topic_with("narrow", 1, &[("max.message.bytes", "300")])
        .await;
    let long = "x".repeat(1000);
    let once = proto::RetryPolicy {
        max_attempts: 1,
        ..Default::default()
    };
    let policy = |topic: &str| proto::DeadLetterPolicy {
        topic: topic.to_owned(),
    };
    for (ordering, dead_letter, cause) in [
        (proto::Ordering::Partition, None, "blocked"),
        (proto::Ordering::Unordered, None, "blocked"),
        (KEY, Some(policy(&narrow)), "dead_letters"),
    ] {
        let topic = kafka.topic("decided", 1).await;
        fill_topic(kafka.bootstrap(), &topic, 1, [long.clone()].into_iter());
        let group = fresh("g");
        let asked = proto::Init {
            retry: Some(once),
            dead_letter,
            ..init(&group, &[&topic], ordering)
        };
        let mut subscription = Subscription::open(&sidecar, asked).await;
        let held = subscription.take(1).await;
        let nack = settle_item::Action::Nack(proto::Nack::default());
        subscription.settle(&held, nack).await;
        stalls(&sidecar, &group, cause).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_suspects_wait_for_a_stream_to_settle_stands_still_and_says_so() {
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.stall_after", "1s")]);
    let topic = kafka.topic("suspects", 1).await;
    let values = (0..3).map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), &topic, 1, values);
    let group = fresh("g");
    let asked = proto::Init {
        lease: Some(Duration::from_secs(600).try_into().unwrap()),
        ..init(&group, &[&topic], KEY)
    };
    let mut dies = Subscription::open(&sidecar, asked.clone()).await;
    dies.take(3).await;
    dies.die();
    let mut lives = Subscription::open(&sidecar, asked).await;
    let first = lives.take(1).await;
    assert!(first[0].suspect && first.len() == 1);
    stalls(&sidecar, &group, "suspect").await;
    lives.ack(&first).await;
    lives.take(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_has_nothing_to_do_is_not_taken_for_dead() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("nothing", 1).await;
    fill_topic(kafka.bootstrap(), &topic, 1, ["x".to_owned()].into_iter());
    let settings = [("consume.stuck_leave", "1s"), ("consume.read_grace", "1s")];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut subscription = Subscription::open(&sidecar, asked(&fresh("g"), &topic)).await;
    let one = subscription.take(1).await;
    subscription.ack(&one).await;
    let nothing = subscription.deliveries_within(Duration::from_secs(3)).await;
    assert!(nothing.is_empty());
    assert_eq!(sidecar.metric("outrigger_subscribe_groups_left_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_kept_for_a_while_after_its_last_stream() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("kept", 1).await;
    fill_topic(kafka.bootstrap(), &topic, 1, ["x".to_owned()].into_iter());
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let mut first = Subscription::open(&sidecar, asked(&group, &topic)).await;
    first.take(1).await;
    first.leave().await;
    let streams = "outrigger_subscribe_streams";
    sidecar.wait_for_metric(streams, 0.0).await;
    let mut second = Subscription::open(&sidecar, asked(&group, &topic)).await;
    second.take(1).await;
    let gone = |line: &serde_json::Value| line["message"] == "unsubscribed";
    assert!(!sidecar.log().iter().any(gone), "it rebalances for nothing");
}
