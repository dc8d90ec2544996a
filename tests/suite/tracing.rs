//! One trace from the caller through Kafka to the subscriber, judged by OpenTelemetry's Python SDK and a collector of our own.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use outrigger::grpc::proto;
use tokio::net::TcpListener;

use crate::{
    client::{PublishStream, publish_request, record},
    collector::{Collector, attributes, hex},
    foreign,
    kafka::{Kafka, fresh},
    sidecar::{PATIENCE, Sidecar},
};

/// A sidecar that exports to `collector`, soon.
fn exporting(collector: impl std::fmt::Display, sampler: &[(&str, &str)]) -> Sidecar {
    let settings = [("log.level", "info,outrigger=debug")];
    let mut command = Sidecar::command(Kafka::shared().bootstrap(), &settings);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"))
        .env("OTEL_SERVICE_NAME", "the-sidecar")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .envs(sampler.iter().copied());
    Sidecar::spawn(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_inside_a_span_is_one_trace_from_the_client_to_the_consumer() {
    let (collector, address) = Collector::start().await;
    let topic = Kafka::shared().topic("traced", 1).await;
    let group = fresh("g");
    let sidecar = exporting(address, &[]);
    let collector_address = address.to_string();
    let settings = [
        "--topic",
        &topic,
        "--group",
        &group,
        "--collector",
        &collector_address,
    ];
    let mut python = foreign::client(&sidecar, "tests/python/traced.py", &settings);
    let output = tokio::task::spawn_blocking(move || python.output().unwrap())
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8(output.stdout).unwrap();
    let [by_metadata, by_header] = printed.lines().collect::<Vec<_>>()[..] else {
        panic!("{printed}");
    };
    for (trace, how, offset) in [(by_metadata, "by-metadata", 0), (by_header, "by-header", 1)] {
        let client = collector.wait_for(trace, &format!("client {how}")).await;
        let send = collector.wait_for(trace, &format!("send {topic}")).await;
        let process = collector.wait_for(trace, &format!("process {topic}")).await;
        let consumer = collector.wait_for(trace, &format!("consumer {how}")).await;
        assert_eq!(consumer.parent_span_id, process.span_id, "{how}");
        // What the record carries is what the process is linked to.
        let creation = match how {
            "by-metadata" => {
                let call = collector
                    .wait_for(trace, "outrigger.v1.PublisherService/Publish")
                    .await;
                assert_eq!(call.kind(), SpanKind::Server);
                assert_eq!(call.parent_span_id, client.span_id);
                assert_eq!(
                    attributes(&call),
                    [
                        "rpc.method=outrigger.v1.PublisherService/Publish",
                        "rpc.response.status_code=OK",
                        "rpc.system.name=grpc"
                    ]
                );
                assert_eq!(
                    (send.kind(), &send.parent_span_id),
                    (SpanKind::Producer, &call.span_id)
                );
                send.span_id.clone()
            }
            _ => {
                // The application's own context goes through untouched; the call that sent it is a client's, linked to it.
                assert_eq!(
                    (send.kind(), &send.links[0].span_id),
                    (SpanKind::Client, &client.span_id)
                );
                client.span_id.clone()
            }
        };
        assert_eq!(process.kind(), SpanKind::Consumer);
        assert_eq!(
            (&process.parent_span_id, &process.links[0].span_id),
            (&creation, &creation),
            "{how}"
        );
        assert_eq!(
            attributes(&send),
            [
                format!("messaging.destination.name={topic}"),
                "messaging.destination.partition.id=0".to_owned(),
                format!("messaging.kafka.offset={offset}"),
                "messaging.operation.name=send".to_owned(),
                "messaging.operation.type=send".to_owned(),
                "messaging.system=kafka".to_owned(),
            ]
        );
        assert_eq!(
            attributes(&process),
            [
                format!("messaging.consumer.group.name={group}"),
                format!("messaging.destination.name={topic}"),
                "messaging.destination.partition.id=0".to_owned(),
                format!("messaging.kafka.offset={offset}"),
                "messaging.operation.name=process".to_owned(),
                "messaging.operation.type=process".to_owned(),
                "messaging.system=kafka".to_owned(),
                "outrigger.settlement=ack".to_owned(),
            ]
        );
        assert!(
            process.end_time_unix_nano >= consumer.end_time_unix_nano,
            "{how}: it ends when it is settled"
        );
        let services: Vec<String> = collector
            .spans()
            .into_iter()
            .filter(|(_, span)| hex(&span.trace_id) == trace)
            .map(|(service, _)| service)
            .collect();
        assert!(
            services.iter().any(|service| service == "the-sidecar")
                && services.iter().any(|service| service == "application")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_on_a_stream_is_one_span_and_a_failed_call_says_so_in_span_and_log() {
    let (collector, address) = Collector::start().await;
    let topic = Kafka::shared().topic("traced", 1).await;
    let sidecar = exporting(address, &[]);
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    stream
        .batch((0..100).map(|_| record(&topic, "x")).collect())
        .await;
    stream.acks().await.unwrap();
    let name = format!("send {topic}");
    let begun = Instant::now();
    while !collector.spans().iter().any(|(_, span)| span.name == name) {
        assert!(begun.elapsed() < PATIENCE, "no span");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sent: Vec<_> = collector
        .spans()
        .into_iter()
        .filter(|(_, span)| span.name == name)
        .collect();
    assert_eq!(sent.len(), 1, "a span a batch, not a record");
    assert!(attributes(&sent[0].1).contains(&"messaging.batch.message_count=100".to_owned()));

    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut request = tonic::Request::new(publish_request(vec![record(&fresh("missing"), "x")]));
    request.metadata_mut().insert(
        "traceparent",
        format!("00-{trace}-b7ad6b7169203331-01").parse().unwrap(),
    );
    let status = sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    let call = collector
        .wait_for(trace, "outrigger.v1.PublisherService/Publish")
        .await;
    assert!(attributes(&call).contains(&"rpc.response.status_code=NOT_FOUND".to_owned()));
    let begun = Instant::now();
    let send = loop {
        let mut spans = collector.spans().into_iter();
        if let Some((_, span)) = spans.find(|(_, span)| span.parent_span_id == call.span_id) {
            break span;
        }
        assert!(begun.elapsed() < PATIENCE, "no span of the batch");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(
        attributes(&send).contains(&"error.type=TOPIC_NOT_FOUND".to_owned()),
        "{:?}",
        attributes(&send)
    );
    sidecar.wait_for_log(|line| line["span"]["trace_id"] == trace);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_costs_no_span_and_no_header() {
    let (collector, address) = Collector::start().await;
    let topic = Kafka::shared().topic("unsampled", 1).await;
    let never = [("OTEL_TRACES_SAMPLER", "parentbased_always_off")];
    let sidecar = exporting(address, &never);
    let mut client = sidecar.publisher().await;
    client
        .publish(publish_request(vec![record(&topic, "x")]))
        .await
        .unwrap();
    assert!(sidecar.stop().success(), "the end flushes");
    assert!(collector.spans().is_empty());
    let read = std::process::Command::new("kcat")
        .args([
            "-b",
            Kafka::shared().bootstrap(),
            "-C",
            "-t",
            &topic,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            "<%h>%s\n",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), "<>x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_nothing() {
    // It takes connections and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let topic = Kafka::shared().topic("hanging", 1).await;
    // Milliseconds: for longer than the test.
    let patient = [("OTEL_EXPORTER_OTLP_TIMEOUT", "300000")];
    let sidecar = exporting(address, &patient);
    let mut stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    let before = sidecar.rss();
    let begun = Instant::now();
    // Many more spans than the queue of 2048 holds.
    for _ in 0..100 {
        for _ in 0..100 {
            stream.batch(vec![record(&topic, "x")]).await;
        }
        let mut answered = 0;
        while answered < 100 {
            answered += stream.acks().await.unwrap().len();
        }
    }
    assert!(begun.elapsed() < PATIENCE, "publishing is held up");
    assert!(sidecar.rss() < before + (64 << 20), "spans pile up");
    let begun = Instant::now();
    drop(stream);
    assert!(sidecar.stop().success());
    assert!(
        begun.elapsed() < PATIENCE / 2,
        "the end waits for the collector: {:?}",
        begun.elapsed()
    );
    held.abort();
}
