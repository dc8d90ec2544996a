//! Clients that misbehave: memory stays bounded, the others are unharmed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use outrigger::grpc::proto::{
    self, publish_stream_request, publisher_service_client::PublisherServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Endpoint};
use tonic_prost::ProstCodec;

use crate::{
    client::{
        PublishStream, Subscription, fill_topic, init, patient, persistence, publish_request,
        reason, record, window,
    },
    kafka::{Kafka, fresh},
    sidecar::{PATIENCE, Sidecar},
};

/// What memory may grow by, over what is configured as in flight.
const SLACK: u64 = 160 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_never_reads_its_answers_is_cut_and_harms_nobody() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("deaf", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("publish.stream_grace", "3s")]);
    let before = sidecar.rss();
    let (requests, receiver) = mpsc::channel(1);
    // Answers are small: the client's library would take in those of minutes before it stops reading.
    let channel = Endpoint::from_shared(format!("http://{}", sidecar.grpc))
        .unwrap()
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535)
        .connect()
        .await
        .unwrap();
    let mut client = PublisherServiceClient::new(channel);
    let unread = client
        .publish_stream(ReceiverStream::new(receiver))
        .await
        .unwrap();
    let value = Bytes::from_static(b"x");
    let flood = tokio::spawn({
        let topic = topic.clone();
        async move {
            let open = publish_stream_request::Message::Open(proto::PublishOpen::default());
            let mut message = Some(open);
            for sequence in 1.. {
                let next = message.take().unwrap_or_else(|| {
                    publish_stream_request::Message::Batch(proto::PublishBatch {
                        sequence,
                        // Small ones, so that there is much to answer.
                        records: vec![record(&topic, value.clone()); 1000],
                        ack_level: 0,
                    })
                });
                let sent = requests.send(proto::PublishStreamRequest {
                    message: Some(next),
                });
                match tokio::time::timeout(Duration::from_secs(20), sent).await {
                    Ok(Ok(())) => {}
                    // Cut, or no window left: both bound it.
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
    });
    let begun = Instant::now();
    let mut worst = 0;
    // The flood's answers fill the client's own receive window first, so it takes a while before anything is unanswered.
    while begun.elapsed() < Duration::from_secs(10) {
        let mut other = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
        other.batch(vec![record(&topic, "other")]).await;
        let acks = other.acks().await.expect("others are served");
        assert!(acks[0].notes.is_empty());
        worst = worst.max(sidecar.rss());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(worst < before + SLACK, "from {before} to {worst}");
    let cut = r#"outrigger_grpc_streams_failed_total{reason="WINDOW_EXCEEDED"}"#;
    sidecar.wait_for_metric(cut, 1.0).await;
    // The end of the last other stream may still be on its way.
    sidecar
        .wait_for_metric("outrigger_publish_streams", 0.0)
        .await;
    drop(unread);
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_never_reads_holds_a_bounded_window_and_harms_nobody() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("blind", 2).await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        2,
        (0..60_000).map(|_| "x".repeat(1000)),
    );
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let before = sidecar.rss();
    let group = fresh("g");
    let mut asked = init(&group, &[&topic], proto::Ordering::Unordered);
    asked.window = window(2000);
    let blind = Subscription::open(&sidecar, asked.clone()).await;
    let mut good = Subscription::open(&sidecar, asked).await;
    let mut count = 0;
    let mut worst = 0;
    while count < 50_000 {
        let deliveries = good.deliveries().await.unwrap();
        count += deliveries.len();
        good.ack(&deliveries).await;
        worst = worst.max(sidecar.rss());
    }
    assert!(worst < before + SLACK, "from {before} to {worst}");
    assert!(sidecar.metric("outrigger_subscribe_unsettled_records") <= 4000.0);
    // What it held comes to the other one when it goes.
    drop(blind);
    while count < 60_000 {
        let deliveries = good.deliveries().await.unwrap();
        count += deliveries.len();
        good.ack(&deliveries).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_never_settles_stops_at_its_window() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("idle", 2).await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        2,
        (0..5000).map(|number| number.to_string()),
    );
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let mut asked = init(&group, &[&topic], proto::Ordering::Unordered);
    asked.window = window(300);
    // None of them ends here, however slow the machine is.
    asked.lease = Some(Duration::from_secs(600).try_into().unwrap());
    let mut lazy = Subscription::open(&sidecar, asked.clone()).await;
    assert_eq!(lazy.take(300).await.len(), 300);
    assert!(
        lazy.deliveries_within(Duration::from_millis(500))
            .await
            .is_empty()
    );
    let mut good = Subscription::open(&sidecar, asked).await;
    let mut count = 0;
    while count < 4700 {
        let deliveries = good.deliveries().await.unwrap();
        count += deliveries.len();
        good.ack(&deliveries).await;
    }
    // The last settle may still be on its way.
    sidecar
        .wait_for_metric("outrigger_subscribe_unsettled_records", 300.0)
        .await;
    lazy.die();
    // Any of them may be what killed it, so they come one at a time, and the attempt does not count yet.
    for _ in 0..300 {
        let again = good.take(1).await;
        assert_eq!(again.len(), 1);
        assert!(again[0].suspect && again[0].attempt == 1, "{again:?}");
        good.ack(&again).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_in_an_outage_hold_a_bound_together() {
    const STREAMS: usize = 20;
    const MIB: f64 = 1048576.0;
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("crowd", 1).await;
    let settings = [
        ("publish.max_in_flight_bytes", "8MiB"),
        ("publish.stream_window_bytes", "4MiB"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let value = Bytes::from(vec![b'x'; 1000]);
    let batch = vec![record(&topic, value); 100];
    let mut warm = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    warm.batch(batch[..1].to_vec()).await;
    warm.acks().await.unwrap();
    kafka.tell("pause 1");
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
        // 7 MiB each as it is charged: beyond the window, and within its overflow.
        let batch = batch.clone();
        streams.push(tokio::spawn(async move {
            for _ in 0..56 {
                stream.batch(batch.clone()).await;
            }
            stream
        }));
    }
    let queued = || sidecar.metric("outrigger_publish_queued_bytes");
    let begun = Instant::now();
    while queued() < 7.0 * MIB {
        assert!(begun.elapsed() < PATIENCE, "{} bytes wait", queued());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..20 {
        // A batch is charged 28 KB more than the room that its message took.
        assert!(
            queued() < 8.0 * MIB + STREAMS as f64 * 30_000.0,
            "{} bytes wait",
            queued()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kafka.tell("resume 1");
    for stream in streams {
        let mut stream = stream.await.unwrap();
        let mut answered = 0;
        while answered < 56 {
            for ack in stream.acks().await.expect("it was only late") {
                assert!(ack.notes.is_empty(), "{:?}", ack.notes[0]);
                answered += 1;
            }
        }
    }
    sidecar
        .wait_for_metric("outrigger_publish_queued_bytes", 0.0)
        .await;
}

/// A unary call to publish whose message is sent and that does not end.
async fn unended(sidecar: &Sidecar, request: proto::PublishRequest) -> Status {
    let (requests, receiver) = mpsc::channel(1);
    requests.send(request).await.unwrap();
    let mut client = tonic::client::Grpc::new(sidecar.channel().await);
    client.ready().await.unwrap();
    let answer = client.streaming(
        tonic::Request::new(ReceiverStream::new(receiver)),
        PathAndQuery::from_static("/outrigger.v1.PublisherService/Publish"),
        ProstCodec::<proto::PublishRequest, proto::PublishResponse>::default(),
    );
    let status = answer.await.expect_err("it is refused");
    drop(requests);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_end_gives_its_room_to_others_whose_deadlines_ran_meanwhile() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("unended", 1).await;
    let settings = [
        ("publish.max_in_flight_bytes", "8MiB"),
        ("publish.stream_window_bytes", "4MiB"),
        ("publish.max_wait", "90s"),
    ];
    let sidecar = Sidecar::start(kafka.bootstrap(), &settings);
    let request = |bytes: usize| publish_request(vec![record(&topic, vec![b'x'; bytes])]);
    sidecar.publisher().await.publish(request(1)).await.unwrap();
    kafka.tell("pause 1");
    let begun = Instant::now();
    let all_room = request(8_000_000);
    let (status, (late, took)) = tokio::join!(unended(&sidecar, all_room), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let mut late = tonic::Request::new(request(900_000));
        late.metadata_mut()
            .insert("grpc-timeout", "36S".parse().unwrap());
        let late = patient(&sidecar).await.publish(late).await;
        (late.unwrap_err(), begun.elapsed())
    });
    assert_eq!(reason(&status), "INVALID_REQUEST");
    assert!(status.message().contains("its end"), "{status:?}");
    assert!(begun.elapsed() > Duration::from_secs(30));
    // It had its room after 29 s, and was sent; its deadline did not begin anew then.
    assert_eq!(
        (reason(&late).as_str(), persistence(&late).as_str()),
        ("DEADLINE", "POSSIBLY_PERSISTED")
    );
    assert!(
        took >= Duration::from_millis(35_800) && took < Duration::from_secs(50),
        "{took:?}"
    );
}

/// A record of two bytes: its key and its length.
#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

/// Requests that take no memory here, however many records they have.
#[derive(Clone, PartialEq, prost::Message)]
struct Nothings {
    #[prost(message, repeated, tag = "1")]
    records: Vec<Nothing>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BatchOfNothings {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(message, repeated, tag = "2")]
    records: Vec<Nothing>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StreamOfNothings {
    #[prost(message, optional, tag = "1")]
    open: Option<Nothing>,
    #[prost(message, optional, tag = "2")]
    batch: Option<BatchOfNothings>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_millions_of_records_is_refused_before_it_takes_their_memory() {
    const MILLIONS: usize = 4_000_000;
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let most = sidecar.rss() + (64 << 20);
    let mut client = tonic::client::Grpc::new(sidecar.channel().await);
    client.ready().await.unwrap();
    let call = client.unary(
        tonic::Request::new(Nothings {
            records: vec![Nothing {}; MILLIONS],
        }),
        PathAndQuery::from_static("/outrigger.v1.PublisherService/Publish"),
        ProstCodec::<Nothings, proto::PublishResponse>::default(),
    );
    let refused = call.await.expect_err("it is refused");
    assert_eq!(reason(&refused), "INVALID_REQUEST");
    assert!(refused.message().contains("send fewer"), "{refused:?}");
    assert!(sidecar.peak_rss() < most, "{}", sidecar.peak_rss());

    let open = StreamOfNothings {
        open: Some(Nothing {}),
        batch: None,
    };
    let batch = StreamOfNothings {
        open: None,
        batch: Some(BatchOfNothings {
            sequence: 1,
            records: vec![Nothing {}; MILLIONS],
        }),
    };
    client.ready().await.unwrap();
    let stream = client.streaming(
        tonic::Request::new(tokio_stream::iter([open, batch])),
        PathAndQuery::from_static("/outrigger.v1.PublisherService/PublishStream"),
        ProstCodec::<StreamOfNothings, proto::PublishStreamResponse>::default(),
    );
    let mut answers = stream.await.unwrap().into_inner();
    answers.message().await.expect("a welcome");
    let refused = answers.message().await.expect_err("it is refused");
    assert_eq!(reason(&refused), "INVALID_REQUEST");
    assert!(refused.message().contains("send fewer"), "{refused:?}");
    assert!(sidecar.peak_rss() < most, "{}", sidecar.peak_rss());
}
