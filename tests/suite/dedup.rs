//! Message ids: a retry inside the window has the first answer, and the topic one copy.

use std::time::Duration;

use outrigger::grpc::proto::{
    self, publish_result, publish_stream_response::Message, record_note::Note,
};
use tonic::{Code, Request, Status};

use crate::{
    client::{PublishStream, persistence, publish_request, read_topic, reason, record},
    commands::outrigger,
    kafka::Kafka,
    sidecar::{PATIENCE, Sidecar},
};

const DUPLICATES: &str = "outrigger_publish_duplicates_total";
const MESSAGE_IDS: &str = "outrigger_publish_message_ids";

fn with_id(topic: &str, id: &str, value: &str) -> proto::Record {
    proto::Record {
        message_id: id.to_owned(),
        ..record(topic, value.to_owned())
    }
}

/// Publishes records in one call, over a connection of its own; each is in Kafka.
async fn publish(sidecar: &Sidecar, records: Vec<proto::Record>) -> Vec<proto::Published> {
    let mut client = sidecar.publisher().await;
    let answer = client.publish(publish_request(records)).await.unwrap();
    let results = answer.into_inner().results.into_iter();
    results
        .map(|result| match result.result {
            Some(publish_result::Result::Published(published)) => published,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Publishes a record that fails.
async fn refused(sidecar: &Sidecar, record: proto::Record) -> Status {
    let request = publish_request(vec![record]);
    sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .unwrap_err()
}

/// The indexes of the records that an answer calls duplicates.
fn duplicates(ack: &proto::BatchAck) -> Vec<u32> {
    let notes = ack.notes.iter();
    notes
        .map(|note| match note.note {
            Some(Note::Duplicate(true)) => note.index,
            _ => panic!("{note:?}"),
        })
        .collect()
}

fn values(kafka: &Kafka, topic: &str) -> Vec<String> {
    let log = read_topic(kafka.bootstrap(), topic);
    let records = log.into_values().flatten();
    records
        .map(|(_, value)| String::from_utf8(value.unwrap()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_given_the_first_answer_and_nothing_is_sent_again() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("dedup", 3).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let stamped = |seconds| proto::Record {
        key: Some("k".into()),
        timestamp: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        ..with_id(&topic, "a", "first")
    };
    let first = publish(&sidecar, vec![stamped(1_700_000_000)]).await;
    assert!(!first[0].duplicate);
    // Whoever retries may have another clock, and another trace.
    let mut again = stamped(1_800_000_000);
    again.headers.push(proto::Header {
        name: "traceparent".into(),
        value: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    });
    let repeated = publish(&sidecar, vec![again.clone()]).await;
    let expected = proto::Published {
        duplicate: true,
        ..first[0]
    };
    assert_eq!(repeated, [expected]);
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::StopOnFailure).await;
    stream.batch(vec![again]).await;
    let acks = stream.acks().await.unwrap();
    assert_eq!(
        (acks[0].partitions[0], Some(acks[0].offsets[0])),
        (first[0].partition, first[0].offset)
    );
    assert_eq!(duplicates(&acks[0]), [0]);
    // The ids of another topic are others.
    let elsewhere = kafka.topic("dedup-elsewhere", 1).await;
    let other = publish(&sidecar, vec![with_id(&elsewhere, "a", "else")]).await;
    assert!(!other[0].duplicate);
    assert_eq!(values(kafka, &topic), ["first"]);
    assert_eq!(sidecar.metric(DUPLICATES), 2.0);
    assert_eq!(sidecar.metric(MESSAGE_IDS), 2.0);
    assert_eq!(sidecar.metric("outrigger_publish_records_total"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_joins_the_record_in_flight_and_needs_no_room() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("join", 1).await;
    let settings = [
        ("publish.max_in_flight_records", "3"),
        ("publish.stream_window_records", "3"),
        ("publish.max_wait", "500ms"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    publish(&sidecar, vec![record(&topic, "before")]).await;
    kafka.tell("pause 1");
    // Its caller does not wait for the answer; the record does.
    let mut late = Request::new(publish_request(vec![
        with_id(&topic, "a", "one"),
        with_id(&topic, "b", "two"),
        record(&topic, "three"),
    ]));
    late.set_timeout(Duration::from_millis(500));
    let results = match sidecar.publisher().await.publish(late).await {
        Ok(answer) => answer.into_inner().results,
        // The client's own clock was faster.
        Err(status) => {
            assert_eq!(status.code(), Code::Cancelled, "{status:?}");
            Vec::new()
        }
    };
    for result in results {
        let Some(publish_result::Result::Error(error)) = result.result else {
            panic!("{result:?}");
        };
        assert_eq!(error.reason(), proto::ErrorReason::Deadline);
    }
    let full = refused(&sidecar, with_id(&topic, "c", "four")).await;
    assert_eq!(reason(&full), "PUBLISH_BUFFER_FULL");
    let reused = refused(&sidecar, with_id(&topic, "a", "another")).await;
    assert_eq!(
        (reused.code(), reason(&reused).as_str()),
        (Code::AlreadyExists, "ID_REUSED")
    );
    assert_eq!(persistence(&reused), "NOT_PERSISTED");
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    stream.batch(vec![with_id(&topic, "b", "two")]).await;
    let joined = async {
        let records = vec![with_id(&topic, "b", "two"), with_id(&topic, "a", "one")];
        publish(&sidecar, records).await
    };
    let (joined, ()) = tokio::join!(joined, async {
        sidecar.wait_for_metric(DUPLICATES, 3.0).await;
        assert_eq!(sidecar.metric("outrigger_publish_in_flight_records"), 3.0);
        // As many wait as may be in flight.
        let crowded = refused(&sidecar, with_id(&topic, "a", "one")).await;
        assert_eq!(reason(&crowded), "PUBLISH_BUFFER_FULL");
        kafka.tell("resume 1");
    });
    let acks = stream.acks().await.unwrap();
    assert_eq!(
        (&*acks[0].offsets, duplicates(&acks[0])),
        (&[2][..], vec![0])
    );
    let told: Vec<_> = joined.iter().map(|p| (p.offset, p.duplicate)).collect();
    assert_eq!(told, [(Some(2), true), (Some(1), true)]);
    assert_eq!(values(&kafka, &topic), ["before", "one", "two", "three"]);
    let failures = "outrigger_publish_failures_total{reason=\"ID_REUSED\"}";
    assert_eq!(sidecar.metric(failures), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_records_and_known_ones_of_a_batch_are_answered_in_its_order() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("mixed", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    publish(&sidecar, vec![with_id(&topic, "known", "0")]).await;
    let batch = || {
        vec![
            record(&topic, "1"),
            with_id(&topic, "known", "0"),
            with_id(&topic, "new", "2"),
            with_id(&topic, "new", "2"),
            record(&topic, "3"),
            with_id(&topic, "known", "other"),
        ]
    };
    let mut client = sidecar.publisher().await;
    // A record that waited for its own batch would wait for ever.
    let answered = client.publish(publish_request(batch()));
    let answer = tokio::time::timeout(PATIENCE, answered).await;
    let answer = answer.expect("an answer in time").unwrap();
    let mut results = answer.into_inner().results;
    let Some(publish_result::Result::Error(error)) = results.pop().unwrap().result else {
        panic!("it has other content");
    };
    assert_eq!(error.reason(), proto::ErrorReason::IdReused);
    let told: Vec<_> = results
        .into_iter()
        .map(|result| match result.result {
            Some(publish_result::Result::Published(p)) => (p.offset.unwrap(), p.duplicate),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [(1, false), (0, true), (2, false), (2, true), (3, false)];
    assert_eq!(told, expected);
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    stream.batch(batch()[..5].to_vec()).await;
    stream.batch(batch()[1..4].to_vec()).await;
    let mut acks = stream.acks().await.unwrap();
    while acks.len() < 2 {
        acks.extend(stream.acks().await.unwrap());
    }
    acks.sort_by_key(|ack| ack.sequence);
    assert_eq!(acks[0].offsets, [4, 0, 2, 2, 5]);
    assert_eq!(duplicates(&acks[0]), [1, 2, 3]);
    assert_eq!(acks[1].offsets, [0, 2, 2]);
    assert_eq!(values(kafka, &topic), ["0", "1", "2", "3", "1", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_does_not_acknowledge_in_time_is_sent_once_and_a_retry_learns_what_became_of_it()
{
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("unknown", 1).await;
    let settings = [("publish.delivery_timeout", "5s")];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    publish(&sidecar, vec![record(&topic, "before")]).await;
    kafka.tell("pause 1");
    for attempt in 0..2 {
        let begun = std::time::Instant::now();
        let status = refused(&sidecar, with_id(&topic, "a", "lost?")).await;
        let took = begun.elapsed().as_secs_f64();
        assert!((5.0..15.0).contains(&took), "attempt {attempt}: {took} s");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(reason(&status), "DELIVERY_TIMEOUT");
        assert_eq!(persistence(&status), "POSSIBLY_PERSISTED");
        let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
        assert_eq!(pushback, "-1");
        assert_eq!(
            sidecar.metric("outrigger_publish_in_flight_records"),
            1.0,
            "it is still sent, and keeps its room"
        );
    }
    kafka.tell("resume 1");
    let told = publish(&sidecar, vec![with_id(&topic, "a", "lost?")]).await;
    assert_eq!((told[0].offset, told[0].duplicate), (Some(1), true));
    assert_eq!(sidecar.metric(DUPLICATES), 2.0);
    sidecar
        .wait_for_metric("outrigger_publish_in_flight_records", 0.0)
        .await;
    publish(&sidecar, vec![record(&topic, "after")]).await;
    assert_eq!(values(&kafka, &topic), ["before", "lost?", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_whose_record_was_not_written_is_free() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("freed", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let nowhere = proto::Record {
        partition: Some(7),
        ..with_id(&topic, "a", "x")
    };
    for _ in 0..2 {
        let status = refused(&sidecar, nowhere.clone()).await;
        assert_eq!(reason(&status), "PARTITION_NOT_FOUND");
    }
    assert_eq!(sidecar.metric(DUPLICATES), 0.0, "it was tried anew");
    let published = publish(&sidecar, vec![with_id(&topic, "a", "other")]).await;
    assert!(!published[0].duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_known_as_long_as_the_welcome_says() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("window", 1).await;
    let settings = [("publish.dedup_window", "3s")];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let mut stream = PublishStream::raw(&sidecar).await;
    let open = proto::PublishOpen::default();
    stream
        .send(proto::publish_stream_request::Message::Open(open))
        .await;
    let Some(Ok(Message::Welcome(welcome))) = stream.next().await else {
        panic!("a welcome comes first");
    };
    let window = Duration::try_from(welcome.dedup_window.unwrap()).unwrap();
    assert_eq!(window, Duration::from_secs(3));
    let begun = std::time::Instant::now();
    publish(&sidecar, vec![with_id(&topic, "a", "x")]).await;
    sidecar.wait_for_metric(MESSAGE_IDS, 0.0).await;
    assert!(begun.elapsed() >= window);
    let anew = publish(&sidecar, vec![with_id(&topic, "a", "x")]).await;
    assert_eq!((anew[0].offset, anew[0].duplicate), (Some(1), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_ids_than_are_kept_push_the_oldest_out() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("many-ids", 1).await;
    let settings = [("publish.dedup_max_ids", "2")];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    for id in ["a", "b", "c"] {
        publish(&sidecar, vec![with_id(&topic, id, id)]).await;
    }
    assert_eq!(sidecar.metric(MESSAGE_IDS), 2.0);
    let mut again = Vec::new();
    for id in ["b", "c", "a"] {
        let published = publish(&sidecar, vec![with_id(&topic, id, id)]).await;
        again.push((published[0].offset, published[0].duplicate));
    }
    assert_eq!(again, [(Some(1), true), (Some(2), true), (Some(3), false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_ids_are_kept_they_are_refused_by_the_name_of_the_setting() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("no-ids", 1).await;
    let settings = [("publish.dedup_window", "0s")];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let status = refused(&sidecar, with_id(&topic, "a", "x")).await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "FEATURE_NOT_AVAILABLE")
    );
    assert!(status.message().contains("publish.dedup_window"));
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    stream
        .batch(vec![record(&topic, "y"), with_id(&topic, "a", "x")])
        .await;
    let acks = stream.acks().await.unwrap();
    let Some(Note::Error(error)) = &acks[0].notes[1].note else {
        panic!("{acks:?}");
    };
    assert_eq!(error.reason(), proto::ErrorReason::FeatureNotAvailable);
    assert!(values(kafka, &topic).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_takes_an_id_and_says_what_is_a_duplicate() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("cli-ids", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let run = |arguments: &[&str], input: &str| {
        let arguments = [&["publish", topic.as_str()][..], arguments].concat();
        let output = outrigger(&sidecar, &arguments, input.as_bytes());
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let once = ["hello", "--message-id", "a"];
    assert_eq!(run(&once, ""), (Some(0), format!("{topic}[0]@0\n")));
    let again = (Some(0), format!("{topic}[0]@0 duplicate\n"));
    assert_eq!(run(&once, ""), again);
    let line = "{\"value\": \"hello\", \"message_id\": \"a\"}\n";
    let (code, text) = run(&["--json"], line);
    assert_eq!(code, Some(0));
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&answer["offset"], &answer["duplicate"]),
        (&0.into(), &true.into())
    );
    let (code, text) = run(&["one", "two", "--message-id", "b"], "");
    assert_eq!(
        (code, text.as_str()),
        (Some(2), ""),
        "an id is of one record"
    );
    assert_eq!(values(kafka, &topic), ["hello"]);
}
