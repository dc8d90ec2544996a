//! Records that are not done when they are delivered: waits, leases, clients that die with them, and what becomes of them in the end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use outrigger::grpc::proto::{
    self, PartitionEventKind, settle_item::Action, subscribe_request, subscribe_response::Message,
};

use crate::{
    client::{Subscription, committed, fill_topic, init, reason, text, window},
    kafka::{Kafka, fresh},
    sidecar::Sidecar,
};

const KEY: proto::Ordering = proto::Ordering::Key;
const PARTITION: proto::Ordering = proto::Ordering::Partition;
const UNORDERED: proto::Ordering = proto::Ordering::Unordered;

async fn numbered(kafka: &Kafka, name: &str, count: usize) -> String {
    let topic = kafka.topic(name, 1).await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        1,
        (0..count).map(|number| number.to_string()),
    );
    topic
}

fn nack(delay: Duration) -> Action {
    Action::Nack(proto::Nack {
        delay: Some(delay.try_into().unwrap()),
        reason: "no luck".into(),
    })
}

fn millis(millis: u64) -> Option<prost_types::Duration> {
    Some(Duration::from_millis(millis).try_into().unwrap())
}

/// Deliveries as offset and attempt.
fn seen(deliveries: &[proto::Delivery]) -> Vec<(i64, u32)> {
    deliveries
        .iter()
        .map(|delivery| (delivery.offset, delivery.attempt))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_with_a_delay_comes_back_after_it_and_holds_no_window_meanwhile() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "delay", 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let asked = proto::Init {
        window: window(1),
        ..init(&group, &[&topic], UNORDERED)
    };
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let first = subscription.take(1).await;
    let delay = Duration::from_secs(2);
    let begun = Instant::now();
    subscription.settle(&first, nack(delay)).await;
    let second = subscription.take(1).await;
    assert_eq!(seen(&second), [(1, 1)], "the window of one is free for it");
    let parked = format!("outrigger_subscribe_stuck_records{{group=\"{group}\",state=\"parked\"}}");
    sidecar.wait_for_metric(&parked, 1.0).await;
    subscription.ack(&second).await;
    let again = subscription.take(1).await;
    assert_eq!(seen(&again), [(0, 2)]);
    assert!(begun.elapsed() >= delay, "after {:?}", begun.elapsed());
    subscription.ack(&again).await;
    sidecar.wait_for_metric(&parked, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_brings_the_record_again_and_one_that_is_prolonged_does_not() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "lease", 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.max_lease", "12s")]);
    let asked = proto::Init {
        lease: millis(5000),
        retry: Some(proto::RetryPolicy {
            min_delay: millis(10),
            ..Default::default()
        }),
        ..init(&fresh("g"), &[&topic], UNORDERED)
    };
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let begun = Instant::now();
    let mut first = Vec::new();
    let expiry = loop {
        match subscription.next().await.unwrap() {
            Message::Welcome(welcome) => assert_eq!(welcome.lease, millis(5000)),
            Message::Deliveries(deliveries) => {
                first.extend(deliveries.deliveries);
                if first.len() == 2 {
                    break deliveries.lease_expiry.expect("when the lease ends");
                }
            }
            _ => {}
        }
    };
    let now = std::time::SystemTime::now();
    let left = std::time::SystemTime::try_from(expiry)
        .unwrap()
        .duration_since(now)
        .unwrap();
    assert!(left <= Duration::from_secs(5), "{left:?}");
    // Up to the cap, which counts from the delivery.
    let request = subscription.extend(&first[1..], 600).await;
    let extended = subscription
        .find(|message| match message {
            Message::Extended(extended) => Some(extended),
            _ => None,
        })
        .await;
    assert_eq!(
        (extended.request_id, extended.outcomes),
        (request, Vec::new())
    );
    let again = subscription.take(1).await;
    let after = begun.elapsed();
    assert_eq!(seen(&again), [(0, 2)]);
    assert!(after >= Duration::from_secs(5), "after {after:?}");
    // The token of the lease that has ended is of no use any more.
    subscription.extend(&first[..1], 5).await;
    let outcome = subscription
        .find(|message| match message {
            Message::Extended(extended) => Some(extended.outcomes[0].outcome()),
            _ => None,
        })
        .await;
    assert_eq!(outcome, proto::Outcome::ExpiredRedelivered);
    let request = subscription.ack(&first[..1]).await;
    assert_eq!(
        subscription.settled(request).await[0].outcome(),
        proto::Outcome::ExpiredRedelivered
    );
    subscription.ack(&again).await;
    let capped = subscription.take(1).await;
    assert_eq!(seen(&capped), [(1, 2)]);
    assert!(
        begun.elapsed() >= Duration::from_secs(12),
        "after {:?}",
        begun.elapsed()
    );
    subscription.ack(&capped).await;
    assert_eq!(
        sidecar.metric("outrigger_subscribe_expired_leases_total"),
        2.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_run_out_block_what_has_to_wait_and_nothing_is_dropped() {
    let kafka = Kafka::shared();
    for (ordering, goes_on) in [(UNORDERED, true), (KEY, true), (PARTITION, false)] {
        let topic = numbered(kafka, "blocked", 3).await;
        let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.commit_interval", "50ms")]);
        let group = fresh("g");
        let asked = || proto::Init {
            window: window(1),
            retry: Some(proto::RetryPolicy {
                min_delay: millis(10),
                max_attempts: 3,
                ..Default::default()
            }),
            ..init(&group, &[&topic], ordering)
        };
        let mut subscription = Subscription::open(&sidecar, asked()).await;
        let mut tries = Vec::new();
        let mut done = Vec::new();
        let event = loop {
            match subscription.next().await.unwrap() {
                Message::Deliveries(deliveries) => {
                    for delivery in deliveries.deliveries {
                        let delivery = [delivery];
                        if delivery[0].offset == 0 {
                            tries.push(delivery[0].attempt);
                            subscription
                                .settle(&delivery, nack(Duration::from_millis(1)))
                                .await;
                        } else {
                            done.push(delivery[0].offset);
                            subscription.ack(&delivery).await;
                        }
                    }
                }
                Message::PartitionEvent(event) if event.kind() == PartitionEventKind::Blocked => {
                    break event;
                }
                _ => {}
            }
        };
        assert_eq!(tries, [1, 2, 3]);
        assert!(
            event.reason.contains("offset 0") && event.reason.contains("no luck"),
            "{}",
            event.reason
        );
        let blocked =
            format!("outrigger_subscribe_stuck_records{{group=\"{group}\",state=\"blocked\"}}");
        sidecar.wait_for_metric(&blocked, 1.0).await;
        while goes_on && done.len() < 2 {
            let next = subscription.take(1).await;
            done.extend(next.iter().map(|delivery| delivery.offset));
            subscription.ack(&next).await;
        }
        assert_eq!(done.len(), if goes_on { 2 } else { 0 }, "{ordering:?}");
        assert!(
            subscription
                .deliveries_within(Duration::from_millis(500))
                .await
                .is_empty()
        );
        // Whoever comes now is told too.
        let mut late = Subscription::open(&sidecar, asked()).await;
        let told = late
            .find(|message| match message {
                Message::PartitionEvent(event) if event.kind() == PartitionEventKind::Blocked => {
                    Some(event.reason)
                }
                _ => None,
            })
            .await;
        assert_eq!(told, event.reason);
        late.leave().await;
        subscription.leave().await;
        assert!(sidecar.stop().success());
        let end = committed(kafka.bootstrap(), &group, &topic, 1);
        assert_eq!(end, [0], "{ordering:?}: it is not passed over");
        // Another life tries again.
        let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
        let mut subscription = Subscription::open(&sidecar, asked()).await;
        assert_eq!(seen(&subscription.take(1).await), [(0, 1)], "{ordering:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_that_kills_its_clients_is_found_among_many() {
    const COUNT: usize = 200;
    const POISON: &str = "77";
    let kafka = Kafka::shared();
    for ordering in [UNORDERED, KEY, PARTITION] {
        let topic = numbered(kafka, "poison", COUNT).await;
        let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
        let asked = proto::Init {
            window: window(50),
            retry: Some(proto::RetryPolicy {
                min_delay: millis(10),
                max_attempts: 3,
                ..Default::default()
            }),
            ..init(&fresh("g"), &[&topic], ordering)
        };
        let mut acked: BTreeMap<String, u32> = BTreeMap::new();
        let mut kills = 0;
        'clients: loop {
            let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
            let mut asked_last = 0;
            loop {
                let deliveries = match subscription.next().await.unwrap() {
                    Message::Deliveries(deliveries) => deliveries.deliveries,
                    Message::PartitionEvent(event)
                        if event.kind() == PartitionEventKind::Blocked =>
                    {
                        assert!(event.reason.contains("died"), "{}", event.reason);
                        // What is left: the rest, but for what has to wait for the poison.
                        while acked.len() < COUNT - 1 && ordering != PARTITION {
                            let more = subscription.take(1).await;
                            subscription.ack(&more).await;
                            for delivery in &more {
                                *acked.entry(text(delivery)).or_default() += 1;
                            }
                        }
                        break 'clients;
                    }
                    _ => continue,
                };
                let suspects = deliveries
                    .iter()
                    .filter(|delivery| delivery.suspect)
                    .count();
                assert!(
                    suspects == 0 || deliveries.len() == 1,
                    "a suspect comes alone: {suspects}"
                );
                if deliveries.iter().any(|delivery| text(delivery) == POISON) {
                    kills += 1;
                    if subscription.answered < asked_last {
                        subscription.settled(asked_last).await;
                    }
                    subscription.die();
                    break;
                }
                for delivery in &deliveries {
                    *acked.entry(text(delivery)).or_default() += 1;
                }
                asked_last = subscription.ack(&deliveries).await;
            }
            assert!(kills < 10, "it is found after few deaths");
        }
        assert!(!acked.contains_key(POISON));
        assert!(
            acked.values().all(|&times| times == 1),
            "nothing else is delivered twice to a client that settles it"
        );
        // The first death makes suspects; three of the record alone are its attempts.
        assert_eq!(kills, 4, "{ordering:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_nothing_beside_a_suspect() {
    const SOON: Duration = Duration::from_millis(500);
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "beside", 4).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let asked = |records| proto::Init {
        window: window(records),
        lease: millis(600_000),
        ..init(&group, &[&topic], UNORDERED)
    };
    let mut dies = Subscription::open(&sidecar, asked(2)).await;
    dies.take(2).await;
    let mut lives = Subscription::open(&sidecar, asked(10)).await;
    let held = lives.take(2).await;
    dies.die();
    let streams = "outrigger_subscribe_streams";
    sidecar.wait_for_metric(streams, 1.0).await;
    assert!(lives.deliveries_within(SOON).await.is_empty());
    lives.ack(&held).await;
    let mut suspect = lives.take(1).await;
    assert_eq!(seen(&suspect), [(0, 1)]);
    lives.ack(&suspect).await;
    suspect = lives.take(1).await;
    assert_eq!(seen(&suspect), [(1, 1)]);
    // Others come when it is settled, and not before.
    let more = (4..6).map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), &topic, 1, more);
    assert!(lives.deliveries_within(SOON).await.is_empty());
    lives.ack(&suspect).await;
    assert_eq!(seen(&lives.take(2).await), [(4, 1), (5, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_never_read_is_ended_and_what_it_held_was_not_tried() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("unread", 1).await;
    let body = "x".repeat(10_000);
    fill_topic(
        kafka.bootstrap(),
        &topic,
        1,
        (0..3000).map(|number| format!("{number} {body}")),
    );
    // The leases would end first, if they ran while nothing is read.
    let sidecar = Sidecar::start(
        kafka.bootstrap(),
        &[("consume.read_grace", "8s"), ("consume.stall_after", "1s")],
    );
    let group = fresh("g");
    let asked = proto::Init {
        window: Some(proto::Window {
            max_records: Some(3000),
            max_bytes: Some(60 << 20),
        }),
        lease: millis(5000),
        ..init(&group, &[&topic], UNORDERED)
    };
    let mut silent = Subscription::open(&sidecar, asked.clone()).await;
    sidecar.wait_for_log(|line| line["cause"] == "unread");
    let line = sidecar.wait_for_log(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("a stream is cut"))
    });
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("nothing was read"),
        "{line}"
    );
    assert_eq!(
        sidecar.metric("outrigger_subscribe_expired_leases_total"),
        0.0
    );
    let patient = proto::Init {
        lease: millis(600_000),
        ..asked
    };
    let mut other = Subscription::open(&sidecar, patient).await;
    let all = other.take(3000).await;
    assert!(
        all.iter()
            .all(|delivery| delivery.attempt == 1 && !delivery.suspect)
    );
    // Whoever reads at last is told.
    let status = loop {
        if let Err(status) = silent.next().await {
            break status;
        }
    };
    assert_eq!(reason(&status), "WINDOW_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_reads_slowly_or_only_speaks_is_not_ended() {
    const GRACE: Duration = Duration::from_secs(5);
    let kafka = Kafka::shared();
    let topic = kafka.topic("slow", 1).await;
    let body = "x".repeat(10_000);
    fill_topic(
        kafka.bootstrap(),
        &topic,
        1,
        (0..3000).map(|number| format!("{number} {body}")),
    );
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.read_grace", "5s")]);
    let window = proto::Window {
        max_records: Some(3000),
        max_bytes: Some(60 << 20),
    };
    let mut streams = Vec::new();
    for _ in 0..2 {
        let asked = proto::Init {
            window: Some(window),
            lease: millis(600_000),
            ..init(&fresh("g"), &[&topic], UNORDERED)
        };
        streams.push(Subscription::open(&sidecar, asked).await);
    }
    let cuts = || {
        let is_cut = |line: &&serde_json::Value| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("a stream is cut")
        };
        sidecar.log().iter().filter(is_cut).count()
    };
    let begun = Instant::now();
    while begun.elapsed() < 2 * GRACE {
        streams[0].next().await.unwrap();
        streams[1]
            .send(subscribe_request::Message::Window(window))
            .await;
        tokio::time::sleep(GRACE / 20).await;
    }
    assert_eq!(cuts(), 0);
    // There was something to read all the time.
    sidecar.wait_until("both are ended", || cuts() == 2).await;
}
