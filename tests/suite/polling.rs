//! A member that does not poll for five minutes leaves its group. What polls is the group's loop, which answers in the same turns who asks where
//! the group stands: as long as it answers soon, it polls, whatever holds its subscription up.

use std::time::{Duration, Instant};

use outrigger::grpc::proto::{
    self, PartitionEventKind, settle_item::Action, subscribe_request, subscribe_response::Message,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Subscription, committed, fill_topic, init, window},
    kafka::{Kafka, fresh},
    sidecar::Sidecar,
    subscribing::wait_for_commits,
};

/// An answer takes a tenth of a second at most; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(8);

/// For which brokers are away: longer than that, and shorter than the session timeout of 45 s.
const OUTAGE: Duration = Duration::from_secs(16);

/// Asks where a group stands until told to stop; the longest time that an answer took.
async fn ask(sidecar: &Sidecar, group: &str, stop: CancellationToken) -> JoinHandle<Duration> {
    let mut client = sidecar.subscriber().await;
    let group = group.to_owned();
    tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let asked = proto::GetSubscriptionRequest {
                group: group.clone(),
            };
            client.get_subscription(asked).await.unwrap();
            longest = longest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        longest
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_polled_whatever_holds_its_subscription_up_and_no_member_is_expelled() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("polled", 1).await;
    let narrow = [("max.message.bytes", "300")];
    let dead = kafka.topic_with("narrow", 1, &narrow).await;
    let values = ["x".repeat(1000)].into_iter();
    let more = (1..20).map(|number| number.to_string());
    fill_topic(kafka.bootstrap(), &topic, 1, values.chain(more));
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("consume.commit_interval", "50ms")]);
    let groups = [fresh("paused"), fresh("slow"), fresh("dead"), fresh("open")];
    let asked = |group: &str| proto::Init {
        window: window(10),
        confirm: proto::Confirm::Durable.into(),
        // No lease ends meanwhile.
        lease: Some(Duration::from_secs(600).try_into().unwrap()),
        ..init(group, &[&topic], proto::Ordering::Unordered)
    };
    let resize = |records| subscribe_request::Message::Window(window(records).unwrap());

    // All of it is paused.
    let mut paused = Subscription::open(&sidecar, asked(&groups[0])).await;
    let held = paused.take(10).await;
    paused.send(resize(0)).await;
    let request = paused.ack(&held).await;
    assert!(paused.settled(request).await.is_empty());
    // Its client settles nothing, and does not read.
    let mut slow = Subscription::open(&sidecar, asked(&groups[1])).await;
    let kept = slow.take(10).await;
    // A dead letter cannot be written.
    let with_dead_letters = proto::Init {
        window: window(20),
        dead_letter: Some(proto::DeadLetterPolicy {
            topic: dead.clone(),
        }),
        ..asked(&groups[2])
    };
    let mut unwritten = Subscription::open(&sidecar, with_dead_letters).await;
    let bad = unwritten.take(20).await;
    let to_the_dead = Action::DeadLetter(proto::DeadLetter {
        reason: "bad".to_owned(),
    });
    let copied = unwritten.settle(&bad[..1], to_the_dead).await;
    let becomes = |wanted: PartitionEventKind| {
        move |message| match message {
            Message::PartitionEvent(event) if event.kind() == wanted => Some(()),
            _ => None,
        }
    };
    unwritten.find(becomes(PartitionEventKind::Blocked)).await;
    // Its commits have no answer.
    let mut open = Subscription::open(&sidecar, asked(&groups[3])).await;
    let done = open.take(10).await;

    let stop = CancellationToken::new();
    let mut asking = Vec::new();
    for group in &groups {
        asking.push(ask(&sidecar, group, stop.clone()).await);
    }
    tokio::task::block_in_place(|| kafka.tell("pause 1"));
    let committing = open.ack(&done).await;
    tokio::time::sleep(OUTAGE).await;
    stop.cancel();
    for (group, asking) in groups.iter().zip(asking) {
        let longest = asking.await.unwrap();
        assert!(longest < SOON, "{group}: {longest:?}");
    }
    tokio::task::block_in_place(|| kafka.tell("resume 1"));

    // All of them go on where they were.
    paused.send(resize(20)).await;
    let rest = paused.take(10).await;
    paused.ack(&rest).await;
    slow.ack(&kept).await;
    let rest = slow.take(10).await;
    slow.ack(&rest).await;
    let wider = "max.message.bytes=100000";
    let of = ["--alter", "--entity-type", "topics", "--entity-name", &dead];
    kafka.tool("configs", &[&of[..], &["--add-config", wider]].concat());
    unwritten.find(becomes(PartitionEventKind::Unblocked)).await;
    assert!(unwritten.settled(copied).await.is_empty());
    unwritten.ack(&bad[1..]).await;
    // The rest may come before the answer.
    let mut rest = Vec::new();
    let mut is_answered = false;
    while rest.len() < 10 || !is_answered {
        match open.next().await.unwrap() {
            Message::Deliveries(some) => rest.extend(some.deliveries),
            Message::Settled(settled) if settled.request_id == committing => {
                assert!(settled.outcomes.is_empty(), "{settled:?}");
                is_answered = true;
            }
            _ => {}
        }
    }
    assert!(committed(kafka.bootstrap(), &groups[3], &topic, 1)[0] >= 10);
    open.ack(&rest).await;
    for group in &groups {
        wait_for_commits(&kafka, group, &topic, &[20]).await;
    }
    let rebalances = |kind: &str| {
        sidecar.metric(&format!(
            "outrigger_subscribe_rebalances_total{{kind=\"{kind}\"}}"
        ))
    };
    assert_eq!(
        ["assigned", "revoked", "lost"].map(rebalances),
        [4.0, 0.0, 0.0]
    );
    assert!(sidecar.stop().success());
}
