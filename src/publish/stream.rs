//! One publish stream: batches in, answers out, within a window.
//!
//! One task owns the stream's state. Its loop prefers, in this order: reports (they free memory), answers to the caller, the signals
//! that end the stream, handing over what waits, and only then reading more. Batches are handed over one after the other, which keeps
//! the order of each partition. What a caller sends beyond its window is still read, into an overflow as large as the window; when that
//! or the grace is used up the stream ends. Not here: the wire (`grpc`).

mod accept;
mod admit;
mod queue;
mod refusal;
mod session;
mod times;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;

pub use self::times::until;
use self::{queue::Report, session::Session};
use super::{Publisher, validate};
use crate::{
    failure::Failure,
    kafka::Delivery,
    lifecycle::Lifecycle,
    metrics,
    record::{Record, Usage},
};

/// A batch as it was read.
#[derive(Debug)]
pub struct Batch {
    /// Rises from 1.
    pub sequence: u64,
    /// Its records, or what is wrong with them already.
    pub records: Result<Vec<Record>, Refused>,
    /// How long it waited for room to be read.
    pub waited: Duration,
}

/// A batch that could not be read whole.
#[derive(Debug)]
pub struct Refused {
    /// How many records it has.
    pub count: usize,
    /// What is wrong, by record.
    pub invalid: validate::Invalid,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Answer {
    /// As it was read.
    pub sequence: u64,
    /// One for each record, in order.
    pub deliveries: Vec<Delivery>,
}

/// What a stream tells its caller.
#[derive(Debug)]
pub enum Outgoing {
    /// The stream is open.
    Welcome,
    /// Answers.
    Answers(Vec<Answer>),
    /// The sidecar stops; what arrives from now on is not sent.
    Draining(Instant),
}

/// What a stream keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Stop at the first failure.
    pub stop_on_failure: bool,
    /// When the call ends by its own deadline.
    pub deadline: Option<Instant>,
}

impl Publisher {
    /// What a stream may have unanswered.
    pub fn stream_window(&self) -> Usage {
        Usage {
            records: self.0.config.stream_window_records as u64,
            bytes: self.0.config.stream_window_bytes as u64,
        }
    }

    /// The largest record, in bytes of key, value and headers.
    pub fn max_record_bytes(&self) -> usize {
        self.0.config.max_record_bytes
    }

    /// Serves a stream to its end; a failure is what it ends with.
    pub async fn serve(
        self,
        input: impl Stream<Item = Result<Batch, Failure>> + Send + Unpin,
        output: mpsc::Sender<Outgoing>,
        options: Options,
        lifecycle: Lifecycle,
    ) -> Result<(), Failure> {
        let _open = metrics::publish().stream();
        let _counted = Counted::new(&self.0.streams);
        let (done, reports) = report_channel();
        if output.send(Outgoing::Welcome).await.is_err() {
            return Ok(());
        }
        Session::new(&self, done, options)
            .run(input, output, reports, lifecycle)
            .await
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the producer's thread must not block; a report is of a batch that was admitted and is within the window and its overflow"
)]
fn report_channel() -> (
    mpsc::UnboundedSender<Report>,
    mpsc::UnboundedReceiver<Report>,
) {
    mpsc::unbounded_channel()
}

/// Counts an open stream for the status, as long as it lives.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
