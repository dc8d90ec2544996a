//! The local door: who may come in by the socket, over TLS and with a token, and what the rules let each do.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
use outrigger::grpc::proto::{
    self, admin_service_client::AdminServiceClient, publish_stream_request,
    publish_stream_response, publisher_service_client::PublisherServiceClient, record_note,
    subscribe_request, subscriber_service_client::SubscriberServiceClient,
};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use crate::{
    certificates::{Authority, Identity},
    client::{init, publish_request, reason, record},
    kafka::{Kafka, fresh},
    sidecar::{PATIENCE, Sidecar},
};

const TOKEN: &str = "alpha-0123456789abcdef";

/// A door with everything: a socket for all users, and TLS that takes certificates and tokens.
struct Door {
    directory: TempDir,
    authority: Authority,
    server: Identity,
}

impl Door {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let authority = Authority::new("door");
        authority.write(&directory.path().join("ca.pem"));
        let server = authority.sign(directory.path(), "server", Some("localhost"), (-1, 30));
        fs::write(
            directory.path().join("tokens"),
            format!("alpha {TOKEN}\nbeta beta-0123456789abcdef\n"),
        )
        .unwrap();
        Self {
            directory,
            authority,
            server,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&self, more: &[(&str, &str)]) -> Sidecar {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut settings = vec![
            ("listen.unix", text(&self.path("socket"))),
            ("listen.unix_mode", "0666".to_owned()),
            (
                "listen.tls.certificate_file",
                text(&self.server.certificate),
            ),
            ("listen.tls.key_file", text(&self.server.key)),
        ];
        settings.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        Sidecar::start(Kafka::shared().bootstrap(), &settings)
    }

    fn both(&self) -> [(&'static str, String); 2] {
        [
            (
                "listen.tls.client_ca_file",
                self.path("ca.pem").to_str().unwrap().to_owned(),
            ),
            (
                "listen.tokens_file",
                self.path("tokens").to_str().unwrap().to_owned(),
            ),
        ]
    }
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect()
}

/// Adds a token to every call.
#[derive(Clone)]
struct Token(Option<String>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

type Connection = InterceptedService<Channel, Token>;

/// Over TLS, with or without a certificate and a token.
async fn over_tls(
    sidecar: &Sidecar,
    ca: &Path,
    identity: Option<&Identity>,
    token: Option<&str>,
) -> Result<Connection, String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_ca_file(ca).unwrap();
    builder.set_alpn_protos(b"\x02h2").unwrap();
    if let Some(identity) = identity {
        builder
            .set_certificate_chain_file(&identity.certificate)
            .unwrap();
        builder
            .set_private_key_file(&identity.key, SslFiletype::PEM)
            .unwrap();
    }
    let connector = Arc::new(builder.build());
    let address = sidecar.grpc;
    let connect = move |_| {
        let connector = Arc::clone(&connector);
        async move {
            let tcp = tokio::net::TcpStream::connect(address).await?;
            let ssl = connector.configure()?.into_ssl("localhost")?;
            let mut stream = tokio_openssl::SslStream::new(ssl, tcp)?;
            std::pin::Pin::new(&mut stream)
                .connect()
                .await
                .map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    };
    let channel = Endpoint::from_static("https://localhost")
        .connect_with_connector(tower::service_fn(connect))
        .await
        .map_err(|error| format!("{error:?}"))?;
    Ok(InterceptedService::new(
        channel,
        Token(token.map(str::to_owned)),
    ))
}

/// Over the socket, as another user. The kernel takes the identity of the thread that connects.
async fn over_socket(socket: PathBuf, uid: u32) -> Connection {
    let connect = move |_| {
        let socket = socket.clone();
        async move {
            let connected = std::thread::spawn(move || {
                become_user(uid);
                std::os::unix::net::UnixStream::connect(socket)
            });
            let stream = connected.join().unwrap()?;
            stream.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::from_std(stream)?))
        }
    };
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(connect))
        .await
        .unwrap();
    InterceptedService::new(channel, Token(None))
}

#[expect(
    unsafe_code,
    reason = "the C library changes the user of a whole process, the kernel that of a thread"
)]
fn become_user(uid: u32) {
    // SAFETY: the call has no pointers; it changes this thread alone, which ends after one connect.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
    assert_eq!(
        result, 0,
        "only root can be somebody else: run the tests as root"
    );
}

/// What a call was answered with: the reason of its refusal, or "ok".
fn answer<T>(result: Result<T, Status>) -> String {
    result.map_or_else(|status| reason(&status), |_| "ok".to_owned())
}

async fn publish(connection: &Connection, topic: &str) -> String {
    let request = publish_request(vec![record(topic, "x")]);
    answer(
        PublisherServiceClient::new(connection.clone())
            .publish(request)
            .await,
    )
}

/// A stream with one batch of one record; what was said of it.
async fn stream(connection: &Connection, topic: &str) -> String {
    let open = publish_stream_request::Message::Open(proto::PublishOpen::default());
    let batch = publish_stream_request::Message::Batch(proto::PublishBatch {
        sequence: 1,
        records: vec![record(topic, "x")],
        ack_level: 0,
    });
    let messages = [open, batch].map(|message| proto::PublishStreamRequest {
        message: Some(message),
    });
    let mut answers = match PublisherServiceClient::new(connection.clone())
        .publish_stream(tokio_stream::iter(messages))
        .await
    {
        Ok(answers) => answers.into_inner(),
        Err(status) => return reason(&status),
    };
    while let Some(message) = answers.message().await.unwrap() {
        if let Some(publish_stream_response::Message::Acks(acks)) = message.message {
            let Some(note) = acks.acks[0].notes.first() else {
                return "ok".to_owned();
            };
            let Some(record_note::Note::Error(error)) = &note.note else {
                panic!("{note:?}");
            };
            return error
                .reason()
                .as_str_name()
                .trim_start_matches("ERROR_REASON_")
                .to_owned();
        }
    }
    panic!("the batch was not answered");
}

async fn subscribe(connection: &Connection, group: &str, topic: &str) -> String {
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let init = init(group, &[topic], proto::Ordering::Unordered);
    let message = Some(subscribe_request::Message::Init(init));
    requests
        .send(proto::SubscribeRequest { message })
        .await
        .unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    match SubscriberServiceClient::new(connection.clone())
        .subscribe(stream)
        .await
    {
        Ok(answers) => answer(answers.into_inner().message().await),
        Err(status) => reason(&status),
    }
}

/// A pull of nothing, and then an acknowledgement of nothing that exists, a look and a seek.
async fn pull(connection: &Connection, group: &str, topic: &str) -> [String; 4] {
    let mut client = SubscriberServiceClient::new(connection.clone());
    let pulled = client
        .pull(proto::PullRequest {
            init: Some(init(group, &[topic], proto::Ordering::Unordered)),
            max_records: 1,
            wait: Some(prost_types::Duration {
                seconds: 0,
                nanos: 1_000_000,
            }),
        })
        .await;
    let acknowledged = client
        .acknowledge(proto::AcknowledgeRequest {
            group: group.to_owned(),
            items: vec![proto::SettleItem {
                token: bytes::Bytes::new(),
                action: Some(proto::settle_item::Action::Ack(proto::Ack {})),
            }],
        })
        .await;
    // Who may be in the group for another topic's sake learns that nobody pulls as it.
    let looked = client
        .get_subscription(proto::GetSubscriptionRequest {
            group: group.to_owned(),
        })
        .await;
    let sought = client
        .seek(proto::SeekRequest {
            group: group.to_owned(),
            target: None,
        })
        .await;
    // A seek without a target is refused later than its caller.
    let sought = answer(sought).replace("INVALID_REQUEST", "ok");
    let seen = |found: String| found.replace("SUBSCRIPTION_NOT_FOUND", "NOT_ALLOWED");
    [
        answer(pulled),
        seen(answer(acknowledged)),
        seen(answer(looked)),
        seen(sought),
    ]
}

async fn look(connection: &Connection) -> String {
    answer(
        AdminServiceClient::new(connection.clone())
            .get_status(proto::GetStatusRequest {})
            .await,
    )
}

/// Whether a cell of the matrix is allowed: any fixed rule that is not simple.
fn is_allowed(principal: usize, operation: usize, topic: usize, group: usize) -> bool {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for part in [principal, operation, topic, group] {
        hash = (hash ^ part as u64)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(23);
    }
    hash.count_ones().is_multiple_of(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_principal_operation_and_topic_is_as_the_rules_say() {
    let door = Door::new();
    let kafka = Kafka::shared();
    let topics = [
        kafka.topic("orders", 1).await,
        kafka.topic("orders.new", 1).await,
        kafka.topic("billing", 1).await,
    ];
    let groups = [fresh("ga"), fresh("gb")];
    let other = 12_345;
    let own = 54_321;
    let orders = door
        .authority
        .sign(door.directory.path(), "orders", None, (-1, 30));
    let billing = door
        .authority
        .sign(door.directory.path(), "billing", None, (-1, 30));
    let principals = [
        format!("uid:{own}"),
        format!("uid:{other}"),
        "certificate:CN=orders".to_owned(),
        "certificate:CN=billing".to_owned(),
        "token:alpha".to_owned(),
        "token:beta".to_owned(),
    ];
    // One rule for each allowed cell.
    let mut rules = Vec::new();
    for (p, principal) in principals.iter().enumerate() {
        for (t, topic) in topics.iter().enumerate() {
            if is_allowed(p, 0, t, 0) {
                rules.push(format!("{{principals: [\"{principal}\"], operations: [publish], topics: [\"{topic}\"]}}"));
            }
            for (g, group) in groups.iter().enumerate() {
                if is_allowed(p, 1, t, g) {
                    rules.push(format!(
                        "{{principals: [\"{principal}\"], operations: [subscribe], topics: [\"{topic}\"], groups: [\"{group}-*\"]}}"
                    ));
                }
            }
        }
        if is_allowed(p, 2, 0, 0) {
            rules.push(format!(
                "{{principals: [\"{principal}\"], operations: [admin]}}"
            ));
        }
    }
    let rules = format!("[{}]", rules.join(", "));
    let mut settings = borrowed(&[]);
    let both = door.both();
    settings.extend(borrowed(&both));
    settings.push(("access.rules", &rules));
    let sidecar = door.start(&settings);
    let ca = door.path("ca.pem");
    let connections = [
        over_socket(door.path("socket"), own).await,
        over_socket(door.path("socket"), other).await,
        over_tls(&sidecar, &ca, Some(&orders), None).await.unwrap(),
        over_tls(&sidecar, &ca, Some(&billing), None).await.unwrap(),
        over_tls(&sidecar, &ca, None, Some(TOKEN)).await.unwrap(),
        over_tls(&sidecar, &ca, None, Some("beta-0123456789abcdef"))
            .await
            .unwrap(),
    ];
    let (mut cells, mut allowed, mut wrong) = (0, 0, Vec::new());
    let mut check = |cell: String, found: String, is_allowed: bool| {
        cells += 1;
        allowed += usize::from(is_allowed);
        if found != if is_allowed { "ok" } else { "NOT_ALLOWED" } {
            wrong.push(format!("{cell}: {found}, allowed: {is_allowed}"));
        }
    };
    for (p, connection) in connections.iter().enumerate() {
        let principal = &principals[p];
        for (t, topic) in topics.iter().enumerate() {
            let expected = is_allowed(p, 0, t, 0);
            check(
                format!("{principal} publishes to {topic}"),
                publish(connection, topic).await,
                expected,
            );
            check(
                format!("{principal} streams to {topic}"),
                stream(connection, topic).await,
                expected,
            );
            for (g, group) in groups.iter().enumerate() {
                // A group of its own, since streams of one group must agree on topics.
                let group = format!("{group}-{p}-{t}");
                let found = subscribe(connection, &group, topic).await;
                check(
                    format!("{principal} reads {topic} as {group}"),
                    found,
                    is_allowed(p, 1, t, g),
                );
                for found in pull(connection, &group, topic).await {
                    check(
                        format!("{principal} pulls {topic} as {group}"),
                        found,
                        is_allowed(p, 1, t, g),
                    );
                }
            }
        }
        check(
            format!("{principal} administers"),
            look(connection).await,
            is_allowed(p, 2, 0, 0),
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {cells} cells are wrong: {wrong:#?}",
        wrong.len()
    );
    assert!(
        cells == 222 && allowed > 60 && allowed < 180,
        "{allowed} of {cells} are allowed"
    );
    assert!(sidecar.metric("outrigger_publish_failures_total{reason=\"NOT_ALLOWED\"}") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_caller_without_a_name_or_with_a_wrong_one_gets_nothing() {
    let door = Door::new();
    let both = door.both();
    let sidecar = door.start(&borrowed(&both));
    let topic = Kafka::shared().topic("named", 1).await;
    let ca = door.path("ca.pem");
    let nameless = over_tls(&sidecar, &ca, None, None).await.unwrap();
    assert_eq!(publish(&nameless, &topic).await, "UNAUTHENTICATED");
    let health = tonic_health::pb::health_client::HealthClient::new(nameless)
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap_err();
    assert_eq!(health.code(), Code::Unauthenticated);
    let guessed = over_tls(&sidecar, &ca, None, Some("gamma-0123456789abcdef"))
        .await
        .unwrap();
    assert_eq!(publish(&guessed, &topic).await, "UNAUTHENTICATED");
    let known = over_tls(&sidecar, &ca, None, Some(TOKEN)).await.unwrap();
    assert_eq!(publish(&known, &topic).await, "ok");
    // A certificate of another authority never gets as far as a call.
    let stranger = Authority::new("stranger").sign(door.directory.path(), "orders", None, (-1, 30));
    let refused = match over_tls(&sidecar, &ca, Some(&stranger), Some(TOKEN)).await {
        Err(_) => true,
        Ok(connection) => publish_broken(&connection, &topic).await,
    };
    assert!(refused, "a foreign certificate is taken");
    sidecar.wait_for_log(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("does not verify"))
    });
    // A token that is taken out of the file is worth nothing, without restart; a new one is.
    fs::write(door.path("tokens"), "delta delta-0123456789abcdef\n").unwrap();
    sidecar.wait_for_log(|line| line["message"] == "new bearer tokens");
    assert_eq!(publish(&known, &topic).await, "UNAUTHENTICATED");
    let delta = over_tls(&sidecar, &ca, None, Some("delta-0123456789abcdef"))
        .await
        .unwrap();
    assert_eq!(publish(&delta, &topic).await, "ok");
    // A broken file changes nothing.
    fs::write(door.path("tokens"), "delta").unwrap();
    sidecar.wait_for_log(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("the old tokens stay"))
    });
    assert_eq!(publish(&delta, &topic).await, "ok");
}

/// Whether the connection breaks at the first call (TLS 1.3 tells a client of its refused certificate only then).
async fn publish_broken(connection: &Connection, topic: &str) -> bool {
    let request = publish_request(vec![record(topic, "x")]);
    let result = PublisherServiceClient::new(connection.clone())
        .publish(request)
        .await;
    // A refusal by the sidecar would say so.
    result.is_err_and(|status| status.get_details_error_info().is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_with_an_authority_alone_wants_a_certificate_and_takes_over_a_new_one_of_its_own()
 {
    let door = Door::new();
    let [authority, _] = door.both();
    let sidecar = door.start(&borrowed(std::slice::from_ref(&authority)));
    let topic = Kafka::shared().topic("mutual", 1).await;
    let ca = door.path("ca.pem");
    let orders = door
        .authority
        .sign(door.directory.path(), "orders", None, (-1, 30));
    let with = over_tls(&sidecar, &ca, Some(&orders), None).await.unwrap();
    assert_eq!(publish(&with, &topic).await, "ok");
    let refused = match over_tls(&sidecar, &ca, None, None).await {
        Err(_) => true,
        Ok(connection) => publish_broken(&connection, &topic).await,
    };
    assert!(refused, "a caller without a certificate is served");
    // The listener's own certificate, from another authority: those who trust that one come in from then on, and old connections stay.
    let renewed = Authority::new("renewed");
    renewed.write(&door.path("renewed.pem"));
    let server = renewed.sign(door.directory.path(), "server", Some("localhost"), (-1, 30));
    assert!(
        over_tls(&sidecar, &door.path("renewed.pem"), Some(&orders), None)
            .await
            .is_err()
    );
    fs::copy(&server.key, &door.server.key).unwrap();
    fs::copy(&server.certificate, &door.server.certificate).unwrap();
    sidecar.wait_for_log(|line| line["message"] == "the listener uses a new certificate");
    let anew = over_tls(&sidecar, &door.path("renewed.pem"), Some(&orders), None)
        .await
        .unwrap();
    assert_eq!(publish(&anew, &topic).await, "ok");
    assert_eq!(publish(&with, &topic).await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_on_the_tls_port_and_one_connection_too_many_are_closed_with_a_line_each() {
    use std::io::{Read, Write};
    let door = Door::new();
    let both = door.both();
    let mut settings = borrowed(&both);
    settings.push(("listen.max_connections", "2"));
    let sidecar = door.start(&settings);
    let mut plain = std::net::TcpStream::connect(sidecar.grpc).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    assert_eq!(plain.read(&mut [0; 16]).unwrap_or(0), 0, "closed");
    sidecar.wait_for_log(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("plain text was spoken to the TLS port"))
    });
    let ca = door.path("ca.pem");
    let _first = over_tls(&sidecar, &ca, None, Some(TOKEN)).await.unwrap();
    // The place of the one that was closed may still be on its way back.
    let begun = std::time::Instant::now();
    let _second = loop {
        match over_tls(&sidecar, &ca, None, Some(TOKEN)).await {
            Ok(second) => break second,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert!(over_tls(&sidecar, &ca, None, Some(TOKEN)).await.is_err());
    sidecar.wait_for_log(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("listen.max_connections"))
    });
    assert!(sidecar.metric("outrigger_grpc_connections_rejected_total") >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_has_its_mode_a_dead_one_is_replaced_and_a_live_one_is_not() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let path = socket.to_str().unwrap().to_owned();
    let settings = [("listen.unix", path.as_str()), ("listen.unix_mode", "0600")];
    let sidecar = Sidecar::start(Kafka::shared().bootstrap(), &settings);
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let rival = Sidecar::command(Kafka::shared().bootstrap(), &settings)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&rival.stderr).into_owned();
    assert!(
        !rival.status.success() && said.contains("listen.unix"),
        "{said}"
    );
    sidecar.kill();
    assert!(socket.exists(), "a killed process leaves its socket behind");
    let successor = Sidecar::start(Kafka::shared().bootstrap(), &settings);
    let connection = over_socket(socket.clone(), 0).await;
    assert_eq!(look(&connection).await, "ok");
    assert!(successor.stop().success());
    assert!(!socket.exists(), "removed at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_commands_come_in_by_every_door_and_drain_finds_its_own() {
    let door = Door::new();
    let both = door.both();
    let sidecar = door.start(&borrowed(&both));
    let topic = Kafka::shared().topic("commanded", 1).await;
    fs::write(door.path("token"), format!("{TOKEN}\n")).unwrap();
    let orders = door
        .authority
        .sign(door.directory.path(), "orders", None, (-1, 30));
    let address = format!("localhost:{}", sidecar.grpc.port());
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (ca, token) = (text(&door.path("ca.pem")), text(&door.path("token")));
    let (certificate, key) = (text(&orders.certificate), text(&orders.key));
    let socket = format!("unix:{}", door.path("socket").display());
    let publish = ["publish", &topic, "hello", "--address"];
    for way in [
        vec![address.as_str(), "--ca-file", &ca, "--token-file", &token],
        vec![
            &address,
            "--ca-file",
            &ca,
            "--certificate-file",
            &certificate,
            "--key-file",
            &key,
        ],
        vec![socket.as_str()],
    ] {
        let (done, said) = run(&[publish.as_slice(), &way].concat());
        assert!(done, "{way:?}: {said}");
    }
    let (done, said) = run(&[publish.as_slice(), &[&address, "--ca-file", &ca]].concat());
    assert!(!done && said.contains("UNAUTHENTICATED"), "{said}");
    let (done, said) = run(&[
        publish.as_slice(),
        &[&format!("https://{address}"), "--token-file", &token],
    ]
    .concat());
    assert!(!done && said.contains("does not verify"), "{said}");
    // The hook runs in the sidecar's own environment, which says where its socket is.
    let drained = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .arg("drain")
        .env("OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS", "localhost:1")
        .env("OUTRIGGER_LISTEN__UNIX", door.path("socket"))
        .output()
        .unwrap();
    assert!(
        drained.status.success(),
        "{}",
        String::from_utf8_lossy(&drained.stderr)
    );
    assert!(sidecar.stop().success());
}
