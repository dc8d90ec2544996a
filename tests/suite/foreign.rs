//! Clients that are not ours judge the API: Python's grpcio and confluent_kafka, Kafka's own Java producer and tools, kcat.

use std::{
    collections::HashMap,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use outrigger::grpc::proto::{self, publish_result};

use crate::{
    client::{Subscription, init, publish_request, record},
    kafka::{Kafka, fresh, jars, script},
    sidecar::{PATIENCE, Sidecar},
};

fn root(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A Python client with its environment, to run against `sidecar`.
pub fn client(sidecar: &Sidecar, client: &str, settings: &[&str]) -> Command {
    let made = Command::new(root("tests/python/venv"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(made.status.success(), "the virtual environment is made");
    let made = String::from_utf8(made.stdout).unwrap();
    let (python, stubs) = made.trim().split_once('\n').unwrap();
    let mut command = Command::new(python);
    command
        .arg(root(client))
        .args(["--address", &sidecar.grpc.to_string()])
        .args(["--bootstrap", Kafka::shared().bootstrap()])
        .args(settings)
        .env("PYTHONPATH", stubs);
    command
}

/// Runs a Python client against a sidecar of its own; it fails loudly when it proves the contrary.
fn python(script: &str, settings: &[&str]) {
    let sidecar = Sidecar::start(Kafka::shared().bootstrap(), &[]);
    let output = client(&sidecar, script, settings).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_hundred_thousand_records_from_python_are_in_kafka_once_in_order_and_intact() {
    python(
        "tests/python/publish_roundtrip.py",
        &["--topic", &fresh("python-publish")],
    );
}

#[test]
fn a_hundred_thousand_records_of_kafka_reach_python_once_in_order_and_are_committed() {
    let kafka = script();
    let topic = fresh("python-subscribe");
    python(
        "tests/python/subscribe_roundtrip.py",
        &["--topic", &topic, "--kafka", kafka.to_str().unwrap()],
    );
}

#[test]
fn unordered_delivery_to_python_loses_nothing_either() {
    let kafka = script();
    let topic = fresh("python-unordered");
    python(
        "tests/python/subscribe_roundtrip.py",
        &[
            "--topic",
            &topic,
            "--kafka",
            kafka.to_str().unwrap(),
            "--ordering",
            "ORDERING_UNORDERED",
            "--records",
            "20000",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_where_the_java_producer_puts_them_and_null_keys_go_everywhere() {
    const PARTITIONS: i32 = 12;
    let kafka = Kafka::shared();
    let topic = kafka.topic("java", PARTITIONS).await;
    let keys: Vec<Vec<u8>> = (0..200u32)
        .map(|number| match number % 4 {
            0 => format!("key-{number}").into_bytes(),
            1 => number.to_be_bytes().to_vec(),
            2 => vec![0xff; (number % 40) as usize + 1],
            _ => format!("ключ-{number}").into_bytes(),
        })
        .collect();
    let hex: HashMap<String, &Vec<u8>> = keys
        .iter()
        .map(|key| (key.iter().map(|byte| format!("{byte:02x}")).collect(), key))
        .collect();
    let mut java = Command::new("java")
        .args([
            "-XX:TieredStopAtLevel=1",
            "-cp",
            &format!("{}/*", jars().display()),
        ])
        .args([
            &root("tests/java/Partitions.java"),
            kafka.bootstrap(),
            &topic,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<&str> = hex.keys().map(String::as_str).collect();
    java.stdin
        .take()
        .unwrap()
        .write_all((lines.join("\n") + "\n").as_bytes())
        .unwrap();
    let output = java.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut client = sidecar.publisher().await;
    let mut places = async |keys: Vec<Option<Vec<u8>>>| {
        let records = keys
            .into_iter()
            .map(|key| proto::Record {
                key: key.map(Into::into),
                ..record(&topic, "")
            })
            .collect();
        let request = publish_request(records);
        let results = client.publish(request).await.unwrap().into_inner().results;
        let partitions: Vec<i32> = results
            .into_iter()
            .map(|result| match result.result {
                Some(publish_result::Result::Published(published)) => published.partition,
                other => panic!("{other:?}"),
            })
            .collect();
        partitions
    };
    let mut compared = 0;
    for line in text.lines() {
        let (key, partition) = line.split_once('\t').unwrap();
        let ours = places(vec![Some(hex[key].clone())]).await;
        assert_eq!(ours, [partition.parse::<i32>().unwrap()], "key {key}");
        compared += 1;
    }
    assert_eq!(compared, hex.len());
    let mut null_keys = Vec::new();
    for _ in 0..60 {
        null_keys.extend(places(vec![None]).await);
        // The partitioner stays with a partition for sticky.partitioning.linger.ms.
        tokio::time::sleep(std::time::Duration::from_millis(12)).await;
    }
    null_keys.sort_unstable();
    null_keys.dedup();
    assert!(
        null_keys.len() >= PARTITIONS as usize / 2,
        "null keys only reach {null_keys:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_reads_what_was_published() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("kcat", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let request = publish_request(vec![proto::Record {
        key: Some("k".into()),
        headers: vec![proto::Header {
            name: "h".into(),
            value: Some("1".into()),
        }],
        ..record(&topic, "hello")
    }]);
    sidecar.publisher().await.publish(request).await.unwrap();
    let output = Command::new("kcat")
        .args([
            "-b",
            kafka.bootstrap(),
            "-C",
            "-e",
            "-q",
            "-t",
            &topic,
            "-f",
            "%k %h %s\n",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "k h=1 hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_header_name_that_is_not_utf8_is_delivered_lossily() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("lossy", 1).await;
    let mut kcat = Command::new("bash")
        .args([
            "-c",
            r"printf v | kcat -P -b $0 -t $1 -H $'\xff\xfek=3'",
            kafka.bootstrap(),
            &topic,
        ])
        .spawn()
        .unwrap();
    assert!(kcat.wait().unwrap().success());
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let asked = init(&fresh("g"), &[&topic], proto::Ordering::Partition);
    let deliveries = Subscription::open(&sidecar, asked).await.take(1).await;
    let header = &deliveries[0].record.as_ref().unwrap().headers[0];
    assert_eq!(
        (header.name.as_str(), header.value.as_deref()),
        ("\u{fffd}\u{fffd}k", Some(&b"3"[..]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn python_clients_that_do_not_read_or_settle_or_that_vanish_are_survived() {
    let kafka = Kafka::shared();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("publish.stream_grace", "2s")]);
    let before = sidecar.rss();
    for (mode, more) in [
        ("publish", &["--seconds", "5"][..]),
        (
            "subscribe-never-reads",
            &["--seconds", "3", "--fill", "50000"],
        ),
        (
            "subscribe-never-settles",
            &["--seconds", "3", "--fill", "50000"],
        ),
        // It is over when it has vanished.
        (
            "vanish",
            &["--seconds", "90", "--after", "500", "--fill", "50000"],
        ),
    ] {
        let topic = kafka.topic(mode, 2).await;
        let mut settings = vec!["--mode", mode, "--topic", &topic, "--group", &topic];
        settings.extend(more);
        let mut python = client(&sidecar, "tests/python/never_reads.py", &settings)
            .spawn()
            .unwrap();
        let ended = loop {
            if let Some(ended) = python.try_wait().unwrap() {
                break ended;
            }
            assert!(
                sidecar.rss() < before + (200 << 20),
                "{mode}: from {before} to {}",
                sidecar.rss()
            );
            let request = publish_request(vec![record(&topic, "other")]);
            sidecar
                .publisher()
                .await
                .publish(request)
                .await
                .expect("others are served");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(ended.success(), "{mode}: it could misbehave as asked");
    }
    let begun = Instant::now();
    while sidecar.metric("outrigger_subscribe_streams")
        + sidecar.metric("outrigger_publish_streams")
        > 0.0
    {
        assert!(begun.elapsed() < PATIENCE, "a stream outlives its client");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
