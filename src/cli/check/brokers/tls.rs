//! TLS with a broker, in words: why there is none, or how long its certificate is good.

use super::{
    super::{
        certificates::{Life, life},
        report::{Category, Report},
    },
    connected,
};
use crate::{
    config::{Config, Sasl},
    kafka::inspect::{Handshake, Seen, Survey, TlsProblem, VersionsProblem},
    tls::Certificate,
};

const CATEGORY: Category = Category::Tls;

/// What is to be said of connections in the clear.
pub(super) fn in_general(report: &mut Report, config: &Config, survey: &Survey) {
    if config.kafka.tls.is_some() {
        return;
    }
    let sends_password = matches!(
        config.kafka.sasl,
        Some(
            Sasl::Token { .. }
                | Sasl::Password {
                    mechanism: "PLAIN",
                    ..
                }
        )
    );
    let mut looks = survey.brokers.iter().flat_map(|seen| &seen.looks);
    let leaves = looks.any(|look| !look.address.ip().to_canonical().is_loopback());
    if sends_password && leaves {
        report.warning(
            CATEGORY,
            "kafka.tls",
            "is off, and the password or token crosses the network in the clear",
            "Set kafka.tls.enabled=true and use a listener of SASL_SSL.",
        );
    } else {
        report.skipped(
            CATEGORY,
            "kafka.tls",
            "it is off (kafka.tls.enabled); brokers are reached in the clear",
        );
    }
}

/// One broker.
pub(super) fn row(report: &mut Report, config: &Config, seen: &Seen) {
    let (check, host) = (&seen.endpoint, seen.endpoint.host.as_str());
    let speaks_tls =
        connected(seen).any(|look| matches!(look.versions, Some(Err(VersionsProblem::SpeaksTls))));
    if speaks_tls {
        return report.failed(
            CATEGORY,
            check,
            "the broker speaks TLS there, and kafka.tls.enabled is false",
            "Set kafka.tls.enabled=true, or use the port of a listener in the clear.",
        );
    }
    if config.kafka.tls.is_none() {
        return;
    }
    let mut good: Option<&Handshake> = None;
    for look in connected(seen) {
        let (detail, hint) = match (&look.tls, &look.versions) {
            (Some(Err(problem)), _) => words(config, host, problem),
            (_, Some(Err(VersionsProblem::Refused(alert)))) => {
                words(config, host, &TlsProblem::Refused(alert.clone()))
            }
            (Some(Ok(handshake)), _) => {
                good = Some(handshake);
                continue;
            }
            (None, _) => continue,
        };
        return report.failed(CATEGORY, check, detail, hint);
    }
    let Some(handshake) = good else {
        return report.skipped(CATEGORY, check, "there is no connection");
    };
    let Some(certificate) = &handshake.certificate else {
        return report.ok(CATEGORY, check, handshake.version);
    };
    let (version, subject) = (handshake.version, &certificate.subject);
    match life(certificate) {
        Life::EndsSoon(words) => report.warning(
            CATEGORY,
            check,
            format!("{version}; the broker's certificate, {subject}, {words}"),
            "Have the broker's certificate renewed: afterwards nobody can connect any more.",
        ),
        Life::Good(words) | Life::Ended(words) | Life::NotBegun(words) => report.ok(
            CATEGORY,
            check,
            format!("{version}; the broker's certificate, {subject}, {words}"),
        ),
    }
}

/// What is wrong, and what to do about it.
fn words(config: &Config, host: &str, problem: &TlsProblem) -> (String, String) {
    let tls = config.kafka.tls.as_ref();
    match problem {
        TlsProblem::Expired(certificate) => (
            format!(
                "the certificate has expired: {}, on {}",
                certificate.subject, certificate.ends
            ),
            "Have the broker's certificate renewed; if that date has not come yet, this machine's clock is wrong.".to_owned(),
        ),
        TlsProblem::NotYetValid(certificate) => (
            format!(
                "the certificate is not good yet: {}, only from {} on",
                certificate.subject, certificate.begins
            ),
            "If that date has passed, this machine's clock is slow: set it; else the broker needs an older certificate.".to_owned(),
        ),
        TlsProblem::WrongName(certificate) => (
            format!("the broker's certificate is not for {host}, but {}", hosts(certificate)),
            format!("Reach the broker by a name that its certificate has (kafka.bootstrap_servers; advertised.listeners on the broker), or have one issued with {host} among its subject alternative names."),
        ),
        TlsProblem::UnknownAuthority(certificate) => {
            let trusted = tls.and_then(|tls| tls.ca_file.as_ref());
            let trusted = trusted.map_or_else(
                || "the system's authorities are trusted now".to_owned(),
                |file| format!("now {}", file.display()),
            );
            (
                format!("the broker's certificate is signed by {}, which this client does not trust", certificate.issuer),
                format!("Put the certificate of that authority, as PEM, into the file that kafka.tls.ca_file names ({trusted})."),
            )
        }
        TlsProblem::Unverified(words) => (
            format!("the broker's certificate does not verify: {words}"),
            "Have a certificate issued for the broker that is meant for servers and signed by an authority in kafka.tls.ca_file.".to_owned(),
        ),
        TlsProblem::Refused(alert) => {
            // What brokers say of the want of a certificate; Java's say "bad certificate".
            let is_of_ours = ["certificate required", "bad certificate", "handshake failure"]
                .contains(&alert.as_str());
            match tls.is_some_and(|tls| tls.identity.is_some()) {
                false if is_of_ours => (
                    format!("the broker asks for a certificate of this client, which has none (it ends TLS: {alert})"),
                    "Set kafka.tls.certificate_file and kafka.tls.key_file, or use a listener without ssl.client.auth=required.".to_owned(),
                ),
                false => (
                    format!("the broker ends TLS: {alert}"),
                    "Look into the broker's log; compare ssl.enabled.protocols and ssl.cipher.suites of its listener with TLS 1.2 and 1.3.".to_owned(),
                ),
                true => (
                    format!("the broker does not accept this client's certificate (it ends TLS: {alert})"),
                    "Renew kafka.tls.certificate_file if it has expired; else its authority must be in the truststore of the broker's listener.".to_owned(),
                ),
            }
        }
        TlsProblem::NoTls => (
            "what answers there does not speak TLS".to_owned(),
            "Use the port of a listener of SSL or SASL_SSL; only if brokers are meant to be reached in the clear, set kafka.tls.enabled=false.".to_owned(),
        ),
        TlsProblem::TimedOut => (
            "the connection stands, and the handshake does not go on".to_owned(),
            "Look whether the broker is overloaded or stopped, and whether something between here and there holds the data back.".to_owned(),
        ),
        TlsProblem::Ours(words) => (
            words.clone(),
            "Correct the file that is named; nothing can be said of the broker before.".to_owned(),
        ),
        TlsProblem::Other(words) => (
            words.clone(),
            "Compare ssl.enabled.protocols and ssl.cipher.suites of the broker's listener with TLS 1.2 and 1.3.".to_owned(),
        ),
    }
}

fn hosts(certificate: &Certificate) -> String {
    match certificate.names.is_empty() {
        true => format!("names no host at all (it is {})", certificate.subject),
        false => format!("for {}", certificate.names.join(", ")),
    }
}
