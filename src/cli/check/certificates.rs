//! The certificates in our own files: towards brokers, towards the token endpoint, and of the listener.

use std::{fs, path::Path};

use super::{
    configuration::unreadable,
    machine::Machine,
    report::{Category, Report},
};
use crate::{
    config::{Config, Sasl, TokenSource},
    kafka::inspect,
    tls::{self, Certificate},
};

const CATEGORY: Category = Category::Tls;

/// From here on somebody should see to a new one.
const SOON_DAYS: i64 = 14;

/// A row for each file.
pub(super) fn rows(report: &mut Report, config: &Config, machine: &Machine) {
    let mut authorities = Vec::new();
    if let Some(tls) = &config.kafka.tls {
        if let Some(file) = &tls.ca_file {
            authorities.push(("kafka.tls.ca_file", file));
        }
        if let Some(identity) = &tls.identity {
            let file = &identity.certificate_file;
            let fits = inspect::identity_fits(identity);
            own(
                report,
                "kafka.tls.certificate_file",
                file,
                machine,
                fits.err(),
            );
        }
    }
    if let Some(Sasl::Token {
        source: TokenSource::Endpoint {
            ca_file: Some(file),
            ..
        },
        ..
    }) = &config.kafka.sasl
    {
        authorities.push(("kafka.sasl.oauth.ca_file", file));
    }
    if let Some(tls) = &config.listen.tls {
        let unfit = listener_unfit(&tls.certificate_file, &tls.key_file);
        own(
            report,
            "listen.tls.certificate_file",
            &tls.certificate_file,
            machine,
            unfit,
        );
        if let Some(file) = &tls.client_ca_file {
            authorities.push(("listen.tls.client_ca_file", file));
        }
    }
    for (key, file) in authorities {
        trusted(report, key, file, machine);
    }
}

fn listener_unfit(certificate: &Path, key: &Path) -> Option<String> {
    let pem = match fs::read(key) {
        Ok(pem) => pem,
        Err(error) => return Some(format!("listen.tls.key_file: {}: {error}", key.display())),
    };
    // The listener takes no key that has a password.
    let Ok(private) = tls::private_key(&pem, "") else {
        return Some(format!(
            "listen.tls.key_file: {}: no private key that opens without a password",
            key.display()
        ));
    };
    let belongs = fs::read(certificate).is_ok_and(|pem| tls::belongs(&pem, &private));
    (!belongs)
        .then(|| "listen.tls.key_file is not the key of listen.tls.certificate_file".to_owned())
}

/// A certificate that we show, with its chain behind it.
fn own(report: &mut Report, key: &str, file: &Path, machine: &Machine, unfit: Option<String>) {
    let Some(chain) = read(report, key, file, machine) else {
        return;
    };
    if let Some(problem) = unfit {
        let hint = "Put a certificate and the private key that belongs to it into the two files; both come from one renewal.";
        return report.failed(CATEGORY, key, problem, hint);
    }
    let Some(first) = chain.iter().min_by_key(|found| found.seconds_left) else {
        return;
    };
    let subject = &chain[0].subject;
    let hint = format!(
        "Renew it: {} is read again while the sidecar runs.",
        file.display()
    );
    match life(first) {
        Life::Ended(words) => report.failed(CATEGORY, key, format!("{subject}: {words}"), hint),
        Life::NotBegun(words) => report.failed(
            CATEGORY,
            key,
            format!("{subject}: {words}"),
            "Wait until then, use an older one, or set this machine's clock.",
        ),
        Life::EndsSoon(words) => {
            report.warning(CATEGORY, key, format!("{subject}: {words}"), hint);
        }
        Life::Good(words) => report.ok(CATEGORY, key, format!("{subject}: {words}")),
    }
}

/// Authorities: one of them that has ended matters only if it is the one that is used, which the handshake shows.
fn trusted(report: &mut Report, key: &str, file: &Path, machine: &Machine) {
    let Some(all) = read(report, key, file, machine) else {
        return;
    };
    let ending: Vec<String> = all
        .iter()
        .filter_map(|found| match life(found) {
            Life::Good(_) => None,
            Life::Ended(words) | Life::NotBegun(words) | Life::EndsSoon(words) => {
                Some(format!("{}: {words}", found.subject))
            }
        })
        .collect();
    if ending.is_empty() {
        let names: Vec<&str> = all
            .iter()
            .take(3)
            .map(|found| found.subject.as_str())
            .collect();
        let more = if all.len() > names.len() { ", …" } else { "" };
        let detail = format!("{} trusted: {}{more}", all.len(), names.join(", "));
        return report.ok(CATEGORY, key, detail);
    }
    let hint = format!(
        "Put the authority's new certificate into {} beside the old one.",
        file.display()
    );
    report.warning(CATEGORY, key, ending.join("; "), hint);
}

fn read(
    report: &mut Report,
    key: &str,
    file: &Path,
    machine: &Machine,
) -> Option<Vec<Certificate>> {
    let pem = match fs::read(file) {
        Ok(pem) => pem,
        Err(error) => {
            unreadable(report, CATEGORY, key, file, &error, machine);
            return None;
        }
    };
    match Certificate::read(&pem) {
        Ok(found) => Some(found),
        Err(problem) => {
            let hint = "Put certificates in PEM there: blocks that begin with -----BEGIN CERTIFICATE-----.";
            report.failed(CATEGORY, key, format!("{} {problem}", file.display()), hint);
            None
        }
    }
}

/// How a certificate stands in time, with the words for it.
pub(super) enum Life {
    NotBegun(String),
    Good(String),
    EndsSoon(String),
    Ended(String),
}

pub(super) fn life(certificate: &Certificate) -> Life {
    let days = certificate.days_left();
    if certificate.seconds_to_begin > 0 {
        return Life::NotBegun(format!("is good only from {} on", certificate.begins));
    }
    if certificate.seconds_left < 0 {
        return Life::Ended(format!("has expired, on {}", certificate.ends));
    }
    let words = match days {
        0 => format!("expires within a day, on {}", certificate.ends),
        1 => format!("expires in 1 day, on {}", certificate.ends),
        days => format!("expires in {days} days, on {}", certificate.ends),
    };
    if days < SOON_DAYS {
        Life::EndsSoon(words)
    } else {
        Life::Good(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_warns_below_fourteen_days() {
        let with = |to_begin: i64, left: i64| Certificate {
            subject: String::new(),
            issuer: String::new(),
            names: Vec::new(),
            begins: "then".into(),
            ends: "later".into(),
            seconds_to_begin: to_begin,
            seconds_left: left,
        };
        let day = 86_400;
        assert!(matches!(life(&with(-1, 14 * day)), Life::Good(_)));
        assert!(matches!(life(&with(-1, 14 * day - 1)), Life::EndsSoon(_)));
        assert!(matches!(life(&with(-1, 0)), Life::EndsSoon(_)));
        assert!(matches!(life(&with(-1, -1)), Life::Ended(_)));
        assert!(matches!(life(&with(1, day)), Life::NotBegun(_)));
    }
}
