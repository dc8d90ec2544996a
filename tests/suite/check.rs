//! `outrigger check` against real Kafka: what works is called so, each trouble has a text and a hint of its own, and nothing is written.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::Value;

use crate::{
    certificates::Authority,
    client::committed,
    kafka::{Kafka, fresh},
    secured::{LIMITED, PASSWORD, STRANGER, Secured, Settings, USER, path, settings},
    sidecar::PATIENCE,
};

/// What no output may hold.
const CANARY: &str = "canary-7f3a";

fn command(bootstrap: &str, settings: &Settings, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command
        .arg("check")
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("KUBERNETES_SERVICE_HOST");
    let bootstrap = ("kafka.bootstrap_servers".to_owned(), bootstrap.to_owned());
    for (key, value) in [bootstrap].iter().chain(settings) {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    command
}

/// A name, where, with what, the category that fails, what its row says, and a part of its hint.
type Trouble<'a> = (&'a str, String, Settings, &'a str, &'a [&'a str], &'a str);

/// What a check said.
struct Said {
    code: Option<i32>,
    rows: Vec<Value>,
    all: String,
}

impl Said {
    fn by(mut command: Command) -> Self {
        let output = command.arg("-o").arg("json").output().unwrap();
        let all = text(&output);
        assert!(!all.contains(CANARY), "a secret is told: {all}");
        Self {
            code: output.status.code(),
            rows: serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{all}")),
            all,
        }
    }

    fn of(bootstrap: &str, settings: &Settings, arguments: &[&str]) -> Self {
        Self::by(command(bootstrap, settings, arguments))
    }

    fn row(&self, category: &str, check: &str) -> &Value {
        self.rows
            .iter()
            .find(|row| row["category"] == category && row["check"] == check)
            .unwrap_or_else(|| panic!("no row {category} {check}: {}", self.all))
    }

    fn with(&self, status: &str) -> Vec<&Value> {
        self.rows
            .iter()
            .filter(|row| row["status"] == status)
            .collect()
    }

    /// The one row that failed, with its detail and its hint.
    #[track_caller]
    fn failure(&self, category: &str) -> (&str, &str) {
        assert_eq!(self.code, Some(1), "{}", self.all);
        let failed = self.with("failed");
        assert_eq!(failed.len(), 1, "{}", self.all);
        assert_eq!(failed[0]["category"], category, "{}", self.all);
        (
            failed[0]["detail"].as_str().unwrap(),
            failed[0]["hint"].as_str().unwrap(),
        )
    }
}

fn text(output: &Output) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    part(&output.stdout) + &part(&output.stderr)
}

fn topics(bootstrap: &str) -> BTreeSet<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
    metadata
        .topics()
        .iter()
        .map(|topic| topic.name().to_owned())
        // Asking for the coordinator of a group makes the brokers' own topic, as with any client.
        .filter(|name| name != "__consumer_offsets")
        .collect()
}

fn end(bootstrap: &str, topic: &str) -> (i64, i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_is_called_so_by_every_way_to_log_in_and_nothing_is_written() {
    let secured = Secured::shared();
    let topic = secured.kafka.topic(LIMITED, 3).await;
    let group = fresh(LIMITED);
    let bootstrap = secured.kafka.bootstrap();
    let token = secured.write("check-token", &secured.issuer.token(USER, 3600));
    let identity = secured.sign(USER);
    let with = |more: &[(&str, &str)]| -> Settings { [secured.tls(), settings(more)].concat() };
    let ways: Vec<(&str, Settings)> = vec![
        ("SASL", secured.password("PLAIN", LIMITED, PASSWORD)),
        ("SASL", secured.password("SCRAM-SHA-512", USER, PASSWORD)),
        (
            "SASL",
            with(&[
                ("kafka.sasl.mechanism", "OAUTHBEARER"),
                ("kafka.sasl.oauth.token_file", &path(&token)),
            ]),
        ),
        (
            "SSL",
            with(&[
                ("kafka.tls.certificate_file", &path(&identity.certificate)),
                ("kafka.tls.key_file", &path(&identity.key)),
            ]),
        ),
    ];
    for (listener, settings) in ways {
        let address = secured.kafka.listener(listener);
        let said = Said::of(address, &settings, &["--topic", &topic, "--group", &group]);
        assert_eq!(said.code, Some(0), "{}", said.all);
        assert!(said.with("failed").is_empty());
        for category in ["dns", "tcp", "tls", "sasl", "versions"] {
            assert_eq!(said.row(category, address)["status"], "ok", "{}", said.all);
        }
        assert_eq!(said.row("cluster", "brokers")["status"], "ok");
        let found = said.row("topics", &topic)["detail"].as_str().unwrap();
        assert!(found.starts_with("3 partitions, 1 replica"), "{found}");
        for check in [format!("topic {topic}"), format!("group {group}")] {
            assert_eq!(said.row("acls", &check)["status"], "ok", "{}", said.all);
        }
        assert_eq!(said.row("group", &group)["status"], "ok", "{}", said.all);
    }
    assert_eq!(end(bootstrap, &topic), (0, 0), "no record is written");
    assert_eq!(
        committed(bootstrap, &group, &topic, 1),
        [-1],
        "no offset is committed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_trouble_with_a_broker_has_a_text_and_a_hint_of_its_own() {
    let secured = Secured::shared();
    let other = Authority::new("another authority");
    let other_ca = secured.directory.path().join("check-other-ca.pem");
    other.write(&other_ca);
    let with = |more: &[(&str, &str)]| -> Settings { [secured.tls(), settings(more)].concat() };
    let good = || secured.password("PLAIN", USER, PASSWORD);
    let strange = other.sign(secured.directory.path(), USER, None, (-1, 30));
    let mut unknown = good();
    unknown.push(("kafka.tls.ca_file".into(), path(&other_ca)));
    let tokenless = with(&[
        ("kafka.sasl.mechanism", "OAUTHBEARER"),
        ("kafka.sasl.oauth.token_endpoint", &secured.tokens.url),
        ("kafka.sasl.oauth.client_id", "outrigger"),
        ("kafka.sasl.oauth.client_secret", CANARY),
        ("kafka.sasl.oauth.ca_file", &path(&secured.ca)),
    ]);
    let forged = secured.write(
        "check-forged",
        &crate::tokens::Issuer::new().token(USER, 3600),
    );
    let forged = with(&[
        ("kafka.sasl.mechanism", "OAUTHBEARER"),
        ("kafka.sasl.oauth.token_file", &path(&forged)),
    ]);
    let plain = secured.kafka.bootstrap();
    let at = |listener: &str| secured.kafka.listener(listener).to_owned();
    let clear = |more: &[(&str, &str)]| settings(more);
    #[rustfmt::skip]
    let cases: Vec<Trouble> = vec![
        ("wrong password", at("SASL"), secured.password("PLAIN", USER, CANARY), "sasl", &["refuses the login", "Authentication failed"], "does not know the two together"),
        ("wrong SCRAM password", at("SASL"), secured.password("SCRAM-SHA-256", USER, CANARY), "sasl", &["refuses the login"], "SCRAM-SHA-256 on the brokers"),
        ("expired certificate", at("EXPIRED"), good(), "tls", &["the certificate has expired: CN=broker, on "], "renewed"),
        ("wrong host name", at("MISNAMED"), good(), "tls", &["not for localhost", "elsewhere.example"], "alternative names"),
        ("unknown authority", at("SASL"), unknown, "tls", &["signed", "CN=test authority"], "kafka.tls.ca_file"),
        ("no token", at("SASL"), tokenless, "sasl", &["there is no token", "401", "invalid_client"], "client_secret"),
        ("a token of another issuer", at("SASL"), forged, "sasl", &["refuses the login"], "issuer, audience and keys"),
        ("no client certificate", at("SSL"), secured.tls(), "tls", &["asks for a certificate", "has none"], "kafka.tls.certificate_file"),
        ("a client certificate of another authority", at("SSL"), with(&[("kafka.tls.certificate_file", &path(&strange.certificate)), ("kafka.tls.key_file", &path(&strange.key))]), "tls", &["does not accept this client's certificate"], "truststore"),
        ("no login", at("SASL"), secured.tls(), "sasl", &["closes the connection"], "kafka.sasl.mechanism"),
        ("a login that the listener has not", plain.to_owned(), clear(&[("kafka.sasl.mechanism", "PLAIN"), ("kafka.sasl.username", "x"), ("kafka.sasl.password", CANARY)]), "sasl", &["refuses the login", "SASL state"], "listener has no login"),
        ("no TLS where it is spoken", at("SASL"), clear(&[("kafka.properties.broker.address.family", "v4")]), "tls", &["speaks TLS", "kafka.tls.enabled is false"], "kafka.tls.enabled=true"),
        ("TLS where it is not spoken", plain.to_owned(), clear(&[("kafka.tls.enabled", "true"), ("kafka.tls.ca_file", &path(&secured.ca))]), "tls", &["does not speak TLS"], "SASL_SSL"),
        ("a port where nothing listens", "127.0.0.1:1".to_owned(), clear(&[]), "tcp", &["refuses the connection", "port 1"], "Start the broker"),
        ("a name that does not exist", "no-such-broker.invalid:9092".to_owned(), clear(&[]), "dns", &["no-such-broker.invalid"], "in Kubernetes"),
    ];
    let mut details = BTreeSet::new();
    for (name, bootstrap, settings, category, words, hint) in cases {
        let begun = Instant::now();
        let said = Said::of(&bootstrap, &settings, &["--topic", "t", "--group", "g"]);
        assert!(begun.elapsed() < PATIENCE, "{name}");
        let (detail, told) = said.failure(category);
        for word in words {
            assert!(detail.contains(word), "{name}: {detail}");
        }
        assert!(told.contains(hint), "{name}: {told}");
        assert!(
            details.insert(detail.to_owned()),
            "{name}: {detail} is told of another trouble too"
        );
        // What rests on it is not looked at, and is neither ok nor failed.
        for (category, check) in [("topics", "t"), ("acls", "topic t"), ("group", "g")] {
            assert_eq!(said.row(category, check)["status"], "skipped", "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_not_made_by_asking_for_it() {
    let kafka = Kafka::shared();
    let (missing, small) = (
        fresh("missing"),
        kafka
            .topic_with("small", 1, &[("max.message.bytes", "1000")])
            .await,
    );
    let said = Said::of(kafka.bootstrap(), &vec![], &["--topic", &missing]);
    let (detail, hint) = said.failure("topics");
    assert!(detail.contains("does not exist"), "{detail}");
    assert!(
        hint.contains("--create") && hint.contains(&missing),
        "{hint}"
    );
    let creating = settings(&[("kafka.allow_auto_create_topics", "true")]);
    let said = Said::of(kafka.bootstrap(), &creating, &["--topic", &missing]);
    assert_eq!(said.code, Some(0), "{}", said.all);
    assert_eq!(said.row("topics", &missing)["status"], "warning");
    assert!(!topics(kafka.bootstrap()).contains(&missing));
    // One that works, and refuses what the sidecar accepts.
    let said = Said::of(kafka.bootstrap(), &vec![], &["--topic", &small]);
    assert_eq!(said.code, Some(0), "{}", said.all);
    let row = said.row("topics", &small);
    assert_eq!(row["status"], "warning", "{row}");
    assert!(row["hint"].as_str().unwrap().contains("max.message.bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_acl_is_told_for_the_topic_and_for_the_group_with_the_command_that_grants_it() {
    let secured = Secured::shared();
    let address = secured.kafka.listener("SASL");
    let limited = secured.password("PLAIN", LIMITED, PASSWORD);
    let foreign = secured.kafka.topic("foreign", 1).await;
    let own = secured.kafka.topic(LIMITED, 1).await;
    let said = Said::of(address, &limited, &["--topic", &foreign]);
    let (detail, hint) = said.failure("acls");
    assert!(detail.contains("nothing with it"), "{detail}");
    for part in [
        "--allow-principal 'User:carl'",
        "--operation Read",
        "--operation Write",
        &foreign,
    ] {
        assert!(hint.contains(part), "{hint}");
    }
    assert_eq!(said.row("topics", &foreign)["status"], "skipped");
    let group = fresh("foreign-group");
    let said = Said::of(address, &limited, &["--topic", &own, "--group", &group]);
    let (detail, hint) = said.failure("acls");
    assert!(detail.contains("may not use it"), "{detail}");
    assert!(
        hint.contains(&format!("--operation Read --group {group}")),
        "{hint}"
    );
    // Some rights, and not all.
    let readable = secured.kafka.topic("readable", 1).await;
    let principal = format!("User:{STRANGER}");
    let arguments = [
        "--add",
        "--allow-principal",
        &principal,
        "--operation",
        "Read",
        "--topic",
        &readable,
    ];
    secured.kafka.tool("acls", &arguments);
    let stranger = secured.password("PLAIN", STRANGER, PASSWORD);
    let said = Said::of(address, &stranger, &["--topic", &readable]);
    let (detail, hint) = said.failure("acls");
    assert_eq!(detail, "this client may not write");
    assert!(
        hint.contains("--operation Write --topic") && !hint.contains("Read"),
        "{hint}"
    );
    let only_read = format!("{readable}:read");
    let said = Said::of(address, &stranger, &["--topic", &only_read]);
    assert_eq!(said.code, Some(0), "{}", said.all);
    // Without the right to read settings, that is said and is no failure.
    let row = said.row("topics", &readable);
    assert!(row["detail"].as_str().unwrap().contains("not readable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_members_would_not_let_one_in_is_told() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("eager", 1).await;
    let group = fresh("eager");
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", &group)
        .set("partition.assignment.strategy", "range")
        .create()
        .unwrap();
    member.subscribe(&[&topic]).unwrap();
    let begun = Instant::now();
    while member.assignment().unwrap().count() == 0 {
        let _ = member.poll(Duration::from_millis(50));
        assert!(begun.elapsed() < PATIENCE, "the member joins");
    }
    let said = Said::of(kafka.bootstrap(), &vec![], &["--group", &group]);
    let (detail, hint) = said.failure("group");
    assert!(
        detail.contains("1 member") && detail.contains("\"range\""),
        "{detail}"
    );
    assert!(hint.contains("cooperative-sticky"), "{hint}");
}

#[test]
fn every_broker_that_the_cluster_tells_of_is_looked_at_too() {
    // The listener that clients are told of is at a port where nothing listens.
    let options = [
        "--listener=TOLD:PLAINTEXT".to_owned(),
        "--set=advertised.listeners=PLAINTEXT://127.0.0.1:1,TOLD://127.0.0.1:2".to_owned(),
    ];
    let kafka = Kafka::start_with(1, &options);
    let said = Said::of(kafka.bootstrap(), &vec![], &["--topic", "t"]);
    assert_eq!(said.row("topics", "t")["status"], "skipped");
    let (detail, hint) = said.failure("tcp");
    assert!(detail.contains("port 1"), "{detail}");
    assert!(hint.contains("advertised.listeners"), "{hint}");
    assert_eq!(said.row("sasl", kafka.bootstrap())["status"], "ok");
    let cluster = said.row("cluster", "brokers")["detail"].as_str().unwrap();
    assert!(cluster.contains("1 at 127.0.0.1:1"), "{cluster}");
}

#[test]
fn waiting_ends_when_the_broker_comes_or_when_the_time_is_over() {
    let kafka = Kafka::start(1, &[]);
    kafka.tell("kill 1");
    let begun = Instant::now();
    let said = Said::of(kafka.bootstrap(), &vec![], &["--wait", "2s"]);
    said.failure("tcp");
    assert!(begun.elapsed() > Duration::from_secs(1), "it tried again");
    let mut waiting = command(kafka.bootstrap(), &vec![], &["--wait", "2m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The broker comes when it has tried once, and said so.
    let mut heard = BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    heard.read_line(&mut line).unwrap();
    assert!(line.contains("not yet: TCP"), "{line}");
    kafka.tell("start 1");
    let reader = thread::spawn(move || std::io::read_to_string(heard).unwrap());
    let output = waiting.wait_with_output().unwrap();
    let rest = reader.join().unwrap();
    assert!(output.status.success(), "{}{line}{rest}", text(&output));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!printed.contains('×'), "the last result counts: {printed}");
    // The first group of a cluster: its coordinator is only chosen now.
    let said = Said::of(
        kafka.bootstrap(),
        &vec![],
        &["--group", "first", "--wait", "1m"],
    );
    assert_eq!(said.code, Some(0), "{}", said.all);
    assert_eq!(said.row("group", "first")["status"], "ok");
    // One that stands still has a connection for everybody and an answer for nobody.
    kafka.tell("pause 1");
    let said = Said::of(kafka.bootstrap(), &vec![], &[]);
    kafka.tell("resume 1");
    let (detail, _) = said.failure("versions");
    assert!(detail.contains("no answer came"), "{detail}");
}

#[test]
fn a_wrong_configuration_is_told_in_full_with_its_own_exit_code() {
    let wrong = settings(&[("publish.linger", "soon"), ("kafka.no_such_key", CANARY)]);
    let said = Said::of("localhost:1", &wrong, &[]);
    assert_eq!(said.code, Some(78), "{}", said.all);
    assert_eq!(said.with("failed").len(), 2, "{}", said.all);
    assert!(
        said.rows
            .iter()
            .all(|row| row["category"] == "configuration" && row["hint"].is_string()),
        "{}",
        said.all
    );
    let property = settings(&[("kafka.properties.no.such.property", "1")]);
    let said = Said::of("localhost:1", &property, &[]);
    assert_eq!(said.code, Some(78), "{}", said.all);
    let output = command("localhost:1", &vec![], &["--topic", "a:x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn files_that_cannot_be_used_are_named_and_what_rests_on_them_is_not_guessed() {
    let secured = Secured::shared();
    let missing = path(&secured.directory.path().join("no-such-file"));
    let mut given = secured.tls();
    given.extend(settings(&[
        ("kafka.sasl.mechanism", "PLAIN"),
        ("kafka.sasl.username", USER),
        ("kafka.sasl.password_file", &missing),
    ]));
    let said = Said::of(secured.kafka.listener("SASL"), &given, &[]);
    assert_eq!(said.code, Some(1), "{}", said.all);
    let row = said.row("configuration", "kafka.sasl.password_file");
    assert_eq!(row["status"], "failed", "{row}");
    assert!(
        row["detail"].as_str().unwrap().contains("does not exist"),
        "{row}"
    );
    // A certificate and the key of another, and one that will end soon.
    let (one, two) = (secured.sign(USER), secured.sign(USER));
    let ending = secured
        .authority
        .sign(secured.directory.path(), USER, None, (-1, 5));
    let identity = |certificate: &std::path::Path, key: &std::path::Path| -> Settings {
        let pair = settings(&[
            ("kafka.tls.certificate_file", &path(certificate)),
            ("kafka.tls.key_file", &path(key)),
        ]);
        [secured.tls(), pair].concat()
    };
    let address = secured.kafka.listener("SSL");
    let said = Said::of(address, &identity(&one.certificate, &two.key), &[]);
    assert_eq!(said.code, Some(1), "{}", said.all);
    let row = said.row("tls", "kafka.tls.certificate_file");
    assert!(
        row["detail"].as_str().unwrap().contains("not the key of"),
        "{row}"
    );
    let said = Said::of(address, &identity(&ending.certificate, &ending.key), &[]);
    assert_eq!(said.code, Some(0), "{}", said.all);
    let row = said.row("tls", "kafka.tls.certificate_file");
    assert_eq!(row["status"], "warning", "{row}");
    assert!(
        row["detail"].as_str().unwrap().contains("expires in "),
        "{row}"
    );
}

#[test]
fn in_a_pod_its_set_up_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("outrigger.sock");
    let given = settings(&[("listen.unix", &path(&socket)), ("drain.deadline", "25s")]);
    let pod = |grace: &str| {
        let mut command = command(Kafka::shared().bootstrap(), &given, &[]);
        command
            .env("KUBERNETES_SERVICE_HOST", "10.0.0.1")
            .env("OUTRIGGER_GRACE_PERIOD", grace);
        Said::by(command)
    };
    let said = pod("30");
    assert_eq!(said.code, Some(0), "{}", said.all);
    assert_eq!(said.row("kubernetes", "grace period")["status"], "ok");
    assert_ne!(
        said.row("kubernetes", "socket's directory")["status"],
        "failed"
    );
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
    let said = pod("20s");
    let (detail, hint) = said.failure("kubernetes");
    assert!(detail.contains("drain.deadline is 25s"), "{detail}");
    assert!(hint.contains("27"), "{hint}");
}

#[test]
fn json_and_text_tell_the_same_in_the_order_of_the_categories() {
    const ORDER: [&str; 13] = [
        "configuration",
        "dns",
        "tcp",
        "tls",
        "sasl",
        "versions",
        "cluster",
        "topics",
        "acls",
        "group",
        "clock",
        "limits",
        "kubernetes",
    ];
    let arguments = ["--topic", "no-such-topic"];
    let said = Said::of(Kafka::shared().bootstrap(), &vec![], &arguments);
    let place = |row: &Value| {
        let category = row["category"].as_str().unwrap();
        ORDER.iter().position(|known| *known == category).unwrap()
    };
    assert!(said.rows.is_sorted_by_key(place), "{}", said.all);
    for row in &said.rows {
        let keys: BTreeSet<&str> = row
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            keys,
            ["category", "check", "detail", "hint", "status"].into()
        );
        let status = row["status"].as_str().unwrap();
        assert_eq!(
            row["hint"].is_string(),
            ["warning", "failed"].contains(&status),
            "{row}"
        );
    }
    let output = command(Kafka::shared().bootstrap(), &vec![], &arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).unwrap();
    let hints = said.rows.iter().filter(|row| row["hint"].is_string());
    assert_eq!(printed.matches("    hint: ").count(), hints.count());
    for (status, symbol) in [
        ("ok", "  ✓ "),
        ("warning", "  ‼ "),
        ("failed", "  × "),
        ("skipped", "  – "),
    ] {
        let lines = printed.lines().filter(|line| line.starts_with(symbol));
        // The last line counts them, without blanks before it.
        assert_eq!(lines.count(), said.with(status).len(), "{printed}");
    }
    assert!(!printed.contains('\x1b'), "no colours in a pipe");
}
