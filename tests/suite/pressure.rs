//! What is kept of a partition has its bounds, and a partition that reaches one waits, says so, and goes on.

use std::time::{Duration, Instant};

use outrigger::grpc::proto::{self, settle_item::Action};

use crate::{
    client::{Subscription, fill_topic, init, publish_request, window},
    kafka::{Kafka, fresh},
    sidecar::Sidecar,
};

/// What comes within this would have come at once.
const SOON: Duration = Duration::from_millis(500);

const UNORDERED: proto::Ordering = proto::Ordering::Unordered;

/// What is delivered without end while every second record of what comes is acked, but never the first one.
async fn ack_every_second(subscription: &mut Subscription) -> (Vec<proto::Delivery>, usize) {
    let mut kept = subscription.take(1).await;
    let mut count = kept.len();
    let rest = kept.split_off(1);
    let mut next = rest;
    loop {
        let (even, odd): (Vec<_>, Vec<_>) = next
            .into_iter()
            .partition(|delivery| delivery.offset % 2 == 0);
        kept.extend(even);
        if !odd.is_empty() {
            subscription.ack(&odd).await;
        }
        next = subscription.deliveries_within(Duration::from_secs(1)).await;
        if next.is_empty() {
            return (kept, count);
        }
        count += next.len();
    }
}

fn held_up(group: &str, cause: &str) -> String {
    format!("outrigger_subscribe_held_up_partitions{{group=\"{group}\",cause=\"{cause}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_waits_when_too_much_is_kept_behind_an_open_record() {
    let kafka = Kafka::shared();
    for (setting, value, cause) in [
        ("consume.max_span_records", "300", "max_span_records"),
        // Each second record settled is a range of its own: about two characters each.
        ("consume.commit_metadata", "300", "commit_metadata"),
    ] {
        let topic = kafka.topic("pressure", 1).await;
        fill_topic(
            kafka.bootstrap(),
            &topic,
            1,
            (0..3000).map(|number| number.to_string()),
        );
        let group = fresh("g");
        let sidecar = Sidecar::start(
            kafka.bootstrap(),
            &[(setting, value), ("consume.commit_interval", "10ms")],
        );
        let asked = proto::Init {
            window: window(400),
            ..init(&group, &[&topic], UNORDERED)
        };
        let mut subscription = Subscription::open(&sidecar, asked).await;
        let (mut open, count) = ack_every_second(&mut subscription).await;
        assert!(count < 1000, "{cause}: {count} of 3000 were delivered");
        sidecar.wait_for_metric(&held_up(&group, cause), 1.0).await;
        // With the open ones settled it goes on, to the end.
        let mut seen = count;
        while seen < 3000 {
            subscription.ack(&std::mem::take(&mut open)).await;
            open = subscription.deliveries().await.expect("deliveries");
            seen += open.len();
        }
        subscription.ack(&open).await;
        sidecar.wait_for_metric(&held_up(&group, cause), 0.0).await;
        assert_eq!(seen, 3000, "{cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_a_commit_would_let_go_on_does_not_wait_for_the_interval() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("hurried", 1).await;
    let values = (0..3000).map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), &topic, 1, values);
    let interval = Duration::from_secs(10);
    let settings = [
        ("consume.commit_metadata", "300"),
        ("consume.commit_interval", "10s"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let group = fresh("g");
    let asked = proto::Init {
        window: window(400),
        ..init(&group, &[&topic], UNORDERED)
    };
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let (open, _) = ack_every_second(&mut subscription).await;
    let full = held_up(&group, "commit_metadata");
    sidecar.wait_for_metric(&full, 1.0).await;
    // The commit that found it full was just made.
    let begun = Instant::now();
    subscription.ack(&open).await;
    subscription.deliveries().await.expect("it goes on");
    assert!(begun.elapsed() < interval / 2, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_life_left_open_is_delivered_though_the_map_is_full() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("left-open", 1).await;
    let values = (0..3000).map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), &topic, 1, values);
    let settings = [
        ("consume.commit_metadata", "300"),
        ("consume.commit_interval", "10ms"),
    ];
    let group = fresh("g");
    let asked = |records| proto::Init {
        window: window(records),
        lease: Some(Duration::from_secs(600).try_into().unwrap()),
        ..init(&group, &[&topic], UNORDERED)
    };
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut subscription = Subscription::open(&sidecar, asked(400)).await;
    let (open, _) = ack_every_second(&mut subscription).await;
    subscription.leave().await;
    assert!(sidecar.stop().success());

    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut subscription = Subscription::open(&sidecar, asked(10)).await;
    // Its first record stays open in this life too; the map fits what is settled up to the middle.
    let (first, last) = (open[0].offset, open[open.len() / 2].offset);
    let mut seen = first;
    while seen < last {
        let mut some = subscription.deliveries().await.expect("deliveries");
        some.retain(|delivery| delivery.offset != first);
        for delivery in &some {
            seen = seen.max(delivery.offset);
        }
        if !some.is_empty() {
            subscription.ack(&some).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_key_does_not_draw_the_whole_partition_into_memory() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("look-ahead", 1).await;
    let settings = [
        ("consume.look_ahead_bytes", "64KiB"),
        ("consume.prefetch_bytes", "64KiB"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let of = |key: &str, size: usize| proto::Record {
        topic: topic.clone(),
        key: Some(key.to_owned().into()),
        value: Some(vec![b'x'; size].into()),
        ..Default::default()
    };
    let mut records = vec![of("busy", 1)];
    records.extend((0..300).map(|_| of("busy", 1000)));
    records.push(of("other", 1));
    sidecar
        .publisher()
        .await
        .publish(publish_request(records))
        .await
        .expect("published");
    let group = fresh("g");
    let mut subscription =
        Subscription::open(&sidecar, init(&group, &[&topic], proto::Ordering::Key)).await;
    let first = subscription.take(1).await;
    assert!(
        subscription
            .deliveries_within(Duration::from_secs(1))
            .await
            .is_empty()
    );
    sidecar
        .wait_for_metric(&held_up(&group, "look_ahead_bytes"), 1.0)
        .await;
    let mut open = first;
    let mut seen = 1;
    while seen < 302 {
        subscription.ack(&open).await;
        open = subscription.deliveries().await.expect("deliveries");
        seen += open.len();
    }
    sidecar
        .wait_for_metric(&held_up(&group, "look_ahead_bytes"), 0.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_subscriptions_together_hold_a_bound_and_none_starves() {
    const COUNT: usize = 300;
    let kafka = Kafka::shared();
    let topic = kafka.topic("memory", 1).await;
    let body = "x".repeat(10_000);
    let values = (0..COUNT).map(|number| format!("{number} {body}"));
    fill_topic(kafka.bootstrap(), &topic, 1, values);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.max_bytes", "1MiB")]);
    let groups = [fresh("g"), fresh("g")];
    let asked = |group: &str| proto::Init {
        // The lease does not end while they are held.
        lease: Some(Duration::from_secs(600).try_into().unwrap()),
        ..init(group, &[&topic], UNORDERED)
    };
    let mut greedy = Subscription::open(&sidecar, asked(&groups[0])).await;
    let held = greedy.deliveries_within(Duration::from_secs(3)).await;
    assert!(
        (50..200).contains(&held.len()),
        "about 1 MiB of 3: {}",
        held.len()
    );
    sidecar
        .wait_for_metric(&held_up(&groups[0], "max_bytes"), 1.0)
        .await;
    let mut modest = Subscription::open(&sidecar, asked(&groups[1])).await;
    let mut count = 0;
    while count < COUNT {
        let some = modest
            .deliveries()
            .await
            .expect("it may always read something");
        count += some.len();
        modest.ack(&some).await;
    }
    let mut open = held;
    let mut seen = open.len();
    while seen < COUNT {
        greedy.ack(&open).await;
        open = greedy.deliveries().await.expect("it goes on");
        seen += open.len();
    }
    assert_eq!(seen, COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_waits_when_too_many_of_its_records_wait_for_something() {
    const COUNT: usize = 300;
    let kafka = Kafka::shared();
    let body = "x".repeat(300);
    // Longer than it takes to see that nothing more comes.
    let again = Action::Nack(proto::Nack {
        delay: Some(Duration::from_secs(10).try_into().unwrap()),
        reason: String::new(),
    });
    let dead = Action::DeadLetter(proto::DeadLetter::default());
    for action in [again, dead] {
        let topic = kafka.topic("parked", 1).await;
        let values = (0..COUNT).map(|number| format!("{number} {body}"));
        fill_topic(kafka.bootstrap(), &topic, 1, values);
        let narrow = kafka
            .topic_with("narrow", 1, &[("max.message.bytes", "300")])
            .await;
        let settings = [("consume.max_parked_records", "50")];
        let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
        let group = fresh("g");
        let asked = proto::Init {
            window: window(20),
            dead_letter: Some(proto::DeadLetterPolicy {
                topic: narrow.clone(),
            }),
            ..init(&group, &[&topic], UNORDERED)
        };
        let mut subscription = Subscription::open(&sidecar, asked).await;
        let mut some = subscription.take(1).await;
        let mut waiting = 0;
        while !some.is_empty() {
            waiting += some.len();
            subscription.settle(&some, action.clone()).await;
            some = subscription.deliveries_within(SOON).await;
        }
        // The bound, and what was read at once with the last of them.
        assert!((50..100).contains(&waiting), "{waiting}");
        sidecar
            .wait_for_metric(&held_up(&group, "max_parked_records"), 1.0)
            .await;
        let mut done = 0;
        if let Action::DeadLetter(_) = action {
            kafka.configure_topic(&narrow, "max.message.bytes=100000");
            done = waiting;
        }
        while done < COUNT {
            let some = subscription.deliveries().await.expect("it goes on");
            done += some.len();
            subscription.ack(&some).await;
        }
        sidecar
            .wait_for_metric(&held_up(&group, "max_parked_records"), 0.0)
            .await;
    }
}
