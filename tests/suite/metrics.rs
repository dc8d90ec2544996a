//! Metrics: figures that are exact, gauges that go away, labels that are bounded, and the table that names them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::{Duration, Instant},
};

use outrigger::{
    grpc::proto::{self, settle_item::Action},
    metrics::{Kind, table},
};
use tonic::Code;

use crate::{
    client::{PublishStream, Subscription, fill_topic, init, publish_request, record, window},
    kafka::{Kafka, fresh, script},
    sidecar::{PATIENCE, Sidecar},
};

const UNORDERED: proto::Ordering = proto::Ordering::Unordered;
const CONTINUE: proto::FailureMode = proto::FailureMode::Continue;
const QUICK: (&str, &str) = ("metrics.statistics_interval", "1s");
const ALIASES: (&str, &str) = ("metrics.aliases", "true");

type Labels = BTreeMap<String, String>;

/// One `/metrics`: the kinds by family, and every sample.
struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Scrape {
    fn of(sidecar: &Sidecar) -> Self {
        let (status, body) = sidecar.get("/metrics");
        assert!(status.contains("200"), "{status}");
        let mut scrape = Self {
            kinds: BTreeMap::new(),
            samples: Vec::new(),
        };
        for line in body.lines().filter(|line| !line.is_empty()) {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                let (name, kind) = head.split_once(' ').expect("a name and a kind");
                let before = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} has one head");
            } else if !line.starts_with('#') {
                scrape.samples.push(sample(line));
            }
        }
        scrape
    }

    /// The sum of the samples of that name with all of these labels; `None` without any.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |own: &Labels| {
            labels
                .iter()
                .all(|(name, value)| own.get(*name).is_some_and(|own| own == value))
        };
        let values: Vec<f64> = self
            .samples
            .iter()
            .filter(|(own, labels, _)| own == name && fits(labels))
            .map(|(.., value)| *value)
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The values of a label, over all samples of a name.
    fn values(&self, name: &str, label: &str) -> BTreeSet<String> {
        self.samples
            .iter()
            .filter(|(own, ..)| own == name)
            .filter_map(|(_, labels, _)| labels.get(label).cloned())
            .collect()
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a series and a value");
    let (name, labels) = series
        .strip_suffix('}')
        .and_then(|series| series.split_once('{'))
        .unwrap_or((series, ""));
    let labels = labels
        .split("\",")
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (name, value) = label.split_once("=\"").expect("a label's name and value");
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        })
        .collect();
    (name.to_owned(), labels, value.parse().expect("a number"))
}

/// Waits until the samples of a name with these labels add up to `expected`; `None`: until there is none.
#[track_caller]
fn wait_for(sidecar: &Sidecar, name: &str, labels: &[(&str, &str)], expected: Option<f64>) {
    wait_until(sidecar, name, &format!("{labels:?} {expected:?}"), |all| {
        all.sum(name, labels) == expected
    });
}

/// Waits until `holds`; `name` is the metric that is shown if it never does.
#[track_caller]
fn wait_until(sidecar: &Sidecar, name: &str, what: &str, holds: impl Fn(&Scrape) -> bool) {
    let begun = Instant::now();
    loop {
        let all = Scrape::of(sidecar);
        if holds(&all) {
            return;
        }
        let shown = || -> Vec<_> {
            let of = |sample: &&(String, Labels, f64)| sample.0.starts_with(name);
            let shown = all.samples.iter().filter(of);
            shown.map(|sample| format!("{sample:?}")).collect()
        };
        assert!(
            begun.elapsed() < PATIENCE,
            "not in time: {what}:\n{}",
            shown().join("\n")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_known_number_of_records_every_figure_is_exact() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("exact", 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[QUICK, ("publish.linger", "0s")]);
    let to = ("messaging_destination_name", topic.as_str());
    let mut publisher = sidecar.publisher().await;
    for number in 0..7 {
        let request = publish_request(vec![record(&topic, number.to_string())]);
        publisher.publish(request).await.unwrap();
    }
    // One request each: every call waited for its answer.
    wait_for(
        &sidecar,
        "kafka_producer_send_requests_total",
        &[],
        Some(7.0),
    );
    let mut stream = PublishStream::open(&sidecar, CONTINUE).await;
    for _ in 0..3 {
        let batch = (0..10).map(|number| record(&topic, number.to_string()));
        stream.batch(batch.collect()).await;
    }
    let mut answered = 0;
    while answered < 3 {
        answered += stream.acks().await.unwrap().len();
    }
    let all = Scrape::of(&sidecar);
    let count = |name: &str, labels: &[_]| all.sum(name, labels);
    assert_eq!(
        count("messaging_client_sent_messages_total", &[to]),
        Some(37.0)
    );
    assert_eq!(count("outrigger_publish_records_total", &[]), Some(37.0));
    let durations = "messaging_client_operation_duration_seconds_count";
    assert_eq!(count(durations, &[to]), Some(10.0), "one for each batch");
    assert_eq!(
        count("outrigger_publish_batch_seconds_count", &[]),
        Some(10.0)
    );
    assert_eq!(
        count("outrigger_publish_admission_seconds_count", &[]),
        Some(10.0)
    );

    let group = fresh("g");
    let mut subscription = Subscription::open(&sidecar, init(&group, &[&topic], UNORDERED)).await;
    let deliveries = subscription.take(37).await;
    let of = ("group", group.as_str());
    let by = ("messaging_consumer_group_name", group.as_str());
    wait_for(
        &sidecar,
        "messaging_client_consumed_messages_total",
        &[to, by],
        Some(37.0),
    );
    wait_for(
        &sidecar,
        "kafka_consumer_records_consumed_total",
        &[of],
        Some(37.0),
    );
    wait_for(
        &sidecar,
        "outrigger_subscribe_delay_seconds_count",
        &[of],
        Some(37.0),
    );
    wait_for(
        &sidecar,
        "outrigger_subscribe_lag_records",
        &[of],
        Some(37.0),
    );
    wait_for(
        &sidecar,
        "outrigger_subscribe_credit_records",
        &[of],
        Some(1000.0 - 37.0),
    );
    wait_until(
        &sidecar,
        "outrigger_subscribe_oldest",
        "an unsettled delivery has an age",
        |all| all.sum("outrigger_subscribe_oldest_unsettled_seconds", &[of]) > Some(0.5),
    );
    assert_eq!(
        Scrape::of(&sidecar).sum("messaging_process_duration_seconds_count", &[by]),
        None
    );

    // One is given back, and comes again.
    subscription
        .settle(&deliveries[..1], Action::Nack(proto::Nack::default()))
        .await;
    let again = subscription.take(1).await;
    wait_for(
        &sidecar,
        "messaging_client_consumed_messages_total",
        &[by],
        Some(38.0),
    );
    subscription.ack(&deliveries[1..]).await;
    subscription.ack(&again).await;
    let process = "messaging_process_duration_seconds_count";
    wait_for(&sidecar, process, &[by], Some(38.0));
    wait_for(&sidecar, process, &[by, ("error_type", "nack")], Some(1.0));
    wait_for(
        &sidecar,
        "outrigger_subscribe_lag_records",
        &[of],
        Some(0.0),
    );
    wait_for(
        &sidecar,
        "outrigger_subscribe_oldest_unsettled_seconds",
        &[of],
        Some(0.0),
    );
    wait_for(
        &sidecar,
        "outrigger_subscribe_credit_records",
        &[of],
        Some(1000.0),
    );
    let all = Scrape::of(&sidecar);
    assert_eq!(
        all.sum("kafka_consumer_records_consumed_total", &[of]),
        Some(37.0)
    );
    assert_eq!(
        all.sum("outrigger_subscribe_delay_seconds_count", &[of]),
        Some(37.0)
    );
    assert!(
        all.sum(durations, &[by, ("messaging_operation_name", "commit")]) >= Some(1.0),
        "commits are timed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_record_has_the_reason_as_its_error_type_and_takes_no_topic_label() {
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let request = publish_request(vec![
        record(&fresh("absent"), "x"),
        record(&fresh("absent"), "x"),
    ]);
    sidecar.publisher().await.publish(request).await.unwrap();
    let labels = [
        ("messaging_destination_name", "_OTHER"),
        ("error_type", "TOPIC_NOT_FOUND"),
    ];
    let all = Scrape::of(&sidecar);
    assert_eq!(
        all.sum("messaging_client_sent_messages_total", &labels),
        Some(2.0)
    );
    assert_eq!(
        all.sum("messaging_client_sent_messages_total", &[]),
        Some(2.0)
    );
    let failures = [("reason", "TOPIC_NOT_FOUND")];
    assert_eq!(
        all.sum("outrigger_publish_failures_total", &failures),
        Some(2.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_grows_while_nothing_is_acked_and_is_told_by_partition_or_not() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("lag", 2).await;
    fill_topic(kafka.bootstrap(), &topic, 2, (0..10).map(|n| n.to_string()));
    let plain = Sidecar::start(
        kafka.bootstrap(),
        &[QUICK, ("metrics.partition_label", "false")],
    );
    let bounded = Sidecar::start(kafka.bootstrap(), &[QUICK, ("metrics.max_partitions", "1")]);
    let mut open = Vec::new();
    for sidecar in [&plain, &bounded] {
        let mut asked = init(&fresh("g"), &[&topic], UNORDERED);
        asked.window = window(1);
        open.push(Subscription::open(sidecar, asked).await);
    }
    let lag = "outrigger_subscribe_lag_records";
    for sidecar in [&plain, &bounded] {
        wait_for(sidecar, lag, &[], Some(10.0));
    }
    fill_topic(kafka.bootstrap(), &topic, 2, (0..90).map(|n| n.to_string()));
    for sidecar in [&plain, &bounded] {
        wait_for(sidecar, lag, &[("topic", &topic)], Some(100.0));
    }
    assert_eq!(Scrape::of(&plain).values(lag, "partition"), BTreeSet::new());
    let labels: Vec<_> = Scrape::of(&bounded)
        .values(lag, "partition")
        .into_iter()
        .collect();
    assert!(
        labels.contains(&"_OTHER".to_owned()) && labels.len() == 2,
        "{labels:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_grows_although_nothing_more_is_fetched() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("stuck", 1).await;
    // More than is fetched ahead: librdkafka stops asking, and so stops hearing of the end.
    let ahead = ("consume.prefetch_bytes", "64KiB");
    let large = || (0..500).map(|_| "x".repeat(1000));
    fill_topic(kafka.bootstrap(), &topic, 1, large());
    let sidecar = Sidecar::start(kafka.bootstrap(), &[QUICK, ahead]);
    let group = fresh("g");
    let of = ("group", group.as_str());
    let mut asked = init(&group, &[&topic], UNORDERED);
    asked.window = window(1);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let held = subscription.take(1).await;
    let lag = "outrigger_subscribe_lag_records";
    wait_for(&sidecar, lag, &[of], Some(500.0));
    fill_topic(kafka.bootstrap(), &topic, 1, large());
    wait_for(&sidecar, lag, &[of], Some(1000.0));
    let prefetched = Scrape::of(&sidecar).sum("outrigger_subscribe_prefetched_records", &[of]);
    assert!(
        prefetched > Some(1.0) && prefetched < Some(999.0),
        "{prefetched:?}"
    );
    subscription.ack(&held).await;
    wait_for(&sidecar, lag, &[of], Some(999.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_handed_back_and_a_group_that_is_left_show_nothing() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("moves", 2).await;
    fill_topic(kafka.bootstrap(), &topic, 2, (0..10).map(|n| n.to_string()));
    let leave = ("consume.idle_leave", "100ms");
    let first = Sidecar::start(kafka.bootstrap(), &[QUICK, leave]);
    let second = Sidecar::start(kafka.bootstrap(), &[QUICK]);
    let group = fresh("g");
    let of = ("group", group.as_str());
    let lag = "outrigger_subscribe_lag_records";
    let mut subscription = Subscription::open(&first, init(&group, &[&topic], UNORDERED)).await;
    let deliveries = subscription.take(10).await;
    subscription.ack(&deliveries).await;
    wait_until(
        &first,
        "outrigger_subscribe_lag",
        "both partitions have a lag",
        |all| all.values(lag, "partition").len() == 2,
    );
    let mut other = Subscription::open(&second, init(&group, &[&topic], UNORDERED)).await;
    wait_for(
        &first,
        "outrigger_subscribe_assigned_partitions",
        &[of],
        Some(1.0),
    );
    wait_until(
        &first,
        "outrigger_subscribe_lag",
        "one partition has a lag",
        |all| all.values(lag, "partition").len() == 1,
    );
    let revoked = [("kind", "revoked")];
    wait_for(
        &first,
        "outrigger_subscribe_rebalances_total",
        &revoked,
        Some(1.0),
    );
    fill_topic(kafka.bootstrap(), &topic, 2, (0..2).map(|n| n.to_string()));
    let one = other.take(1).await;
    assert_eq!(one.len(), 1);
    wait_for(&second, lag, &[of], Some(1.0));
    wait_for(
        &second,
        "outrigger_kafka_group_state",
        &[of, ("state", "steady")],
        Some(1.0),
    );

    drop(subscription);
    for gauge in [
        lag,
        "outrigger_subscribe_assigned_partitions",
        "outrigger_subscribe_credit_records",
        "outrigger_subscribe_prefetched_records",
        "outrigger_kafka_group_state",
    ] {
        wait_for(&first, gauge, &[of], None);
    }
    let read = Scrape::of(&first).sum("kafka_consumer_records_consumed_total", &[of]);
    assert!(read >= Some(10.0), "counters stay: {read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_is_seen_and_so_is_its_return() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("down", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[QUICK]);
    let publish = |value: &'static str| {
        let (request, sidecar) = (publish_request(vec![record(&topic, value)]), &sidecar);
        async move { sidecar.publisher().await.publish(request).await }
    };
    publish("a").await.unwrap();
    let subscription = Subscription::open(&sidecar, init("g", &[&topic], UNORDERED)).await;
    let connections = |client, state| {
        let labels = [("client", client), ("broker", "1"), ("state", state)];
        move |all: &Scrape| all.sum("outrigger_kafka_broker_connections", &labels)
    };
    for client in ["producer", "consumer"] {
        wait_until(
            &sidecar,
            "outrigger_kafka_broker_connections",
            "the broker is up",
            |all| connections(client, "up")(all) == Some(1.0),
        );
    }
    kafka.tell("kill 1");
    wait_until(
        &sidecar,
        "outrigger_kafka_broker_connections",
        "the broker is down",
        |all| {
            ["producer", "consumer"].iter().all(|client| {
                let lost = [
                    connections(client, "down")(all),
                    connections(client, "connecting")(all),
                ];
                connections(client, "up")(all) == Some(0.0)
                    && lost.iter().flatten().sum::<f64>() == 1.0
            })
        },
    );
    kafka.tell("start 1");
    wait_until(
        &sidecar,
        "outrigger_kafka_broker_connections",
        "the broker is back",
        |all| connections("consumer", "up")(all) == Some(1.0),
    );
    publish("b").await.unwrap();
    wait_until(
        &sidecar,
        "outrigger_kafka_broker_connections",
        "the producer is back",
        |all| connections("producer", "up")(all) == Some(1.0),
    );
    for client in ["producer", "consumer"] {
        let of = [("client", client), ("broker", "1")];
        for (name, count) in [
            ("outrigger_kafka_broker_disconnects_total", 1.0),
            ("outrigger_kafka_broker_connects_total", 2.0),
            ("outrigger_kafka_round_trip_seconds_count", 1.0),
        ] {
            wait_until(&sidecar, name, name, |all| {
                all.sum(name, &of) >= Some(count)
            });
        }
    }
    let fetched = "kafka_consumer_fetch_latency_seconds_count";
    wait_until(&sidecar, fetched, fetched, |all| {
        all.sum(fetched, &[("broker", "1")]) >= Some(1.0)
    });
    drop(subscription);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_shows_as_throttling() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("quota", 1).await;
    let client = fresh("throttled");
    let changed = Command::new("python3")
        .arg(script())
        .args(["tool", "configs", "--bootstrap-server", kafka.bootstrap()])
        .args(["--alter", "--add-config", "producer_byte_rate=20000"])
        .args(["--entity-type", "clients", "--entity-name", &client])
        .status()
        .unwrap();
    assert!(changed.success());
    let sidecar = Sidecar::start(kafka.bootstrap(), &[QUICK, ("kafka.client_id", &client)]);
    let throttle = "outrigger_kafka_throttle_seconds_total";
    let of = [("client", "producer"), ("broker", "1")];
    let mut publisher = sidecar.publisher().await;
    let begun = Instant::now();
    while Scrape::of(&sidecar).sum(throttle, &of).unwrap_or(0.0) == 0.0 {
        assert!(begun.elapsed() < PATIENCE, "never throttled");
        let request = publish_request(vec![record(&topic, vec![0; 50_000])]);
        publisher.publish(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_topics_do_not_make_a_thousand_label_values() {
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("metrics.max_topics", "3")]);
    let mut real = Vec::new();
    for _ in 0..5 {
        real.push(kafka.topic("real", 1).await);
    }
    let mut publisher = sidecar.publisher().await;
    let absent = (0..1000).map(|number| record(&format!("absent-{number}"), "x"));
    let records = real.iter().map(|topic| record(topic, "x")).chain(absent);
    let answer = publisher.publish(publish_request(records.collect())).await;
    assert_eq!(answer.unwrap().into_inner().results.len(), 1005);
    let all = Scrape::of(&sidecar);
    let sent = "messaging_client_sent_messages_total";
    let labels = all.values(sent, "messaging_destination_name");
    assert_eq!(
        labels.len(),
        4,
        "three of their own and one for the rest: {labels:?}"
    );
    assert_eq!(all.sum(sent, &[]), Some(1005.0), "none is lost");
    assert!(labels.contains("_OTHER"));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_method_and_code_and_unknown_methods_are_one() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("calls", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[ALIASES]);
    let calls = "rpc_server_call_duration_seconds_count";
    let method = |name| ("rpc_method", name);
    let code = |code| ("rpc_response_status_code", code);

    // Everything stands at zero before the first call.
    let all = Scrape::of(&sidecar);
    assert_eq!(all.sum(calls, &[]), None);
    let handled = "grpc_server_handled_total";
    let publish = ("grpc_method", "Publish");
    let unavailable = [publish, ("grpc_code", "Unavailable")];
    assert_eq!(all.sum(handled, &unavailable), Some(0.0));
    assert_eq!(all.values(handled, "grpc_code").len(), 17);
    assert_eq!(all.values(handled, "grpc_service").len(), 7);

    let mut publisher = sidecar.publisher().await;
    let good = publish_request(vec![record(&topic, "x")]);
    publisher.publish(good.clone()).await.unwrap();
    publisher.publish(good).await.unwrap();
    let refused = publisher.publish(publish_request(Vec::new())).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let name = method("outrigger.v1.PublisherService/Publish");
    wait_for(&sidecar, calls, &[name, code("OK")], Some(2.0));
    wait_for(
        &sidecar,
        calls,
        &[name, code("INVALID_ARGUMENT")],
        Some(1.0),
    );

    // A stream that its caller ends is OK, one that he drops is cancelled.
    let mut stream = PublishStream::open(&sidecar, CONTINUE).await;
    stream
        .batch(vec![record(&topic, "x"), record(&topic, "y")])
        .await;
    stream.acks().await.unwrap();
    stream.batch(vec![record(&topic, "z")]).await;
    stream.acks().await.unwrap();
    let PublishStream {
        requests,
        mut responses,
        ..
    } = stream;
    drop(requests);
    while responses.message().await.unwrap().is_some() {}
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The connection goes with its runtime.
            let client = tokio::runtime::Runtime::new().unwrap();
            let stream = client.block_on(PublishStream::open(&sidecar, CONTINUE));
            drop(client);
            drop(stream);
        });
    });
    let name = method("outrigger.v1.PublisherService/PublishStream");
    wait_for(&sidecar, calls, &[name, code("OK")], Some(1.0));
    wait_for(&sidecar, calls, &[name, code("CANCELLED")], Some(1.0));

    let mut raw = tonic::client::Grpc::new(sidecar.channel().await);
    for path in [
        "/outrigger.v1.PublisherService/Nothing",
        "/no.such.Service/At",
    ] {
        raw.ready().await.unwrap();
        let codec =
            tonic_prost::ProstCodec::<proto::PublishRequest, proto::PublishResponse>::default();
        let request = tonic::Request::new(publish_request(Vec::new()));
        let answer = raw.unary(request, path.parse().unwrap(), codec).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    }
    let other = [
        method("_OTHER"),
        code("UNIMPLEMENTED"),
        ("error_type", "UNIMPLEMENTED"),
    ];
    wait_for(&sidecar, calls, &other, Some(2.0));
    assert_eq!(Scrape::of(&sidecar).values(calls, "rpc_method").len(), 3);

    let all = Scrape::of(&sidecar);
    let stream = ("grpc_method", "PublishStream");
    assert_eq!(all.sum("grpc_server_started_total", &[publish]), Some(3.0));
    assert_eq!(all.sum(handled, &[publish, ("grpc_code", "OK")]), Some(2.0));
    assert_eq!(
        all.sum(handled, &[stream, ("grpc_code", "Canceled")]),
        Some(1.0)
    );
    assert_eq!(
        all.sum("grpc_server_handling_seconds_count", &[publish]),
        Some(3.0)
    );
    assert_eq!(
        all.sum("grpc_server_msg_received_total", &[publish]),
        Some(3.0)
    );
    assert_eq!(all.sum("grpc_server_msg_sent_total", &[publish]), Some(2.0));
    // An open and two batches, and an open; a welcome and two answers, and a welcome if it was not dropped before.
    assert_eq!(
        all.sum("grpc_server_msg_received_total", &[stream]),
        Some(4.0)
    );
    let sent = all.sum("grpc_server_msg_sent_total", &[stream]);
    assert!(sent == Some(3.0) || sent == Some(4.0), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_room_and_who_is_refused_is_counted() {
    // Nobody answers there: what is admitted stays in flight.
    let settings = [
        ("publish.max_in_flight_records", "3"),
        ("publish.stream_window_records", "3"),
        // Long enough that the wait is seen.
        ("publish.max_wait", "8s"),
    ];
    let sidecar = Sidecar::start("127.0.0.1:1", &settings);
    let three = || publish_request((0..3).map(|_| record("t", "x")).collect());
    let mut publisher = sidecar.publisher().await;
    let held = tokio::spawn({
        let (mut publisher, request) = (publisher.clone(), three());
        async move { publisher.publish(request).await }
    });
    wait_for(
        &sidecar,
        "outrigger_publish_in_flight_records",
        &[],
        Some(3.0),
    );
    let refused = tokio::spawn({
        let request = three();
        async move { publisher.publish(request).await }
    });
    wait_for(
        &sidecar,
        "outrigger_publish_waiting_batches",
        &[],
        Some(1.0),
    );
    assert_eq!(
        refused.await.unwrap().unwrap_err().code(),
        Code::ResourceExhausted
    );
    let all = Scrape::of(&sidecar);
    let full = [("reason", "PUBLISH_BUFFER_FULL")];
    assert_eq!(
        all.sum("outrigger_grpc_refused_total", &full),
        Some(1.0),
        "a call"
    );
    assert_eq!(
        all.sum("outrigger_publish_failures_total", &full),
        Some(3.0),
        "its records"
    );
    assert_eq!(all.sum("outrigger_publish_waiting_batches", &[]), Some(0.0));
    assert_eq!(
        all.sum("outrigger_publish_in_flight_limit_records", &[]),
        Some(3.0)
    );
    assert!(all.sum("outrigger_publish_oldest_in_flight_seconds", &[]) >= Some(8.0));
    held.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_shows_how_long_it_may_take() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("drains", 1).await;
    fill_topic(kafka.bootstrap(), &topic, 1, ["x".to_owned()].into_iter());
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("drain.deadline", "60s")]);
    assert_eq!(
        Scrape::of(&sidecar).sum("outrigger_draining", &[]),
        Some(0.0)
    );
    let mut subscription =
        Subscription::open(&sidecar, init(&fresh("g"), &[&topic], UNORDERED)).await;
    let held = subscription.take(1).await;
    let mut admin = sidecar.admin().await;
    let drain = tokio::spawn(async move { admin.drain(proto::DrainRequest::default()).await });
    wait_for(&sidecar, "outrigger_draining", &[], Some(1.0));
    let left = Scrape::of(&sidecar)
        .sum("outrigger_drain_left_seconds", &[])
        .unwrap();
    assert!(left > 1.0 && left < 60.0, "{left}");
    subscription.ack(&held).await;
    drain.await.unwrap().unwrap();
}

/// What the traffic below does not bring about.
const UNSEEN: &[&str] = &[
    // Brokers that refuse the sidecar are another test's.
    "outrigger_kafka_refusals_total",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_table_and_a_live_sidecar_name_the_same_metrics() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("table", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[QUICK, ALIASES]);
    let mut publisher = sidecar.publisher().await;
    let both = vec![record(&topic, "x"), record(&fresh("absent"), "x")];
    publisher.publish(publish_request(both)).await.unwrap();
    let mut raw = Subscription::raw(&sidecar).await;
    raw.send(proto::subscribe_request::Message::Ping(proto::Ping {
        id: 1,
    }))
    .await;
    assert!(raw.next().await.is_err(), "a stream that fails");
    let mut subscription =
        Subscription::open(&sidecar, init(&fresh("g"), &[&topic], UNORDERED)).await;
    let deliveries = subscription.take(1).await;
    subscription.ack(&deliveries).await;
    let sampled =
        |all: &Scrape, metric: &outrigger::metrics::Metric| all.kinds.contains_key(metric.name);
    wait_until(&sidecar, "outrigger_", "every metric of the table", |all| {
        table().all(|metric| UNSEEN.contains(&metric.name) || sampled(all, metric))
    });
    let all = Scrape::of(&sidecar);
    for (name, labels, _) in &all.samples {
        let metric = table()
            .find(|metric| {
                let rest = name.strip_prefix(metric.name);
                match metric.kind {
                    Kind::Histogram => matches!(rest, Some("_bucket" | "_sum" | "_count")),
                    Kind::Counter | Kind::Gauge => rest == Some(""),
                }
            })
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        let kind = format!("{:?}", metric.kind).to_lowercase();
        assert_eq!(all.kinds.get(metric.name), Some(&kind), "{name}");
        for label in labels.keys() {
            assert!(
                metric.labels.contains(&label.as_str()) || label == "le",
                "{name} has the label {label}, which the table does not know"
            );
        }
    }
    let names: BTreeSet<_> = table().map(|metric| metric.name).collect();
    assert_eq!(names.len(), table().count(), "each name stands once");
    for metric in table() {
        let is_total = metric.name.ends_with("_total");
        assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
    }
    assert!(UNSEEN.iter().all(|name| names.contains(name)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_switch_there_are_no_aliases_and_without_statistics_nothing_of_them() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("none", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("metrics.statistics_interval", "0s")]);
    let request = publish_request(vec![record(&topic, "x")]);
    sidecar.publisher().await.publish(request).await.unwrap();
    let mut subscription =
        Subscription::open(&sidecar, init(&fresh("g"), &[&topic], UNORDERED)).await;
    let deliveries = subscription.take(1).await;
    subscription.ack(&deliveries).await;
    wait_for(
        &sidecar,
        "kafka_consumer_records_consumed_total",
        &[],
        Some(1.0),
    );
    let all = Scrape::of(&sidecar);
    for name in all.kinds.keys() {
        for absent in [
            "grpc_server_",
            "kafka_consumergroup_",
            "outrigger_kafka_broker_",
        ] {
            assert!(!name.starts_with(absent), "{name}");
        }
    }
}
