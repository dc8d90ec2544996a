//! A subscription without a stream: records by long polls, settlements by tokens from any connection.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use outrigger::grpc::proto::{
    self, PartitionEventKind, seek_request::Target, settle_item::Action,
    subscribe_response::Message,
};
use rdkafka::{
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tonic::{Request, Status};

use crate::{
    client::{Subscription, committed, fill_topic, init, reason, text, window},
    kafka::{Kafka, fresh},
    sidecar::Sidecar,
};

const KEY: proto::Ordering = proto::Ordering::Key;
const PARTITION: proto::Ordering = proto::Ordering::Partition;
const UNORDERED: proto::Ordering = proto::Ordering::Unordered;

fn span(millis: u64) -> Option<prost_types::Duration> {
    Some(Duration::from_millis(millis).try_into().unwrap())
}

fn fill(kafka: &Kafka, topic: &str, partitions: i32, numbers: std::ops::Range<usize>) {
    let values = numbers.map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), topic, partitions, values);
}

/// One pull, on a connection of its own as from a shell.
async fn pull(
    sidecar: &Sidecar,
    init: &proto::Init,
    max_records: u32,
    wait: u64,
) -> Result<Vec<proto::Delivery>, Status> {
    let request = proto::PullRequest {
        init: Some(init.clone()),
        max_records,
        wait: span(wait),
    };
    let answer = sidecar.subscriber().await.pull(request).await?;
    let deliveries = answer.into_inner().deliveries.expect("deliveries");
    assert_eq!(
        deliveries.lease_expiry.is_some(),
        !deliveries.deliveries.is_empty()
    );
    Ok(deliveries.deliveries)
}

async fn acknowledge(
    sidecar: &Sidecar,
    group: &str,
    items: Vec<(bytes::Bytes, Action)>,
) -> Result<Vec<proto::Outcome>, Status> {
    let items = items
        .into_iter()
        .map(|(token, action)| proto::SettleItem {
            token,
            action: Some(action),
        })
        .collect();
    let request = proto::AcknowledgeRequest {
        group: group.to_owned(),
        items,
    };
    let answer = sidecar.subscriber().await.acknowledge(request).await?;
    let outcomes = answer.into_inner().outcomes;
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.index as usize, index);
    }
    Ok(outcomes.iter().map(proto::ItemOutcome::outcome).collect())
}

fn acks(deliveries: &[proto::Delivery]) -> Vec<(bytes::Bytes, Action)> {
    deliveries
        .iter()
        .map(|delivery| (delivery.token.clone(), Action::Ack(proto::Ack {})))
        .collect()
}

async fn ack(sidecar: &Sidecar, group: &str, deliveries: &[proto::Delivery]) {
    let outcomes = acknowledge(sidecar, group, acks(deliveries)).await.unwrap();
    assert_eq!(outcomes, vec![proto::Outcome::Recorded; deliveries.len()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_and_a_stream_share_a_group_and_everything_is_done_once() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("shared", 2).await;
    let (count, group) = (300, fresh("g"));
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let asked = init(&group, &[&topic], UNORDERED);
    let mut stream = Subscription::open(
        &sidecar,
        proto::Init {
            window: window(10),
            ..asked.clone()
        },
    )
    .await;
    fill(kafka, &topic, 2, 0..count);
    let (mut done, mut by_stream, mut by_pulls) = (Vec::new(), 0, 0);
    while done.len() < count {
        let streamed = stream.deliveries_within(Duration::from_millis(50)).await;
        by_stream += streamed.len();
        done.extend(streamed.iter().map(text));
        if !streamed.is_empty() {
            stream.ack(&streamed).await;
        }
        for _ in 0..2 {
            let pulled = pull(&sidecar, &asked, 20, 300).await.unwrap();
            assert!(pulled.len() <= 20, "{}", pulled.len());
            by_pulls += pulled.len();
            done.extend(pulled.iter().map(text));
            if !pulled.is_empty() {
                ack(&sidecar, &group, &pulled).await;
            }
        }
    }
    let different: BTreeSet<&String> = done.iter().collect();
    assert_eq!((done.len(), different.len()), (count, count));
    assert!(by_stream > 0 && by_pulls > 0, "{by_stream} and {by_pulls}");
    stream.leave().await;
    sidecar
        .wait_until("commit", || {
            committed(kafka.bootstrap(), &group, &topic, 2) == [150, 150]
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pull_never_acknowledges_comes_again_after_its_lease_as_the_next_attempt() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("unacknowledged", 1).await;
    fill(kafka, &topic, 1, 0..2);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.idle_leave", "1s")]);
    let group = fresh("g");
    let asked = proto::Init {
        lease: span(5000),
        retry: Some(proto::RetryPolicy {
            min_delay: span(10),
            ..Default::default()
        }),
        ..init(&group, &[&topic], UNORDERED)
    };
    let begun = Instant::now();
    let first = pull(&sidecar, &asked, 1, 20_000).await.unwrap();
    assert_eq!((first[0].offset, first[0].attempt), (0, 1));
    let second = pull(&sidecar, &asked, 1, 1000).await.unwrap();
    assert_eq!((second[0].offset, second[0].attempt), (1, 1));
    // Nobody is attached for longer than an idle subscription lives: what is held keeps it.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    ack(&sidecar, &group, &second).await;
    let again = pull(&sidecar, &asked, 10, 20_000).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(5), "{again:?}");
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].offset, again[0].attempt), (0, 2));
    let late = acknowledge(&sidecar, &group, acks(&[first, second].concat()))
        .await
        .unwrap();
    let expected = [
        proto::Outcome::ExpiredRedelivered,
        proto::Outcome::AlreadySettled,
    ];
    assert_eq!(late, expected);
    ack(&sidecar, &group, &again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pulls_of_a_group_together_hold_one_window_at_most() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("together", 1).await;
    fill(kafka, &topic, 1, 0..10);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let asked = proto::Init {
        window: window(3),
        ..init(&group, &[&topic], UNORDERED)
    };
    let first = pull(&sidecar, &asked, 2, 20_000).await.unwrap();
    assert_eq!(first.len(), 2);
    let second = pull(&sidecar, &asked, 2, 5000).await.unwrap();
    assert_eq!(second.len(), 1, "what the window has left");
    let begun = Instant::now();
    assert_eq!(pull(&sidecar, &asked, 2, 500).await.unwrap().len(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(500));
    // One that waits gets the room that an acknowledgement makes.
    let (third, ()) = tokio::join!(pull(&sidecar, &asked, 5, 10_000), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        ack(&sidecar, &group, &first).await;
    });
    let third = third.unwrap();
    assert_eq!(third.len(), 2);
    // Bytes count too, and a record larger than the window comes alone.
    let small = proto::Init {
        window: Some(proto::Window {
            max_records: None,
            max_bytes: Some(1),
        }),
        ..init(&group, &[&topic], UNORDERED)
    };
    assert_eq!(pull(&sidecar, &small, 5, 300).await.unwrap().len(), 0);
    ack(&sidecar, &group, &[second, third].concat()).await;
    assert_eq!(pull(&sidecar, &small, 5, 5000).await.unwrap().len(), 1);
    assert_eq!(pull(&sidecar, &small, 5, 300).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_ends_with_its_wait_its_deadline_or_its_caller_and_loses_nothing() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("waits", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let asked = init(&group, &[&topic], PARTITION);
    let begun = Instant::now();
    assert!(pull(&sidecar, &asked, 0, 700).await.unwrap().is_empty());
    let after = begun.elapsed();
    assert!(after >= Duration::from_millis(700) && after < Duration::from_secs(5));
    // The deadline of the call, and no wait.
    let mut request = Request::new(proto::PullRequest {
        init: Some(asked.clone()),
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(2));
    let begun = Instant::now();
    let answer = sidecar.subscriber().await.pull(request).await;
    let answer = answer.expect("an answer before the deadline").into_inner();
    assert_eq!(answer.deliveries, Some(proto::Deliveries::default()));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // A caller that is gone takes nothing along.
    let gone = tokio::time::timeout(
        Duration::from_millis(300),
        pull(&sidecar, &asked, 0, 20_000),
    );
    assert!(gone.await.is_err());
    fill(kafka, &topic, 1, 0..3);
    let pulled = pull(&sidecar, &asked, 0, 20_000).await.unwrap();
    assert_eq!((pulled[0].offset, pulled[0].attempt), (0, 1));
    assert!(!pulled[0].suspect);
    ack(&sidecar, &group, &pulled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_sidecar_answers_waiting_pulls_takes_acknowledgements_and_no_new_pulls() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("drained", 1).await;
    fill(kafka, &topic, 1, 0..1);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let asked = init(&group, &[&topic], KEY);
    let held = pull(&sidecar, &asked, 1, 20_000).await.unwrap();
    let mut admin = sidecar.admin().await;
    let begun = Instant::now();
    let (waiting, drained, ()) = tokio::join!(
        pull(&sidecar, &asked, 1, 20_000),
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let deadline = span(15_000);
            admin.drain(proto::DrainRequest { deadline }).await
        },
        async {
            tokio::time::sleep(Duration::from_millis(800)).await;
            let status = pull(&sidecar, &asked, 1, 1000).await.unwrap_err();
            assert_eq!(reason(&status), "DRAINING");
            ack(&sidecar, &group, &held).await;
        }
    );
    assert!(waiting.unwrap().is_empty());
    assert!(drained.unwrap().into_inner().complete);
    assert!(begun.elapsed() < Duration::from_secs(12), "{begun:?}");
}

pub async fn look(
    sidecar: &Sidecar,
    group: &str,
) -> Result<proto::GetSubscriptionResponse, Status> {
    let request = proto::GetSubscriptionRequest {
        group: group.to_owned(),
    };
    let answer = sidecar.subscriber().await.get_subscription(request).await?;
    Ok(answer.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_group_shows_what_is_known_of_it_and_the_command_prints_it() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("looked-at", 1).await;
    fill(kafka, &topic, 1, 0..6);
    let sidecar = Sidecar::start(
        kafka.bootstrap(),
        &[("metrics.statistics_interval", "200ms")],
    );
    let group = fresh("g");
    let status = look(&sidecar, &group).await.unwrap_err();
    assert_eq!(reason(&status), "SUBSCRIPTION_NOT_FOUND");
    let asked = proto::Init {
        retry: Some(proto::RetryPolicy {
            max_attempts: 2,
            ..Default::default()
        }),
        ..init(&group, &[&topic], UNORDERED)
    };
    let nack = |token: &bytes::Bytes, delay| {
        let nack = proto::Nack {
            delay: span(delay),
            reason: "no luck".to_owned(),
        };
        vec![(token.clone(), Action::Nack(nack))]
    };
    // 0 settled, 1 blocked, 2 parked, 3 in flight, 4 and 5 not delivered.
    let held = pull(&sidecar, &asked, 4, 20_000).await.unwrap();
    assert_eq!(held.len(), 4);
    ack(&sidecar, &group, &held[..1]).await;
    let outcomes = acknowledge(&sidecar, &group, nack(&held[1].token, 1)).await;
    assert_eq!(outcomes.unwrap(), [proto::Outcome::Recorded]);
    let again = loop {
        let pulled = pull(&sidecar, &asked, 1, 5000).await.unwrap();
        if pulled[0].offset == 1 {
            break pulled;
        }
        let release = Action::Release(proto::Release {});
        let items = vec![(pulled[0].token.clone(), release)];
        acknowledge(&sidecar, &group, items).await.unwrap();
    };
    for (token, delay) in [(&again[0].token, 1), (&held[2].token, 600_000)] {
        let outcomes = acknowledge(&sidecar, &group, nack(token, delay)).await;
        assert_eq!(outcomes.unwrap(), [proto::Outcome::Recorded]);
    }
    let begun = Instant::now();
    let partition = loop {
        let found = look(&sidecar, &group).await.unwrap();
        assert_eq!((found.streams, found.partitions.len()), (0, 1));
        let partition = found.partitions[0].clone();
        if partition.committed_offset == 1 && partition.lag == Some(5) {
            break partition;
        }
        assert!(begun.elapsed() < crate::sidecar::PATIENCE, "{partition:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((&partition.topic, partition.partition), (&topic, 0));
    assert_eq!((partition.in_flight, partition.parked), (1, 1));
    assert!(partition.oldest_unsettled.is_some() && partition.position >= 4);
    let [blocked] = &partition.blocked[..] else {
        panic!("{partition:?}");
    };
    assert_eq!((blocked.offset, blocked.attempts), (1, 2));
    assert_eq!((blocked.waiting, blocked.token.len()), (0, 24));
    assert!(blocked.reason.contains("no luck"), "{}", blocked.reason);
    // The same for people and for programs.
    let run = |arguments: Vec<String>| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .arg("subscriptions")
            .args(arguments)
            .env("OUTRIGGER_ADDRESS", sidecar.grpc.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = run(Vec::new());
    let heading = "1 partitions, lag 5, 1 in flight, 1 parked, 1 blocked";
    for part in [
        &*group,
        heading,
        &format!("{topic}[0]@1 after 2 attempts"),
        "no luck",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&run(vec![group.clone(), "-ojson".to_owned()])).unwrap();
    let first = &json[0]["partitions"][0];
    assert_eq!(
        (&json[0]["group"], &first["lag"]),
        (&group.as_str().into(), &5.into())
    );
    assert_eq!(first["blocked"][0]["offset"], 1);
    // The token that is listed decides.
    let token = blocked.token.clone();
    let outcomes = acknowledge(&sidecar, &group, vec![(token, Action::Ack(proto::Ack {}))]).await;
    assert_eq!(outcomes.unwrap(), [proto::Outcome::Recorded]);
    let partition = look(&sidecar, &group).await.unwrap().partitions.remove(0);
    assert!(partition.blocked.is_empty(), "{partition:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_record_is_skipped_by_an_ack_and_tried_again_by_a_nack() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("stuck", 1).await;
    fill(kafka, &topic, 1, 0..2);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let asked = proto::Init {
        retry: Some(proto::RetryPolicy {
            max_attempts: 1,
            ..Default::default()
        }),
        ..init(&group, &[&topic], PARTITION)
    };
    let nack = || {
        Action::Nack(proto::Nack {
            delay: None,
            reason: "no luck".to_owned(),
        })
    };
    let first = pull(&sidecar, &asked, 1, 20_000).await.unwrap();
    let token = first[0].token.clone();
    let outcomes = acknowledge(&sidecar, &group, vec![(token.clone(), nack())]).await;
    assert_eq!(outcomes.unwrap(), [proto::Outcome::Recorded]);
    assert!(pull(&sidecar, &asked, 1, 500).await.unwrap().is_empty());
    // Again, in vain.
    let outcomes = acknowledge(&sidecar, &group, vec![(token, nack())]).await;
    assert_eq!(outcomes.unwrap(), [proto::Outcome::Recorded]);
    let again = pull(&sidecar, &asked, 1, 5000).await.unwrap();
    assert_eq!((again[0].offset, again[0].attempt), (0, 2));
    let token = again[0].token.clone();
    let outcomes = acknowledge(&sidecar, &group, vec![(token.clone(), nack())]).await;
    assert_eq!(outcomes.unwrap(), [proto::Outcome::Recorded]);
    assert!(pull(&sidecar, &asked, 1, 500).await.unwrap().is_empty());
    ack(&sidecar, &group, &again).await;
    let next = pull(&sidecar, &asked, 1, 5000).await.unwrap();
    assert_eq!((next[0].offset, next[0].attempt), (1, 1));
    ack(&sidecar, &group, &next).await;
    sidecar
        .wait_until("commit", || {
            committed(kafka.bootstrap(), &group, &topic, 1) == [2]
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pulled_or_acknowledged_is_refused_by_name() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("refused", 1).await;
    fill(kafka, &topic, 1, 0..1);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut client = sidecar.subscriber().await;
    let status = client.pull(proto::PullRequest::default()).await;
    let status = status.unwrap_err();
    assert_eq!(reason(&status), "INVALID_REQUEST");
    assert!(status.message().contains("init"), "{}", status.message());
    let group = fresh("g");
    let asked = init(&group, &[&topic], KEY);
    let negative = proto::PullRequest {
        init: Some(asked.clone()),
        max_records: 1,
        wait: Some(prost_types::Duration {
            seconds: -1,
            nanos: 0,
        }),
    };
    let status = client.pull(negative).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_REQUEST");
    let token = bytes::Bytes::from_static(b"not a token");
    let item = || vec![(token.clone(), Action::Ack(proto::Ack {}))];
    let status = acknowledge(&sidecar, &group, item()).await.unwrap_err();
    assert_eq!(reason(&status), "SUBSCRIPTION_NOT_FOUND");
    let status = acknowledge(&sidecar, "", item()).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_REQUEST");
    let pulled = pull(&sidecar, &asked, 1, 20_000).await.unwrap();
    let other = init(&group, &[&topic], UNORDERED);
    let status = pull(&sidecar, &other, 1, 1000).await.unwrap_err();
    assert_eq!(reason(&status), "SUBSCRIPTION_CONFLICT");
    let status = acknowledge(&sidecar, &group, Vec::new()).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_REQUEST");
    let dead = Action::DeadLetter(proto::DeadLetter::default());
    let items = vec![(pulled[0].token.clone(), dead)];
    let status = acknowledge(&sidecar, &group, items).await.unwrap_err();
    assert_eq!(reason(&status), "FEATURE_NOT_AVAILABLE");
    let mut items = item();
    items.extend(acks(&pulled));
    items.extend(acks(&pulled));
    let expected = [
        proto::Outcome::BadToken,
        proto::Outcome::Recorded,
        proto::Outcome::AlreadySettled,
    ];
    let outcomes = acknowledge(&sidecar, &group, items).await.unwrap();
    assert_eq!(outcomes, expected);
}

pub async fn seek(
    sidecar: &Sidecar,
    group: &str,
    target: Target,
) -> Result<proto::SeekResponse, Status> {
    let request = || proto::SeekRequest {
        group: group.to_owned(),
        target: Some(target.clone()),
    };
    let begun = Instant::now();
    loop {
        match sidecar.subscriber().await.seek(request()).await {
            Err(status)
                if reason(&status) == "KAFKA_UNAVAILABLE"
                    && begun.elapsed() < crate::sidecar::PATIENCE => {}
            answer => return answer.map(tonic::Response::into_inner),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn offsets(topic: &str, offsets: &[(i32, i64)]) -> Target {
    let offsets = offsets
        .iter()
        .map(|&(partition, offset)| proto::TopicPartitionOffset {
            topic: topic.to_owned(),
            partition,
            offset,
        });
    Target::Offsets(proto::SeekOffsets {
        offsets: offsets.collect(),
    })
}

fn places(found: &[proto::TopicPartitionOffset]) -> Vec<(i32, i64)> {
    found.iter().map(|at| (at.partition, at.offset)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_goes_to_each_kind_of_target_and_old_tokens_settle_nothing() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("sought", 1).await;
    fill(kafka, &topic, 1, 0..5);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = std::time::SystemTime::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    fill(kafka, &topic, 1, 5..10);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let asked = init(&group, &[&topic], UNORDERED);
    let end = Target::Kind(proto::StartKind::Latest.into());
    let status = seek(&sidecar, &group, end.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "SUBSCRIPTION_NOT_FOUND");
    let mut stream = Subscription::open(&sidecar, asked.clone()).await;
    let old = stream.take(10).await;
    stream.ack(&old[..3]).await;
    sidecar
        .wait_until("commit", || {
            committed(kafka.bootstrap(), &group, &topic, 1) == [3]
        })
        .await;
    // Outside of the log: nothing moves.
    for (target, expected) in [
        (offsets(&topic, &[(0, 11)]), "OFFSET_OUT_OF_RANGE"),
        (offsets(&topic, &[(7, 0)]), "PARTITION_NOT_FOUND"),
        (offsets("another", &[(0, 0)]), "INVALID_REQUEST"),
        (offsets(&topic, &[(0, 1), (0, 2)]), "INVALID_REQUEST"),
    ] {
        let status = seek(&sidecar, &group, target).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{status:?}");
    }
    let request = stream.ack(&old[3..4]).await;
    assert!(stream.settled(request).await.is_empty());
    let beginning = Target::Kind(proto::StartKind::Earliest.into());
    let time = Target::Time(between.into());
    let (mut before, targets) = (
        old[4..].to_vec(),
        [
            (beginning, 0),
            (time, 5),
            (offsets(&topic, &[(0, 7)]), 7),
            (end, 10),
            (offsets(&topic, &[(0, 2)]), 2),
        ],
    );
    for (target, position) in targets {
        let found = seek(&sidecar, &group, target).await.unwrap();
        assert_eq!(places(&found.positions), [(0, position)]);
        assert!(found.elsewhere.is_empty());
        let kept = committed(kafka.bootstrap(), &group, &topic, 1);
        assert_eq!(kept, [position], "committed when it is answered");
        let outcomes = acknowledge(&sidecar, &group, acks(&before)).await.unwrap();
        assert_eq!(outcomes, vec![proto::Outcome::FencedBySeek; before.len()]);
        if position == 10 {
            fill(kafka, &topic, 1, 10..11);
            before = stream.take(1).await;
            assert_eq!(before[0].offset, 10);
            continue;
        }
        let last = if position == 2 { 11 } else { 10 };
        before = stream.take((last - position) as usize).await;
        let seen: Vec<i64> = before.iter().map(|delivery| delivery.offset).collect();
        assert_eq!(seen, Vec::from_iter(position..last));
    }
    stream.ack(&before).await;
    sidecar
        .wait_until("commit", || {
            committed(kafka.bootstrap(), &group, &topic, 1) == [11]
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_under_load_moves_what_is_owned_and_names_the_rest() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("halves", 4).await;
    let (count, group) = (4000, fresh("g"));
    fill(kafka, &topic, 4, 0..count);
    let sidecars = [
        Sidecar::start(kafka.bootstrap(), &[]),
        Sidecar::start(kafka.bootstrap(), &[]),
    ];
    let asked = init(&group, &[&topic], UNORDERED);
    let mut streams = Vec::new();
    for sidecar in &sidecars {
        streams.push(Subscription::open(sidecar, asked.clone()).await);
    }
    let begun = Instant::now();
    let owned = loop {
        for stream in &mut streams {
            let some = stream.deliveries_within(Duration::from_millis(50)).await;
            if !some.is_empty() {
                stream.ack(&some).await;
            }
        }
        let found = look(&sidecars[0], &group).await.unwrap().partitions;
        let other = look(&sidecars[1], &group).await.unwrap().partitions;
        if (found.len(), other.len()) == (2, 2) {
            break Vec::from_iter(found.iter().map(|partition| partition.partition));
        }
        assert!(begun.elapsed() < crate::sidecar::PATIENCE);
    };
    let beginning = Target::Kind(proto::StartKind::Earliest.into());
    let found = seek(&sidecars[0], &group, beginning).await.unwrap();
    let expected: Vec<(i32, i64)> = owned.iter().map(|&partition| (partition, 0)).collect();
    assert_eq!(places(&found.positions), expected);
    let others = (0..4).filter(|partition| !owned.contains(partition));
    let others: Vec<(i32, i64)> = others.map(|partition| (partition, -1)).collect();
    assert_eq!(places(&found.elsewhere), others);
    // Everything that is owned comes again, and nothing is skipped.
    let mut seen = BTreeSet::new();
    let begun = Instant::now();
    while seen.len() < count / 2 {
        assert!(begun.elapsed() < crate::sidecar::PATIENCE, "{}", seen.len());
        let some = streams[0]
            .deliveries_within(Duration::from_millis(200))
            .await;
        if some.is_empty() {
            continue;
        }
        let outcomes = acknowledge(&sidecars[0], &group, acks(&some))
            .await
            .unwrap();
        for (delivery, outcome) in some.iter().zip(outcomes) {
            if outcome == proto::Outcome::Recorded {
                let partition = delivery.record.as_ref().unwrap().partition();
                seen.insert((partition, delivery.offset));
            }
        }
    }
    sidecars[0]
        .wait_until("commit", || {
            let offsets = committed(kafka.bootstrap(), &group, &topic, 4);
            owned
                .iter()
                .all(|&partition| offsets[partition as usize] == 1000)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settles_that_wait_for_a_commit_are_answered_when_a_seek_overtakes_it() {
    let mock = MockCluster::new(1).expect("the mock cluster starts");
    let (topic, group) = ("overtaken", fresh("g"));
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
    let asked = proto::Init {
        window: window(10),
        lease: span(600_000),
        confirm: proto::Confirm::Durable.into(),
        ..init(&group, &[topic], UNORDERED)
    };
    let mut stream = Subscription::open(&sidecar, asked).await;
    let all = stream.take(10).await;
    // The commit of what comes next fails, and waits for the interval.
    let failed = "outrigger_subscribe_commits_total{result=\"error\"}";
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH;
    mock.request_errors(RDKafkaApiKey::OffsetCommit, &[refusal]);
    let request = stream.ack(&all[..5]).await;
    sidecar.wait_for_metric(failed, 1.0).await;
    let beginning = Target::Kind(proto::StartKind::Earliest.into());
    seek(&sidecar, &group, beginning).await.unwrap();
    let outcomes = stream.settled(request).await;
    let fenced = proto::Outcome::FencedBySeek;
    assert_eq!(outcomes.len(), 5);
    assert!(
        outcomes.iter().all(|item| item.outcome() == fenced),
        "{outcomes:?}"
    );
    let told = |message| match message {
        Message::PartitionEvent(event) => Some(event.kind()),
        _ => None,
    };
    assert_eq!(stream.find(told).await, PartitionEventKind::Seeked);
    // What was held is no part of the window any more.
    assert_eq!(stream.take(10).await.len(), 10);
}
