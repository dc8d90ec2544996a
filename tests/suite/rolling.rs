//! Rolling restarts of a sidecar under load, by a harness that plays the kubelet: start, startup probe, readiness, the application, its end
//! beside the preStop hook, SIGTERM, and SIGKILL two seconds later; here somewhat later, for a machine that has more to do.
//!
//! `make soak` runs the long counts and prints how long the survivor of the group waited; here the bound only proves that the group was left:
//! without, it would be the session timeout.

use std::{
    collections::{BTreeSet, HashSet},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use outrigger::grpc::proto::{
    self, publish_stream_response, subscribe_request, subscribe_response,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{PublishStream, Subscription, init, record, text, window},
    kafka::{Kafka, fresh},
    protocol::{Protocol, Settings, with_each_protocol},
    sidecar::{PATIENCE, Sidecar},
};

const PARTITIONS: usize = 6;

/// Well below the session timeout of 45 s.
const LEFT: Duration = Duration::from_secs(25);

/// Between SIGTERM and SIGKILL. The kubelet waits 2 s when the grace period is over; a drain that has something left to do takes up to 25 s.
const GRACE: Duration = Duration::from_secs(10);

/// What became of every record.
#[derive(Default)]
struct Witness {
    published: Mutex<HashSet<String>>,
    acked: Mutex<HashSet<String>>,
}

impl Witness {
    /// Until whatever was published is acknowledged.
    async fn wait_for_all(&self) {
        let begun = Instant::now();
        let lost = || -> Vec<String> {
            let published = self.published.lock().unwrap();
            let acked = self.acked.lock().unwrap();
            published.difference(&acked).take(10).cloned().collect()
        };
        while !lost().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "lost: {:?}", lost());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// An application as people write it: publishes and subscribes until its SIGTERM, then ends both in order.
async fn application(
    sidecar: Arc<Sidecar>,
    topic: String,
    group: String,
    name: String,
    witness: Arc<Witness>,
    term: CancellationToken,
    assigned: impl FnMut(&BTreeSet<i32>),
) {
    let publishing = publish(&sidecar, &topic, &name, &witness, &term);
    let subscribing = subscribe(&sidecar, &topic, &group, &witness, &term, assigned);
    tokio::join!(publishing, subscribing);
}

async fn publish(
    sidecar: &Sidecar,
    topic: &str,
    name: &str,
    witness: &Witness,
    term: &CancellationToken,
) {
    let mut stream = PublishStream::open(sidecar, proto::FailureMode::Continue).await;
    let mut sent = 0_u64;
    let mut answered = 0_u64;
    while !term.is_cancelled() || answered < sent {
        if !term.is_cancelled() && sent - answered < 10 {
            let records = (0..20)
                .map(|number| record(topic, format!("{name}-{sent}-{number}")))
                .collect();
            stream.batch(records).await;
            sent += 1;
            continue;
        }
        match stream
            .next()
            .await
            .expect("every batch is answered")
            .expect("the stream goes on")
        {
            publish_stream_response::Message::Acks(acks) => {
                for ack in acks.acks {
                    assert!(ack.notes.is_empty(), "{:?}", ack.notes);
                    let batch = ack.sequence - 1;
                    let values = (0..20).map(|number| format!("{name}-{batch}-{number}"));
                    witness.published.lock().unwrap().extend(values);
                    answered += 1;
                }
            }
            // Publishes are still served until the application ends.
            publish_stream_response::Message::Draining(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(sent > 0);
}

/// Acknowledges what comes; `assigned` hears of every change which partitions there are.
async fn subscribe(
    sidecar: &Sidecar,
    topic: &str,
    group: &str,
    witness: &Witness,
    term: &CancellationToken,
    mut assigned: impl FnMut(&BTreeSet<i32>),
) {
    let mut asked = init(group, &[topic], proto::Ordering::Partition);
    asked.window = window(500);
    let mut subscription = Subscription::open(sidecar, asked).await;
    let mut partitions = BTreeSet::new();
    let mut asked_to_drain = false;
    loop {
        if term.is_cancelled() && !asked_to_drain {
            subscription
                .send(subscribe_request::Message::Drain(proto::Drain {}))
                .await;
            asked_to_drain = true;
        }
        let message = match subscription.responses.message() {
            next if asked_to_drain => tokio::time::timeout(PATIENCE, next)
                .await
                .expect("the stream ends"),
            next => tokio::select! {
                message = next => message,
                () = term.cancelled() => continue,
            },
        };
        // The end of a drained stream, or of one whose sidecar stops when nothing is held.
        let Ok(Some(message)) = message else {
            assert!(asked_to_drain, "{message:?}");
            return;
        };
        match message.message.expect("a message") {
            subscribe_response::Message::Deliveries(deliveries) => {
                subscription.ack(&deliveries.deliveries).await;
                witness
                    .acked
                    .lock()
                    .unwrap()
                    .extend(deliveries.deliveries.iter().map(text));
            }
            subscribe_response::Message::PartitionEvent(event) => {
                match event.kind() {
                    proto::PartitionEventKind::Assigned => partitions.insert(event.partition),
                    proto::PartitionEventKind::Revoked | proto::PartitionEventKind::Lost => {
                        partitions.remove(&event.partition)
                    }
                    _ => continue,
                };
                assigned(&partitions);
            }
            _ => {}
        }
    }
}

/// One pod from its start to its end; says how long the survivor waited for its partitions.
async fn pod(
    settings: &[(&str, &str)],
    topic: &str,
    group: &str,
    name: String,
    witness: &Arc<Witness>,
    held: &mut watch::Receiver<usize>,
) -> Duration {
    let sidecar = Arc::new(Sidecar::start(Kafka::shared().bootstrap(), settings));
    let begun = Instant::now();
    for probe in ["/startupz", "/readyz"] {
        while !sidecar.get(probe).0.contains("200") {
            assert!(begun.elapsed() < PATIENCE, "{probe} does not succeed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let term = CancellationToken::new();
    let application = tokio::spawn(application(
        Arc::clone(&sidecar),
        topic.to_owned(),
        group.to_owned(),
        name,
        Arc::clone(witness),
        term.clone(),
        |_| {},
    ));
    // Until it has its share of the group.
    let share = |count: &usize| *count < PARTITIONS;
    tokio::time::timeout(PATIENCE, held.wait_for(share))
        .await
        .expect("the pod gets partitions")
        .unwrap();
    let begun = Instant::now();
    while sidecar.metric("outrigger_subscribe_delivered_records_total") == 0.0 {
        assert!(
            begun.elapsed() < PATIENCE,
            "nothing is delivered to the pod"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The pod is deleted: the application's SIGTERM and the sidecar's preStop hook come together; the application goes on for a while.
    let hook = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .arg("drain")
        .env("OUTRIGGER_ADDRESS", sidecar.grpc.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    term.cancel();
    application.await.expect("the application ends in order");
    let drained = tokio::task::spawn_blocking(move || hook.wait_with_output().unwrap());
    assert!(
        drained.await.unwrap().status.success(),
        "the preStop hook succeeds"
    );
    // Every application container is gone.
    let mut sidecar = Arc::into_inner(sidecar).expect("the application has let go");
    let left = Instant::now();
    sidecar.signal("TERM");
    assert!(
        sidecar.wait(GRACE).success(),
        "it ends in order before the SIGKILL"
    );
    let all = |count: &usize| *count == PARTITIONS;
    tokio::time::timeout(LEFT, held.wait_for(all))
        .await
        .expect("the group was left")
        .unwrap();
    left.elapsed()
}

/// Restarts a pod again and again beside one that stays; both have the settings of their group.
async fn roll(rounds: usize, of: impl Fn(&Kafka, &str) -> Settings) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("rolling", PARTITIONS as i32).await;
    let group = fresh("g");
    let settings = &of(kafka, &group);
    let witness = Arc::new(Witness::default());
    let survivor = Arc::new(Sidecar::start(kafka.bootstrap(), settings));
    let (told, mut held) = watch::channel(0);
    let term = CancellationToken::new();
    let surviving = tokio::spawn({
        let (survivor, topic, group) = (Arc::clone(&survivor), topic.clone(), group.clone());
        let (witness, term) = (Arc::clone(&witness), term.clone());
        async move {
            subscribe(&survivor, &topic, &group, &witness, &term, |held| {
                told.send_replace(held.len());
            })
            .await;
        }
    });
    held.wait_for(|count| *count == PARTITIONS).await.unwrap();
    let mut waits = Vec::new();
    for round in 0..rounds {
        waits.push(
            pod(
                settings,
                &topic,
                &group,
                format!("pod-{round}"),
                &witness,
                &mut held,
            )
            .await,
        );
    }
    witness.wait_for_all().await;
    term.cancel();
    surviving.await.unwrap();
    assert!(Arc::into_inner(survivor).unwrap().stop().success());
    waits.sort();
    eprintln!(
        "{rounds} rolling restarts with {settings:?}: {} records published, none lost; the survivor had all partitions after {:?} (median), {:?} (longest)",
        witness.published.lock().unwrap().len(),
        waits[rounds / 2],
        waits[rounds - 1]
    );
}

/// A few in a test run, many in a soak.
fn rounds(few: usize) -> usize {
    let soak = std::env::var_os("OUTRIGGER_SOAK").is_some();
    if soak { 50 } else { few }
}

async fn roll_quickly(protocol: Protocol) {
    roll(rounds(6), |kafka, group| protocol.quick(kafka, group)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_with_the_default_heartbeat_lose_nothing_and_leave_the_group() {
    roll(rounds(2), |_, _| Vec::new()).await;
}

/// A sidecar of a StatefulSet with its application.
struct Replica {
    sidecar: Arc<Sidecar>,
    application: tokio::task::JoinHandle<()>,
    term: CancellationToken,
    /// Which partitions it has.
    held: watch::Receiver<BTreeSet<i32>>,
}

impl Replica {
    fn start(
        settings: &[(&str, &str)],
        topic: &str,
        group: &str,
        name: String,
        witness: &Arc<Witness>,
    ) -> Self {
        let sidecar = Arc::new(Sidecar::start(Kafka::shared().bootstrap(), settings));
        let term = CancellationToken::new();
        let (told, held) = watch::channel(BTreeSet::new());
        let application = tokio::spawn(application(
            Arc::clone(&sidecar),
            topic.to_owned(),
            group.to_owned(),
            name,
            Arc::clone(witness),
            term.clone(),
            move |held| {
                told.send_replace(held.clone());
            },
        ));
        Self {
            sidecar,
            application,
            term,
            held,
        }
    }

    /// Rebalances that it was told of, of any kind.
    fn rebalances(&self) -> f64 {
        let of = |kind: &str| {
            let series = format!("outrigger_subscribe_rebalances_total{{kind=\"{kind}\"}}");
            self.sidecar.metric(&series)
        };
        of("assigned") + of("revoked") + of("lost")
    }

    async fn stop(self) {
        self.term.cancel();
        self.application
            .await
            .expect("the application ends in order");
        let sidecar = Arc::into_inner(self.sidecar).expect("the application has let go");
        assert!(sidecar.stop().success());
    }
}

/// Restarts three static members one after the other, under load.
async fn roll_static_members(protocol: Protocol) {
    const NAMES: [&str; 3] = ["orders-0", "orders-1", "orders-2"];
    let kafka = Kafka::shared();
    let topic = kafka.topic("static", PARTITIONS as i32).await;
    let group = fresh("g");
    let witness = Arc::new(Witness::default());
    let quick = protocol.quick(kafka, &group);
    let start = |index: usize, round: usize| {
        let mut settings = quick.clone();
        settings.push(("consume.instance_id", NAMES[index]));
        let name = format!("{}-{round}", NAMES[index]);
        Replica::start(&settings, &topic, &group, name, &witness)
    };
    let mut replicas: Vec<Replica> = (0..NAMES.len()).map(|index| start(index, 0)).collect();
    for replica in &mut replicas {
        let share = |held: &BTreeSet<i32>| held.len() == PARTITIONS / NAMES.len();
        tokio::time::timeout(PATIENCE, replica.held.wait_for(share))
            .await
            .expect("each gets its share")
            .unwrap();
    }
    // The last of the first rebalances may be one that changes nothing.
    let mut before = Vec::new();
    let counts =
        |replicas: &[Replica]| -> Vec<f64> { replicas.iter().map(Replica::rebalances).collect() };
    while before != counts(&replicas) {
        before = counts(&replicas);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    for replica in &mut replicas {
        replica.held.mark_unchanged();
    }
    let mut gaps = Vec::new();
    for round in 1..=rounds(1) {
        for index in 0..NAMES.len() {
            let replica = replicas.remove(index);
            let held = replica.held.borrow().clone();
            let stopped = Instant::now();
            replica.stop().await;
            let mut replica = start(index, round);
            let same = |now: &BTreeSet<i32>| *now == held;
            tokio::time::timeout(PATIENCE, replica.held.wait_for(same))
                .await
                .expect("it gets its own partitions back")
                .unwrap();
            gaps.push(stopped.elapsed());
            replica.held.mark_unchanged();
            before[index] = replica.rebalances();
            assert_eq!(before[index], 1.0, "it is given its partitions, once");
            replicas.insert(index, replica);
            // A rebalance would be told of with the next heartbeats.
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(counts(&replicas), before, "others have rebalanced");
            for replica in &replicas {
                assert!(!replica.held.has_changed().unwrap(), "partitions moved");
            }
        }
    }
    witness.wait_for_all().await;
    for replica in replicas {
        replica.stop().await;
    }
    gaps.sort();
    eprintln!(
        "{} restarts of static members with {protocol:?}: {} records published, none lost; partitions were back after {:?} (median), {:?} (longest), and no other member rebalanced",
        gaps.len(),
        witness.published.lock().unwrap().len(),
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1]
    );
}

with_each_protocol! {
    rolling_restarts_with_a_short_heartbeat_lose_nothing_and_leave_the_group: roll_quickly;
    static_members_restart_one_after_the_other_and_no_other_member_rebalances: roll_static_members;
}
