//! What is different for some topics (`publish.topics`), as callers and real Kafka see it.

use std::time::{Duration, Instant};

use outrigger::grpc::proto::{self, ErrorReason, publish_result, record_note::Note};
use tonic::{Code, Status};

use crate::{
    client::{PublishStream, publish_request, reason, record},
    kafka::{Kafka, fresh},
    sidecar::Sidecar,
};

fn started(kafka: &Kafka, policies: &str) -> Sidecar {
    Sidecar::start(kafka.bootstrap(), &[("publish.topics", policies)])
}

async fn publish(sidecar: &Sidecar, record: proto::Record) -> Result<proto::Published, Status> {
    let request = publish_request(vec![record]);
    let answer = sidecar.publisher().await.publish(request).await?;
    match answer.into_inner().results.remove(0).result {
        Some(publish_result::Result::Published(published)) => Ok(published),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_may_be_denied_and_may_have_its_own_largest_record() {
    let kafka = Kafka::shared();
    let (open, small) = (kafka.topic("open", 1).await, kafka.topic("small", 1).await);
    let policies = format!(
        "[{{topics: ['small-*'], max_record_bytes: 10}}, {{topics: ['{open}']}}, {{topics: ['*'], allow: false}}]"
    );
    let sidecar = started(kafka, &policies);
    publish(&sidecar, record(&open, "x".repeat(11)))
        .await
        .unwrap();
    publish(&sidecar, record(&small, "x".repeat(10)))
        .await
        .unwrap();
    let large = publish(&sidecar, record(&small, "x".repeat(11)))
        .await
        .unwrap_err();
    assert_eq!(reason(&large), "RECORD_TOO_LARGE");
    assert!(
        large.message().contains("the limit is 10 (publish.topics)"),
        "{large:?}"
    );
    let denied = publish(&sidecar, record(&fresh("other"), "x"))
        .await
        .unwrap_err();
    assert_eq!(
        (denied.code(), reason(&denied)),
        (Code::PermissionDenied, "NOT_ALLOWED".to_owned())
    );
    assert!(denied.message().contains("(publish.topics)"), "{denied:?}");
    // On a stream it keeps its batch from being sent.
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    let records = [&open, "other", &small].map(|topic| record(topic, "x"));
    stream.batch(records.to_vec()).await;
    let acks = stream.acks().await.unwrap();
    let Some(Note::Error(error)) = &acks[0].notes[1].note else {
        panic!("{acks:?}");
    };
    assert_eq!(error.reason(), ErrorReason::NotAllowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_compressed_and_its_keys_are_placed_as_its_policy_says() {
    let kafka = Kafka::shared();
    // What the broker takes shows how it was sent.
    let limit = [("max.message.bytes", "2000")];
    let (zstd, plain) = (
        kafka.topic_with("zstd", 1, &limit).await,
        kafka.topic_with("plain", 1, &limit).await,
    );
    let placed = kafka.topic("crc32", 7).await;
    let policies = "[{topics: ['zstd-*'], compression: zstd, compression_level: 1}, {topics: ['crc32-*'], partitioner: consistent_random}]";
    let sidecar = started(kafka, policies);
    publish(&sidecar, record(&zstd, "x".repeat(10_000)))
        .await
        .unwrap();
    let refused = publish(&sidecar, record(&plain, "x".repeat(10_000)))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "RECORD_TOO_LARGE");
    // The CRC-32 of each, modulo seven.
    for (key, partition) in [("123456789", 5), ("abc", 5), ("foobar", 6), ("21", 6)] {
        let keyed = proto::Record {
            key: Some(key.into()),
            ..record(&placed, "x")
        };
        let published = publish(&sidecar, keyed).await.unwrap();
        assert_eq!(published.partition, partition, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_may_give_up_sooner_than_the_others() {
    let kafka = tokio::task::block_in_place(|| Kafka::start(1, &[]));
    let (hasty, patient) = (
        kafka.topic("hasty", 1).await,
        kafka.topic("patient", 1).await,
    );
    let sidecar = started(&kafka, "[{topics: ['hasty-*'], delivery_timeout: 3s}]");
    for topic in [&hasty, &patient] {
        publish(&sidecar, record(topic, "before")).await.unwrap();
    }
    kafka.tell("pause 1");
    let waiting = publish(&sidecar, record(&patient, "x"));
    let begun = Instant::now();
    tokio::select! {
        answer = waiting => panic!("{answer:?}"),
        answer = publish(&sidecar, record(&hasty, "x")) => {
            assert_eq!(reason(&answer.unwrap_err()), "DELIVERY_TIMEOUT");
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    kafka.tell("resume 1");
}
