//! The keys below `kafka`: the cluster, TLS and the login.

use super::{
    super::key::{Key, Kind, PROPERTIES},
    key,
};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "kafka.bootstrap_servers",
        kind: Kind::Servers,
        default: None,
        meaning: "The Kafka brokers that are asked first.",
    },
    key(
        "kafka.client_id",
        Kind::Text,
        "outrigger",
        "What brokers' logs, quotas and metrics call this client.",
    ),
    key(
        "kafka.allow_auto_create_topics",
        Kind::Bool,
        "false",
        "Whether using a topic that does not exist may create it, where the brokers allow that too.",
    ),
    key(
        PROPERTIES,
        Kind::Properties,
        "{}",
        "librdkafka properties for what has no key here, such as `socket.*` and `fetch.*`. \
         Those that Outrigger's guarantees rest on are refused.",
    ),
    key(
        "kafka.tls.enabled",
        Kind::Bool,
        "false",
        "Whether brokers are reached over TLS. Their certificates and host names are always verified.",
    ),
    key(
        "kafka.tls.ca_file",
        Kind::File,
        "",
        "PEM: the authorities that may have signed the brokers' certificates. Without it, the system's.",
    ),
    key(
        "kafka.tls.certificate_file",
        Kind::File,
        "",
        "PEM: the certificate by which brokers know this client (mTLS), with its chain. A new one replaces the clients, in order, without restart.",
    ),
    key(
        "kafka.tls.key_file",
        Kind::File,
        "",
        "PEM: the private key of that certificate.",
    ),
    key(
        "kafka.tls.key_password_file",
        Kind::File,
        "",
        "The password of that key, if it has one.",
    ),
    key(
        "kafka.sasl.mechanism",
        Kind::Choice(&["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
        "",
        "How this client logs in to brokers.",
    ),
    key(
        "kafka.sasl.username",
        Kind::OptionalText,
        "",
        "For PLAIN and SCRAM.",
    ),
    key(
        "kafka.sasl.username_file",
        Kind::File,
        "",
        "The user's name, from a file.",
    ),
    key(
        "kafka.sasl.password",
        Kind::Secret,
        "",
        "For PLAIN and SCRAM. Better in a file.",
    ),
    key(
        "kafka.sasl.password_file",
        Kind::File,
        "",
        "The password, from a file; a new one is used without restart.",
    ),
    key(
        "kafka.sasl.oauth.token_endpoint",
        Kind::OptionalText,
        "",
        "For OAUTHBEARER: the URL that gives tokens for client credentials (RFC 6749, 4.4).",
    ),
    key(
        "kafka.sasl.oauth.client_id",
        Kind::OptionalText,
        "",
        "The client's name at that endpoint.",
    ),
    key(
        "kafka.sasl.oauth.client_id_file",
        Kind::File,
        "",
        "The client's name, from a file that is read for each token.",
    ),
    key(
        "kafka.sasl.oauth.client_secret",
        Kind::Secret,
        "",
        "Its secret. Better in a file.",
    ),
    key(
        "kafka.sasl.oauth.client_secret_file",
        Kind::File,
        "",
        "Its secret, from a file that is read for each token.",
    ),
    key(
        "kafka.sasl.oauth.scope",
        Kind::OptionalText,
        "",
        "The scope that is asked for.",
    ),
    key(
        "kafka.sasl.oauth.ca_file",
        Kind::File,
        "",
        "PEM: the authorities that may have signed the endpoint's certificate. Without it, the system's.",
    ),
    key(
        "kafka.sasl.oauth.token_file",
        Kind::File,
        "",
        "Instead of an endpoint: a file that holds a token, such as a projected service account token; read again ahead of its expiry.",
    ),
    key(
        "kafka.sasl.oauth.token_command",
        Kind::Texts,
        "",
        "Instead of an endpoint: a program and its arguments that print a token.",
    ),
    key(
        "kafka.sasl.oauth.extensions",
        Kind::Texts,
        "",
        "SASL extensions sent with the token (KIP-342), each `name=value`.",
    ),
];
