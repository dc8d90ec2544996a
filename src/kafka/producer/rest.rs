//! Partitions that do not answer rest, for otherwise librdkafka runs without pause for their sake.
//!
//! Of a partition no more than five requests may be unanswered. While more waits, librdkafka's thread of that broker looks again at once and for
//! ever (`rd_kafka_msgq_allow_wakeup_at` comes before the count of requests), which takes a core from all others. It does not look at a
//! partition that is paused. So one of which nothing is answered for a while is paused, again and again for a moment: with its first answer it
//! goes on at once, and should it have another leader by then, soon after. What always holds: a pause ends by itself, and loses or fails nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{TopicPartitionList, producer::Producer as _};
use tokio::sync::Notify;

use super::{Producer, client::Client, places::PartitionKey};
use crate::kafka::ffi;

/// How often what is unanswered is looked at, and how old it is then at least.
const LOOK: Duration = Duration::from_millis(250);

/// How long a partition rests if nothing of it is answered.
const REST: Duration = Duration::from_millis(230);

/// How long it does not, between two rests.
const BREATH: Duration = LOOK.saturating_sub(REST);

/// Records that librdkafka may all have sent already, each in a request of its own.
const SENT: usize = 5;

/// What is unanswered of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unanswered {
    pub(super) records: usize,
    /// The first of them, in the order of sending.
    pub(super) first: (u64, usize),
}

/// The partitions that rest, for the path of reports.
#[derive(Default)]
pub(super) struct Resting {
    is_any: AtomicBool,
    // A std mutex: sections are short, and nothing awaits inside.
    partitions: Mutex<HashSet<(String, i32)>>,
    answered: Notify,
}

impl Resting {
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    fn are(&self, partitions: &[(String, i32)]) {
        let mut resting = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *resting = partitions.iter().cloned().collect();
        self.is_any.store(!resting.is_empty(), Ordering::Relaxed);
    }

    /// A partition has answered.
    pub(super) fn answered(&self, topic: &str, partition: i32) {
        let resting = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if resting.contains(&(topic.to_owned(), partition)) {
            self.answered.notify_one();
        }
    }
}

impl Producer {
    /// Never ends.
    pub(super) async fn let_rest(&self) {
        let (mut before, mut pause) = (HashMap::new(), LOOK);
        loop {
            tokio::time::sleep(pause).await;
            let now = self.unanswered();
            let still = still(&before, &now);
            before = now;
            pause = LOOK;
            if !still.is_empty() {
                let partitions = self.reports.partitions.named(&still);
                self.rest(&partitions).await;
                pause = BREATH;
            }
        }
    }

    /// Of each partition what was sent a while ago and is not answered.
    fn unanswered(&self) -> HashMap<PartitionKey, Unanswered> {
        let Some(before) = Instant::now().checked_sub(LOOK) else {
            return HashMap::new();
        };
        self.reports.batches().unanswered(before)
    }

    async fn rest(&self, partitions: &[(String, i32)]) {
        let resting = &self.reports.resting;
        resting.are(partitions);
        let where_open = self.lanes().map(|lane| lane.open_of(partitions));
        let where_open: Vec<_> = where_open.filter(|(_, open)| open.count() > 0).collect();
        // Both wait for a thread of librdkafka's.
        let paused = tokio::task::spawn_blocking(move || Paused::new(where_open)).await;
        let _ = tokio::time::timeout(REST, resting.answered.notified()).await;
        resting.are(&[]);
        let _ = tokio::task::spawn_blocking(move || drop(paused)).await;
    }
}

/// Partitions that rest as long as this lives.
struct Paused(Vec<(Arc<Client>, TopicPartitionList)>);

impl Paused {
    fn new(partitions: Vec<(Arc<Client>, TopicPartitionList)>) -> Self {
        for (client, list) in &partitions {
            ffi::pause(client.client(), list);
        }
        Self(partitions)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        for (client, list) in &self.0 {
            ffi::resume(client.client(), list);
        }
    }
}

/// Those of which nothing was answered between two looks, though more is unanswered than may have been sent.
fn still(
    before: &HashMap<PartitionKey, Unanswered>,
    now: &HashMap<PartitionKey, Unanswered>,
) -> Vec<PartitionKey> {
    let is_still = |(key, now): &(&PartitionKey, &Unanswered)| {
        let is_same = |before: &Unanswered| before.first == now.first;
        now.records > SENT && before.get(key).is_some_and(is_same)
    };
    now.iter().filter(is_still).map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unanswered(records: usize, first: (u64, usize)) -> Unanswered {
        Unanswered { records, first }
    }

    #[test]
    fn a_partition_is_still_when_more_waits_than_can_be_sent_and_nothing_is_answered() {
        let before = HashMap::from([
            (1, unanswered(6, (7, 0))),
            (2, unanswered(9, (7, 1))),
            (3, unanswered(5, (7, 2))),
        ]);
        let now = HashMap::from([
            (1, unanswered(60, (7, 0))),
            (2, unanswered(9, (8, 0))),
            (3, unanswered(5, (7, 2))),
            (4, unanswered(6, (7, 3))),
        ]);
        assert_eq!(still(&before, &now), [1]);
        assert!(still(&HashMap::new(), &now).is_empty());
    }
}
