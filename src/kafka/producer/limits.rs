//! How large the batches are that a topic takes (`max.message.bytes`), and which lane makes such.
//!
//! A broker refuses a batch that is too large as a whole, and librdkafka's size of a batch is a client's, not a topic's. So the limit is asked
//! for before the first record of a topic is handed over, and topics with low ones share clients of smaller batches: a record that is too
//! large is then alone in its batch. Where the limit cannot be known (no right to `DescribeConfigs`, no answer), `neighbours` learns it late.
//! What always holds: records of a topic go to one lane; it is decided once here, and changed by `neighbours` alone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard},
    time::{Duration, Instant},
};

use rdkafka::producer::Producer as _;
use tokio::sync::Notify;

use super::{Producer, lane::Lane};
use crate::kafka::ffi;

/// The setting of a topic that bounds its batches.
const LIMIT: &str = "max.message.bytes";

/// The batches of the further lanes: each topic has the largest that it takes. Steps of four, for each lane costs threads and connections.
const SMALLER: [usize; 5] = [256 << 10, 64 << 10, 16 << 10, 4 << 10, 1 << 10];

/// How long the first records of a topic wait to know.
const WAIT: Duration = Duration::from_secs(1);

/// The bound of one question.
const QUESTION: Duration = Duration::from_secs(5);

/// The most topics of which it is known; further ones are in the first lane.
const MAX_TOPICS: usize = 10_000;

/// The most topics that are asked for at once.
const AT_ONCE: usize = 500;

/// What a topic is set to, by name.
pub(super) type Settings = BTreeMap<String, String>;

/// Which lane it is: 0 is the first, 1 has the largest of the smaller batches.
pub(super) type Place = usize;

/// The last one.
pub(super) const LAST: Place = SMALLER.len();

#[derive(Default)]
pub(super) struct Limits {
    topics: RwLock<HashMap<String, Known>>,
    lanes: [OnceLock<Arc<Lane>>; SMALLER.len()],
    /// A topic is new.
    asked: Notify,
    /// A lane is new.
    pub(super) grown: Notify,
}

#[derive(Clone, Copy)]
enum Known {
    Asked(Instant),
    At(Place),
}

impl Limits {
    fn topics(&self) -> RwLockWriteGuard<'_, HashMap<String, Known>> {
        self.topics.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the records of a topic go; `None` while it is being asked for.
    pub(super) fn lane(&self, topic: &str) -> Option<Place> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        match topics.get(topic).copied() {
            Some(Known::At(place)) => return Some(place),
            Some(Known::Asked(since)) if since.elapsed() < WAIT => return None,
            _ => drop(topics),
        }
        let mut topics = self.topics();
        let is_full = topics.len() >= MAX_TOPICS;
        match topics.get(topic) {
            Some(Known::At(place)) => Some(*place),
            Some(Known::Asked(_)) => {
                topics.insert(topic.to_owned(), Known::At(0));
                Some(0)
            }
            None if is_full => Some(0),
            None => {
                topics.insert(topic.to_owned(), Known::Asked(Instant::now()));
                self.asked.notify_one();
                None
            }
        }
    }

    /// Decides for a topic that waits for it.
    fn decide(&self, topic: &str, place: Place) {
        let mut topics = self.topics();
        if let Some(known @ Known::Asked(_)) = topics.get_mut(topic) {
            *known = Known::At(place);
        }
    }

    /// Moves a topic of which nothing is on its way.
    pub(super) fn set(&self, topic: &str, place: Place) {
        self.topics().insert(topic.to_owned(), Known::At(place));
    }

    fn waiting(&self) -> Vec<String> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let waiting = topics
            .iter()
            .filter(|(_, known)| matches!(known, Known::Asked(_)));
        waiting
            .map(|(topic, _)| topic.clone())
            .take(AT_ONCE)
            .collect()
    }
}

impl Producer {
    /// All lanes there are.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        let smaller = self.limits.lanes.iter().filter_map(OnceLock::get);
        std::iter::once(&self.first).chain(smaller)
    }

    /// One that has been made.
    pub(super) fn at(&self, place: Place) -> &Arc<Lane> {
        let lane = place
            .checked_sub(1)
            .and_then(|place| self.limits.lanes[place].get());
        lane.unwrap_or(&self.first)
    }

    /// Makes one that may not be there yet.
    pub(super) fn make(&self, place: Place) -> Result<&Arc<Lane>, String> {
        if let Some(index) = place.checked_sub(1)
            && self.limits.lanes[index].get().is_none()
        {
            let (cluster, reports) = (self.first.cluster.clone(), Arc::clone(&self.reports));
            let lane = Lane::new(cluster, reports, place, Some(SMALLER[index]))?;
            // Only the supervisor makes lanes, one after the other.
            let _ = self.limits.lanes[index].set(Arc::new(lane));
            self.limits.grown.notify_one();
        }
        Ok(self.at(place))
    }

    /// The first place, from `from` on, whose batches a topic with this limit takes.
    pub(super) fn place(&self, limit: usize, from: Place) -> Place {
        let fits = |place: &Place| match place.checked_sub(1) {
            None => self.first.succession.batch_bytes <= limit,
            Some(index) => SMALLER[index] <= limit,
        };
        (from..LAST).find(fits).unwrap_or(LAST)
    }

    /// Answers what is asked for; never ends.
    pub(super) async fn look_up_limits(&self) {
        loop {
            let topics = self.limits.waiting();
            if topics.is_empty() {
                self.limits.asked.notified().await;
                continue;
            }
            let found = self.settings(topics.clone()).await.into_iter();
            let found = found.chain(std::iter::repeat(None));
            for (topic, settings) in topics.into_iter().zip(found) {
                let limit = settings.as_ref().and_then(of);
                let place = limit.map_or(0, |limit| self.place(limit, 0));
                let place = match self.make(place) {
                    Ok(_) => place,
                    Err(error) => {
                        tracing::error!("no producer of smaller batches could be created: {error}");
                        0
                    }
                };
                self.limits.decide(&topic, place);
            }
            self.reports.made_room();
        }
    }

    /// The settings of each topic, as far as they could be learnt.
    pub(super) async fn settings(&self, topics: Vec<String>) -> Vec<Option<Settings>> {
        let client = self.first.client();
        let asked = tokio::task::spawn_blocking(move || {
            let answer = ffi::describe::topic_settings(client.client(), &topics, None, QUESTION);
            let answer = answer.unwrap_or_else(|(code, text)| {
                tracing::debug!(error = %code, "the topics' settings are not known: {text}");
                Vec::new()
            });
            answer.into_iter().map(Result::ok).collect()
        });
        asked.await.unwrap_or_default()
    }
}

/// The limit of a topic with these settings.
pub(super) fn of(settings: &Settings) -> Option<usize> {
    settings.get(LIMIT)?.parse().ok()
}
