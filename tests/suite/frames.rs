//! Many small messages to a peer that does not read them for a while: HTTP/2 libraries count unread small frames, and close a connection that
//! has too many.

use std::{process::Command, time::Duration};

use outrigger::grpc::proto;

use crate::{
    client::{PublishStream, record},
    examples::built,
    foreign,
    kafka::{Kafka, fresh},
    sidecar::Sidecar,
};

const COUNT: usize = 10_000;

/// Publishes so many records, each in a message of its own, from a task; gives back what answers them.
fn flood(mut stream: PublishStream, topic: &str) -> tokio::task::JoinHandle<PublishStream> {
    let topic = topic.to_owned();
    tokio::spawn(async move {
        for number in 0..COUNT {
            stream
                .batch(vec![record(&topic, "x".repeat(1 + number % 170))])
                .await;
        }
        stream
    })
}

async fn assert_all_are_answered(mut stream: PublishStream) {
    let mut answered = 0;
    while answered < COUNT {
        let acks = stream.acks().await.expect("the stream goes on");
        assert!(!acks.is_empty(), "it ended after {answered} answers");
        assert!(acks.iter().all(|ack| ack.notes.is_empty()), "{acks:?}");
        answered += acks.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_messages_to_a_sidecar_that_stands_still_are_all_answered() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("frames", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    sidecar.signal("STOP");
    let flooded = flood(stream, &topic);
    tokio::time::sleep(Duration::from_secs(3)).await;
    sidecar.signal("CONT");
    assert_all_are_answered(flooded.await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_no_answers_for_a_while_gets_all_of_them_then() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("frames", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let stream = PublishStream::open(&sidecar, proto::FailureMode::Continue).await;
    let stream = flood(stream, &topic).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_all_are_answered(stream).await;
}

/// Lets a client send them that is given the sidecar's address, a topic and the sidecar's process id; it stops the sidecar and lets it go on.
fn from_elsewhere(client: impl FnOnce(&Sidecar, [&str; 2]) -> Command) {
    let sidecar = Sidecar::start(Kafka::shared().bootstrap(), &[]);
    let (topic, pid) = (fresh("frames"), sidecar.pid().to_string());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(Kafka::shared().create(&topic, 1, &[]));
    let output = client(&sidecar, [&topic, &pid]).output().unwrap();
    // It may have ended while the sidecar stood still.
    sidecar.signal("CONT");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A client that runs where its language's example is built.
fn beside_the_example(language: &str, command: &[&str], client: &str) {
    let client = format!("{}/tests/{client}", env!("CARGO_MANIFEST_DIR"));
    from_elsewhere(|sidecar, asked| {
        let mut run = Command::new(command[0]);
        run.args(&command[1..])
            .arg(client)
            .arg(sidecar.grpc.to_string())
            .args(asked)
            .current_dir(built(language));
        run
    });
}

#[test]
fn small_messages_from_python_to_a_sidecar_that_stands_still_are_all_answered() {
    from_elsewhere(|sidecar, [topic, pid]| {
        let asked = ["--topic", topic, "--pid", pid];
        foreign::client(sidecar, "tests/python/small_messages.py", &asked)
    });
}

#[test]
fn small_messages_from_go_to_a_sidecar_that_stands_still_are_all_answered() {
    beside_the_example("go", &["go", "run"], "go/small_messages.go");
}

#[test]
fn small_messages_from_java_to_a_sidecar_that_stands_still_are_all_answered() {
    let command = ["java", "-cp", "target/app.jar:target/lib/*"];
    beside_the_example("java", &command, "java/SmallMessages.java");
}

#[test]
fn small_messages_from_node_to_a_sidecar_that_stands_still_are_all_answered() {
    beside_the_example("node", &["node"], "node/small_messages.js");
}
