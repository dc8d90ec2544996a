//! Dead letters: what a record becomes when nobody can process it.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use outrigger::grpc::proto::{
    self, PartitionEventKind, settle_item::Action, subscribe_response::Message,
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};

use crate::{
    client::{Subscription, committed, fill_topic, init, publish_request, reason},
    foreign,
    kafka::{Kafka, fresh},
    sidecar::{PATIENCE, Sidecar},
};

type Header = (String, Option<Vec<u8>>);

/// A record as Kafka has it.
#[derive(Debug)]
struct Copy {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: Option<i64>,
    headers: Vec<Header>,
}

impl Copy {
    /// The record's own headers, and those that were added, without their prefix.
    fn headers(&self) -> (Vec<Header>, BTreeMap<String, String>) {
        let (added, own): (Vec<Header>, Vec<Header>) = self
            .headers
            .iter()
            .cloned()
            .partition(|(name, _)| name.starts_with("__dlq.errors."));
        let added = added.into_iter().map(|(name, value)| {
            let name = name["__dlq.errors.".len()..].to_owned();
            (
                name,
                String::from_utf8(value.expect("a value")).expect("text"),
            )
        });
        (own, added.collect())
    }
}

/// The first `count` records of a topic of one partition, read directly.
fn read(kafka: &Kafka, topic: &str, count: usize) -> Vec<Copy> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", "direct-reader")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&list).unwrap();
    let mut copies = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while copies.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} in {topic}",
            copies.len()
        );
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message.unwrap();
        let headers = message.headers().map(|headers| {
            let header = |header: rdkafka::message::Header<'_, &[u8]>| {
                (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
            };
            headers.iter().map(header).collect()
        });
        copies.push(Copy {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp: message.timestamp().to_millis(),
            headers: headers.unwrap_or_default(),
        });
    }
    copies
}

/// A subscription to `topic` whose records are tried twice and then go to `to`.
fn asked(group: &str, topic: &str, to: &str) -> proto::Init {
    proto::Init {
        retry: Some(proto::RetryPolicy {
            min_delay: Some(Duration::from_millis(10).try_into().unwrap()),
            max_attempts: 2,
            ..Default::default()
        }),
        dead_letter: Some(proto::DeadLetterPolicy {
            topic: to.to_owned(),
        }),
        confirm: proto::Confirm::Durable.into(),
        ..init(group, &[topic], proto::Ordering::Key)
    }
}

fn dead_letter(reason: &str) -> Action {
    Action::DeadLetter(proto::DeadLetter {
        reason: reason.to_owned(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_the_record_itself_and_says_where_it_came_from_and_why() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("letters", 1).await;
    let group = fresh("g");
    let dead = format!("{topic}.{group}.dlq");
    kafka.create(&dead, 1, &[]).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.commit_interval", "50ms")]);
    let header = |name: &str, value: Option<&'static [u8]>| proto::Header {
        name: name.to_owned(),
        value: value.map(Into::into),
    };
    let own = [
        header("twice", Some(b"1")),
        header("twice", Some(b"\x00\xff")),
        header("null", None),
    ];
    let of = |key: Option<&'static str>, value: Option<&'static str>| proto::Record {
        topic: topic.clone(),
        key: key.map(Into::into),
        value: value.map(Into::into),
        headers: own.to_vec(),
        timestamp: Some(prost_types::Timestamp {
            seconds: 1_600_000_000,
            nanos: 5_000_000,
        }),
        ..Default::default()
    };
    let records = vec![
        of(Some("k"), Some("fails")),
        of(Some("k"), None),
        of(None, Some("good")),
    ];
    sidecar
        .publisher()
        .await
        .publish(publish_request(records))
        .await
        .unwrap();
    let mut subscription = Subscription::open(&sidecar, asked(&group, &topic, "")).await;
    let first = subscription.take(2).await;
    assert_eq!(
        (first[0].offset, first[1].offset),
        (0, 2),
        "1 has the key of 0"
    );
    subscription.ack(&first[1..]).await;
    let nack = || {
        Action::Nack(proto::Nack {
            reason: "the disk is full".into(),
            ..Default::default()
        })
    };
    let before = now();
    subscription.settle(&first[..1], nack()).await;
    let again = subscription.take(1).await;
    assert_eq!((again[0].offset, again[0].attempt), (0, 2));
    subscription.settle(&again, nack()).await;
    // Its copy is written, so the key goes on.
    let second = subscription.take(1).await;
    assert_eq!((second[0].offset, second[0].attempt), (1, 1));
    let request = subscription.settle(&second, dead_letter("no value")).await;
    assert!(
        subscription.settled(request).await.is_empty(),
        "DURABLE: the copy is written and the source is committed"
    );
    assert_eq!(committed(kafka.bootstrap(), &group, &topic, 1), [3]);
    let copies = read(kafka, &dead, 2);
    for (copy, key, value) in [(&copies[0], "k", Some("fails")), (&copies[1], "k", None)] {
        assert_eq!(copy.key.as_deref(), Some(key.as_bytes()));
        assert_eq!(copy.value.as_deref(), value.map(str::as_bytes));
        assert_eq!(copy.timestamp, Some(1_600_000_000_005));
        let expected: Vec<Header> = own
            .iter()
            .map(|header| {
                (
                    header.name.clone(),
                    header.value.as_ref().map(|value| value.to_vec()),
                )
            })
            .collect();
        assert_eq!(copy.headers().0, expected);
    }
    for (copy, offset, count, cause, message) in [
        (&copies[0], "0", "2", "MAX_ATTEMPTS", "the disk is full"),
        (&copies[1], "1", "1", "REJECTED", "no value"),
    ] {
        let (_, added) = copy.headers();
        let words = [
            "topic",
            "partition",
            "offset",
            "group",
            "delivery.count",
            "cause",
            "message",
        ];
        let told: Vec<&str> = words.iter().map(|word| added[*word].as_str()).collect();
        assert_eq!(told, [&*topic, "0", offset, &*group, count, cause, message]);
        let at = |word: &str| added[word].parse::<u128>().unwrap();
        assert!(
            before <= at("first.failure")
                && at("first.failure") <= at("last.failure")
                && at("last.failure") <= now()
        );
        assert_eq!(added.len(), 9, "{added:?}");
    }
    for cause in ["MAX_ATTEMPTS", "REJECTED"] {
        let series = format!("outrigger_subscribe_dead_letters_total{{cause=\"{cause}\"}}");
        assert_eq!(sidecar.metric(&series), 1.0);
    }
    assert!(sidecar.stop().success());
}

fn now() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_millis()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_written_is_told_kept_and_written_later() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("unwritten", 1).await;
    let dead = kafka
        .topic_with("narrow", 1, &[("max.message.bytes", "300")])
        .await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        1,
        ["x".repeat(1000), "next".to_owned()].into_iter(),
    );
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.commit_interval", "50ms")]);
    let group = fresh("g");
    let mut subscription = Subscription::open(&sidecar, asked(&group, &topic, &dead)).await;
    let both = subscription.take(2).await;
    let request = subscription
        .settle(&both[..1], dead_letter("too large to be true"))
        .await;
    subscription.ack(&both[1..]).await;
    let blocked = |kind| {
        move |message| match message {
            Message::PartitionEvent(event) if event.kind() == kind => Some(event.reason),
            _ => None,
        }
    };
    let told = subscription
        .find(blocked(PartitionEventKind::Blocked))
        .await;
    assert!(
        told.contains("offset 0") && told.contains("dead letter"),
        "{told}"
    );
    assert_eq!(
        committed(kafka.bootstrap(), &group, &topic, 1),
        [0],
        "not settled without its copy"
    );
    kafka.configure_topic(&dead, "max.message.bytes=100000");
    subscription
        .find(blocked(PartitionEventKind::Unblocked))
        .await;
    assert!(subscription.settled(request).await.is_empty());
    assert_eq!(
        read(kafka, &dead, 1)[0].value.as_ref().map(Vec::len),
        Some(1000)
    );
    assert_eq!(committed(kafka.bootstrap(), &group, &topic, 1), [2]);
    assert!(sidecar.metric("outrigger_subscribe_dead_letters_failed_total") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_need_a_policy_and_a_topic_that_exists() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("policy", 1).await;
    fill_topic(kafka.bootstrap(), &topic, 1, ["x".to_owned()].into_iter());
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let mut subscription = Subscription::open(&sidecar, asked(&group, &topic, "")).await;
    let status = subscription.deliveries().await.unwrap_err();
    assert_eq!(reason(&status), "TOPIC_NOT_FOUND");
    assert!(
        status.message().contains(&format!("{topic}.{group}.dlq")),
        "{}",
        status.message()
    );
    let mut subscription = Subscription::open(&sidecar, asked(&group, &topic, &topic)).await;
    let status = subscription.deliveries().await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_REQUEST");
    assert!(status.message().contains("circles"), "{}", status.message());
    let without = init(&fresh("g"), &[&topic], proto::Ordering::Key);
    let mut subscription = Subscription::open(&sidecar, without).await;
    let held = subscription.take(1).await;
    subscription.settle(&held, dead_letter("no")).await;
    let status = loop {
        if let Err(status) = subscription.next().await {
            break status;
        }
    };
    assert_eq!(reason(&status), "FEATURE_NOT_AVAILABLE");
    assert!(
        status.message().contains("dead_letter"),
        "{}",
        status.message()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_that_kills_python_clients_is_the_only_one_among_100_000_to_become_a_dead_letter()
 {
    const COUNT: usize = 100_000;
    const POISON: usize = 54_321;
    let kafka = Kafka::shared();
    let topic = kafka.topic("killer", 1).await;
    let group = fresh("g");
    let dead = format!("{topic}.{group}.dlq");
    kafka.create(&dead, 1, &[]).await;
    let value = |number| match number {
        POISON => "poison".to_owned(),
        number => number.to_string(),
    };
    fill_topic(kafka.bootstrap(), &topic, 1, (0..COUNT).map(value));
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.commit_interval", "100ms")]);
    let settled = tempfile::NamedTempFile::new().unwrap();
    let mut lives = 0;
    let is_done = || committed(kafka.bootstrap(), &group, &topic, 1) == [COUNT as i64];
    let deadline = Instant::now() + 3 * PATIENCE;
    while !is_done() {
        lives += 1;
        let file = settled.path().to_str().unwrap();
        let settings = [
            "--group",
            &group,
            "--topic",
            &topic,
            "--window",
            "1000",
            "--settled",
            file,
        ];
        let mut client = foreign::client(&sidecar, "tests/python/poison.py", &settings)
            .spawn()
            .unwrap();
        loop {
            assert!(Instant::now() < deadline, "after {lives} lives");
            if is_done() {
                client.kill().unwrap();
                client.wait().unwrap();
                break;
            }
            if let Some(status) = client.try_wait().unwrap() {
                let signal = std::os::unix::process::ExitStatusExt::signal(&status);
                assert_eq!(signal, Some(9), "killed by the record, not by a mistake");
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // It was suspect among others once, then alone for each of its attempts.
    assert_eq!(lives, 5, "four died, the fifth had the rest");
    let copies = read(kafka, &dead, 1);
    assert_eq!(copies[0].value.as_deref(), Some(&b"poison"[..]));
    let (_, added) = copies[0].headers();
    assert_eq!(
        (&*added["cause"], &*added["delivery.count"]),
        ("CRASH_SUSPECT", "3")
    );
    assert_eq!(&*added["offset"], POISON.to_string());
    let acked = "outrigger_subscribe_settled_records_total{action=\"ack\"}";
    assert_eq!(
        sidecar.metric(acked),
        (COUNT - 1) as f64,
        "each of the others is settled once"
    );
    assert_eq!(
        sidecar.metric("outrigger_subscribe_dead_letters_total{cause=\"CRASH_SUSPECT\"}"),
        1.0
    );
    let text = fs::read_to_string(settled.path()).unwrap();
    let mut confirmed: Vec<&str> = text.lines().collect();
    let count = confirmed.len();
    confirmed.sort_unstable();
    confirmed.dedup();
    assert_eq!(confirmed.len(), count, "none was confirmed to two lives");
    assert!(count < COUNT && !confirmed.contains(&"poison"));
}
