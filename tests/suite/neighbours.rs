//! Batches that a broker refuses for the sake of one record: only that one fails.

use std::collections::BTreeMap;

use outrigger::grpc::proto::{self, ErrorReason, Persistence, record_note::Note};

use crate::{
    client::{PublishStream, publish_request, read_topic, reason, record},
    kafka::Kafka,
    sidecar::Sidecar,
};

const INNOCENT: usize = 100;

/// Publishes a hundred records with keys, each from a connection of its own, and a guilty one among them, at once. Gives what failed.
pub async fn publish_among_others(sidecar: &Sidecar, guilty: proto::Record) -> Vec<tonic::Status> {
    let mut calls = Vec::new();
    for number in 0..=INNOCENT {
        let mut client = sidecar.publisher().await;
        let record = match number {
            50 => guilty.clone(),
            _ => proto::Record {
                key: Some(number.to_string().into()),
                ..record(&guilty.topic, format!("innocent-{number}"))
            },
        };
        let request = publish_request(vec![record]);
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
pub fn only_the_guilty_fails(
    kafka: &Kafka,
    topic: &str,
    refused: &[tonic::Status],
    expected: &str,
) {
    let reasons: Vec<_> = refused.iter().map(reason).collect();
    assert_eq!(reasons, [expected], "{refused:?}");
    let log = read_topic(kafka.bootstrap(), topic);
    let mut values: Vec<_> = log
        .into_values()
        .flatten()
        .map(|(_, value)| String::from_utf8(value.unwrap()).unwrap())
        .filter(|value| value.starts_with("innocent-"))
        .collect();
    values.sort();
    let mut expected: Vec<_> = (0..=INNOCENT)
        .filter(|number| *number != 50)
        .map(|number| format!("innocent-{number}"))
        .collect();
    expected.sort();
    assert_eq!(values, expected);
}

/// Publishes ten thousand records by one stream, every thousandth of which is made guilty. Those behind a refused batch are on their way
/// already: whatever becomes of its neighbours, order and answers hold.
pub async fn under_load(
    kafka: &Kafka,
    sidecar: &Sidecar,
    topic: &str,
    make_guilty: fn(&mut proto::Record),
    expected: ErrorReason,
) {
    const BATCHES: u64 = 400;
    const SIZE: usize = 25;
    let is_guilty = |number: usize| number % 1000 == 500;
    let mut stream = PublishStream::open(sidecar, proto::FailureMode::Continue).await;
    let (requests, topic_of) = (stream.requests.clone(), topic.to_owned());
    let sender = tokio::spawn(async move {
        for sequence in 1..=BATCHES {
            let records = (0..SIZE).map(|index| {
                let number = (sequence as usize - 1) * SIZE + index + 1;
                let mut record = proto::Record {
                    key: Some(format!("k{}", number % 5).into()),
                    ..record(&topic_of, format!("{number} xxxxxxxxxx"))
                };
                if is_guilty(number) {
                    make_guilty(&mut record);
                }
                record
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
            let base = (ack.sequence as usize - 1) * SIZE + 1;
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
    for (partition, records) in read_topic(kafka.bootstrap(), topic) {
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
        match answer {
            Ok(_) => assert!(!is_guilty(number), "{number}"),
            // A guilty one among others was not alone to blame for all that is known.
            Err(reason) => {
                assert!(
                    is_guilty(number) || reason == ErrorReason::KafkaUnavailable,
                    "{number}: {reason:?}"
                );
                *failed.entry(reason).or_default() += 1;
            }
        }
    }
    eprintln!("{failed:?}");
    assert!(failed.contains_key(&expected), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_key_fails_alone_in_a_compacted_topic() {
    let kafka = Kafka::shared();
    let settings = [("cleanup.policy", "compact")];
    let topic = kafka.topic_with("compacted", 1, &settings).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("publish.linger", "300ms")]);
    let refused = publish_among_others(&sidecar, record(&topic, "no key")).await;
    only_the_guilty_fails(kafka, &topic, &refused, "INVALID_RECORD");
    let words = refused[0].message();
    assert!(
        words.contains("is compacted, and takes none without a key"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_another_time_fails_alone() {
    let kafka = Kafka::shared();
    let settings = [("message.timestamp.after.max.ms", "60000")];
    let topic = kafka.topic_with("timely", 1, &settings).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("publish.linger", "300ms")]);
    let guilty = proto::Record {
        timestamp: Some(prost_types::Timestamp {
            seconds: 4_000_000_000,
            nanos: 0,
        }),
        ..record(&topic, "from the future")
    };
    let refused = publish_among_others(&sidecar, guilty).await;
    only_the_guilty_fails(kafka, &topic, &refused, "INVALID_RECORD");
    let words = refused[0].message();
    assert!(words.contains("message.timestamp.after.max.ms"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_invalid_records_fail_and_every_answer_is_true() {
    let kafka = Kafka::shared();
    let settings = [("cleanup.policy", "compact")];
    let topic = kafka.topic_with("compacted-under-load", 2, &settings).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let without_key = |record: &mut proto::Record| record.key = None;
    under_load(
        kafka,
        &sidecar,
        &topic,
        without_key,
        ErrorReason::InvalidRecord,
    )
    .await;
}
