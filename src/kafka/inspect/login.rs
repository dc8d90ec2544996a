//! A login at one broker, by the client that the sidecar itself uses, and the questions that it then may ask.
//!
//! Blocks, bounded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};

use super::{Answers, ClusterFacts, GroupFacts, Node, Operation, QUESTION, Questions, TopicFacts};
use crate::kafka::{Cluster, connection, ffi};

/// The bound of a login. A refusal comes sooner; a broker that answers nothing takes all of it.
const LOGIN: Duration = Duration::from_secs(12);

/// How long one attempt to hear of brokers takes, between looks at what has gone wrong.
const SLICE: Duration = Duration::from_millis(250);

/// How often the connection must have been lost before that is believed to be the broker's answer: it was good a moment ago.
const LOSSES: usize = 4;

/// The most events that are served at once.
const EVENTS: usize = 64;

/// Why a broker did not let us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginProblem {
    /// It refused the credentials, in its words.
    Refused(String),
    /// It closed the connections, in librdkafka's words.
    Closed(String),
    /// Nothing came back; what librdkafka said last, if anything.
    TimedOut(String),
    /// There is no client: which key of the configuration, and why.
    NoClient(String),
}

/// A client that one broker has let in.
pub(super) struct Client {
    consumer: Arc<BaseConsumer<Ears>>,
    /// Those that the broker told of.
    pub(super) brokers: Vec<Node>,
}

/// What has gone wrong so far.
#[derive(Default)]
struct Ears(Mutex<Vec<(Code, String)>>);

impl Ears {
    fn heard(&self) -> MutexGuard<'_, Vec<(Code, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, code: Code, text: &str) {
        let mut heard = self.heard();
        if heard.len() < 100 {
            heard.push((code, text.to_owned()));
        }
    }

    fn is_in(&self) -> bool {
        is_in(&self.heard())
    }

    /// Whether it is certain by now that there will be no login.
    fn verdict(&self) -> Option<LoginProblem> {
        let heard = self.heard();
        let refused = heard
            .iter()
            .find(|(code, text)| connection::refusal(*code, text).is_some());
        if let Some((_, text)) = refused {
            return Some(LoginProblem::Refused(words(text)));
        }
        if is_in(&heard) {
            return None;
        }
        let lost = heard
            .iter()
            .filter(|(code, _)| *code == Code::AllBrokersDown);
        (lost.count() >= LOSSES).then(|| LoginProblem::Closed(last(&heard)))
    }
}

/// Who was told of other brokers has been let in: that those cannot be reached is another matter.
fn is_in(heard: &[(Code, String)]) -> bool {
    heard
        .iter()
        .any(|(code, text)| *code == Code::BrokerTransportFailure && !text.contains("/bootstrap"))
}

/// The last thing that was said of a connection.
fn last(heard: &[(Code, String)]) -> String {
    let last = heard
        .iter()
        .rfind(|(code, _)| *code != Code::AllBrokersDown);
    last.map(|(_, text)| words(text)).unwrap_or_default()
}

impl ClientContext for Ears {
    /// Of a connection that a broker closes, librdkafka tells only its log.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            self.hear(Code::BrokerTransportFailure, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        self.hear(code, reason);
    }
}

impl ConsumerContext for Ears {}

impl Client {
    /// Logs in at `broker`; how long it took comes with the client.
    pub(super) fn log_in(
        cluster: &Cluster,
        broker: &str,
    ) -> Result<(Duration, Self), LoginProblem> {
        let begun = Instant::now();
        loop {
            if let Some(client) = Self::try_to(cluster, broker, begun)? {
                return Ok((begun.elapsed(), client));
            }
        }
    }

    /// Tries with a client of its own; `None` if that has gone on to other brokers, none of which answers, before it could be asked: librdkafka
    /// then forgets the one that it was given.
    fn try_to(
        cluster: &Cluster,
        broker: &str,
        begun: Instant,
    ) -> Result<Option<Self>, LoginProblem> {
        let properties = cluster.asking_properties(broker);
        let properties = properties.map_err(LoginProblem::NoClient)?;
        let consumer: BaseConsumer<Ears> = properties
            .create_with_context(Ears::default())
            .map_err(|error| LoginProblem::NoClient(error.to_string()))?;
        let consumer = Arc::new(consumer);
        cluster.security().register(&consumer);
        loop {
            let told = ffi::describe::brokers(consumer.client(), SLICE);
            if let Ok(brokers) = told
                && !brokers.is_empty()
            {
                return Ok(Some(Self { consumer, brokers }));
            }
            // Errors are told to whoever polls; a line of the log looks as if there were no more.
            for _ in 0..EVENTS {
                let _ = consumer.poll(Duration::ZERO);
            }
            let ears = consumer.context();
            if let Some(problem) = ears.verdict() {
                return Err(problem);
            }
            if begun.elapsed() > LOGIN {
                return Err(LoginProblem::TimedOut(last(&ears.heard())));
            }
            if ears.is_in() {
                return Ok(None);
            }
        }
    }

    /// What it heard of the cluster.
    pub(super) fn cluster(&self) -> ClusterFacts {
        ClusterFacts {
            id: ffi::describe::cluster_id(self.consumer.client(), SLICE),
            brokers: self.brokers.clone(),
        }
    }

    /// Asks what there is to ask, `broker` where any may be asked.
    pub(super) fn ask(&self, questions: &Questions, broker: i32) -> Answers {
        let client = self.consumer.client();
        let told = |(_, text): (Code, String)| text;
        let topics = match questions.topics.is_empty() {
            true => Ok(Vec::new()),
            false => ffi::describe::topics(client, &questions.topics, Some(broker), QUESTION)
                .map_err(told),
        };
        let mut settings = BTreeMap::new();
        let may = |topic: &&TopicFacts| {
            let may = topic.may.as_ref();
            may.is_some_and(|may| may.contains(&Operation::DescribeConfigs))
        };
        let open: Vec<String> = topics
            .iter()
            .flatten()
            .filter(may)
            .map(|topic| topic.name.clone())
            .collect();
        if !open.is_empty()
            && let Ok(found) = ffi::describe::topic_settings(client, &open, Some(broker), QUESTION)
        {
            let found = open.into_iter().zip(found);
            settings.extend(found.filter_map(|(topic, found)| Some((topic, found.ok()?))));
        }
        let group = questions.group.as_ref();
        Answers {
            topics,
            settings,
            group: group.map(|group| self.group(group).map_err(told)),
        }
    }

    /// A coordinator that is only being chosen, as with the first group of a cluster, is waited for.
    fn group(&self, name: &str) -> Result<GroupFacts, (Code, String)> {
        let begun = Instant::now();
        loop {
            let answer = ffi::describe::group(self.consumer.client(), name, QUESTION);
            let code = match &answer {
                Ok(facts) => facts.error.as_ref().map(|(code, _)| *code),
                Err((code, _)) => Some(*code),
            };
            let is_passing = matches!(
                code,
                Some(
                    Code::CoordinatorLoadInProgress
                        | Code::CoordinatorNotAvailable
                        | Code::NotCoordinator
                )
            );
            if !is_passing || begun.elapsed() > QUESTION {
                return answer;
            }
            // Nobody unparks this thread.
            thread::park_timeout(SLICE);
        }
    }
}

/// What librdkafka says, without the broker's name before it and the state of the connection behind it, which are known or no help.
fn words(text: &str) -> String {
    let text = match text.split_once("/bootstrap: ") {
        Some((_, rest)) => rest,
        None => text,
    };
    let end = text.find(" (after ").unwrap_or(text.len());
    let text = text[..end].trim();
    // Those that a listener without a login has.
    text.trim_end_matches(": broker's supported mechanisms:")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_says_is_cut_to_what_helps() {
        assert_eq!(
            words(
                "sasl_ssl://localhost:9093/bootstrap: SASL authentication error: Authentication failed: no (after 301ms in state AUTH_REQ)"
            ),
            "SASL authentication error: Authentication failed: no"
        );
        assert_eq!(words("1/1 brokers are down"), "1/1 brokers are down");
    }

    #[test]
    fn a_refusal_is_believed_at_once_and_a_lost_connection_when_it_is_lost_again_and_again() {
        let ears = Ears::default();
        ears.log(
            RDKafkaLogLevel::Info,
            "FAIL",
            "[thrd:h:1/bootstrap]: h:1/bootstrap: Disconnected (after 1ms in state UP)",
        );
        for _ in 1..LOSSES {
            ears.hear(Code::AllBrokersDown, "1/1 brokers are down");
            assert_eq!(ears.verdict(), None);
        }
        ears.hear(Code::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(
            ears.verdict(),
            Some(LoginProblem::Closed("Disconnected".into()))
        );
        let others = Ears::default();
        others.hear(Code::BrokerTransportFailure, "h:2/1: Connect failed");
        for _ in 0..2 * LOSSES {
            others.hear(Code::AllBrokersDown, "2/2 brokers are down");
        }
        assert_eq!(others.verdict(), None, "it was told of another broker");
        assert!(others.is_in() && !ears.is_in());
        ears.hear(Code::Authentication, "no");
        assert_eq!(ears.verdict(), Some(LoginProblem::Refused("no".into())));
    }
}
