//! The login at a broker, in words.

use std::time::Duration;

use super::super::report::{Category, Report};
use crate::{
    config::{Config, Sasl, SecretValue, TokenSource},
    kafka::inspect::{LoginProblem, Seen, Survey},
};

const CATEGORY: Category = Category::Sasl;

/// The token, where one is used.
pub(super) fn in_general(report: &mut Report, config: &Config, survey: &Survey) {
    const CHECK: &str = "token";
    let (Some(token), Some(Sasl::Token { source, .. })) = (&survey.token, &config.kafka.sasl)
    else {
        return;
    };
    let from = match source {
        TokenSource::Endpoint { url, .. } => url.to_string(),
        TokenSource::File(file) => file.display().to_string(),
        TokenSource::Command(command) => format!("the command {}", command[0]),
    };
    match token {
        Ok(lifetime) => report.ok(
            CATEGORY,
            CHECK,
            format!("a token from {from}, good for {}", rounded(*lifetime)),
        ),
        Err(error) => {
            let hint = token_hint(source, error);
            report.failed(CATEGORY, CHECK, format!("there is no token: {error}"), hint);
        }
    }
}

fn token_hint(source: &TokenSource, error: &str) -> &'static str {
    match source {
        TokenSource::Endpoint { .. }
            if error.contains("invalid_client") || error.contains("401") =>
        {
            "The endpoint does not know this client or its secret: correct kafka.sasl.oauth.client_id and client_secret (or its file)."
        }
        TokenSource::Endpoint { .. } if error.contains("invalid_scope") => {
            "The endpoint does not give this scope to this client: correct kafka.sasl.oauth.scope."
        }
        TokenSource::Endpoint { .. } if error.contains("certificate") => {
            "Put the certificate of the endpoint's authority into the file that kafka.sasl.oauth.ca_file names, and reach it by a name of its certificate."
        }
        TokenSource::Endpoint { .. } => {
            "Look whether kafka.sasl.oauth.token_endpoint is right and can be reached from here, and into its own log."
        }
        TokenSource::File(_) => {
            "Look at what writes kafka.sasl.oauth.token_file; in Kubernetes, at the projected volume and its mount."
        }
        TokenSource::Command(_) => {
            "Run kafka.sasl.oauth.token_command by hand as the sidecar's user: it must print a token and exit with 0."
        }
    }
}

/// One broker.
pub(super) fn row(report: &mut Report, config: &Config, seen: &Seen, survey: &Survey) {
    let check = &seen.endpoint;
    let Some(login) = &seen.login else {
        let why = match &survey.token {
            Some(Err(_)) => "there is no token",
            _ => "the way to the broker is not open",
        };
        return report.skipped(CATEGORY, check, why);
    };
    let (detail, hint) = match login {
        Ok(took) => {
            let took = took.as_millis();
            let detail = match (&config.kafka.sasl, &config.kafka.tls) {
                (Some(sasl), _) => {
                    format!("the broker accepts the login by {}, in {took} ms", mechanism(sasl))
                }
                (None, Some(tls)) if tls.identity.is_some() => {
                    "the broker serves this client; who it is, its certificate says".to_owned()
                }
                (None, _) => "the broker serves this client without a login".to_owned(),
            };
            return report.ok(CATEGORY, check, detail);
        }
        Err(LoginProblem::Refused(words)) => (
            format!("the broker refuses the login: {words}"),
            refused_hint(config.kafka.sasl.as_ref(), words),
        ),
        Err(LoginProblem::Closed(words)) => {
            let hint = match config.kafka.sasl {
                None => "The listener may ask for a login: set kafka.sasl.mechanism and what belongs to it, or use the port of a listener without SASL.",
                Some(_) => "The listener may be one without SASL: use the port of a listener of SASL_PLAINTEXT or SASL_SSL, or leave kafka.sasl.mechanism empty; the broker's log says more.",
            };
            (
                format!("the broker closes the connection instead of an answer: {words}"),
                hint.to_owned(),
            )
        }
        Err(LoginProblem::TimedOut(words)) => (
            match words.is_empty() {
                true => "the broker does not answer".to_owned(),
                false => format!("the broker does not answer: {words}"),
            },
            "Look into the broker's log for this client's address, and whether the broker is overloaded.".to_owned(),
        ),
        Err(LoginProblem::NoClient(words)) => (
            format!("no client can be made: {words}"),
            "Correct what is named; the rows on files above say more.".to_owned(),
        ),
    };
    report.failed(CATEGORY, check, detail, hint);
}

fn refused_hint(sasl: Option<&Sasl>, words: &str) -> String {
    match sasl {
        Some(_) if words.contains("not valid in current SASL state") => {
            "The listener has no login: use the port of a listener of SASL_PLAINTEXT or SASL_SSL, or leave kafka.sasl.mechanism empty.".to_owned()
        }
        Some(_) if words.contains("Unsupported SASL mechanism") => {
            "Set kafka.sasl.mechanism to one that the listener has (sasl.enabled.mechanisms on the broker).".to_owned()
        }
        Some(Sasl::Password {
            mechanism,
            username,
            password,
        }) => {
            let both = format!("Correct {} or {}", name_key(username), password_key(password));
            match *mechanism {
                "PLAIN" => format!("{both}: the broker does not know the two together."),
                scram => format!("{both}: the user needs a password for {scram} on the brokers (kafka-configs.sh --entity-type users), and one for another mechanism does not count."),
            }
        }
        Some(Sasl::Token { .. }) => {
            "Compare the token's issuer, audience and keys with what the listener expects (sasl.oauthbearer.* on the broker, whose log says what is wrong with it).".to_owned()
        }
        None => "Look at the rows on TLS above, and at kafka.properties for settings of TLS.".to_owned(),
    }
}

fn mechanism(sasl: &Sasl) -> &'static str {
    match sasl {
        Sasl::Password { mechanism, .. } => mechanism,
        Sasl::Token { .. } => "OAUTHBEARER",
    }
}

/// A name that is configured is no secret: `config show` prints it. One that is in a file stays there.
fn name_key(username: &SecretValue) -> String {
    match username {
        SecretValue::Inline(name) => format!("kafka.sasl.username (\"{}\")", name.expose()),
        SecretValue::File(_) => "the name in kafka.sasl.username_file".to_owned(),
    }
}

fn password_key(password: &SecretValue) -> &'static str {
    match password {
        SecretValue::Inline(_) => "kafka.sasl.password",
        SecretValue::File(_) => "the password in kafka.sasl.password_file",
    }
}

fn rounded(lifetime: Duration) -> String {
    match lifetime.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 2 * 3600 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_has_the_hint_for_its_cause() {
        let sasl = Sasl::Password {
            mechanism: "SCRAM-SHA-256",
            username: SecretValue::File("/name".into()),
            password: SecretValue::File("/password".into()),
        };
        let hint = |words: &str| refused_hint(Some(&sasl), words);
        let wrong = "SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-256";
        assert!(hint(wrong).contains("kafka.sasl.username_file or the password in"));
        let other = "SASL SCRAM-SHA-256 mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: PLAIN";
        assert!(hint(other).contains("sasl.enabled.mechanisms"));
        let none = "SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state";
        assert!(hint(none).contains("listener has no login"));
    }

    #[test]
    fn what_an_endpoint_refuses_has_the_hint_for_it() {
        let source = TokenSource::Endpoint {
            url: "https://idp/token".parse().unwrap(),
            client_id: SecretValue::Inline(crate::config::Secret::new("me")),
            client_secret: SecretValue::File("/secret".into()),
            scope: None,
            ca_file: None,
        };
        let hint = |error: &str| token_hint(&source, error);
        assert!(hint("answered 401 Unauthorized: invalid_client").contains("client_secret"));
        assert!(hint("answered 400 Bad Request: invalid_scope").contains("scope"));
        assert!(hint("the certificate does not verify: x").contains("ca_file"));
        assert!(hint("Connection refused").contains("reached"));
    }
}
