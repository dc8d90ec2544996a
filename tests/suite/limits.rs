//! Topics that take smaller batches than others (`max.message.bytes`): a record that is too large fails alone.

use std::collections::BTreeMap;

use outrigger::grpc::proto::{self, ErrorReason, Persistence, publish_result, record_note::Note};

use crate::{
    client::{PublishStream, publish_request, read_topic, reason, record},
    kafka::{Kafka, fresh},
    secured::{LIMITED, PASSWORD, Secured, allow_to, settings},
    sidecar::Sidecar,
};

const LIMIT: usize = 20_000;
const SENT_AGAIN: &str = "outrigger_publish_sent_again_records_total";
const SMALL: usize = 100;

/// Publishes a hundred small records, each from a connection of its own, and one that is larger than the topic allows, at once.
async fn publish_among_others(sidecar: &Sidecar, topic: &str) -> Vec<tonic::Status> {
    let mut calls = Vec::new();
    for number in 0..=SMALL {
        let mut client = sidecar.publisher().await;
        let value = match number {
            50 => "x".repeat(LIMIT * 3 / 2),
            _ => format!("small-{number}"),
        };
        let request = publish_request(vec![record(topic, value)]);
        calls.push(async move { client.publish(request).await });
    }
    let calls: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    let mut refused = Vec::new();
    for call in calls {
        if let Err(status) = call.await.unwrap() {
            refused.push(status);
        }
    }
    refused
}

#[track_caller]
fn only_the_large_one_fails(kafka: &Kafka, topic: &str, refused: &[tonic::Status]) {
    let reasons: Vec<_> = refused.iter().map(reason).collect();
    assert_eq!(reasons, ["RECORD_TOO_LARGE"]);
    let log = read_topic(kafka.bootstrap(), topic);
    let mut values: Vec<_> = log
        .into_values()
        .flatten()
        .map(|(_, value)| String::from_utf8(value.unwrap()).unwrap())
        .filter(|value| value.starts_with("small-"))
        .collect();
    values.sort();
    let mut expected: Vec<_> = (0..=SMALL)
        .filter(|number| *number != 50)
        .map(|number| format!("small-{number}"))
        .collect();
    expected.sort();
    assert_eq!(values, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_for_its_topic_fails_alone() {
    let kafka = Kafka::shared();
    let limit = LIMIT.to_string();
    let topic = kafka
        .topic_with("limited", 1, &[("max.message.bytes", &limit)])
        .await;
    // All are in one batch as far as the topic lets them.
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("publish.linger", "300ms")]);
    let refused = publish_among_others(&sidecar, &topic).await;
    only_the_large_one_fails(kafka, &topic, &refused);
    assert_eq!(sidecar.metric(SENT_AGAIN), 0.0, "the limit was known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_lowered_is_noticed_and_neighbours_are_sent_again() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("lowered", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("publish.linger", "300ms")]);
    let before = publish_request(vec![record(&topic, "before")]);
    sidecar.publisher().await.publish(before).await.unwrap();
    kafka.configure_topic(&topic, &format!("max.message.bytes={LIMIT}"));
    let refused = publish_among_others(&sidecar, &topic).await;
    only_the_large_one_fails(kafka, &topic, &refused);
    assert!(sidecar.metric(SENT_AGAIN) > 0.0);
    // Now it is known.
    let again = sidecar.metric(SENT_AGAIN);
    let request = publish_request(vec![
        record(&topic, "after"),
        record(&topic, "x".repeat(LIMIT * 3 / 2)),
    ]);
    let answer = sidecar.publisher().await.publish(request).await.unwrap();
    let results = answer.into_inner().results;
    assert!(
        matches!(
            results[0].result,
            Some(publish_result::Result::Published(_))
        ),
        "{results:?}"
    );
    assert_eq!(sidecar.metric(SENT_AGAIN), again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_may_not_be_asked_for_is_found_out() {
    let secured = Secured::shared();
    let limit = LIMIT.to_string();
    let topic = fresh("unasked");
    secured
        .kafka
        .create(&topic, 1, &[("max.message.bytes", &limit)])
        .await;
    let operations = ["Write", "Describe"];
    allow_to(&secured.kafka, LIMITED, &operations, &["--topic", &topic]);
    let mut pairs = secured.password("PLAIN", LIMITED, PASSWORD);
    pairs.extend(settings(&[("publish.linger", "300ms")]));
    let sidecar = secured.sidecar("SASL", &pairs);
    let refused = publish_among_others(&sidecar, &topic).await;
    only_the_large_one_fails(&secured.kafka, &topic, &refused);
    assert!(sidecar.metric(SENT_AGAIN) > 0.0);
}

/// Records of one stream behind the refused batch are on their way already: whatever becomes of its neighbours, order and answers hold.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_neighbour_overtakes_and_every_answer_is_true() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("lowered-under-load", 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    const BATCHES: u64 = 400;
    const SIZE: usize = 25;
    stream.batch(vec![record(&topic, "0 before")]).await;
    stream.acks().await.unwrap();
    let (requests, topic_of) = (stream.requests.clone(), topic.clone());
    kafka.configure_topic(&topic, &format!("max.message.bytes={LIMIT}"));
    let sender = tokio::spawn(async move {
        for sequence in 2..BATCHES + 2 {
            let records = (0..SIZE).map(|index| {
                let number = (sequence as usize - 2) * SIZE + index + 1;
                let padding = match number % 1000 == 500 {
                    true => LIMIT * 3 / 2,
                    false => 10,
                };
                proto::Record {
                    key: Some(format!("k{}", number % 5).into()),
                    ..record(&topic_of, format!("{number} {}", "x".repeat(padding)))
                }
            });
            let batch = proto::PublishBatch {
                sequence,
                records: records.collect(),
                ack_level: 0,
            };
            let message = proto::publish_stream_request::Message::Batch(batch);
            let request = proto::PublishStreamRequest {
                message: Some(message),
            };
            requests.send(request).await.unwrap();
        }
    });
    let mut answers = BTreeMap::new();
    let mut acked = 0;
    while acked < BATCHES {
        for ack in stream.acks().await.unwrap() {
            acked += 1;
            let base = (ack.sequence as usize - 2) * SIZE + 1;
            for index in 0..SIZE {
                let place = (ack.partitions[index], ack.offsets[index]);
                answers.insert(base + index, Ok(place));
            }
            for note in &ack.notes {
                let Some(Note::Error(error)) = &note.note else {
                    panic!("{note:?}");
                };
                assert_eq!(error.persistence(), Persistence::NotPersisted, "{error:?}");
                answers.insert(base + note.index as usize, Err(error.reason()));
            }
        }
    }
    sender.await.unwrap();
    let mut found = BTreeMap::new();
    for (partition, records) in read_topic(kafka.bootstrap(), &topic) {
        let mut last = None;
        for (offset, value) in records {
            let value = String::from_utf8(value.unwrap()).unwrap();
            let number: usize = value.split(' ').next().unwrap().parse().unwrap();
            assert!(last < Some(number), "{number} after {last:?}");
            last = Some(number);
            assert_eq!(found.insert(number, (partition, offset)), None, "doubled");
        }
    }
    found.remove(&0);
    assert_eq!(answers.len(), BATCHES as usize * SIZE);
    let mut failed = BTreeMap::<ErrorReason, u64>::new();
    for (number, answer) in answers {
        assert_eq!(found.get(&number).copied(), answer.ok(), "{number}");
        let is_large = number % 1000 == 500;
        match answer {
            Ok(_) => assert!(!is_large, "{number}"),
            // A large one among others was not alone to blame for all that is known.
            Err(reason) => {
                assert!(is_large || reason == ErrorReason::KafkaUnavailable);
                *failed.entry(reason).or_default() += 1;
            }
        }
    }
    assert!(
        failed.contains_key(&ErrorReason::RecordTooLarge),
        "{failed:?}"
    );
}
