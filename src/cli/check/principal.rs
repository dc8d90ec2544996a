//! Whom the brokers' ACLs know this client as, for commands that grant it something.

use std::fs;

use crate::{
    config::{Kafka, Sasl, SecretValue},
    tls::Certificate,
};

/// As in `--allow-principal`. Brokers may map names by rules of their own; this is the name without such rules.
pub(super) fn principal(kafka: &Kafka) -> String {
    match &kafka.sasl {
        // A name that is configured is no secret: `config show` prints it. One that is in a file stays there.
        Some(Sasl::Password {
            username: SecretValue::Inline(name),
            ..
        }) => format!("User:{}", name.expose()),
        Some(Sasl::Password { .. }) => "User:<the name in kafka.sasl.username_file>".to_owned(),
        Some(Sasl::Token { .. }) => "User:<the token's subject>".to_owned(),
        None => {
            let identity = kafka.tls.as_ref().and_then(|tls| tls.identity.as_ref());
            let Some(identity) = identity else {
                return "User:ANONYMOUS".to_owned();
            };
            let pem = fs::read(&identity.certificate_file).unwrap_or_default();
            let subject = Certificate::read(&pem).map(|chain| chain[0].subject.clone());
            format!(
                "User:{}",
                subject.unwrap_or_else(|_| "<the certificate's subject>".to_owned())
            )
        }
    }
}
