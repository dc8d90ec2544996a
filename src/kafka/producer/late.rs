//! The answer to a batch that Kafka does not acknowledge in time: possibly written, for nobody takes it back.
//!
//! librdkafka itself gives no record up (`settings`): the record is sent as soon as a broker takes it, once and in its order, and counts among what is
//! in flight until then. So whoever sends it again with its message id joins it, and learns what became of it.

use std::time::{Duration, Instant};

use super::{Answered, Delivery, Producer, Reports};
use crate::failure::{Failure, Reason};

/// The shortest wait between two looks, and how late an answer may be by that.
const PAUSE: Duration = Duration::from_millis(100);

/// An outage has one line of log so often.
const QUIET: Duration = Duration::from_secs(10);

impl Producer {
    /// Never ends.
    pub(super) async fn answer_the_late(&self) {
        let shortest = self
            .first
            .cluster
            .config()
            .publish
            .shortest_delivery_timeout();
        let (mut unsaid, mut say_at) = (0, Instant::now());
        loop {
            let now = Instant::now();
            let (late, next) = self.reports.answer_the_late(now);
            unsaid += late;
            if unsaid > 0 && now >= say_at {
                tracing::warn!(
                    batches = unsaid,
                    "Kafka has not acknowledged in time what it was sent; it is answered as possibly written, and is still sent"
                );
                (unsaid, say_at) = (0, now + QUIET);
            }
            // What is registered from now on is not late before that.
            let latest = now + shortest;
            let next = next.map_or(latest, |next| next.min(latest));
            tokio::time::sleep_until(next.max(now + PAUSE).into()).await;
        }
    }
}

impl Reports {
    /// Says how many batches it answered, and when the next one's time is over.
    fn answer_the_late(&self, now: Instant) -> (usize, Option<Instant>) {
        let (late, next) = self.batches().late(now, unknown);
        let count = late.len();
        for mut late in late {
            let deliveries = std::mem::take(&mut late.deliveries);
            (late.done)(deliveries, Answered::Early);
            // Dropped after the lock is.
            let ended = self.batches().answered(late);
            drop(ended);
        }
        (count, next)
    }
}

fn unknown() -> Delivery {
    Delivery::failed(Failure::possibly_persisted(
        Reason::DeliveryTimeout,
        "no broker acknowledged the record in time; it is still sent, and may yet be written",
    ))
}
