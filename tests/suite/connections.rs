//! Connections to a broker that asks who comes: every way to log in works, every refusal is told by name, and what rotates is taken over.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use outrigger::grpc::proto;

use crate::{
    client::{Subscription, init, publish_request, reason, record, window},
    kafka::fresh,
    protocol::{Protocol, with_each_protocol},
    secured::{
        LIMITED, PASSWORD, PROMPT, STRANGER, Secured, Settings, USER, allow, path, set_password,
        settings,
    },
    sidecar::{PATIENCE, Sidecar},
    tokens::TokenServer,
};

/// Within what a refusal is told that is known already; the sidecar looks at its client once a second.
const KNOWN: Duration = Duration::from_millis(600);

/// Publishes a record and reads it back as a group.
async fn round_trip(sidecar: &Sidecar, topic: &str, group: &str, value: &str) {
    let mut asked = init(group, &[topic], proto::Ordering::Unordered);
    asked.window = window(10);
    let mut subscription = Subscription::open(sidecar, asked).await;
    let request = publish_request(vec![record(topic, value.to_owned())]);
    let answer = sidecar.publisher().await.publish(request).await.unwrap();
    assert_eq!(answer.into_inner().results.len(), 1);
    loop {
        let deliveries = subscription.deliveries().await.unwrap();
        subscription.ack(&deliveries).await;
        if deliveries.iter().any(|delivery| {
            delivery.record.as_ref().unwrap().value.as_deref() == Some(value.as_bytes())
        }) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_log_in_publishes_and_subscribes() {
    let secured = Secured::shared();
    let token_file = secured.write("token", &secured.issuer.token(USER, 3600));
    let identity = secured.sign(USER);
    let id = secured.write("client-id", "outrigger\n");
    let secret = secured.write("client-secret", "open sesame/%+\n");
    let with = |more: &[(&str, &str)]| -> Settings { [secured.tls(), settings(more)].concat() };
    let oauth = ("kafka.sasl.mechanism", "OAUTHBEARER");
    let ways: Vec<(&str, &str, Settings)> = vec![
        ("PLAIN", "SASL", secured.password("PLAIN", USER, PASSWORD)),
        (
            "SCRAM-SHA-256",
            "SASL",
            secured.password("SCRAM-SHA-256", USER, PASSWORD),
        ),
        (
            "SCRAM-SHA-512",
            "SASL",
            secured.password("SCRAM-SHA-512", USER, PASSWORD),
        ),
        (
            "mTLS",
            "SSL",
            with(&[
                ("kafka.tls.certificate_file", &path(&identity.certificate)),
                ("kafka.tls.key_file", &path(&identity.key)),
            ]),
        ),
        (
            "a token from an endpoint",
            "SASL",
            with(&[
                oauth,
                ("kafka.sasl.oauth.token_endpoint", &secured.tokens.url),
                ("kafka.sasl.oauth.client_id_file", &path(&id)),
                ("kafka.sasl.oauth.client_secret_file", &path(&secret)),
                ("kafka.sasl.oauth.ca_file", &path(&secured.ca)),
                (
                    "kafka.sasl.oauth.extensions",
                    "logicalCluster=lkc-1,identityPoolId=pool-2",
                ),
            ]),
        ),
        (
            "a token from a file",
            "SASL",
            with(&[oauth, ("kafka.sasl.oauth.token_file", &path(&token_file))]),
        ),
        (
            "a token from a command",
            "SASL",
            with(&[
                oauth,
                (
                    "kafka.sasl.oauth.token_command",
                    &format!("/bin/cat,{}", path(&token_file)),
                ),
            ]),
        ),
    ];
    for (name, listener, settings) in ways {
        let topic = secured.kafka.topic("way", 1).await;
        let sidecar = secured.sidecar(listener, &settings);
        let group = fresh("g");
        let done = round_trip(&sidecar, &topic, &group, name);
        tokio::time::timeout(PATIENCE, done)
            .await
            .unwrap_or_else(|_| panic!("{name}: {:?}", sidecar.log()));
        assert!(sidecar.stop().success(), "{name}");
    }
    assert!(
        secured
            .tokens
            .given
            .load(std::sync::atomic::Ordering::Relaxed)
            >= 1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_by_a_broker_is_told_by_name_at_once() {
    let secured = Secured::shared();
    let other = crate::certificates::Authority::new("another authority");
    let other_ca = secured.directory.path().join("other-ca.pem");
    other.write(&other_ca);
    let mut unknown = secured.password("PLAIN", USER, PASSWORD);
    unknown.push(("kafka.tls.ca_file".into(), path(&other_ca)));
    let mut tokenless = secured.tls();
    tokenless.extend(settings(&[
        ("kafka.sasl.mechanism", "OAUTHBEARER"),
        ("kafka.sasl.oauth.token_endpoint", &secured.tokens.url),
        ("kafka.sasl.oauth.client_id", "outrigger"),
        ("kafka.sasl.oauth.client_secret", "canary-7f3a"),
        ("kafka.sasl.oauth.ca_file", &path(&secured.ca)),
    ]));
    let good = || secured.password("PLAIN", USER, PASSWORD);
    let cases: Vec<(&str, &str, Settings, &[&str])> = vec![
        (
            "SASL",
            "wrong password",
            secured.password("PLAIN", USER, "canary-7f3a"),
            &["credentials", "Authentication failed"],
        ),
        (
            "SASL",
            "wrong SCRAM password",
            secured.password("SCRAM-SHA-256", USER, "canary-7f3a"),
            &["credentials"],
        ),
        (
            "EXPIRED",
            "expired certificate",
            good(),
            &["certificate has expired"],
        ),
        (
            "MISNAMED",
            "wrong host name",
            good(),
            &["hostname mismatch"],
        ),
        ("SASL", "unknown CA", unknown, &["TLS", "certificate"]),
        ("SASL", "no token", tokenless, &["invalid_client"]),
    ];
    for (listener, name, settings, said) in cases {
        let topic = secured.kafka.topic("refused", 1).await;
        let sidecar = secured.sidecar(listener, &settings);
        let begun = Instant::now();
        let request = publish_request(vec![record(&topic, "x")]);
        let status = sidecar
            .publisher()
            .await
            .publish(request)
            .await
            .unwrap_err();
        assert!(
            begun.elapsed() < PROMPT,
            "{name}: after {:?}",
            begun.elapsed()
        );
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (
                tonic::Code::FailedPrecondition,
                "KAFKA_AUTHENTICATION_FAILED"
            ),
            "{name}: {status:?}"
        );
        for part in said {
            assert!(
                status.message().contains(part),
                "{name}: {}",
                status.message()
            );
        }
        // What is known needs no look any more. The quickest of five, for the machine may be busy.
        let mut quickest = Duration::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            let request = publish_request(vec![record(&topic, "x")]);
            let again = sidecar.publisher().await.publish(request).await;
            assert_eq!(reason(&again.unwrap_err()), reason(&status), "{name}");
            quickest = quickest.min(begun.elapsed());
        }
        assert!(quickest < KNOWN, "{name}: after {quickest:?}");
        let asked = init(&fresh("g"), &[&topic], proto::Ordering::Unordered);
        let mut subscription = Subscription::open(&sidecar, asked).await;
        let begun = Instant::now();
        let status = subscription.deliveries().await.unwrap_err();
        assert!(
            begun.elapsed() < PROMPT,
            "{name}: after {:?}",
            begun.elapsed()
        );
        assert_eq!(
            reason(&status),
            "KAFKA_AUTHENTICATION_FAILED",
            "{name}: {status:?}"
        );
        for part in said {
            assert!(
                status.message().contains(part),
                "{name}: {}",
                status.message()
            );
        }
        let (_, metrics) = sidecar.get("/metrics");
        let is_counted =
            |line: &str| line.contains("KAFKA_AUTHENTICATION_FAILED") && !line.ends_with(" 0");
        assert!(metrics.lines().any(is_counted), "{name}: {metrics}");
        let log = format!("{:?}", sidecar.log());
        assert!(
            !log.contains("canary-7f3a") && !metrics.contains("canary-7f3a"),
            "{name}"
        );
        assert!(sidecar.stop().success(), "{name}: it stops in order");
    }
}

async fn missing_acl(protocol: Protocol) {
    let secured = Secured::shared();
    let foreign = secured.kafka.topic("foreign", 1).await;
    let own = secured.kafka.topic(LIMITED, 1).await;
    let mut given = secured.password("PLAIN", LIMITED, PASSWORD);
    given.extend(settings(&[protocol.setting()]));
    let sidecar = secured.sidecar("SASL", &given);
    let publish = async |sidecar: &Sidecar, topic: &str| {
        let request = publish_request(vec![record(topic, "x")]);
        let status = sidecar
            .publisher()
            .await
            .publish(request)
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (tonic::Code::PermissionDenied, "KAFKA_NOT_AUTHORIZED"),
            "{status:?}"
        );
        status.message().to_owned()
    };
    let subscribe = async |topic: &str, group: &str| {
        let asked = init(group, &[topic], proto::Ordering::Unordered);
        let mut subscription = Subscription::open(&sidecar, asked).await;
        let status = subscription.deliveries().await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (tonic::Code::PermissionDenied, "KAFKA_NOT_AUTHORIZED"),
            "{status:?}"
        );
        status.message().to_owned()
    };
    let said = publish(&sidecar, &foreign).await;
    assert!(said.contains(&foreign), "{said}");
    let group = fresh(LIMITED);
    let said = subscribe(&foreign, &group).await;
    assert!(said.contains(&foreign), "{said}");
    let group = fresh("foreign-group");
    let said = subscribe(&own, &group).await;
    assert!(said.contains(&group), "{said}");
    round_trip(
        &sidecar,
        &own,
        &fresh(LIMITED),
        "what is allowed works beside it",
    )
    .await;
    // One who may do nothing at all: librdkafka calls that fatal.
    let stranger = secured.sidecar("SASL", &secured.password("PLAIN", STRANGER, PASSWORD));
    publish(&stranger, &foreign).await;
    let admitted = secured.kafka.topic("admitted", 1).await;
    allow(&secured.kafka, STRANGER, &["--topic", &admitted]);
    let begun = Instant::now();
    loop {
        let request = publish_request(vec![record(&admitted, "x")]);
        match stranger.publisher().await.publish(request).await {
            Ok(_) => break,
            Err(status) => assert_eq!(reason(&status), "KAFKA_NOT_AUTHORIZED"),
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "what was allowed meanwhile is not found out"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(stranger.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_ahead_of_its_end_and_the_broker_never_cuts_the_traffic() {
    const LIFETIME: u64 = 8;
    let secured = Secured::shared();
    let identity =
        secured
            .authority
            .sign(secured.directory.path(), "idp", Some("localhost"), (-1, 30));
    let tokens = TokenServer::start(secured.issuer.clone(), &identity, USER, LIFETIME);
    let mut given = secured.tls();
    given.extend(settings(&[
        ("kafka.sasl.mechanism", "OAUTHBEARER"),
        ("kafka.sasl.oauth.token_endpoint", &tokens.url),
        ("kafka.sasl.oauth.client_id", "outrigger"),
        ("kafka.sasl.oauth.client_secret", "open sesame/%+"),
        ("kafka.sasl.oauth.ca_file", &path(&secured.ca)),
    ]));
    let sidecar = secured.sidecar("SASL", &given);
    let topic = secured.kafka.topic("renewed", 1).await;
    let group = fresh("g");
    let begun = Instant::now();
    let mut rounds = 0;
    // A token lives for less than half of this: without a new one the broker ends every session.
    while begun.elapsed() < Duration::from_secs(2 * LIFETIME + 4) {
        round_trip(&sidecar, &topic, &group, &format!("round {rounds}")).await;
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let fetched = tokens.given.load(std::sync::atomic::Ordering::Relaxed);
    assert!(
        (3..=8).contains(&fetched),
        "{fetched} tokens in {:?}",
        begun.elapsed()
    );
    // One that cannot be had is told when the last one has ended, not before: that one is new.
    let begun = Instant::now();
    while tokens.given.load(std::sync::atomic::Ordering::Relaxed) == fetched {
        assert!(begun.elapsed() < PATIENCE, "no token is fetched any more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    *tokens.secret.lock().unwrap() = "another".to_owned();
    let request = publish_request(vec![record(&topic, "x")]);
    sidecar
        .publisher()
        .await
        .publish(request.clone())
        .await
        .expect("the last token still counts");
    let begun = Instant::now();
    let (mut answers, mut told) = (tokio::task::JoinSet::new(), 0);
    // Without waiting for answers: some are queued when the broker ends the session, and do not wait for ever either.
    while told == 0 || !answers.is_empty() {
        if told == 0 {
            let mut publisher = sidecar.publisher().await;
            let request = request.clone();
            answers.spawn(async move { publisher.publish(request).await });
        }
        while let Some(answer) = answers.try_join_next() {
            let Err(status) = answer.unwrap() else {
                continue;
            };
            match reason(&status).as_str() {
                "KAFKA_AUTHENTICATION_FAILED" => {
                    let text = status.message();
                    assert!(text.contains("invalid_client"), "{text}");
                    told += 1;
                }
                // On its way when the broker ended the session.
                reason => assert_eq!(reason, "DELIVERY_TIMEOUT", "{status:?}"),
            }
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{told} were told; {} have no answer",
            answers.len()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    *tokens.secret.lock().unwrap() = "open sesame/%+".to_owned();
    let begun = Instant::now();
    while sidecar
        .publisher()
        .await
        .publish(request.clone())
        .await
        .is_err()
    {
        assert!(begun.elapsed() < PATIENCE, "it does not recover");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(sidecar.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_on_the_broker_and_in_the_file_is_taken_over() {
    let secured = Secured::shared();
    let user = fresh("dora");
    let change = |password: &str| set_password(&secured.kafka, "SCRAM-SHA-512", &user, password);
    change("first");
    allow(&secured.kafka, &user, &["--topic", "*", "--group", "*"]);
    let file = secured.write(&fresh("password"), "first\n");
    let mut given = secured.tls();
    given.extend(settings(&[
        ("kafka.sasl.mechanism", "SCRAM-SHA-512"),
        ("kafka.sasl.username", &user),
        ("kafka.sasl.password_file", &path(&file)),
        // So that connections are made again and again during the test.
        ("kafka.properties.connections.max.idle.ms", "2000"),
    ]));
    let sidecar = secured.sidecar("SASL", &given);
    let topic = secured.kafka.topic("rotated", 1).await;
    let group = fresh("g");
    round_trip(&sidecar, &topic, &group, "before").await;
    change("second");
    fs::write(&file, "second\n").unwrap();
    sidecar.wait_for_log(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("new Kafka credentials"))
    });
    // Longer than an idle connection lives: what follows logs in anew, a new group's consumer certainly does.
    tokio::time::sleep(Duration::from_secs(3)).await;
    round_trip(&sidecar, &topic, &group, "after").await;
    round_trip(&sidecar, &topic, &fresh("g"), "after, by another group").await;
    assert!(sidecar.stop().success());
}

/// A client certificate in a directory of its own, replaced as Kubernetes does.
struct Replaceable<'a> {
    secured: &'a Secured,
    directory: PathBuf,
}

impl<'a> Replaceable<'a> {
    fn new(secured: &'a Secured, user: &str) -> Self {
        let directory = secured.directory.path().join(fresh("live"));
        fs::create_dir(&directory).unwrap();
        let certificate = Self { secured, directory };
        certificate.install(user);
        certificate
    }

    fn install(&self, user: &str) {
        let identity = self.secured.sign(user);
        let directory = &self.directory;
        // Another file, then one rename.
        fs::copy(&identity.key, directory.join("key.pem.new")).unwrap();
        fs::copy(&identity.certificate, directory.join("cert.pem.new")).unwrap();
        fs::rename(directory.join("key.pem.new"), directory.join("key.pem")).unwrap();
        fs::rename(directory.join("cert.pem.new"), directory.join("cert.pem")).unwrap();
    }

    fn settings(&self) -> Settings {
        let file = |name: &str| path(&self.directory.join(name));
        let mut given = self.secured.tls();
        given.extend(settings(&[
            ("kafka.tls.certificate_file", &file("cert.pem")),
            ("kafka.tls.key_file", &file("key.pem")),
        ]));
        given
    }
}

/// With an instance id, or without one.
async fn replaced(protocol: Protocol, id: &'static str) {
    let secured = Secured::shared();
    let (old, new) = (fresh("erna"), fresh("fritz"));
    for user in [&old, &new] {
        allow(&secured.kafka, user, &["--topic", "*", "--group", "*"]);
    }
    let certificate = Replaceable::new(secured, &old);
    let group = fresh("g");
    let mut given = certificate.settings();
    given.extend(settings(&protocol.quick(&secured.kafka, &group)));
    given.extend(settings(&[("consume.instance_id", id)]));
    let sidecar = secured.sidecar("SSL", &given);
    let topic = secured.kafka.topic("replaced", 3).await;
    let mut asked = init(&group, &[&topic], proto::Ordering::Unordered);
    asked.window = window(1000);
    let mut subscription = Subscription::open(&sidecar, asked).await;
    let mut sent = 0_usize;
    let mut seen = std::collections::BTreeMap::<(i32, i64), usize>::new();
    let mut publisher = sidecar.publisher().await;
    let mut go_on = async |seconds: u64| {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let records = (0..20).map(|_| record(&topic, "x")).collect();
            publisher
                .publish(publish_request(records))
                .await
                .expect("publishing goes on");
            sent += 20;
            loop {
                let deliveries = subscription
                    .deliveries_within(Duration::from_millis(20))
                    .await;
                if deliveries.is_empty() {
                    break;
                }
                for delivery in &deliveries {
                    let partition = delivery.record.as_ref().unwrap().partition.unwrap();
                    *seen.entry((partition, delivery.offset)).or_default() += 1;
                }
                subscription.ack(&deliveries).await;
            }
        }
        (
            sent,
            seen.len(),
            seen.values().filter(|count| **count > 1).count(),
        )
    };
    go_on(1).await;
    certificate.install(&new);
    let begun = Instant::now();
    let renewed = |what: &str| {
        sidecar
            .log()
            .iter()
            .any(|line| line["message"] == format!("the {what} uses the new certificate"))
    };
    while !(renewed("producer") && renewed("consumer")) {
        assert!(
            begun.elapsed() < PATIENCE,
            "the certificate is not taken over: {:?}",
            sidecar.log()
        );
        go_on(1).await;
    }
    // The old name may do nothing any more: what works now works by the new one.
    let principal = format!("User:{old}");
    secured.kafka.tool(
        "acls",
        &[
            "--remove",
            "--force",
            "--allow-principal",
            &principal,
            "--operation",
            "All",
            "--topic",
            "*",
            "--group",
            "*",
        ],
    );
    let begun = Instant::now();
    loop {
        let (sent, seen, repeated) = go_on(1).await;
        if seen == sent {
            assert_eq!(repeated, 0, "a drained hand-over repeats nothing");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{seen} of {sent} arrived");
    }
    assert!(sidecar.stop().success());
}

async fn replaced_dynamic(protocol: Protocol) {
    replaced(protocol, "").await;
}

async fn replaced_static(protocol: Protocol) {
    replaced(protocol, "orders-0").await;
}

with_each_protocol! {
    a_missing_acl_is_told_with_the_topic_or_the_group: missing_acl;
    a_certificate_that_is_replaced_is_taken_over_while_traffic_goes_on: replaced_dynamic;
    a_static_member_whose_certificate_is_replaced_does_not_fence_itself: replaced_static;
    a_rebalance_in_the_middle_of_a_certificates_replacement_loses_neither: rebalanced;
}

async fn rebalanced(protocol: Protocol) {
    const PARTITIONS: usize = 6;
    let secured = Secured::shared();
    let (old, new) = (fresh("gerd"), fresh("hanna"));
    for user in [&old, &new] {
        allow(&secured.kafka, user, &["--topic", "*", "--group", "*"]);
    }
    let certificate = Replaceable::new(secured, &old);
    let group = fresh("g");
    let mut given = certificate.settings();
    given.extend(settings(&protocol.quick(&secured.kafka, &group)));
    let sidecar = secured.sidecar("SSL", &given);
    let topic = secured.kafka.topic("replaced", PARTITIONS as i32).await;
    let mut asked = init(&group, &[&topic], proto::Ordering::Unordered);
    asked.window = window(1000);
    let mut subscription = Subscription::open(&sidecar, asked.clone()).await;
    let publish = async |values: std::ops::Range<usize>| {
        let mut records: Vec<_> = values.map(|i| record(&topic, i.to_string())).collect();
        for (i, record) in records.iter_mut().enumerate() {
            record.partition = Some((i % PARTITIONS) as i32);
        }
        let mut publisher = sidecar.publisher().await;
        publisher.publish(publish_request(records)).await.unwrap();
    };
    publish(0..60).await;
    let mut held = subscription.take(60).await;
    let last = held.split_off(59);
    subscription.ack(&held).await;
    // It waits for the one that is held.
    certificate.install(&new);
    sidecar.wait_for_log(|line| line["message"] == "the producer uses the new certificate");
    loop {
        let message = subscription.next().await.unwrap();
        if let proto::subscribe_response::Message::PartitionEvent(event) = message
            && event.kind() == proto::PartitionEventKind::Revoking
        {
            break;
        }
    }
    let second = secured.sidecar("SSL", &given);
    let mut other = Subscription::open(&second, asked).await;
    // The group has asked for some partitions back meanwhile.
    sidecar
        .wait_for_metric(
            "outrigger_subscribe_rebalances_total{kind=\"revoked\"}",
            1.0,
        )
        .await;
    subscription.ack(&last).await;
    let mut seen: BTreeSet<(i32, i64)> = BTreeSet::new();
    publish(60..120).await;
    let begun = Instant::now();
    let renewed = || {
        let message = "the consumer uses the new certificate";
        sidecar.log().iter().any(|line| line["message"] == message)
    };
    while seen.len() < 60 || !renewed() {
        for subscription in [&mut subscription, &mut other] {
            let deliveries = subscription
                .deliveries_within(Duration::from_millis(50))
                .await;
            if !deliveries.is_empty() {
                subscription.ack(&deliveries).await;
            }
            let place = |delivery: &proto::Delivery| {
                let partition = delivery.record.as_ref().unwrap().partition.unwrap();
                (partition, delivery.offset)
            };
            seen.extend(deliveries.iter().map(place));
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{} of 60 arrived, renewed: {}",
            seen.len(),
            renewed()
        );
    }
    assert!(sidecar.stop().success());
    assert!(second.stop().success());
}
