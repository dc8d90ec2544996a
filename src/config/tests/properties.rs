//! `kafka.properties`: what passes, what is refused, and what is never printed.

use super::{
    super::{key, properties},
    *,
};

#[test]
fn underscores_in_the_environment_are_dots_in_a_property() {
    let environment = [
        BROKERS,
        ("OUTRIGGER_KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", "7000"),
        ("OUTRIGGER_KAFKA__PROPERTIES__SSL__KEY__PEM", "hunter2"),
    ];
    let (loaded, _) = load_layers(None, &environment, &[]);
    let properties = loaded.unwrap().config.kafka.properties;

    assert_eq!(properties["socket.timeout.ms"].expose(), "7000");
    assert_eq!(properties["ssl.key.pem"].expose(), "hunter2");
    assert_eq!(properties.len(), 2);
}

#[test]
fn property_names_keep_their_dots_and_values_become_texts() {
    let loaded = from_file(
        "kafka:\n  properties:\n    socket.timeout.ms: 7000\n    socket.keepalive.enable: true\n    client.rack: rack-1\n    debug: null\n",
    );
    let properties = &loaded.config.kafka.properties;

    assert_eq!(properties["socket.timeout.ms"].expose(), "7000");
    assert_eq!(properties["socket.keepalive.enable"].expose(), "true");
    assert_eq!(properties["client.rack"].expose(), "rack-1");
    assert!(!properties.contains_key("debug"));
}

#[test]
fn a_property_is_one_text_and_not_a_structure() {
    assert_one(
        &problems_of_file("kafka: {properties: {socket: {timeout: 1}}}"),
        &["kafka.properties.socket: a map is not a text, a whole number, true or false"],
    );
    assert_one(
        &problems_of_file("kafka: {properties: {client.rack: 1.50}}"),
        &["quotes"],
    );
    assert_one(
        &problems_of_file("kafka: {properties: [a, b]}"),
        &["kafka.properties: a list is not a map"],
    );
    assert_one(
        &problems_of_file("kafka: {properties: {'a b': 1}}"),
        &["is no name of a librdkafka property"],
    );
    assert_one(
        &problems_of_file("kafka: {properties: {client.rack: \"a\\0b\"}}"),
        &["kafka.properties.client.rack: contains a NUL byte"],
    );
    assert_one(
        &problems_of_flags(&[("kafka.properties", "debug=all")]),
        &["kafka.properties.NAME"],
    );
}

#[test]
fn every_refused_property_is_refused_by_file_environment_and_flag_with_a_reason() {
    let by_suffix = ["dr_msg_cb", "rebalance_cb", "ssl.certificate.verify_cb"];
    for name in properties::refused().chain(by_suffix) {
        let path = format!("kafka.properties.{name}");
        let variable = format!(
            "OUTRIGGER_KAFKA__PROPERTIES__{}",
            name.to_ascii_uppercase().replace('.', "_")
        );
        let ways = [
            load_layers(
                Some(&format!("kafka: {{properties: {{{name}: 1}}}}")),
                &[BROKERS],
                &[],
            ),
            load_layers(None, &[BROKERS, (&variable, "1")], &[]),
            load_layers(None, &[BROKERS], &[(&path, "1")]),
            // librdkafka takes a topic's property by this name too.
            load_layers(
                None,
                &[BROKERS],
                &[(&format!("kafka.properties.topic.{name}"), "1")],
            ),
        ];
        for (loaded, _) in ways {
            let problems = problems(loaded);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            let (_, reason) = problems[0].split_once(": is not ").unwrap();
            assert!(reason.len() > 15, "{name}: {reason}");
        }
    }
}

#[test]
fn a_refused_property_names_the_key_that_sets_it() {
    for name in properties::refused() {
        let reason = properties::refusal(name, "1").unwrap();
        if let Some((_, key)) = reason.split_once(": use ") {
            assert!(key::find(key).is_some(), "{name}: {key}");
        }
    }
    assert_one(
        &problems_of_file("kafka: {properties: {linger.ms: 5}}"),
        &["is not set here: use publish.linger"],
    );
}

#[test]
fn both_names_of_a_property_are_refused_or_neither_is() {
    // Every alias of librdkafka 2.12.1.
    let aliases = [
        ("bootstrap.servers", "metadata.broker.list"),
        ("max.in.flight", "max.in.flight.requests.per.connection"),
        ("sasl.mechanism", "sasl.mechanisms"),
        (
            "sasl.oauthbearer.client.credentials.client.id",
            "sasl.oauthbearer.client.id",
        ),
        (
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.client.secret",
        ),
        ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
        ("linger.ms", "queue.buffering.max.ms"),
        ("retries", "message.send.max.retries"),
        ("compression.type", "compression.codec"),
        ("acks", "request.required.acks"),
        ("delivery.timeout.ms", "message.timeout.ms"),
        ("enable.auto.commit", "auto.commit.enable"),
    ];
    for (alias, name) in aliases {
        let [first, second] = [alias, name].map(|name| properties::refusal(name, "1").is_some());
        assert_eq!(first, second, "{alias} and {name}");
        assert_eq!(
            properties::is_sensitive(alias),
            properties::is_sensitive(name)
        );
        assert!(first || properties::alias(alias) == Some(name), "{alias}");
    }
}

#[test]
fn two_names_of_one_property_are_not_both_set() {
    let file = "kafka: {properties: {fetch.message.max.bytes: 1000000}}";
    let environment = [
        BROKERS,
        (
            "OUTRIGGER_KAFKA__PROPERTIES__MAX_PARTITION_FETCH_BYTES",
            "2000000",
        ),
    ];
    let (loaded, file) = load_layers(Some(file), &environment, &[]);
    assert_one(
        &problems(loaded),
        &[
            "kafka.properties.max.partition.fetch.bytes: is another name of fetch.message.max.bytes",
            &file,
        ],
    );
}

#[test]
fn the_properties_that_people_need_pass() {
    for name in [
        "ssl.key.pem",
        "ssl.cipher.suites",
        "fetch.wait.max.ms",
        "fetch.max.bytes",
        "socket.timeout.ms",
        "metadata.max.age.ms",
        "topic.metadata.refresh.interval.ms",
        "topic.blacklist",
        "reconnect.backoff.max.ms",
        "broker.address.family",
        "debug",
        "sticky.partitioning.linger.ms",
        "batch.size",
        "client.rack",
        "log.connection.close",
        "compression.level",
    ] {
        assert_eq!(properties::refusal(name, "x"), None, "{name}");
    }
}

#[test]
fn host_names_of_brokers_are_always_verified() {
    let algorithm = "kafka.properties.ssl.endpoint.identification.algorithm";
    assert_one(
        &problems_of_flags(&[(algorithm, "None")]),
        &["can only be https", "verified"],
    );
    assert!(problems_of_flags(&[(algorithm, "https")]).is_empty());
}

#[test]
fn a_secret_is_in_nothing_that_is_printed() {
    const SECRET: &str = "hunter2";
    let names = [
        "sasl.pasword",
        "ssl.key.pem",
        "SSL.Key.Pem",
        "sasl.jaas.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
    ];
    for name in names {
        let path = format!("kafka.properties.{name}");
        let flag = [(path.as_str(), SECRET)];
        let loaded = load_layers(None, &[BROKERS], &flag).0.unwrap();
        assert_eq!(loaded.config.kafka.properties[name].expose(), SECRET);
        let printed = format!(
            "{loaded:?} {:#?} {} {}",
            loaded.config,
            loaded.show(),
            loaded.config.kafka.properties[name]
        );
        assert!(
            !printed.contains(SECRET) && printed.contains("***"),
            "{name}: {printed}"
        );
    }

    let file = format!(
        "sasl: {SECRET}\nlisten: {SECRET}\nkafka:\n  sasl.password: {SECRET}\n  pasword: {SECRET}\n  bootstrap_servers: admin:{SECRET}@kafka:9092\n  \
         properties:\n    ssl.key.pem: [{SECRET}]\n    acks: {SECRET}\n    enable.ssl.certificate.verification: {SECRET}\n"
    );
    let environment = pairs(&[
        ("OUTRIGGER_KAFKA__PROPERTIES__SASL_JAAS_CONFIG", SECRET),
        ("OUTRIGGER_KAFKA__SECRET", SECRET),
        (
            "OUTRIGGER_KAFKA__PROPERTIES__SSL_CERTIFICATE_PEM",
            "hunter2\u{fffd}",
        ),
    ]);
    let sources = Sources {
        environment: environment.clone(),
        flags: environment.clone(),
        ..Sources::default()
    };
    assert!(!format!("{sources:?}").contains(SECRET));
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let (loaded, _) = load_layers(
        Some(&file),
        &environment,
        &[("sasl.password", SECRET), ("kafka", SECRET)],
    );
    let problems = loaded.unwrap_err();
    let printed = format!("{problems} {problems:?}");
    assert!(!printed.contains(SECRET), "{printed}");
    assert_eq!(problems.len(), 12, "{problems}");

    for broken in [
        SECRET.to_owned(),
        format!("[{SECRET}]"),
        format!("kafka:\n\t{SECRET}: \"{SECRET}"),
    ] {
        let problems = problems_of_file(&broken);
        assert_eq!(problems.len(), 1);
        assert!(!problems[0].contains(SECRET), "{problems:?}");
    }
}

#[test]
fn what_is_no_secret_is_shown() {
    for name in [
        "sasl.username",
        "sasl.mechanism",
        "ssl.key.location",
        "ssl.ca.pem",
        "sasl.kerberos.principal",
        "socket.keepalive.enable",
        "sasl.oauthbearer.token.endpoint.url",
    ] {
        assert!(!properties::is_sensitive(name), "{name}");
    }
    let properties = "kafka: {properties: {ssl.ca.pem: ann, ssl.key.pem: \"1\"}}";
    let debug = format!("{:?}", from_file(properties).config.kafka);
    assert!(
        debug.contains(r#""ssl.ca.pem": "ann", "ssl.key.pem": ***"#),
        "{debug}"
    );
}

#[test]
fn a_secret_that_yaml_takes_for_a_number_is_not_guessed_at() {
    for value in ["0123", "1e5", "true"] {
        let file = format!("kafka: {{properties: {{ssl.key.pem: {value}}}}}");
        assert_one(
            &problems_of_file(&file),
            &["kafka.properties.ssl.key.pem", "quotes"],
        );
    }
    let loaded = from_file("kafka: {properties: {ssl.key.pem: '0123'}}");
    assert_eq!(
        loaded.config.kafka.properties["ssl.key.pem"].expose(),
        "0123"
    );
}
