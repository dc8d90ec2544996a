//! A Kafka broker that asks who comes: TLS, every SASL mechanism, mTLS and ACLs, for the tests of secured connections.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    certificates::{Authority, Identity},
    kafka::Kafka,
    sidecar::Sidecar,
    tokens::{AUDIENCE, Issuer, TokenServer},
};

/// Allowed everything.
pub const USER: &str = "ann";
/// Allowed to write and read topics and groups that begin with `carl`.
pub const LIMITED: &str = "carl";
/// Allowed nothing.
pub const STRANGER: &str = "bob";
pub const PASSWORD: &str = "correct horse";

pub struct Secured {
    pub kafka: Kafka,
    pub directory: TempDir,
    pub authority: Authority,
    pub ca: PathBuf,
    pub issuer: Issuer,
    pub tokens: TokenServer,
}

/// Keys of the configuration with their values.
pub type Settings = Vec<(String, String)>;

pub fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

impl Secured {
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Secured> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let authority = Authority::new("test authority");
        authority.write(&at("ca.pem"));
        let (from, to) = (-1, 30);
        let good = authority.sign(directory.path(), "broker", Some("localhost"), (from, to));
        let expired = authority.sign(directory.path(), "broker", Some("localhost"), (-30, -1));
        let misnamed = authority.sign(
            directory.path(),
            "broker",
            Some("elsewhere.example"),
            (from, to),
        );
        let issuer = Issuer::new();
        issuer.write_keys(&at("jwks.json"));
        let keys = format!("file://{}", at("jwks.json").display());
        let security = "org.apache.kafka.common.security";
        let oauth = "listener.name.sasl.oauthbearer.";
        let mut options: Vec<String> = [
            "SASL:SASL_SSL",
            "SSL:SSL",
            "EXPIRED:SASL_SSL",
            "MISNAMED:SASL_SSL",
        ]
        .iter()
        .map(|listener| format!("--listener={listener}"))
        .collect();
        options.push(format!(
            "--java=-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}"
        ));
        let mut set = |key: &str, value: &str| options.push(format!("--set={key}={value}"));
        set("ssl.keystore.type", "PEM");
        set("ssl.keystore.location", &path(&good.both));
        set("ssl.truststore.type", "PEM");
        set("ssl.truststore.location", &path(&at("ca.pem")));
        set("listener.name.ssl.ssl.client.auth", "required");
        set(
            "listener.name.expired.ssl.keystore.location",
            &path(&expired.both),
        );
        set(
            "listener.name.misnamed.ssl.keystore.location",
            &path(&misnamed.both),
        );
        set("ssl.principal.mapping.rules", "RULE:^CN=(.*)$/$1/");
        set(
            "sasl.enabled.mechanisms",
            "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        );
        for listener in ["sasl", "expired", "misnamed"] {
            let plain = format!(
                "{security}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\" user_{STRANGER}=\"{PASSWORD}\" user_{LIMITED}=\"{PASSWORD}\";"
            );
            set(
                &format!("listener.name.{listener}.plain.sasl.jaas.config"),
                &plain,
            );
            for mechanism in ["scram-sha-256", "scram-sha-512"] {
                set(
                    &format!("listener.name.{listener}.{mechanism}.sasl.jaas.config"),
                    &format!("{security}.scram.ScramLoginModule required;"),
                );
            }
            let oauth = format!("listener.name.{listener}.oauthbearer.");
            set(
                &format!("{oauth}sasl.jaas.config"),
                &format!("{security}.oauthbearer.OAuthBearerLoginModule required;"),
            );
            set(
                &format!("{oauth}sasl.server.callback.handler.class"),
                &format!("{security}.oauthbearer.OAuthBearerValidatorCallbackHandler"),
            );
        }
        let _ = oauth;
        set("sasl.oauthbearer.jwks.endpoint.url", &keys);
        set("sasl.oauthbearer.expected.audience", AUDIENCE);
        set(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        );
        set("super.users", "User:ANONYMOUS");
        // A connection whose token has expired is cut, so that a fresh one is needed.
        set("connections.max.reauth.ms", "3600000");
        let kafka = Kafka::start_with(1, &options);
        let broker = &kafka;
        std::thread::scope(|scope| {
            // One a command: Kafka takes no two credentials of a user in one request.
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                scope.spawn(move || set_password(broker, mechanism, USER, PASSWORD));
            }
            scope.spawn(|| allow(&kafka, USER, &["--topic", "*", "--group", "*"]));
            scope.spawn(|| {
                let prefixed = [
                    "--topic",
                    LIMITED,
                    "--group",
                    LIMITED,
                    "--resource-pattern-type",
                    "prefixed",
                ];
                allow(&kafka, LIMITED, &prefixed);
            });
        });
        let tokens = TokenServer::start(issuer.clone(), &good, USER, 3600);
        Self {
            kafka,
            ca: at("ca.pem"),
            authority,
            issuer,
            tokens,
            directory,
        }
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    pub fn sign(&self, name: &str) -> Identity {
        self.authority
            .sign(self.directory.path(), name, None, (-1, 30))
    }

    /// What every connection over TLS needs here.
    pub fn tls(&self) -> Settings {
        settings(&[
            ("kafka.tls.enabled", "true"),
            ("kafka.tls.ca_file", &path(&self.ca)),
            // What "localhost" means differs between machines.
            ("kafka.properties.broker.address.family", "v4"),
        ])
    }

    /// A login with a password.
    pub fn password(&self, mechanism: &str, user: &str, password: &str) -> Settings {
        let mut all = self.tls();
        all.extend(settings(&[
            ("kafka.sasl.mechanism", mechanism),
            ("kafka.sasl.username", user),
            ("kafka.sasl.password", password),
        ]));
        all
    }

    /// A sidecar at one of the listeners.
    pub fn sidecar(&self, listener: &str, settings: &Settings) -> Sidecar {
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        Sidecar::start(self.kafka.listener(listener), &settings)
    }
}

/// Sets what `user` logs in with.
pub fn set_password(kafka: &Kafka, mechanism: &str, user: &str, password: &str) {
    let config = format!("{mechanism}=[password={password}]");
    let entity = ["--entity-type", "users", "--entity-name", user];
    kafka.tool(
        "configs",
        &[&["--alter", "--add-config", &config], entity.as_slice()].concat(),
    );
}

/// Lets `user` do everything with what `what` names.
pub fn allow(kafka: &Kafka, user: &str, what: &[&str]) {
    allow_to(kafka, user, &["All"], what);
}

/// Lets `user` do some things with what `what` names.
pub fn allow_to(kafka: &Kafka, user: &str, operations: &[&str], what: &[&str]) {
    let principal = format!("User:{user}");
    let mut arguments = vec!["--add", "--allow-principal", &principal];
    for operation in operations {
        arguments.extend(["--operation", operation]);
    }
    arguments.extend(what);
    kafka.tool("acls", &arguments);
}

pub fn path(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// How long a refusal by the brokers may take to reach a caller; a record may wait for 120 s.
pub const PROMPT: Duration = Duration::from_secs(30);
