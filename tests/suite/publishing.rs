//! Publishing: truthful answers, order, and what a fault does to them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use outrigger::grpc::proto::{self, publish_result, publish_stream_response::Message, record_note};
use tokio::sync::Semaphore;

use crate::{
    client::{PublishStream, patient, persistence, publish_request, read_topic, reason, record},
    kafka::{Kafka, fresh},
    sidecar::{PATIENCE, Sidecar},
};

fn error(note: &proto::RecordNote) -> &proto::RecordError {
    match note.note.as_ref().expect("a note") {
        record_note::Note::Error(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_publish_is_answered_with_where_and_when_each_record_is() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("unary", 3).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut stamped = record(&topic, "stamped");
    stamped.partition = Some(2);
    stamped.timestamp = Some(prost_types::Timestamp {
        seconds: 1_700_000_000,
        nanos: 5_000_000,
    });
    let request = publish_request(vec![
        stamped.clone(),
        stamped.clone(),
        record(&topic, "plain"),
    ]);
    let answer = sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .unwrap()
        .into_inner();
    let published: Vec<_> = answer
        .results
        .into_iter()
        .map(|result| match result.result {
            Some(publish_result::Result::Published(published)) => published,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((published[0].partition, published[0].offset), (2, Some(0)));
    assert_eq!((published[1].partition, published[1].offset), (2, Some(1)));
    assert_eq!(published[0].timestamp, stamped.timestamp);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let stamp = published[2]
        .timestamp
        .expect("stamped when it was admitted")
        .seconds as u64;
    assert!(stamp.abs_diff(now) < 60, "{stamp} {now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_the_order_of_each_partition_and_reports_true_offsets() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("order", 4).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    const BATCHES: usize = 50;
    const SIZE: usize = 40;
    for batch in 0..BATCHES {
        let records = (0..SIZE)
            .map(|index| {
                let mut record = record(&topic, format!("{}", batch * SIZE + index));
                record.key = Some(format!("key-{}", index % 7).into());
                record
            })
            .collect();
        stream.batch(records).await;
    }
    let mut reported = vec![None; BATCHES * SIZE];
    let mut left = BATCHES;
    while left > 0 {
        for ack in stream.acks().await.unwrap() {
            assert!(ack.notes.is_empty(), "{ack:?}");
            left -= 1;
            for (index, (partition, offset)) in ack.partitions.iter().zip(&ack.offsets).enumerate()
            {
                let place = &mut reported[(ack.sequence as usize - 1) * SIZE + index];
                assert!(
                    place.replace((*partition, *offset)).is_none(),
                    "answered twice"
                );
            }
        }
    }
    let log = read_topic(kafka.bootstrap(), &topic);
    assert_eq!(log.values().map(Vec::len).sum::<usize>(), BATCHES * SIZE);
    for (partition, records) in log {
        let numbers: Vec<usize> = records
            .iter()
            .map(|(_, value)| {
                String::from_utf8(value.clone().unwrap())
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert!(numbers.is_sorted(), "partition {partition} is out of order");
        for ((offset, _), number) in records.iter().zip(numbers) {
            assert_eq!(
                reported[number],
                Some((partition, *offset)),
                "record {number}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_is_answered_soon_and_not_created() {
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut client = sidecar.publisher().await;
    let nowhere = fresh("nowhere");
    for _ in 0..2 {
        let begun = Instant::now();
        let request = publish_request(vec![record(&nowhere, "x")]);
        let status = client.publish(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
        assert_eq!(reason(&status), "TOPIC_NOT_FOUND");
        assert_eq!(persistence(&status), "NOT_PERSISTED");
        assert!(
            begun.elapsed() < PATIENCE / 2,
            "not about as long as any record may take: {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_does_not_exist_is_refused_and_its_neighbours_are_not() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("partitions", 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut client = sidecar.publisher().await;
    let mut wrong = record(&topic, "wrong");
    wrong.partition = Some(2);
    let request = publish_request(vec![wrong.clone()]);
    let status = client.publish(request).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::NotFound, "PARTITION_NOT_FOUND")
    );
    let request = publish_request(vec![record(&topic, "right"), wrong]);
    let results = client.publish(request).await.unwrap().into_inner().results;
    assert!(matches!(
        results[0].result,
        Some(publish_result::Result::Published(_))
    ));
    let Some(publish_result::Result::Error(error)) = &results[1].result else {
        panic!("{:?}", results[1]);
    };
    assert_eq!(error.reason(), proto::ErrorReason::PartitionNotFound);
    assert_eq!(error.persistence(), proto::Persistence::NotPersisted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_broker_refuses_is_answered_as_too_large_and_not_written() {
    let kafka = Kafka::shared();
    let topic = kafka
        .topic_with("small", 1, &[("max.message.bytes", "2000")])
        .await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let request = publish_request(vec![record(&topic, vec![b'x'; 10_000])]);
    let status = sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::InvalidArgument, "RECORD_TOO_LARGE")
    );
    assert_eq!(persistence(&status), "NOT_PERSISTED");
    assert!(read_topic(kafka.bootstrap(), &topic)[&0].is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_record_that_is_allowed_is_published() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("largest", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let request = publish_request(vec![record(&topic, vec![b'x'; 1_000_000])]);
    sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .expect("as large as publish.max_record_bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_on_failure_sends_nothing_after_the_first_failure() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("stop", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::StopOnFailure).await;
    stream.batch(vec![record(&topic, "first")]).await;
    assert!(stream.acks().await.unwrap()[0].notes.is_empty());
    let mut wrong = record(&topic, "wrong");
    wrong.partition = Some(9);
    stream.batch(vec![wrong]).await;
    stream.batch(vec![record(&topic, "never")]).await;
    let mut answered = 0;
    let status = loop {
        match stream.acks().await {
            Ok(acks) => {
                for ack in acks {
                    answered += 1;
                    let error = error(&ack.notes[0]);
                    assert_eq!(error.persistence(), proto::Persistence::NotPersisted);
                    let expected = if ack.sequence == 2 {
                        proto::ErrorReason::PartitionNotFound
                    } else {
                        proto::ErrorReason::PreconditionFailed
                    };
                    assert_eq!(error.reason(), expected);
                }
            }
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&status), "PARTITION_NOT_FOUND");
    assert!(
        answered >= 1,
        "the failing batch is answered before the stream ends"
    );
    let log = read_topic(kafka.bootstrap(), &topic);
    assert_eq!(log[&0].len(), 1, "only the first record is in Kafka");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_record_keeps_its_batch_out_and_the_stream_goes_on() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("bad", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    stream
        .batch(vec![
            record(&topic, "innocent"),
            record("not a topic", "guilty"),
        ])
        .await;
    let acks = stream.acks().await.unwrap();
    assert_eq!(acks[0].partitions, [-1, -1]);
    assert_eq!(
        error(&acks[0].notes[0]).reason(),
        proto::ErrorReason::InvalidRequest
    );
    assert_eq!(
        error(&acks[0].notes[1]).reason(),
        proto::ErrorReason::InvalidRecord
    );
    stream.batch(vec![record(&topic, "later")]).await;
    assert_eq!(stream.acks().await.unwrap()[0].offsets, [0]);
}

/// A publisher that goes on until told to stop.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    /// Publishes numbered records through a stream; returns what was answered, by number.
    async fn publish(&self, sidecar: &Sidecar, topic: &str) -> Vec<(i32, i64)> {
        let mut stream = PublishStream::open(sidecar, proto::FailureMode::Continue).await;
        let mut answered: Vec<Option<(i32, i64)>> = Vec::new();
        let mut open = 0;
        let mut sent = 0;
        let goes_on = || !self.stop.load(Ordering::Relaxed);
        while goes_on() || open > 0 {
            while open < 20 && goes_on() {
                let records = (0..10)
                    .map(|index| {
                        let mut record = record(topic, format!("{}", sent + index));
                        record.key = Some(format!("{}", (sent + index) % 5).into());
                        record
                    })
                    .collect();
                stream.batch(records).await;
                answered.resize(sent + 10, None);
                sent += 10;
                open += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            for ack in stream.acks().await.expect("no caller sees an error") {
                assert!(ack.notes.is_empty(), "no record sees an error: {ack:?}");
                open -= 1;
                for (index, place) in ack.partitions.into_iter().zip(ack.offsets).enumerate() {
                    answered[(ack.sequence as usize - 1) * 10 + index] = Some(place);
                }
                self.answered.fetch_add(10, Ordering::Relaxed);
            }
        }
        answered
            .into_iter()
            .map(|place| place.expect("every record is answered"))
            .collect()
    }

    /// Waits until many more records are answered: more than can be under way.
    async fn goes_on(&self) {
        let (begun, before) = (Instant::now(), self.answered.load(Ordering::Relaxed));
        while self.answered.load(Ordering::Relaxed) < before + 500 {
            assert!(begun.elapsed() < PATIENCE, "publishing does not go on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn check_exactly_once(kafka: &Kafka, topic: &str, answered: &[(i32, i64)]) {
    let log = read_topic(kafka.bootstrap(), topic);
    let mut seen = vec![0; answered.len()];
    for (partition, records) in log {
        let mut last = None;
        for (offset, value) in records {
            let number: usize = String::from_utf8(value.unwrap()).unwrap().parse().unwrap();
            seen[number] += 1;
            assert!(
                last.is_none_or(|last| last < number),
                "partition {partition} is out of order at {offset}"
            );
            last = Some(number);
            let (told_partition, told_offset) = answered[number];
            // An unknown offset is told as -1.
            assert!(
                (told_partition, told_offset) == (partition, offset)
                    || (told_partition == partition && told_offset == -1),
                "record {number} is at {partition}/{offset}, told {told_partition}/{told_offset}"
            );
        }
    }
    assert!(
        seen.iter().all(|count| *count == 1),
        "lost or doubled: {:?}",
        seen.iter().filter(|c| **c != 1).count()
    );
}

const OUTAGE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_frozen_for_20_s_is_not_noticed_by_a_publisher() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("frozen", 3).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let load = Load::default();
    let (answered, ()) = tokio::join!(load.publish(&sidecar, &topic), async {
        load.goes_on().await;
        kafka.tell("pause 1");
        tokio::time::sleep(OUTAGE).await;
        kafka.tell("resume 1");
        load.goes_on().await;
        load.stop();
    });
    check_exactly_once(&kafka, &topic, &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_after_20_s_is_not_noticed_by_a_publisher() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("killed", 3).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let load = Load::default();
    let (answered, ()) = tokio::join!(load.publish(&sidecar, &topic), async {
        load.goes_on().await;
        kafka.tell("kill 1");
        tokio::time::sleep(OUTAGE).await;
        tokio::task::block_in_place(|| kafka.tell("start 1"));
        load.goes_on().await;
        load.stop();
    });
    check_exactly_once(&kafka, &topic, &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_move_among_three_brokers_are_not_noticed_by_a_publisher() {
    let kafka = Kafka::start(3, &[]);
    let topic = kafka.topic("leaders", 6).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let load = Load::default();
    let (answered, ()) = tokio::join!(load.publish(&sidecar, &topic), async {
        for broker in [1, 2] {
            load.goes_on().await;
            // A second one that is not in step would be an outage.
            tokio::task::block_in_place(|| kafka.tell("healthy"));
            kafka.tell(&format!("kill {broker}"));
            // With the others.
            load.goes_on().await;
            tokio::task::block_in_place(|| kafka.tell(&format!("start {broker}")));
        }
        load.goes_on().await;
        load.stop();
    });
    check_exactly_once(&kafka, &topic, &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_batch_that_was_too_late_none_of_its_stream_is_handed_over() {
    let kafka = Kafka::start(1, &[]);
    let (known, unseen) = (
        kafka.topic("known", 1).await,
        kafka.topic("unseen", 1).await,
    );
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let begun = Instant::now();
    let mut stream = PublishStream::within(&sidecar, "3S").await;
    // From the second turn on a stream hands more than one batch over at once.
    for value in ["first", "second"] {
        stream.batch(vec![record(&known, value)]).await;
        stream.acks().await.unwrap();
    }
    kafka.tell("pause 1");
    // The limit of the new topic is asked for, for a second: longer than the stream has.
    tokio::time::sleep_until((begun + Duration::from_millis(2300)).into()).await;
    stream.batch(vec![record(&unseen, "late")]).await;
    stream.batch(vec![record(&known, "behind it")]).await;
    let status = stream.acks().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status:?}");
    kafka.tell("resume 1");
    let request = publish_request(vec![record(&known, "after")]);
    patient(&sidecar).await.publish(request).await.unwrap();
    for (topic, expected) in [
        (&known, vec!["first", "second", "after"]),
        (&unseen, vec![]),
    ] {
        let log = read_topic(kafka.bootstrap(), topic);
        let values = log.into_values().flatten().map(|(_, value)| value.unwrap());
        let values: Vec<_> = values
            .map(|value| String::from_utf8(value).unwrap())
            .collect();
        assert_eq!(values, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_shorter_than_an_outage_gets_an_honest_answer_in_time() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("honest", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("publish.stream_grace", "1s")]);
    let mut client = sidecar.publisher().await;
    let request = |value: &str| publish_request(vec![record(&topic, value.to_owned())]);
    client.publish(request("before")).await.unwrap();
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    let unseen = kafka.topic("unseen", 1).await;
    kafka.tell("pause 1");
    // Its topic's limit is asked for before it is handed over, which takes longer than its caller waits.
    let hasty = proto::Record {
        message_id: "hasty".to_owned(),
        ..record(&unseen, "hasty")
    };
    let joins = publish_request(vec![hasty.clone()]);
    let mut hasty = tonic::Request::new(publish_request(vec![hasty]));
    hasty
        .metadata_mut()
        .insert("grpc-timeout", "500m".parse().unwrap());
    let joining = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        patient(&sidecar).await.publish(joins).await.unwrap_err()
    };
    let mut first = patient(&sidecar).await;
    let (status, joined) = tokio::join!(first.publish(hasty), joining);
    let status = status.unwrap_err();
    assert_eq!(
        reason(&joined),
        "KAFKA_UNAVAILABLE",
        "that is not its deadline"
    );
    assert_eq!(persistence(&joined), "NOT_PERSISTED");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::DeadlineExceeded, "DEADLINE")
    );
    assert_eq!(persistence(&status), "NOT_PERSISTED");
    let mut late = tonic::Request::new(request("during"));
    late.metadata_mut()
        .insert("grpc-timeout", "2S".parse().unwrap());
    let begun = Instant::now();
    let status = patient(&sidecar).await.publish(late).await.unwrap_err();
    let took = begun.elapsed();
    // A fifth of a second earlier than asked, as far as the sidecar is concerned.
    assert!(
        took >= Duration::from_millis(1800) && took < PATIENCE / 2,
        "{took:?}"
    );
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::DeadlineExceeded, "DEADLINE")
    );
    assert_eq!(persistence(&status), "POSSIBLY_PERSISTED");
    assert_eq!(
        status.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "-1"
    );
    // A stream that is broken off for its caller's mistake does not say that nothing was written.
    stream.batch(vec![record(&topic, "streamed")]).await;
    stream.sequence = 0;
    stream.batch(vec![record(&topic, "streamed")]).await;
    let status = stream.acks().await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_REQUEST");
    assert_eq!(persistence(&status), "POSSIBLY_PERSISTED");
    kafka.tell("resume 1");
    // It was handed over, so it gets there all the same: not cancelled, as it was said.
    client.publish(request("after")).await.unwrap();
    let values: Vec<_> = read_topic(kafka.bootstrap(), &topic)[&0]
        .iter()
        .map(|r| r.1.clone().unwrap())
        .collect();
    assert_eq!(
        values,
        ["before", "during", "streamed", "after"].map(|value| value.as_bytes().to_vec())
    );
    let hasty = read_topic(kafka.bootstrap(), &unseen);
    assert!(hasty.values().all(Vec::is_empty), "{hasty:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_bounded_and_a_caller_without_room_is_told_when_to_come_back() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("full", 1).await;
    let settings = [
        ("publish.max_in_flight_records", "100"),
        ("publish.stream_window_records", "100"),
        ("publish.max_wait", "500ms"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let request = |count: usize| publish_request(vec![record(&topic, "x"); count]);
    let mut client = sidecar.publisher().await;
    client.publish(request(1)).await.unwrap();
    kafka.tell("pause 1");
    let mut holder = client.clone();
    let held = tokio::spawn(async move { holder.publish(request_of(100, &topic)).await });
    while sidecar.metric("outrigger_publish_in_flight_records") < 100.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    let status = client.publish(request_of(1, "whatever")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::ResourceExhausted, "PUBLISH_BUFFER_FULL")
    );
    assert_eq!(persistence(&status), "NOT_PERSISTED");
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_some());
    assert!(begun.elapsed() >= Duration::from_millis(500));
    kafka.tell("resume 1");
    assert_eq!(held.await.unwrap().unwrap().into_inner().results.len(), 100);
    sidecar
        .wait_for_metric("outrigger_publish_in_flight_records", 0.0)
        .await;
}

fn request_of(count: usize, topic: &str) -> proto::PublishRequest {
    publish_request(vec![record(topic, "x"); count])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_sidecar_answers_every_record_that_it_was_handed() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("sigterm", 3).await;
    let mut sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    let requests = stream.requests.clone();
    // 500 batches of 10 are half the window.
    let window = Arc::new(Semaphore::new(500));
    let sent = tokio::spawn({
        let (topic, window) = (topic.clone(), Arc::clone(&window));
        async move {
            let mut sent = 0;
            for sequence in 1.. {
                let Ok(room) = window.acquire().await else {
                    break;
                };
                room.forget();
                let records = (0..10)
                    .map(|index| record(&topic, format!("{sequence}-{index}")))
                    .collect();
                let batch = proto::PublishBatch {
                    sequence,
                    records,
                    ack_level: 0,
                };
                let message = proto::publish_stream_request::Message::Batch(batch);
                if requests
                    .send(proto::PublishStreamRequest {
                        message: Some(message),
                    })
                    .await
                    .is_err()
                {
                    break;
                }
                sent = sequence;
                if sequence == 100_000 {
                    break;
                }
            }
            sent
        }
    });
    let (mut published, mut refused, mut draining) = (Vec::new(), 0, false);
    let mut signalled = false;
    let status = loop {
        if published.len() > 5000 && !signalled {
            sidecar.signal("TERM");
            signalled = true;
        }
        match stream.next().await {
            Some(Ok(Message::Acks(acks))) => {
                for ack in acks.acks {
                    window.add_permits(1);
                    match ack.notes.first() {
                        None => {
                            let sequence = ack.sequence;
                            published.extend(
                                ack.partitions
                                    .into_iter()
                                    .zip(ack.offsets)
                                    .enumerate()
                                    .map(|(index, place)| (place, format!("{sequence}-{index}"))),
                            );
                        }
                        Some(note) => {
                            refused += 1;
                            assert_eq!(error(note).reason(), proto::ErrorReason::Draining);
                            assert_eq!(error(note).persistence(), proto::Persistence::NotPersisted);
                        }
                    }
                }
            }
            Some(Ok(Message::Draining(_))) => {
                draining = true;
                // A well-behaved client stops sending; what it sent before is to be answered all the same.
                window.close();
            }
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(status)) => break Some(status),
            None => break None,
        }
    };
    assert!(draining, "the stream is told");
    let sent = sent.await.unwrap();
    assert_eq!(
        published.len() / 10 + refused,
        sent as usize,
        "every batch that was sent is answered"
    );
    if let Some(status) = status {
        assert_eq!(reason(&status), "DRAINING");
    }
    // A drain that came to its deadline would not be a success.
    let exit = sidecar.wait(PATIENCE);
    assert!(exit.success(), "{exit:?}");
    let log = read_topic(kafka.bootstrap(), &topic);
    let all: usize = log.values().map(Vec::len).sum();
    assert_eq!(
        all,
        published.len(),
        "what is in Kafka is what was answered as published ({refused} batches refused)"
    );
    for ((partition, offset), value) in published {
        assert_eq!(
            log[&partition][offset as usize].1.as_deref(),
            Some(value.as_bytes())
        );
    }
}
