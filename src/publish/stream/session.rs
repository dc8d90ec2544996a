//! The loop of a publish stream, and its state.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};

use super::{
    Answer, Batch, Options, Outgoing,
    admit::{Admitting, admitted},
    queue::{Queued, Report},
    refusal::draining,
    times::until,
};
use crate::{
    failure::{Failure, Persistence, Reason},
    kafka::Delivery,
    lifecycle::Lifecycle,
    metrics,
    publish::{Claimant, Publisher, admission::Admitted, handing::Order, stamp},
    record::{Usage, wall_clock},
};

/// How long a stream that ends by our doing waits for the answers of what was handed over, and for its caller to take them.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// How long a stopping sidecar goes on answering a stream that sends more, after everything handed over is answered.
pub(super) const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// Messages, or reports, that are taken at once when they are there: a turn of the loop costs as much as one of them.
pub(super) const AT_ONCE: usize = 64;

/// Answered records in one message: about 15 bytes each, and clients refuse messages over 4 MiB by default.
const ANSWERED_RECORDS: usize = 20_000;

pub(super) struct Session<'a> {
    pub(super) publisher: &'a Publisher,
    pub(super) claimant: Claimant,
    pub(super) window: Usage,
    done: mpsc::UnboundedSender<Report>,
    /// Raised by the first record that fails.
    pub(super) failed: Arc<AtomicBool>,
    stop_on_failure: bool,
    /// When the call ends by its own deadline.
    pub(super) deadline: Option<Instant>,
    pub(super) last_sequence: u64,
    /// When it was read last.
    pub(super) now: Instant,
    /// Read and not handed over.
    pub(super) queue: VecDeque<Queued>,
    /// Read and not yet given to the caller's channel.
    pub(super) unanswered: Usage,
    /// How many of the last ones were not looked at by `charge`.
    pub(super) unlooked: usize,
    /// How many batches ask for room at once.
    pub(super) at_once: usize,
    /// Batches handed over and without their report.
    in_flight: usize,
    pub(super) answers: VecDeque<Report>,
    /// Since when more than the window is unanswered.
    pub(super) over_since: Option<Instant>,
    reading: bool,
    /// Why the stream ends, and when at the latest.
    pub(super) ending: Option<(Failure, Instant)>,
    /// When the caller was last heard, or answered, since the sidecar began to stop.
    pub(super) draining: Option<Instant>,
    /// The end of the drain, to be told to the caller.
    announce: Option<Instant>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        publisher: &'a Publisher,
        done: mpsc::UnboundedSender<Report>,
        options: Options,
    ) -> Self {
        Self {
            window: publisher.stream_window(),
            claimant: Claimant::Stream(publisher.0.next_stream.fetch_add(1, Ordering::Relaxed)),
            publisher,
            done,
            failed: Arc::default(),
            stop_on_failure: options.stop_on_failure,
            deadline: options.deadline,
            last_sequence: 0,
            now: Instant::now(),
            queue: VecDeque::new(),
            unanswered: Usage::default(),
            unlooked: 0,
            at_once: 1,
            in_flight: 0,
            answers: VecDeque::new(),
            over_since: None,
            reading: true,
            ending: None,
            draining: None,
            announce: None,
        }
    }

    pub(super) async fn run(
        mut self,
        input: impl Stream<Item = Result<Batch, Failure>> + Send + Unpin,
        output: mpsc::Sender<Outgoing>,
        mut reports: mpsc::UnboundedReceiver<Report>,
        lifecycle: Lifecycle,
    ) -> Result<(), Failure> {
        let mut admitting: Option<(Admitting<'a>, Queued)> = None;
        let mut reported = Vec::with_capacity(AT_ONCE);
        let mut input = Some(input);
        loop {
            if !self.reading {
                // It may hold room, or a turn, that others wait for.
                input = None;
            }
            // Nothing is handed over for a caller that has gone, or is late.
            if output.is_closed() {
                return Ok(());
            }
            if self.is_late() && self.expire() {
                return self.break_off();
            }
            if self.stop_on_failure && self.failed.load(Ordering::Acquire) {
                if let Some((_, waiting)) = admitting.take() {
                    self.queue.push_front(waiting);
                }
                self.stop();
            }
            if admitting.is_none() && !self.queue.is_empty() {
                let admitted = self.admit();
                if !admitted.is_empty() {
                    self.hand_over(admitted, &output).await;
                    continue;
                }
                self.charge();
                admitting = self.queue.pop_front().map(|next| self.wait(next));
            }
            let idle = admitting.is_none()
                && self.in_flight == 0
                && self.answers.is_empty()
                && self.announce.is_none();
            if idle && let Some(end) = self.end() {
                return end;
            }
            let timer = self.timer(idle);
            tokio::select! {
                biased;
                1.. = reports.recv_many(&mut reported, AT_ONCE) => {
                    reported.drain(..).for_each(|report| self.report(report));
                }
                permit = output.reserve(), if self.announce.is_some() || !self.answers.is_empty() => match permit {
                    Ok(permit) => permit.send(self.next_message()),
                    Err(_) => return Ok(()),
                },
                () = output.closed() => return Ok(()),
                () = lifecycle.stopping(), if self.draining.is_none() => {
                    self.draining = Some(Instant::now());
                    self.announce = Some(lifecycle.deadline());
                }
                admitted = admitted(&mut admitting), if admitting.is_some() => {
                    let (_, queued) = admitting.take().expect("it was waiting");
                    match admitted {
                        Some(admitted) => self.hand_over(vec![(queued, admitted)], &output).await,
                        None => self.give_up(queued, &self.publisher.buffer_full()),
                    }
                }
                read = next(&mut input), if input.is_some() => {
                    self.now = Instant::now();
                    self.read(read);
                    let mut more = 1;
                    while more < AT_ONCE
                        && self.reading
                        && let Some(read) = if_ready(next(&mut input)).await
                    {
                        self.read(read);
                        more += 1;
                    }
                    if admitting.is_some() {
                        self.charge();
                    }
                }
                () = until(timer) => {
                    if self.expire() {
                        return self.break_off();
                    }
                }
            }
        }
    }

    fn read(&mut self, read: Option<Result<Batch, Failure>>) {
        match read {
            None => self.reading = false,
            Some(Err(failure)) => self.end_with(failure),
            Some(Ok(batch)) => self.accept(batch),
        }
    }

    /// Ends when all is handed over, or the caller does not wait any more; then the rest never is.
    async fn hand_over(
        &mut self,
        admitted: Vec<(Queued, Admitted)>,
        output: &mpsc::Sender<Outgoing>,
    ) {
        self.in_flight += admitted.len();
        let now = wall_clock();
        let orders = admitted.into_iter().map(|(mut queued, admitted)| {
            stamp(&mut queued.records, now);
            let (done, sequence, usage) = (self.done.clone(), queued.sequence, queued.usage);
            Order {
                records: queued.records,
                asked: queued.asked,
                admitted,
                failed: Some(Arc::clone(&self.failed)),
                done: move |deliveries| {
                    // The stream may be over; then nobody waits for the answer.
                    let _ = done.send(Report {
                        answer: Answer {
                            sequence,
                            deliveries,
                        },
                        usage,
                    });
                },
            }
        });
        let sendings = self.publisher.begin(orders.collect());
        let stop = self.stop_on_failure.then_some(&*self.failed);
        let deadline = self.deadline.filter(|_| self.ending.is_none());
        let (mut is_gone, mut is_late) = (false, false);
        for mut sending in sendings {
            // Once one has a gap, none after it is sent: their order would be lost to whoever sends the rest again.
            if !is_gone && !is_late {
                tokio::select! {
                    biased;
                    () = sending.run(stop) => {}
                    () = output.closed() => is_gone = true,
                    () = until(deadline) => is_late = true,
                }
            }
            if is_late {
                sending.expire();
            }
        }
    }

    fn report(&mut self, report: Report) {
        self.in_flight -= 1;
        if self.stop_on_failure && self.ending.is_none() {
            let failed = report
                .answer
                .deliveries
                .iter()
                .find_map(|delivery| match delivery {
                    Delivery::Failed(failure) if failure.reason != Reason::PreconditionFailed => {
                        Some(failure)
                    }
                    _ => None,
                });
            if let Some(failure) = failed {
                self.end_with((**failure).clone());
            }
        }
        self.answers.push_back(report);
    }

    fn next_message(&mut self) -> Outgoing {
        match self.announce.take() {
            Some(deadline) => Outgoing::Draining(deadline),
            None => Outgoing::Answers(self.take_answers()),
        }
    }

    fn take_answers(&mut self) -> Vec<Answer> {
        // Only then does the quiet begin in which the caller's last batches are looked for.
        if let Some(heard) = &mut self.draining {
            *heard = Instant::now();
        }
        let mut records = 0;
        let small = self.answers.iter().take_while(|report| {
            records += report.answer.deliveries.len();
            records <= ANSWERED_RECORDS
        });
        // At least one, however large.
        let count = small.count().max(1);
        let taken: Vec<Report> = self.answers.drain(..count).collect();
        for report in &taken {
            self.unanswered.sub(report.usage);
        }
        self.check_window();
        taken.into_iter().map(|report| report.answer).collect()
    }

    /// After a failure with STOP_ON_FAILURE: what waits is answered, and nothing more is read.
    fn stop(&mut self) {
        self.reading = false;
        let failure = Failure::not_persisted(
            Reason::PreconditionFailed,
            "not sent: an earlier record of this stream failed",
        );
        while let Some(queued) = self.queue.pop_front() {
            self.give_up(queued, &failure);
        }
        if self.ending.is_none() {
            // A batch that was refused whole: its first failure is the stream's.
            let refused = self
                .answers
                .iter()
                .flat_map(|report| &report.answer.deliveries);
            let failure = refused
                .filter_map(|delivery| match delivery {
                    Delivery::Failed(failure) => Some((**failure).clone()),
                    Delivery::Published { .. } => None,
                })
                .find(|failure| failure.reason != Reason::PreconditionFailed);
            if let Some(failure) = failure {
                self.end_with(failure);
            }
        }
    }

    /// Answers a batch that was read and is not sent.
    fn give_up(&mut self, queued: Queued, failure: &Failure) {
        let count = queued.records.len();
        metrics::publish().failed(failure.reason, count as u64);
        self.failed.store(true, Ordering::Release);
        self.answers.push_back(Report {
            answer: Answer {
                sequence: queued.sequence,
                deliveries: vec![Delivery::failed(failure.clone()); count],
            },
            usage: queued.usage,
        });
    }

    pub(super) fn end_with(&mut self, failure: Failure) {
        self.reading = false;
        if self.ending.is_none() {
            let wait = LAST_ANSWERS.min(self.publisher.0.config.stream_grace);
            self.ending = Some((failure, Instant::now() + wait));
        }
    }

    /// How the stream ends though something is outstanding.
    fn break_off(&mut self) -> Result<(), Failure> {
        let Some((mut failure, _)) = self.ending.take() else {
            return Ok(());
        };
        // What was handed over may be written whatever the stream ends with.
        let is_outstanding = self.in_flight > 0 || !self.answers.is_empty();
        if is_outstanding && failure.persistence == Some(Persistence::NotPersisted) {
            failure.persistence = Some(Persistence::PossiblyPersisted);
        }
        Err(failure)
    }

    /// How the stream ends now that nothing is outstanding, if it does.
    fn end(&mut self) -> Option<Result<(), Failure>> {
        if let Some((failure, _)) = self.ending.take() {
            return Some(Err(failure));
        }
        if !self.reading {
            return Some(Ok(()));
        }
        match self.draining {
            Some(heard) if heard.elapsed() >= DRAIN_QUIET => Some(Err(draining())),
            _ => None,
        }
    }
}

/// Whether a future has ended; it is asked once.
async fn if_ready<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn next<S: Stream + Unpin>(input: &mut Option<S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}
