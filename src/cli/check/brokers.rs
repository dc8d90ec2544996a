//! The way to each broker, in words: name, connection, TLS, login, requests. Each step that a broker did not come to is shown as not looked at.

mod login;
mod tls;

use std::{fmt::Write as _, net::SocketAddr};

use super::report::{Category, Report};
use crate::{
    config::Config,
    kafka::inspect::{Look, NameProblem, Seen, Survey, TcpProblem, Versions, VersionsProblem},
};

/// A row for each broker in each of the five categories.
pub(super) fn rows(report: &mut Report, config: &Config, survey: &Survey) {
    tls::in_general(report, config, survey);
    login::in_general(report, config, survey);
    for seen in &survey.brokers {
        let way = Way { config, seen };
        way.name(report);
        way.connection(report);
        way.tls(report);
        way.login(report, survey);
        way.versions(report);
    }
}

/// One broker's way.
struct Way<'a> {
    config: &'a Config,
    seen: &'a Seen,
}

impl Way<'_> {
    /// Where to look for the mistake in its address.
    fn source(&self) -> &'static str {
        match self.seen.is_bootstrap {
            true => "kafka.bootstrap_servers",
            false => "the broker's advertised.listeners, by which the cluster tells clients of it",
        }
    }

    fn name(&self, report: &mut Report) {
        const CATEGORY: Category = Category::Dns;
        let (check, host, source) = (&self.seen.endpoint, &self.seen.endpoint.host, self.source());
        let problem = match &self.seen.addresses {
            Ok(addresses) => {
                let detail = match host.parse::<std::net::IpAddr>() {
                    Ok(_) => "an address, no name".to_owned(),
                    Err(_) => addresses
                        .iter()
                        .map(|address| address.ip().to_string())
                        .collect::<Vec<_>>()
                        .join(", "),
                };
                return report.ok(CATEGORY, check, detail);
            }
            Err(problem) => problem,
        };
        let (detail, hint) = match problem {
            NameProblem::Unknown => (
                format!("the name {host} does not exist"),
                format!("Correct {source}, or enter the name in DNS; in Kubernetes, a Service of another namespace is SERVICE.NAMESPACE.svc."),
            ),
            NameProblem::OtherFamily => (
                format!("{host} has no address of the family that kafka.properties.broker.address.family asks for"),
                "Set kafka.properties.broker.address.family to any, or enter such an address in DNS.".to_owned(),
            ),
            NameProblem::Unanswered => (
                format!("no name server answered for {host}"),
                "Look at /etc/resolv.conf and at the way to the servers named there; in Kubernetes, at dnsPolicy and at network policies for port 53.".to_owned(),
            ),
            NameProblem::Other(words) => (
                format!("{host}: {words}"),
                format!("Correct {source}, or look at /etc/resolv.conf and /etc/hosts."),
            ),
        };
        report.failed(CATEGORY, check, detail, hint);
    }

    fn connection(&self, report: &mut Report) {
        const CATEGORY: Category = Category::Tcp;
        let check = &self.seen.endpoint;
        if self.seen.looks.is_empty() {
            return report.skipped(CATEGORY, check, "the name has no address");
        }
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for look in &self.seen.looks {
            match &look.tcp {
                Ok(took) => good.push(format!(
                    "{} in {:.1} ms",
                    look.address.ip(),
                    took.as_secs_f64() * 1000.0
                )),
                Err(problem) => bad.push((look.address, problem)),
            }
        }
        let failures: Vec<String> = bad
            .iter()
            .map(|(address, problem)| not_connected(*address, problem))
            .collect();
        match (good.is_empty(), bad.first()) {
            (_, None) => report.ok(CATEGORY, check, format!("connects to {}", good.join(", "))),
            (false, Some(_)) => report.warning(
                CATEGORY,
                check,
                format!("connects to {}; {}", good.join(", "), failures.join("; ")),
                "Clients try all addresses of a name in turn, and some attempts will fail: correct the name's addresses, or choose a family with kafka.properties.broker.address.family (v4 or v6).",
            ),
            (true, Some((_, problem))) => {
                let hint = self.connection_hint(problem);
                report.failed(CATEGORY, check, failures.join("; "), hint);
            }
        }
    }

    fn connection_hint(&self, problem: &TcpProblem) -> String {
        let source = self.source();
        match problem {
            TcpProblem::Refused => format!(
                "Start the broker, or correct the port in {source}: it is that of one of the broker's listeners."
            ),
            TcpProblem::TimedOut => format!(
                "Something drops the packets (a firewall, a network policy, a security group), or the machine is away: open the way, or correct {source}."
            ),
            TcpProblem::Unreachable => format!(
                "This machine has no route there: look at its network, or correct {source}."
            ),
            TcpProblem::Other(_) => format!("Look at this machine's network, or correct {source}."),
        }
    }

    fn tls(&self, report: &mut Report) {
        tls::row(report, self.config, self.seen);
    }

    fn login(&self, report: &mut Report, survey: &Survey) {
        login::row(report, self.config, self.seen, survey);
    }

    fn versions(&self, report: &mut Report) {
        const CATEGORY: Category = Category::Versions;
        let check = &self.seen.endpoint;
        let asked = self.seen.looks.iter().filter_map(|look| {
            let versions = look.versions.as_ref()?;
            (!is_of_tls(versions)).then_some(versions)
        });
        let asked: Vec<_> = asked.collect();
        let Some(first) = asked
            .iter()
            .find(|answer| answer.is_err())
            .or_else(|| asked.first())
        else {
            return report.skipped(CATEGORY, check, "there is no connection to ask over");
        };
        let (detail, hint) = match first {
            Ok(versions) => return known(report, check, versions),
            Err(VersionsProblem::Closed) => (
                "the connection was closed instead of an answer".to_owned(),
                "Look into the broker's log: it says why. If its listener wants TLS, set kafka.tls.enabled=true.".to_owned(),
            ),
            Err(VersionsProblem::TimedOut) => (
                "the connection stands, and no answer came".to_owned(),
                "Look whether the broker is overloaded or stopped, and whether something between here and there holds the data back.".to_owned(),
            ),
            Err(VersionsProblem::NotKafka) => (
                "what answers there is no Kafka broker".to_owned(),
                format!("Correct {}: the port is that of a broker's listener, not of a controller, a registry or a web server.", self.source()),
            ),
            Err(
                VersionsProblem::Other(words)
                | VersionsProblem::Refused(words),
            ) => (
                format!("the question was not answered: {words}"),
                "Look into the broker's log for this client's address.".to_owned(),
            ),
            // Told under TLS.
            Err(VersionsProblem::SpeaksTls) => return,
        };
        report.failed(CATEGORY, check, detail, hint);
    }
}

/// Whether an answer, or the want of one, is a matter of TLS.
fn is_of_tls(answer: &Result<Versions, VersionsProblem>) -> bool {
    matches!(
        answer,
        Err(VersionsProblem::SpeaksTls | VersionsProblem::Refused(_))
    )
}

fn known(report: &mut Report, check: &dyn std::fmt::Display, versions: &Versions) {
    const CATEGORY: Category = Category::Versions;
    let missing = versions.missing();
    let release = versions.release();
    if !missing.is_empty() {
        return report.failed(
            CATEGORY,
            check,
            format!("it does not do: {}", missing.join(", ")),
            "Outrigger needs brokers of Kafka 0.11 or newer; a controller's port does not serve clients either.",
        );
    }
    let mut detail = String::new();
    let _ = write!(
        detail,
        "{} requests, as of Kafka {release} or newer; idempotent publishing and groups are among them",
        versions.count()
    );
    if versions.tells_of_truncation() {
        return report.ok(CATEGORY, check, detail);
    }
    report.warning(
        CATEGORY,
        check,
        format!("{detail}; truncated logs are not noticed (KIP-320)"),
        "Use brokers of Kafka 2.1 or newer: an older one may go back in a partition without a consumer's noticing.",
    );
}

fn not_connected(address: SocketAddr, problem: &TcpProblem) -> String {
    let ip = address.ip();
    match problem {
        TcpProblem::Refused => format!(
            "{ip} refuses the connection: nothing listens on port {}",
            address.port()
        ),
        TcpProblem::TimedOut => format!("{ip} does not answer within 5 s"),
        TcpProblem::Unreachable => format!("{ip} cannot be reached from this network"),
        TcpProblem::Other(words) => format!("{ip}: {words}"),
    }
}

/// The addresses at which there is a connection.
fn connected(seen: &Seen) -> impl Iterator<Item = &Look> {
    seen.looks.iter().filter(|look| look.tcp.is_ok())
}
