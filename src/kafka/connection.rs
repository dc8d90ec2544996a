//! Whether a client can work with Kafka at all, as far as librdkafka has said.
//!
//! librdkafka goes on trying for ever when brokers refuse its credentials or show a certificate that does not verify, and the records wait.
//! Here it is noticed, so that callers are told at once. What always holds: a client is called refused only when no broker serves it and
//! a broker's refusal is why, never for an outage; and it is forgotten at the first sign that a broker serves.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::failure::{Failure, Reason};

/// What OpenSSL says through librdkafka of a certificate that does not verify; why, it keeps to itself.
pub(super) const UNVERIFIED: &str = "certificate verify failed";

/// What a broker answers to one who authenticates again within a second (KIP-368), as librdkafka does with a token near its end. It says
/// nothing of the credentials: the next connection works. To a client that was never served it says that the listener has no login.
const TOO_SOON: &str = "Request not valid in current SASL state";

/// Two equal errors within this time are one.
const ECHO: Duration = Duration::from_millis(50);

/// How long a client that was served may be refused before it is given up: credentials are rotated in two places, never at the same moment.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// How the text of a failure of TLS begins.
pub(super) const NO_TLS: &str = "the TLS connection to Kafka cannot be made";

/// One client's connection to its cluster.
#[derive(Debug, Default)]
pub(super) struct Connection {
    // A std mutex: sections are a few instructions.
    state: Mutex<State>,
    /// Whether `state` holds anything, for the path of every record.
    troubled: AtomicBool,
    worked: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    refusal: Option<Failure>,
    /// Somebody has looked why, or it needs no look.
    is_explained: bool,
    down: bool,
    said: Option<(String, Instant)>,
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of the whole client, from its error callback. Says whether the client is refused since this error.
    pub(super) fn failed(&self, code: Code, text: &str) -> bool {
        if self.has_worked() && text.contains(TOO_SOON) {
            return false;
        }
        let mut state = self.state();
        let was = state.refusal.is_some() && state.down;
        match code {
            Code::AllBrokersDown => state.down = true,
            _ => match refusal(code, text) {
                // The same as before keeps its explanation.
                Some(_) if state.is_explained && text.contains(UNVERIFIED) => {}
                Some(failure) => {
                    state.refusal = Some(failure);
                    state.is_explained = false;
                }
                None => return false,
            },
        }
        self.troubled.store(true, Ordering::Relaxed);
        !was && state.refusal.is_some() && state.down
    }

    /// The same, once it is explained.
    pub(super) fn explained(&self) -> Option<Failure> {
        let failure = self.refused()?;
        let is_unclear = failure.message.contains(UNVERIFIED) && !self.state().is_explained;
        (!is_unclear).then_some(failure)
    }

    /// Replaces the words of the refusal, if it is still of this kind: it comes again and again, with other figures.
    pub(super) fn explain(&self, before: &Failure, after: Failure) {
        let is_unclear = |failure: &Failure| failure.message.contains(UNVERIFIED);
        let mut state = self.state();
        if state
            .refusal
            .as_ref()
            .is_some_and(|now| now == before || is_unclear(now) && is_unclear(before))
        {
            state.refusal = Some(after);
            state.is_explained = true;
        }
    }

    /// A broker has served the client.
    pub(super) fn works(&self) {
        if !self.worked.load(Ordering::Relaxed) {
            self.worked.store(true, Ordering::Relaxed);
        }
        if self.troubled.load(Ordering::Relaxed) {
            self.troubled.store(false, Ordering::Relaxed);
            let mut state = self.state();
            (state.refusal, state.is_explained, state.down) = (None, false, false);
        }
    }

    /// Whether this error was told a moment ago: the crate tells a producer's twice.
    pub(super) fn was_told(&self, text: &str) -> bool {
        let now = Instant::now();
        let before = self.state().said.replace((text.to_owned(), now));
        before.is_some_and(|(before, at)| before == text && now.duration_since(at) < ECHO)
    }

    /// Whether a broker has ever served it.
    pub(super) fn has_worked(&self) -> bool {
        self.worked.load(Ordering::Relaxed)
    }

    /// Why brokers refuse the client, if they do.
    pub(super) fn refused(&self) -> Option<Failure> {
        if !self.troubled.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state();
        state.refusal.clone().filter(|_| state.down)
    }
}

/// The failure that stands for an error that no retry mends.
pub(super) fn refusal(code: Code, text: &str) -> Option<Failure> {
    let what = match code {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
            "Kafka does not accept the sidecar's credentials"
        }
        Code::SSL => NO_TLS,
        _ => return None,
    };
    let text = match text.is_empty() {
        true => what.to_owned(),
        false => format!("{what}: {text}"),
    };
    Some(Failure::not_persisted(
        Reason::KafkaAuthenticationFailed,
        text,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_no_refusal_and_a_refusal_by_one_broker_of_several_is_none_yet() {
        let connection = Connection::default();
        assert!(!connection.failed(Code::AllBrokersDown, "1/1 brokers are down"));
        assert!(!connection.failed(Code::BrokerTransportFailure, "connection refused"));
        assert_eq!(connection.refused(), None);
        let connection = Connection::default();
        assert!(!connection.failed(Code::Authentication, "no"));
        assert_eq!(connection.refused(), None);
    }

    #[test]
    fn a_login_again_that_comes_too_soon_is_no_refusal_and_one_where_there_is_no_login_is() {
        let text = "SASL OAUTHBEARER mechanism handshake failed: Broker: Request not valid in current SASL state: broker's \
                    supported mechanisms:  (after 1ms in state AUTH_HANDSHAKE)";
        let connection = Connection::default();
        connection.failed(Code::AllBrokersDown, "");
        assert!(connection.failed(Code::Authentication, text));
        connection.works();
        connection.failed(Code::AllBrokersDown, "");
        assert!(!connection.failed(Code::Authentication, text));
        assert_eq!(connection.refused(), None);
    }

    #[test]
    fn a_refusal_counts_from_when_no_broker_is_left_until_one_serves() {
        let connection = Connection::default();
        connection.failed(Code::Authentication, "wrong password");
        assert!(connection.failed(Code::AllBrokersDown, ""));
        assert!(
            !connection.failed(Code::Authentication, "wrong password"),
            "told once"
        );
        let failure = connection.refused().expect("refused");
        assert_eq!(failure.reason, Reason::KafkaAuthenticationFailed);
        assert!(failure.message.contains("wrong password"), "{failure}");
        connection.works();
        assert_eq!(connection.refused(), None);
        assert!(connection.has_worked());
    }
}
