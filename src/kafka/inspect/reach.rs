//! The first steps to a broker: what its name stands for, and a connection.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

use super::{Endpoint, STEP};
use crate::config::Kafka;

/// Why a name stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameProblem {
    /// No name server knows it.
    Unknown,
    /// It has addresses, none of the family that librdkafka's `broker.address.family` asks for.
    OtherFamily,
    /// No name server answered.
    Unanswered,
    /// In the system's words.
    Other(String),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpProblem {
    /// The machine is there, and nothing listens.
    Refused,
    /// Nothing came back.
    TimedOut,
    /// There is no way to it.
    Unreachable,
    /// In the system's words.
    Other(String),
}

/// Which addresses librdkafka uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    pub(super) fn of(kafka: &Kafka) -> Self {
        let asked = kafka.properties.get("broker.address.family");
        match asked.map(|value| value.expose()) {
            Some("v4") => Self::V4,
            Some("v6") => Self::V6,
            _ => Self::Any,
        }
    }

    fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// What a name stands for; an address stands for itself.
pub(super) async fn addresses(
    endpoint: &Endpoint,
    family: Family,
) -> Result<Vec<SocketAddr>, NameProblem> {
    let looked_up = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port));
    let found = match timeout(STEP, looked_up).await {
        Err(_) => return Err(NameProblem::Unanswered),
        Ok(Err(error)) => return Err(name_problem(&error)),
        Ok(Ok(found)) => found,
    };
    let mut all: Vec<SocketAddr> = found.collect();
    all.dedup();
    if all.is_empty() {
        return Err(NameProblem::Unknown);
    }
    all.retain(|address| family.has(address.ip()));
    match all.is_empty() {
        true => Err(NameProblem::OtherFamily),
        false => Ok(all),
    }
}

/// The kind is not in the error: glibc's and musl's words are.
fn name_problem(error: &io::Error) -> NameProblem {
    let text = error.to_string();
    let said = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if said(&[
        "Name or service not known",
        "No address associated",
        "does not resolve",
        "no usable address",
    ]) {
        return NameProblem::Unknown;
    }
    if said(&["Temporary failure", "Try again"]) {
        return NameProblem::Unanswered;
    }
    NameProblem::Other(text)
}

/// A connection, and how long it took.
pub(super) async fn connect(address: SocketAddr) -> Result<(TcpStream, Duration), TcpProblem> {
    let begun = Instant::now();
    match timeout(STEP, TcpStream::connect(address)).await {
        Err(_) => Err(TcpProblem::TimedOut),
        Ok(Err(error)) => Err(match error.kind() {
            ErrorKind::ConnectionRefused => TcpProblem::Refused,
            ErrorKind::TimedOut => TcpProblem::TimedOut,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => TcpProblem::Unreachable,
            _ => TcpProblem::Other(error.to_string()),
        }),
        Ok(Ok(stream)) => Ok((stream, begun.elapsed())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_exist_and_a_name_server_that_is_away_are_told_apart() {
        let problem = |text: &str| name_problem(&io::Error::other(text.to_owned()));
        assert_eq!(
            problem("failed to lookup address information: Name or service not known"),
            NameProblem::Unknown
        );
        assert_eq!(problem("Name does not resolve"), NameProblem::Unknown);
        assert_eq!(
            problem("Temporary failure in name resolution"),
            NameProblem::Unanswered
        );
        assert!(matches!(problem("else"), NameProblem::Other(_)));
    }

    #[tokio::test]
    async fn only_addresses_of_the_family_that_librdkafka_uses_count() {
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: 1,
        };
        assert!(addresses(&endpoint, Family::V4).await.is_ok());
        assert_eq!(
            addresses(&endpoint, Family::V6).await,
            Err(NameProblem::OtherFamily)
        );
    }
}
