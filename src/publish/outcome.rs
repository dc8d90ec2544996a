//! What became of a batch, counted by topic.
//!
//! A batch is split into runs of one topic each, which is one run for nearly every batch: its topic is resolved once, and what became of its
//! records is counted once.

use std::{sync::Arc, time::Duration};

use crate::{
    failure::{Failure, Persistence, Reason},
    kafka::Delivery,
    metrics::{self, Outcome, TopicSends},
    record::Record,
};

/// A batch's runs: the first, and in a list those that a batch seldom has.
pub(super) struct Runs(Option<Run>, Vec<Run>);

struct Run {
    sends: Arc<TopicSends>,
    /// The index after its last record.
    end: usize,
}

impl Runs {
    pub(super) fn of(records: &[Record]) -> Self {
        let mut end = 0;
        let mut runs = records
            .chunk_by(|one, next| one.topic == next.topic)
            .map(|run| {
                end += run.len();
                Run {
                    sends: TopicSends::of(&run[0].topic),
                    end,
                }
            });
        Self(runs.next(), runs.collect())
    }

    /// Counts what became of each record, `after` the batch was handed over.
    pub(super) fn count(&self, deliveries: &[Delivery], after: Duration) {
        let recorder = metrics::publish();
        recorder.completed(after);
        let (mut begin, mut published, mut unknown) = (0, 0, 0);
        for run in self.0.iter().chain(&self.1) {
            let mut outcome = Outcome::default();
            for delivery in &deliveries[begin..run.end] {
                match delivery {
                    // It was counted when it was sent.
                    Delivery::Published {
                        duplicate: true, ..
                    } => {}
                    Delivery::Published { offset, .. } => {
                        outcome.published += 1;
                        unknown += u64::from(offset.is_none());
                    }
                    Delivery::Failed(failure) => {
                        recorder.failed(failure.reason, 1);
                        if !was_never_sent(failure) {
                            outcome.fail(failure.reason);
                        }
                    }
                }
            }
            published += outcome.published;
            run.sends.completed(&outcome, after);
            begin = run.end;
        }
        recorder.published(published, unknown);
    }
}

/// It was not handed over.
fn was_never_sent(failure: &Failure) -> bool {
    match failure.reason {
        Reason::PreconditionFailed | Reason::IdReused => true,
        Reason::Deadline => failure.persistence == Some(Persistence::NotPersisted),
        _ => false,
    }
}
