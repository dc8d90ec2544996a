//! How the sidecar shows brokers who it is: the keys below `kafka.tls` and `kafka.sasl`, and how they are tied together.
//!
//! Not here: reading the files that they name (`kafka`), which may come later than the process. Pure; nobody owns state.
//! What always holds of a checked tree: a mechanism has what it needs, from one place each, and nothing is set that would have no effect.

use std::path::PathBuf;

use super::{check::Checked, problem::Problem, secret::Secret, show::Sourced, value::Parsed};

/// TLS towards brokers. Certificates and host names are always verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM; the system's authorities without it.
    pub ca_file: Option<PathBuf>,
    /// For mTLS.
    pub identity: Option<Identity>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and its chain.
    pub certificate_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
    /// The file with the key's password.
    pub key_password_file: Option<PathBuf>,
}

/// How to log in to brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sasl {
    /// With a name and a password.
    Password {
        /// librdkafka's `sasl.mechanism`.
        mechanism: &'static str,
        /// Who.
        username: Value,
        /// With what.
        password: Value,
    },
    /// With a token (OAUTHBEARER, RFC 7628).
    Token {
        /// Where tokens come from.
        source: TokenSource,
        /// Names and values sent with the token (KIP-342).
        extensions: Vec<(String, String)>,
    },
}

/// Where OAUTHBEARER tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// An OAuth 2 endpoint, by client credentials.
    Endpoint {
        /// `https`, or `http` on loopback.
        url: http::Uri,
        /// The client's name.
        client_id: Value,
        /// The client's secret.
        client_secret: Value,
        /// What is asked for.
        scope: Option<String>,
        /// PEM; the system's authorities without it.
        ca_file: Option<PathBuf>,
    },
    /// A file that something else keeps fresh.
    File(PathBuf),
    /// A program and its arguments.
    Command(Vec<String>),
}

/// A secret, or the file that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// As configured.
    Inline(Secret),
    /// The whole file but its last line break.
    File(PathBuf),
}

const TLS: &str = "kafka.tls.";
const PASSWORD: &[&str] = &["username", "username_file", "password", "password_file"];
const OAUTH: &[&str] = &[
    "oauth.token_endpoint",
    "oauth.client_id",
    "oauth.client_id_file",
    "oauth.client_secret",
    "oauth.client_secret_file",
    "oauth.scope",
    "oauth.ca_file",
    "oauth.token_file",
    "oauth.token_command",
    "oauth.extensions",
];
const ENDPOINT_ONLY: &[&str] = &[
    "oauth.client_id",
    "oauth.client_id_file",
    "oauth.client_secret",
    "oauth.client_secret_file",
    "oauth.scope",
    "oauth.ca_file",
];

impl Checked {
    /// What `kafka.tls` says; problems are noted.
    pub(super) fn tls(&mut self) -> Option<Tls> {
        let key = |leaf: &str| format!("{TLS}{leaf}");
        if !self.is_set("kafka.tls.enabled") {
            for leaf in [
                "ca_file",
                "certificate_file",
                "key_file",
                "key_password_file",
            ] {
                self.refuse_if_set(&key(leaf), "has no effect: kafka.tls.enabled is false");
            }
            return None;
        }
        let certificate = self.file("kafka.tls.certificate_file");
        let private = self.file("kafka.tls.key_file");
        let identity = match (certificate, private) {
            (Some(certificate_file), Some(key_file)) => Some(Identity {
                certificate_file,
                key_file,
                key_password_file: self.file("kafka.tls.key_password_file"),
            }),
            (Some(_), None) => {
                self.refuse(
                    "kafka.tls.key_file",
                    "is required with kafka.tls.certificate_file",
                );
                None
            }
            (None, Some(_)) => {
                self.refuse(
                    "kafka.tls.certificate_file",
                    "is required with kafka.tls.key_file",
                );
                None
            }
            (None, None) => {
                self.refuse_if_set(
                    "kafka.tls.key_password_file",
                    "has no effect without kafka.tls.key_file",
                );
                None
            }
        };
        Some(Tls {
            ca_file: self.file("kafka.tls.ca_file"),
            identity,
        })
    }

    /// What `kafka.sasl` says; problems are noted.
    pub(super) fn sasl(&mut self) -> Option<Sasl> {
        let mechanism = match self.found("kafka.sasl.mechanism") {
            Some(Parsed::Choice(mechanism)) => *mechanism,
            _ => return None,
        };
        let (of_others, why) = match mechanism {
            "" => (
                [PASSWORD, OAUTH].concat(),
                "has no effect without kafka.sasl.mechanism",
            ),
            "OAUTHBEARER" => (PASSWORD.to_vec(), "has no effect with OAUTHBEARER"),
            _ => (OAUTH.to_vec(), "is only for OAUTHBEARER"),
        };
        for leaf in of_others {
            self.refuse_if_set(&format!("kafka.sasl.{leaf}"), why);
        }
        match mechanism {
            "" => None,
            "OAUTHBEARER" => {
                let extensions = self.extensions();
                let source = self.token_source()?;
                Some(Sasl::Token {
                    source,
                    extensions: extensions?,
                })
            }
            mechanism => {
                let username = self.one_of("kafka.sasl.username", "kafka.sasl.username_file");
                let password = self.one_of("kafka.sasl.password", "kafka.sasl.password_file");
                Some(Sasl::Password {
                    mechanism,
                    username: username?,
                    password: password?,
                })
            }
        }
    }

    fn token_source(&mut self) -> Option<TokenSource> {
        const SOURCES: [&str; 3] = [
            "kafka.sasl.oauth.token_endpoint",
            "kafka.sasl.oauth.token_file",
            "kafka.sasl.oauth.token_command",
        ];
        let set: Vec<&str> = SOURCES.into_iter().filter(|key| self.is_set(key)).collect();
        let [source] = set.as_slice() else {
            self.refuse(
                set.last().unwrap_or(&SOURCES[0]),
                "OAUTHBEARER takes its tokens from exactly one of token_endpoint, token_file and token_command",
            );
            return None;
        };
        if *source != SOURCES[0] {
            for leaf in ENDPOINT_ONLY {
                self.refuse_if_set(
                    &format!("kafka.sasl.{leaf}"),
                    "is only for kafka.sasl.oauth.token_endpoint",
                );
            }
        }
        if *source == SOURCES[1] {
            return self.file(SOURCES[1]).map(TokenSource::File);
        }
        if *source == SOURCES[2] {
            return match self.found(SOURCES[2]) {
                Some(Parsed::Texts(command)) => Some(TokenSource::Command(command.clone())),
                _ => None,
            };
        }
        let url = self.token_endpoint();
        let client_id = self.one_of(
            "kafka.sasl.oauth.client_id",
            "kafka.sasl.oauth.client_id_file",
        );
        let client_secret = self.one_of(
            "kafka.sasl.oauth.client_secret",
            "kafka.sasl.oauth.client_secret_file",
        );
        Some(TokenSource::Endpoint {
            url: url?,
            client_id: client_id?,
            client_secret: client_secret?,
            scope: self.optional_text("kafka.sasl.oauth.scope"),
            ca_file: self.file("kafka.sasl.oauth.ca_file"),
        })
    }

    fn token_endpoint(&mut self) -> Option<http::Uri> {
        const KEY: &str = "kafka.sasl.oauth.token_endpoint";
        let url: Option<http::Uri> = self.optional_text(KEY)?.parse().ok();
        let is_right = |url: &http::Uri| match (url.scheme_str(), url.host()) {
            (Some("https"), Some(_)) => true,
            // A secret does not leave the machine in the clear.
            (Some("http"), Some(host)) => matches!(host, "localhost" | "127.0.0.1" | "[::1]"),
            _ => false,
        };
        let url = url.filter(is_right);
        if url.is_none() {
            self.refuse(KEY, "is not a URL of https (http only on loopback), such as https://idp.example.com/oauth2/token");
        }
        url
    }

    fn extensions(&mut self) -> Option<Vec<(String, String)>> {
        const KEY: &str = "kafka.sasl.oauth.extensions";
        let Some(Parsed::Texts(texts)) = self.found(KEY) else {
            return None;
        };
        let pairs: Option<Vec<_>> = texts
            .iter()
            .map(|text| {
                let (name, value) = text.split_once('=')?;
                // RFC 7628, 3.1: names are letters; `auth` is the token itself.
                let is_name = !name.is_empty()
                    && name.bytes().all(|byte| byte.is_ascii_alphabetic())
                    && name != "auth";
                is_name.then(|| (name.to_owned(), value.to_owned()))
            })
            .collect();
        if pairs.is_none() {
            self.refuse(
                KEY,
                "each must be name=value, the name of letters only and not auth (RFC 7628)",
            );
        }
        pairs
    }

    /// A value that is written in one key, or in the file that the other names.
    fn one_of(&mut self, inline: &'static str, file: &'static str) -> Option<Value> {
        match (self.is_set(inline), self.file(file)) {
            (true, Some(_)) => {
                self.refuse(file, &format!("{inline} is set too: keep one of the two"));
                None
            }
            (false, Some(path)) => Some(Value::File(path)),
            (true, None) => match self.found(inline) {
                Some(Parsed::Secret(secret)) => Some(Value::Inline(secret.clone())),
                Some(Parsed::Text(text)) => Some(Value::Inline(Secret::new(text))),
                _ => None,
            },
            (false, None) => {
                self.refuse(inline, &format!("is required, here or by {file}"));
                None
            }
        }
    }

    fn found(&self, key: &str) -> Option<&Parsed> {
        self.values.get(key).map(|sourced| &sourced.value)
    }

    fn is_set(&self, key: &str) -> bool {
        self.found(key).is_some_and(|value| match value {
            Parsed::Bool(value) => *value,
            Parsed::Text(text) => !text.is_empty(),
            Parsed::Secret(secret) => !secret.expose().is_empty(),
            Parsed::Texts(texts) => !texts.is_empty(),
            Parsed::Path(path) => path.is_some(),
            _ => true,
        })
    }

    fn optional_text(&self, key: &str) -> Option<String> {
        match self.found(key) {
            Some(Parsed::Text(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn file(&self, key: &str) -> Option<PathBuf> {
        match self.found(key) {
            Some(Parsed::Path(path)) => path.clone(),
            _ => None,
        }
    }

    pub(super) fn refuse_if_set(&mut self, key: &str, message: &str) {
        if self.is_set(key) {
            self.refuse(key, message);
        }
    }

    pub(super) fn refuse(&mut self, key: &str, message: &str) {
        let source = match self.values.get(key) {
            Some(Sourced { source, .. }) if source != "default" => source.clone(),
            _ => "unset".to_owned(),
        };
        self.problems.push(Problem::new(key, source, message));
    }
}
