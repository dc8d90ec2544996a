//! What becomes of a batch when it is read: queued whole, or refused whole; and whether the stream keeps to its window.

use std::{sync::atomic::Ordering, time::Instant};

use super::{
    Answer, Batch,
    queue::{Queued, Report, SMALL},
    refusal::{alike, draining, exceeded, spread},
    session::Session,
};
use crate::{
    failure::{Failure, Reason},
    kafka::Delivery,
    metrics,
    publish::{ids::Asked, validate},
    record::Usage,
};

impl Session<'_> {
    pub(super) fn accept(
        &mut self,
        Batch {
            sequence,
            records,
            waited,
        }: Batch,
    ) {
        if sequence <= self.last_sequence {
            return self.end_with(Failure::invalid(
                Reason::InvalidRequest,
                "batch.sequence",
                format!("{sequence} does not rise above {}", self.last_sequence),
            ));
        }
        self.last_sequence = sequence;
        if let Some(heard) = &mut self.draining {
            *heard = Instant::now();
            let count = records
                .as_ref()
                .map_or_else(|refused| refused.count, Vec::len);
            return self.refuse(sequence, alike(draining(), count));
        }
        let invalid = match records {
            Err(refused) => Err((refused.count, refused.invalid)),
            Ok(records) => match validate::size(&records, self.publisher.0.admission.bound()) {
                Err(failure) => return self.refuse(sequence, alike(failure, records.len())),
                Ok(usage) => match validate::invalid(&records, self.publisher.rules()) {
                    invalid if invalid.is_empty() => Ok((records, usage)),
                    invalid => Err((records.len(), invalid)),
                },
            },
        };
        match invalid {
            Err((count, invalid)) => self.refuse(sequence, spread(count, invalid)),
            Ok((records, usage)) => {
                self.unanswered.add(usage);
                self.queue.push_back(Queued {
                    sequence,
                    records,
                    usage,
                    until: self.now + self.publisher.max_wait().saturating_sub(waited),
                    asked: Asked::default(),
                    charge: None,
                });
                self.unlooked += 1;
                if usage.bytes > SMALL {
                    self.charge();
                }
                self.check_window();
            }
        }
    }

    /// Answers a batch of which nothing is sent.
    fn refuse(&mut self, sequence: u64, deliveries: Vec<Delivery>) {
        for delivery in &deliveries {
            if let Delivery::Failed(failure) = delivery {
                metrics::publish().failed(failure.reason, 1);
            }
        }
        self.failed.store(true, Ordering::Release);
        let usage = Usage {
            records: deliveries.len() as u64,
            bytes: 0,
        };
        self.unanswered.add(usage);
        self.check_window();
        self.answers.push_back(Report {
            answer: Answer {
                sequence,
                deliveries,
            },
            usage,
        });
    }

    pub(super) fn check_window(&mut self) {
        let Usage { records, bytes } = self.unanswered;
        if records > 2 * self.window.records || bytes > 2 * self.window.bytes {
            self.end_with(exceeded("the overflow beyond the window is used up"));
        } else if records > self.window.records || bytes > self.window.bytes {
            self.over_since.get_or_insert_with(Instant::now);
        } else {
            self.over_since = None;
        }
    }
}
