//! The configuration as its users meet it: layers in, a tree or every problem out. No test reads or sets the process's environment.

mod policies;
mod properties;
mod rules;
mod security;
mod values;

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{table::KEYS, *};

const BROKERS: (&str, &str) = ("OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS", "kafka:9092");

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Loads a file, or none, an environment and flags; no file of this machine plays a part.
fn load_layers(
    file: Option<&str>,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> (Result<Loaded, Problems>, String) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("outrigger.yaml");
    if let Some(text) = file {
        fs::write(&path, text).unwrap();
    }
    let sources = Sources {
        file: file.map(|_| path.clone()),
        environment: pairs(environment),
        flags: pairs(flags),
    };
    let absent = directory.path().join("absent.yaml");
    (
        load_with_default_file(&sources, &absent),
        format!("file {}", path.display()),
    )
}

/// The tree of a file that also names the brokers.
fn from_file(text: &str) -> Loaded {
    load_layers(Some(text), &[BROKERS], &[]).0.unwrap()
}

/// What is wrong with a file that also names the brokers, as `key: message`.
fn problems_of_file(text: &str) -> Vec<String> {
    problems(load_layers(Some(text), &[BROKERS], &[]).0)
}

fn problems(loaded: Result<Loaded, Problems>) -> Vec<String> {
    let Err(problems) = loaded else {
        return Vec::new();
    };
    problems
        .iter()
        .map(|problem| format!("{}: {}", problem.key, problem.message))
        .collect()
}

/// Problems of flags alone, beside the brokers.
fn problems_of_flags(flags: &[(&str, &str)]) -> Vec<String> {
    problems(load_layers(None, &[BROKERS], flags).0)
}

#[track_caller]
fn assert_one(problems: &[String], parts: &[&str]) {
    assert_eq!(problems.len(), 1, "{problems:#?}");
    for part in parts {
        assert!(
            problems[0].contains(part),
            "{part:?} is not in {:?}",
            problems[0]
        );
    }
}

#[test]
fn the_brokers_are_all_that_must_be_said() {
    let (loaded, _) = load_layers(None, &[BROKERS], &[]);
    let config = loaded.unwrap().config;

    assert_eq!(config.kafka.bootstrap_servers, "kafka:9092");
    assert_eq!(config.kafka.client_id, "outrigger");
    assert!(!config.kafka.allow_auto_create_topics);
    assert!(config.kafka.properties.is_empty());
    assert_eq!(config.listen.tcp, Some("127.0.0.1:7420".parse().unwrap()));
    assert_eq!(config.listen.unix, None);
    assert_eq!(config.listen.max_streams, 1000);
    assert_eq!(config.listen.max_message_bytes, 8 << 20);
    assert_eq!(config.admin.listen, Some("0.0.0.0:7421".parse().unwrap()));
    assert_eq!(
        config.publish,
        Publish {
            max_wait: Duration::from_secs(30),
            max_record_bytes: 1_000_000,
            topics: TopicPolicies::default(),
            max_in_flight_records: 100_000,
            max_in_flight_bytes: 64 << 20,
            stream_window_records: 50_000,
            stream_window_bytes: 32 << 20,
            stream_grace: Duration::from_secs(30),
            linger: Duration::from_millis(5),
            compression: Compression::None,
            delivery_timeout: Duration::from_secs(120),
            dedup_window: Duration::from_secs(600),
            dedup_max_ids: 100_000,
        }
    );
    assert_eq!(
        config.consume,
        Consume {
            window_records: 1000,
            window_bytes: 8 << 20,
            max_window_records: 100_000,
            max_window_bytes: 64 << 20,
            commit_interval: Duration::from_millis(200),
            commit_metadata: 4096,
            max_bytes: 64 << 20,
            max_span_records: 20_000,
            max_parked_records: 1000,
            look_ahead_bytes: 2 << 20,
            stuck_leave: Duration::from_secs(120),
            stall_after: Duration::from_secs(30),
            read_grace: Duration::from_secs(60),
            max_lease: Duration::from_secs(3600),
            revoke_drain: Duration::from_secs(10),
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            group_protocol: GroupProtocol::Classic,
            instance_id: None,
            idle_leave: Duration::from_secs(10),
            max_subscriptions: 64,
            prefetch_bytes: 1 << 20,
            isolation: Isolation::ReadCommitted,
        }
    );
    assert_eq!(config.drain.deadline, Duration::from_secs(25));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, "info");
}

#[test]
fn the_brokers_must_be_said() {
    let (loaded, _) = load_layers(None, &[], &[]);
    let problems = loaded.unwrap_err();

    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems.to_string(),
        "kafka.bootstrap_servers (unset): is required: a list of host:port, such as kafka-0:9092,kafka-1:9092, in the file, \
         by OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS or by --set kafka.bootstrap_servers=…"
    );
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let file = "publish: {max_wait: 1s, linger: 1ms, stream_grace: 1s}\nkafka: {properties: {a.x: 1, a.y: 1, a.z: 1}}";
    let environment = [
        BROKERS,
        ("OUTRIGGER_PUBLISH__MAX_WAIT", "2s"),
        ("OUTRIGGER_PUBLISH__LINGER", "2ms"),
        ("OUTRIGGER_KAFKA__PROPERTIES__A_X", "2"),
        ("OUTRIGGER_KAFKA__PROPERTIES__A_Y", "2"),
    ];
    let flags = [
        ("publish.max_wait", "9s"),
        ("publish.max_wait", "3s"),
        ("kafka.properties.a.x", "3"),
    ];
    let (loaded, _) = load_layers(Some(file), &environment, &flags);
    let Config { kafka, publish, .. } = loaded.unwrap().config;

    assert_eq!(publish.max_wait, Duration::from_secs(3));
    assert_eq!(publish.linger, Duration::from_millis(2));
    assert_eq!(publish.stream_grace, Duration::from_secs(1));
    assert_eq!(publish.delivery_timeout, Duration::from_secs(120));
    let [x, y, z] = ["a.x", "a.y", "a.z"].map(|name| kafka.properties[name].expose());
    assert_eq!((x, y, z), ("3", "2", "1"));
}

#[test]
fn five_mistakes_are_five_problems_each_with_its_key_and_source() {
    let file =
        "publish:\n  linger: soon\n  compresion: zstd\nkafka:\n  properties:\n    acks: \"1\"\n";
    let environment = [
        BROKERS,
        ("OUTRIGGER_PUBLISH__MAX_WAIT", "banana"),
        ("OUTRIGGER_PORT", "tcp://10.0.0.1:7420"),
    ];
    let flags = [("listen.max_streams", "0")];
    let (loaded, file) = load_layers(Some(file), &environment, &flags);
    let problems = loaded.unwrap_err();

    let told: Vec<(&str, &str)> = problems
        .iter()
        .map(|p| (p.key.as_str(), p.source.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("kafka.properties.acks", file.as_str()),
            ("listen.max_streams", "flag --set"),
            ("publish.compresion", file.as_str()),
            ("publish.linger", file.as_str()),
            (
                "publish.max_wait",
                "environment OUTRIGGER_PUBLISH__MAX_WAIT"
            ),
        ]
    );
    let lines: Vec<String> = problems.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(
        lines[1],
        "listen.max_streams (flag --set): \"0\" is not a whole number from 1 to 100000"
    );
    assert_eq!(
        lines[2],
        format!("publish.compresion ({file}): is no key; did you mean publish.compression?")
    );
    assert_eq!(
        lines[4],
        "publish.max_wait (environment OUTRIGGER_PUBLISH__MAX_WAIT): \"banana\" is not a duration from 1ms to 3600s, such as 30s or 100ms"
    );
}

#[test]
fn the_names_that_kubernetes_injects_are_ignored() {
    let injected = [
        ("OUTRIGGER_SERVICE_HOST", "10.0.0.1"),
        ("OUTRIGGER_SERVICE_PORT", "7420"),
        ("OUTRIGGER_SERVICE_PORT_GRPC", "7420"),
        ("OUTRIGGER_PORT", "tcp://10.0.0.1:7420"),
        ("OUTRIGGER_PORT_7420_TCP", "tcp://10.0.0.1:7420"),
        ("OUTRIGGER_PORT_7420_TCP_PROTO", "tcp"),
        ("OUTRIGGER_PORT_7420_TCP_PORT", "7420"),
        ("OUTRIGGER_PORT_7420_TCP_ADDR", "10.0.0.1"),
        ("OUTRIGGER_ADDRESS", "127.0.0.1:7420"),
        ("KAFKA__BOOTSTRAP_SERVERS", "elsewhere:9092"),
        BROKERS,
    ];
    let (loaded, _) = load_layers(None, &injected, &[]);
    let (plain, _) = load_layers(None, &[BROKERS], &[]);
    assert_eq!(loaded.unwrap().config, plain.unwrap().config);
}

#[test]
fn an_unknown_key_is_refused_with_what_was_meant() {
    for (written, meant) in [
        ("publish.max_wiat", "publish.max_wait"),
        ("kafka.bootstrap.servers", "kafka.bootstrap_servers"),
        ("kafka.max_wait", "publish.max_wait"),
        ("consume.sesion_timeout", "consume.session_timeout"),
        ("_kafka.client_id", "kafka.client_id"),
        ("publsh", "publish"),
        ("bootstrap_servers", "kafka.bootstrap_servers"),
        ("log.levels", "log.level"),
    ] {
        let expected = format!("{written}: is no key; did you mean {meant}?");
        assert_one(&problems_of_flags(&[(written, "1")]), &[&expected]);
    }
    assert_one(
        &problems_of_flags(&[("metrics.histogram.buckets", "1")]),
        &["is no key; the README"],
    );
    assert_one(
        &problems_of_file("publsh: {max_wait: 1s}"),
        &["publsh: is no key; did you mean publish?"],
    );
    assert_one(
        &problems_of_file("publish: {max_wiat: }"),
        &["did you mean publish.max_wait?"],
    );
    assert_eq!(
        load_layers(None, &[BROKERS], &[("a\nb", "1")])
            .0
            .unwrap_err()
            .to_string(),
        "a b (flag --set): is no key; the README lists those there are"
    );
    assert_one(
        &problems_of_file("publish.max_wait: 1s"),
        &["publish.max_wait: is no key; levels nest"],
    );
    assert_one(
        &problems_of_file("kafka: {linger.ms: 1}"),
        &["kafka.linger.ms: is no key; librdkafka's properties go below kafka.properties"],
    );
}

#[test]
fn a_file_without_content_is_a_file_without_settings() {
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "---\n# nothing\n...\n",
        "~",
        "\u{feff}",
        "{}",
        "kafka:\npublish: ~\n",
        "kafka: {}\npublish: {max_wait: null}\n",
    ] {
        assert_eq!(from_file(text).config, from_file("").config, "{text:?}");
    }
}

#[test]
fn a_null_does_not_hide_what_a_weaker_layer_says() {
    let loaded = from_file("publish:\n  max_wait:\n  linger: 1ms\n");
    assert_eq!(loaded.config.publish.max_wait, Duration::from_secs(30));
    assert_eq!(loaded.config.publish.linger, Duration::from_millis(1));
}

#[test]
fn a_file_that_is_not_a_tree_of_settings_is_refused() {
    for (text, expected) in [
        ("just words", "configuration file: is not a map of sections"),
        ("- a\n- b\n", "configuration file: is not a map of sections"),
        (
            "publish:\n  linger: 1ms\n  linger: 2ms\n",
            "duplicated key in mapping",
        ),
        (
            "publish:\n\tlinger: 1ms\n",
            "configuration file: is not YAML",
        ),
        ("kafka: [unclosed\n", "line 2"),
        ("publish: {}\n---\npublish: {}\n", "2 YAML documents"),
        (
            "publish: 5\n",
            "publish: a number is not a map of max_wait, max_record_bytes",
        ),
        ("publish: [linger]\n", "publish: a list is not a map"),
        (
            "publish: {linger: {ms: 5}}\n",
            "publish.linger: a map is not a duration",
        ),
        (
            "log: {level: [a]}\n",
            "log.level: a list is not a text of printable",
        ),
    ] {
        assert_one(&problems_of_file(text), &[expected]);
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("latin1.yaml");
    fs::write(&path, b"kafka: {client_id: \"caf\xe9\"}").unwrap();
    let sources = Sources {
        file: Some(path),
        ..Sources::default()
    };
    assert_one(
        &problems(load_with_default_file(&sources, Path::new("/nowhere"))),
        &["is not UTF-8"],
    );
}

#[test]
fn a_mistake_that_a_stronger_layer_replaces_is_none_but_a_lost_section_still_is() {
    let environment = [BROKERS, ("OUTRIGGER_PUBLISH__LINGER", "1ms")];
    let (replaced, _) = load_layers(Some("publish: {linger: soon}"), &environment, &[]);
    assert!(replaced.is_ok());
    let (lost, _) = load_layers(Some("publish: soon"), &environment, &[]);
    assert_one(&problems(lost), &["publish: a text is not a map"]);
}

#[test]
fn a_file_that_is_named_must_be_there_and_the_default_one_need_not() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing.yaml");
    let there = directory.path().join("there.yaml");
    fs::write(&there, "kafka: {bootstrap_servers: 'file:9092'}").unwrap();
    let (missing_text, there_text) = (missing.to_str().unwrap(), there.to_str().unwrap());
    let load = |file: Option<&Path>, environment: &[(&str, &str)], default: &Path| {
        let sources = Sources {
            file: file.map(Path::to_owned),
            environment: pairs(environment),
            flags: Vec::new(),
        };
        load_with_default_file(&sources, default)
    };

    // Nothing is called missing that may be in the file.
    let problems = load(Some(&missing), &[], &there).unwrap_err();
    assert_eq!(problems.len(), 1);
    let problem = problems.iter().next().unwrap();
    assert_eq!(problem.key, "configuration file");
    assert_eq!(problem.source, "flag --config");
    assert!(
        problem
            .message
            .starts_with(&format!("{missing_text} cannot be read: "))
    );

    let problems = load(None, &[("OUTRIGGER_CONFIG", missing_text)], &there).unwrap_err();
    let problem = problems.iter().next().unwrap();
    assert_eq!(problem.source, "environment OUTRIGGER_CONFIG");

    let problems = load(Some(directory.path()), &[], &there).unwrap_err();
    assert!(problems.to_string().contains("cannot be read"));

    for loaded in [
        load(
            Some(&there),
            &[("OUTRIGGER_CONFIG", missing_text)],
            &missing,
        ),
        load(None, &[("OUTRIGGER_CONFIG", there_text)], &missing),
        load(None, &[("OUTRIGGER_CONFIG", "")], &there),
        load(None, &[], &there),
    ] {
        let loaded = loaded.unwrap();
        assert_eq!(loaded.file.as_deref(), Some(there.as_path()));
        assert_eq!(loaded.config.kafka.bootstrap_servers, "file:9092");
    }
    let loaded = load(None, &[BROKERS], &missing).unwrap();
    assert_eq!(loaded.file, None);
}

#[test]
fn problems_beside_a_broken_file_are_told_too_if_they_are_certain() {
    let flags = [
        ("log.format", "xml"),
        ("a.b", "c"),
        // The file may have had the socket.
        ("listen.tcp", ""),
    ];
    let (loaded, _) = load_layers(Some("{"), &[], &flags);
    let problems = problems(loaded);
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn an_environment_value_that_is_not_utf8_is_refused() {
    let (loaded, _) = load_layers(
        None,
        &[BROKERS, ("OUTRIGGER_KAFKA__CLIENT_ID", "a\u{fffd}")],
        &[],
    );
    assert_one(
        &problems(loaded),
        &["kafka.client_id: the value is not UTF-8"],
    );
}

#[test]
fn what_is_shown_loads_to_the_same_configuration() {
    let file = "kafka:\n  client_id: \"a 'b' \\\"c\\\" \\\\ # d\"\n  properties:\n    ssl.ca.pem: |\n      -----BEGIN\n      \u{e9}\n    debug: all\n\
                publish: {linger: 1500us, compression: zstd}\nlisten: {unix: /run/o.sock, tcp: ''}\nlog: {level: off}\n";
    let (loaded, source) = load_layers(Some(file), &[BROKERS], &[("log.format", "text")]);
    let loaded = loaded.unwrap();
    let shown = loaded.show();
    let (again, _) = load_layers(Some(&shown), &[], &[]);

    assert_eq!(again.unwrap().config, loaded.config, "{shown}");
    for line in [
        "  bootstrap_servers: \"kafka:9092\" # environment OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS\n",
        "  max_wait: 30s # default\n",
        "  max_in_flight_bytes: 64MiB # default\n",
        "  format: text # flag --set\n",
        &format!("    debug: \"all\" # {source}\n"),
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert!(
        from_file("")
            .show()
            .contains("  properties: {} # default\n")
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_every_problem_is_one_line(
        file in any::<String>(),
        variable in "[A-Z_]{0,20}",
        value in any::<String>(),
        key in prop::sample::select(KEYS.iter().map(|key| key.name).collect::<Vec<_>>()),
    ) {
        let variable = format!("OUTRIGGER_{variable}");
        let (loaded, _) = load_layers(Some(&file), &[BROKERS, (&variable, &value)], &[(key, &value)]);
        if let Err(problems) = loaded {
            prop_assert_eq!(problems.to_string().lines().count(), problems.len());
        }
    }

    #[test]
    fn any_printable_text_survives_being_shown(text in "\\PC+") {
        let path = "kafka.properties.client.rack";
        let loaded = load_layers(None, &[BROKERS], &[(path, &text)]).0.unwrap();
        let again = load_layers(Some(&loaded.show()), &[], &[]).0.unwrap();
        prop_assert_eq!(again.config, loaded.config);
    }
}
