//! Nobody takes all the room: not the streams of a partition that has no leader, not one caller of many calls.

use std::time::{Duration, Instant};

use outrigger::grpc::proto::{self, record_note::Note};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

use crate::{
    client::{PublishStream, publish_request, read_topic, reason, record},
    kafka::{Kafka, fresh},
    sidecar::{PATIENCE, Sidecar},
};

const IN_FLIGHT: &str = "outrigger_publish_in_flight_records";
const REFUSED: &str = "outrigger_publish_failures_total{reason=\"PUBLISH_BUFFER_FULL\"}";

/// A topic whose partitions are on one broker each.
async fn apart(kafka: &Kafka, brokers: &[&[i32]]) -> String {
    let topic = fresh("apart");
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .create()
        .unwrap();
    let new = NewTopic::new(
        &topic,
        brokers.len() as i32,
        TopicReplication::Variable(brokers),
    )
    .set("min.insync.replicas", "1");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let results = admin.create_topics([&new], &options).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    topic
}

fn keyed(topic: &str, partition: Option<i32>, key: &str) -> proto::Record {
    proto::Record {
        partition,
        key: Some(key.to_owned().into()),
        ..record(topic, "x")
    }
}

/// A key that goes to this partition, seen by publishing.
async fn key_of(sidecar: &Sidecar, topic: &str, partition: i32) -> String {
    let mut client = sidecar.publisher().await;
    for number in 0.. {
        let key = number.to_string();
        let request = publish_request(vec![keyed(topic, None, &key)]);
        let answer = client.publish(request).await.unwrap().into_inner();
        let Some(proto::publish_result::Result::Published(published)) = &answer.results[0].result
        else {
            panic!("{answer:?}");
        };
        if published.partition == partition {
            return key;
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_to_a_partition_without_a_leader_leave_room_for_the_others() {
    let kafka = tokio::task::block_in_place(|| Kafka::start(3, &[]));
    let topic = apart(&kafka, &[&[1], &[2]]).await;
    let settings = [
        ("publish.max_in_flight_records", "200"),
        ("publish.stream_window_records", "200"),
        ("publish.max_wait", "2s"),
        ("metrics.statistics_interval", "100ms"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let stuck = key_of(&sidecar, &topic, 1).await;
    // How many partitions there are is known by the statistics.
    tokio::time::sleep(Duration::from_secs(1)).await;
    kafka.tell("pause 2");

    let mut streams = Vec::new();
    for number in 0..20 {
        let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
        // Some by number, some by a key.
        let partition = (number % 2 == 0).then_some(1);
        for _ in 0..20 {
            stream.batch(vec![keyed(&topic, partition, &stuck)]).await;
        }
        streams.push(stream);
    }
    // All of them together have half; each alone, but for the partition, would have its share: 190.
    sidecar.wait_for_metric(IN_FLIGHT, 100.0).await;
    let begun = Instant::now();
    let mut healthy = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    for _ in 0..100 {
        healthy.batch(vec![keyed(&topic, Some(0), "k"); 20]).await;
        let acks = healthy.acks().await.unwrap();
        assert!(acks[0].notes.is_empty(), "{acks:?}");
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert_eq!(sidecar.metric(IN_FLIGHT), 100.0);
    // Nor does librdkafka run without pause for what that broker does not answer.
    let before = sidecar.cpu();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let taken = sidecar.cpu() - before;
    assert!(taken < Duration::from_millis(600), "{taken:?}");

    // Who waits for room is told so after publish.max_wait, and when to come back.
    sidecar.wait_for_metric(REFUSED, 300.0).await;
    kafka.tell("resume 2");
    let (mut refused, mut written) = (0, 0);
    for stream in &mut streams {
        let mut answers = Vec::new();
        while answers.len() < 20 {
            answers.extend(stream.acks().await.unwrap());
        }
        for answer in answers {
            let note = answer.notes.into_iter().find_map(|note| note.note);
            let Some(Note::Error(error)) = note else {
                written += 1;
                continue;
            };
            assert_eq!(error.reason(), proto::ErrorReason::PublishBufferFull);
            assert_eq!(error.persistence(), proto::Persistence::NotPersisted);
            assert!(error.retry_after.is_some());
            refused += 1;
        }
    }
    assert_eq!((refused, written), (300, 100));
    let log = read_topic(kafka.bootstrap(), &topic);
    assert!(log[&1].len() > 100, "what was answered is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unary_calls_of_a_connection_leave_room_for_those_of_another() {
    let kafka = tokio::task::block_in_place(|| Kafka::start(3, &[]));
    let topic = apart(&kafka, &[&[1], &[2]]).await;
    let settings = [
        ("publish.max_in_flight_records", "100"),
        ("publish.stream_window_records", "100"),
        ("publish.max_wait", "1s"),
        ("metrics.statistics_interval", "0s"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let client = sidecar.publisher().await;
    let call = |partition: i32, key: &str| {
        // Without the statistics nobody knows where a key goes.
        let record = match partition {
            0 => keyed(&topic, Some(0), key),
            _ => keyed(&topic, None, key),
        };
        let (mut client, request) = (client.clone(), publish_request(vec![record]));
        async move { client.publish(request).await }
    };
    let stuck = key_of(&sidecar, &topic, 1).await;
    kafka.tell("pause 2");
    let calls: Vec<_> = (0..100).map(|_| tokio::spawn(call(1, &stuck))).collect();
    sidecar.wait_for_metric(REFUSED, 50.0).await;
    assert_eq!(sidecar.metric(IN_FLIGHT), 50.0, "one has half");

    // The same connection has used up its share, another one has its own.
    let full = call(0, "k").await.unwrap_err();
    assert_eq!(reason(&full), "PUBLISH_BUFFER_FULL");
    let mut other = sidecar.publisher().await;
    let request = publish_request(vec![keyed(&topic, Some(0), "k")]);
    other.publish(request).await.unwrap();
    kafka.tell("resume 2");
    let mut written = 0;
    for call in calls {
        written += usize::from(call.await.unwrap().is_ok());
    }
    assert_eq!(written, 50);
}
