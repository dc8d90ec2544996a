//! Which requests a broker takes: the one question that it answers before a login (ApiVersions, KIP-35), in its oldest form.

use std::{collections::BTreeMap, io};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{STEP, handshake};

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// A record of TLS that is an alert: what a broker that speaks TLS answers to one who does not.
const TLS_ALERT: u8 = 0x15;

const FETCH: i16 = 1;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;
const DESCRIBE_CLUSTER: i16 = 60;

/// What Outrigger cannot do without, with what for.
const NEEDED: &[(i16, &str)] = &[
    (INIT_PRODUCER_ID, "idempotent publishing (KIP-98)"),
    (10, "finding a group's coordinator"),
    (11, "joining groups"),
    (14, "sharing partitions in groups"),
    (12, "heartbeats in groups"),
    (8, "committing offsets"),
];

/// The requests that a broker takes, each with its least and its greatest version.
#[derive(Debug)]
pub struct Versions(BTreeMap<i16, (i16, i16)>);

/// Why they are not known.
#[derive(Debug, PartialEq, Eq)]
pub enum VersionsProblem {
    /// The connection was closed instead of an answer.
    Closed,
    /// The broker speaks TLS, and we did not.
    SpeaksTls,
    /// The broker ended TLS after the handshake, in its alert's words.
    Refused(String),
    /// What answers there is no Kafka broker.
    NotKafka,
    /// Nothing came back.
    TimedOut,
    /// In the system's words.
    Other(String),
}

impl Versions {
    /// What the broker cannot do that Outrigger needs.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = NEEDED.iter().filter(|(key, _)| !self.0.contains_key(key));
        missing.map(|(_, what)| *what).collect()
    }

    /// The newest release of Kafka whose requests these certainly are.
    pub fn release(&self) -> &'static str {
        let fetch = self.0.get(&FETCH).copied().unwrap_or((0, 0));
        match fetch {
            // KIP-896 took the oldest away.
            (4.., _) => "4.0",
            (_, 15..) => "3.5",
            _ if self.0.contains_key(&DESCRIBE_CLUSTER) => "2.8",
            (_, 11..) => "2.3",
            _ if self.0.contains_key(&INIT_PRODUCER_ID) => "0.11",
            _ => "0.10",
        }
    }

    /// How many requests it takes.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether consumers are told of truncated logs (KIP-320).
    pub fn tells_of_truncation(&self) -> bool {
        self.0
            .get(&FETCH)
            .is_some_and(|(_, greatest)| *greatest >= 9)
    }
}

/// Asks over a fresh connection, and lets go of it.
pub(super) async fn ask<S>(mut stream: S, client_id: &str) -> Result<Versions, VersionsProblem>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        stream.write_all(&request(client_id)).await?;
        stream.flush().await?;
        let mut head = [0_u8; 4];
        stream.read_exact(&mut head).await?;
        let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
        if length > MAX_ANSWER {
            return Ok(Err(match head[0] {
                TLS_ALERT => VersionsProblem::SpeaksTls,
                _ => VersionsProblem::NotKafka,
            }));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(parse(&body).ok_or(VersionsProblem::NotKafka))
    };
    match timeout(STEP, exchange).await {
        Err(_) => Err(VersionsProblem::TimedOut),
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(problem(&error)),
    }
}

fn problem(error: &io::Error) -> VersionsProblem {
    let words = error.to_string();
    match (handshake::alert(&words), error.kind()) {
        (Some(alert), _) => VersionsProblem::Refused(alert),
        (
            None,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe,
        ) => VersionsProblem::Closed,
        _ => VersionsProblem::Other(words),
    }
}

/// Version 0, which every broker takes.
fn request(client_id: &str) -> Vec<u8> {
    let id = &client_id.as_bytes()[..client_id.len().min(1000)];
    let length = u16::try_from(id.len()).unwrap_or(0);
    let mut body = Vec::new();
    body.extend_from_slice(&API_VERSIONS.to_be_bytes());
    // The version, then a number that comes back with the answer.
    body.extend_from_slice(&0_i16.to_be_bytes());
    body.extend_from_slice(&1_i32.to_be_bytes());
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(id);
    let length = u32::try_from(body.len()).unwrap_or(0);
    [length.to_be_bytes().as_slice(), &body].concat()
}

/// The number that came back, an error code, then the requests.
fn parse(body: &[u8]) -> Option<Versions> {
    let (head, rest) = body.split_at_checked(10)?;
    if head[..6] != [0, 0, 0, 1, 0, 0] {
        return None;
    }
    let count = u32::from_be_bytes([head[6], head[7], head[8], head[9]]);
    let number = |bytes: &[u8], at: usize| i16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let apis: BTreeMap<i16, (i16, i16)> = rest
        .chunks_exact(6)
        .take(usize::try_from(count).ok()?)
        .map(|api| (number(api, 0), (number(api, 2), number(api, 4))))
        .collect();
    (!apis.is_empty()).then_some(Versions(apis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(apis: &[(i16, i16, i16)]) -> Vec<u8> {
        let mut body = vec![0, 0, 0, 1, 0, 0];
        body.extend_from_slice(&u32::try_from(apis.len()).unwrap().to_be_bytes());
        for (key, least, greatest) in apis {
            for number in [key, least, greatest] {
                body.extend_from_slice(&number.to_be_bytes());
            }
        }
        body
    }

    #[tokio::test]
    async fn a_broker_is_asked_in_the_oldest_form_and_its_answer_read() {
        let (ours, mut broker) = tokio::io::duplex(1024);
        let apis = [(1, 0, 11), (8, 0, 8), (10, 0, 3), (11, 0, 7), (12, 0, 4)];
        let serve = async {
            let mut asked = vec![0; 16];
            broker.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, b"\0\0\0\x0c\0\x12\0\0\0\0\0\x01\0\x02me");
            let body = answer(&apis);
            let length = u32::try_from(body.len()).unwrap().to_be_bytes();
            broker
                .write_all(&[&length, body.as_slice()].concat())
                .await
                .unwrap();
        };
        let (versions, ()) = tokio::join!(ask(ours, "me"), serve);
        let versions = versions.unwrap();
        assert_eq!(versions.count(), 5);
        assert_eq!(versions.release(), "2.3");
        assert_eq!(
            versions.missing(),
            [
                "idempotent publishing (KIP-98)",
                "sharing partitions in groups"
            ]
        );
    }

    #[tokio::test]
    async fn what_is_no_broker_is_called_by_what_it_is() {
        for (said, expected) in [
            (b"HTTP/1.1 400".as_slice(), VersionsProblem::NotKafka),
            (b"\x15\x03\x03\0\x02\x02\x50", VersionsProblem::SpeaksTls),
            (b"", VersionsProblem::Closed),
        ] {
            let (ours, mut other) = tokio::io::duplex(1024);
            other.write_all(said).await.unwrap();
            other.shutdown().await.unwrap();
            assert_eq!(ask(ours, "me").await.unwrap_err(), expected);
        }
    }

    #[test]
    fn an_answer_that_is_cut_short_or_an_error_is_none() {
        assert!(parse(b"\0\0\0\x01\0\0").is_none());
        assert!(parse(b"\0\0\0\x01\0\x23\0\0\0\0").is_none());
        assert!(parse(&answer(&[])).is_none());
    }
}
