//! The subscribe stream: deliveries in, chunks to standard output, settlements out.
//!
//! Owns the stream and what is delivered and not settled on it, which the window bounds. One chunk is being written at a time, and its
//! records are acknowledged when it was flushed. However the command ends, it first finishes the chunk, gives back what was not written, and
//! waits until its acknowledgements are recorded; each of these waits has a bound.

use std::{
    collections::{BTreeSet, VecDeque},
    io, mem,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use tokio::{
    sync::mpsc::{self, OwnedPermit},
    time::Instant,
};
use tonic::{Status, Streaming};

use super::Subscribe;
use crate::{
    cli::{
        complain,
        ending::{ended, signal, wait},
        json::Line,
        stdout::{Reader, Stdout},
    },
    grpc::proto::{
        self, Outcome as Settlement, PartitionEventKind, SubscribeRequest, SubscribeResponse,
        settle_item::Action, subscribe_request::Message as Request,
        subscribe_response::Message as Response,
    },
    lifecycle::signal::Signals,
};

/// What is written, and then acknowledged, at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long a command that ends waits for a reader that stands still, and for the sidecar's last answers.
const LAST_WRITE: Duration = Duration::from_secs(1);
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// How the command ends without an error.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Done,
    Interrupted,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session<'a> {
    options: &'a Subscribe,
    requests: mpsc::Sender<SubscribeRequest>,
    /// What the channel has no room for yet; the window bounds it.
    outbox: VecDeque<SubscribeRequest>,
    responses: Streaming<SubscribeResponse>,
    stdout: Stdout,
    /// Delivered and not written.
    queue: VecDeque<proto::Delivery>,
    /// The tokens of the chunk under way.
    writing: Vec<Bytes>,
    printed: u64,
    request_id: u64,
    /// Acknowledgements without an answer.
    awaited: BTreeSet<u64>,
    /// Printed records whose acknowledgement was not recorded.
    refused: u64,
    draining: bool,
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    why: Why,
    /// Until when it may take.
    by: Instant,
    /// The queue is given back and the drain is sent.
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Counted,
    Signal,
    Timeout,
    /// Nobody reads any more.
    HungUp,
}

impl<'a> Session<'a> {
    /// Within a runtime.
    pub(super) fn new(
        options: &'a Subscribe,
        requests: mpsc::Sender<SubscribeRequest>,
        responses: Streaming<SubscribeResponse>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            options,
            requests,
            outbox: VecDeque::new(),
            responses,
            stdout: Stdout::open()?,
            queue: VecDeque::new(),
            writing: Vec::new(),
            printed: 0,
            request_id: 0,
            awaited: BTreeSet::new(),
            refused: 0,
            draining: false,
            end: None,
        })
    }

    pub(super) async fn run(mut self) -> anyhow::Result<Outcome> {
        let mut signals = Signals::listen().context("signals cannot be listened for")?;
        let reader = Reader::watch();
        let timeout = self.options.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            self.advance();
            let ending = self.end.as_ref().map(|end| end.by);
            // What ends the command comes first, then what makes room.
            tokio::select! {
                biased;
                () = signal(&mut signals, ending.is_some()) => {
                    if ending.is_some() {
                        return Ok(Outcome::Interrupted);
                    }
                    self.end(Why::Signal);
                }
                () = reader.gone(), if ending.is_none() => self.end(Why::HungUp),
                written = self.stdout.written() => self.written(written)?,
                permit = self.requests.clone().reserve_owned(), if !self.outbox.is_empty() => {
                    send(permit.ok(), &mut self.outbox);
                }
                response = self.responses.message() => match response {
                    Ok(Some(response)) => self.receive(response),
                    over => return self.over(over.map(|_| ())),
                },
                () = wait(timeout), if ending.is_none() => self.end(Why::Timeout),
                () = wait(ending), if ending.is_some() => {
                    if self.is_closing() {
                        return self.over(Ok(()));
                    }
                    // The reader stands still: what is under way counts as not written.
                    self.close();
                }
            }
        }
    }

    /// Writes what is there, or closes when the end has come and nothing is being written.
    fn advance(&mut self) {
        if self.stdout.is_writing() {
            return;
        }
        match &self.end {
            Some(end) if !end.closing => self.close(),
            Some(_) => {}
            None if self.queue.is_empty() => {}
            None => self.write(),
        }
    }

    fn wanted(&self) -> Option<u64> {
        self.options
            .count
            .map(|count| count.saturating_sub(self.printed))
    }

    fn write(&mut self) {
        let mut chunk = Vec::new();
        let wanted = self.wanted().unwrap_or(u64::MAX);
        while chunk.len() < CHUNK_BYTES && (self.writing.len() as u64) < wanted {
            let Some(delivery) = self.queue.pop_front() else {
                break;
            };
            self.render(&mut chunk, &delivery);
            self.writing.push(delivery.token);
        }
        self.stdout.write(chunk);
    }

    fn render(&self, chunk: &mut Vec<u8>, delivery: &proto::Delivery) {
        let Some(record) = &delivery.record else {
            return;
        };
        // A Vec takes everything, and a line's fields are all of a kind that JSON has.
        let _ = if self.options.json {
            serde_json::to_writer(&mut *chunk, &Line::of(record, delivery.offset))
                .map(|()| chunk.push(b'\n'))
                .map_err(io::Error::from)
        } else {
            self.options.format.write(chunk, record, delivery.offset)
        };
    }

    fn written(&mut self, result: io::Result<()>) -> anyhow::Result<()> {
        let tokens = mem::take(&mut self.writing);
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.writing = tokens;
                self.end(Why::HungUp);
                return Ok(());
            }
            written => written.context("standard output cannot be written")?,
        }
        self.printed += tokens.len() as u64;
        // First the smaller window, so that the acknowledgements make no room for what is not wanted.
        if let Some(wanted) = self.wanted()
            && wanted < self.options.window
        {
            self.send(Request::Window(self.options.window_for(Some(wanted))));
        }
        self.settle(tokens, Action::Ack(proto::Ack {}));
        if self.wanted() == Some(0) {
            self.end(Why::Counted);
        }
        Ok(())
    }

    fn end(&mut self, why: Why) {
        if self.end.is_none() {
            self.end = Some(End {
                why,
                by: Instant::now() + LAST_WRITE,
                closing: false,
            });
        }
    }

    fn is_closing(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.closing)
    }

    /// Gives back what is not written, and asks the sidecar to end the stream when everything is settled.
    fn close(&mut self) {
        if let Some(end) = &mut self.end {
            end.closing = true;
            end.by = Instant::now() + LAST_ANSWERS;
        }
        let unwritten = mem::take(&mut self.writing);
        self.settle(unwritten, Action::Release(proto::Release {}));
        self.send(Request::Drain(proto::Drain {}));
        self.give_back();
    }

    fn give_back(&mut self) {
        let tokens = self
            .queue
            .drain(..)
            .map(|delivery| delivery.token)
            .collect();
        self.settle(tokens, Action::Release(proto::Release {}));
    }

    fn settle(&mut self, tokens: Vec<Bytes>, action: Action) {
        if tokens.is_empty() {
            return;
        }
        self.request_id += 1;
        if matches!(action, Action::Ack(_)) {
            self.awaited.insert(self.request_id);
        }
        let items = tokens.into_iter().map(|token| proto::SettleItem {
            token,
            action: Some(action.clone()),
        });
        self.send(Request::Settle(proto::Settle::new(
            self.request_id,
            items.collect(),
        )));
    }

    fn send(&mut self, message: Request) {
        self.outbox.push_back(SubscribeRequest {
            message: Some(message),
        });
    }

    fn receive(&mut self, response: SubscribeResponse) {
        match response.message {
            Some(Response::Deliveries(deliveries)) => {
                self.queue.extend(deliveries.deliveries);
                if self.is_closing() {
                    self.give_back();
                }
            }
            Some(Response::Settled(settled)) => self.settled(&settled),
            Some(Response::Draining(_)) => self.draining = true,
            Some(Response::PartitionEvent(event)) => tell(&event),
            _ => {}
        }
    }

    fn settled(&mut self, settled: &proto::Settled) {
        // That a record to be given back is already taken back is no loss.
        if !self.awaited.remove(&settled.request_id) {
            return;
        }
        let refused: Vec<_> = settled
            .outcomes
            .iter()
            .map(proto::ItemOutcome::outcome)
            .filter(|outcome| *outcome != Settlement::AlreadySettled)
            .collect();
        if let Some(first) = refused.first() {
            self.refused += refused.len() as u64;
            complain(&format_args!(
                "{} printed records could not be acknowledged and will come again ({})",
                refused.len(),
                first.as_str_name()
            ));
        }
    }

    /// The stream is over, or its end was waited for long enough.
    fn over(&self, status: Result<(), Status>) -> anyhow::Result<Outcome> {
        let Some(end) = &self.end else {
            let error = match status {
                Err(status) => ended(&status),
                Ok(()) if self.draining => anyhow!("the sidecar is stopping"),
                Ok(()) => anyhow!("the sidecar ended the stream"),
            };
            return Err(error);
        };
        if end.why == Why::HungUp {
            return Ok(Outcome::Done);
        }
        if !self.awaited.is_empty() {
            let error = status.map_or_else(|status| ended(&status), |()| anyhow!("no answer came"));
            return Err(error.context("the last printed records are perhaps not acknowledged"));
        }
        let missing = self.options.count.filter(|count| self.printed < *count);
        match (end.why, missing) {
            (Why::Timeout, Some(count)) => {
                bail!("{} of {count} records came in time", self.printed)
            }
            _ if self.refused > 0 => bail!(
                "of {} printed records, {} are not acknowledged",
                self.printed,
                self.refused
            ),
            (Why::Signal, Some(_)) => Ok(Outcome::Interrupted),
            _ => Ok(Outcome::Done),
        }
    }
}

/// Partition events that a reader of the output has to know about.
fn tell(event: &proto::PartitionEvent) {
    let what = match event.kind() {
        PartitionEventKind::Truncated => "the log no longer holds the next records",
        PartitionEventKind::Blocked => "a record is blocked, and what has to wait for it",
        _ => return,
    };
    let (topic, partition, reason) = (&event.topic, event.partition, &event.reason);
    complain(&format_args!("{topic}[{partition}]: {what} {reason}"));
}

fn send(permit: Option<OwnedPermit<SubscribeRequest>>, outbox: &mut VecDeque<SubscribeRequest>) {
    match (permit, outbox.pop_front()) {
        (Some(permit), Some(request)) => drop(permit.send(request)),
        // The stream is over; its status comes as a response.
        _ => outbox.clear(),
    }
}
