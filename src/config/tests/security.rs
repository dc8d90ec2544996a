//! `kafka.tls` and `kafka.sasl`: what a mechanism needs, what has no effect, and what is never printed.

use super::{super::*, *};

fn kafka(flags: &[(&str, &str)]) -> Result<Kafka, Vec<String>> {
    let (loaded, _) = load_layers(None, &[BROKERS], flags);
    loaded
        .map(|loaded| loaded.config.kafka)
        .map_err(|found| found.iter().map(ToString::to_string).collect())
}

const TLS: (&str, &str) = ("kafka.tls.enabled", "true");

#[test]
fn without_a_word_there_is_neither_tls_nor_a_login() {
    let kafka = kafka(&[]).unwrap();
    assert_eq!((kafka.tls, kafka.sasl), (None, None));
}

#[test]
fn tls_takes_an_authority_and_an_identity() {
    let kafka = kafka(&[
        TLS,
        ("kafka.tls.ca_file", "/ca.pem"),
        ("kafka.tls.certificate_file", "/c.pem"),
        ("kafka.tls.key_file", "/k.pem"),
    ])
    .unwrap();
    let tls = kafka.tls.unwrap();
    assert_eq!(tls.ca_file.unwrap(), Path::new("/ca.pem"));
    let identity = tls.identity.unwrap();
    assert_eq!(identity.key_file, Path::new("/k.pem"));
    assert_eq!(identity.key_password_file, None);
}

#[test]
fn half_an_identity_and_tls_settings_without_tls_are_refused() {
    let wrong = kafka(&[TLS, ("kafka.tls.certificate_file", "/c.pem")]).unwrap_err();
    assert_one(&wrong, &["kafka.tls.key_file (unset): is required"]);
    let wrong = kafka(&[TLS, ("kafka.tls.key_file", "/k.pem")]).unwrap_err();
    assert_one(&wrong, &["kafka.tls.certificate_file (unset): is required"]);
    let wrong = kafka(&[("kafka.tls.ca_file", "/ca.pem")]).unwrap_err();
    assert_one(
        &wrong,
        &[
            "kafka.tls.ca_file",
            "kafka.tls.enabled is false",
            "flag --set",
        ],
    );
    let wrong = kafka(&[TLS, ("kafka.tls.ca_file", "ca.pem")]).unwrap_err();
    assert_one(&wrong, &["kafka.tls.ca_file", "absolute path"]);
}

#[test]
fn a_password_mechanism_takes_each_value_from_one_place() {
    let scram = ("kafka.sasl.mechanism", "SCRAM-SHA-512");
    let found = kafka(&[
        scram,
        ("kafka.sasl.username", "ann"),
        ("kafka.sasl.password_file", "/p"),
    ])
    .unwrap();
    let Some(Sasl::Password {
        mechanism,
        username,
        password,
    }) = found.sasl
    else {
        panic!("{:?}", found.sasl);
    };
    assert_eq!(mechanism, "SCRAM-SHA-512");
    assert_eq!(username, SecretValue::Inline(Secret::new("ann")));
    assert_eq!(password, SecretValue::File("/p".into()));

    let wrong = kafka(&[scram, ("kafka.sasl.username", "ann")]).unwrap_err();
    assert_one(&wrong, &["kafka.sasl.password (unset): is required"]);
    let both = [
        scram,
        ("kafka.sasl.username", "ann"),
        ("kafka.sasl.password", "a"),
        ("kafka.sasl.password_file", "/p"),
    ];
    assert_one(&kafka(&both).unwrap_err(), &["keep one of the two"]);
    let foreign = [
        scram,
        ("kafka.sasl.username", "ann"),
        ("kafka.sasl.password", "a"),
        ("kafka.sasl.oauth.scope", "x"),
    ];
    assert_one(&kafka(&foreign).unwrap_err(), &["is only for OAUTHBEARER"]);
    let alone = [("kafka.sasl.password", "a")];
    assert_one(
        &kafka(&alone).unwrap_err(),
        &["without kafka.sasl.mechanism"],
    );
    let unknown = [("kafka.sasl.mechanism", "GSSAPI")];
    assert_one(
        &kafka(&unknown).unwrap_err(),
        &["one of PLAIN, SCRAM-SHA-256"],
    );
}

#[test]
fn tokens_come_from_one_place() {
    let oauth = ("kafka.sasl.mechanism", "OAUTHBEARER");
    let file = ("kafka.sasl.oauth.token_file", "/token");
    let source = |flags: &[(&str, &str)]| match kafka(flags).unwrap().sasl {
        Some(Sasl::Token { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(source(&[oauth, file]), TokenSource::File("/token".into()));
    let command = ("kafka.sasl.oauth.token_command", "/bin/token,--for,kafka");
    let TokenSource::Command(words) = source(&[oauth, command]) else {
        panic!("a command");
    };
    assert_eq!(words, ["/bin/token", "--for", "kafka"]);

    assert_one(&kafka(&[oauth]).unwrap_err(), &["exactly one of"]);
    assert_one(
        &kafka(&[oauth, file, command]).unwrap_err(),
        &["exactly one of"],
    );
    let scoped = [oauth, file, ("kafka.sasl.oauth.scope", "x")];
    assert_one(
        &kafka(&scoped).unwrap_err(),
        &["is only for kafka.sasl.oauth.token_endpoint"],
    );
    let named = [oauth, file, ("kafka.sasl.oauth.extensions", "auth=x")];
    assert_one(&kafka(&named).unwrap_err(), &["RFC 7628"]);
}

#[test]
fn a_client_secret_goes_to_https_or_stays_on_this_machine() {
    let with = |url: &'static str| {
        kafka(&[
            ("kafka.sasl.mechanism", "OAUTHBEARER"),
            ("kafka.sasl.oauth.token_endpoint", url),
            ("kafka.sasl.oauth.client_id", "me"),
            ("kafka.sasl.oauth.client_secret_file", "/s"),
        ])
    };
    for right in [
        "https://idp.example.com/token",
        "http://127.0.0.1:8080/token",
        "http://localhost/t",
    ] {
        assert!(with(right).is_ok(), "{right}");
    }
    for wrong in [
        "http://idp.example.com/token",
        "idp.example.com",
        "ftp://x/y",
        "https://",
    ] {
        assert_one(&with(wrong).unwrap_err(), &["token_endpoint", "https"]);
    }
}

#[test]
fn no_secret_of_these_keys_is_printed() {
    const SECRET: &str = "hunter2";
    for (mechanism, key, rest) in [
        (
            "PLAIN",
            "kafka.sasl.password",
            [("kafka.sasl.username", "ann")].as_slice(),
        ),
        (
            "OAUTHBEARER",
            "kafka.sasl.oauth.client_secret",
            &[
                ("kafka.sasl.oauth.token_endpoint", "https://x/y"),
                ("kafka.sasl.oauth.client_id", "me"),
            ],
        ),
    ] {
        let flags = [&[("kafka.sasl.mechanism", mechanism), (key, SECRET)], rest].concat();
        let loaded = load_layers(None, &[BROKERS], &flags).0.unwrap();
        let printed = format!("{loaded:?} {:#?} {}", loaded.config, loaded.show());
        assert!(
            !printed.contains(SECRET) && printed.contains("***"),
            "{printed}"
        );
        // A secret that is no text, and one in the wrong place.
        let wrong = format!("kafka: {{sasl: {{password: [{SECRET}], oauth: {SECRET}}}}}");
        for problem in problems_of_file(&wrong) {
            assert!(!problem.contains(SECRET), "{problem}");
        }
    }
}
