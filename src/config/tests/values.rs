//! Single values and their kinds, values that are tied to each other, and the table of keys itself.

use super::{
    super::{
        key,
        value::{Raw, parse},
    },
    *,
};

#[test]
fn brokers_are_host_and_port_each() {
    let servers = |text: &str| from_file_alone(&format!("kafka: {{bootstrap_servers: {text}}}"));
    for (text, expected) in [
        ("'a:1'", "a:1"),
        ("'a:1, b-c.d_e:65535'", "a:1,b-c.d_e:65535"),
        ("['a:1', 'b:2']", "a:1,b:2"),
        ("'[::1]:9092,10.0.0.1:9092'", "[::1]:9092,10.0.0.1:9092"),
    ] {
        let loaded = servers(text).unwrap();
        assert_eq!(loaded.config.kafka.bootstrap_servers, expected);
    }
    for (text, shown) in [
        ("''", "\"\""),
        ("[]", "an empty list"),
        ("'a'", "\"a\""),
        ("'a:1,b,c'", "\"b\", \"c\""),
        ("'a:1,'", "\"\""),
        ("'a:0'", "\"a:0\""),
        ("'a:65536'", "\"a:65536\""),
        ("'a:+1'", "\"a:+1\""),
        ("':9092'", "\":9092\""),
        ("'::1:9092'", "\"::1:9092\""),
        ("'a b:1'", "\"a b:1\""),
        ("'http://a:1'", "\"http://a:1\""),
        ("[{a: 1}]", "a list"),
        ("true", "true"),
    ] {
        let expected = format!("kafka.bootstrap_servers: {shown} is not a list of host:port");
        assert_one(&problems(servers(text)), &[&expected]);
    }
}

fn from_file_alone(text: &str) -> Result<Loaded, Problems> {
    load_layers(Some(text), &[], &[]).0
}

#[test]
fn grpc_without_tls_is_served_on_loopback_only() {
    for address in [
        "0.0.0.0:7420",
        "10.0.0.1:7420",
        "[::]:7420",
        "[::ffff:10.0.0.1]:7420",
    ] {
        assert_one(
            &problems_of_flags(&[("listen.tcp", address)]),
            &["listen.tcp", "is not a loopback address", "listen.tls"],
        );
        let tls = [
            ("listen.tcp", address),
            ("listen.tls.certificate_file", "/c.pem"),
            ("listen.tls.key_file", "/k.pem"),
            ("admin.listen", ""),
        ];
        assert_one(&problems_of_flags(&tls), &["listen.tokens_file"]);
        for known in ["listen.tokens_file", "listen.tls.client_ca_file"] {
            let flags = [tls.as_slice(), &[(known, "/x")]].concat();
            assert!(problems_of_flags(&flags).is_empty(), "{address} {known}");
        }
        // Tokens over plain text are no secret.
        let tokens = [
            ("listen.tcp", address),
            ("listen.tokens_file", "/x"),
            ("admin.listen", ""),
        ];
        assert_one(
            &problems_of_flags(&tokens),
            &["listen.tls.certificate_file"],
        );
    }
    for address in [
        "127.0.0.1:0",
        "127.8.8.8:1",
        "[::1]:7420",
        "[::ffff:127.0.0.1]:7420",
    ] {
        assert!(
            problems_of_flags(&[("listen.tcp", address)]).is_empty(),
            "{address}"
        );
    }
    for address in ["localhost:7420", "7420", ":7420", "127.0.0.1"] {
        assert_one(
            &problems_of_flags(&[("listen.tcp", address)]),
            &["is not an IP address and port, or"],
        );
    }
}

#[test]
fn at_least_one_grpc_listener_is_on() {
    let (loaded, _) = load_layers(
        None,
        &[BROKERS, ("OUTRIGGER_LISTEN__TCP", "")],
        &[("listen.unix", "/run/o.sock"), ("admin.listen", "")],
    );
    let config = loaded.unwrap().config;
    assert_eq!(config.listen.tcp, None);
    assert_eq!(config.listen.unix, Some(PathBuf::from("/run/o.sock")));
    assert_eq!(config.admin.listen, None);

    assert_one(
        &problems_of_flags(&[("listen.tcp", "")]),
        &["listen.tcp: is off, and so is listen.unix"],
    );
}

#[test]
fn a_socket_path_fits_the_kernels_structure() {
    let longest = format!("/{}", "s".repeat(106));
    assert!(problems_of_flags(&[("listen.unix", &longest)]).is_empty());
    for path in [
        format!("{longest}s"),
        "run/o.sock".to_owned(),
        "/run/".to_owned(),
    ] {
        assert_one(
            &problems_of_flags(&[("listen.unix", &path)]),
            &[
                "listen.unix: ",
                "is not an absolute path of at most 107 bytes",
            ],
        );
    }
}

#[test]
fn two_listeners_do_not_ask_for_one_port() {
    assert_one(
        &problems_of_flags(&[("admin.listen", "0.0.0.0:7420")]),
        &[
            "admin.listen: \"0.0.0.0:7420\" takes the port of listen.tcp, \"127.0.0.1:7420\" (default)",
        ],
    );
    assert!(problems_of_flags(&[("admin.listen", "10.0.0.1:7420")]).is_empty());
    assert!(
        problems_of_flags(&[
            ("admin.listen", "127.0.0.1:0"),
            ("listen.tcp", "127.0.0.1:0")
        ])
        .is_empty()
    );
}

#[test]
fn a_duration_has_a_unit() {
    for (text, millis) in [("1m 30s", 90_000), ("1500ms", 1500), ("2min", 120_000)] {
        let loaded = from_file(&format!("publish: {{max_wait: {text}}}"));
        assert_eq!(
            loaded.config.publish.max_wait,
            Duration::from_millis(millis)
        );
    }
    assert_one(
        &problems_of_file("publish: {max_wait: 30}"),
        &["30 has no unit, as 30s and 30ms have; expected a duration"],
    );
    for text in ["0", "'0'", "''", "1.5", "-1s", "2h", "true"] {
        assert_one(
            &problems_of_file(&format!("publish: {{max_wait: {text}}}")),
            &["publish.max_wait: ", "is not a duration from 1ms to 3600s"],
        );
    }
    for text in ["0", "0s", "'0'"] {
        let loaded = from_file(&format!("publish: {{linger: {text}}}"));
        assert_eq!(loaded.config.publish.linger, Duration::ZERO);
    }
}

#[test]
fn a_number_of_bytes_has_a_unit_or_none() {
    for (text, bytes) in [
        ("1048576", 1 << 20),
        ("1MiB", 1 << 20),
        ("1 MiB", 1 << 20),
        ("1Mi", 1 << 20),
        ("1MB", 1_000_000),
    ] {
        let loaded = from_file(&format!("listen: {{max_message_bytes: {text}}}"));
        assert_eq!(loaded.config.listen.max_message_bytes, bytes, "{text}");
    }
    for text in [
        "0",
        "-1",
        "1GiB",
        "99999999999999999999",
        "1e6",
        "lots",
        "16EiB",
        "''",
    ] {
        assert_one(
            &problems_of_file(&format!("listen: {{max_message_bytes: {text}}}")),
            &["is not a number of bytes from 64KiB to 128MiB"],
        );
    }
}

#[test]
fn words_and_switches_are_taken_as_they_are_documented() {
    for compression in Compression::ALL {
        let loaded = from_file(&format!(
            "publish: {{compression: {}}}",
            compression.as_str()
        ));
        assert_eq!(loaded.config.publish.compression, compression);
    }
    for isolation in Isolation::ALL {
        let loaded = from_file(&format!("consume: {{isolation: {}}}", isolation.as_str()));
        assert_eq!(loaded.config.consume.isolation, isolation);
    }
    for format in LogFormat::ALL {
        let loaded = from_file(&format!("log: {{format: {}}}", format.as_str()));
        assert_eq!(loaded.config.log.format, format);
    }
    assert_one(
        &problems_of_file("publish: {compression: brotli}"),
        &["\"brotli\" is not one of none, gzip, snappy, lz4, zstd"],
    );

    let topics = "kafka.allow_auto_create_topics";
    for text in ["true", "True"] {
        let loaded = load_layers(None, &[BROKERS], &[(topics, text)]).0.unwrap();
        assert!(loaded.config.kafka.allow_auto_create_topics);
    }
    assert_one(
        &problems_of_flags(&[(topics, "yes")]),
        &["is not true or false"],
    );
    assert_one(&problems_of_flags(&[("log.level", " ")]), &["log.level: "]);
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (key, value, other) in [
        (
            "publish.max_in_flight_bytes",
            "7MiB",
            "listen.max_message_bytes",
        ),
        (
            "publish.stream_window_records",
            "100001",
            "publish.max_in_flight_records",
        ),
        (
            "publish.stream_window_bytes",
            "999999",
            "publish.max_record_bytes",
        ),
        (
            "publish.stream_window_bytes",
            "65MiB",
            "publish.max_in_flight_bytes",
        ),
        ("publish.delivery_timeout", "1s", "publish.linger"),
        (
            "consume.window_records",
            "100001",
            "consume.max_window_records",
        ),
        ("consume.window_bytes", "65MiB", "consume.max_window_bytes"),
        ("consume.revoke_drain", "45s", "consume.session_timeout"),
        (
            "consume.heartbeat_interval",
            "15001ms",
            "consume.session_timeout",
        ),
    ] {
        let mut flags = vec![(key, value)];
        // What else `value` would run into is moved out of its way.
        match (key, other) {
            ("publish.max_in_flight_bytes", _) => {
                flags.push(("publish.stream_window_bytes", "1MiB"))
            }
            (_, "publish.linger") => flags.push(("publish.linger", "1s")),
            _ => {}
        }
        let problems = problems_of_flags(&flags);
        assert_one(&problems, &[&format!("{key}: "), " must be ", other]);
    }
    assert_one(
        &problems_of_flags(&[
            ("consume.session_timeout", "8999ms"),
            ("consume.revoke_drain", "5s"),
        ]),
        &[
            "consume.heartbeat_interval: 3s must be at most a third of consume.session_timeout, which is 8999ms (flag --set)",
        ],
    );
    let large_record = [
        ("publish.max_record_bytes", "100MiB"),
        ("publish.stream_window_bytes", "64MiB"),
    ];
    assert_eq!(problems_of_flags(&large_record).len(), 2);
}

#[test]
fn values_at_their_bounds_are_taken() {
    assert!(
        problems_of_flags(&[
            ("publish.max_in_flight_bytes", "8MiB"),
            ("publish.stream_window_bytes", "8MiB"),
            ("publish.stream_window_records", "100000"),
            ("publish.linger", "900s"),
            ("publish.delivery_timeout", "2147483s"),
            ("consume.window_records", "100000"),
            ("consume.revoke_drain", "8999ms"),
            ("consume.session_timeout", "9s"),
            ("listen.max_streams", "100000"),
        ])
        .is_empty()
    );
}

#[test]
fn the_table_of_keys_is_sound() {
    let mut sections = Vec::new();
    for key in KEYS.iter() {
        let (section, _) = key.name.split_once('.').unwrap();
        if sections.last() != Some(&section) {
            assert!(!sections.contains(&section), "{section} is in two places");
            sections.push(section);
        }
        assert_eq!(
            KEYS.iter().filter(|other| other.name == key.name).count(),
            1
        );
        assert!(
            key.meaning.ends_with('.') && !key.meaning.contains('|'),
            "{}",
            key.name
        );
        if let (Some(default), false) = (key.default, matches!(key.kind, Kind::Properties)) {
            let parsed = parse(&key.kind, &Raw::Text(default.to_owned()));
            assert!(parsed.is_ok(), "{}: {parsed:?}", key.name);
        }
        assert!(markdown_table().contains(&format!("| `{}` | ", key.name)));
    }
    assert_eq!(
        key::find("publish.max_wait").unwrap().variable(),
        "OUTRIGGER_PUBLISH__MAX_WAIT"
    );
    assert_eq!(markdown_table().lines().count(), KEYS.len() + 2);
}

#[test]
fn with_the_consumer_protocol_the_times_are_the_brokers() {
    let consumer = ("consume.group_protocol", "consumer");
    assert!(problems_of_flags(&[consumer]).is_empty());
    for (key, setting) in [
        (
            "consume.session_timeout",
            "group.consumer.session.timeout.ms",
        ),
        (
            "consume.heartbeat_interval",
            "group.consumer.heartbeat.interval.ms",
        ),
    ] {
        // The default's own value too: whoever writes it down believes in it.
        let default = key::find(key).unwrap().default.unwrap();
        assert_one(
            &problems_of_flags(&[consumer, (key, default)]),
            &[key, "consume.group_protocol", setting],
        );
    }
    // The drain is bounded by what the protocol has.
    assert!(problems_of_flags(&[consumer, ("consume.revoke_drain", "299s")]).is_empty());
    assert_one(
        &problems_of_flags(&[consumer, ("consume.revoke_drain", "300s")]),
        &["consume.revoke_drain: 300s must be shorter than 300s"],
    );
    assert_one(
        &problems_of_flags(&[("consume.group_protocol", "share")]),
        &["consume.group_protocol", "one of classic, consumer"],
    );
}

#[test]
fn an_instance_id_is_what_kafka_takes_for_one() {
    let of = |id: &str| {
        from_file(&format!("consume: {{instance_id: '{id}'}}"))
            .config
            .consume
    };
    assert_eq!(of("").instance_id, None);
    assert_eq!(of("orders-0.a_B").instance_id.unwrap(), "orders-0.a_B");
    let long = "x".repeat(250);
    // The second is what Kubernetes leaves of a variable that it does not know.
    for id in ["orders 0", "$(POD_NAME)", "ä", &long] {
        assert_one(
            &problems_of_flags(&[("consume.instance_id", id)]),
            &["consume.instance_id", "at most 249 letters"],
        );
    }
}
