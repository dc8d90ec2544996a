//! Start, stop, and what the process says of itself.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use outrigger::grpc::proto::{self, subscribe_response::Message};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    client::{
        PublishStream, Subscription, committed, fill_topic, init, patient, persistence,
        publish_request, read_topic, reason, record, window,
    },
    kafka::{Kafka, fresh},
    sidecar::{PATIENCE, Sidecar},
};

/// What a busy machine may add to a deadline; without one, Kafka is waited for much longer.
const HICCUP: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_and_is_ready_without_kafka_and_recovers_when_kafka_comes() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("late", 1).await;
    kafka.tell("kill 1");
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    for path in ["/livez", "/readyz", "/startupz"] {
        assert!(sidecar.get(path).0.contains("200"), "{path}");
    }
    let mut client = sidecar.publisher().await;
    let waiting = tokio::spawn(async move {
        let request = publish_request(vec![record(&topic, "patient")]);
        (client.publish(request).await, topic)
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    tokio::task::block_in_place(|| kafka.tell("start 1"));
    let (answer, topic) = waiting.await.unwrap();
    answer.expect("it was only late");
    assert_eq!(read_topic(kafka.bootstrap(), &topic)[&0].len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_kafka_ends_within_the_deadline_and_says_what_was_lost() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("gone", 1).await;
    let mut sidecar = Sidecar::start(kafka.bootstrap(), &[("drain.deadline", "5s")]);
    let mut client = sidecar.publisher().await;
    client
        .publish(publish_request(vec![record(&topic, "before")]))
        .await
        .unwrap();
    kafka.tell("pause 1");
    let waiting = tokio::spawn(async move {
        client
            .publish(publish_request(vec![record(&topic, "x")]))
            .await
    });
    while sidecar.metric("outrigger_publish_in_flight_records") < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    sidecar.signal("TERM");
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(
        crate::client::reason(&status),
        "DELIVERY_TIMEOUT",
        "{status:?}"
    );
    assert_eq!(crate::client::persistence(&status), "POSSIBLY_PERSISTED");
    let exit = sidecar.wait(PATIENCE);
    assert_eq!(exit.code(), Some(1), "the drain was not complete");
    assert!(
        begun.elapsed() < Duration::from_secs(5) + HICCUP,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_called_and_not_opened_end_with_their_deadline_and_hold_up_no_stop() {
    let kafka = Kafka::shared();
    let mut sidecar = Sidecar::start(kafka.bootstrap(), &[("drain.deadline", "100s")]);
    let (silent, receiver) = mpsc::channel(1);
    let mut late = tonic::Request::new(ReceiverStream::new(receiver));
    late.metadata_mut()
        .insert("grpc-timeout", "1S".parse().unwrap());
    let mut client = patient(&sidecar).await;
    let mut late = client.publish_stream(late).await.unwrap().into_inner();
    let ended = late.message().await.unwrap_err();
    assert_eq!(
        (reason(&ended).as_str(), persistence(&ended).as_str()),
        ("DEADLINE", "NOT_PERSISTED")
    );
    drop(silent);

    let mut publishing = PublishStream::raw(&sidecar).await;
    let mut subscribing = Subscription::raw(&sidecar).await;
    sidecar.signal("TERM");
    let published = publishing.next().await.expect("a status").unwrap_err();
    let subscribed = subscribing.next().await.unwrap_err();
    for status in [published, subscribed] {
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (tonic::Code::Unavailable, "DRAINING")
        );
    }
    let exit = sidecar.wait(Duration::from_secs(50));
    assert!(exit.success(), "{exit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interrupt_ends_it_at_once() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("impatient", 1).await;
    fill_topic(kafka.bootstrap(), &topic, 1, ["x".to_owned()].into_iter());
    let mut sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut subscription = Subscription::open(
        &sidecar,
        init(&fresh("g"), &[&topic], proto::Ordering::Unordered),
    )
    .await;
    let _held = subscription.take(1).await;
    sidecar.signal("INT");
    sidecar.wait_for_log(|line| line["message"] == "stopping: no new work");
    sidecar.signal("INT");
    // Without it, at the deadline of the drain.
    let exit = sidecar.wait(Duration::from_secs(15));
    assert_eq!(exit.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_stops_deliveries_waits_for_settles_and_publishing_goes_on() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("two-phase", 1).await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        1,
        (0..10).map(|number| number.to_string()),
    );
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let group = fresh("g");
    let mut subscription = Subscription::open(
        &sidecar,
        init(&group, &[&topic], proto::Ordering::Unordered),
    )
    .await;
    let held = subscription.take(10).await;
    let mut drain = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["drain", "--address", &sidecar.grpc.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while !sidecar.get("/readyz").0.contains("503") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(sidecar.get("/livez").0.contains("200"));
    let request = publish_request(vec![record(&topic, "late")]);
    sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .expect("publishes are still served");
    assert!(
        subscription
            .deliveries_within(Duration::from_millis(500))
            .await
            .is_empty(),
        "no new deliveries"
    );
    assert!(
        drain.try_wait().unwrap().is_none(),
        "it waits for what is held"
    );
    subscription.ack(&held).await;
    assert!(drain.wait().unwrap().success());
    assert!(sidecar.stop().success());
    assert_eq!(
        committed(kafka.bootstrap(), &group, &topic, 1),
        [10],
        "committed before it left"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_settled_at_the_deadline_makes_the_drain_incomplete() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("stuck", 1).await;
    fill_topic(
        kafka.bootstrap(),
        &topic,
        1,
        (0..10).map(|number| number.to_string()),
    );
    let mut sidecar = Sidecar::start(kafka.bootstrap(), &[("drain.deadline", "4s")]);
    let group = fresh("g");
    let mut subscription = Subscription::open(
        &sidecar,
        init(&group, &[&topic], proto::Ordering::Unordered),
    )
    .await;
    let held = subscription.take(10).await;
    subscription.ack(&held[..3]).await;
    subscription.settled(1).await;
    let begun = Instant::now();
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait(PATIENCE).code(), Some(1));
    assert!(
        begun.elapsed() < Duration::from_secs(4) + HICCUP,
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        committed(kafka.bootstrap(), &group, &topic, 1),
        [3],
        "what was settled is committed all the same"
    );
}

/// With Kafka back in time, and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_the_durable_acks_that_are_awaited_and_nothing_that_was_answered_is_lost() {
    let kafka = Kafka::start(1, &[]);
    for is_back in [true, false] {
        let topic = kafka.topic("awaited", 1).await;
        let values = (0..100).map(|number| number.to_string());
        fill_topic(kafka.bootstrap(), &topic, 1, values);
        let mut sidecar = Sidecar::start(kafka.bootstrap(), &[("drain.deadline", "8s")]);
        let group = fresh("g");
        let asked = proto::Init {
            window: window(100),
            confirm: proto::Confirm::Durable.into(),
            ..init(&group, &[&topic], proto::Ordering::Unordered)
        };
        let mut subscription = Subscription::open(&sidecar, asked).await;
        let all = subscription.take(100).await;
        let answered = subscription.ack(&all[..50]).await;
        assert!(subscription.settled(answered).await.is_empty());
        tokio::task::block_in_place(|| kafka.tell("pause 1"));
        let awaited = subscription.ack(&all[50..]).await;
        sidecar.signal("TERM");
        let begun = Instant::now();
        sidecar.wait_for_log(|line| line["message"] == "stopping: no new work");
        if is_back {
            tokio::task::block_in_place(|| kafka.tell("resume 1"));
            assert!(subscription.settled(awaited).await.is_empty());
            assert!(sidecar.wait(PATIENCE).success());
            let now = committed(kafka.bootstrap(), &group, &topic, 1);
            assert_eq!(now, [100], "committed before it was answered");
            continue;
        }
        // Nobody has them: they are not answered as done, and it ends all the same.
        while let Some(Ok(message)) = subscription.next_within(PATIENCE).await {
            if let Message::Settled(settled) = message {
                let moved = settled.outcomes.len();
                assert_eq!((settled.request_id, moved), (awaited, 50), "{settled:?}");
            }
        }
        assert_eq!(sidecar.wait(PATIENCE).code(), Some(1));
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8) + HICCUP, "{took:?}");
        tokio::task::block_in_place(|| kafka.tell("resume 1"));
        // What was under way may have come through, or not.
        let now = committed(kafka.bootstrap(), &group, &topic, 1);
        assert!(now == [50] || now == [100], "{now:?}");
    }
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_port_in_use_is_named_before_anything_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["listen.tcp", "admin.listen"] {
        let (code, stderr) = run(&mut Sidecar::command("127.0.0.1:1", &[(key, &address)]));
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains(key) && stderr.contains(&address) && stderr.contains("in use"),
            "{stderr}"
        );
    }
}

#[test]
fn five_mistakes_in_the_configuration_are_told_at_once_with_key_and_source() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "publish:\n  max_wait: soon\nconsume:\n  windw_records: 5\nkafka:\n  properties:\n    acks: 1\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command
        .args(["serve", "--set", "listen.tcp=0.0.0.0:7420", "--config"])
        .arg(file.path())
        .env("OUTRIGGER_DRAIN__DEADLINE", "-1s");
    let (code, stderr) = run(&mut command);
    assert_eq!(code, Some(78), "{stderr}");
    for (key, source) in [
        ("publish.max_wait", "file"),
        ("consume.windw_records", "file"),
        ("kafka.properties.acks", "file"),
        ("listen.tcp", "flag"),
        ("drain.deadline", "OUTRIGGER_DRAIN__DEADLINE"),
    ] {
        let line = stderr
            .lines()
            .find(|line| line.contains(key))
            .unwrap_or_else(|| panic!("{key}: {stderr}"));
        assert!(line.contains(source), "{line}");
    }
}

#[test]
fn names_that_kubernetes_injects_for_a_service_do_not_matter() {
    let mut command = Sidecar::command("127.0.0.1:1", &[]);
    for (name, value) in [
        ("OUTRIGGER_PORT", "tcp://10.0.0.1:7420"),
        ("OUTRIGGER_SERVICE_HOST", "10.0.0.1"),
        ("OUTRIGGER_SERVICE_PORT", "7420"),
        ("OUTRIGGER_PORT_7420_TCP_ADDR", "10.0.0.1"),
    ] {
        command.env(name, value);
    }
    assert!(Sidecar::spawn(command).stop().success());
}

#[test]
fn its_end_runs_no_librarys_exit_handler_under_threads_that_still_run() {
    let directory = tempfile::tempdir().unwrap();
    let (source, library) = (directory.path().join("e.c"), directory.path().join("e.so"));
    let handler = "#include <unistd.h>\n__attribute__((destructor)) static void at_exit(void) { _exit(99); }\n";
    std::fs::write(&source, handler).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(compiled.success());
    let mut command = Sidecar::command("127.0.0.1:1", &[]);
    command.env("LD_PRELOAD", &library);
    assert_eq!(Sidecar::spawn(command).stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_nowhere() {
    const CANARY: &str = "canary-5c1f-0123456789";
    let directory = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let secret = file("secret", CANARY);
    let tokens = file("tokens", &format!("me {CANARY}\n"));
    let token = file("token", CANARY);
    let password = ("kafka.sasl.mechanism", "PLAIN");
    let user = ("kafka.sasl.username", "ann");
    let oauth = ("kafka.sasl.mechanism", "OAUTHBEARER");
    let endpoint = [
        oauth,
        (
            "kafka.sasl.oauth.token_endpoint",
            "http://127.0.0.1:1/token",
        ),
        ("kafka.sasl.oauth.client_id", "me"),
    ];
    // Every key that holds a secret, or names a file that does, as a sidecar with it looks.
    let ways: Vec<Vec<(&str, &str)>> = vec![
        vec![password, user, ("kafka.sasl.password", CANARY)],
        vec![password, user, ("kafka.sasl.password_file", &secret)],
        vec![
            password,
            ("kafka.sasl.username_file", &secret),
            ("kafka.sasl.password", CANARY),
        ],
        [
            endpoint.as_slice(),
            &[("kafka.sasl.oauth.client_secret", CANARY)],
        ]
        .concat(),
        [
            endpoint.as_slice(),
            &[("kafka.sasl.oauth.client_secret_file", &secret)],
        ]
        .concat(),
        vec![oauth, ("kafka.sasl.oauth.token_file", &token)],
        vec![("listen.tokens_file", &tokens)],
        vec![("kafka.properties.sasl.kerberos.keytab.password", CANARY)],
    ];
    for way in ways {
        let mut settings = way.clone();
        settings.push(("log.level", "trace,h2=info,hyper=info"));
        settings.push(("kafka.properties.debug", "security,conf"));
        let mut command = Sidecar::command("127.0.0.1:1", &settings);
        let socket = directory.path().join("socket");
        command
            .arg("--set")
            .arg(format!("listen.unix={}", socket.display()));
        if way[0].0.starts_with("kafka.properties") {
            // librdkafka has no such property: the refusal must not repeat its value.
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && !said.contains(CANARY), "{said}");
            continue;
        }
        let sidecar = Sidecar::spawn(command);
        let request = publish_request(vec![record("t", "x")]);
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_millis(700));
        let refused = sidecar
            .publisher()
            .await
            .publish(request)
            .await
            .unwrap_err();
        assert!(!format!("{refused:?}").contains(CANARY));
        let channel = tonic::transport::Endpoint::from_shared(format!("unix:{}", socket.display()))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let shown = proto::admin_service_client::AdminServiceClient::new(channel)
            .get_config(proto::GetConfigRequest {})
            .await
            .unwrap()
            .into_inner()
            .yaml;
        assert!(!shown.contains(CANARY), "{shown}");
        for path in ["/config", "/status", "/", "/metrics"] {
            let (head, body) = sidecar.get(path);
            assert!(head.contains("200"), "{path}: {head}");
            assert!(!body.contains(CANARY), "{path}: {body}");
        }
        for line in sidecar.log() {
            assert!(!line.to_string().contains(CANARY), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_what_the_sidecar_is_doing() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("status", 1).await;
    let group = fresh("g");
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let mut asked = init(&group, &[&topic], proto::Ordering::Unordered);
    asked.window = window(10);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let request = publish_request(vec![record(&topic, "x"), record(&topic, "y")]);
    sidecar.publisher().await.publish(request).await.unwrap();
    let held = subscription.take(2).await;
    let mut status: Value = serde_json::from_str(&sidecar.get("/status").1).expect("JSON");
    assert!(status["uptime_seconds"].as_f64().unwrap() > 0.0);
    status["uptime_seconds"] = json!(0);
    let expected = json!({
        "server_version": env!("CARGO_PKG_VERSION"),
        "phase": "SERVING",
        "missing": [],
        "uptime_seconds": 0,
        "in_flight_records": 0,
        "in_flight_bytes": 0,
        "publish_streams": 0,
        "subscriptions": [{"group": group, "topics": [topic], "streams": 1, "in_flight": 2}],
    });
    assert_eq!(status, expected);
    let (head, page) = sidecar.get("/");
    assert!(head.contains("200"), "{head}");
    for part in [
        "serving",
        group.as_str(),
        topic.as_str(),
        "2 records not settled",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    subscription.ack(&held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let sidecar = Sidecar::start(Kafka::shared().bootstrap(), &[]);
    let mut health = HealthClient::new(sidecar.channel().await);
    for service in [
        "",
        "outrigger.v1.PublisherService",
        "outrigger.v1.SubscriberService",
    ] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        assert_eq!(
            health.check(request).await.unwrap().into_inner().status,
            1,
            "{service}"
        );
    }
    use tonic_reflection::pb::{v1, v1alpha};
    let channel = sidecar.channel().await;
    let list = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
        ..Default::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answer = client
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap();
    assert!(format!("{answer:?}").contains("outrigger.v1.PublisherService"));
    let list = v1alpha::ServerReflectionRequest {
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
        ..Default::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answer = client
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap();
    assert!(format!("{answer:?}").contains("outrigger.v1.SubscriberService"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_json_and_its_level_can_be_changed() {
    let sidecar = Sidecar::start("127.0.0.1:1", &[]);
    let mut admin = sidecar.admin().await;
    let set = |filter: &str| proto::SetLogLevelRequest {
        filter: filter.to_owned(),
    };
    let previous = admin
        .set_log_level(set("debug"))
        .await
        .unwrap()
        .into_inner()
        .previous;
    assert_eq!(previous, "info");
    let status = admin.set_log_level(set("a=b=c")).await.unwrap_err();
    assert_eq!(crate::client::reason(&status), "INVALID_REQUEST");
    let line = sidecar.wait_for_log(|line| line["message"] == "log level changed");
    assert!(
        line["timestamp"].is_string() && line["level"] == "INFO" && line["filter"] == "debug",
        "{line}"
    );
    assert!(
        sidecar.log().iter().all(Value::is_object),
        "every line is JSON"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_and_is_removed_at_the_end() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outrigger.sock");
    // One that a dead process left behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let sidecar = Sidecar::start("127.0.0.1:1", &[("listen.unix", path.to_str().unwrap())]);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o660
    );
    let drained = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["drain", "--address", &format!("unix:{}", path.display())])
        .status()
        .unwrap();
    assert!(drained.success());
    assert!(sidecar.stop().success());
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_does_not_end_it() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("unread", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    sidecar.close_log();
    let mut admin = sidecar.admin().await;
    for filter in ["debug", "info"] {
        // Each change writes a line.
        let request = proto::SetLogLevelRequest {
            filter: filter.to_owned(),
        };
        admin.set_log_level(request).await.unwrap();
    }
    let request = publish_request(vec![record(&topic, "x")]);
    sidecar
        .publisher()
        .await
        .publish(request)
        .await
        .expect("it lives");
    assert!(sidecar.stop().success());
}
