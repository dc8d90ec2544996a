//! The publish stream: batches out within the window, answers in, lines to standard output.
//!
//! Owns the stream and what is unanswered on it. A batch holds its place in the window until its answers are taken, in input order; so
//! neither a slow sidecar nor a slow reader makes memory grow. Whatever ends the stream early, the user is told how far it came.

use std::{fmt, io, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    sync::mpsc::{self, OwnedPermit},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    Outcome,
    input::{Batch, Item},
    report::Report,
    window::Window,
};
use crate::{
    cli::{
        client::{Connection, refusal},
        complain,
        ending::{ended, signal, wait},
        stdout::Stdout,
    },
    grpc::proto::{
        self, PublishStreamRequest, PublishStreamResponse,
        publish_stream_request::Message as Request, publish_stream_response::Message as Response,
        publisher_service_client::PublisherServiceClient,
    },
    lifecycle::signal::Signals,
};

/// The largest message of answers that is taken.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// How long an interrupted command waits for the answers of what was sent, and for the reader of its output.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Absent once nothing more is sent.
    requests: Option<mpsc::Sender<PublishStreamRequest>>,
    responses: Streaming<PublishStreamResponse>,
    window: Window,
    report: Report,
    /// The input has not come to its end.
    reading: bool,
    /// Read and not yet sent.
    pending: Option<Batch>,
    /// Why not all of the input is sent.
    stop: Option<Stop>,
    /// The stream is over; its status, if that is not OK.
    over: Option<Result<(), Status>>,
}

#[derive(Debug)]
enum Stop {
    Interrupted,
    Draining,
    StreamEnded,
    Input(io::Error),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Draining => f.write_str("the sidecar is stopping"),
            Self::StreamEnded => f.write_str("the stream is over"),
            Self::Input(error) => write!(f, "standard input cannot be read: {error}"),
        }
    }
}

impl Exchange {
    /// Opens the stream and waits for its terms.
    pub(super) async fn open(
        channel: Connection,
        report: Report,
    ) -> anyhow::Result<(Self, proto::PublishWelcome)> {
        // The answers to batches that failed hold a message for each record.
        let mut client =
            PublisherServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (requests, receiver) = mpsc::channel(4);
        let open = proto::PublishOpen {
            client_id: "outrigger-publish".to_owned(),
            ..Default::default()
        };
        requests.send(request(Request::Open(open))).await?;
        let responses = client.publish_stream(ReceiverStream::new(receiver)).await;
        let mut responses = responses.map_err(|status| refusal(&status))?.into_inner();
        let welcome = loop {
            match responses.message().await {
                Err(status) => return Err(refusal(&status)),
                Ok(None) => bail!("the sidecar ended the stream before it began"),
                Ok(Some(response)) => {
                    if let Some(Response::Welcome(welcome)) = response.message {
                        break welcome;
                    }
                }
            }
        };
        let exchange = Self {
            requests: Some(requests),
            responses,
            window: Window::new(welcome.window_records, welcome.window_bytes),
            report,
            reading: true,
            pending: None,
            stop: None,
            over: None,
        };
        Ok((exchange, welcome))
    }

    /// Publishes the input to its end, or as far as it goes.
    pub(super) async fn run(mut self, mut input: mpsc::Receiver<Item>) -> anyhow::Result<Outcome> {
        let mut signals = Signals::listen().context("signals cannot be listened for")?;
        let mut stdout = Stdout::open()?;
        let mut last_answers = None;
        loop {
            if !self.reading && self.pending.is_none() {
                // The half-close: the sidecar answers what is left, and ends the stream.
                self.requests = None;
            }
            if !stdout.is_writing() {
                match self.report.take() {
                    Some(text) => stdout.write(text),
                    None if self.over.is_some() => return self.end(),
                    None => {}
                }
            }
            let fits = self.report.has_room()
                && self
                    .pending
                    .as_ref()
                    .is_some_and(|batch| self.window.fits(batch));
            // Signals and answers come before more work is taken on.
            tokio::select! {
                biased;
                () = signal(&mut signals, last_answers.is_some()) => {
                    if last_answers.is_some() {
                        return self.end();
                    }
                    self.stop(Stop::Interrupted);
                    last_answers = Some(Instant::now() + LAST_ANSWERS);
                }
                () = wait(last_answers) => return self.end(),
                written = stdout.written() => match written {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        self.report.take();
                        return Ok(self.report.outcome());
                    }
                    written => written.context("standard output cannot be written")?,
                },
                response = self.responses.message(), if self.over.is_none() => self.receive(response),
                permit = reserve(self.requests.as_ref()), if fits => match (permit, self.pending.take()) {
                    (Some(permit), Some(batch)) => {
                        permit.send(request(Request::Batch(self.window.open(batch))));
                    }
                    // The stream is over; its status comes as a response.
                    (_, unsent) => {
                        self.pending = unsent;
                        self.requests = None;
                    }
                },
                item = input.recv(), if self.reading && self.pending.is_none() => self.take(item),
            }
        }
    }

    fn take(&mut self, item: Option<Item>) {
        match item {
            Some(Item::Batch(mut batch)) => {
                for (number, why) in batch.bad.drain(..) {
                    self.report.bad(number, &why);
                }
                self.pending = Some(batch).filter(|batch| !batch.records.is_empty());
            }
            Some(Item::End(Ok(()))) => self.reading = false,
            Some(Item::End(Err(error))) => self.stop(Stop::Input(error)),
            None => self.stop(Stop::Input(io::Error::other(
                "the thread that reads it is gone",
            ))),
        }
    }

    /// Sends nothing more. What was sent is still answered.
    fn stop(&mut self, why: Stop) {
        if self.reading || self.pending.is_some() || matches!(why, Stop::Interrupted) {
            self.stop.get_or_insert(why);
        }
        self.reading = false;
        self.pending = None;
    }

    fn receive(&mut self, response: Result<Option<PublishStreamResponse>, Status>) {
        match response {
            Ok(Some(response)) => match response.message {
                Some(Response::Acks(acks)) => {
                    for ack in acks.acks {
                        self.window.answer(ack);
                    }
                    while let Some((numbers, ack)) = self.window.next() {
                        self.report.batch(&numbers, &ack);
                    }
                }
                Some(Response::Draining(_)) => self.stop(Stop::Draining),
                Some(Response::Welcome(_)) | None => {}
            },
            over => {
                self.stop(Stop::StreamEnded);
                self.over = Some(over.map(|_| ()));
                for (numbers, ack) in self.window.rest() {
                    self.report.batch(&numbers, &ack);
                }
            }
        }
    }

    /// Says what a stream that did not come to its end leaves.
    fn end(mut self) -> anyhow::Result<Outcome> {
        // What nobody reads any more is dropped; failures are told.
        self.report.take();
        if let Some(unknown) = self.window.unanswered() {
            complain(&format_args!(
                "{} records, from {} {} on, have no answer: they are perhaps published; {} were answered",
                unknown.records, self.report.noun, unknown.first, self.report.answered
            ));
        }
        if let Some(stop) = &self.stop {
            match (self.report.noun, self.window.last_sent()) {
                (_, 0) => complain(&format_args!("{stop}; nothing was sent")),
                (noun, last) => {
                    complain(&format_args!("{stop}; {noun} {last} was the last one sent"));
                }
            }
        }
        match (self.over, self.stop) {
            (Some(Err(status)), _) => Err(ended(&status)),
            (_, Some(Stop::Interrupted)) => Ok(Outcome::Interrupted),
            (_, Some(_)) => Ok(Outcome::Failed),
            _ if self.window.unanswered().is_some() => Ok(Outcome::Failed),
            _ => Ok(self.report.outcome()),
        }
    }
}

/// Owned, since the rest of the exchange is used while it is held.
async fn reserve(
    requests: Option<&mpsc::Sender<PublishStreamRequest>>,
) -> Option<OwnedPermit<PublishStreamRequest>> {
    match requests {
        Some(requests) => requests.clone().reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

fn request(message: Request) -> PublishStreamRequest {
    PublishStreamRequest {
        message: Some(message),
    }
}
