//! Bad input: each mistake gets a clear error with its reason, the sidecar lives, and nothing is written.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use outrigger::grpc::proto::{
    self, publish_stream_request::Message as Publish, settle_item::Action,
    subscribe_request::Message as Subscribe,
};

use crate::{
    client::{
        PublishStream, Subscription, fill_topic, init, persistence, publish_request, read_topic,
        reason, record,
    },
    kafka::{Kafka, fresh},
    sidecar::Sidecar,
};

async fn refused(sidecar: &Sidecar, records: Vec<proto::Record>, expected: &str, field: &str) {
    use tonic_types::StatusExt;
    let request = publish_request(records);
    let status = sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::InvalidArgument, expected),
        "{status:?}"
    );
    assert_eq!(persistence(&status), "NOT_PERSISTED");
    let details = status.get_error_details();
    let fields: Vec<_> = details
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .map(|v| v.field.clone())
        .collect();
    assert_eq!(fields, [field]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_in_a_publish_is_told_and_nothing_is_written() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("mistakes", 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let good = || record(&topic, "good");
    let bad = |change: &dyn Fn(&mut proto::Record)| {
        let mut record = good();
        change(&mut record);
        vec![good(), record]
    };
    refused(&sidecar, vec![], "INVALID_REQUEST", "records").await;
    refused(
        &sidecar,
        bad(&|r| r.topic.clear()),
        "INVALID_RECORD",
        "records[1].topic",
    )
    .await;
    refused(
        &sidecar,
        bad(&|r| r.partition = Some(-1)),
        "INVALID_RECORD",
        "records[1].partition",
    )
    .await;
    refused(
        &sidecar,
        bad(&|r| r.headers = vec![proto::Header::default()]),
        "INVALID_RECORD",
        "records[1].headers[0].name",
    )
    .await;
    let large = bad(&|r| r.value = Some(vec![0; 1_000_001].into()));
    refused(&sidecar, large, "RECORD_TOO_LARGE", "records[1]").await;
    let time = Some(prost_types::Timestamp {
        seconds: 0,
        nanos: -5,
    });
    refused(
        &sidecar,
        bad(&|r| r.timestamp = time),
        "INVALID_RECORD",
        "records[1].timestamp",
    )
    .await;
    refused(
        &sidecar,
        bad(&|r| r.message_id = "x".repeat(257)),
        "INVALID_RECORD",
        "records[1].message_id",
    )
    .await;
    let request = proto::PublishRequest {
        records: vec![good()],
        ack_level: proto::AckLevel::SpoolAllowed.into(),
    };
    let status = sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "FEATURE_NOT_AVAILABLE");
    assert!(
        status.message().contains("ACK_LEVEL_SPOOL_ALLOWED"),
        "{}",
        status.message()
    );
    assert!(
        read_topic(kafka.bootstrap(), &topic)
            .values()
            .all(Vec::is_empty)
    );
    let request = publish_request(vec![good()]);
    sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .expect("the sidecar lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_mistake_ends_a_publish_stream_after_the_answers() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("protocol", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let batch = |sequence| {
        Publish::Batch(proto::PublishBatch {
            sequence,
            records: vec![record(&topic, "x")],
            ack_level: 0,
        })
    };
    let mut no_open = PublishStream::raw(&sidecar).await;
    no_open.send(batch(1)).await;
    let status = no_open.next().await.unwrap().unwrap_err();
    assert_eq!(reason(&status), "INVALID_REQUEST");
    assert!(status.message().contains("open"), "{}", status.message());

    for (second, field) in [
        (Publish::Open(proto::PublishOpen::default()), "open"),
        (batch(1), "batch.sequence"),
        (batch(0), "batch.sequence"),
    ] {
        let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
        stream.send(batch(1)).await;
        stream.send(second).await;
        let acks = stream
            .acks()
            .await
            .expect("what was handed over is answered first");
        assert_eq!(acks[0].sequence, 1);
        let status = stream.acks().await.unwrap_err();
        assert_eq!(reason(&status), "INVALID_REQUEST");
        assert!(status.message().contains(field), "{}", status.message());
    }
    let log = read_topic(kafka.bootstrap(), &topic);
    assert_eq!(log[&0].len(), 3, "only what was answered is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_subscription_asks_for_wrongly_or_too_early_is_refused_by_name() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("sub", 1).await;
    fill_topic(kafka.bootstrap(), &topic, 1, ["x".to_owned()].into_iter());
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let good = init(&group, &[&topic], proto::Ordering::Partition);
    let change = |change: &dyn Fn(&mut proto::Init)| {
        let mut init = good.clone();
        change(&mut init);
        Subscribe::Init(init)
    };
    for (first, expected, word) in [
        (
            change(&|init| init.ordering = 99),
            "FEATURE_NOT_AVAILABLE",
            "99",
        ),
        (
            change(&|init| init.group.clear()),
            "INVALID_REQUEST",
            "init.group",
        ),
        (
            change(&|init| init.topics.clear()),
            "INVALID_REQUEST",
            "init.topics",
        ),
        (
            Subscribe::Ping(proto::Ping { id: 1 }),
            "INVALID_REQUEST",
            "init",
        ),
    ] {
        let mut subscription = Subscription::raw(&sidecar).await;
        subscription.send(first).await;
        let status = subscription.next().await.unwrap_err();
        assert_eq!(reason(&status), expected, "{status:?}");
        assert!(
            status.message().contains(word),
            "{} has no {word}",
            status.message()
        );
    }
    for (second, expected, word) in [
        (Subscribe::Init(good.clone()), "INVALID_REQUEST", "init"),
        (
            Subscribe::Extend(proto::Extend::default()),
            "INVALID_REQUEST",
            "extend.request_id",
        ),
        (
            Subscribe::Extend(proto::Extend {
                request_id: 1,
                ..Default::default()
            }),
            "INVALID_REQUEST",
            "extend.tokens",
        ),
        (
            Subscribe::Settle(proto::Settle::new(0, vec![])),
            "INVALID_REQUEST",
            "request_id",
        ),
        (
            Subscribe::Settle(proto::Settle::new(1, vec![])),
            "INVALID_REQUEST",
            "items",
        ),
    ] {
        let mut subscription = Subscription::open(&sidecar, good.clone()).await;
        subscription.send(second).await;
        let status = loop {
            if let Err(status) = subscription.next().await {
                break status;
            }
        };
        assert_eq!(reason(&status), expected, "{status:?}");
        assert!(
            status.message().contains(word),
            "{} has no {word}",
            status.message()
        );
    }
    let mut subscription = Subscription::open(&sidecar, good).await;
    let held = subscription.take(1).await;
    subscription
        .settle(&held, Action::DeadLetter(proto::DeadLetter::default()))
        .await;
    let status = loop {
        if let Err(status) = subscription.next().await {
            break status;
        }
    };
    assert_eq!(reason(&status), "FEATURE_NOT_AVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_is_closed_logged_once_and_counted() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("garbage", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let noise: Vec<u8> = (0..4096u32).map(|index| (index * 7 + 13) as u8).collect();
    for (sent, word) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "HTTP/1"),
        (&noise[..], "not HTTP/2"),
        (&[0x16, 0x03, 0x01, 0x02, 0x00][..], "TLS"),
    ] {
        let mut stream = TcpStream::connect(sidecar.grpc).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(sent).unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end: the rest of what was sent was not read.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{answer:?}");
        sidecar.wait_for_log(|line| {
            line["message"]
                .as_str()
                .is_some_and(|message| message.contains(word))
        });
    }
    assert_eq!(
        sidecar.metric("outrigger_grpc_connections_rejected_total"),
        3.0
    );
    let closed = sidecar
        .log()
        .iter()
        .filter(|line| {
            line["message"]
                .as_str()
                .is_some_and(|m| m.starts_with("connection closed"))
        })
        .count();
    assert_eq!(closed, 3, "one line each");
    let request = publish_request(vec![record(&topic, "x")]);
    sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .expect("the sidecar lives");
}
