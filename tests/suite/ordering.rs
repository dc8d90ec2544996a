//! Deliveries by key: one record of a key at a time, keys beside each other, each at one stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use outrigger::grpc::proto::{self, seek_request::Target, settle_item::Action, subscribe_request};

use crate::{
    client::{Subscription, committed, init, publish_request, text, window},
    kafka::{Kafka, fresh},
    sidecar::{PATIENCE, Sidecar},
    unary::seek,
};

/// The default, unsaid.
const DEFAULT: proto::Ordering = proto::Ordering::Unspecified;

/// What comes within this would have come at once.
const SOON: Duration = Duration::from_millis(500);

/// Publishes records of these keys, each with its position as its value.
async fn publish(sidecar: &Sidecar, topic: &str, keys: impl Iterator<Item = Option<String>>) {
    let records: Vec<proto::Record> = keys
        .enumerate()
        .map(|(position, key)| proto::Record {
            topic: topic.to_owned(),
            partition: Some(0),
            key: key.map(Into::into),
            value: Some(position.to_string().into()),
            ..Default::default()
        })
        .collect();
    let mut publisher = sidecar.publisher().await;
    for chunk in records.chunks(1000) {
        publisher
            .publish(publish_request(chunk.to_vec()))
            .await
            .expect("published");
    }
}

fn key(delivery: &proto::Delivery) -> Option<String> {
    let key = delivery.record.as_ref()?.key.as_ref()?;
    Some(String::from_utf8(key.to_vec()).expect("text"))
}

fn positions(deliveries: &[proto::Delivery]) -> Vec<String> {
    deliveries.iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_key_come_one_at_a_time_and_other_keys_do_not_wait() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("key", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.commit_interval", "50ms")]);
    let keys = ["a", "a", "b", "", "", "a", "b"];
    let keys = keys
        .iter()
        .map(|key| (!key.is_empty()).then(|| (*key).to_owned()));
    publish(&sidecar, &topic, keys).await;
    let group = fresh("g");
    let mut subscription = Subscription::open(&sidecar, init(&group, &[&topic], DEFAULT)).await;
    let first = subscription.take(4).await;
    assert_eq!(
        positions(&first),
        ["0", "2", "3", "4"],
        "null keys have no order"
    );
    assert!(
        subscription.deliveries_within(SOON).await.is_empty(),
        "1 waits for 0"
    );
    // Given back, it stays before those after it.
    let later = Action::Nack(proto::Nack {
        delay: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        reason: String::new(),
    });
    subscription.settle(&first[..1], later).await;
    subscription.ack(&first[1..2]).await;
    let second = subscription.take(2).await;
    assert_eq!(positions(&second), ["6", "0"], "b goes on while a waits");
    assert_eq!(second[1].attempt, 2);
    subscription.ack(&second).await;
    let third = subscription.take(1).await;
    assert_eq!(positions(&third), ["1"]);
    subscription
        .settle(&third, Action::Release(proto::Release {}))
        .await;
    let again = subscription.take(1).await;
    assert_eq!(positions(&again), ["1"]);
    subscription.ack(&again).await;
    let last = subscription.take(1).await;
    assert_eq!(positions(&last), ["5"]);
    let request = subscription.ack(&[&last[..], &first[2..]].concat()).await;
    assert!(subscription.settled(request).await.is_empty());
    let settled = || committed(kafka.bootstrap(), &group, &topic, 1) == [7];
    sidecar.wait_until("everything is committed", settled).await;
}

/// What is delivered and not settled, by key, over all streams; and who had each key's records, in order.
#[derive(Default)]
struct Seen {
    out: BTreeMap<String, u64>,
    last: BTreeMap<String, u64>,
    keys_of: BTreeMap<usize, BTreeSet<String>>,
    settled: BTreeSet<u64>,
}

/// Takes and acks in small batches, and checks each delivery against what is known, until everything is settled.
async fn work(mut subscription: Subscription, name: usize, seen: Arc<Mutex<Seen>>, total: usize) {
    let mut last = 0;
    while seen.lock().unwrap().settled.len() < total {
        let deliveries = subscription
            .deliveries_within(Duration::from_millis(20))
            .await;
        for delivery in &deliveries {
            let (key, position) = (
                key(delivery).expect("a key"),
                text(delivery).parse().unwrap(),
            );
            let mut seen = seen.lock().unwrap();
            let other = seen.out.insert(key.clone(), position);
            assert_eq!(other, None, "{key} is out twice, at stream {name} too");
            let before = seen.last.insert(key.clone(), position);
            assert!(
                before.is_none_or(|before| before < position),
                "{key}: {position} after {before:?}"
            );
            seen.keys_of.entry(name).or_default().insert(key);
        }
        {
            // What is acked from here on may be followed at once.
            let mut seen = seen.lock().unwrap();
            for delivery in &deliveries {
                seen.out.remove(&key(delivery).expect("a key"));
                seen.settled.insert(text(delivery).parse().unwrap());
            }
        }
        if !deliveries.is_empty() {
            last = subscription.ack(&deliveries).await;
        }
    }
    // What is acked counts; what came since then goes to others.
    if subscription.answered < last {
        subscription.settled(last).await;
    }
    subscription.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_with_its_stream_and_keeps_its_order_while_streams_come_and_go() {
    const KEYS: usize = 60;
    const EACH: usize = 40;
    let kafka = Kafka::shared();
    let topic = kafka.topic("sticky", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let keys = (0..KEYS * EACH).map(|position| Some(format!("k{}", position % KEYS)));
    publish(&sidecar, &topic, keys).await;
    let group = fresh("g");
    let asked = || proto::Init {
        window: window(20),
        ..init(&group, &[&topic], DEFAULT)
    };
    let seen = Arc::new(Mutex::new(Seen::default()));
    let total = KEYS * EACH;
    // Both are there before anything is delivered: the first joins the group only now.
    let streams = [
        Subscription::open(&sidecar, asked()).await,
        Subscription::open(&sidecar, asked()).await,
    ];
    let [one, two] = streams;
    let one = tokio::spawn(work(one, 1, Arc::clone(&seen), total));
    let two = tokio::spawn(work(two, 2, Arc::clone(&seen), total / 2));
    two.await.expect("the second stream keeps the order");
    let shared = {
        let seen = seen.lock().unwrap();
        let of = |name| seen.keys_of.get(&name).cloned().unwrap_or_default();
        assert!(
            of(1).len() > 10 && of(2).len() > 10,
            "both have keys: {} and {}",
            of(1).len(),
            of(2).len()
        );
        of(1).intersection(&of(2)).cloned().collect::<Vec<_>>()
    };
    assert!(shared.is_empty(), "keys that were at both: {shared:?}");
    // The second has ended; another one comes. Keys move, their order stays.
    let three = Subscription::open(&sidecar, asked()).await;
    let three = tokio::spawn(work(three, 3, Arc::clone(&seen), total));
    one.await.expect("the first stream keeps the order");
    three.await.expect("the third stream keeps the order");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.settled.len(), total);
    assert!(
        seen.keys_of[&1].len() > 30,
        "the first took over keys of the second"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_stream_that_takes_nothing_more_go_to_the_others() {
    const KEYS: usize = 40;
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let pause = subscribe_request::Message::Window(window(0).unwrap());
    let drain = subscribe_request::Message::Drain(proto::Drain {});
    for last_word in [pause, drain] {
        let topic = kafka.topic("members", 1).await;
        let keys = (0..KEYS).map(|number| Some(format!("k{number}")));
        publish(&sidecar, &topic, keys).await;
        let group = fresh("g");
        let asked = |records| proto::Init {
            window: window(records),
            // What the first one holds keeps it here.
            lease: Some(Duration::from_secs(600).try_into().unwrap()),
            ..init(&group, &[&topic], DEFAULT)
        };
        let mut first = Subscription::open(&sidecar, asked(1)).await;
        let held = first.take(1).await;
        first.send(last_word).await;
        let mut other = Subscription::open(&sidecar, asked(100)).await;
        let rest = other.take(KEYS - 1).await;
        assert_eq!(rest.len(), KEYS - 1);
        assert!(!rest.iter().any(|one| one.offset == held[0].offset));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_do_not_wait_for_a_pull_that_other_pulls_leave_no_room() {
    const KEYS: usize = 40;
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let topic = kafka.topic("crowded", 1).await;
    let keys = (0..KEYS).map(|number| Some(format!("k{number}")));
    publish(&sidecar, &topic, keys).await;
    let group = fresh("g");
    let asked = |records| proto::Init {
        window: window(records),
        lease: Some(Duration::from_secs(600).try_into().unwrap()),
        ..init(&group, &[&topic], DEFAULT)
    };
    let pull = async || {
        let request = proto::PullRequest {
            init: Some(asked(1)),
            max_records: 1,
            wait: Some((PATIENCE / 2).try_into().unwrap()),
        };
        let mut client = sidecar.subscriber().await;
        client.pull(request).await.expect("an answer")
    };
    pull().await;
    let stream = async {
        let waits = || sidecar.metric("outrigger_subscribe_streams") == 1.0;
        sidecar.wait_until("the second pull waits", waits).await;
        let mut stream = Subscription::open(&sidecar, asked(100)).await;
        stream.take(KEYS - 1).await
    };
    tokio::select! {
        rest = stream => assert_eq!(rest.len(), KEYS - 1),
        _ = pull() => panic!("the stream waits for a pull that can take nothing"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_with_its_stream_over_a_seek() {
    const KEYS: usize = 40;
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let topic = kafka.topic("settled", 1).await;
    let keys = (0..KEYS).map(|number| Some(format!("k{number}")));
    publish(&sidecar, &topic, keys).await;
    let group = fresh("g");
    let asked = init(&group, &[&topic], DEFAULT);
    // Both are there before anything is delivered: the first joins the group only now.
    let mut streams = [
        Subscription::open(&sidecar, asked.clone()).await,
        Subscription::open(&sidecar, asked).await,
    ];
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut keys_of = [BTreeSet::new(), BTreeSet::new()];
        while keys_of.iter().map(BTreeSet::len).sum::<usize>() < KEYS {
            for (stream, keys) in streams.iter_mut().zip(&mut keys_of) {
                keys.extend(stream.deliveries_within(SOON).await.iter().map(key));
            }
        }
        seen.push(keys_of);
        let beginning = Target::Kind(proto::StartKind::Earliest.into());
        seek(&sidecar, &group, beginning).await.unwrap();
    }
    assert_eq!(seen[0], seen[1]);
}
