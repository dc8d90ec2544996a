//! Subscribing: delivery, settlement, commits, and what survives streams, processes and rebalances.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use outrigger::grpc::proto::{
    self, settle_item::Action, subscribe_request, subscribe_response::Message,
};

use crate::{
    client::{
        Subscription, commit_as_another, committed, fill_topic, init, publish_request, reason,
        record, text, window,
    },
    commands::outrigger,
    kafka::{Kafka, fresh},
    protocol::{Protocol, with_each_protocol},
    sidecar::{PATIENCE, Sidecar},
};

with_each_protocol! {
    every_record_is_delivered_in_partition_order_and_committed_when_acked: in_order;
    a_group_that_starts_at_the_end_stays_there_over_a_restart: at_the_end;
    a_topic_that_does_not_exist_ends_the_subscription_with_its_name: no_such_topic;
    kill_9_in_the_middle_of_a_subscription_skips_nothing: kill_9;
    acks_out_of_order_survive_kill_9_and_only_what_was_not_acked_comes_again: gaps;
    a_durable_settle_is_answered_when_kafka_has_it_and_not_before: durable;
    a_second_sidecar_joins_and_leaves_ten_times_and_nothing_is_skipped: churn;
}

const PARTITION: proto::Ordering = proto::Ordering::Partition;
const UNORDERED: proto::Ordering = proto::Ordering::Unordered;

/// For members that are killed: their partitions are given on after the session timeout.
const MORTAL: [(&str, &str); 4] = [
    ("consume.session_timeout", "6s"),
    ("consume.revoke_drain", "3s"),
    ("consume.heartbeat_interval", "1s"),
    ("consume.commit_interval", "100ms"),
];

/// A topic with `count` records, numbered, round robin over its partitions.
async fn numbered(kafka: &Kafka, name: &str, partitions: i32, count: usize) -> String {
    let topic = kafka.topic(name, partitions).await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        partitions,
        (0..count).map(|number| number.to_string()),
    );
    topic
}

/// Waits until the group's committed offsets are as expected.
pub async fn wait_for_commits(kafka: &Kafka, group: &str, topic: &str, expected: &[i64]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = committed(kafka.bootstrap(), group, topic, expected.len() as i32);
        if now == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "committed {now:?}, expected {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn in_order(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "all", 3, 3000).await;
    let group = fresh("g");
    let sidecar = Sidecar::start(kafka.bootstrap(), &protocol.quick(kafka, &group));
    let mut subscription = Subscription::open(&sidecar, init(&group, &[&topic], PARTITION)).await;
    let mut next = [0; 3];
    let mut count = 0;
    while count < 3000 {
        let deliveries = subscription.deliveries().await.unwrap();
        for delivery in &deliveries {
            let partition = delivery.record.as_ref().unwrap().partition.unwrap() as usize;
            assert_eq!(delivery.offset, next[partition]);
            assert_eq!(
                text(delivery),
                (next[partition] * 3 + partition as i64).to_string()
            );
            assert_eq!(delivery.attempt, 1);
            next[partition] += 1;
        }
        count += deliveries.len();
        subscription.ack(&deliveries).await;
    }
    wait_for_commits(kafka, &group, &topic, &[1000, 1000, 1000]).await;
}

/// Takes so many deliveries, and sees that no more come.
async fn exactly(subscription: &mut Subscription, count: usize) -> Vec<proto::Delivery> {
    let mut all = subscription.take(count).await;
    all.extend(
        subscription
            .deliveries_within(Duration::from_millis(500))
            .await,
    );
    assert_eq!(all.len(), count);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_bounds_what_is_unsettled_and_zero_pauses() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "window", 2, 100).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut asked = init(&fresh("g"), &[&topic], UNORDERED);
    asked.window = window(10);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let first = exactly(&mut subscription, 10).await;
    subscription.ack(&first[..4]).await;
    exactly(&mut subscription, 4).await;
    subscription
        .send(subscribe_request::Message::Window(window(0).unwrap()))
        .await;
    subscription.ack(&first[4..]).await;
    // Paused.
    exactly(&mut subscription, 0).await;
    subscription
        .send(subscribe_request::Message::Window(window(20).unwrap()))
        .await;
    // 4 are held.
    exactly(&mut subscription, 16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_bound_a_window_too_and_a_larger_record_comes_alone() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("bytes", 1).await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        1,
        (0..10).map(|_| "x".repeat(1000)).chain(["y".repeat(9000)]),
    );
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut asked = init(&fresh("g"), &[&topic], PARTITION);
    asked.window = Some(proto::Window {
        max_records: None,
        max_bytes: Some(5000),
    });
    let mut subscription = Subscription::open(&sidecar, asked).await;
    for _ in 0..2 {
        let five = subscription.take(5).await;
        assert_eq!(five.len(), 5);
        assert!(
            subscription
                .deliveries_within(Duration::from_millis(300))
                .await
                .is_empty()
        );
        subscription.ack(&five).await;
    }
    let large = subscription.take(1).await;
    assert_eq!(
        large[0].offset, 10,
        "larger than the window, and nothing else is held"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_brings_the_record_again_and_a_release_does_not_count() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "nack", 1, 3).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription =
        Subscription::open(&sidecar, init(&fresh("g"), &[&topic], UNORDERED)).await;
    let first = subscription.take(3).await;
    subscription
        .settle(&first[1..2], Action::Nack(proto::Nack::default()))
        .await;
    let again = subscription.take(1).await;
    assert_eq!((again[0].offset, again[0].attempt), (1, 2));
    subscription
        .settle(&again, Action::Release(proto::Release {}))
        .await;
    let third = subscription.take(1).await;
    assert_eq!(
        (third[0].offset, third[0].attempt),
        (1, 2),
        "a release is no attempt"
    );
    let request = subscription
        .ack(&[first[0].clone(), first[1].clone(), third[0].clone()])
        .await;
    let outcomes = subscription.settled(request).await;
    assert_eq!(
        outcomes.len(),
        1,
        "only what differs from RECORDED: {outcomes:?}"
    );
    assert_eq!(
        (outcomes[0].index, outcomes[0].outcome()),
        (1, proto::Outcome::ExpiredRedelivered)
    );
    let request = subscription.ack(&third).await;
    assert_eq!(
        subscription.settled(request).await[0].outcome(),
        proto::Outcome::AlreadySettled
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_partition_order_a_nack_rewinds_and_later_tokens_are_stale() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "rewind", 1, 5).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription =
        Subscription::open(&sidecar, init(&fresh("g"), &[&topic], PARTITION)).await;
    let first = subscription.take(5).await;
    subscription
        .settle(&first[2..3], Action::Nack(proto::Nack::default()))
        .await;
    let again = subscription.take(3).await;
    let seen: Vec<_> = again
        .iter()
        .map(|delivery| (delivery.offset, delivery.attempt))
        .collect();
    assert_eq!(seen, [(2, 2), (3, 1), (4, 1)]);
    let request = subscription.ack(&first).await;
    let stale: Vec<_> = subscription
        .settled(request)
        .await
        .iter()
        .map(|outcome| outcome.index)
        .collect();
    assert_eq!(stale, [2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_not_ours_are_answered_and_change_nothing() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "tokens", 1, 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription =
        Subscription::open(&sidecar, init(&fresh("g"), &[&topic], UNORDERED)).await;
    let deliveries = subscription.take(2).await;
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut token = deliveries[0].token.to_vec();
        change(&mut token);
        proto::Delivery {
            token: token.into(),
            ..deliveries[0].clone()
        }
    };
    let forged = [
        with(&|token| token.truncate(5)),
        with(&|token| token[15] ^= 1),
        with(&|token| token[11] = 200),
        with(&|token| token[0] = 9),
    ];
    let request = subscription.ack(&forged).await;
    let outcomes: Vec<_> = subscription
        .settled(request)
        .await
        .iter()
        .map(|outcome| outcome.outcome())
        .collect();
    assert_eq!(
        outcomes,
        [
            proto::Outcome::BadToken,
            proto::Outcome::FencedPartitionMoved,
            proto::Outcome::UnknownToken,
            proto::Outcome::FencedPartitionMoved
        ]
    );
    let request = subscription.ack(&deliveries).await;
    assert!(subscription.settled(request).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_confirm_none_only_failures_are_answered() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "none", 1, 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut asked = init(&fresh("g"), &[&topic], UNORDERED);
    asked.confirm = proto::Confirm::None.into();
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let deliveries = subscription.take(2).await;
    subscription.ack(&deliveries).await;
    let second = subscription.ack(&deliveries).await;
    loop {
        if let Message::Settled(settled) = subscription.next().await.unwrap() {
            assert_eq!((settled.request_id, settled.outcomes.len()), (second, 2));
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_group_share_a_consumer_and_divide_the_records() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "share", 4, 4000).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let seen = Arc::new(Mutex::new(HashMap::new()));
    let mut tasks = Vec::new();
    for worker in 0..3 {
        let mut asked = init(&group, &[&topic], PARTITION);
        asked.window = window(100);
        let mut subscription = Subscription::open(&sidecar, asked).await;
        let seen = Arc::clone(&seen);
        tasks.push(tokio::spawn(async move {
            let mut held: BTreeMap<i32, i64> = BTreeMap::new();
            loop {
                let deliveries = subscription
                    .deliveries_within(Duration::from_millis(50))
                    .await;
                for delivery in &deliveries {
                    let partition = delivery.record.as_ref().unwrap().partition.unwrap();
                    let last = held.insert(partition, delivery.offset);
                    assert!(
                        last.is_none_or(|last| last < delivery.offset),
                        "order in partition {partition}"
                    );
                    let before = seen
                        .lock()
                        .unwrap()
                        .insert((partition, delivery.offset), worker);
                    assert_eq!(before, None, "delivered twice");
                }
                if !deliveries.is_empty() {
                    subscription.ack(&deliveries).await;
                }
                if seen.lock().unwrap().len() == 4000 {
                    return subscription;
                }
            }
        }));
    }
    let mut streams = Vec::new();
    for task in tasks {
        streams.push(tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap());
    }
    assert_eq!(sidecar.metric("outrigger_subscriptions"), 1.0);
    let workers: HashSet<_> = seen.lock().unwrap().values().copied().collect();
    assert!(workers.len() > 1, "one stream got everything");
    wait_for_commits(kafka, &group, &topic, &[1000; 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_group_must_agree() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "agree", 1, 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let mut first = Subscription::open(&sidecar, init(&group, &[&topic], PARTITION)).await;
    first.take(1).await;
    let mut second = Subscription::open(&sidecar, init(&group, &[&topic], UNORDERED)).await;
    let status = second.next().await.unwrap_err();
    assert_eq!(reason(&status), "SUBSCRIPTION_CONFLICT");
    assert!(
        status.message().contains("ordering"),
        "{}",
        status.message()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_ended_stream_held_goes_to_the_next_one() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "vanish", 2, 20).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let mut first = Subscription::open(&sidecar, init(&group, &[&topic], UNORDERED)).await;
    let held = first.take(20).await;
    first.ack(&held[..5]).await;
    // The settle is in the ledger before the stream goes.
    first.settled(1).await;
    first.leave().await;
    let mut second = Subscription::open(&sidecar, init(&group, &[&topic], UNORDERED)).await;
    let again = second.take(15).await;
    let expected: HashSet<String> = held[5..].iter().map(text).collect();
    assert_eq!(again.iter().map(text).collect::<HashSet<_>>(), expected);
    assert!(
        again
            .iter()
            .all(|delivery| delivery.attempt == 1 && !delivery.suspect),
        "they were not tried"
    );
    let request = second.ack(&held[5..6]).await;
    assert_eq!(
        second.settled(request).await[0].outcome(),
        proto::Outcome::ExpiredRedelivered
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_stream_ends_cleanly_when_it_holds_nothing() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "drain", 1, 10).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut asked = init(&fresh("g"), &[&topic], UNORDERED);
    asked.window = window(5);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let held = subscription.take(5).await;
    subscription
        .send(subscribe_request::Message::Drain(proto::Drain {}))
        .await;
    subscription
        .send(subscribe_request::Message::Ping(proto::Ping { id: 7 }))
        .await;
    loop {
        match subscription.next().await.unwrap() {
            Message::Pong(pong) => break assert_eq!(pong.id, 7),
            Message::Deliveries(_) => panic!("delivered while draining"),
            _ => {}
        }
    }
    subscription.ack(&held).await;
    let mut answered = false;
    while let Some(message) = subscription.next_within(PATIENCE).await {
        match message.unwrap() {
            Message::Settled(_) => answered = true,
            Message::Deliveries(_) => panic!("delivered while draining"),
            _ => {}
        }
    }
    assert!(answered, "the last settle is answered before the end");
}

async fn at_the_end(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "latest", 2, 10).await;
    let group = fresh("g");
    let mut asked = init(&group, &[&topic], UNORDERED);
    asked.start = Some(proto::StartPosition {
        position: Some(proto::start_position::Position::Kind(
            proto::StartKind::Latest.into(),
        )),
    });
    let settings = protocol.mortal(kafka, &group);
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
    wait_for_commits(kafka, &group, &topic, &[5, 5]).await;
    drop(subscription);
    sidecar.kill();
    fill_topic(
        kafka.bootstrap(),
        &topic,
        2,
        (10..14).map(|number| number.to_string()),
    );
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    subscription = Subscription::open(&sidecar, asked).await;
    let mut values: Vec<_> = subscription.take(4).await.iter().map(text).collect();
    values.sort();
    assert_eq!(
        values,
        ["10", "11", "12", "13"],
        "what came while nobody was there is not skipped"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_starts_at_a_time_begins_with_the_first_record_from_then_on() {
    let kafka = Kafka::shared();
    // Partition 0 has records from then on, partition 1 has not.
    let topic = kafka.topic("since", 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut publisher = sidecar.publisher().await;
    let minute = Duration::from_secs(60);
    let then = SystemTime::now() - minute;
    for (partition, age, value) in [
        (0, 3, "old"),
        (0, 1, "first"),
        (0, 0, "second"),
        (1, 2, "old"),
    ] {
        let old = proto::Record {
            partition: Some(partition),
            timestamp: Some((then + minute - age * minute).into()),
            ..record(&topic, value)
        };
        publisher.publish(publish_request(vec![old])).await.unwrap();
    }
    let group = fresh("g");
    let mut asked = init(&group, &[&topic], UNORDERED);
    asked.start = Some(proto::StartPosition {
        position: Some(proto::start_position::Position::Time(then.into())),
    });
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let values: Vec<_> = subscription.take(2).await.iter().map(text).collect();
    assert_eq!(values, ["first", "second"]);
    wait_for_commits(kafka, &group, &topic, &[1, 1]).await;
    let from = humantime::format_rfc3339_millis(then).to_string();
    let arguments = ["subscribe", "--from", &from, "-n", "2", &topic];
    let printed = outrigger(&sidecar, &arguments, b"").stdout;
    assert_eq!(String::from_utf8_lossy(&printed), "first\nsecond\n");
}

async fn no_such_topic(protocol: Protocol) {
    let kafka = Kafka::shared();
    let (group, nowhere) = (fresh("g"), fresh("nowhere"));
    let sidecar = Sidecar::start(kafka.bootstrap(), &protocol.quick(kafka, &group));
    let mut subscription = Subscription::open(&sidecar, init(&group, &[&nowhere], UNORDERED)).await;
    let begun = Instant::now();
    let status = loop {
        if let Err(status) = subscription.next().await {
            break status;
        }
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::NotFound, "TOPIC_NOT_FOUND")
    );
    assert!(status.message().contains(&nowhere), "{}", status.message());
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
}

async fn kill_9(protocol: Protocol) {
    let kafka = Kafka::shared();
    const COUNT: usize = 20_000;
    let topic = numbered(kafka, "kill", 4, COUNT).await;
    let group = fresh("g");
    let mut settings = protocol.mortal(kafka, &group);
    settings.push(("consume.commit_interval", "100ms"));
    let mut acked = HashSet::new();
    let mut seen = HashSet::new();
    for round in 0..3 {
        let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
        let mut subscription =
            Subscription::open(&sidecar, init(&group, &[&topic], PARTITION)).await;
        let target = if round == 2 {
            COUNT
        } else {
            (round + 1) * COUNT / 3
        };
        while acked.len() < target {
            let deliveries = subscription.deliveries().await.unwrap();
            seen.extend(deliveries.iter().map(text));
            subscription.ack(&deliveries).await;
            acked.extend(deliveries.iter().map(text));
        }
        if round == 2 {
            wait_for_commits(kafka, &group, &topic, &[COUNT as i64 / 4; 4]).await;
        }
        sidecar.kill();
    }
    assert_eq!(seen.len(), COUNT, "skipped");
}

async fn gaps(protocol: Protocol) {
    const COUNT: usize = 3_000;
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "gaps", 3, COUNT).await;
    let group = fresh("g");
    let mut settings = protocol.mortal(kafka, &group);
    settings.push(("consume.commit_interval", "100ms"));
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut asked = init(&group, &[&topic], UNORDERED);
    asked.window = window(COUNT as u64 + 1);
    asked.confirm = proto::Confirm::Durable.into();
    let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
    let all = subscription.take(COUNT).await;
    // One of each partition is not acked: its first, one in the middle, its last.
    let place = |delivery: &proto::Delivery| {
        let record = delivery.record.as_ref().unwrap();
        (record.partition.unwrap(), delivery.offset)
    };
    let kept = [(0, 0), (1, 500), (2, 999)];
    let (open, mut done): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|delivery| kept.contains(&place(delivery)));
    done.reverse();
    let mut awaited = HashSet::new();
    for some in done.chunks(7) {
        awaited.insert(subscription.ack(some).await);
    }
    while !awaited.is_empty() {
        if let Message::Settled(settled) = subscription.next().await.unwrap() {
            assert!(settled.outcomes.is_empty(), "{settled:?}");
            assert!(awaited.remove(&settled.request_id), "answered twice");
        }
    }
    // They are durable by now: what comes after the answers is too late.
    sidecar.kill();
    assert_eq!(
        committed(kafka.bootstrap(), &group, &topic, 3),
        [0, 500, 999]
    );
    drop(subscription);

    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let again = subscription.take(3).await;
    let mut places: Vec<_> = again.iter().map(place).collect();
    places.sort_unstable();
    assert_eq!(places, kept);
    let more = subscription.deliveries_within(Duration::from_secs(2)).await;
    assert!(
        more.is_empty(),
        "{} are delivered that were acked",
        more.len()
    );
    assert_eq!(
        sidecar.metric("outrigger_subscribe_restored_records_total"),
        999.0 + 499.0
    );
    assert_eq!(open.len(), 3);
    subscription.ack(&again).await;
    wait_for_commits(kafka, &group, &topic, &[1_000; 3]).await;
    assert!(sidecar.stop().success());
}

async fn durable(protocol: Protocol) {
    let kafka = Kafka::start(1, &[]);
    let topic = numbered(&kafka, "durable", 2, 100).await;
    let group = fresh("g");
    let interval = Duration::from_secs(10);
    let mut settings = protocol.quick(&kafka, &group);
    settings.push(("consume.commit_interval", "10s"));
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut asked = init(&group, &[&topic], UNORDERED);
    asked.window = window(100);
    asked.confirm = proto::Confirm::Durable.into();
    let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
    let all = subscription.take(100).await;
    // With a broker it takes a round trip, not a commit interval.
    let mut quickest = Duration::MAX;
    for some in all[..30].chunks(10) {
        let begun = Instant::now();
        let request = subscription.ack(some).await;
        assert!(subscription.settled(request).await.is_empty());
        quickest = quickest.min(begun.elapsed());
    }
    assert!(quickest < interval / 2, "{quickest:?}");
    // A token that is stale by now fails alone, in the same answer.
    let request = subscription.ack(&all[29..31]).await;
    let outcomes = subscription.settled(request).await;
    let stale = proto::ItemOutcome {
        index: 0,
        outcome: proto::Outcome::AlreadySettled.into(),
    };
    assert_eq!(outcomes, [stale]);
    kafka.tell("kill 1");
    let request = subscription.ack(&all[31..]).await;
    let begun = Instant::now();
    while let Some(left) = Duration::from_secs(3).checked_sub(begun.elapsed()) {
        if let Some(message) = subscription.next_within(left).await {
            assert!(
                !matches!(message, Ok(Message::Settled(_))),
                "nobody has taken it"
            );
        }
    }
    // What has failed waits for the interval: it is not sent again and again because somebody awaits it.
    let failed = sidecar.metric("outrigger_subscribe_commits_total{result=\"error\"}");
    assert!(failed < 10.0, "{failed} commits failed");
    kafka.tell("start 1");
    assert!(subscription.settled(request).await.is_empty());
    let ends: i64 = committed(kafka.bootstrap(), &group, &topic, 2).iter().sum();
    assert_eq!(ends, 100);
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_awaits_very_many_answers_gets_no_more_records_and_is_not_cut() {
    const HELD: usize = 5_000;
    let kafka = Kafka::start(1, &[]);
    let topic = numbered(&kafka, "awaited", 1, HELD + 500).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.stall_after", "1s")]);
    let group = fresh("g");
    let mut asked = init(&group, &[&topic], UNORDERED);
    asked.window = window(HELD as u64);
    asked.confirm = proto::Confirm::Durable.into();
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let all = subscription.take(HELD).await;
    assert_eq!(all.len(), HELD);
    let allow = |records| subscribe_request::Message::Window(window(records).unwrap());
    subscription.send(allow(0)).await;
    kafka.tell("pause 1");
    // A request for each: more than the session keeps answers for, and none of them can be given now.
    let mut last = 0;
    for one in all.chunks(1) {
        last = subscription.ack(one).await;
    }
    let acked = "outrigger_subscribe_settled_records_total{action=\"ack\"}";
    sidecar.wait_for_metric(acked, HELD as f64).await;
    subscription.send(allow(HELD as u64)).await;
    let early = subscription.deliveries_within(Duration::from_secs(1)).await;
    assert!(early.is_empty(), "{} came", early.len());
    let stalled =
        format!("outrigger_subscribe_stalled_partitions{{group=\"{group}\",cause=\"unanswered\"}}");
    sidecar.wait_for_metric(&stalled, 1.0).await;
    kafka.tell("resume 1");
    let mut rest = 0;
    while rest < 500 || subscription.answered < last {
        if let Message::Deliveries(deliveries) = subscription.next().await.expect("it lives") {
            rest += deliveries.deliveries.len();
        }
    }
    assert_eq!(rest, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_is_told_up_to_where_its_settles_are_durable() {
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "cumulative", 2, 100).await;
    let group = fresh("g");
    let sidecar = Sidecar::start(kafka.bootstrap(), &MORTAL);
    let mut asked = init(&group, &[&topic], UNORDERED);
    asked.window = window(100);
    asked.confirm = proto::Confirm::None.into();
    let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
    let all = subscription.take(100).await;
    let mut last = 0;
    for some in all[1..].chunks(5) {
        last = subscription.ack(some).await;
    }
    let begun = Instant::now();
    let mut through = 0;
    while through < last {
        assert!(begun.elapsed() < PATIENCE, "{through} of {last}");
        if let Message::Progress(progress) = subscription.next().await.unwrap()
            && !progress.partitions.is_empty()
        {
            assert!(progress.durable_through_request_id >= through);
            through = progress.durable_through_request_id;
        }
    }
    assert_eq!(through, last);
    sidecar.kill();
    drop(subscription);
    let sidecar = Sidecar::start(kafka.bootstrap(), &MORTAL);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let again = subscription.take(1).await;
    assert_eq!(again.len(), 1);
    assert_eq!(text(&again[0]), text(&all[0]));
    drop(subscription);
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_others_are_ignored_and_what_does_not_fit_comes_again() {
    const COUNT: usize = 1_000;
    let kafka = Kafka::shared();
    let topic = numbered(kafka, "foreign", 1, COUNT).await;
    let group = fresh("g");
    commit_as_another(kafka.bootstrap(), &group, &topic, 100, "NO_METADATA");
    let settings = [
        ("consume.commit_interval", "100ms"),
        ("consume.commit_metadata", "60"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut asked = init(&group, &[&topic], UNORDERED);
    asked.window = window(COUNT as u64);
    let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
    let all = subscription.take(COUNT - 100).await;
    assert_eq!(all[0].offset, 100, "the offset counts all the same");
    let ignored = "outrigger_subscribe_maps_ignored_total{reason=\"foreign\"}";
    assert_eq!(sidecar.metric(ignored), 1.0);
    // Every second one: more ranges than 60 characters can hold.
    let odd: Vec<_> = all.into_iter().filter(|one| one.offset % 2 == 1).collect();
    subscription.ack(&odd).await;
    let begun = Instant::now();
    while sidecar.metric("outrigger_subscribe_map_ranges_dropped_total") <= 400.0 {
        assert!(begun.elapsed() < PATIENCE, "every range fits");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(subscription);
    assert!(sidecar.stop().success());

    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let first = subscription.take(450).await;
    let restored = sidecar.metric("outrigger_subscribe_restored_records_total");
    // 57 characters of base64 are 42 bytes: 4 of the checksum, 1 of the offset and 2 a range.
    assert_eq!(restored, 18.0);
    assert!(
        first
            .iter()
            .all(|one| one.offset % 2 == 0 || one.offset > 100 + 2 * 18)
    );
    drop(subscription);
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_take_less_beside_an_offset_get_less_and_commits_go_on() {
    let kafka = Kafka::start(1, &["offset.metadata.max.bytes=100"]);
    let topic = numbered(&kafka, "short", 1, 1_000).await;
    let group = fresh("g");
    let settings = [("consume.commit_interval", "100ms")];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut asked = init(&group, &[&topic], UNORDERED);
    asked.window = window(1_000);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let all = subscription.take(1_000).await;
    // Its first 100, and of the rest every second one: some 1,200 characters.
    let some = |one: &&proto::Delivery| one.offset < 100 || one.offset % 2 == 1;
    let some: Vec<_> = all.iter().filter(some).cloned().collect();
    subscription.ack(&some).await;
    wait_for_commits(&kafka, &group, &topic, &[100]).await;
    let warned = sidecar.wait_for_log(|line| line["characters"].is_number());
    assert!(
        warned["message"]
            .as_str()
            .unwrap()
            .contains("offset.metadata.max.bytes")
    );
    drop(subscription);
    assert!(sidecar.stop().success());
}

/// What two members see of a topic while one of them comes and goes.
struct Witness {
    /// Per record: acked by somebody.
    acked: Mutex<HashSet<String>>,
    /// Who holds a record unsettled now.
    held: Mutex<HashMap<String, usize>>,
    /// Deliveries of a record that another member held unsettled, at a hand-over.
    overlaps: Mutex<usize>,
    /// Deliveries of a record that was acked before.
    repeated: Mutex<usize>,
    /// Acks that came too late for a partition that was handed over, though well within its drain time.
    fenced: Mutex<usize>,
    stop: AtomicBool,
}

/// How often a sidecar was assigned partitions, as its log says.
fn taken(sidecar: &Sidecar) -> usize {
    let assigned = |line: &serde_json::Value| {
        line["message"] == "partitions assigned" && line["partitions"] != 0
    };
    sidecar.log().iter().filter(|line| assigned(line)).count()
}

/// Subscribes and acks until told to stop.
async fn member(
    witness: &Witness,
    who: usize,
    sidecar: &Sidecar,
    group: &str,
    topic: &str,
    stop: &AtomicBool,
) {
    let mut asked = init(group, &[topic], UNORDERED);
    asked.window = window(200);
    let mut subscription = Subscription::open(sidecar, asked).await;
    while !stop.load(Ordering::Relaxed) && !witness.stop.load(Ordering::Relaxed) {
        let deliveries = subscription
            .deliveries_within(Duration::from_millis(20))
            .await;
        if deliveries.is_empty() {
            continue;
        }
        for delivery in &deliveries {
            let value = text(delivery);
            if witness.acked.lock().unwrap().contains(&value) {
                *witness.repeated.lock().unwrap() += 1;
            }
            if witness
                .held
                .lock()
                .unwrap()
                .insert(value, who)
                .is_some_and(|other| other != who)
            {
                *witness.overlaps.lock().unwrap() += 1;
            }
        }
        // Long enough that a revoke finds records held.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let request = subscription.ack(&deliveries).await;
        let mut refused = HashSet::new();
        loop {
            match subscription.next().await.unwrap() {
                Message::Settled(settled) if settled.request_id == request => {
                    refused.extend(settled.outcomes.iter().map(|outcome| outcome.index));
                    break;
                }
                Message::Deliveries(more) => {
                    for delivery in &more.deliveries {
                        witness.held.lock().unwrap().insert(text(delivery), who);
                    }
                    // No longer held from here on: by the time that this is known here the other may have it.
                    for delivery in &more.deliveries {
                        witness.held.lock().unwrap().remove(&text(delivery));
                    }
                    let release = Action::Release(proto::Release {});
                    subscription.settle(&more.deliveries, release).await;
                }
                _ => {}
            }
        }
        *witness.fenced.lock().unwrap() += refused.len();
        for (index, delivery) in deliveries.iter().enumerate() {
            let value = text(delivery);
            witness.held.lock().unwrap().remove(&value);
            if !refused.contains(&(index as u32)) {
                witness.acked.lock().unwrap().insert(value);
            }
        }
    }
}

async fn churn(protocol: Protocol) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("churn", 6).await;
    let group = fresh("g");
    // Nobody dies here: with the default session an ack is late only when the machine stands still for 10 s.
    let settings = protocol.quick(kafka, &group);
    let steady = Sidecar::start(kafka.bootstrap(), &settings);
    let witness = Arc::new(Witness {
        acked: Mutex::default(),
        held: Mutex::default(),
        overlaps: Mutex::default(),
        repeated: Mutex::default(),
        fenced: Mutex::default(),
        stop: AtomicBool::new(false),
    });
    let (bootstrap, load_topic) = (kafka.bootstrap().to_owned(), topic.clone());
    let stop_load = Arc::new(AtomicBool::new(false));
    let load = tokio::task::spawn_blocking({
        let stop = Arc::clone(&stop_load);
        move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                fill_topic(
                    &bootstrap,
                    &load_topic,
                    6,
                    (sent..sent + 300).map(|number| number.to_string()),
                );
                sent += 300;
                std::thread::sleep(Duration::from_millis(30));
            }
            sent
        }
    });
    let never = AtomicBool::new(false);
    let mut joined = 0;
    let churn = async {
        let begun = Instant::now();
        while taken(&steady) == 0 {
            assert!(
                begun.elapsed() < PATIENCE,
                "the steady one gets no partition"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for _ in 0..10 {
            let guest = Sidecar::start(kafka.bootstrap(), &settings);
            let leave = AtomicBool::new(false);
            tokio::join!(member(&witness, 2, &guest, &group, &topic, &leave), async {
                let begun = Instant::now();
                while guest.metric("outrigger_subscribe_delivered_records_total") == 0.0 {
                    assert!(begun.elapsed() < PATIENCE, "the guest gets no partition");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                joined += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
                leave.store(true, Ordering::Relaxed);
            });
            let before = taken(&steady);
            assert!(guest.stop().success(), "the guest leaves in order");
            let begun = Instant::now();
            // Until the steady one has them back, the next guest would only take the last one's.
            while taken(&steady) == before {
                assert!(
                    begun.elapsed() < PATIENCE,
                    "the partitions do not come back"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        stop_load.store(true, Ordering::Relaxed);
        let sent: usize = load.await.unwrap();
        let begun = Instant::now();
        while witness.acked.lock().unwrap().len() < sent {
            assert!(
                begun.elapsed() < PATIENCE,
                "{} of {sent} records are acked",
                witness.acked.lock().unwrap().len()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        witness.stop.store(true, Ordering::Relaxed);
        sent
    };
    let ((), sent) = tokio::join!(member(&witness, 1, &steady, &group, &topic, &never), churn);
    assert_eq!(joined, 10);
    assert!(
        steady.metric(r#"outrigger_subscribe_rebalances_total{kind="revoked"}"#) >= 10.0,
        "partitions were handed over"
    );
    assert_eq!(witness.acked.lock().unwrap().len(), sent);
    // Partitions are drained before they are handed over, so nothing that was acked comes again, nothing is held twice, and no ack is late.
    let count = |of: &Mutex<usize>| *of.lock().unwrap();
    assert_eq!(
        (
            count(&witness.repeated),
            count(&witness.overlaps),
            count(&witness.fenced)
        ),
        (0, 0, 0)
    );
}
